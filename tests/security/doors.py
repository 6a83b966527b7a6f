"""Every operation of the REST API and the management tools, by every caller who may not do it (rules H3, H4, J3, and J's first lines).

What gets through is read from what the attacker received, from the registry, and from the upstream: an answer of 200 alone proves
nothing, and neither does a refusal.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2

from tests.security.frame import Kind, add
from tests.security.ground import SECRET, Ground, rest

CANARY = "victims-canary"


@dataclass(frozen=True, slots=True)
class Victim:
    """What is there to be had: an integration of acme with a tool that writes and waits for approval, a key, an approval."""

    integration: str
    name: str
    key: str
    approval: str


@dataclass(frozen=True, slots=True)
class Operation:
    """`needs` is its permission; `path` behind /v1/{workspace}. `by_id`: it names something of the victim's."""

    method: str
    path: str
    needs: str
    body: Any = None

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def by_id(self) -> bool:
        return "{" in self.path


DELETE = {"name": "del", "description": "Deletes.", "method": "DELETE", "path": "/items/{id}"}
GET = {"name": "get", "description": "Gets it.", "method": "GET", "path": "/caught"}
OPERATIONS = (
    Operation("GET", "/integrations?limit=20", "Integration.view"),
    Operation("POST", "/integrations", "Integration.create", rest("made", "http://made.public.example")),
    Operation("GET", "/integrations/health-check", "Integration.view"),
    Operation("GET", "/integrations/{integration}", "Integration.view"),
    Operation("PUT", "/integrations/{integration}", "Integration.update", {"display_name": "Taken"}),
    Operation("DELETE", "/integrations/{integration}", "Integration.delete"),
    Operation("POST", "/integrations/{integration}/endpoints/get/test", "Integration.view", {"params": {}}),
    Operation(
        "POST",
        "/integrations/{integration}/endpoints/get/preview",
        "Integration.view",
        {"response": {"a": 1}, "endpoint": {"result_template": CANARY}},
    ),
    Operation("POST", "/integrations/{integration}/test-connection", "Integration.view"),
    Operation("POST", "/api-keys", "ApiKey.create", {"duration_days": 1, "role": "agent"}),
    Operation("GET", "/api-keys?limit=20", "ApiKey.view"),
    Operation("POST", "/api-keys/{key}/rotate", "ApiKey.create"),
    Operation("DELETE", "/api-keys/{key}", "ApiKey.delete"),
    Operation("PUT", "/secrets/stolen", "Secret.write", {"value": SECRET, "origins": ["https://x.public.example"]}),
    Operation("GET", "/secrets?limit=20", "Secret.write"),
    Operation("DELETE", "/secrets/victims-canary", "Secret.write"),
    Operation("GET", "/calls?limit=20", "Integration.view"),
    Operation("GET", "/audit?limit=20", "Integration.view"),
    Operation(
        "POST",
        "/imports",
        "Integration.create",
        {"curl": "curl http://imported.public.example/x", "name": "imported", "apply": True},
    ),
    Operation("GET", "/approvals", "Integration.view"),
    Operation("GET", "/approvals/{approval}", "Integration.view"),
    Operation("POST", "/approvals/{approval}/approve", "Integration.update"),
    Operation("POST", "/approvals/{approval}/deny", "Integration.update"),
    Operation("GET", "/integrations/{integration}/signing-keys", "Integration.view"),
)


_VICTIMS: dict[Any, Victim] = {}
_KEYS: dict[tuple[Any, str], str] = {}


async def victim(ground: Ground) -> Victim:
    """Stands until an attempt has changed something."""
    if ground.app not in _VICTIMS:
        _VICTIMS[ground.app] = await _new_victim(ground)
    ground.clean()
    return _VICTIMS[ground.app]


async def _new_victim(ground: Ground) -> Victim:
    name = ground.name("v")
    body = rest(name, f"http://{ground.host()}", GET, DELETE, approval_policy="writes")
    made = await ground.create({**body, "display_name": CANARY})
    assert made is not None
    key = await ground.app.keys.create("acme", role="agent", name=CANARY)
    await ground.app.secret_admin.put(ground.owner, CANARY, SECRET, ["https://x.public.example"])
    asked = await ground.call(f"{name}_del", {"id": CANARY}, ground.caller("agent"))
    assert asked.error is not None
    (approval,) = [a for a in await ground.app.approvals.open("acme", datetime.now(UTC)) if a.tool == f"{name}_del"]
    return Victim(made.id, name, key.row.id, approval.id)


async def _state(ground: Ground) -> tuple[Any, ...]:
    """What of the victim's workspace a write would change."""
    there = [i.id for i in (await ground.app.registry.load("acme"))[1]]
    now = datetime.now(UTC)
    keys, _ = await ground.app.key_store.keys("acme", 1000, 0)
    records, _ = await ground.app.secret_admin.page(ground.owner, 1000, 0)
    return (
        await ground.app.registry.version("acme"),
        there,
        sorted(k.id for k in keys),
        sorted((r.path, r.updated_at) for r in records),
        sorted((a.id, a.state) for a in await ground.app.approvals.open("acme", now)),
    )


async def _clear(ground: Ground) -> None:
    """Everything of the victim, so that the next attempt finds a whole one."""
    await ground.drop(_VICTIMS.pop(ground.app).integration)
    for name in ("made", "imported"):
        await ground.drop(name)
    for key in (await ground.app.key_store.keys("acme", 1000, 0))[0]:
        if key.role == "agent" and not key.name.startswith("attacker"):
            await ground.app.keys.revoke("acme", key.id)


async def _asked(ground: Ground, operation: Operation, client: httpx2.AsyncClient, workspace: str = "acme") -> Any:
    """What the attacker got of one operation: the victim's data, a change of the victim's workspace, a request upstream."""
    of = await victim(ground)
    path = operation.path.format(integration=of.integration, key=of.key, approval=of.approval)
    before = await _state(ground)
    answer = await client.request(operation.method, f"/v1/{workspace}{path}", json=operation.body)
    after = await _state(ground)
    seen = [w for w in (CANARY, of.name, of.integration, of.key, of.approval) if w in answer.text and w not in path]
    told = seen if answer.status_code < 300 else []
    if path.partition("?")[0].rpartition("/")[2] in ("signing-keys", "calls", "audit") and answer.status_code < 300:
        told = [answer.text]
    sent = [r.target for r in ground.received]
    if before != after:
        await _clear(ground)
    return [*told, *sent, *(["the workspace was changed"] if before != after else [])]


Client = Callable[[Ground], Awaitable[httpx2.AsyncClient]]


def _by(operation: Operation, client: Client, workspace: str = "acme") -> Callable[[Ground], Awaitable[Any]]:
    async def strike(ground: Ground) -> Any:
        async with await client(ground) as attacker:
            return await _asked(ground, operation, attacker, workspace)

    return strike


async def key_of(ground: Ground, role: Any, workspace: str = "acme", **narrowed: Any) -> str:
    """An attacker's key, made once."""
    name = f"attacker {role} {workspace} {narrowed}"
    if (ground.app, name) not in _KEYS:
        made = await ground.app.keys.create(workspace, role=role, name=name, **narrowed)
        _KEYS[ground.app, name] = made.api_key
    return _KEYS[ground.app, name]


async def ready(ground: Ground) -> None:
    """Makes what attempts share while every guard is on: made by the first attempt, its guard would be off for the making too."""
    await victim(ground)
    await key_of(ground, "owner", "globex")
    await key_of(ground, "agent")


async def _rival(ground: Ground) -> httpx2.AsyncClient:
    return ground.as_(await key_of(ground, "owner", "globex"))


def _role(role: Any) -> Client:
    async def client(ground: Ground) -> httpx2.AsyncClient:
        return ground.as_(await key_of(ground, role))

    return client


async def _narrowed(ground: Ground) -> httpx2.AsyncClient:
    return ground.as_(await key_of(ground, "owner", integrations=["another-integration"]))


async def _anonymous(ground: Ground) -> httpx2.AsyncClient:
    return ground.as_(None)


ROLES: Mapping[str, frozenset[str]] = {
    "agent": frozenset(),
    "viewer": frozenset({"Integration.view"}),
    "operator": frozenset({"Integration.view"}),
    "member": frozenset({"Integration.view", "Integration.create", "Integration.update"}),
}


def _each(kind: Kind, entry: str, guard: str, operation: Operation, client: Client, workspace: str = "acme") -> None:
    add(kind, entry, operation.name, guard, _by(operation, client, workspace))


for _operation in OPERATIONS:
    if _operation.needs != "ApiKey.create":  # his own key, which is the measure of a new one, isn't found there
        _each("cross-tenant", "REST by another workspace's owner", "a key's workspace", _operation, _rival)
    _each("session and token", "REST without a key", "authentication", _operation, _anonymous)
    for _role_name, _has in ROLES.items():
        if _operation.needs not in _has:
            _each(
                "privilege", f"REST by a key of role {_role_name}", "a key's permissions", _operation, _role(_role_name)
            )
for _operation in OPERATIONS:
    if _operation.by_id and "health" not in _operation.path:
        _each("cross-tenant", "REST in his own workspace", "rows of one workspace", _operation, _rival, "globex")
    if (
        "{integration}" in _operation.path
        or "{approval}" in _operation.path
        or _operation.path in ("/approvals", "/integrations?limit=20")
    ):
        _each("privilege", "REST by a narrowed key", "a key's narrowing", _operation, _narrowed)


# --------------------------------------------------------------------------- credentials that are none


def _wrong(headers: Callable[[str], Mapping[str, str]], query: bool = False) -> Callable[[Ground], Awaitable[Any]]:
    """A request that would be answered with the right key; `headers` spoils it."""

    async def strike(ground: Ground) -> Any:
        key = await key_of(ground, "owner")
        await victim(ground)
        async with ground.as_(None) as client:
            path = "/v1/acme/integrations?limit=20" + (f"&api_key={key}&access_token={key}" if query else "")
            answer = await client.get(path, headers=dict(headers(key)))
        return CANARY in answer.text

    return strike


for _told, _headers in {
    "the key behind Basic": lambda key: {"Authorization": f"Basic {key}"},
    "the key without a scheme": lambda key: {"Authorization": key},
    "the key in X-API-Key": lambda key: {"X-API-Key": key},
    "the key in a cookie": lambda key: {"Cookie": f"api_key={key}"},
    "the key without its last character": lambda key: {"Authorization": f"Bearer {key[:-1]}"},
    "the key in capitals": lambda key: {"Authorization": f"Bearer {key.upper()}"},
    "the key with a NUL": lambda key: {"Authorization": f"Bearer {key}%00"},
    "two keys": lambda key: {"Authorization": f"Bearer {key}, Bearer {key}"},
    "the key's hash": lambda key: {"Authorization": f"Bearer {hashlib.sha256(key.encode()).hexdigest()}"},
    "an unsigned JWT": lambda key: {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJsb2NhbCJ9."},
    "local": lambda key: {"Authorization": "Bearer local"},
}.items():
    add("session and token", "REST", _told, "authentication", _wrong(_headers))
add("session and token", "REST", "the key in the URL", "authentication", _wrong(lambda key: {}, query=True))


# --------------------------------------------------------------------------- management tools over MCP


async def _tool(ground: Ground, role: Any, name: str, arguments: Mapping[str, Any]) -> Any:
    of = await victim(ground)
    filled = json.loads(json.dumps(arguments).replace("VICTIM", of.name))
    async with ground.as_(await key_of(ground, role)) as client:
        before = await _state(ground)
        accept = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
        opened = await client.post("/mcp", json=_rpc("initialize", _HELLO), headers=accept)
        accept["Mcp-Session-Id"] = opened.headers.get("mcp-session-id", "")
        answer = await client.post("/mcp", json=_rpc("tools/call", {"name": name, "arguments": filled}), headers=accept)
    told = [w for w in (CANARY, of.integration) if w in answer.text]
    sent = [r.target for r in ground.received]
    changed = before != await _state(ground)
    if changed:
        await _clear(ground)
    return [*told, *sent, *(["the workspace was changed"] if changed else [])]


_HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "attacker", "version": "1"}}


def _rpc(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": dict(params)}


for _name, _arguments in (
    ("list_integrations", {}),
    ("get_integration", {"integration": "VICTIM"}),
    ("create_integration", {"name": "made", "display_name": "M", "base_url": "http://made.public.example"}),
    ("update_endpoint", {"tool": "VICTIM_get", "patch": {"description": "Taken."}}),
    ("test_integration_endpoint", {"tool": "VICTIM_get", "params": {}}),
    ("delete_integration", {"integration": "VICTIM"}),
):

    def _management(name: str, arguments: Mapping[str, Any]) -> Callable[[Ground], Awaitable[Any]]:
        return lambda ground: _tool(ground, "agent", name, arguments)

    add("privilege", "MCP by a key of role agent", _name, "a key's permissions", _management(_name, _arguments))
