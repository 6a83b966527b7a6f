"""Writes docs/reference from the code: `python -m tests.reference`. tests/test_docs_reference.py fails while a page is stale.

Types, defaults and limits come from the code; what a field is for is said here, in `MEANING`.
"""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel

import tools.errors
from server.cli.main import app
from server.settings import ENV_PREFIX, FROM_FILES, Settings
from tests.dependencies import dependencies_page
from tools.errors import CallError, GatewayError
from tools.models import (
    Annotations,
    AuthConfigWithSecrets,
    CallLimits,
    CreateIntegrationRequest,
    EndpointConfig,
    RetryConfig,
    SecretInput,
)

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
HEAD = "<!-- Written by `python -m tests.reference`; change the code, not this page. -->\n\n"

MODELS: dict[str, tuple[type[BaseModel], str]] = {
    "Integration": (CreateIntegrationRequest, "The body of a create, and an entry of a file."),
    "Endpoint": (
        EndpointConfig,
        "An element of `endpoints`. [Writing an endpoint](../writing-an-endpoint.md) has examples.",
    ),
    "Retry": (RetryConfig, "`retry_config` of an endpoint."),
    "Annotations": (
        Annotations,
        "`annotations` of an endpoint: what the method implies is replaced by what is set here.",
    ),
    "Limits": (CallLimits, "`limits` of an integration."),
    "Auth": (
        AuthConfigWithSecrets,
        "`auth` of an integration or an endpoint. [How calls are signed](../auth/README.md) has each type.",
    ),
    "Secret": (SecretInput, 'The value of an inline secret: `{"value": "..."}`.'),
}

MEANING: dict[str, str] = {
    "Integration.name": "First half of the tool names; unique in the workspace, never changed.",
    "Integration.display_name": "The system's name for people and in tool titles.",
    "Integration.protocol": "What the system speaks.",
    "Integration.base_url": "Where it is: absolute http(s), no user name, query or fragment. Empty only if every endpoint has its own.",
    "Integration.auth": "How calls are signed.",
    "Integration.endpoints": "Its operations, at most 1,000. Each is a tool.",
    "Integration.enabled": "Off: no tools, and it can still be tested.",
    "Integration.approval_policy": "When a person must approve a call; an endpoint can have its own.",
    "Integration.limits": "How much of it may run: [limits](../limits.md).",
    "Integration.mcp_transport": "`mcp`: how the upstream server is reached.",
    "Integration.mcp_command": "`mcp` over stdio: absolute path of the program.",
    "Integration.mcp_args": "`mcp` over stdio: its arguments.",
    "Integration.mcp_env": "`mcp` over stdio: its environment; a value can be `secret:/path`.",
    "Integration.mcp_url": "`mcp` over sse or http: its URL.",
    "Integration.mcp_headers": "`mcp` over sse or http: static headers; a value can be `secret:/path`.",
    "Endpoint.name": "Second half of the tool name; unique in the integration.",
    "Endpoint.description": "What the model reads. It decides whether the tool is chosen.",
    "Endpoint.method": "HTTP method.",
    "Endpoint.path": "Joined to the base URL; `{name}` takes that argument as one segment.",
    "Endpoint.base_url": "Replaces the integration's.",
    "Endpoint.auth": "Replaces the integration's; secrets by path only.",
    "Endpoint.input_schema": "JSON Schema (2020-12) of the arguments; `{}` takes any object.",
    "Endpoint.response_filter": "Paths of the answer that stay.",
    "Endpoint.response_mapping": "Output name to expression.",
    "Endpoint.result_key": "Expression that picks the result.",
    "Endpoint.result_template": "The text that the model reads, as a template.",
    "Endpoint.max_result_length": "Characters before a result is cut; 0 is the gateway's budget.",
    "Endpoint.retry_config": "What is tried again.",
    "Endpoint.result_delivery": "`interrupt`: the answer is the tool's result. `queue`: the call may go on in the background.",
    "Endpoint.headers": "Static headers, at most 50; a value can be `secret:/path`.",
    "Endpoint.body_format": "How the body is written.",
    "Endpoint.timeout_seconds": "Deadline of the whole call, retries included; null is 30.",
    "Endpoint.annotations": "Hints for hosts; `idempotentHint` also decides what is retried.",
    "Endpoint.approval_policy": "When a person must approve a call; null takes the integration's.",
    "Retry.max_retries": "Further attempts after the first.",
    "Retry.retry_on_status": "Statuses that are tried again.",
    "Annotations.title": "The tool's title.",
    "Annotations.readOnlyHint": "It changes nothing.",
    "Annotations.destructiveHint": "It can destroy something.",
    "Annotations.idempotentHint": "Repeating it does no harm: retried like PUT.",
    "Annotations.openWorldHint": "It reaches beyond the gateway.",
    "Limits.concurrency": "Calls at once, in each process; further ones wait.",
    "Limits.rate": "Calls in a time: `10/s`, `600/min` or `1000/h`; further ones are refused.",
    "Auth.type": "Which of the six types.",
    "Auth.header_name": "`api_key_header`: the header; null is `X-API-Key`.",
    "Auth.ssm_param_path": "Path of the API key; `gcp_wif`: of the external account JSON.",
    "Auth.api_key_value": "The same, inline.",
    "Auth.token_ssm_param_path": "`bearer_token`: path of the token.",
    "Auth.bearer_token_value": "The same, inline.",
    "Auth.token_url": "Where tokens come from.",
    "Auth.client_id": "The client's id there.",
    "Auth.client_secret_ssm_param_path": "Path of the client secret.",
    "Auth.client_secret_value": "The same, inline.",
    "Auth.scopes": "Scopes to ask for, one an element.",
    "Auth.gcp_scopes": "`gcp_wif`: scopes; null is cloud-platform.",
    "Auth.private_key_ssm_param_path": "Path of the key that signs assertions.",
    "Auth.private_key_value": "The same, inline.",
    "Auth.assertion_issuer": "`iss` of an assertion.",
    "Auth.assertion_subject": "`sub`; null is the issuer.",
    "Auth.assertion_audience": "`aud`; null is the token URL.",
    "Auth.token_lifetime_seconds": "Life of an assertion (`gcp_wif`: of the token asked for), never how long a token is reused.",
    "Auth.assertion_algorithm": "null: the key decides.",
    "Auth.assertion_scopes_in_jwt": "Scopes as a claim of the assertion instead of a form field.",
    "Auth.assertion_kid": "Key id in the assertion's header.",
    "Auth.client_auth_method": "How the client proves itself at the token endpoint; null finds out.",
    "Auth.token_params": "Further form fields of the token request, at most 10.",
    "Secret.value": "1 to 8,192 bytes. Stored, replaced by its path, never shown again.",
}


def cell(text: str) -> str:
    """Text that stays in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def table(*columns: str) -> list[str]:
    return [row(*columns), "|" + "---|" * len(columns)]


def type_of(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return next((noun for noun, (model, _) in MODELS.items() if model.__name__ == name), "Auth")
    if "anyOf" in schema:
        return " or ".join(type_of(part, definitions) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{v}`" for v in schema["enum"])
    match schema.get("type"):
        case "array":
            return f"list of {type_of(schema.get('items', {}), definitions)}"
        case "object":
            return "object"
        case kind:
            return str(kind or "any")


def limits_of(schema: dict[str, Any]) -> str:
    """What bounds a value, from its schema; empty where nothing does."""
    parts = [p for p in [schema, *schema.get("anyOf", [])] if p.get("type") != "null"]
    words = {"minLength": "at least {} characters", "maxLength": "at most {} characters", "minimum": "from {}"}
    words |= {"maximum": "to {}", "exclusiveMinimum": "above {}", "maxItems": "at most {}", "pattern": "`{}`"}
    found = [text.format(part[key]) for part in parts for key, text in words.items() if key in part]
    return ", ".join(found)


def fields_page() -> str:
    lines = ["# Fields", "", "Unknown keys are refused with the nearest known name.", ""]
    for noun, (model, about) in MODELS.items():
        schema = model.model_json_schema()
        required = set(schema.get("required", []))
        lines += [f"## {noun}", "", about, "", *table("field", "type", "default", "limits", "meaning")]
        for name, of in schema["properties"].items():
            empty = {} if of.get("type") == "object" else None
            default = "required" if name in required else f"`{json_of(of.get('default', empty))}`"
            kind = type_of(of, schema.get("$defs", {}))
            lines.append(
                row(f"`{name}`", cell(kind), cell(default), cell(limits_of(of)), cell(MEANING[f"{noun}.{name}"]))
            )
        lines.append("")
    return "\n".join(lines)


def json_of(value: Any) -> str:
    return json.dumps(value)


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "Flags win over the environment. An unknown `INTEGRATIONS_MCP_*` name is refused with the nearest known one.",
        "",
    ]
    lines += [
        "Lists are JSON, or words with commas between them. Settings with a secret can be read from a file instead: "
        + ", ".join(f"`{ENV_PREFIX}{name}_FILE`" for name in sorted(FROM_FILES))
        + " name it.",
        "",
        *table("environment variable", "default", "what"),
    ]
    for name, field in Settings.model_fields.items():
        match field.default_factory:
            case None:
                default = json_of(field.default if not isinstance(field.default, tuple) else list(field.default))
            case _:
                default = "~/.integrations-mcp"
        lines.append(row(f"`{ENV_PREFIX}{name.upper()}`", f"`{default}`", cell(field.description or "")))
    return "\n".join([*lines, ""])


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(words, command) of every command that does something."""
    for name in command.list_commands(None):
        child = command.get_command(None, name)
        if hasattr(child, "list_commands"):
            yield from commands(child, (*words, name))
        else:
            yield (*words, name), child


def cli_page() -> str:
    lines = [
        "# Commands",
        "",
        "Exit codes: 0 done, 1 the thing asked for failed, 2 wrong usage. With `--json`, stdout is JSON and nothing else.",
        "",
    ]
    for words, command in commands(typer.main.get_command(app)):
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
        usage = " ".join([*words, *(f"{p.name.upper()}" if p.required else f"[{p.name.upper()}]" for p in arguments)])
        lines += [f"## integrations-mcp {' '.join(words)}", "", f"`integrations-mcp {usage}`", ""]
        paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
        lines += [
            line for text in paragraphs for line in (f"`{text[9:]}`" if text.startswith("Example: ") else text, "")
        ]
        if arguments or options:
            lines += table("argument, option", "what")
            lines += [row(f"`{p.name.upper()}`", cell(p.help or "")) for p in arguments]
            lines += [
                row(", ".join(f"`{o}`" for o in [*p.opts, *p.secondary_opts]), cell(p.help or "")) for p in options
            ]
            lines.append("")
    return "\n".join(lines)


def errors() -> list[type[GatewayError]]:
    """Every error class of tools.errors, in the order in which it stands there."""
    return [e for e in vars(tools.errors).values() if isinstance(e, type) and issubclass(e, GatewayError)]


def errors_page() -> str:
    lines = [
        "# Error codes",
        "",
        "Codes are stable and may be scripted against. [Troubleshooting](../troubleshooting.md) says what to do.",
        "",
    ]
    lines += [
        "## A request to the gateway is refused",
        "",
        "Nothing was changed.",
        "",
        *table("code", "HTTP status", "meaning"),
    ]
    calls = [e for e in errors() if issubclass(e, CallError) and e is not CallError]
    others = [e for e in errors() if not issubclass(e, CallError) and "code" in vars(e)]
    lines += [row(f"`{e.code}`", str(e.status), first_line(e)) for e in others if e is not GatewayError]
    lines += [
        "",
        "## A call ended without an answer",
        "",
        *table("code", "whose fault", "sent", "repeat it", "meaning"),
    ]
    for e in calls:
        match e.code:
            case "upstream_timeout":
                code, sent, again = (
                    "`upstream_timeout`, `upstream_timeout_unknown`",
                    "no; unknown",
                    "if nothing was changed",
                )
            case "upstream_error":
                code, sent, again = "`upstream_STATUS`, like `upstream_404`", "yes", "no"
            case _:
                code, sent, again = f"`{e.code}`", e.sent, "yes" if e.retryable else "no"
        lines.append(row(code, e.fault, sent, again, first_line(e)))
    return "\n".join([*lines, ""])


def first_line(e: type) -> str:
    return cell((e.__doc__ or "").split("\n\n")[0])


PAGES = {
    "settings.md": settings_page,
    "cli.md": cli_page,
    "errors.md": errors_page,
    "fields.md": fields_page,
    "dependencies.md": dependencies_page,
}


def page(name: str) -> str:
    return HEAD + PAGES[name]()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in PAGES:
        (FOLDER / name).write_text(page(name), "utf-8")
