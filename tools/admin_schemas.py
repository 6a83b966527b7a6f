"""The arguments of the writing admin tools, from the models and by our own publishing rules, so that contract and tools can't drift.

Shown: what a model needs to fill in. Checked: only the outermost types, since `parsing` says more about the insides than a schema.
"""

from typing import Any

from pydantic import BaseModel

from tools.json_schema import Schema, is_array, is_object
from tools.models import INLINE_SECRETS, CreateIntegrationRequest, EndpointConfig, UpdateIntegrationRequest
from tools.published import publish

_SAID: dict[str, str] = {
    "name": "Lower case letters, digits, - and _; it begins the tools' names and never changes.",
    "display_name": "What people call the system.",
    "base_url": "Absolute http(s) URL without query; endpoint paths are joined to it.",
    "endpoints": "The operations; each becomes a tool.",
    "auth": "How calls are signed. Secrets are named by path, never given here.",
    "enabled": "While false it shows no tools.",
    "mcp_transport": "For protocol mcp.",
    "mcp_command": "For stdio: absolute path of the program.",
    "mcp_args": "For stdio.",
    "mcp_url": "For sse or http.",
    "mcp_headers": "For sse or http; a value can be secret:/path.",
    "mcp_env": "For stdio: environment of the program.",
}
_SAID_OF_ENDPOINT: dict[str, str] = {
    "name": "Unique in the integration, like get_patient; the tool is named {integration}_{endpoint}.",
    "description": "What it does and when to use it; agents choose by this.",
    "path": "Joined to base_url; {name} takes that argument, like /patients/{id}.",
    "base_url": "In place of the integration's.",
    "auth": "In place of the integration's; same fields.",
    "input_schema": "JSON Schema of the arguments (type object). x-in: path|query|header|body and x-name place one elsewhere.",
    "response_filter": "Paths that stay, like entry.resource.id; arrays are gone through by themselves.",
    "response_mapping": "Output name to path or JMESPath expression.",
    "result_key": "Path or JMESPath expression that picks the result.",
    "result_template": "Jinja template; the value's keys are names, also result and args.",
    "headers": "Static headers; a value can be secret:/path.",
    "body_format": "Of POST, PUT and PATCH.",
    "result_delivery": "queue runs in the background.",
}
_RETRY = {"type": "object", "description": 'Like {"max_retries": 2, "retry_on_status": [429, 502, 503, 504]}.'}
_LIMITS = {"type": "object", "description": 'Like {"concurrency": 8, "rate": "600/min"}.'}
_ANNOTATIONS = {
    "type": "object",
    "description": "MCP hints that override what the method implies, like idempotentHint.",
}


_CHECKED_LATER = frozenset({"minLength", "maxLength", "pattern"})
_BARE = ("name", "description", "method", "path", "input_schema")
"""Of an endpoint in create_integration: the whole would cost a model 800 tokens twice."""


def create_integration_arguments() -> tuple[Schema, list[str]]:
    """(properties, required)"""
    properties, required = _fields(CreateIntegrationRequest)
    properties["limits"] = _LIMITS
    endpoint, names = create_endpoint_arguments()
    properties["endpoints"] = {
        "type": "array",
        "description": _SAID["endpoints"],
        "items": {
            "type": "object",
            "description": "Further fields as in create_endpoint.",
            "properties": {n: endpoint[n] for n in _BARE},
            "required": names,
        },
    }
    return _described(properties, _SAID), required


def update_integration_arguments() -> Schema:
    """All fields but the name; each optional."""
    properties, _ = _fields(UpdateIntegrationRequest)
    properties["endpoints"] = {
        "type": "array",
        "description": "Replaces the whole list: endpoints left out are gone. Use update_endpoint to change one.",
        "items": {"type": "object"},
    }
    auth = {"type": "object", "description": "As in create_integration."}
    said = {name: text for name, text in _SAID.items() if not name.startswith("mcp_")}  # create_integration says it
    return _described({**properties, "limits": _LIMITS, "auth": auth}, said)


def create_endpoint_arguments() -> tuple[Schema, list[str]]:
    """(properties, required) of one endpoint."""
    properties, required = _fields(EndpointConfig)
    properties |= {"auth": {"type": "object"}, "retry_config": _RETRY, "annotations": _ANNOTATIONS}
    return _described(properties, _SAID_OF_ENDPOINT), required


def outermost(properties: Schema) -> Schema:
    """The same names with their types only: what arguments are checked by before `parsing` reads the insides."""
    return {name: {"type": prop["type"]} if "type" in prop else {} for name, prop in properties.items()}


def _fields(model: type[BaseModel]) -> tuple[Schema, list[str]]:
    published = publish(model.model_json_schema()).schema
    properties: Schema = {n: p for n, p in published["properties"].items() if n not in INLINE_SECRETS}
    if "auth" in properties:
        inner = properties["auth"]["properties"]
        properties["auth"]["properties"] = {n: p for n, p in inner.items() if n not in INLINE_SECRETS}
    return _without_noise(properties), list(published.get("required", []))


def _without_noise(node: Any) -> Any:
    """Empty defaults, notes for readers of the contract, lengths and patterns cost tokens and tell a model little; `parsing` checks them."""
    if is_array(node):
        return [_without_noise(item) for item in node]
    if not is_object(node):
        return node
    kept: dict[str, Any] = {n: _without_noise(v) for n, v in node.items() if n not in _CHECKED_LATER}
    said = kept.get("description")
    if isinstance(said, str):
        said = said.removeprefix("Additive: ")
        if said in ('Default: "".', "Default: [].", "Default: {}."):
            del kept["description"]
        else:
            kept["description"] = said
    return kept


def _described(properties: Schema, said: dict[str, str]) -> Schema:
    """Our sentence, then the default that publishing wrote."""
    described: Schema = {}
    for name, prop in properties.items():
        written = str(prop.get("description", ""))
        default = written[written.index("Default: ") :] if "Default: " in written else ""
        text = " ".join(part for part in (said.get(name, ""), default) if part) or written
        described[name] = {**prop, "description": text} if text else prop
    return described
