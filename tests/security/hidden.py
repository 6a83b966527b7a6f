"""Characters that a person doesn't see and a model or a terminal obeys, wherever an upstream's text is read by a model."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from tests.fhir_servers.small import FHIR, bundle, fhir, patient, search
from tests.security.frame import add
from tests.security.ground import Ground, rest
from tests.security.upstreams import PLAIN, _mcp, _shown, mcp_server
from tests.upstreams import Received, Step, answer
from tools.importers.requests import ImportRequest

GUARD = "hidden characters"
HIDDEN: Mapping[str, str] = {
    "tag characters": "\U000e006f\U000e0062\U000e0065\U000e0079",
    "terminal codes": "\x1b[8m",
    "turned text": "\u202edrocer",
    "zero width": "\u200b\u200c\u200b\u2060",
    "selectors": "\ufe00\ufe01\U000e0120\U000e0121",
    "C1 codes": "\x9b8m",
}
SOME = ("tag characters", "turned text")
JSON, TEXT = {"Content-Type": "application/json"}, {"Content-Type": "text/plain; charset=utf-8"}


def _read_by_model(outcome: Any) -> str:
    """Everything of an outcome that a host puts before a model."""
    seen: list[Any] = [outcome.text, outcome.structured, outcome.passed_on, [b.text for b in outcome.blocks]]
    return json.dumps(seen, ensure_ascii=False) + outcome.text


def _found(what: str, *texts: str) -> list[str]:
    """The hidden characters themselves: what follows an escape isn't hidden."""
    chars = [c for c in HIDDEN[what] if not c.isascii() or ord(c) < 32]
    return [text for text in texts if sum(c in text for c in chars) == len(chars)]


def _rest(what: str, step: Callable[[str], Step], **endpoint: Any) -> Callable[[Ground], Awaitable[Any]]:
    """What an agent reads of one call."""

    async def strike(ground: Ground) -> Any:
        name, path = ground.name(), f"/{ground.name('p')}"
        ground.script(path, step(HIDDEN[what]))
        there = {"name": "get", "description": "Gets it.", "method": "GET", "path": path, **endpoint}
        assert await ground.create(rest(name, f"http://{ground.host()}", there)) is not None
        outcome = await ground.call(f"{name}_get")
        await ground.drop(name)
        return _found(what, _read_by_model(outcome))

    return strike


def _json(value: Any, status: int = 200) -> Step:
    return answer(status, json.dumps(value, ensure_ascii=False).encode(), JSON)


for _what in HIDDEN:
    add(
        "tool poisoning",
        "result",
        f"{_what} in a text",
        GUARD,
        _rest(_what, lambda h: answer(200, f"a{h}b".encode(), TEXT)),
    )
    add("tool poisoning", "error words", _what, GUARD, _rest(_what, lambda h: answer(400, f"no{h}b".encode(), TEXT)))
for _what in SOME:
    add("tool poisoning", "result", f"{_what} in JSON", GUARD, _rest(_what, lambda h: _json({"a": [f"x{h}"]})))
    add("tool poisoning", "result", f"{_what} in a name of a field", GUARD, _rest(_what, lambda h: _json({f"a{h}": 1})))
    add(
        "tool poisoning",
        "result",
        f"{_what} behind a template",
        GUARD,
        _rest(_what, lambda h: _json({"a": f"x{h}"}), result_template="Says {{ a }}."),
    )
    add(
        "tool poisoning",
        "error words",
        f"{_what} in JSON",
        GUARD,
        _rest(_what, lambda h: _json({"message": f"no{h}b"}, 422)),
    )


def _read_on(what: str) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        ground.script("/caught", _json([f"{n}{HIDDEN[what]}" + "x" * 60 for n in range(2000)]))
        cut = await ground.call("shop_get")
        assert cut.result_id is not None
        more = await ground.call("get_result", {"result_id": cut.result_id, "from": 1500})
        return _found(what, _read_by_model(more))

    return strike


def _managed(what: str, tool: str) -> Callable[[Ground], Awaitable[Any]]:
    """A management tool that quotes an upstream."""

    async def strike(ground: Ground) -> Any:
        ground.script("/caught", _json({"a": f"x{HIDDEN[what]}"}))
        tested = await ground.call("test_integration_endpoint", {"tool": "shop_get", "params": {}})
        if tool == "preview_result":
            assert tested.structured is not None
            tested = await ground.call(tool, {"tool": "shop_get", "result_id": tested.structured["result_id"]})
        return _found(what, _read_by_model(tested))

    return strike


def _quoted_to_managers(what: str) -> Callable[[Ground], Awaitable[Any]]:
    """A test of a connection, which quotes why the upstream refused it."""

    async def refuses(received: Received, writer: Any) -> bool:
        asked = json.loads(received.body or b"{}")
        error = {"code": -32000, "message": f"no{HIDDEN[what]}b"}
        return await _json({"jsonrpc": "2.0", "id": asked.get("id"), "error": error})(received, writer)

    async def strike(ground: Ground) -> Any:
        ground.script("/mcp", refuses)
        body = _mcp(ground)
        assert await ground.create(body) is not None
        found = await ground.call("test_connection", {"integration": body["name"]})
        await ground.drop(body["name"])
        return _found(what, _read_by_model(found))

    return strike


for _what in SOME:
    add("tool poisoning", "get_result", f"{_what} in a cut result", GUARD, _read_on(_what))
    for _tool in ("test_integration_endpoint", "preview_result"):
        add("tool poisoning", "management tool", f"{_what} by {_tool}", GUARD, _managed(_what, _tool))
    add("tool poisoning", "management tool", f"{_what} by a test of a connection", GUARD, _quoted_to_managers(_what))


# --------------------------------------------------------------------------- FHIR


def _record(what: str, status: int, made: Callable[[str], Any], path: str) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        name = ground.name("f")
        ground.script(
            f"/{name}/{path}", answer(status, json.dumps(made(HIDDEN[what]), ensure_ascii=False).encode(), FHIR)
        )
        ground.script(f"/{name}/metadata", fhir(404, {}))
        read = {"name": "read", "description": "d", "method": "GET", "path": "/Patient/{id}"}
        body = rest(name, f"http://{ground.host()}/{name}", read, {"description": "d", **search()})
        assert await ground.create({**body, "protocol": "fhir"}) is not None
        tool, given = ("read", {"id": "1"}) if path.endswith("/1") else ("find", {})
        outcome = await ground.call(f"{name}_{tool}", given)
        await ground.drop(name)
        return _found(what, _read_by_model(outcome))

    return strike


def _outcome(words: str) -> dict[str, Any]:
    issue = {"severity": "error", "code": "invalid", "details": {"text": f"no{words}b"}, "diagnostics": f"d{words}b"}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


for _what in SOME:
    for _told, _strike in {
        "in a record": _record(_what, 200, lambda h: patient("1", name=[{"family": f"I{h}"}]), "Patient/1"),
        "in a match": _record(_what, 200, lambda h: bundle(patient("1", name=[{"family": f"I{h}"}])), "Patient"),
        "in an OperationOutcome": _record(_what, 422, _outcome, "Patient/1"),
    }.items():
        add("tool poisoning", "FHIR answer", f"{_what} {_told}", GUARD, _strike)


# --------------------------------------------------------------------------- MCP


def _listed(
    what: str, made: Callable[[str], Mapping[str, Any]], *, searched: bool
) -> Callable[[Ground], Awaitable[Any]]:
    """A tool on the list of an upstream, where the operator has suspicious ones only reported."""

    async def strike(ground: Ground) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tools.kinds.mcp.mcp_tool.suspicions_of_tool", lambda entry: [])
            ground.script("/mcp", mcp_server([{**PLAIN, **made(HIDDEN[what])}]))
            body = _mcp(ground)
            assert await ground.create(body) is not None
            shown: Any = await _shown(ground, body["name"])
            if searched:
                shown = (await ground.call("find_tools", {"query": f"{body['name']} record"})).structured
            await ground.drop(body["name"])
        assert shown
        return _found(what, json.dumps(shown, ensure_ascii=False) + _texts(shown))

    return strike


def _texts(value: Any) -> str:
    """All texts of a value as they are, so that control characters are seen too."""
    if isinstance(value, dict):
        return "".join(map(_texts, [*value, *value.values()]))
    return "".join(map(_texts, value)) if isinstance(value, list | tuple) else value if isinstance(value, str) else ""


TOOLS: Mapping[str, Callable[[str], Mapping[str, Any]]] = {
    "a description": lambda h: {"description": f"Reads{h} a record."},
    "a title": lambda h: {"title": f"Read{h}"},
    "an annotation": lambda h: {"annotations": {"title": f"Read{h}"}},
    "an argument": lambda h: {"inputSchema": _schema(description=f"What{h}")},
    "a value to choose": lambda h: {"inputSchema": _schema(enum=["a", f"b{h}"])},
    "an output schema": lambda h: {"outputSchema": {"type": "object", "description": f"What{h}"}},
    "its meta data": lambda h: {"_meta": {"example.com/note": f"x{h}"}},
}


def _schema(**words: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": {"type": "string", **words}}}


for _place, _made in TOOLS.items():
    for _what in (*SOME, "terminal codes"):
        add(
            "tool poisoning",
            "tools/list of an upstream",
            f"{_what} in {_place}",
            GUARD,
            _listed(_what, _made, searched=False),
        )
for _place in ("a description", "an argument"):
    add(
        "tool poisoning",
        "find_tools",
        f"turned text in {_place}",
        GUARD,
        _listed("turned text", TOOLS[_place], searched=True),
    )


def _mcp_result(what: str, result: Callable[[str], Mapping[str, Any]]) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        ground.script("/mcp", mcp_server([PLAIN], answers=result(HIDDEN[what])))
        body = _mcp(ground)
        assert await ground.create(body) is not None
        outcome = await ground.call(f"{body['name']}_read", {"a": 1})
        await ground.drop(body["name"])
        return _found(what, _read_by_model(outcome))

    return strike


for _what in SOME:
    for _told, _made in {
        "in a text": lambda h: {"result": {"content": [{"type": "text", "text": f"a{h}"}]}},
        "in structured content": lambda h: {"result": {"content": [], "structuredContent": {"a": f"x{h}"}}},
        "in a resource": lambda h: {
            "result": {"content": [{"type": "resource", "resource": {"uri": "note://1", "text": f"a{h}"}}]}
        },
        "in a failure": lambda h: {"result": {"isError": True, "content": [{"type": "text", "text": f"a{h}"}]}},
        "in a JSON-RPC error": lambda h: {"error": {"code": -32602, "message": f"no{h}b"}},
    }.items():
        add("tool poisoning", "result of an MCP upstream", f"{_what} {_told}", GUARD, _mcp_result(_what, _made))


# --------------------------------------------------------------------------- imports


def _imported(what: str, place: str) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        words = {place: f"Reads{HIDDEN[what]} a record."}
        parameter = {
            "name": "q",
            "in": "query",
            "schema": {"type": "string"},
            "description": words.get("argument", "x"),
        }
        operation = {"operationId": "read", "responses": {}, "parameters": [parameter]}
        operation["description"] = words.get("description", "Reads a record.")
        document = {"openapi": "3.0.0", "info": {"title": words.get("title", "T"), "version": "1"}}
        document |= {"servers": [{"url": f"https://{ground.host()}"}], "paths": {"/x": {"get": operation}}}
        name = ground.name("o")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tools.importers.scanning.suspicions_of_tool", lambda entry: [])
            request = ImportRequest(document=document, name=name, apply=True, enabled=True)
            await ground.app.importer.run(ground.owner, request)
        shown = [e for e in await _shown(ground, name) if e["name"] == f"{name}_read"]
        read = await ground.call("get_integration", {"integration": name})
        await ground.drop(name)
        assert shown
        return _found(what, _texts(shown), _read_by_model(read))

    return strike


def _imported_live(what: str, place: str) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        ground.script("/mcp", mcp_server([{**PLAIN, **TOOLS[place](HIDDEN[what])}]))
        body = _mcp(ground)
        with pytest.MonkeyPatch.context() as patch:
            for module in ("importers.scanning", "kinds.mcp.mcp_tool"):
                patch.setattr(f"tools.{module}.suspicions_of_tool", lambda entry: [])
            request = ImportRequest(mcp_url=body["mcp_url"], name=body["name"], apply=True, enabled=True)
            await ground.app.importer.run(ground.owner, request)
            shown = [e for e in await _shown(ground, body["name"]) if e["name"] == f"{body['name']}_read"]
        read = await ground.call("get_integration", {"integration": body["name"]})
        await ground.drop(body["name"])
        assert shown
        return _found(what, _texts(shown), _read_by_model(read))

    return strike


for _place in ("description", "argument", "title"):  # other characters are no text of a document for its reader either
    add("tool poisoning", "imported document", f"selectors in a {_place}", GUARD, _imported("selectors", _place))
for _place in ("a description", "an argument"):
    for _what in SOME:
        add("tool poisoning", "imported MCP server", f"{_what} in {_place}", GUARD, _imported_live(_what, _place))
