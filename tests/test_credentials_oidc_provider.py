"""Client secrets and assertions against oidc-provider, a strict server in another language (rules B1, B3, C1-C4, I4, I5)."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from oauth_servers.npm import installed
from oauth_servers.running import free_port, process
from oauth_servers.world import World, a_world

from tools.errors import CredentialRejected
from tools.jwks import generate_key
from tools.models import AuthConfig

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.node]
KEYS = {alg: generate_key(alg) for alg in ("RS384", "ES384")}
ODD_ID, ODD_SECRET = "cli:ent+id/=1", "s%od:e+c&r=e/t with blank"
PRIVATE, SECRET = "/gw/acme/key", "/gw/acme/secret"


def client(client_id: str, method: str, **more: Any) -> dict[str, Any]:
    return {
        "client_id": client_id,
        "token_endpoint_auth_method": method,
        "grant_types": ["client_credentials"],
        "redirect_uris": [],
        "response_types": [],
        "scope": "read write system/Patient.rs",
    } | more


CLIENTS = [
    client("basic", "client_secret_basic", client_secret=ODD_SECRET),
    client(ODD_ID, "client_secret_basic", client_secret=ODD_SECRET),
    client("post", "client_secret_post", client_secret=ODD_SECRET),
    *(
        client(alg, "private_key_jwt", token_endpoint_auth_signing_alg=alg, jwks={"keys": [KEYS[alg][1]]})
        for alg in KEYS
    ),
]


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root, place, port = installed(), tmp_path_factory.mktemp("oidc"), free_port()
    clients: Path = place / "clients.json"
    clients.write_text(json.dumps(CLIENTS))
    url = f"http://127.0.0.1:{port}"
    command = ["node", root / "oidc.mjs", str(port), clients]
    with process(command, url + "/counts", place / "log", root):
        yield url


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world({SECRET: ODD_SECRET, PRIVATE: KEYS["ES384"][0]}) as made:
        yield made


async def requests(issuer: str) -> int:
    async with httpx2.AsyncClient() as http:
        return int((await http.get(issuer + "/counts")).json()["requests"])


def secret(issuer: str, client_id: str, **fields: Any) -> AuthConfig:
    given: dict[str, Any] = {"scopes": ("read",)} | fields
    return AuthConfig(
        type="oauth2_client_credentials",
        token_url=issuer + "/token",
        client_id=client_id,
        client_secret_ssm_param_path=SECRET,
        **given,
    )


def smart(issuer: str, client_id: str, **fields: Any) -> AuthConfig:
    return AuthConfig(
        type="smart_backend_services",
        token_url=issuer + "/token",
        client_id=client_id,
        scopes=("system/Patient.rs",),
        private_key_ssm_param_path=PRIVATE,
        **fields,
    )


@pytest.mark.parametrize(
    ("client_id", "method"),
    [("basic", None), ("basic", "basic"), (ODD_ID, None), ("post", None), ("post", "post")],
)
async def test_secrets_with_odd_characters_pass_a_server_that_decodes_them(
    world: World, issuer: str, client_id: str, method: str | None
) -> None:
    """Rules B1, I5: RFC 6749 2.3.1 by the letter; this provider takes Basic also from a post client."""
    before = await requests(issuer)
    made = await world.credential(secret(issuer, client_id, client_auth_method=method)).authorize()
    assert made.value.startswith("Bearer ")
    assert await requests(issuer) == before + 1


async def test_a_wrong_secret_costs_two_requests_and_then_none(world: World, issuer: str) -> None:
    """Rules B6, I5."""
    await world.secrets.write(SECRET, "not-the-secret")
    before = await requests(issuer)
    credential = world.credential(secret(issuer, "basic"))
    for _ in range(4):
        with pytest.raises(CredentialRejected, match="invalid_client"):
            await credential.authorize()
    assert await requests(issuer) == before + 2


@pytest.mark.parametrize("alg", ["RS384", "ES384"])
@pytest.mark.parametrize("audience", [None, "issuer"])
async def test_private_key_jwt_is_accepted(world: World, issuer: str, alg: str, audience: str | None) -> None:
    """Rules C1-C4: aud is the token URL, or the issuer where asked."""
    await world.secrets.write(PRIVATE, KEYS[alg][0])
    config = smart(issuer, alg, assertion_audience=issuer if audience else None)
    for _ in range(2):
        await world.credential(config).authorize()
        world.tokens.drop("acme", "i-1")


@pytest.mark.parametrize("break_it", ["algorithm", "audience", "key", "clock"])
async def test_a_strict_server_refuses_what_is_wrong_and_we_ask_once(world: World, issuer: str, break_it: str) -> None:
    """Rules B6 and the X-ray: this provider says no more than invalid_client, so only the clock can be told apart."""
    config = smart(issuer, "ES384")
    match break_it:
        case "algorithm":
            await world.secrets.write(PRIVATE, KEYS["RS384"][0])
        case "audience":
            config = smart(issuer, "ES384", assertion_audience="https://elsewhere.example")
        case "key":
            await world.secrets.write(PRIVATE, generate_key("ES384")[0])
        case _:
            world.clock.wall_offset -= 400
    before = await requests(issuer)
    credential = world.credential(config)
    for _ in range(3):
        with pytest.raises(CredentialRejected) as failure:
            await credential.authorize()
    assert ("clock" in (failure.value.advice or "")) == (break_it == "clock")
    assert await requests(issuer) == before + 1


async def test_a_scope_that_is_dropped_in_silence_is_a_warning(world: World, issuer: str) -> None:
    """Rules B3: this provider answers 200 without the scope."""
    made = await world.credential(secret(issuer, "basic", scopes=("read", "nobody-knows-this"))).authorize()
    asked = ["read", "nobody-knows-this"]
    assert made.explain["scopes"] == {"asked": asked, "granted": ["read"], "missing": ["nobody-knows-this"]}
    assert "nobody-knows-this" in str(made.explain["warnings"])


async def test_a_resource_parameter_gives_a_jwt_for_it(world: World, issuer: str) -> None:
    """Rules B8: token_params reach the server."""
    params = {"resource": "https://api.example.com/"}
    made = await world.credential(secret(issuer, "basic", token_params=params)).authorize()
    claims = jwt.decode(made.value.removeprefix("Bearer "), options={"verify_signature": False})
    assert claims["aud"] == "https://api.example.com/"
    assert made.explain["expires_in_s"] == 600
