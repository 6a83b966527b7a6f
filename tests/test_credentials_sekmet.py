"""SMART backend services against a real FHIR server: discovery, token, search (rules C1-C4, C6, C7)."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from oauth_servers.running import free_port
from oauth_servers.sekmet import sekmet
from oauth_servers.world import World, a_world

from tools.errors import CredentialRejected
from tools.jwks import generate_key
from tools.models import AuthConfig

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
KEYS = {alg: generate_key(alg) for alg in ("RS384", "ES384")}
KEY = "/gw/acme/key"
SCOPES = "system/Patient.rs"


@pytest.fixture(scope="module")
def fhir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    clients = [{"client_id": alg, "jwks": {"keys": [KEYS[alg][1]]}, "scopes": SCOPES} for alg in KEYS]
    with sekmet(tmp_path_factory.mktemp("sekmet"), free_port(), clients) as url:
        yield url


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world({KEY: KEYS["ES384"][0]}) as made:
        yield made


def smart(client_id: str, **fields: Any) -> AuthConfig:
    given: dict[str, Any] = {"scopes": (SCOPES,)} | fields
    return AuthConfig(type="smart_backend_services", client_id=client_id, private_key_ssm_param_path=KEY, **given)


@pytest.mark.parametrize("alg", ["RS384", "ES384"])
async def test_a_search_with_a_token_from_a_discovered_endpoint(world: World, fhir: str, alg: str) -> None:
    await world.secrets.write(KEY, KEYS[alg][0])
    made = await world.credential(smart(alg), world.parts(base_url=fhir)).authorize()
    assert made.explain["token_endpoint"] == made.explain["discovered"]
    async with httpx2.AsyncClient() as http:
        without = await http.get(f"{fhir}/Patient")
        found = await http.get(f"{fhir}/Patient", headers={made.header: made.value})
    assert without.status_code == 401
    assert (found.status_code, found.json()["resourceType"]) == (200, "Bundle")


async def test_every_mint_is_a_fresh_assertion(world: World, fhir: str) -> None:
    """Rules C3: this server refuses a jti that it has seen."""
    for _ in range(3):
        world.tokens.drop("acme", "i-1")
        await world.credential(smart("ES384"), world.parts(base_url=fhir)).authorize()


@pytest.mark.parametrize("break_it", ["scope", "key", "clock"])
async def test_a_refusal_is_told_and_not_repeated(world: World, fhir: str, break_it: str) -> None:
    auth = smart("ES384")
    match break_it:
        case "scope":
            auth = smart("ES384", scopes=("system/Observation.rs",))
        case "key":
            await world.secrets.write(KEY, generate_key("ES384")[0])
        case _:
            world.clock.wall_offset -= 400
    credential = world.credential(auth, world.parts(base_url=fhir))
    with pytest.raises(CredentialRejected) as failure:
        await credential.authorize()
    assert failure.value.advice
    assert ("clock" in failure.value.advice) == (break_it == "clock")
    assert ("scopes" in failure.value.advice) == (break_it == "scope")
    with pytest.raises(CredentialRejected):
        await credential.authorize()
    assert credential.explain()["requests"] == 1
