"""The JWKS as verifiers fetch it (rules D1, D3, E1, J13), and the management of keys over HTTP."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from server.jwks_routes import Published
from tests.test_signing_keys import OTHER, PUBLIC, smart
from tests.world import World, gateway, http, served
from tools.errors import NotFound, RateLimited, StorageUnavailable
from tools.models import Integration
from tools.parsing import parse_update

pytestmark = pytest.mark.anyio
PUBLIC_URL = "https://gw.example.com"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with gateway(tmp_path, public_url=PUBLIC_URL) as made:
        yield made


@pytest.fixture
async def verifier(world: World) -> AsyncIterator[httpx2.AsyncClient]:
    """Without a key."""
    async with served(world) as url, httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        yield client


@pytest.fixture
async def ehr(world: World) -> Integration:
    return await world.create(smart())


def where(id: str, workspace: str = "acme") -> str:
    return f"/v1/{workspace}/integrations/{id}/jwks.json"


async def test_anybody_reads_the_public_keys_and_may_keep_them_for_five_minutes(
    verifier: httpx2.AsyncClient, ehr: Integration
) -> None:
    """Rules D1."""
    answer = await verifier.get(where(ehr.id))
    assert answer.status_code == 200
    assert answer.json() == {"keys": [PUBLIC]}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert "set-cookie" not in answer.headers


async def test_the_etag_saves_the_body_until_the_keys_change(
    world: World, verifier: httpx2.AsyncClient, ehr: Integration
) -> None:
    first = await verifier.get(where(ehr.id))
    known = {"If-None-Match": first.headers["etag"]}
    again = await verifier.get(where(ehr.id), headers=known)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    await world.app.auth_admin.generate_key(world.owner, "ehr")
    changed = await verifier.get(where(ehr.id), headers=known)
    assert changed.status_code == 200
    assert len(changed.json()["keys"]) == 2


async def test_the_downloaded_document_is_the_published_one_byte_for_byte(
    world: World, verifier: httpx2.AsyncClient, ehr: Integration
) -> None:
    """Rules D3."""
    await world.app.auth_admin.generate_key(world.owner, "ehr")
    assert (await verifier.get(where(ehr.id))).content == await world.app.auth_admin.jwks(world.owner, "ehr")


async def test_everything_that_isn_t_there_is_one_and_the_same_404(
    world: World, verifier: httpx2.AsyncClient, ehr: Integration
) -> None:
    """Rules D1: unknown workspace, unknown id, a name in place of the id, no key, deleted."""
    plain = await world.create({"name": "plain", "display_name": "P", "base_url": "https://x.example.com"})
    gone = await world.create({**smart(OTHER), "name": "gone"})
    await world.app.admin.delete(world.owner, "gone")
    paths = [where(ehr.id, "other"), where("nobody"), where("ehr"), where(plain.id), where(gone.id)]
    paths += [p.replace("jwks.json", ".well-known/openid-configuration") for p in (*paths, where(ehr.id))]
    seen: set[tuple[Any, ...]] = set()
    for path in paths:
        answer = await verifier.get(path, headers={"x-request-id": "the-same"})
        seen.add((answer.status_code, answer.content, answer.headers.get("cache-control"), answer.headers.get("etag")))
    assert len(seen) == 1
    assert next(iter(seen))[0] == 404


async def test_a_disabled_integration_keeps_publishing(
    world: World, verifier: httpx2.AsyncClient, ehr: Integration
) -> None:
    await world.app.admin.update(world.owner, "ehr", parse_update({"enabled": False}, "ehr"))
    assert (await verifier.get(where(ehr.id))).status_code == 200


async def test_the_secret_store_is_never_asked(world: World, verifier: httpx2.AsyncClient, ehr: Integration) -> None:
    """Rules D1: an outage of the store doesn't stop verification. Here every stored value is unreadable."""
    from sqlalchemy import update

    from server.store.database import open_database
    from server.store.tables import secret_values

    async with open_database(world.app.settings.registry_url) as database, database.write() as connection:
        await connection.execute(update(secret_values).values(sealed=b"x" * 40, key_id="gone"))
    with pytest.raises(StorageUnavailable):
        await world.app.secrets.read(f"/gw/acme/integrations/{ehr.id}/private_key")
    assert (await verifier.get(where(ehr.id))).json() == {"keys": [PUBLIC]}


@pytest.mark.parametrize("header", ["host", "x-forwarded-host", "forwarded"])
async def test_its_url_comes_from_the_configured_one_only(
    world: World, verifier: httpx2.AsyncClient, ehr: Integration, header: str
) -> None:
    """Rules D1, J13."""
    key = await world.key()
    lie = {"host": "127.0.0.1", "x-forwarded-host": "evil.test", "forwarded": "host=evil.test"}[header]
    answer = await verifier.get(
        f"/v1/acme/integrations/{ehr.id}/signing-keys", headers={"authorization": f"Bearer {key}", header: lie}
    )
    assert answer.json()["jwks_url"] == PUBLIC_URL + where(ehr.id)


class Registry:
    """As much of one as publishing needs; can be out."""

    def __init__(self, integration: Integration) -> None:
        self.integration, self.out = integration, False

    async def get(self, workspace: str, ref: str) -> Integration:
        if self.out:
            raise StorageUnavailable("out")
        if ref != self.integration.id:
            raise NotFound("no")
        return self.integration


class App:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry


async def test_what_was_published_goes_on_through_an_outage_of_the_registry(ehr: Integration) -> None:
    registry = Registry(ehr)
    published = Published(App(registry))  # type: ignore[arg-type]
    await published.integration("acme", ehr.id)
    registry.out = True
    assert (await published.integration("ACME", ehr.id)) == ehr
    with pytest.raises(StorageUnavailable):
        await published.integration("acme", "another")
    registry.out = False
    registry.integration = ehr.model_copy(update={"published_keys": ()})
    with pytest.raises(NotFound):
        await published.integration("acme", ehr.id)
    registry.out = True
    with pytest.raises(StorageUnavailable):
        await published.integration("acme", ehr.id)


async def test_one_address_that_asks_too_often_waits_and_others_don_t(ehr: Integration) -> None:
    """Rules D1: rate limited apart from the API."""
    now = [0.0]
    published = Published(App(Registry(ehr)), lambda: now[0])  # type: ignore[arg-type]
    for _ in range(200):
        published.count("192.0.2.1")
    with pytest.raises(RateLimited):
        published.count("192.0.2.1")
    published.count("192.0.2.2")
    now[0] = 10.0
    published.count("192.0.2.1")


# -- the gateway as the issuer


GCP = {
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/a",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
}


def google(**auth: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "type": "gcp_wif",
        "api_key_value": {"value": json.dumps(GCP)},
        "private_key_value": {"value": "generate:ES256"},
    }
    return {"name": "bucket", "display_name": "B", "base_url": "https://x.example.com", "auth": given | auth}


async def test_google_finds_the_keys_from_the_issuer(world: World, verifier: httpx2.AsyncClient) -> None:
    """Rules E1: issuer and jwks_uri are what the subject token says, under the public URL."""
    made = await world.create(google())
    base = f"/v1/acme/integrations/{made.id}"
    found = (await verifier.get(base + "/.well-known/openid-configuration")).json()
    assert found["issuer"] == PUBLIC_URL + base
    assert found["jwks_uri"] == PUBLIC_URL + where(made.id)
    assert found["id_token_signing_alg_values_supported"] == ["ES256"]
    keys = (await verifier.get(where(made.id))).json()["keys"]
    assert [set(k) for k in keys] == [{"kty", "use", "alg", "kid", "crv", "x", "y"}]


async def test_another_issuer_has_its_own_configuration(world: World, verifier: httpx2.AsyncClient) -> None:
    made = await world.create(google(assertion_issuer="https://issuer.example.com"))
    base = f"/v1/acme/integrations/{made.id}"
    assert (await verifier.get(base + "/.well-known/openid-configuration")).status_code == 404
    assert (await verifier.get(where(made.id))).status_code == 200


# -- management


async def test_a_key_is_made_and_confirmed_over_http(
    world: World, verifier: httpx2.AsyncClient, ehr: Integration
) -> None:
    path = f"/v1/acme/integrations/{ehr.id}/signing-keys"
    async with http(str(verifier.base_url), await world.key("member")) as client:
        made = await client.post(path, json={"hold": True})
        assert made.status_code == 201
        assert [k["waits_for_confirmation"] for k in made.json()["keys"]] == [False, True]
        assert [k["state"] for k in (await client.get(path)).json()["keys"]] == ["active", "next"]
        confirmed = await client.post(path + "/confirm")
        assert [k["waits_for_confirmation"] for k in confirmed.json()["keys"]] == [False, False]
        assert (await client.post(path, json={"alg": "HS256"})).status_code == 422


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("agent", 403), (None, 401)])
async def test_managing_keys_needs_the_permission(
    world: World, verifier: httpx2.AsyncClient, ehr: Integration, role: Any, status: int
) -> None:
    headers = {"authorization": f"Bearer {await world.key(role)}"} if role else {}
    path = f"/v1/acme/integrations/{ehr.id}/signing-keys"
    assert (await verifier.post(path, json={}, headers=headers)).status_code == status
    assert len((await world.app.registry.get("acme", ehr.id)).published_keys) == 1
