"""Access tokens of identity providers open the doors that they are for, with the rights that their scopes give (rules H3)."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from server.access_tokens import AccessTokens
from server.access_tokens import Issuer as Trusted
from server.identity_providers import IdentityProvider
from server.issuer_keys import IssuerKeys, metadata_urls
from server.settings import SettingsError, read_settings
from tests.doors import DOORS, Door, call, knock
from tests.issuer import MCP, PUBLIC_URL, REST, RSA_KEYS, SCOPES, SSE, Issuer, issuer, jwk_of
from tests.world import World, gateway, http, listening, served
from tools.address_guard import NetworkPolicy
from tools.callers import ALL_PERMISSIONS, ROLE_PERMISSIONS
from tools.errors import IdentityProviderUnavailable, Unauthenticated
from tools.history import AuditQuery, CallQuery
from tools.upstream import Upstream

pytestmark = pytest.mark.anyio
RESOURCES: dict[Door, str] = {"modern": MCP, "legacy": MCP, "sse": SSE, "rest": REST}


class Gw:
    def __init__(self, world: World, idp: Issuer, client: httpx2.AsyncClient) -> None:
        self.world, self.idp, self.client = world, idp, client


@asynccontextmanager
async def guarded(home: Path, **provider: Any) -> AsyncGenerator[Gw]:
    async with (
        issuer() as idp,
        gateway(home, **idp.settings(**provider)) as world,
        served(world) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        yield Gw(world, idp, client)


@pytest.fixture(scope="module")
async def gw(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Gw]:
    async with guarded(tmp_path_factory.mktemp("gw")) as made:
        yield made


# ---------------------------------------------------------------------- being let in


@pytest.mark.parametrize("door", DOORS)
async def test_a_token_for_the_resource_is_let_in_and_an_api_key_still_is(gw: Gw, door: Door) -> None:
    with anyio.fail_after(30):
        token = gw.idp.token(aud=RESOURCES[door])
        assert (await knock(gw.client, door, token)).status_code == 200
        assert (await knock(gw.client, door, await gw.world.key("operator"))).status_code == 200


@pytest.mark.parametrize("door", DOORS)
async def test_without_a_token_the_answer_leads_to_the_metadata(gw: Gw, door: Door) -> None:
    with anyio.fail_after(30):
        refused = await knock(gw.client, door, "", Host="localhost")
    name = RESOURCES[door].removeprefix(PUBLIC_URL)
    scope = "look" if door == "rest" else "call"
    metadata = f"/.well-known/oauth-protected-resource{name}"
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == f'Bearer scope="{scope}", resource_metadata="{PUBLIC_URL}{metadata}"'
    told = (await gw.client.get(metadata, headers={"Host": "localhost", "X-Forwarded-Host": "evil.example"})).json()
    assert told == {
        "resource": RESOURCES[door],
        "authorization_servers": [gw.idp.url],
        "scopes_supported": [scope],
        "bearer_methods_supported": ["header"],
        "resource_name": "integrations-mcp",
    }


async def test_only_the_doors_have_metadata(gw: Gw) -> None:
    base = "/.well-known/oauth-protected-resource"
    for path in (base, f"{base}/", f"{base}/v1/acme", f"{base}/mcp/"):
        assert (await gw.client.get(path)).status_code == 404, path
    assert (await gw.client.post(f"{base}/mcp")).status_code == 405


async def test_without_identity_providers_nothing_is_told_and_a_token_is_no_key(tmp_path: Path) -> None:
    async with (
        issuer() as idp,
        gateway(tmp_path, public_url=PUBLIC_URL) as world,
        served(world) as url,
        http(url, idp.token()) as client,
    ):
        assert (await client.get("/.well-known/oauth-protected-resource/mcp")).status_code == 404
        refused = await client.get("/v1/acme/integrations")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert idp.asked == []


async def test_a_public_url_with_a_path_has_its_metadata_where_rfc_9728_puts_it(tmp_path: Path) -> None:
    async with (
        issuer() as idp,
        gateway(tmp_path, **{**idp.settings(), "public_url": "https://x.example/gw"}) as world,
        served(world) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        refused = await client.post("/mcp")
        where = "/.well-known/oauth-protected-resource/gw/mcp"
        assert f'resource_metadata="https://x.example{where}"' in refused.headers["www-authenticate"]
        assert (await client.get(where)).json()["resource"] == "https://x.example/gw/mcp"


# ---------------------------------------------------------------------- what it may do


async def test_scopes_give_what_they_are_mapped_to_and_nothing_else(gw: Gw) -> None:
    cases = {
        "call": ROLE_PERMISSIONS["agent"],
        "call look": ROLE_PERMISSIONS["operator"],
        "manage": ROLE_PERMISSIONS["member"],
        "rule": ALL_PERMISSIONS,
        "call admin Integration.delete": ROLE_PERMISSIONS["agent"],
    }
    for scope, permissions in cases.items():
        headers = {b"authorization": b"Bearer " + gw.idp.token(scope=scope).encode()}
        caller = await gw.world.app.bearer.caller(headers, None, "/mcp")
        assert caller.permissions == permissions, scope
        assert caller.is_admin == (scope == "rule")
        assert (caller.id, caller.workspace) == (f"{gw.idp.url} user-1", "acme")


@pytest.mark.parametrize("door", DOORS)
async def test_a_token_whose_scopes_give_nothing_is_403_and_hears_which_scope_it_takes(gw: Gw, door: Door) -> None:
    with anyio.fail_after(30):
        refused = await knock(gw.client, door, gw.idp.token(scope="profile email"))
    assert refused.status_code == 403
    challenge = refused.headers["www-authenticate"]
    assert challenge.startswith('Bearer error="insufficient_scope"')
    assert f'scope="{"look" if door == "rest" else "call"}"' in challenge


async def test_an_operation_beyond_the_scopes_names_the_scope_that_gives_it(gw: Gw) -> None:
    token = gw.idp.token(scope="look")
    async with http(str(gw.client.base_url), token) as client:
        get = [{"name": "get", "description": "Gets.", "method": "GET", "path": "/"}]
        made = {"name": "made", "display_name": "Made", "base_url": "https://x.example", "endpoints": get}
        refused = await client.post("/v1/acme/integrations", json=made)
        assert refused.status_code == 403
        assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
        assert 'scope="manage"' in refused.headers["www-authenticate"]
        key = await gw.world.key("viewer")
        by_key = await client.post("/v1/acme/integrations", json=made, headers={"Authorization": f"Bearer {key}"})
        assert (by_key.status_code, "www-authenticate" in by_key.headers) == (403, False)


async def test_a_token_opens_its_own_workspace_alone(gw: Gw) -> None:
    await gw.world.app.registry.ensure_workspace("Beta")
    async with http(str(gw.client.base_url), gw.idp.token()) as client:
        assert (await client.get("/v1/Beta/integrations")).status_code == 403
    async with http(str(gw.client.base_url), gw.idp.token(workspace="bETA")) as client:
        assert (await client.get("/v1/beta/integrations")).status_code == 200
        assert (await client.get("/v1/acme/integrations")).status_code == 403
    headers = {b"authorization": b"Bearer " + gw.idp.token(workspace="bETA").encode()}
    assert (await gw.world.app.bearer.caller(headers, None, "/mcp")).workspace == "Beta"  # as it was first written


async def test_a_session_of_one_workspace_is_closed_to_the_same_person_in_another(gw: Gw) -> None:
    await gw.world.app.registry.ensure_workspace("Beta")
    opened = await knock(gw.client, "legacy", gw.idp.token())
    session = {"Mcp-Session-Id": opened.headers["mcp-session-id"], "Accept": "application/json, text/event-stream"}
    tokens = {
        "acme": gw.idp.token(scope="call"),
        "Beta": gw.idp.token(workspace="Beta"),
        "other": gw.idp.token(sub="u2"),
    }
    body = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
    statuses = {}
    for name, token in tokens.items():
        headers = {**session, "Authorization": f"Bearer {token}", "MCP-Protocol-Version": "2025-11-25"}
        statuses[name] = (await gw.client.post("/mcp", json=body, headers=headers)).status_code
    assert statuses == {"acme": 200, "Beta": 404, "other": 404}  # a renewed token goes on with the session


async def test_narrowing_claims_narrow_and_without_them_nothing_is_seen(tmp_path: Path) -> None:
    async with guarded(tmp_path, tools_claim=["gateway", "tools"]) as gw:
        get = [{"name": n, "description": "Gets.", "method": "GET", "path": f"/{n}"} for n in ("one", "two")]
        await gw.world.create({"name": "shop", "display_name": "S", "base_url": "http://127.0.0.1:9", "endpoints": get})
        for claim, seen in (({"tools": ["shop_one"]}, {"shop_one"}), (None, set[str]()), ({"tools": 7}, set[str]())):
            listed = await knock(gw.client, "modern", gw.idp.token(scope="call", gateway=claim))
            names = {t["name"] for t in listed.json()["result"]["tools"]}
            assert names & {"shop_one", "shop_two"} == seen


async def test_changes_and_calls_name_the_issuer_and_the_subject_and_no_token_goes_upstream(tmp_path: Path) -> None:
    seen: list[str] = []

    async def item(request: Request) -> JSONResponse:
        seen.append(f"{request.url} {sorted(request.headers.items())} {await request.body()!r}")
        return JSONResponse({"authorization": request.headers.get("authorization")})

    async with guarded(tmp_path) as gw, listening(Starlette(routes=[Route("/{x:path}", item)])) as upstream:
        token, caller = gw.idp.token(scope="manage"), f"{gw.idp.url} user-1"
        body = {
            "name": "shop",
            "display_name": "Shop",
            "base_url": upstream,
            "endpoints": [{"name": "get", "description": "Gets.", "method": "GET", "path": "/x"}],
        }
        async with http(str(gw.client.base_url), token) as client:
            assert (await client.post("/v1/acme/integrations", json=body)).status_code == 201
            tested = await client.post("/v1/acme/integrations/shop/endpoints/get/test", json={})
            assert tested.status_code == 200
        answer = (await gw.client.post("/mcp", **call("shop_get", {}, token))).json()["result"]
        assert answer["isError"] is False
        assert len(seen) == 2
        assert [s for s in seen if token.split(".")[2] in s or "authorization" in s] == []
        changes = await gw.world.app.history.changes("acme", AuditQuery(frozenset({"integration"})))
        assert {(c.caller_kind, c.caller) for c in changes} == {("token", caller)}
        calls = await gw.world.app.admin.calls(gw.world.owner, CallQuery())
        assert {(c.caller_kind, c.caller) for c in calls} == {("token", caller)}


async def test_a_key_made_with_a_token_would_outlive_it_and_is_refused(gw: Gw) -> None:
    async with http(str(gw.client.base_url), gw.idp.token(scope="rule")) as client:
        refused = await client.post("/v1/acme/api-keys", json={"name": "n", "role": "agent", "duration_days": 1})
    assert refused.status_code == 403
    assert "outlive your own access token" in refused.json()["detail"]


# ---------------------------------------------------------------------- keys: fetched once, renewed, rotated


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@asynccontextmanager
async def checking(idp: Issuer, clock: Clock, **provider: Any) -> AsyncGenerator[AccessTokens]:
    upstream = Upstream(NetworkPolicy(allow_private=True))
    entry = IdentityProvider.model_validate(idp.provider(**provider))

    async def workspace_id(name: str) -> str | None:
        return name if name == "acme" else None

    tokens = AccessTokens([Trusted(entry, IssuerKeys(entry, upstream, clock=clock))], workspace_id)
    try:
        yield tokens
    finally:
        await tokens.aclose()
        await upstream.aclose()


async def test_keys_are_fetched_once_and_a_known_token_costs_no_check() -> None:
    async with issuer() as idp, checking(idp, Clock()) as tokens:
        many = [idp.token(sub=f"u{n}") for n in range(20)]
        async with anyio.create_task_group() as group:
            for token in many:
                group.start_soon(tokens.caller, token, MCP)
        assert idp.asked == [idp.metadata, "/keys"]
        assert [tokens.peek(token, MCP) is not None for token in many] == [True] * 20
        assert tokens.peek(many[0], REST) is None  # checked for the one resource is not checked for the other
        assert tokens.peek(many[0] + "x", MCP) is None


async def test_a_caller_that_leaves_does_not_end_the_fetch_for_the_others() -> None:
    async with issuer() as idp, checking(idp, Clock()) as tokens:
        async with anyio.create_task_group() as group:
            group.start_soon(tokens.caller, idp.token(sub="leaves"), MCP)
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        assert await tokens.caller(idp.token(), MCP)
        assert idp.asked == [idp.metadata, "/keys"]


async def test_a_new_key_is_found_and_unknown_ones_are_asked_for_once_a_minute() -> None:
    clock = Clock()
    async with issuer() as idp, checking(idp, clock) as tokens:
        await tokens.caller(idp.token(), MCP)
        idp.published.append(jwk_of(RSA_KEYS[1], "two"))
        new = idp.token(key=RSA_KEYS[1], header={"kid": "two"})
        for _ in range(5):  # the last fetch was a moment ago
            with pytest.raises(Unauthenticated):
                await tokens.caller(new, MCP)
        assert len(idp.asked) == 2
        clock.s += 60
        assert await tokens.caller(new, MCP)
        for n in range(20):
            with pytest.raises(Unauthenticated):
                await tokens.caller(idp.token(header={"kid": f"x{n}"}), MCP)
        assert len(idp.asked) == 4


async def test_a_key_that_was_taken_out_ends_its_tokens_at_the_next_renewal() -> None:
    clock = Clock()
    async with issuer() as idp, checking(idp, clock) as tokens:
        old = idp.token()
        await tokens.renew()
        assert idp.asked == []  # nobody has needed them yet
        await tokens.caller(old, MCP)
        idp.published[:] = [jwk_of(RSA_KEYS[1], "two")]
        clock.s += 299
        await tokens.renew()
        assert tokens.peek(old, MCP)
        clock.s += 1
        await tokens.renew()
        assert tokens.peek(old, MCP) is None
        with pytest.raises(Unauthenticated):
            await tokens.caller(old, MCP)
        assert await tokens.caller(idp.token(key=RSA_KEYS[1], header={"kid": "two"}), MCP)


@pytest.mark.parametrize("status", [500, 404, 302])
async def test_while_the_issuer_is_down_known_keys_hold_and_unknown_ones_are_503(status: int) -> None:
    clock = Clock()
    async with issuer() as idp, checking(idp, clock) as tokens:
        idp.status = status
        with pytest.raises(IdentityProviderUnavailable) as refused:
            await tokens.caller(idp.token(), MCP)
        assert refused.value.retry_after_s == 5
        idp.status = 200
        clock.s += 5
        assert await tokens.caller(idp.token(), MCP)
        idp.status = status
        clock.s += 3600
        await tokens.renew()
        assert await tokens.caller(idp.token(sub="new"), MCP)  # a new token of a known key
        with pytest.raises(IdentityProviderUnavailable) as refused:
            await tokens.caller(idp.token(header={"kid": "two"}), MCP)
        assert refused.value.retry_after_s == 60
        clock.s += 24 * 3600
        with pytest.raises(IdentityProviderUnavailable):
            await tokens.caller(idp.token(sub="newer"), MCP)


async def test_a_door_answers_503_with_retry_after_while_the_issuer_is_down(tmp_path: Path) -> None:
    async with guarded(tmp_path) as gw:
        gw.idp.status = 500
        for door in DOORS:
            refused = await knock(gw.client, door, gw.idp.token())
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert refused.json()["error_code"] == "identity_provider_unavailable"


@pytest.mark.parametrize("where", range(3))
async def test_metadata_is_found_at_each_well_known_address(where: int) -> None:
    async with issuer() as idp:
        idp.name = f"{idp.url}/realms/acme/"
        idp.metadata = metadata_urls(idp.name)[where].removeprefix(idp.url)
        async with checking(idp, Clock()) as tokens:
            assert await tokens.caller(idp.token(), MCP)
        assert idp.asked[-2:] == [idp.metadata, "/keys"]


async def test_metadata_about_another_issuer_is_not_believed() -> None:
    async with issuer() as idp, issuer() as evil:
        evil.name = idp.url
        idp.name = "https://other.example"
        settings = {**evil.provider(), "issuer": idp.url}
        async with checking(evil, Clock(), **settings) as tokens:
            with pytest.raises(IdentityProviderUnavailable):
                await tokens.caller(evil.token(iss=idp.url), MCP)
        assert "/keys" not in idp.asked


async def test_keys_that_cannot_verify_are_left_out() -> None:
    """Secret, private, encrypting, weak; what is left still works."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    weak = jwk_of(rsa.generate_private_key(public_exponent=65537, key_size=1024), "one")
    good = jwk_of(RSA_KEYS[0], "one")
    bad: list[Any] = [
        {"kty": "oct", "kid": "one", "k": "AAAA"},
        {**good, "use": "enc"},
        {**good, "key_ops": ["encrypt"]},
        {**good, "d": "AAAA"},
        {**good, "alg": "RS512"},
        {"kty": "RSA", "kid": "one", "n": "!", "e": 1},
        weak,
        7,
        None,
    ]
    async with issuer() as idp:
        idp.published = [*bad, good]
        async with checking(idp, Clock(), jwks_url=f"{idp.url}/keys") as tokens:
            assert await tokens.caller(idp.token(), MCP)
        assert idp.asked == ["/keys"]


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "PUBLIC_URL"),
        ({"issuer": "http://idp.example"}, "must be https"),
        ({"issuer": "idp.example"}, "no https URL"),
        ({"jwks_url": "http://idp.example/keys"}, "must be https"),
        ({"workspace": "acme"}, "either workspace or workspace_claim"),
        ({"workspace_claim": ""}, "either workspace or workspace_claim"),
        ({"algorithms": ["HS256"]}, "ALGORITHMS"),
        ({"algorithms": ["none"]}, "ALGORITHMS"),
        ({"scopes": {}}, "SCOPES"),
        ({"scopes": {"a b": ["agent"]}}, "no scope"),
        ({"scopes": {"a": ["god"]}}, "SCOPES"),
        ({"scope": {}}, "SCOPE"),
    ],
)
def test_a_provider_that_cannot_work_is_refused_at_the_start(entry: dict[str, Any], said: str) -> None:
    whole = {"issuer": "https://idp.example", "workspace_claim": "workspace", "scopes": SCOPES, **entry}
    environ = {"INTEGRATIONS_MCP_IDENTITY_PROVIDERS": orjson.dumps([whole]).decode()}
    if said != "PUBLIC_URL":
        environ["INTEGRATIONS_MCP_PUBLIC_URL"] = PUBLIC_URL
    with pytest.raises(SettingsError, match=said):
        read_settings(environ)


def test_an_issuer_on_this_machine_or_in_an_allowed_network_may_be_http() -> None:
    for url, private in (("http://localhost:9", "false"), ("http://127.0.0.1", "false"), ("http://idp", "10.0.0.0/8")):
        entry = {"issuer": url, "workspace": "acme", "scopes": SCOPES}
        environ = {
            "INTEGRATIONS_MCP_IDENTITY_PROVIDERS": orjson.dumps([entry]).decode(),
            "INTEGRATIONS_MCP_PUBLIC_URL": PUBLIC_URL,
            "INTEGRATIONS_MCP_ALLOW_PRIVATE_NETWORKS": private,
        }
        assert read_settings(environ).identity_providers[0].issuer == url
