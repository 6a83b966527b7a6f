"""The tools of an MCP server as candidates: endpoints that only name them, so that texts and schemas stay the server's. Pure.

Which looks they had when they were first seen is the registry's to know (`UpstreamTools.pins`); an endpoint adds what an operator
decides: its name, whether it is shown, and later his own words and narrower arguments.
"""

import json
from collections.abc import Iterable

from tools.descriptions import estimate_tokens
from tools.importers.frame import Candidate, LeftOut, Source
from tools.importers.wording import endpoint_name
from tools.kinds.mcp.described import Described, annotations_of, digest_of, fault_of, input_schema_of
from tools.models import EndpointConfig, UpstreamTools
from tools.published import publish


def read_tools(found: Iterable[Described], title: str, where: str, before: UpstreamTools | None) -> Source:
    """`where` is shown, never called. `before`: what the registry keeps of the same server, to tell tools that look different."""
    candidates: list[Candidate] = []
    left: list[LeftOut] = []
    seen: set[str] = set()
    names: set[str] = set()
    pins = before.pins if before is not None else {}
    for tool in sorted(found, key=lambda t: str(t.get("name"))):
        name = str(tool.get("name"))
        fault = fault_of(tool) or ("is there twice" if name in seen else None)
        if fault is not None:
            left.append(LeftOut(f"tool {name[:64]!r}", fault))
            continue
        seen.add(name)
        endpoint = EndpointConfig(name=endpoint_name(name, names), description="", path=name)
        names.add(endpoint.name)
        notes = (
            ("looks different than when it was first seen",)
            if pins.get(name, digest_of(tool)) != digest_of(tool)
            else ()
        )
        candidates.append(
            Candidate(f"tool {name}", endpoint, (_hint(tool),), name, notes=notes, tokens=_tokens(endpoint.name, tool))
        )
    return Source(title or "MCP server", where, None, tuple(candidates), tuple(left), protocol="mcp")


def _hint(tool: Described) -> str:
    """By the server's word, with what the protocol takes where it says nothing."""
    hints = annotations_of(tool)
    if hints.get("readOnlyHint") is True:
        return "read-only"
    return "additive" if hints.get("destructiveHint") is False else "destructive"


def _tokens(name: str, tool: Described) -> int:
    entry = {
        "name": name,
        "description": tool.get("description", ""),
        "inputSchema": publish(input_schema_of(tool)).schema,
    }
    return estimate_tokens(json.dumps(entry, ensure_ascii=False, separators=(",", ":")))
