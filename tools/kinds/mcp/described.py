"""What an upstream says of its tools: which can be shown to every host, what they look like, and whether they have changed. Pure."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson
from mcp.shared.inbound import find_invalid_x_mcp_header

from tools.json_schema import IMPORTED, is_array, is_object
from tools.kinds.rest import to_json
from tools.models import MAX_SCHEMA_BYTES, EndpointConfig, Integration, UpstreamTools
from tools.naming import nearest
from tools.publish_rules import portable_pattern
from tools.published import PublishRefused, publish
from tools.schemas import check_schema
from tools.suspicious_text import suspicions_of_tool

MAX_DESCRIPTION = 64 * 1024
MAX_NAME = 256
MAX_TOOL_BYTES = 256 * 1024
"""Of a tool's whole entry, icons and `_meta` included: each is stored, and in every list."""
MAX_URI = 2048
_OLD_APP = "ui/resourceUri"
Described = Mapping[str, Any]


def kept(
    found: Iterable[Described], before: UpstreamTools | None, *, source: str, server: str, protocol_version: str
) -> UpstreamTools:
    """What the registry keeps of a list. `before`: what was seen first; None takes everything as it is now.

    A tool that some host couldn't take is left out and named, never the whole list.
    """
    pins = dict(before.pins) if before is not None else {}
    tools: dict[str, dict[str, Any]] = {}
    left_out: list[str] = []
    changed: list[str] = []
    for tool in found:
        name = tool.get("name")
        if (fault := fault_of(tool)) is not None:
            left_out.append(f"{str(name)[:64]!r}: {fault}")
            continue
        assert isinstance(name, str)
        if name in tools:
            left_out.append(f"{name[:64]!r}: is there twice")
            continue
        tools[name] = dict(tool)
        digest = digest_of(tool)
        if pins.setdefault(name, digest) != digest:
            changed.append(name)
    return UpstreamTools(
        tools=tuple(tools[name] for name in sorted(tools)),
        pins=pins,
        changed=tuple(sorted(changed)),
        left_out=tuple(left_out[:100]),
        server=server,
        protocol_version=protocol_version,
        source=source,
    )


def digest_of(tool: Described) -> str:
    """Of what a model and a host act on."""
    seen = {key: tool.get(key) for key in ("title", "description", "inputSchema", "outputSchema", "annotations")}
    try:
        text = orjson.dumps(seen, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # integers beyond 64 bits
        text = json.dumps(seen, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()


def fault_of(tool: Described) -> str | None:
    """Why no host could be shown this tool; None if it can."""
    name, description = tool.get("name"), tool.get("description", "")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or not name.isprintable():
        return f"a name has 1 to {MAX_NAME} printable characters"
    if not isinstance(description, str) or len(description) > MAX_DESCRIPTION:
        return f"a description is text of at most {MAX_DESCRIPTION} characters"
    if not all(_is_kind(tool.get(key), kind) for key, kind in (("title", str), ("annotations", dict), ("_meta", dict))):
        return "title is text, annotations and _meta are objects"
    icons = tool.get("icons")
    if icons is not None and not (
        is_array(icons) and all(is_object(i) and isinstance(i.get("src"), str) for i in icons)
    ):
        return "icons are a list of objects with a src"
    schema = tool.get("inputSchema")
    if len(to_json(tool)) > MAX_TOOL_BYTES:
        return f"a tool is at most {MAX_TOOL_BYTES // 1024} KB"
    if not is_object(schema) or len(to_json(schema)) > MAX_SCHEMA_BYTES:
        return f"its inputSchema is no JSON object of at most {MAX_SCHEMA_BYTES // 1024} KB"
    if (invalid := find_invalid_x_mcp_header(schema)) is not None:
        # 2026-07-28: a client must not use such a tool, since what it mirrors into headers can't be told.
        return f"its inputSchema has an x-mcp-header that can't be used: {invalid}"
    return schema_fault(input_schema_of(tool))


def _is_kind(value: Any, kind: type) -> bool:
    return value is None or isinstance(value, kind)


def schema_fault(schema: Mapping[str, Any]) -> str | None:
    """What is wrong with an input schema, in one sentence."""
    faults = check_schema(dict(schema))
    if faults:
        where = ".".join(map(str, faults[0].loc))
        return f"its inputSchema can't be used: {f'{where}: ' if where else ''}{faults[0].message}"
    try:
        publish(dict(schema))
    except PublishRefused as e:
        return f"its inputSchema {e.message}"
    return None


def input_schema_of(tool: Described, endpoint: EndpointConfig | None = None) -> dict[str, Any]:
    """The schema that arguments must fit. The endpoint's own, where it has one, decides which arguments there are; a property
    that it leaves open is as the upstream describes it."""
    given: Mapping[str, Any] = tool.get("inputSchema") or {}
    # An anchor that nothing refers to says nothing; our schemas have none.
    dropped = _OWN_KEYWORDS if _TO_ANCHOR.search(to_json(given)) else _OWN_KEYWORDS | {"$anchor"}
    theirs = _without(given, dropped)
    ours = {k: v for k, v in endpoint.input_schema.items() if k != IMPORTED} if endpoint is not None else {}
    if not ours:
        return theirs
    properties: dict[str, Any] = theirs.get("properties") or {}
    if is_object(listed := ours.get("properties")):
        ours["properties"] = {
            name: {**properties[name], **own} if is_object(own) and is_object(properties.get(name)) else own
            for name, own in listed.items()
        }
    for key in ("$defs", "definitions"):
        if key in theirs and key not in ours:
            ours[key] = theirs[key]
    return ours


_OWN_KEYWORDS = frozenset({"x-in", "x-name", "x-body", "x-fixed"})
_TO_ANCHOR = re.compile(rb'"\$ref":"(?!#/|#")')


def _without(schema: Any, keywords: frozenset[str]) -> Any:
    """Our keywords are the operator's to use: an upstream can't hide or rename arguments with them."""
    if is_array(schema):
        return [_without(s, keywords) for s in schema]
    if not is_object(schema):
        return schema
    return {k: _without(v, keywords) for k, v in schema.items() if k not in keywords}


def output_schema_of(tool: Described) -> dict[str, Any] | None:
    """The output schema as it is, if no known host loses the whole list over it; else none, which costs nothing but checks."""
    schema = tool.get("outputSchema")
    if not is_object(schema) or schema.get("type") != "object" or len(to_json(schema)) > MAX_SCHEMA_BYTES:
        return None
    return schema if not check_schema(schema) and _is_harmless(schema) else None


def _is_harmless(schema: Any) -> bool:
    """No boolean subschemas, no pattern that ECMA-262 hasn't, nothing fetched from elsewhere (agents.md 3)."""
    if is_array(schema):
        return all(_is_harmless(s) for s in schema)
    if not is_object(schema):
        return True
    reference, pattern, properties = schema.get("$ref"), schema.get("pattern"), schema.get("properties")
    if isinstance(reference, str) and not reference.startswith("#"):
        return False
    if isinstance(pattern, str) and not portable_pattern(pattern):
        return False
    if is_object(properties) and any(isinstance(p, bool) for p in properties.values()):
        return False
    return all(_is_harmless(v) for k, v in schema.items() if k not in ("const", "enum", "default", "examples"))


@dataclass(frozen=True, slots=True)
class App:
    """A page of an upstream: its own URI there, and the one that hosts see."""

    uri: str
    published: str


def app_of(tool: Described, integration: str) -> App | None:
    """The page that shows the tool's results (MCP Apps: `_meta.ui.resourceUri`, or as it was written before)."""
    meta = tool.get("_meta")
    if not is_object(meta):
        return None
    ui = meta.get("ui")
    uri = ui.get("resourceUri") if is_object(ui) else None
    uri = uri if uri is not None else meta.get(_OLD_APP)
    if not isinstance(uri, str) or not uri.startswith("ui://") or len(uri) > MAX_URI or not uri.isprintable():
        return None
    return App(uri, f"ui://{integration}/{uri.removeprefix('ui://')}")


def is_for_pages(tool: Described) -> bool:
    """Whether pages of its server may call it (`_meta.ui.visibility`)."""
    meta = tool.get("_meta")
    ui = meta.get("ui") if is_object(meta) else None
    visibility = ui.get("visibility") if is_object(ui) else None
    return visibility is None or (isinstance(visibility, list) and "app" in visibility)


def meta_of(tool: Described, app: App | None) -> dict[str, Any]:
    """The tool's `_meta` for hosts, with the page's published URI; without `app` it has no page."""
    given = tool.get("_meta")
    meta: dict[str, Any] = dict(given) if is_object(given) else {}
    ui = meta.get("ui")
    if is_object(ui) and "resourceUri" in ui:
        meta["ui"] = (
            {**ui, "resourceUri": app.published} if app else {k: v for k, v in ui.items() if k != "resourceUri"}
        )
    if _OLD_APP in meta:
        meta[_OLD_APP] = app.published if app else None
    return {k: v for k, v in meta.items() if k != _OLD_APP or v is not None}


def annotations_of(tool: Described) -> dict[str, Any]:
    found = tool.get("annotations")
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def missing_tool(integration: Integration, endpoint: EndpointConfig) -> str:
    """Why an endpoint over an MCP upstream's tool is no tool, and what to do."""
    listing, path = integration.upstream_tools, endpoint.path[:80]
    if listing is None:
        return f"the tools of {integration.name} couldn't be read yet: run test_connection, which says why"
    names = [str(t["name"]) for t in listing.tools]
    if endpoint.path in names:
        if endpoint.path in listing.changed:
            return f"{path} looks different than when it was first seen, so it is withdrawn: look at it and save {integration.name} to accept it"
        if found := suspicions_of_tool(next(t for t in listing.tools if t["name"] == endpoint.path)):
            return f"{path} has suspicious text ({found[0]}): describe it and its arguments in {endpoint.name} in your own words"
        return f"the arguments of {endpoint.name} don't fit what {integration.name} says of {path} now: look at its input_schema"
    if close := nearest(path, names):
        patch = orjson.dumps({"integration": integration.name, "endpoint": endpoint.name, "patch": {"path": close}})
        return f"{integration.name} has no tool {path}; did you mean {close}? Then: update_endpoint {patch.decode()}"
    return f"{integration.name} has no tool {path}; it has {', '.join(names[:30]) or 'none'}"
