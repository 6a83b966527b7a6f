"""Assertions and client secrets against authlib's server, which verifies them with code that isn't ours (rules B1, C2-C5, I4, I5)."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import jwt
import pytest
from oauth_servers.authlib_as import AuthlibServer, Client
from oauth_servers.running import serving
from oauth_servers.world import World, a_world
from upstreams import Hostile, Received

from tools.errors import CredentialRejected, Misconfigured
from tools.jwks import generate_key
from tools.models import AuthConfig

pytestmark = pytest.mark.anyio
KEYS = {alg: generate_key(alg) for alg in ("RS256", "RS384", "ES384")}
PRIVATE, SECRET = "/gw/acme/key", "/gw/acme/secret"
VALUE = "pa%ss:w+o&r=d/ ü"


def jwks(*algs: str) -> dict[str, Any]:
    return {"keys": [KEYS[alg][1] for alg in algs]}


@pytest.fixture
def server() -> AuthlibServer:
    every = jwks("RS256", "RS384", "ES384")
    return AuthlibServer(
        Client("basic", ("client_secret_basic",), VALUE),
        Client("post", ("client_secret_post",), VALUE),
        Client("smart", ("client_assertion_jwt",), jwks=every, scopes=frozenset({"system/Patient.rs"})),
        Client("issuer", (), jwks=every),
        users=frozenset({"issuer", "robot@example.com"}),
    )


@pytest.fixture
def url(server: AuthlibServer) -> Iterator[str]:
    with serving(server.app) as base:
        server.audiences = [base + "/token"]
        yield base + "/token"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world({PRIVATE: KEYS["ES384"][0], SECRET: VALUE}) as made:
        yield made


def smart(url: str, **fields: Any) -> AuthConfig:
    given: dict[str, Any] = {"client_id": "smart", "scopes": ("system/Patient.rs",)} | fields
    return AuthConfig(type="smart_backend_services", token_url=url, private_key_ssm_param_path=PRIVATE, **given)


def bearer(url: str, **fields: Any) -> AuthConfig:
    given: dict[str, Any] = {"assertion_issuer": "issuer", "scopes": ("read",)} | fields
    return AuthConfig(type="oauth2_jwt_bearer", token_url=url, private_key_ssm_param_path=PRIVATE, **given)


async def with_key(world: World, alg: str) -> None:
    await world.secrets.write(PRIVATE, KEYS[alg][0])


@pytest.mark.parametrize("client", ["basic", "post"])
@pytest.mark.parametrize("value", ["plain-secret", VALUE])
async def test_a_client_secret_is_found_out(
    world: World, server: AuthlibServer, url: str, client: str, value: str
) -> None:
    """Rules B1, I5. This server reads Basic raw, so a secret with special characters is refused there by a Basic client's server."""
    server.clients[client].secret = value
    await world.secrets.write(SECRET, value)
    auth = AuthConfig(
        type="oauth2_client_credentials",
        token_url=url,
        client_id=client,
        client_secret_ssm_param_path=SECRET,
        scopes=("read",),
    )
    if client == "basic" and value == VALUE:
        with pytest.raises(CredentialRejected):
            await world.credential(auth).authorize()
        assert len(server.forms) == 2
        return
    made = await world.credential(auth).authorize()
    assert made.explain["client_auth"] == f"client_secret_{client}"
    assert len(server.forms) == (1 if client == "basic" else 2)


@pytest.mark.parametrize("alg", ["RS384", "ES384"])
async def test_private_key_jwt_is_accepted(world: World, server: AuthlibServer, url: str, alg: str) -> None:
    """Rules C1-C4: verified by authlib, jti checked, 5-minute rule."""
    await with_key(world, alg)
    made = await world.credential(smart(url)).authorize()
    assert made.explain["client_auth"] == "private_key_jwt"
    sent = server.forms[0]["client_assertion"]
    header, claims = jwt.get_unverified_header(sent), jwt.decode(sent, options={"verify_signature": False})
    assert header == {"typ": "JWT", "alg": alg, "kid": KEYS[alg][1]["kid"]}
    assert set(claims) == {"iss", "sub", "aud", "iat", "exp", "jti"}
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("smart", "smart", url)
    assert claims["exp"] - claims["iat"] == 240
    assert 20 <= len(claims["jti"]) < 151
    assert sent.rpartition(".")[2] not in str(made.explain)


@pytest.mark.parametrize(("asked", "sent"), [(3600, 240), (240, 240), (60, 60)])
async def test_a_smart_assertion_lives_240_s_at_most(
    world: World, server: AuthlibServer, url: str, asked: int, sent: int
) -> None:
    """Rules C2."""
    await world.credential(smart(url, token_lifetime_seconds=asked)).authorize()
    claims = jwt.decode(server.forms[0]["client_assertion"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == sent


async def test_the_jti_survives_a_dropped_answer(world: World, server: AuthlibServer, url: str) -> None:
    """Rules C3, I4: the server burned the first jti although its answer never came; the next attempt must be fresh."""
    async with Hostile() as proxy:

        async def pass_on(request: Received) -> httpx2.Response:
            async with httpx2.AsyncClient() as client:
                headers = {"Content-Type": request.header("content-type") or ""}
                return await client.post(url, content=request.body, headers=headers)

        async def forward_and_drop(request: Received, writer: Any) -> bool:
            assert (await pass_on(request)).status_code == 200
            return False

        async def forward(request: Received, writer: Any) -> bool:
            reply = await pass_on(request)
            writer.write(
                f"HTTP/1.1 {reply.status_code} x\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(reply.content)}\r\n\r\n".encode()
                + reply.content
            )
            return True

        through = proxy.url + "/token"
        server.audiences = [through]
        proxy.script("/token", forward_and_drop, forward)
        await world.credential(smart(through)).authorize()
    assert len(server.seen) == 2


@pytest.mark.parametrize(("ahead", "fits"), [(0, True), (90, True), (-50, True), (-90, False), (400, False)])
async def test_a_wrong_clock_is_named(world: World, server: AuthlibServer, url: str, ahead: int, fits: bool) -> None:
    """Rules I4: exp - iat of 240 s leaves room; beyond it the refusal says whose clock and how far."""
    world.clock.wall_offset -= ahead  # seen from here the server is ahead by this much
    credential = world.credential(smart(url))
    if fits:
        assert (await credential.authorize()).value.startswith("Bearer ")
        return
    with pytest.raises(CredentialRejected) as failure:
        await credential.authorize()
    way = "ahead of" if ahead > 0 else "behind"
    assert "clock" in (failure.value.advice or "")
    assert way in (failure.value.advice or "")
    assert abs(int(str(credential.explain()["clock_skew_s"])) - ahead) <= 2


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        ("audience", "assertion_audience"),
        ("key", "register"),
        ("client", "client_id"),
        ("scope", "scopes"),
    ],
)
async def test_a_refused_assertion_says_what_to_change(
    world: World, server: AuthlibServer, url: str, break_it: str, says: str
) -> None:
    """The auth X-ray against the words of a real server."""
    auth = smart(url)
    match break_it:
        case "audience":
            server.audiences = ["https://elsewhere.example/token"]
        case "key":
            server.clients["smart"].jwks = jwks("RS384")
        case "client":
            auth = smart(url, client_id="nobody")
        case _:
            auth = smart(url, scopes=("system/Observation.rs",))
    with pytest.raises(CredentialRejected) as failure:
        await world.credential(auth).authorize()
    assert says in (failure.value.advice or ""), (failure.value.said, failure.value.advice)


@pytest.mark.parametrize("alg", ["RS256", "ES384"])
async def test_the_jwt_bearer_grant_is_accepted(world: World, server: AuthlibServer, url: str, alg: str) -> None:
    """Rules C2, C4, C5: subject default issuer, audience default token_url, scope as form field, life as configured."""
    await with_key(world, alg)
    await world.credential(bearer(url, token_lifetime_seconds=180)).authorize()
    form = server.forms[0]
    claims = jwt.decode(form["assertion"], options={"verify_signature": False})
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("issuer", "issuer", url)
    assert claims["exp"] - claims["iat"] == 180
    assert form["scope"] == "read"
    assert "scope" not in claims
    assert "client_id" not in form


async def test_scopes_go_into_the_assertion_where_asked(world: World, server: AuthlibServer, url: str) -> None:
    """Rules C5: a claim, and then not a form field."""
    await world.credential(bearer(url, scopes=("read", "write", "read"), assertion_scopes_in_jwt=True)).authorize()
    claims = jwt.decode(server.forms[0]["assertion"], options={"verify_signature": False})
    assert claims["scope"] == "read write"
    assert "scope" not in server.forms[0]


async def test_subject_and_audience_can_be_set(world: World, server: AuthlibServer, url: str) -> None:
    """Rules C4, C5: Salesforce-style."""
    server.audiences = ["https://login.example.com"]
    fields = {"assertion_subject": "robot@example.com", "assertion_audience": "https://login.example.com"}
    await world.credential(bearer(url, **fields)).authorize()
    claims = jwt.decode(server.forms[0]["assertion"], options={"verify_signature": False})
    assert (claims["sub"], claims["aud"]) == ("robot@example.com", "https://login.example.com")


@pytest.mark.parametrize(("fields", "names"), [({}, False), ({"client_secret_ssm_param_path": SECRET}, True)])
async def test_a_client_id_goes_along_alone_or_with_its_secret(
    world: World, server: AuthlibServer, url: str, fields: dict[str, Any], names: bool
) -> None:
    """Rules C5."""
    await world.credential(bearer(url, client_id="issuer", **fields)).authorize()
    assert server.forms[0].get("client_id") == (None if names else "issuer")
    assert ("Authorization" in server.headers[0]) == names


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"assertion_subject": "stranger"}, "assertion_subject"),
        ({"assertion_issuer": "nobody"}, "assertion_issuer"),
        ({"assertion_audience": "https://elsewhere.example"}, "assertion_audience"),
    ],
)
async def test_a_refused_grant_says_what_to_change(
    world: World, server: AuthlibServer, url: str, fields: dict[str, Any], says: str
) -> None:
    credential = world.credential(bearer(url, **fields))
    for _ in range(3):
        with pytest.raises(CredentialRejected) as failure:
            await credential.authorize()
    assert says in (failure.value.advice or ""), (failure.value.said, failure.value.advice)
    assert len(server.forms) == 1


async def test_a_key_named_by_path_that_cannot_sign_is_misconfigured(
    world: World, server: AuthlibServer, url: str
) -> None:
    """Rules C1: the sentence of writing, and nothing is sent."""
    await world.secrets.write(PRIVATE, generate_key("ES256")[0])
    with pytest.raises(Misconfigured, match="P-256"):
        await world.credential(smart(url)).authorize()
    assert server.forms == []


async def test_a_token_that_ends_during_load_fails_no_call(world: World, server: AuthlibServer, url: str) -> None:
    """Rules B5: expiry during load. The clock runs through five lives of a token."""
    credential = world.credential(smart(url))
    life = 60.0
    for _ in range(300):
        assert (await credential.authorize()).value.startswith("Bearer ")
        world.clock.now += life / 60
        await world.tokens.settled()
    assert len(server.forms) < 15
