"""Token cache and token endpoint against a loopback server that answers as told (rules B1-B8, I3, J4, J5)."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextvars import ContextVar
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus, unquote_plus

import pytest
from oauth_servers.world import BASE, World, a_world
from upstreams import Hostile, Received, Step, answer, drop, gzip_bomb, redirect

from tools.address_guard import NetworkPolicy
from tools.credentials.authorization import Authorization
from tools.credentials.minted import MintedCredential
from tools.credentials.token_cache import Token, TokenKey
from tools.errors import CallError, CredentialRejected, CredentialUnavailable, Misconfigured
from tools.models import AuthConfig
from tools.upstream import Answer

pytestmark = pytest.mark.anyio
SECRET = "s3cr3t%:+&=/ ü-and-long"
PATH = "/gw/acme/secret"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world({PATH: SECRET}) as made:
        yield made


@pytest.fixture
async def server() -> AsyncIterator[Hostile]:
    async with Hostile() as made:
        yield made


def ok(token: str = "tok-1-abcdefgh", **members: Any) -> Step:
    body = {"access_token": token, "token_type": "Bearer", "expires_in": 3600} | members
    return answer(200, json.dumps({k: v for k, v in body.items() if v is not ...}).encode(), JSON)


def error(code: str, status: int = 400, **members: Any) -> Step:
    headers = JSON | members.pop("headers", {})
    return answer(status, json.dumps({"error": code} | members).encode(), headers)


def config(server: Hostile, **fields: Any) -> AuthConfig:
    given: dict[str, Any] = {"client_auth_method": "post", "client_id": "me"} | fields
    return AuthConfig(
        type="oauth2_client_credentials", token_url=server.url + "/token", client_secret_ssm_param_path=PATH, **given
    )


def unauthorized(**headers: str) -> Answer:
    return Answer(401, headers, b"", BASE)


def form(request: Received) -> dict[str, list[str]]:
    return parse_qs(request.body.decode(), keep_blank_values=True, strict_parsing=True)


# ------------------------------------------------------------------ one mint


async def test_a_thousand_calls_on_a_cold_cache_mint_one_token(world: World, server: Hostile) -> None:
    """Rules B6, I3."""
    server.script("/token", ok())
    credential = world.credential(config(server))
    made = await asyncio.gather(*(credential.authorize() for _ in range(1000)))
    assert {a.value for a in made} == {"Bearer tok-1-abcdefgh"}
    assert len(server.received) == 1
    assert (await credential.authorize()).source == "cached_token"


async def test_a_cancelled_first_waiter_leaves_the_mint_running(world: World, server: Hostile) -> None:
    """Rules B6, I3."""
    gate, arrived = asyncio.Event(), asyncio.Event()
    reply = ok()

    async def held(request: Received, writer: asyncio.StreamWriter) -> bool:
        arrived.set()
        await gate.wait()
        return await reply(request, writer)

    server.script("/token", held)
    credential = world.credential(config(server))
    first = asyncio.create_task(credential.authorize())
    await arrived.wait()
    second = asyncio.create_task(credential.authorize())
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert (await second).value == "Bearer tok-1-abcdefgh"
    assert len(server.received) == 1


async def test_a_mint_slower_than_every_caller_still_fills_the_cache(world: World, server: Hostile) -> None:
    """Rules I3."""
    gate, arrived = asyncio.Event(), asyncio.Event()
    reply = ok()

    async def held(request: Received, writer: asyncio.StreamWriter) -> bool:
        arrived.set()
        await gate.wait()
        return await reply(request, writer)

    server.script("/token", held)
    credential = world.credential(config(server))
    callers = [asyncio.create_task(credential.authorize()) for _ in range(3)]
    await arrived.wait()
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    gate.set()
    assert (await credential.authorize()).value == "Bearer tok-1-abcdefgh"
    assert len(server.received) == 1


async def test_two_tenants_with_equal_config_mint_two_tokens_and_never_swap_them(world: World, server: Hostile) -> None:
    """Rules B4, I3, J7; two integrations of one workspace likewise."""
    server.script("/token", ok("token-of-a"), ok("token-of-b"), ok("token-of-c"))
    owners = [("acme", "i-1"), ("other", "i-1"), ("acme", "i-2")]
    credentials = [world.credential(config(server), world.parts(ws, i)) for ws, i in owners]
    first = [(await c.authorize()).value for c in credentials]
    again = [(await c.authorize()).value for c in credentials]
    assert first == again == ["Bearer token-of-a", "Bearer token-of-b", "Bearer token-of-c"]
    assert len(server.received) == 3


@pytest.mark.parametrize("change", [{"scopes": ("b",)}, {"client_id": "you"}, {"token_params": {"resource": "x"}}])
async def test_a_changed_config_mints_anew(world: World, server: Hostile, change: dict[str, Any]) -> None:
    """Rules B4."""
    server.script("/token", ok("token-old"), ok("token-new"))
    assert (await world.credential(config(server)).authorize()).value == "Bearer token-old"
    assert (await world.credential(config(server, **change)).authorize()).value == "Bearer token-new"


async def test_a_new_secret_version_mints_anew(world: World, server: Hostile) -> None:
    """Rules B4: also for a secret that is only named, once the reader's cache has ended."""
    server.script("/token", ok("token-old"), ok("token-new"))
    credential = world.credential(config(server))
    assert (await credential.authorize()).value == "Bearer token-old"
    await world.secrets.write(PATH, "another-secret")
    world.clock.now += 61
    assert (await credential.authorize()).value == "Bearer token-new"
    assert [form(r)["client_secret"] for r in server.received] == [[SECRET], ["another-secret"]]


async def test_a_mint_of_a_dropped_entry_is_not_stored(world: World, server: Hostile) -> None:
    """Rules B4 (generation), J14: PUT during a mint."""
    gate, arrived = asyncio.Event(), asyncio.Event()
    reply = ok("token-of-old-config")

    async def held(request: Received, writer: asyncio.StreamWriter) -> bool:
        arrived.set()
        await gate.wait()
        return await reply(request, writer)

    server.script("/token", held, ok("token-of-new-config"))
    credential = world.credential(config(server))
    waiting = asyncio.create_task(credential.authorize())
    await arrived.wait()
    world.tokens.drop("acme", "i-1")
    gate.set()
    await waiting
    assert (await credential.authorize()).value == "Bearer token-of-new-config"


async def test_a_mint_is_nobodys_call(world: World) -> None:
    """Rules B6: it runs in no caller's context, so it isn't logged or traced as the first waiter's."""
    caller: ContextVar[str] = ContextVar("caller", default="nobody")
    seen: list[str] = []

    async def mint() -> Token:
        seen.append(caller.get())
        return Token("t", 60)

    caller.set("first")
    await world.tokens.token(TokenKey("acme", "i-1", "config", ()), mint)
    assert seen == ["nobody"]


# ------------------------------------------------------------------ life


@pytest.mark.parametrize(
    ("expires_in", "reused_at", "minted_at"),
    [
        (3600, 3599, 3600),
        ("3600", 3599, 3600),
        (3600.9, 3600, 3601),
        (..., 299, 300),
        (None, 299, 300),
        ("NaN", 299, 300),
        (True, 299, 300),
        ("soon", 299, 300),
        ([3600], 299, 300),
        (10**9, 86399, 86400),
        ("999999999", 86399, 86400),
        (2, 1, 2),
    ],
)
async def test_expires_in_is_read_in_all_its_spellings(
    world: World, server: Hostile, expires_in: Any, reused_at: float, minted_at: float
) -> None:
    """Rules B5, J5: integer, float, digit string; unusable is 300 s; above 24 h is 24 h."""
    server.script("/token", ok("token-first", expires_in=expires_in), error("invalid_client"), ok("token-second"))
    auth = config(server)
    begun = world.clock.now
    assert (await world.credential(auth).authorize()).value == "Bearer token-first"
    world.clock.now = begun + reused_at
    assert (await world.credential(auth).authorize()).value == "Bearer token-first"
    await world.tokens.settled()
    world.clock.now = begun + minted_at
    with pytest.raises(CredentialRejected):  # the failed refresh ahead is remembered; the old token is over
        await world.credential(auth).authorize()


@pytest.mark.parametrize("expires_in", [0, -1, "0", "-5", -0.5])
async def test_a_token_without_life_serves_its_call_only(world: World, server: Hostile, expires_in: Any) -> None:
    """Rules B5, J5."""
    server.script("/token", ok("token-first", expires_in=expires_in), ok("token-second"))
    credential = world.credential(config(server))
    assert (await credential.authorize()).value == "Bearer token-first"
    assert (await credential.authorize()).value == "Bearer token-second"


@pytest.mark.parametrize(
    ("life", "chance", "quiet_until", "refreshes_at"),
    [
        (3600, 0.0, 3539, 3540),
        (3600, 1.0, 3533, 3534),
        (100, 0.0, 49, 50),
        (60, 0.0, 29, 30),
        (86400 * 3, 0.0, 86339, 86340),
    ],
)
async def test_a_token_is_refreshed_ahead_while_calls_use_the_old_one(
    world: World, server: Hostile, life: int, chance: float, quiet_until: float, refreshes_at: float
) -> None:
    """Rules B5: max(half the life, life - 60 s) less a jitter of up to 10 % of what remains; no call waits."""
    world.clock.chance = chance
    server.script("/token", ok("token-first", expires_in=life), ok("token-second"))
    credential, begun = world.credential(config(server)), world.clock.now
    await credential.authorize()
    world.clock.now = begun + quiet_until
    assert (await credential.authorize()).value == "Bearer token-first"
    await world.tokens.settled()
    assert len(server.received) == 1
    world.clock.now = begun + refreshes_at
    assert (await credential.authorize()).value == "Bearer token-first"
    await world.tokens.settled()
    assert (await credential.authorize()).value == "Bearer token-second"
    assert len(server.received) == 2


async def test_an_outage_at_refresh_costs_no_call_and_few_requests(world: World, server: Hostile) -> None:
    """Rules B5: the old token goes on; a failed refresh is tried again after a pause, not by every call."""
    server.script("/token", ok("token-first", expires_in=100), answer(404), ok("token-second", expires_in=100))
    credential, begun = world.credential(config(server)), world.clock.now
    await credential.authorize()
    world.clock.now = begun + 60
    for _ in range(50):
        assert (await credential.authorize()).value == "Bearer token-first"
        await world.tokens.settled()
    assert len(server.received) == 2
    world.clock.now = begun + 66
    await credential.authorize()
    await world.tokens.settled()
    assert (await credential.authorize()).value == "Bearer token-second"


async def test_closing_the_cache_ends_the_mints_that_run(world: World, server: Hostile) -> None:
    arrived = asyncio.Event()

    async def held(request: Received, writer: asyncio.StreamWriter) -> bool:
        arrived.set()
        await writer.wait_closed()
        return False

    server.script("/token", held)
    waiting = asyncio.create_task(world.credential(config(server)).authorize())
    await arrived.wait()
    await world.tokens.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting


# ------------------------------------------------------------------ failures


async def test_a_wrong_secret_is_tried_both_ways_once_and_then_not_again(world: World, server: Hostile) -> None:
    """Rules B1, B6, I5: 2 requests, then 0, so that it can't lock the account."""
    server.script("/token", error("invalid_client", 401))
    credential = world.credential(config(server, client_auth_method=None))
    for _ in range(5):
        with pytest.raises(CredentialRejected) as failure:
            await credential.authorize()
        assert "invalid_client" in failure.value.message
    assert len(server.received) == 2
    assert server.received[0].header("authorization") is not None
    assert server.received[1].header("authorization") is None
    assert "basic: answered 401 invalid_client" in str(credential.explain()["client_auth_tried"])


@pytest.mark.parametrize("code", ["invalid_client", "invalid_grant", "unauthorized_client", "invalid_scope"])
async def test_a_refusal_is_remembered_for_30_s_then_doubling_to_5_min(
    world: World, server: Hostile, code: str
) -> None:
    """Rules B6."""
    server.script("/token", error(code))
    credential = world.credential(config(server))
    for requests, hold in enumerate([30, 60, 120, 240, 300, 300], start=1):
        with pytest.raises(CredentialRejected):
            await credential.authorize()
        world.clock.now += hold - 1
        with pytest.raises(CredentialRejected) as again:
            await credential.authorize()
        assert again.value.retry_after_s == pytest.approx(1)
        assert len(server.received) == requests
        world.clock.now += 1


async def test_a_thousand_calls_share_one_refusal(world: World, server: Hostile) -> None:
    """Rules I3: a failing mint, one request in 30 s."""
    server.script("/token", error("invalid_grant"))
    credential = world.credential(config(server))
    results = await asyncio.gather(*(credential.authorize() for _ in range(1000)), return_exceptions=True)
    assert all(isinstance(r, CredentialRejected) for r in results)
    assert len({id(r) for r in results}) == 1000  # a shared exception would grow one traceback for all
    assert len(server.received) == 1


async def test_test_connection_and_a_new_secret_end_the_hold(world: World, server: Hostile) -> None:
    """Rules B6."""
    server.script("/token", error("invalid_client"), error("invalid_client"), ok())
    credential = world.credential(config(server))
    with pytest.raises(CredentialRejected):
        await credential.authorize()
    world.tokens.drop("acme", "i-1")
    with pytest.raises(CredentialRejected):
        await credential.authorize()
    await world.secrets.write(PATH, "the-right-secret")
    fresh = world.credential(config(server), world.parts(versions={PATH: "2"}))
    assert (await fresh.authorize()).value == "Bearer tok-1-abcdefgh"
    assert len(server.received) == 3


@pytest.mark.parametrize(("status", "waited"), [(429, 90), (400, 90)])
async def test_retry_after_of_a_refusal_is_obeyed(world: World, server: Hostile, status: int, waited: int) -> None:
    """Rules B6; a wait beyond the request's 10 s isn't slept through but remembered."""
    server.script(
        "/token", error("invalid_client" if status == 400 else "slow_down", status, headers={"Retry-After": "90"})
    )
    credential = world.credential(config(server))
    with pytest.raises(CallError):
        await credential.authorize()
    world.clock.now += waited - 1
    with pytest.raises(CallError):
        await credential.authorize()
    assert len(server.received) == 1
    world.clock.now += 2
    with pytest.raises(CallError):
        await credential.authorize()
    assert len(server.received) == 2


@pytest.mark.parametrize("step", [answer(500), answer(503), answer(429), drop], ids=["500", "503", "429", "dropped"])
async def test_a_token_request_is_retried_twice_at_most(world: World, server: Hostile, step: Step) -> None:
    """Rules B2."""
    server.script("/token", step)
    with pytest.raises(CredentialUnavailable) as failure:
        await world.credential(config(server)).authorize()
    assert failure.value.retryable
    assert len(server.received) == 3
    server.script("/token", step, step, ok())
    assert (await world.credential(config(server, client_id="x")).authorize()).value == "Bearer tok-1-abcdefgh"


async def test_no_connection_is_retried_and_said(world: World, server: Hostile) -> None:
    """Rules B2."""
    await server.__aexit__(None, None, None)
    with pytest.raises(CredentialUnavailable, match="no connection"):
        await world.credential(config(server)).authorize()
    assert len(world.clock.waits) == 2
    await server.__aenter__()


# ------------------------------------------------------------------ 401


async def test_a_401_mints_once_for_all_who_saw_it(world: World, server: Hostile) -> None:
    """Rules B7."""
    server.script("/token", ok("token-first"), ok("token-second"), ok("token-third"))
    credential = world.credential(config(server))
    used = [await credential.authorize() for _ in range(100)]

    async def again(authorization: Authorization) -> str:
        assert await credential.rejected(authorization, unauthorized())
        return (await credential.authorize()).value

    assert set(await asyncio.gather(*map(again, used))) == {"Bearer token-second"}
    assert len(server.received) == 2


async def test_a_late_401_for_an_old_token_leaves_the_new_one_alone(world: World, server: Hostile) -> None:
    """Rules B7: the entry is dropped only if it still holds that very token."""
    server.script("/token", ok("token-first"), ok("token-second"), ok("token-third"))
    credential = world.credential(config(server))
    first = await credential.authorize()
    assert await credential.rejected(first, unauthorized())
    await credential.authorize()
    for later in (0, 61):
        world.clock.now += later
        assert await credential.rejected(first, unauthorized())
        assert (await credential.authorize()).value == "Bearer token-second"


async def test_an_upstream_that_always_says_401_gets_two_mints_a_minute(world: World, server: Hostile) -> None:
    """Rules B7, I3: at 1,000 callers."""
    server.script("/token", *(ok(f"token-number-{n}") for n in range(9)))
    credential = world.credential(config(server))

    async def call() -> None:
        used = await credential.authorize()
        if await credential.rejected(used, unauthorized()):
            await credential.rejected(await credential.authorize(), unauthorized())

    for _ in range(10):
        await asyncio.gather(*(call() for _ in range(100)))
        world.clock.now += 5
    assert len(server.received) == 2
    world.clock.now += 11
    await asyncio.gather(*(call() for _ in range(100)))
    assert len(server.received) == 3


@pytest.mark.parametrize(
    "answer",
    [Answer(403, {}, b"", BASE), unauthorized(**{"www-authenticate": 'Bearer error="insufficient_scope"'})],
    ids=["403", "insufficient_scope"],
)
async def test_what_a_fresh_token_would_not_mend_never_mints(world: World, server: Hostile, answer: Answer) -> None:
    """Rules B7."""
    server.script("/token", ok())
    credential = world.credential(config(server))
    assert not await credential.rejected(await credential.authorize(), answer)
    await credential.authorize()
    assert len(server.received) == 1


# ------------------------------------------------------------------ client authentication


async def test_basic_carries_id_and_secret_form_urlencoded(world: World, server: Hostile) -> None:
    """Rules B1, RFC 6749 2.3.1: decoded by the letter of the RFC, the server has what we hold."""
    server.script("/token", ok())
    await world.credential(config(server, client_auth_method="basic", client_id="a:b c%ü")).authorize()
    header = server.received[0].header("authorization") or ""
    user, _, password = base64.b64decode(header.removeprefix("Basic ")).decode("ascii").partition(":")
    assert (unquote_plus(user), unquote_plus(password)) == ("a:b c%ü", SECRET)
    assert "client_secret" not in form(server.received[0])


async def test_the_method_that_worked_is_remembered_for_the_next_mint(world: World, server: Hostile) -> None:
    """Rules B1, I5: counted at the server, also after the secret became wrong."""
    server.script("/token", error("invalid_request"), ok(expires_in=0), ok(expires_in=0), error("invalid_client", 401))
    credential = world.credential(config(server, client_auth_method=None))
    await credential.authorize()
    assert len(server.received) == 2
    await credential.authorize()
    assert len(server.received) == 3
    assert form(server.received[2])["client_secret"] == [SECRET]
    with pytest.raises(CredentialRejected):
        await credential.authorize()
    assert len(server.received) == 4


@pytest.mark.parametrize(("status", "code"), [(400, "invalid_scope"), (403, "invalid_client"), (400, "invalid_grant")])
async def test_other_refusals_are_not_tried_the_other_way(
    world: World, server: Hostile, status: int, code: str
) -> None:
    """Rules B1: only 400 and 401 with invalid_client or invalid_request."""
    server.script("/token", error(code, status))
    with pytest.raises(CredentialRejected):
        await world.credential(config(server, client_auth_method=None)).authorize()
    assert len(server.received) == 1


@pytest.mark.parametrize("method", ["basic", "post"])
async def test_a_method_that_is_set_is_the_only_one(world: World, server: Hostile, method: str) -> None:
    """Rules B1."""
    server.script("/token", error("invalid_client", 401))
    with pytest.raises(CredentialRejected):
        await world.credential(config(server, client_auth_method=method)).authorize()
    assert len(server.received) == 1
    assert (server.received[0].header("authorization") is not None) == (method == "basic")


async def test_scopes_and_params_go_out_as_written(world: World, server: Hostile) -> None:
    """Rules B3, B8: duplicates go, order stays; without scopes there is no scope field."""
    server.script("/token", ok())
    params = {"resource": "https://api.example.com/ä", "audience": "a b"}
    await world.credential(config(server, scopes=("b", "a", "b"), token_params=params)).authorize()
    await world.credential(config(server)).authorize()
    first, second = map(form, server.received)
    assert first["scope"] == ["b a"]
    assert (first["resource"], first["audience"]) == (["https://api.example.com/ä"], ["a b"])
    assert first["grant_type"] == ["client_credentials"]
    assert "scope" not in second
    assert server.received[0].header("accept") == "application/json"


# ------------------------------------------------------------------ hostile answers


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (ok("tok\r\nX-Evil: 1"), "usable access_token"),
        (ok("tok\x00en"), "usable access_token"),
        (ok("tökén"), "usable access_token"),
        (ok("two words"), "usable access_token"),
        (ok(""), "usable access_token"),
        (ok("x" * 16_385), "usable access_token"),
        (ok(None), "usable access_token"),  # type: ignore[arg-type]
        (ok(["t"]), "usable access_token"),  # type: ignore[arg-type]
        (ok(token_type="DPoP"), "DPoP"),
        (ok(token_type="mac"), "mac"),
        (ok(token_type="N_A"), "N_A"),
        (ok(token_type=7), "7"),
        (ok(error="temporarily_unavailable"), "temporarily_unavailable"),
        (ok(error={"code": 3}), "answered 200"),
        (answer(200, b"<!doctype html><title>Sign in</title>", {"Content-Type": "text/html"}), "web page"),
        (answer(200, b"<html>", {}), "web page"),
        (answer(200, b"", JSON), "empty body"),
        (answer(200, b"[]", JSON), "not an object"),
        (answer(200, b"null", JSON), "not an object"),
        (answer(200, b"[" * 60_000, JSON), "not JSON"),
        (answer(200, b'{"access_token":"t","expires_in":NaN}', JSON), "not JSON"),
        (answer(200, b'{"access_token":"t","expires_in":1e309}', JSON), "not JSON"),
        (answer(200, b'{"access_token":"\xff"}', JSON), "not JSON"),
        (answer(200, b"access_token=x&token_type=bearer", {}), "not JSON"),
        (answer(200, b'{"access_token":"' + b"x" * 1_000_000 + b'"}', JSON), "longer than 65,536 bytes"),
        (gzip_bomb(50_000_000), "longer than 65,536 bytes"),
        (answer(201, b'{"access_token":"t"}', JSON), "answered 201"),
        (answer(204), "empty body"),
        (answer(404, b"nope"), "check|404"),
    ],
)
async def test_a_hostile_token_answer_is_refused_with_a_sentence(
    world: World, server: Hostile, step: Step, says: str
) -> None:
    """Rules B2, J5: nothing of it ever becomes a header."""
    server.script("/token", step)
    with pytest.raises((Misconfigured, CredentialUnavailable, CredentialRejected), match=says) as failure:
        await world.credential(config(server)).authorize()
    assert failure.value.advice
    assert not {c for c in str(failure.value) if c < " "}


async def test_a_missing_token_type_is_taken_as_bearer_with_a_warning(world: World, server: Hostile) -> None:
    """Rules B2."""
    server.script("/token", ok(token_type=...))
    made = await world.credential(config(server)).authorize()
    assert "no token_type" in str(made.explain["warnings"])


@pytest.mark.parametrize("kind", ["bearer", "BEARER", "Bearer"])
async def test_bearer_is_bearer_in_any_case(world: World, server: Hostile, kind: str) -> None:
    """Rules B2: and the header that we send says Bearer."""
    server.script("/token", ok(token_type=kind))
    assert (await world.credential(config(server)).authorize()).value == "Bearer tok-1-abcdefgh"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_of_the_token_endpoint_is_never_followed(world: World, server: Hostile, status: int) -> None:
    """Rules B2, J4: a client that replays the POST would hand over secret and assertion."""
    async with Hostile() as other:
        server.script("/token", redirect(status, other.url + "/token?x=1"))
        other.script("/token", ok("token-of-thief"))
        with pytest.raises(Misconfigured, match="redirect"):
            await world.credential(config(server)).authorize()
        assert other.received == []
        assert len(server.received) == 1


async def test_a_refresh_header_is_not_followed(world: World, server: Hostile) -> None:
    """Rules J4."""
    async with Hostile() as other:
        server.script(
            "/token", answer(200, b"<html>", {"Refresh": f"0; url={other.url}/", "Content-Type": "text/html"})
        )
        with pytest.raises(Misconfigured, match="web page"):
            await world.credential(config(server)).authorize()
        assert other.received == []


async def test_a_server_that_echoes_the_secret_does_not_put_it_into_our_words(world: World, server: Hostile) -> None:
    """Rules A6, J6, I1: plain, base64 of id:secret, percent-encoded, in description and error code."""

    async def echoing(request: Received, writer: asyncio.StreamWriter) -> bool:
        said = f"{request.body.decode()} {request.header('authorization')} {SECRET}\r\n\x1b[31m"
        return await error("invalid_client", 400, error_description=said)(request, writer)

    server.script("/token", echoing)
    for method in ("basic", "post", None):
        credential = world.credential(config(server, client_auth_method=method))
        with pytest.raises(CredentialRejected) as failure:
            await credential.authorize()
        shown = f"{failure.value!r} {failure.value} {failure.value.said} {failure.value.advice} {credential.explain()}"
        for spelling in (
            SECRET,
            quote(SECRET, safe=""),
            quote_plus(SECRET),
            base64.b64encode(f"me:{quote_plus(SECRET)}".encode()).decode(),
        ):
            assert spelling not in shown, method
        assert "[secret]" in (failure.value.said or "")
        assert not {c for c in failure.value.said or "" if c < " "}


async def test_nothing_shown_of_a_mint_holds_secret_or_token(world: World, server: Hostile) -> None:
    """Rules I1: repr, explain and the cache's own reprs; the masks hold both."""
    server.script("/token", ok("token-that-stays-hidden"))
    credential = world.credential(config(server))
    made = await credential.authorize()
    held = list(world.tokens._entries.values())  # the one place where a repr would show a token by accident
    shown = f"{made!r} {made.explain} {credential.explain()} {held!r} {credential!r}"
    assert SECRET not in shown
    assert "token-that-stays-hidden" not in shown
    assert {SECRET, "token-that-stays-hidden"} <= set(made.masks)


# ------------------------------------------------------------------ explain


async def test_explain_tells_the_way_to_the_token(world: World, server: Hostile) -> None:
    """The auth X-ray of a success."""
    server.script("/token", ok(scope="read", expires_in=1200))
    credential = world.credential(config(server, scopes=("read", "write"), client_auth_method=None))
    made = await credential.authorize()
    told = made.explain
    assert told["type"] == "oauth2_client_credentials"
    assert told["secret_paths"] == [PATH]
    assert told["token_endpoint"] == server.url + "/token"
    assert told["grant"] == "client_credentials"
    assert told["client_auth"] == "client_secret_basic"
    assert told["scopes"] == {"asked": ["read", "write"], "granted": ["read"], "missing": ["write"]}
    assert told["expires_in_s"] == 1200
    assert told["cache"] == "mint"
    assert told["requests"] == 1
    assert (await credential.authorize()).explain["cache"] == "hit"


async def test_explain_tells_how_far_the_clocks_are_apart(world: World, server: Hostile) -> None:
    wall = world.clock.now + world.clock.wall_offset
    server.script(
        "/token",
        answer(
            200, b'{"access_token":"t","token_type":"bearer"}', JSON | {"Date": formatdate(wall + 400, usegmt=True)}
        ),
    )
    made = await world.credential(config(server)).authorize()
    assert abs(int(str(made.explain["clock_skew_s"])) - 400) <= 1


@pytest.mark.parametrize(
    ("step", "says", "kind"),
    [
        (error("invalid_client", 401), "client_id and the client secret", CredentialRejected),
        (error("invalid_scope"), "scopes", CredentialRejected),
        (error("unauthorized_client"), "allowed at the server", CredentialRejected),
        (error("unsupported_grant_type"), "token_url", Misconfigured),
        (error("invalid_target"), "token_params", Misconfigured),
        (answer(401, b"no", {}), "client_id", CredentialRejected),
        (answer(404, b"no", {}), "token_url", Misconfigured),
        (answer(405, b"no", {}), "token_url", Misconfigured),
        (answer(403, b"<html>login", {"Content-Type": "text/html"}), "page for people", Misconfigured),
        (answer(502, b"<html>bad gateway", {"Content-Type": "text/html"}), "try again later", CredentialUnavailable),
    ],
)
async def test_each_known_failure_says_what_to_change(
    world: World, server: Hostile, step: Step, says: str, kind: type[CallError]
) -> None:
    server.script("/token", step)
    with pytest.raises(kind) as failure:
        await world.credential(config(server)).authorize()
    assert says in (failure.value.advice or "")


async def test_a_credential_of_a_new_catalog_version_tells_the_way_of_the_token_it_found(
    world: World, server: Hostile
) -> None:
    server.script("/token", ok())
    await world.credential(config(server)).authorize()
    later = world.credential(config(server))
    await later.authorize()
    assert later.explain()["cache"] == "hit"
    assert later.explain()["token_endpoint"] == server.url + "/token"


async def test_a_failed_mint_still_tells_its_way(world: World, server: Hostile) -> None:
    server.script("/token", error("invalid_scope"))
    credential = world.credential(config(server, scopes=("x",)))
    assert isinstance(credential, MintedCredential)
    with pytest.raises(CredentialRejected):
        await credential.authorize()
    assert credential.explain()["token_endpoint"] == server.url + "/token"
    assert credential.explain()["requests"] == 1


# ------------------------------------------------------------------ where secrets may go


async def test_a_secret_never_leaves_for_an_origin_it_is_not_bound_to(world: World, server: Hostile) -> None:
    """Rules A1, J1: checked again when the request is built. With the binding there, the same config mints."""
    server.script("/token", ok())
    bound = world.parts(origins={PATH: ("https://elsewhere.example:443",)})
    with pytest.raises(Misconfigured, match="other origins"):
        await world.credential(config(server), bound).authorize()
    assert server.received == []
    right = world.parts(origins={PATH: (server.url,)}, integration_id="i-2")
    assert (await world.credential(config(server), right).authorize()).value == "Bearer tok-1-abcdefgh"


async def test_http_is_refused_where_private_networks_are_not_allowed(server: Hostile) -> None:
    """Rules B2: refused before a packet; the same config over an allowed network goes through (see above)."""
    server.script("/token", ok())
    async with a_world({PATH: SECRET}, NetworkPolicy()) as world:
        with pytest.raises(Misconfigured):
            await world.credential(config(server), world.parts(network=NetworkPolicy())).authorize()
    assert server.received == []
