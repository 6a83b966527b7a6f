"""SMART discovery: what is believed of it, for how long, and that it can't lead elsewhere (rules A1, C6, I7)."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from oauth_servers.world import World, a_world
from upstreams import Hostile, Step, answer, redirect

from tools.address_guard import NetworkPolicy
from tools.errors import CallError, CredentialUnavailable, Misconfigured
from tools.jwks import generate_key
from tools.models import AuthConfig

pytestmark = pytest.mark.anyio
KEY = "/gw/acme/key"
PEM, _PUBLIC = generate_key("ES384")
DOCUMENT = "/fhir/r4/.well-known/smart-configuration"
TOKEN = answer(200, b'{"access_token":"tok-abcdefgh","token_type":"bearer","expires_in":0}')
AUTH = AuthConfig(
    type="smart_backend_services", client_id="me", scopes=("system/Patient.rs",), private_key_ssm_param_path=KEY
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world({KEY: PEM}) as made:
        yield made


@pytest.fixture
async def server() -> AsyncIterator[Hostile]:
    async with Hostile() as made:
        made.script("/token", TOKEN)
        yield made


def document(endpoint: Any, **members: Any) -> Step:
    return answer(200, json.dumps({"token_endpoint": endpoint} | members).encode())


async def mint(world: World, server: Hostile, **parts: Any) -> Any:
    given: dict[str, Any] = {"base_url": server.url + "/fhir/r4"} | parts
    return await world.credential(AUTH, world.parts(**given)).authorize()


def paths(server: Hostile) -> list[str]:
    return [request.path for request in server.received]


async def test_it_is_appended_to_the_fhir_base_and_asked_without_credentials(world: World, server: Hostile) -> None:
    """Rules C6: aud is then the discovered URL, byte for byte (rules C4)."""
    server.script(DOCUMENT, document(server.url + "/token"))
    made = await mint(world, server)
    assert made.value == "Bearer tok-abcdefgh"
    assert paths(server) == [DOCUMENT, "/token"]
    assert server.received[0].header("authorization") is None
    assert server.received[0].header("accept") == "application/json"
    assert made.explain["assertion"]["claims"]["aud"] == server.url + "/token"


async def test_it_is_kept_for_an_hour_and_a_failure_for_a_minute(world: World, server: Hostile) -> None:
    """Rules C6; the token's life is 0, so every call mints."""
    server.script(DOCUMENT, answer(404), document(server.url + "/token"))
    for _ in range(3):
        with pytest.raises(Misconfigured):
            await mint(world, server)
    assert paths(server) == [DOCUMENT]
    world.clock.now += 61
    for _ in range(3):
        await mint(world, server)
        world.clock.now += 1199
    assert paths(server).count(DOCUMENT) == 2
    world.clock.now += 10
    await mint(world, server)
    assert paths(server).count(DOCUMENT) == 3


async def test_a_later_change_stops_minting_until_it_is_confirmed(world: World, server: Hostile) -> None:
    """Rules C6: discovery_changed, and nothing is posted to the new place."""
    server.script(DOCUMENT, document(server.url + "/token"), document(server.url + "/other"))
    server.script("/other", TOKEN)
    await mint(world, server)
    world.clock.now += 3601
    with pytest.raises(Misconfigured, match="discovery_changed"):
        await mint(world, server)
    assert "/other" not in paths(server)
    await world.tokens.discovery.pins.confirm("acme", "i-1", server.url + "/fhir/r4", server.url + "/other")
    await mint(world, server)
    assert paths(server)[-1] == "/other"


async def test_another_origin_must_be_confirmed(world: World, server: Hostile) -> None:
    """Rules A1, C6: the key is then bound to that origin, and only then is anything posted there."""
    async with Hostile() as elsewhere:
        elsewhere.script("/token", TOKEN)
        server.script(DOCUMENT, document(elsewhere.url + "/token"))
        with pytest.raises(Misconfigured, match="another origin"):
            await mint(world, server)
        assert elsewhere.received == []
        made = await mint(world, server, origins={KEY: (server.url, elsewhere.url)})
        assert made.value == "Bearer tok-abcdefgh"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_followed_within_its_origin_only(world: World, server: Hostile, status: int) -> None:
    """Rules C6, I7."""
    async with Hostile() as elsewhere:
        elsewhere.script("/moved", document(server.url + "/token"))
        server.script(DOCUMENT, redirect(status, elsewhere.url + "/moved"))
        with pytest.raises(CallError):
            await mint(world, server)
        assert elsewhere.received == []
    world.clock.now += 61
    server.script(DOCUMENT, redirect(status, "/moved"))
    server.script("/moved", document(server.url + "/token"))
    assert (await mint(world, server)).value == "Bearer tok-abcdefgh"


@pytest.mark.parametrize(
    "step",
    [
        document(None),
        document(7),
        document("/token"),
        document("javascript:alert(1)"),
        document("https://u:p@evil.test/token"),
        document("https://evil.test/token?x=1"),
        document("http://169.254.169.254/latest/api/token"),
        document("https://127.0.0.1:6379/"),
        document("http://evil.test/token"),
        answer(200, b"<html>"),
        answer(200, b"[]"),
        answer(200, b'{"token_endpoint":"' + b"x" * 300_000 + b'"}'),
        answer(401, b"{}"),
    ],
)
async def test_a_hostile_document_leads_nowhere(world: World, server: Hostile, step: Step) -> None:
    """Rules C6, I7: guard x discovered token endpoint."""
    server.script(DOCUMENT, step)
    with pytest.raises((Misconfigured, CredentialUnavailable)) as failure:
        await mint(world, server)
    assert failure.value.advice
    assert paths(server) == [DOCUMENT]


async def test_missing_capabilities_are_warnings(world: World, server: Hostile) -> None:
    """Rules C6."""
    lists = {
        "grant_types_supported": ["authorization_code"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS384"],
    }
    server.script(DOCUMENT, document(server.url + "/token", **lists))
    warnings = (await mint(world, server)).explain["warnings"]
    assert [w.split("list ")[1].split(" in")[0] for w in warnings] == ["client_credentials", "private_key_jwt", "ES384"]


async def test_without_token_url_and_base_url_it_says_so(world: World, server: Hostile) -> None:
    with pytest.raises(Misconfigured, match="base_url"):
        await mint(world, server, base_url="")


async def test_a_discovered_http_endpoint_needs_an_allowed_network(world: World, server: Hostile) -> None:
    """Rules B2, C6: with the default policy nothing is posted over http."""
    server.script(DOCUMENT, document(server.url + "/token"))
    with pytest.raises(Misconfigured, match="https"):
        await mint(world, server, network=NetworkPolicy())
    assert "/token" not in paths(server)
