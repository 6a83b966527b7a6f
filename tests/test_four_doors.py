"""REST, admin tools, command line and file are one thing shown four times: the same result, error code and audit row for each operation.

Where a door differs, or hasn't an operation, its row says why.
"""

import asyncio
import json
import re
import subprocess
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest
import yaml
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.processes import PATIENCE_S, SCRIPT, environment
from tests.rest import INTEGRATIONS, Rest, endpoint, rest_world
from tools.json_value import plain
from tools.models import CreateIntegrationRequest
from tools.parsing import parse_create

pytestmark = pytest.mark.slow
Door = Literal["rest", "mcp", "cli", "file"]
DOORS: tuple[Door, ...] = ("rest", "mcp", "cli", "file")
INPUT = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
ENDPOINTS = [
    endpoint("get_item", "GET", "/items/{id}", input_schema=INPUT),
    endpoint("delete_item", "DELETE", "/items/{id}", input_schema=INPUT),
]
GETS, DELETES = ENDPOINTS
ADDED = endpoint("read_item", "GET", "/items/{id}", response_filter=["id"])
CHANGED = {**GETS, "response_filter": ["shelf"]}

KEYBOARD = "the local owner may all, on this door nobody else is"
NO_CALL = "a file says what is to be; it runs nothing"
NO_READ = "export gives whole integrations, as get does"
MAKES = "a file that has what isn't there makes it"
PLANS = "the plan is made of what is there, and carried out only on that version"
NOT_FOR_MODELS = "keys and secrets don't go through a model's context"
NO_ROW = "keys and values of secrets aren't in files"


@dataclass(frozen=True)
class Row:
    """One operation as every door does it. `given` as each door's function takes it; `role` is that of the key.

    `code`: how it ends, None for success. `other`: doors that end otherwise, or have it not (None), and why.
    `audit`: the actions that it leaves.
    """

    op: str
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])
    code: str | None = None
    audit: tuple[str, ...] = ()
    role: str = "owner"
    other: Mapping[Door, tuple[str | None, str]] = field(default_factory=dict[Door, tuple[str | None, str]])

    def code_of(self, door: Door) -> str | None:
        return self.other[door][0] if door in self.other else self.code

    def compared(self) -> list[Door]:
        """Doors that have to find the very same."""
        return [door for door in DOORS if door not in self.other]


@dataclass(frozen=True)
class Told:
    """What a door said, what is stored afterwards, and the audit rows without who, when and ids."""

    code: str | None
    found: Any
    stored: Any
    audit: Any
    callers: frozenset[tuple[str, str]]


def without(*doors: Door, why: str) -> dict[Door, tuple[str | None, str]]:
    return dict.fromkeys(doors, (ABSENT, why))


ABSENT = "(not there)"
_IDS = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|key_[0-9a-f]+")
UNSEEN: dict[Door, tuple[str | None, str]] = {
    "mcp": ("unknown_tool", "a tool that the caller may not use isn't there for him"),
    **without("cli", "file", why=KEYBOARD),
}
SCHEMA: dict[Door, tuple[str | None, str]] = {
    "mcp": ("invalid_arguments", "its arguments are checked by the tool's schema first, as those of any tool")
}
ROWS: dict[str, Row] = {
    "list": Row("list", other=without("file", why=NO_READ)),
    "list, a part": Row("list", {"search": "sho"}, other=without("file", why=NO_READ)),
    "list, unknown order": Row("list", {"sort_by": "size"}, "invalid_request", other=without("file", why=NO_READ)),
    "list, forbidden": Row("list", {}, "forbidden", role="agent", other=UNSEEN),
    "get": Row("get", {"name": "shop"}),
    "get, not found": Row("get", {"name": "shopp"}, "not_found"),
    "get, forbidden": Row("get", {"name": "shop"}, "forbidden", role="agent", other=UNSEEN),
    "create": Row("create", {"name": "other", "display_name": "Other"}, audit=("integration.create",)),
    "create with a secret": Row(
        "create",
        {"name": "other", "auth": {"type": "bearer_token", "bearer_token_value": {"value": "canary-9876543210"}}},
        audit=("integration.create",),
        other={"mcp": ("invalid_request", NOT_FOR_MODELS)},
    ),
    "create, name taken": Row(
        "create", {"name": "shop", "endpoints": ENDPOINTS}, "name_taken",
        other=without("file", why="in a file it is that integration: an update")),
    "create, unknown field": Row("create", {"name": "other", "bas_url": "x"}, "invalid_request", other=SCHEMA),
    "create, bad URL": Row("create", {"name": "other", "base_url": "nonsense"}, "invalid_request"),
    "create, secret of others": Row(
        "create", {"name": "other", "auth": {"type": "bearer_token", "token_ssm_param_path": "/gw/rival/shared/key"}},
        "secret_path_not_allowed",
        other=dict.fromkeys(("cli", "file"), (None, "the local owner may name any path"))),
    "create, forbidden": Row("create", {"name": "other"}, "forbidden", role="viewer", other=UNSEEN),
    "update": Row("update", {"name": "shop", "set": {"display_name": "S"}}, audit=("integration.update",)),
    "update, its version": Row(
        "update", {"name": "shop", "set": {"enabled": False}, "if_match": 1}, audit=("integration.update",),
        other=without("file", why=PLANS)),
    "update, another version": Row(
        "update", {"name": "shop", "set": {"enabled": False}, "if_match": 7}, "version_mismatch",
        other=without("file", why=PLANS)),
    "update, unknown field": Row("update", {"name": "shop", "set": {"display_nam": "S"}}, "invalid_request", other=SCHEMA),
    "update, wrong value": Row("update", {"name": "shop", "set": {"enabled": "perhaps"}}, "invalid_request", other=SCHEMA),
    "update, not found": Row(
        "update", {"name": "nobody", "set": {"display_name": "S"}}, "not_found", other=without("file", why=MAKES)),
    "update, builtin": Row("update", {"name": "fixed", "set": {"display_name": "S"}}, "builtin"),
    "update, forbidden": Row(
        "update", {"name": "shop", "set": {"display_name": "S"}}, "forbidden", role="viewer", other=UNSEEN),
    "delete": Row("delete", {"name": "shop"}, audit=("integration.delete",)),
    "delete, another version": Row(
        "delete", {"name": "shop", "if_match": 7}, "version_mismatch", other=without("file", why=PLANS)),
    "delete, not found": Row(
        "delete", {"name": "nobody"}, "not_found", other=without("file", why="what isn't in the file goes, whatever it is")),
    "delete, builtin": Row(
        "delete", {"name": "fixed"}, "builtin",
        other=without("file", why="--prune leaves the operator's own file alone")),
    "delete, forbidden": Row("delete", {"name": "shop"}, "forbidden", role="member", other=UNSEEN),
    "create endpoint": Row(
        "endpoints", {"tool": "create_endpoint", "given": {"integration": "shop", **ADDED},
                      "endpoints": [GETS, DELETES, ADDED]}, audit=("integration.update",)),
    "update endpoint": Row(
        "endpoints", {"tool": "update_endpoint",
                      "given": {"tool": "shop_get_item", "patch": {"response_filter": ["shelf"]}},
                      "endpoints": [CHANGED, DELETES]}, audit=("integration.update",)),
    "delete endpoint": Row(
        "endpoints", {"tool": "delete_endpoint", "given": {"integration": "shop", "endpoint": "delete_item"},
                      "endpoints": [GETS]}, audit=("integration.update",)),
    "create endpoint, bad path": Row(
        "endpoints", {"tool": "create_endpoint", "given": {"integration": "shop", **ADDED, "name": "no name"},
                      "endpoints": [GETS, DELETES, {**ADDED, "name": "no name"}]}, "invalid_request"),
    "test": Row("test", {"name": "shop", "endpoint": "get_item", "params": {"id": "7"}},
                other=without("file", why=NO_CALL)),
    "test, the upstream fails": Row("test", {"name": "shop", "endpoint": "get_item", "params": {"id": "0"}},
                                    other=without("file", why=NO_CALL)),
    "test, wrong argument": Row(
        "test", {"name": "shop", "endpoint": "get_item", "params": {"idd": "7"}}, "invalid_request",
        other=without("file", why=NO_CALL)),
    "test, no such endpoint": Row(
        "test", {"name": "shop", "endpoint": "get_itm", "params": {}}, "not_found",
        other=without("file", why=NO_CALL)),
    "test a write, forbidden": Row(
        "test", {"name": "shop", "endpoint": "delete_item", "params": {"id": "7"}}, "forbidden", role="viewer",
        other=without("cli", "file", why=KEYBOARD)),
    "health": Row("health", other=without("file", why=NO_CALL)),
    "test connection": Row("connect", {"name": "shop"}, other=without("file", why=NO_CALL)),
    "test connection, not found": Row("connect", {"name": "nobody"}, "not_found", other=without("file", why=NO_CALL)),
    "create key": Row(
        "key", {"role": "operator", "name": "k", "integrations": ["shop"]}, audit=("api_key.create",),
        other={**without("mcp", why=NOT_FOR_MODELS), **without("file", why=NO_ROW)}),
    "create key, no such integration": Row(
        "key", {"role": "operator", "name": "k", "integrations": ["nobody"]}, "invalid_request",
        other={**without("mcp", why=NOT_FOR_MODELS), **without("file", why=NO_ROW)}),
    "revoke key": Row("revoke", {"name": "k"}, audit=("api_key.delete",),
                      other={**without("mcp", why=NOT_FOR_MODELS), **without("file", why=NO_ROW)}),
    "revoke key, not found": Row("revoke", {"name": None}, "not_found",
                                 other={**without("mcp", why=NOT_FOR_MODELS), **without("file", why=NO_ROW)}),
    "rotate key": Row("rotate", {"name": "k"}, audit=("api_key.rotate",),
                      other={**without("mcp", why=NOT_FOR_MODELS), **without("file", why=NO_ROW)}),
    "put secret": Row("put", {"name": "team/key", "origins": ["https://a.example/x"]}, audit=("secret.put",),
                      other={**without("mcp", why=NOT_FOR_MODELS), **without("file", why=NO_ROW)}),
    "put secret, bad name": Row("put", {"name": "team/../key", "origins": ["https://a.example"]}, "invalid_request",
                                other={**without("mcp", why=NOT_FOR_MODELS), **without("file", why=NO_ROW)}),
    "put secret, bad origin": Row("put", {"name": "key", "origins": ["nonsense"]}, "invalid_request",
                                  other={**without("mcp", why=NOT_FOR_MODELS), **without("file", why=NO_ROW)}),
    "delete secret": Row("unput", {"name": "kept"}, audit=("secret.delete",),
                         other={**without("mcp", why=NOT_FOR_MODELS), **without("file", why=NO_ROW)}),
    "delete secret, not found": Row("unput", {"name": "nothing"}, "not_found",
                                    other={**without("mcp", why=NOT_FOR_MODELS), **without("file", why=NO_ROW)}),
}  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Door, str], Told]:
    """Every row through every door that has it; each door has a gateway of its own."""
    home = tmp_path_factory.mktemp("doors")

    async def through(door: Door, rest: Rest) -> dict[tuple[Door, str], Told]:
        way = _WAYS[door](rest, home / door)
        return {(door, name): await _one(rest, way, row) for name, row in ROWS.items() if row.code_of(door) != ABSENT}

    async def all_of_them() -> dict[tuple[Door, str], Told]:
        async with AsyncExitStack() as stack:
            worlds: dict[Door, Rest] = {}
            for door in DOORS:
                (home / door).mkdir()
                worlds[door] = await stack.enter_async_context(rest_world(home / door))
            async with asyncio.TaskGroup() as tasks:
                done = [tasks.create_task(through(door, rest)) for door, rest in worlds.items()]
        return {key: value for task in done for key, value in task.result().items()}

    return asyncio.run(all_of_them())


@pytest.mark.parametrize("name", ROWS)
def test_every_door_ends_an_operation_the_same_way(told: dict[tuple[Door, str], Told], name: str) -> None:
    row = ROWS[name]
    for door in DOORS:
        if row.code_of(door) != ABSENT:
            assert told[door, name].code == row.code_of(door), (door, told[door, name].found)
    doors = row.compared()
    first = told[doors[0], name]
    for door in doors[1:]:
        other = told[door, name]
        if row.code is None:
            assert other.found == first.found, door
        assert (other.stored, other.audit) == (first.stored, first.audit), door


@pytest.mark.parametrize("name", ROWS)
def test_every_change_leaves_its_audit_row_that_names_who_did_it(told: dict[tuple[Door, str], Told], name: str) -> None:
    row = ROWS[name]
    for door in DOORS:
        code = row.code_of(door)
        if code == ABSENT:
            continue
        found = told[door, name]
        expected = () if code is not None else row.audit or (("integration.create",) if row.op == "create" else ())
        assert tuple(r["action"] for r in found.audit) == expected, door
        kind = "key" if door in ("rest", "mcp") else "local"
        assert {k for k, _ in found.callers} <= {kind}, door
        assert all((who == "local") == (kind == "local") for _, who in found.callers)


def test_a_door_is_left_out_only_with_a_reason_and_every_operation_has_two() -> None:
    assert all(reason for row in ROWS.values() for _, reason in row.other.values())
    assert all(sum(row.code_of(door) != ABSENT for door in DOORS) >= 2 for row in ROWS.values())


# ------------------------------------------------------------------ one row through one door

Way = Callable[[Row, str, Mapping[str, str]], Awaitable[tuple[str | None, Any]]]


async def _one(rest: Rest, way: Way, row: Row) -> Told:
    """A fresh workspace: `shop`, `keep`, the operator's `fixed`, a key `k` and a shared secret `kept`."""
    app, owner = rest.world.app, rest.world.owner
    for integration in (await app.registry.load("acme"))[1]:
        await (app.file_admin if integration.builtin else app.admin).delete(owner, integration.id)
    for key in (await app.key_admin.page(owner, 100, 0))[0]:
        if key.name:
            await app.key_admin.revoke(owner, key.id)
    for record in await app.registry.secret_records("acme"):
        await app.secret_admin.delete_at(owner, record.path)
    shop = await rest.world.create({**_body(rest, "shop"), "endpoints": ENDPOINTS})
    await rest.world.create(_body(rest, "keep"))
    await app.file_admin.create(owner, parse_create(_body(rest, "fixed")))
    made = await app.key_admin.create(owner, days=None, name="k", role="operator")
    await app.secret_admin.put(owner, "kept", "canary-0123456789", ["https://a.example"])
    seen = {r.seq for r in await app.admin.audit(owner, limit=1000)}
    ids = {"shop": shop.id, "k": made.row.id}
    key = await rest.world.key(row.role)  # pyright: ignore[reportArgumentType] - a role
    try:
        code, found = await way(row, key, ids)
    except Exception as e:  # told by its own test: one row that breaks must not hide the others
        code, found = "(broken)", repr(e)
    stored = [_common(plain(i)) for i in (await app.registry.load("acme"))[1]]
    rows = [r for r in reversed(await app.admin.audit(owner, limit=1000)) if r.seq not in seen]
    audit = [
        {
            "action": r.action,
            "kind": r.kind,
            "name": r.name,
            "changes": _neutral([dict(c) for c in r.changes], rest),
        }
        for r in rows
    ]
    return Told(
        code, found, sorted(stored, key=lambda i: i["name"]), audit, frozenset((r.caller_kind, r.caller) for r in rows)
    )


def _body(rest: Rest, name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "display_name": name.title(), "base_url": rest.upstream, **more}


def _neutral(value: Any, rest: Rest) -> Any:
    """Without what differs between two gateways: ids, ports and times."""
    if isinstance(value, dict):
        times = ("created_at", "updated_at", "expires_at")
        return {k: _neutral(v, rest) for k, v in value.items() if k not in times}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - JSON
    if isinstance(value, list | tuple):
        return [_neutral(v, rest) for v in value]  # pyright: ignore[reportUnknownVariableType] - JSON
    if isinstance(value, str):
        return _text(value, rest)
    return value


def _text(value: str, rest: Rest) -> str:
    return _IDS.sub("ID", value.replace(rest.upstream, "URL"))


def _common(shown: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that every door shows, defaults filled in, without what differs between two gateways."""
    fields = {n: v for n, v in shown.items() if n in CreateIntegrationRequest.model_fields}
    if fields.get("auth"):
        fields["auth"] = {n: _path(v) for n, v in fields["auth"].items() if v is not None}
    fields["base_url"] = fields["base_url"].partition("127.0.0.1")[0]
    return plain(parse_create(fields))


def _path(value: Any) -> Any:
    """`/gw/acme/integrations/ID/token` without the id."""
    parts = value.split("/") if isinstance(value, str) else []
    return "/".join((*parts[:4], "ID", *parts[5:])) if parts[3:4] == ["integrations"] else value


def _rows(items: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    found = [(i["name"], i["display_name"], i["protocol"], i["enabled"], _count(i["endpoints"])) for i in items]
    return sorted(found)


def _count(endpoints: Any) -> int:
    return endpoints if isinstance(endpoints, int) else len(endpoints)


def _health(report: Mapping[str, Any]) -> Any:
    return report["status"], sorted((i["name"], i["status"], i["auth"]) for i in report["integrations"])


def _key(shown: Mapping[str, Any]) -> Any:
    narrowed = None if shown["integrations"] is None else len(shown["integrations"])
    return shown["name"], shown["role"], shown["permissions"], narrowed, shown["api_key"].startswith("imcp_")


# ------------------------------------------------------------------ REST


def rest_way(rest: Rest, home: Path) -> Way:
    async def way(row: Row, key: str, ids: Mapping[str, str]) -> tuple[str | None, Any]:
        async with rest.as_(key) as client:
            answer = await _rest(client, rest, row, ids)
        if answer.status_code == 422:
            return "invalid_request", None
        if answer.status_code >= 400:
            return answer.json()["error_code"], None
        found = answer.json() if answer.content else None
        match row.op:
            case "list":
                return None, _rows(found["items"])
            case "get":
                return None, _common(found)
            case "test":
                return None, (found["status_code"], found["retries"], _agents(found["final_result"] or found["error"]))
            case "health":
                return None, _health(found)
            case "connect":
                return None, (found["status"], found["auth"])
            case "key" | "rotate":
                return None, _key(found)
            case _:
                return None, None

    return way


async def _rest(client: httpx2.AsyncClient, rest: Rest, row: Row, ids: Mapping[str, str]) -> httpx2.Response:
    given = dict(row.given)
    one = f"{INTEGRATIONS}/{given.get('name')}"
    match = {"If-Match": f'"{given["if_match"]}"'} if "if_match" in given else {}
    match row.op:
        case "list":
            return await client.get(INTEGRATIONS, params=given)
        case "get":
            return await client.get(one)
        case "create":
            return await client.post(INTEGRATIONS, json={**_body(rest, given["name"]), **given})
        case "update":
            return await client.put(one, json=given["set"], headers=match)
        case "delete":
            return await client.delete(one, headers=match)
        case "endpoints":
            return await client.put(f"{INTEGRATIONS}/shop", json={"endpoints": given["endpoints"]})
        case "test":
            return await client.post(f"{one}/endpoints/{given['endpoint']}/test", json={"params": given["params"]})
        case "health":
            return await client.get(f"{INTEGRATIONS}/health-check")
        case "connect":
            return await client.post(f"{one}/test-connection")
        case "key":
            return await client.post("/v1/acme/api-keys", json={**given, "duration_days": 30})
        case "revoke":
            return await client.delete(f"/v1/acme/api-keys/{ids.get(given['name'], 'nothing')}")
        case "rotate":
            return await client.post(f"/v1/acme/api-keys/{ids[given['name']]}/rotate")
        case "put":
            name = given["name"].replace("..", "%2E%2E")  # clients resolve dots in paths
            return await client.put(
                f"/v1/acme/secrets/{name}", json={"value": "canary-1111111111", "origins": given["origins"]}
            )
        case "unput":
            return await client.delete(f"/v1/acme/secrets/{given['name']}")
        case _:
            raise AssertionError(row.op)


def _agents(text: str) -> str:
    return text.partition("\nDiagnose: ")[0]


# ------------------------------------------------------------------ MCP


def mcp_way(rest: Rest, home: Path) -> Way:
    async def way(row: Row, key: str, ids: Mapping[str, str]) -> tuple[str | None, Any]:
        tool, arguments = _tool(rest, row)
        async with (
            rest.as_(key) as http_client,
            Client(streamable_http_client(f"{rest.url}/mcp", http_client=http_client)) as client,
        ):
            answer = await client.call_tool(tool, arguments)
        said = answer.content[0].text  # pyright: ignore[reportAttributeAccessIssue] - text, as every management tool answers
        if answer.is_error:
            return said.rstrip("]").rpartition("[")[2], said
        found: Any = answer.structured_content
        match row.op:
            case "list":
                return None, _rows(found["integrations"])
            case "get":
                return None, _common(found["integration"])
            case "test":
                return None, (found["status_code"], found["retries"], found["agent_sees"])
            case "health":
                return None, _health(found)
            case "connect":
                return None, (found["status"], found["auth"])
            case _:
                assert found["written"]
                return None, None

    return way


def _tool(rest: Rest, row: Row) -> tuple[str, dict[str, Any]]:
    given = dict(row.given)
    match row.op:
        case "list":
            return "list_integrations", given
        case "get":
            return "get_integration", {"integration": given["name"]}
        case "create":
            return "create_integration", {**_body(rest, given["name"]), **given}
        case "update":
            name, fields = given.pop("name"), given.pop("set")
            return "update_integration", {"integration": name, **fields, **given}
        case "delete":
            return "delete_integration", {"integration": given.pop("name"), **given}
        case "endpoints":
            return given["tool"], dict(given["given"])
        case "test":
            return "test_integration_endpoint", {"integration": given.pop("name"), **given}
        case "health":
            return "integration_health_check", {}
        case "connect":
            return "test_connection", {"integration": given["name"]}
        case _:
            raise AssertionError(row.op)


# ------------------------------------------------------------------ command line


async def shell(home: Path, *arguments: str, stdin: str = "") -> tuple[int, Any]:
    """Exit code and the JSON on stdout (or what stderr says)."""
    more = {"INTEGRATIONS_MCP_WORKSPACE": "acme", "INTEGRATIONS_MCP_ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8"}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPT, *arguments],
            env=environment(home, more),
            cwd=home,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    done = await asyncio.to_thread(run)
    try:
        return done.returncode, json.loads(done.stdout)
    except json.JSONDecodeError:
        return done.returncode, done.stdout + done.stderr


def cli_way(rest: Rest, home: Path) -> Way:
    async def way(row: Row, key: str, ids: Mapping[str, str]) -> tuple[str | None, Any]:
        words, stdin = _words(rest, home, row, ids)
        code, found = await shell(home, *words, stdin=stdin)
        if isinstance(found, dict) and "error_code" in found:
            assert code == 1
            return found["error_code"], found  # pyright: ignore[reportUnknownVariableType] - JSON
        assert code == 0 or row.op in ("test", "health", "connect"), found
        match row.op:
            case "list":
                return None, _rows(found["items"])
            case "get":
                return None, _common(found)
            case "test":
                return None, (found["status_code"], found["retries"], _agents(found["final_result"] or found["error"]))
            case "health":
                return None, _health(found)
            case "connect":
                return None, (found["status"], found["auth"])
            case "key" | "rotate":
                return None, _key(found)
            case _:
                return None, None

    return way


def _words(rest: Rest, home: Path, row: Row, ids: Mapping[str, str]) -> tuple[list[str], str]:
    """(arguments, standard input)."""
    given = dict(row.given)
    name = str(given.get("name"))
    if_match = ["--if-match", str(given["if_match"])] if "if_match" in given else []
    match row.op:
        case "list":
            options = [word for n, v in given.items() for word in (f"--{n.replace('_', '-')}", v)]
            return ["integrations", "list", *options, "--json"], ""
        case "get":
            return ["integrations", "get", name, "--json"], ""
        case "create":
            file = _file(home, {**_body(rest, name), **given})
            return ["integrations", "create", "-f", file, "--json"], ""
        case "update":
            sets = [word for n, v in given["set"].items() for word in ("--set", f"{n}={json.dumps(v)}")]
            return ["integrations", "update", name, *sets, *if_match, "--json"], ""
        case "delete":
            return ["integrations", "delete", name, "--yes", *if_match, "--json"], ""
        case "endpoints":
            one = f"endpoints={json.dumps(given['endpoints'])}"
            return ["integrations", "update", "shop", "--set", one, "--json"], ""
        case "test":
            args = json.dumps(given["params"])
            return ["integrations", "test", name, given["endpoint"], "--args", args, "--json"], ""
        case "health":
            return ["integrations", "health", "--json"], ""
        case "connect":
            return ["integrations", "test", name, "--json"], ""
        case "key":
            narrowed = [word for i in given["integrations"] for word in ("--integration", i)]
            return ["keys", "create", "--role", given["role"], "--name", name, "--days", "30", *narrowed, "--json"], ""
        case "revoke" | "rotate":
            return ["keys", row.op, ids.get(name, "nothing"), "--json"], ""
        case "put":
            origins = [word for url in given["origins"] for word in ("--origin", url)]
            return ["secrets", "set", f"/gw/acme/shared/{name}", *origins, "--json"], "canary-1111111111"
        case "unput":
            return ["secrets", "rm", f"/gw/acme/shared/{name}", "--json"], ""
        case _:
            raise AssertionError(row.op)


def _file(home: Path, *integrations: Mapping[str, Any]) -> str:
    (home / "all.yaml").write_text(yaml.safe_dump({"integrations": [dict(i) for i in integrations]}))
    return "all.yaml"


# ------------------------------------------------------------------ file


def file_way(rest: Rest, home: Path) -> Way:
    async def way(row: Row, key: str, ids: Mapping[str, str]) -> tuple[str | None, Any]:
        given = dict(row.given)
        if row.op == "get":
            code, found = await shell(home, "export", given["name"], "--out", "all.yaml")
            if code:
                return found.rstrip().rstrip("]").rpartition("[")[2], found
            return None, _common(yaml.safe_load((home / "all.yaml").read_text())["integrations"][0])
        if row.op == "delete":
            file = _file(home, _body(rest, "keep"))
            code, found = await shell(home, "apply", "-f", file, "--prune", "--yes", "--json")
        else:
            code, found = await shell(home, "apply", "-f", _file(home, _wanted(rest, row)), "--yes", "--json")
        if "error_code" in found:
            assert code == 1
            types = {fault["type"] for fault in found["detail"]}
            return next(iter(types & {"builtin", "secret_path_not_allowed"}), found["error_code"]), found
        assert (code, found["applied"]) == (0, True)
        return None, None

    return way


def _wanted(rest: Rest, row: Row) -> dict[str, Any]:
    """The integration as the file has it."""
    given = row.given
    match row.op:
        case "create":
            return {**_body(rest, given["name"]), **given}
        case "update":
            endpoints = {"endpoints": ENDPOINTS} if given["name"] == "shop" else {}
            return {**_body(rest, given["name"]), **endpoints, **given["set"]}
        case "endpoints":
            return {**_body(rest, "shop"), "endpoints": given["endpoints"]}
        case _:
            raise AssertionError(row.op)


_WAYS: dict[Door, Callable[[Rest, Path], Way]] = {
    "rest": rest_way,
    "mcp": mcp_way,
    "cli": cli_way,
    "file": file_way,
}
