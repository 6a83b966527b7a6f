"""What one may do to another's credential on a system that both use, shown at that system (rules A1, A3, B2, B4, J1, J5, J7, J8)."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from oauth_servers.world import LOOPBACK, a_world

from tests.upstreams import Hostile, Received, Step, answer
from tests.world import World, gateway
from tools.callers import ROLE_PERMISSIONS, local_caller
from tools.credentials.timing import Timing
from tools.credentials.token_cache import TokenCache
from tools.errors import CredentialUnavailable, InvalidRequest
from tools.models import AuthConfig
from tools.parsing import parse_create, parse_update

pytestmark = pytest.mark.anyio
JSON = {"Content-Type": "application/json"}
RIGHT, WRONG = "the-right-secret", "a-guess-of-mine"


@pytest.fixture
async def system() -> AsyncIterator[Hostile]:
    async with Hostile() as made:
        yield made


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with gateway(tmp_path) as made:
        yield made


def token(secret: str) -> Step:
    """A token server that knows this secret and gives each its own token."""

    async def step(request: Received, writer: asyncio.StreamWriter) -> bool:
        if f"client_secret={secret}" not in request.body.decode():
            return await answer(401, b'{"error":"invalid_client"}', JSON)(request, writer)
        body = {"access_token": "token-of-the-one-who-knows", "token_type": "Bearer", "expires_in": 3600}
        return await answer(200, json.dumps(body).encode(), JSON)(request, writer)

    return step


def oauth(url: str, secret: str | None) -> dict[str, Any]:
    auth: dict[str, Any] = {
        "type": "oauth2_client_credentials",
        "token_url": f"{url}/token",
        "client_id": "the-client",
        "scopes": ["read"],
        "client_auth_method": "post",
    }
    return auth | ({"client_secret_value": {"value": secret}} if secret else {})


def body(url: str, auth: dict[str, Any]) -> dict[str, Any]:
    endpoint = {"name": "get", "description": "d", "method": "GET", "path": "/x"}
    return {"name": "sys", "display_name": "S", "base_url": url, "auth": auth, "endpoints": [endpoint]}


async def test_an_equal_config_with_a_wrong_secret_gets_nothing_of_the_other_tenants(
    world: World, system: Hostile
) -> None:
    """Rules B4, J7: neither the token, nor a cookie, nor a kept-alive connection, nor a stored answer."""
    system.script("/token", token(RIGHT))
    cached = {"Set-Cookie": "sid=a; Path=/", "ETag": '"1"', "Cache-Control": "max-age=3600"}
    system.script("/x", answer(200, b'{"of":"a"}', JSON | cached))
    await world.create(body(system.url, oauth(system.url, RIGHT)))
    assert await world.call("sys_get") == '{"of":"a"}'

    other = local_caller("other")
    await world.app.registry.ensure_workspace("other")
    await world.app.admin.create(other, parse_create(body(system.url, oauth(system.url, WRONG))))
    before = len(system.received)
    refused = (await world.app.toolbox.call(other, "sys_get", {})).text
    assert "[credential_rejected]" in refused
    assert [r.path for r in system.received[before:]] == ["/token"]

    # With the right secret he is let in by a token, on connections and with answers of his own.
    update = parse_update({"auth": oauth(system.url, RIGHT)}, "sys")
    await world.app.admin.update(other, "sys", update)
    assert (await world.app.toolbox.call(other, "sys_get", {})).text == '{"of":"a"}'
    assert await world.call("sys_get") == '{"of":"a"}'
    theirs, mine = system.received[before:-1], [*system.received[:before], system.received[-1]]
    assert [r.path for r in theirs] == ["/token", "/token", "/x"]
    assert {r.connection for r in theirs} & {r.connection for r in mine} == set()
    for name in ("cookie", "if-none-match", "if-modified-since"):
        assert [r.header(name) for r in system.received if r.header(name)] == []


@pytest.mark.parametrize("field", ["base_url", "token_url", "endpoint", "auth of an endpoint"])
async def test_a_member_who_aims_a_stored_secret_elsewhere_sends_nothing_there(
    world: World, system: Hostile, field: str
) -> None:
    """Rules A1, J1: the PUT without the value, then test, at the far end."""
    system.script("/token", token(RIGHT))
    made = await world.create(body(system.url, oauth(system.url, RIGHT)))
    member = replace(world.owner, id="m", kind="key", role="member", permissions=ROLE_PERMISSIONS["member"])
    assert made.auth is not None
    async with Hostile() as thief:
        endpoint = body("", {})["endpoints"][0]
        path = made.auth.client_secret_ssm_param_path
        aimed: dict[str, Any] = {
            "base_url": {"base_url": thief.url},
            "token_url": {"auth": oauth(thief.url, None)},
            "endpoint": {"endpoints": [endpoint | {"base_url": thief.url}]},
            "auth of an endpoint": {
                "endpoints": [endpoint | {"auth": oauth(thief.url, None) | {"client_secret_ssm_param_path": path}}]
            },
        }[field]
        with pytest.raises(InvalidRequest) as refusal:
            await world.app.admin.update(member, "sys", parse_update(aimed, "sys"))
        assert {issue.type for issue in refusal.value.issues} == {"secret_rebind_required"}
        await world.app.admin.test(member, "sys", "get", {})
        await world.app.admin.test_connection(member, "sys")
        assert thief.received == []
    assert system.received[-1].header("authorization") == "Bearer token-of-the-one-who-knows"


async def test_another_header_of_the_same_system_is_no_other_place(world: World, system: Hostile) -> None:
    """Rules A1, J1: header_name moves the key within the origin that it was given for; and never into the connection's own headers."""
    auth = {"type": "api_key_header", "api_key_value": {"value": RIGHT}}
    await world.create(body(system.url, auth))
    member = replace(world.owner, id="m", kind="key", role="member", permissions=ROLE_PERMISSIONS["member"])
    for name in ("Host", "Content-Length", "Transfer-Encoding", "Proxy-Authorization", "X-Key\r\nHost"):
        update = parse_update({"auth": {"type": "api_key_header", "header_name": name}}, "sys")
        with pytest.raises(InvalidRequest):
            await world.app.admin.update(member, "sys", update)
    moved = parse_update({"auth": {"type": "api_key_header", "header_name": "X-Other"}}, "sys")
    await world.app.admin.update(member, "sys", moved)
    outcome = await world.app.admin.test(member, "sys", "get", {})
    assert system.received[-1].header("x-other") == RIGHT
    assert RIGHT not in outcome.text


async def test_a_token_that_comes_one_byte_at_a_time_is_given_up(system: Hostile) -> None:
    """Rules B2, J5: the deadline holds for the whole answer, not for each read of it."""
    going = asyncio.Event()

    async def drip(request: Received, writer: asyncio.StreamWriter) -> bool:
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n{"access_token":"')
        going.set()
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)
        return False

    system.script("/token", drip)
    async with a_world({"/gw/acme/secret": RIGHT}) as world:
        # Each look at the clock finds it 8 s on, so that what is left of the 10 s is short in a test.
        ticks = itertools.count(0.0, 8.0)
        timing = Timing(lambda: next(ticks), world.clock.timing().wall, world.clock.sleep, lambda: 0.0)
        tokens = TokenCache(timing)
        parts = replace(world.parts(network=LOOPBACK), tokens=tokens)
        auth = AuthConfig(
            type="oauth2_client_credentials",
            token_url=f"{system.url}/token",
            client_id="me",
            client_secret_ssm_param_path="/gw/acme/secret",
        )
        with pytest.raises(CredentialUnavailable):
            await world.credential(auth, parts).authorize()
        await tokens.aclose()
    assert going.is_set()
    assert len(system.received) == 1


@pytest.mark.parametrize("workspace", ["a/../b", "../acme", "acme/shared", "acme:1", "acme ", "acme\n", "ａcme", ""])
async def test_a_workspace_id_that_would_leave_its_prefix_has_no_secrets(world: World, workspace: str) -> None:
    """Rules A3, J8."""
    caller = replace(world.owner, workspace=workspace)
    with pytest.raises(InvalidRequest):
        await world.app.admin.create(
            caller,
            parse_create(body("https://api.example", {"type": "bearer_token", "bearer_token_value": {"value": RIGHT}})),
        )
    assert await world.app.secrets.paths("/") == []
