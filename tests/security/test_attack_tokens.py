"""Forged, stolen and odd access tokens at every door (rules J15, H3), and that each one would work if its guard weren't there."""

import base64
import hmac
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import jwt
import orjson
import psutil
import pytest
from cryptography.hazmat.primitives import serialization

from server import access_tokens
from server.access_tokens import AccessTokens
from server.access_tokens import Issuer as Trusted
from server.identity_providers import IdentityProvider
from server.issuer_keys import IssuerKeys
from tests.doors import DOORS, Door, call, knock
from tests.issuer import MCP, REST, RSA_KEYS, SSE, Issuer, issuer, jwk_of
from tests.processes import running
from tests.world import World, gateway, http, listening, served
from tools.address_guard import NetworkPolicy
from tools.errors import GatewayError
from tools.upstream import Upstream

pytestmark = pytest.mark.anyio
OURS, EVIL = RSA_KEYS
PUBLIC_PEM = OURS.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def by_hand(header: dict[str, Any], claims: dict[str, Any], sign: Callable[[bytes], bytes] = lambda _: b"x") -> str:
    """A token that no library would make."""
    signed = f"{b64(orjson.dumps(header))}.{b64(orjson.dumps(claims))}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def hs256(signed: bytes) -> bytes:
    return hmac.digest(PUBLIC_PEM, signed, "sha256")


@dataclass(frozen=True)
class Attack:
    """`make` gets the issuer and the URL of an attacker's server. `guard` names what stops it in `server.access_tokens` (None:
    the signature alone), and `weak` is what stands there when it is switched off."""

    make: Callable[[Issuer, str], str]
    status: int = 401
    guard: str | None = None
    weak: Any = None


def nothing(*_: Any) -> None:
    pass


def far(self: AccessTokens, claims: Any) -> float:
    return time.time() + 600


def first_workspace(token: Any, claim: Any) -> str:
    found = token.claims.get("workspace", "acme")
    return "acme" if isinstance(found, list | dict) else found


def any_issuer(self: AccessTokens, token: Any) -> Trusted:
    return next(iter(self._issuers.values()))  # pyright: ignore[reportPrivateUsage]


def now(seconds: float) -> int:
    return int(time.time() + seconds)


TYPE, AUDIENCE, TIMES, ONE = "_check_type", "_check_audience", "AccessTokens._check_times", "_single"
ISSUER = "AccessTokens._issuer"
ATTACKS: dict[str, Attack] = {
    "id_token": Attack(lambda i, _: i.token(header={"typ": "JWT"}, nonce="n", scope="call look"), 401, TYPE, nothing),
    "no typ": Attack(lambda i, _: by_hand_rs({"alg": "RS256", "kid": "one"}, i.claims()), 401, TYPE, nothing),
    "logout token": Attack(lambda i, _: i.token(header={"typ": "logout+jwt"}), 401, TYPE, nothing),
    "keycloak refresh token": Attack(lambda i, _: i.token(typ="Refresh"), 401, TYPE, nothing),
    "another aud": Attack(lambda i, _: i.token(aud="https://other.example/mcp"), 401, AUDIENCE, nothing),
    "aud is a prefix": Attack(lambda i, _: i.token(aud="https://gw.example"), 401, AUDIENCE, nothing),
    "aud goes on": Attack(lambda i, _: i.token(aud=[MCP + "/x", REST + "?", SSE + "/"]), 401, AUDIENCE, nothing),
    "no aud": Attack(lambda i, _: i.token(aud=None), 401, AUDIENCE, nothing),
    "aud is an object": Attack(lambda i, _: i.token(aud={MCP: 1, REST: 1, SSE: 1}), 401, AUDIENCE, nothing),
    "iss with a slash": Attack(lambda i, _: i.token(iss=i.url + "/"), 401, ISSUER, any_issuer),
    "another iss": Attack(lambda i, _: i.token(iss="https://evil.example"), 401, ISSUER, any_issuer),
    "iss is a list": Attack(lambda i, _: i.token(iss=[i.url]), 401, ISSUER, any_issuer),
    "no iss": Attack(lambda i, _: i.token(iss=None), 401, ISSUER, any_issuer),
    "expired": Attack(lambda i, _: i.token(exp=now(-61)), 401, TIMES, far),
    "no exp": Attack(lambda i, _: i.token(exp=None), 401, TIMES, far),
    "exp is text": Attack(lambda i, _: i.token(exp=str(now(600))), 401, TIMES, far),
    "exp is true": Attack(lambda i, _: i.token(exp=True), 401, TIMES, far),
    "exp is endless": Attack(lambda i, _: i.token(exp=1e300), 401, TIMES, far),
    "future nbf": Attack(lambda i, _: i.token(nbf=now(90)), 401, TIMES, far),
    "future iat": Attack(lambda i, _: i.token(iat=now(90)), 401, TIMES, far),
    "very long": Attack(lambda i, _: i.token(padding="x" * 16_000), 401, "_LONGEST", 10**6),
    "two workspaces": Attack(lambda i, _: i.token(workspace=["acme", "beta"]), 403, ONE, first_workspace),
    "two workspace claims": Attack(
        lambda i, _: i.token(payload=orjson.dumps(i.claims())[:-1] + b',"workspace":"acme"}'), 403, ONE, first_workspace
    ),
    "no workspace": Attack(lambda i, _: i.token(workspace=None), 403, ONE, first_workspace),
    "workspace is an object": Attack(lambda i, _: i.token(workspace={"acme": 1}), 403, ONE, first_workspace),
    "unknown workspace": Attack(lambda i, _: i.token(workspace="nowhere"), 403, ONE, lambda *_: "acme"),
    "path as workspace": Attack(lambda i, _: i.token(workspace="../acme"), 403, ONE, lambda *_: "acme"),
    "HS256 with the public key": Attack(
        lambda i, _: by_hand({"alg": "HS256", "typ": "at+jwt", "kid": "one"}, i.claims(), hs256)
    ),
    "none": Attack(lambda i, _: by_hand({"alg": "none", "typ": "at+jwt"}, i.claims(), lambda _: b"")),
    "none with a signature": Attack(lambda i, _: by_hand({"alg": "none", "typ": "at+jwt", "kid": "one"}, i.claims())),
    "nOnE": Attack(lambda i, _: by_hand({"alg": "nOnE", "typ": "at+jwt", "kid": "one"}, i.claims())),
    "psychic signature": Attack(
        lambda i, _: by_hand({"alg": "ES256", "typ": "at+jwt", "kid": "one"}, i.claims(), lambda _: bytes(64))
    ),
    "jku": Attack(lambda i, evil: i.token(key=EVIL, header={"jku": f"{evil}/keys"})),
    "jku and its kid": Attack(lambda i, evil: i.token(key=EVIL, header={"jku": f"{evil}/keys", "kid": "evil"})),
    "x5u": Attack(lambda i, evil: i.token(key=EVIL, header={"x5u": f"{evil}/cert.pem"})),
    "jwk": Attack(lambda i, _: i.token(key=EVIL, header={"jwk": jwk_of(EVIL, "one")})),
    "x5c": Attack(lambda i, _: i.token(key=EVIL, header={"x5c": [base64.b64encode(b"a certificate").decode()]})),
    "kid is a path": Attack(lambda i, _: i.token(key=EVIL, header={"kid": "../../x"})),
    "kid is a device": Attack(lambda i, _: by_hand({"alg": "HS256", "typ": "at+jwt", "kid": "/dev/null"}, i.claims())),
    "kid is SQL": Attack(lambda i, _: i.token(key=EVIL, header={"kid": "x' UNION SELECT 'k' --"})),
    "kid is a list": Attack(lambda i, _: by_hand_rs({"alg": "RS256", "typ": "at+jwt", "kid": ["one"]}, i.claims())),
    "a key that was rotated out": Attack(lambda i, _: i.token(key=EVIL, header={"kid": "old"})),
    "PBES2 bomb": Attack(lambda i, _: bomb({"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2c": 2**31 - 1}) + ".a.b"),
    "PBES2 in three parts": Attack(lambda i, _: bomb({"alg": "PBES2-HS512+A256KW", "p2c": 2**31 - 1})),
    "nested too deep": Attack(lambda i, _: i.token(payload=b'{"a":' + b"[" * 8000)),
    "not a number": Attack(lambda i, _: i.token(payload=orjson.dumps(i.claims())[:-1] + b',"x":NaN}')),
    "crit": Attack(lambda i, _: i.token(header={"crit": ["exp"], "exp": 1})),
    "bound to a key": Attack(lambda i, _: i.token(cnf={"jkt": "x"})),
    "no sub": Attack(lambda i, _: i.token(sub=None)),
    "line break in sub": Attack(lambda i, _: i.token(sub="a\nb")),
    "the local owner's name": Attack(lambda i, _: i.token(iss="local", sub="local")),
    "signature of another token": Attack(
        lambda i, _: f"{i.token(sub='x').rpartition('.')[0]}.{i.token().split('.')[2]}"
    ),
    "claims exchanged": Attack(lambda i, _: exchanged(i.token(), i.claims(scope="rule"))),
    "four parts": Attack(lambda i, _: i.token() + ".x"),
    "blanks inside": Attack(lambda i, _: i.token().replace(".", ". ", 1)),
    "padding": Attack(lambda i, _: i.token() + "=="),
}


def by_hand_rs(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Rightly signed by the issuer, with exactly this header."""
    sign = jwt.get_algorithm_by_name("RS256").sign
    return by_hand(header, claims, lambda signed: sign(signed, OURS))


def bomb(header: dict[str, Any]) -> str:
    return f"{b64(orjson.dumps({'typ': 'at+jwt', 'kid': 'one', 'p2s': 'AAAA', **header}))}.e30.AAAA"


def exchanged(token: str, claims: dict[str, Any]) -> str:
    head, _, signature = token.split(".")
    return f"{head}.{b64(orjson.dumps(claims))}.{signature}"


@dataclass
class Field:
    world: World
    idp: Issuer
    url: str
    evil: str
    asked_of_evil: list[str]

    def from_(self, host: str) -> httpx2.AsyncClient:
        """A client with an address of its own: wrong tokens are counted by address."""
        return httpx2.AsyncClient(base_url=self.url, transport=httpx2.AsyncHTTPTransport(local_address=host))


@pytest.fixture(scope="module")
async def field(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Field]:
    asked: list[str] = []

    async def evil(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        body = orjson.dumps({"keys": [jwk_of(EVIL, "evil")]})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    home = tmp_path_factory.mktemp("field")
    async with (
        issuer() as idp,
        listening(evil) as evil_url,
        gateway(home, **idp.settings()) as world,
        served(world) as url,
    ):
        await world.app.registry.ensure_workspace("beta")
        yield Field(world, idp, url, evil_url, asked)


@pytest.mark.parametrize("name", ATTACKS)
async def test_a_token_that_is_not_sound_opens_no_door(field: Field, name: str) -> None:
    attack = ATTACKS[name]
    async with field.from_(f"127.0.1.{list(ATTACKS).index(name) + 1}") as client:
        with anyio.fail_after(60):
            for door in DOORS:
                token = attack.make(field.idp, field.evil)
                refused = await knock(client, door, token)
                assert refused.status_code == attack.status, (door, refused.text)
                if attack.status == 401:
                    challenge = refused.headers["www-authenticate"]
                    assert challenge.startswith('Bearer error="invalid_token", error_description="')
                assert token.split(".")[2] not in refused.text or len(token.split(".")[2]) < 8
    assert field.asked_of_evil == []


async def test_the_same_tokens_without_their_one_fault_open_every_door(field: Field) -> None:
    async with field.from_("127.0.2.1") as client:
        for door in DOORS:
            for token in (field.idp.token(), field.idp.token(workspace=["acme"]), field.idp.token(exp=now(-30))):
                assert (await knock(client, door, token)).status_code == 200, door


async def check(idp: Issuer, token: str, resource: str = MCP, **provider: Any) -> str:
    """What a gateway of its own makes of the token: the caller, or the error's code."""
    upstream = Upstream(NetworkPolicy(allow_private=True))
    entry = IdentityProvider.model_validate(idp.provider(**provider))

    async def workspace_id(name: str) -> str | None:
        return name if name == "acme" else None

    tokens = AccessTokens([Trusted(entry, IssuerKeys(entry, upstream))], workspace_id)
    try:
        return (await tokens.caller(token, resource)).id
    except GatewayError as e:
        return e.code
    finally:
        await tokens.aclose()
        await upstream.aclose()


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.guard])
async def test_each_of_these_works_where_its_guard_is_switched_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attack = ATTACKS[name]
    assert attack.guard is not None
    owner, _, attribute = f"server.access_tokens.{attack.guard}".rpartition(".")
    target = access_tokens.AccessTokens if owner.endswith("AccessTokens") else access_tokens
    async with issuer() as idp:
        token = attack.make(idp, "https://evil.example")
        assert await check(idp, token) in ("unauthenticated", "forbidden")
        monkeypatch.setattr(target, attribute, attack.weak)
        assert await check(idp, token) == f"{idp.url} user-1"


async def test_forged_signatures_are_sound_to_whom_believes_the_token_about_its_key() -> None:
    """So the signature check is what stops them, not a fault of how they are made."""
    async with issuer() as idp:
        for name in ("jku", "jku and its kid", "x5u", "jwk", "x5c", "kid is a path", "kid is SQL"):
            token = ATTACKS[name].make(idp, "https://evil.example")
            assert jwt.PyJWS().decode(token, EVIL.public_key(), algorithms=["RS256"])
        signed, _, signature = ATTACKS["HS256 with the public key"].make(idp, "").rpartition(".")
        assert b64(hs256(signed.encode())) == signature


@pytest.mark.parametrize("door", DOORS)
async def test_a_token_for_one_door_opens_no_other(field: Field, door: Door) -> None:
    others = {"modern": [SSE, REST], "legacy": [SSE, REST], "sse": [MCP, REST], "rest": [MCP, SSE]}[door]
    async with field.from_(f"127.0.2.{2 + DOORS.index(door)}") as client:
        assert (await knock(client, door, field.idp.token(aud=others))).status_code == 401


@pytest.mark.parametrize("door", DOORS)
async def test_a_token_that_was_good_for_one_door_is_checked_again_for_another(field: Field, door: Door) -> None:
    own = {"modern": MCP, "legacy": MCP, "sse": SSE, "rest": REST}[door]
    token = field.idp.token(aud=own, jti=door)
    async with field.from_(f"127.0.2.{12 + DOORS.index(door)}") as client:
        for other in DOORS:
            let_in = (await knock(client, other, token)).status_code == 200
            assert let_in == (own == {"modern": MCP, "legacy": MCP, "sse": SSE, "rest": REST}[other])


@pytest.mark.parametrize(
    ("claims", "header"),
    [
        ({"typ": "ID"}, {}),
        ({"typ": "Refresh"}, {}),
        ({"nonce": "n"}, {}),
        ({"at_hash": "x"}, {}),
        ({"token_use": "id"}, {}),
        ({}, {"typ": "logout+jwt"}),
        ({}, {"typ": ["JWT"]}),
    ],
)
async def test_where_jwt_is_allowed_what_says_that_it_is_another_token_is_still_refused(
    claims: dict[str, Any], header: dict[str, Any]
) -> None:
    async with issuer() as idp:
        allowed = {"token_types": ["JWT"]}
        token = idp.token(header={"typ": "JWT"}, typ="Bearer")
        assert await check(idp, token, **allowed) == f"{idp.url} user-1"
        wrong = by_hand_rs({"alg": "RS256", "typ": "JWT", "kid": "one", **header}, idp.claims(**claims))
        assert await check(idp, wrong, **allowed) == "unauthenticated"


async def test_a_token_in_the_url_or_a_form_is_never_read(field: Field) -> None:
    token = field.idp.token()
    async with field.from_("127.0.2.30") as client:
        for path in ("/v1/acme/integrations", "/sse", "/mcp"):
            asked = client.post if path == "/mcp" else client.get
            assert (await asked(path, params={"access_token": token})).status_code == 401
        assert (await client.post("/mcp", data={"access_token": token})).status_code == 401


@pytest.mark.parametrize("door", DOORS)
async def test_two_authorization_headers_are_refused(field: Field, door: Door) -> None:
    """A proxy may have judged the other one."""
    good = field.idp.token()
    async with field.from_(f"127.0.2.{31 + DOORS.index(door)}") as client:
        for pair in ((good, "x"), ("x", good), (good, good)):
            path = {"rest": "/v1/acme/integrations", "sse": "/sse"}.get(door, "/mcp")
            headers = [(b"authorization", f"Bearer {t}".encode()) for t in pair]
            method = "GET" if door in ("rest", "sse") else "POST"
            refused = await client.request(method, path, headers=headers, content=b"{}" if method == "POST" else None)
            assert refused.status_code == 401
            assert "more than one Authorization" in refused.json()["detail"]


@pytest.mark.parametrize("door", DOORS)
async def test_guessing_tokens_is_limited_and_expired_ones_are_still_told_to_renew(field: Field, door: Door) -> None:
    async with field.from_(f"127.0.3.{1 + DOORS.index(door)}") as client:
        statuses = [(await knock(client, door, field.idp.token(key=EVIL, jti=str(n)))).status_code for n in range(22)]
        assert (statuses[:20], statuses[-1]) == ([401] * 20, 429)
        assert (await knock(client, door, field.idp.token(exp=now(-90)))).status_code == 401
        assert (await knock(client, door, field.idp.token())).status_code == 200


# ---------------------------------------------------------------------- beside tokens


@pytest.mark.parametrize("door", DOORS)
async def test_a_rebound_name_reaches_nobody_with_a_good_token_or_without(field: Field, door: Door) -> None:
    async with field.from_("127.0.2.40") as client:
        for token in (field.idp.token(), ""):
            for header in ({"Host": "rebound.example"}, {"Origin": "https://rebound.example"}):
                refused = await knock(client, door, token, **header)
                assert refused.json()["error_code"] == "host_refused"


def test_the_owner_over_stdio_listens_nowhere(tmp_path: Path) -> None:
    """So no page can reach him by any name."""
    with running(tmp_path, "stdio") as run:
        run.write('{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        assert run.json_line()["id"] == 1
        family = [psutil.Process(run.process.pid), *psutil.Process(run.process.pid).children(recursive=True)]
        assert [c for p in family for c in p.net_connections() if c.status == psutil.CONN_LISTEN] == []


async def test_a_narrowed_key_cannot_be_rotated_or_made_wider(field: Field) -> None:
    world = field.world
    wide = await world.app.keys.create("acme", role="admin")
    narrow = await world.app.keys.create("acme", role="admin", tools=["shop_get"])
    async with http(field.url, narrow.api_key) as client:
        keys = "/v1/acme/api-keys"
        assert (await client.post(f"{keys}/{wide.row.id}/rotate")).status_code == 403
        made = await client.post(keys, json={"duration_days": 1, "role": "admin"})
        assert made.status_code == 403
        body = {"tools": None, "role": "owner", "integrations": None}
        rotated = (await client.post(f"{keys}/{narrow.row.id}/rotate", json=body)).json()
    caller = await world.app.keys.caller(rotated["api_key"], "x")
    assert (caller.tools, caller.role) == (frozenset({"shop_get"}), "admin")


async def test_a_call_needs_the_scope_for_calling(field: Field) -> None:
    """A token that may only look sees no tool of a system and can't call one by name."""
    body = {"name": "hidden", "display_name": "Hidden", "base_url": field.evil}
    get = [{"name": "get", "description": "Gets.", "method": "GET", "path": "/x"}]
    await field.world.create({**body, "endpoints": get})
    async with field.from_("127.0.2.50") as client:
        answer = await client.post("/mcp", **call("hidden_get", {}, field.idp.token(scope="look")))
    assert "unknown_tool" in answer.text
    assert field.asked_of_evil == []
