"""The auth X-ray and discovery pins: what test-connection and `auth explain` tell, and that it holds no secret (rules A6, B6, C6)."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from upstreams import Hostile, Received, Step, answer

from tests.test_signing_keys import PEM, PUBLIC
from tests.world import World, gateway, http, served
from tools.callers import ROLE_PERMISSIONS, Caller
from tools.errors import Forbidden, InvalidRequest
from tools.explain import explain

pytestmark = pytest.mark.anyio
SECRET = "canary-secret-12345678"
TOKEN = "canary-token-abcdefgh"
MEMBER = Caller("k", "acme", role="member", permissions=ROLE_PERMISSIONS["member"])
WELL_KNOWN = "/fhir/.well-known/smart-configuration"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with gateway(tmp_path) as made:
        yield made


@pytest.fixture
async def server() -> AsyncIterator[Hostile]:
    async with Hostile() as made:
        made.script("/token", token())
        yield made


def token(**members: Any) -> Step:
    body = {"access_token": TOKEN, "token_type": "bearer", "expires_in": 3600} | members
    return answer(200, json.dumps(body).encode())


def refusal(error: str, description: str = "", status: int = 400, **headers: str) -> Step:
    return answer(status, json.dumps({"error": error, "error_description": description}).encode(), headers)


def body(server: Hostile, **auth: Any) -> dict[str, Any]:
    given = {
        "type": "oauth2_client_credentials",
        "token_url": server.url + "/token",
        "client_id": "me",
        "client_secret_value": {"value": SECRET},
        "scopes": ["read", "write"],
    }
    return {"name": "crm", "display_name": "CRM", "base_url": server.url, "auth": given | auth}


def signing(server: Hostile) -> dict[str, Any]:
    auth = {
        "type": "oauth2_jwt_bearer",
        "token_url": server.url + "/token",
        "assertion_issuer": "me",
        "private_key_value": {"value": PEM},
    }
    return body(server) | {"auth": auth}


def smart(server: Hostile) -> dict[str, Any]:
    auth = {
        "type": "smart_backend_services",
        "client_id": "me",
        "scopes": ["system/Patient.rs"],
        "private_key_value": {"value": PEM},
    }
    return body(server) | {"auth": auth, "base_url": server.url + "/fhir"}


def minted(server: Hostile) -> int:
    return sum(1 for request in server.received if request.path == "/token")


async def explained(world: World) -> dict[str, Any]:
    return await world.app.auth_admin.explain(world.owner, "crm")


# -- the way to a credential


async def test_the_whole_way_to_a_minted_token_is_told(world: World, server: Hostile) -> None:
    server.script("/token", token(scope="read"))
    made = await world.create(body(server))
    way = await explained(world)
    path = f"/gw/acme/integrations/{made.id}/client_secret"
    assert way["ok"] is True
    assert (way["type"], way["secret_paths"]) == ("oauth2_client_credentials", [path])
    assert (way["cache"], way["grant"], way["client_auth"]) == ("mint", "client_credentials", "client_secret_basic")
    assert way["token_endpoint"] == server.url + "/token"
    assert way["scopes"] == {"asked": ["read", "write"], "granted": ["read"], "missing": ["write"]}
    assert way["expires_in_s"] == 3600
    assert (await explained(world))["cache"] == "hit"
    assert minted(server) == 1


async def test_the_claims_are_told_without_what_would_make_them_usable(world: World, server: Hostile) -> None:
    await world.create(signing(server))
    shown = (await explained(world))["assertion"]
    assert shown["header"] == {"alg": "ES384", "kid": PUBLIC["kid"], "typ": "JWT"}
    assert shown["claims"]["aud"] == server.url + "/token"
    assert shown["claims"]["jti"] == "(fresh each time)"


@pytest.mark.parametrize("make", [body, signing])
async def test_no_secret_token_or_assertion_is_in_what_is_told(world: World, server: Hostile, make: Any) -> None:
    """Rules A6: also where the server echoes everything."""
    await world.create(make(server))
    told = json.dumps(await explained(world))
    sent = next(r for r in server.received if r.path == "/token")

    async def echoing(request: Any, writer: Any) -> bool:
        said = request.body.decode() + str(request.header("authorization"))
        return await refusal("invalid_client", said)(request, writer)

    server.script("/token", echoing)
    told += json.dumps(await world.app.admin.test_connection(world.owner, "crm"))
    hidden = [SECRET, TOKEN, *(v.split("=", 1)[1] for v in sent.body.decode().split("&") if v.startswith("assertion="))]
    hidden.append((sent.header("authorization") or "Basic nothing-of-the-kind").removeprefix("Basic "))
    assert [h for h in hidden if h in told] == []


async def test_a_stored_secret_is_a_way_too(world: World, server: Hostile) -> None:
    auth = {"type": "bearer_token", "bearer_token_value": {"value": SECRET}}
    made = await world.create(body(server) | {"auth": auth})
    way = await explained(world)
    assert (way["ok"], way["type"]) == (True, "bearer_token")
    assert way["secret_paths"] == [f"/gw/acme/integrations/{made.id}/token"]
    assert SECRET not in json.dumps(way)


async def test_no_auth_is_said_plainly(world: World, server: Hostile) -> None:
    await world.create(body(server) | {"auth": None})
    assert await explained(world) == {"integration": "crm", "ok": True, "type": "none"}


async def clock_ahead(request: Received, writer: asyncio.StreamWriter) -> bool:
    """A refusal by a server whose clock is 400 s ahead of ours when it answers."""
    late = format_datetime(datetime.now(UTC) + timedelta(seconds=400), usegmt=True)
    return await refusal("invalid_grant", "not yet valid", Date=late)(request, writer)


FAILURES: list[tuple[str, Step, str]] = [
    ("invalid_client", refusal("invalid_client", status=401), "check client_id"),
    ("invalid_scope", refusal("invalid_scope"), "scopes"),
    ("algorithm", refusal("invalid_client", "alg not supported"), "assertion_algorithm"),
    ("audience", refusal("invalid_grant", "aud mismatch"), "assertion_audience"),
    ("kid", refusal("invalid_client", "no matching key in jwks"), "register our public key"),
    ("clock", clock_ahead, "clock"),
    ("expired", refusal("invalid_grant", "expired authorization code"), "token_lifetime_seconds"),
    ("404", answer(404, b"nothing"), "check token_url"),
    (
        "login page",
        answer(200, b"<!doctype html><html>Sign in</html>", {"Content-Type": "text/html"}),
        "a page for people",
    ),
    ("redirect", answer(302, b"", {"Location": "/login"}), "final URL"),
    ("a wrong token type", answer(200, b'{"access_token":"abcdefgh","token_type":"DPoP"}'), ""),
]


@pytest.mark.parametrize(("step", "change"), [f[1:] for f in FAILURES], ids=[f[0] for f in FAILURES])
async def test_each_known_failure_says_in_one_sentence_what_to_change(
    world: World, server: Hostile, step: Step, change: str
) -> None:
    server.script("/token", step)
    await world.create(signing(server))
    way = await explained(world)
    assert way["ok"] is False
    assert way["token_endpoint"] == server.url + "/token"
    assert way["failed"]["reason"]
    assert change in way["failed"].get("change", "")


# -- test-connection


async def test_test_connection_begins_anew_and_tells_the_way(world: World, server: Hostile) -> None:
    """Rules B6: it mints although a token is there, and the calls after it use the new one."""
    await world.create(body(server))
    await explained(world)
    found = await world.app.admin.test_connection(world.owner, "crm")
    assert (found["status"], found["auth"], found["credential"]["cache"]) == ("healthy", "ok", "mint")
    assert minted(server) == 2


async def test_test_connection_asks_again_after_a_remembered_failure(world: World, server: Hostile) -> None:
    """Rules B6: a wrong secret is held 30 s; a person who has just put it right needn't wait."""
    server.script("/token", refusal("invalid_client", status=401))
    await world.create(body(server, client_auth_method="basic"))
    assert [(await explained(world))["ok"] for _ in range(3)] == [False] * 3
    assert minted(server) == 1
    server.script("/token", token())
    assert (await explained(world))["ok"] is False
    found = await world.app.admin.test_connection(world.owner, "crm")
    assert found["credential"]["ok"] is True
    assert minted(server) == 2


async def test_it_is_the_same_over_http_and_absent_from_the_health_check(world: World, server: Hostile) -> None:
    made = await world.create(body(server))
    async with served(world) as url, http(url, await world.key("viewer")) as client:
        tested = (await client.post(f"/v1/acme/integrations/{made.id}/test-connection")).json()
        health = (await client.get("/v1/acme/integrations/health-check")).json()
    assert tested["credential"]["grant"] == "client_credentials"
    assert "credential" not in health["integrations"][0]


async def test_a_call_that_failed_for_its_credential_shows_the_way_it_was_on(world: World, server: Hostile) -> None:
    """What `test?explain=true` and `call --explain` show."""
    server.script("/token", refusal("invalid_client", status=401))
    endpoint = {"name": "get", "description": "Gets.", "method": "GET", "path": "/things"}
    await world.create(body(server) | {"endpoints": [endpoint]})
    outcome = await world.app.toolbox.call(world.owner, "crm_get", {})
    way = explain(outcome, outcome.trace.masker)["credential"]
    assert (way["grant"], way["token_endpoint"]) == ("client_credentials", server.url + "/token")
    assert SECRET not in json.dumps(way)


# -- pins


def document(endpoint: str) -> Step:
    return answer(200, json.dumps({"token_endpoint": endpoint}).encode())


async def test_a_discovered_endpoint_stays_pinned_through_a_restart(tmp_path: Path, server: Hostile) -> None:
    """Rules C6: discovery_changed, nothing is posted to the new place until an owner or admin confirms what he has seen."""
    server.script(WELL_KNOWN, document(server.url + "/token"))
    server.script("/moved", token())
    async with gateway(tmp_path) as world:
        await world.create(smart(server))
        assert (await explained(world))["ok"] is True
    server.script(WELL_KNOWN, document(server.url + "/moved"))
    async with gateway(tmp_path) as world:
        way = await explained(world)
        assert (way["ok"], way["problem"], way["discovered"]) == (False, "discovery_changed", server.url + "/moved")
        assert "confirm" in way["failed"]["change"]
        assert "/moved" not in {r.path for r in server.received}
        admin = world.app.auth_admin
        assert (await admin.discovery(world.owner, "crm"))["token_endpoint"] == server.url + "/moved"
        assert (await explained(world))["ok"] is False
        await admin.discovery(world.owner, "crm", confirm=server.url + "/moved")
        assert (await explained(world))["ok"] is True
    async with gateway(tmp_path) as world:
        assert (await explained(world))["ok"] is True


async def test_only_what_the_server_names_now_can_be_confirmed_and_only_by_an_admin(
    world: World, server: Hostile
) -> None:
    server.script(WELL_KNOWN, document(server.url + "/token"))
    await world.create(smart(server))
    with pytest.raises(InvalidRequest, match="look again"):
        await world.app.auth_admin.discovery(world.owner, "crm", confirm="https://evil.test/token")
    with pytest.raises(Forbidden):
        await world.app.auth_admin.discovery(MEMBER, "crm", confirm=server.url + "/token")
    assert minted(server) == 0


async def test_a_confirmed_endpoint_at_another_origin_gets_the_key_s_signature(world: World, server: Hostile) -> None:
    """Rules A1: the key is bound to that origin from then on, and to none before."""
    async with Hostile() as elsewhere:
        elsewhere.script("/token", token())
        server.script(WELL_KNOWN, document(elsewhere.url + "/token"))
        await world.create(smart(server))
        assert "another origin" in (await explained(world))["failed"]["reason"]
        assert elsewhere.received == []
        await world.app.auth_admin.discovery(world.owner, "crm", confirm=elsewhere.url + "/token")
        assert (await explained(world))["ok"] is True
        assert minted(elsewhere) == 1


async def test_a_pin_goes_with_its_integration(world: World, server: Hostile) -> None:
    server.script(WELL_KNOWN, document(server.url + "/token"))
    await world.create(smart(server))
    await explained(world)
    await world.app.admin.delete(world.owner, "crm")
    server.script(WELL_KNOWN, document(server.url + "/moved"))
    server.script("/moved", token())
    world.app.auth_admin._parts_of(await world.create(smart(server))).tokens.discovery.forget(
        "acme", server.url + "/fhir"
    )
    assert (await explained(world))["ok"] is True


async def test_an_integration_that_discovers_nothing_says_so(world: World, server: Hostile) -> None:
    await world.create(body(server))
    with pytest.raises(InvalidRequest, match="doesn't discover"):
        await world.app.auth_admin.discovery(world.owner, "crm")
