"""What belongs to one caller or workspace, held by another: results, cursors, calls, keys, approvals, sessions (rules G2, J7, J14)."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio

from tests.fhir_servers.small import bundle, fhir, patient, search
from tests.security.doors import _HELLO, _rpc, key_of, victim
from tests.security.doors import CANARY as VICTIM
from tests.security.frame import add
from tests.security.ground import Ground, json_answer, rest
from tools.approvals import Approval
from tools.call import CallContext
from tools.callers import Caller

CANARY = "canary-of-a-result"
Who = Callable[[Ground], Caller]
OTHERS: Mapping[str, Who] = {
    "another workspace's owner": lambda ground: ground.rival,
    "another key of the workspace": lambda ground: ground.caller("owner"),
    "a key of the same id in another workspace": lambda ground: Caller(
        ground.owner.id, "globex", role="owner", permissions=ground.rival.permissions
    ),
}


# --------------------------------------------------------------------------- results


def _result(who: Who) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        ground.script("/caught", json_answer(200, b'["' + b'", "'.join([CANARY.encode()] * 3000) + b'"]'))
        cut = await ground.call("shop_get")
        assert cut.result_id is not None
        return CANARY in (await ground.call("get_result", {"result_id": cut.result_id}, who(ground))).text

    return strike


def _background(who: Who) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        ground.script("/caught", json_answer(200, f'{{"a": "{CANARY}"}}'.encode()))
        name = ground.name()
        slow = {"name": "get", "description": "d", "method": "GET", "path": "/caught", "result_delivery": "queue"}
        assert await ground.create(rest(name, f"http://{ground.host()}", slow)) is not None
        done = await ground.call(f"{name}_get")
        assert CANARY in done.text
        from sqlalchemy import select

        from server.store.tables import background_calls as rows

        async with ground.app.registry._database.read() as connection:
            id = (await connection.execute(select(rows.c.id).order_by(rows.c.accepted_at.desc()).limit(1))).scalar_one()
        await ground.drop(name)
        return CANARY in (await ground.call("get_result", {"result_id": id}, who(ground))).text

    return strike


def _cursor(who: Who, arguments: Mapping[str, Any], endpoint: str) -> Callable[[Ground], Awaitable[Any]]:
    """A cursor that the owner got for `find` and {"active": true}, in other hands."""

    async def strike(ground: Ground) -> Any:
        host, name = ground.host(), ground.name()
        caller = who(ground)
        finds = [{"description": "d", **search(), "name": n} for n in ("find", "other")]
        body = {**rest(name, f"http://{host}/fhir", *finds), "protocol": "fhir"}
        ground.script("/fhir/Patient", fhir(200, bundle(patient("1"))))
        made = await ground.create(body)
        assert made is not None
        if caller.workspace != "acme":
            assert await ground.create(body, caller) is not None
        of = ("acme", made.id, "find", ground.owner.id)
        cursor = ground.app.gateway._sending._fhir._cursors.seal("/fhir/Patient?page=2", of, {"active": True})
        await ground.call(f"{name}_{endpoint}", {**arguments, "cursor": cursor}, caller)
        await ground.drop(name)
        if caller.workspace != "acme":
            await ground.app.admin.delete(caller, name)
        return [r.target for r in ground.received if "page=2" in r.target]

    return strike


for _name, _who in OTHERS.items():
    add("cross-tenant", "get_result", f"a cut result by {_name}", "sealed results", _result(_who))
    add("cross-tenant", "get_result", f"a background call's by {_name}", "calls of one caller", _background(_who))
    add("cross-tenant", "cursor", f"by {_name}", "sealed cursors", _cursor(_who, {"active": True}, "find"))
add(
    "cross-tenant",
    "cursor",
    "with other arguments",
    "sealed cursors",
    _cursor(lambda g: g.owner, {"active": False}, "find"),
)
add("cross-tenant", "cursor", "without its arguments", "sealed cursors", _cursor(lambda g: g.owner, {}, "find"))
add(
    "cross-tenant",
    "cursor",
    "of another endpoint",
    "sealed cursors",
    _cursor(lambda g: g.owner, {"active": True}, "other"),
)


def _idempotency(who: Who) -> Callable[[Ground], Awaitable[Any]]:
    """One key from two callers: the upstream would answer the second with the first one's result."""

    async def strike(ground: Ground) -> Any:
        name, caller = ground.name(), who(ground)
        body = rest(name, f"http://{ground.host()}", {"name": "do", "description": "d", "method": "POST", "path": "/x"})
        assert await ground.create(body) is not None
        if caller.workspace != "acme":
            assert await ground.create(body, caller) is not None
        for one in (ground.owner, caller):
            await ground.app.toolbox.call(one, f"{name}_do", {}, CallContext(idempotency_key=name))
        await ground.drop(name)
        if caller.workspace != "acme":
            await ground.app.admin.delete(caller, name)
        first, second = (r.header("idempotency-key") for r in ground.received)
        return first == second

    return strike


for _name, _who in OTHERS.items():
    add("cross-tenant", "idempotency key", f"by {_name}", "idempotency keys of one caller", _idempotency(_who))


async def _announced(ground: Ground) -> Any:
    """A stream of globex while acme's tools change."""
    from server.announcements import _WorkspaceBus

    heard: list[Any] = []
    end = _WorkspaceBus(ground.app.announcements._bus, "globex").subscribe(heard.append)
    await ground.app.announcements.tools_changed("acme")
    end()
    return heard


add("cross-tenant", "subscriptions/listen", "another workspace's changes", "announcements of one workspace", _announced)


# --------------------------------------------------------------------------- approvals


async def _waiting(ground: Ground, tool: str) -> Approval:
    from datetime import UTC, datetime

    return next(a for a in await ground.app.approvals.open("acme", datetime.now(UTC)) if a.tool == tool)


def _approved(change: str) -> Callable[[Ground], Awaitable[Any]]:
    """An approved DELETE of item 1; what is then called is something else."""

    async def strike(ground: Ground) -> Any:
        name, first = ground.name(), ground.caller("agent")
        there = {"name": "del", "description": "d", "method": "DELETE", "path": "/items/{id}"}
        made = await ground.create(rest(name, f"http://{ground.host()}", there, approval_policy="writes"))
        assert made is not None
        await ground.call(f"{name}_del", {"id": "1"}, first)
        approval = await _waiting(ground, f"{name}_del")
        await ground.app.approval_admin.approve(ground.owner, approval.id)
        arguments, caller, used = {"id": "1"}, first, 0
        match change:
            case "arguments":
                arguments = {"id": "2"}
            case "caller":
                caller = ground.caller("agent")
            case "base_url":
                from tools.models import UpdateIntegrationRequest

                moved = UpdateIntegrationRequest(base_url=f"http://{ground.host()}")
                await ground.app.admin.update(ground.owner, made.id, lambda now: moved)
            case _:
                raise AssertionError
        await ground.call(f"{name}_del", arguments, caller)
        await ground.drop(name)
        return [r.target for r in ground.received][used:]

    return strike


for _change in ("arguments", "caller", "base_url"):
    add("privilege", "approval", f"used with another {_change}", "what an approval is bound to", _approved(_change))


def _around(entry: str) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        name = ground.name()
        there = {"name": "del", "description": "d", "method": "DELETE", "path": "/items/{id}"}
        if entry == "queue":
            there["result_delivery"] = "queue"
        assert await ground.create(rest(name, f"http://{ground.host()}", there, approval_policy="all")) is not None
        arguments = {"id": "1"}
        match entry:
            case "tools/call" | "queue":
                await ground.call(f"{name}_del", arguments)
            case "REST test":
                await ground.client.post(f"/v1/acme/integrations/{name}/endpoints/del/test", json={"params": arguments})
            case _:
                await ground.call("test_integration_endpoint", {"tool": f"{name}_del", "params": arguments})
        await ground.drop(name)
        return [r.target for r in ground.received]

    return strike


for _entry in ("tools/call", "queue", "REST test", "management tool test"):
    add("privilege", _entry, "a call that nobody approved", "approval gate", _around(_entry))


# --------------------------------------------------------------------------- sessions, hosts, guesses

ACCEPT = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}


def _session(method: str, by: str) -> Callable[[Ground], Awaitable[Any]]:
    """The victim's session id with the attacker's key."""

    async def strike(ground: Ground) -> Any:
        opened = await ground.client.post("/mcp", json=_rpc("initialize", _HELLO), headers=ACCEPT)
        headers = {**ACCEPT, "Mcp-Session-Id": opened.headers["mcp-session-id"]}
        key = await key_of(ground, "agent") if by == "agent" else await key_of(ground, "owner", "globex")
        async with ground.as_(key) as attacker:
            if method == "GET":
                async with attacker.stream("GET", "/mcp", headers=headers) as stream:
                    return stream.status_code < 300
            if method == "DELETE":
                return (await attacker.delete("/mcp", headers=headers)).status_code < 300
            answer = await attacker.post("/mcp", json=_rpc(method, {}), headers=headers)
            return answer.status_code < 300

    return strike


for _by in ("agent", "another workspace's owner"):
    for _method in ("tools/list", "ping", "GET", "DELETE"):
        add(
            "session and token",
            "/mcp",
            f"{_method} in a session of another, by {_by}",
            "sessions of one key",
            _session(_method, _by),
        )


def _page(path: str, headers: Mapping[str, str]) -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        await victim(ground)
        with anyio.fail_after(10):
            if path == "/mcp":
                answer = await ground.client.post(path, json=_rpc("initialize", _HELLO), headers={**ACCEPT, **headers})
                return answer.status_code < 300
            return VICTIM in (await ground.client.get(path, headers=dict(headers))).text

    return strike


for _headers in (
    {"Host": "evil.example"},
    {"Host": "localhost.evil.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "evil.example:8080"},
    {"Host": "0.0.0.0"},
    {"Host": "gw.example.evil.example"},
    {"Host": "evil.example#127.0.0.1"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://127.0.0.1@evil.example"},
    {"Origin": "https://gw.example.evil.example"},
    {"Origin": "http://[::1"},
    {"Origin": "file://"},
    {"Origin": "http://localhost/evil.example"},
):
    for _path in ("/mcp", "/v1/acme/integrations?limit=20"):
        add("session and token", _path.partition("?")[0], str(_headers), "Host and Origin", _page(_path, _headers))


async def _guessed(ground: Ground) -> Any:
    """Answers beyond the twentieth that say whether a guess was right."""
    said: list[int] = []
    async with ground.as_(None) as client:
        for n in range(26):
            headers = {"Authorization": f"Bearer imcp_guess{n}"}
            said.append((await client.get("/v1/acme/integrations", headers=headers)).status_code)
    return [status for status in said[24:] if status == 401]


add("session and token", "REST", "26 guessed keys", "guesses are counted", _guessed)
