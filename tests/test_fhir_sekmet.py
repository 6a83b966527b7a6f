"""A token-protected FHIR server by others, loaded with HL7's examples and used through the tools alone (rules G, I6)."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx2
import pytest
from oauth_servers.running import free_port
from oauth_servers.sekmet import sekmet

from tests.world import World, gateway
from tools.importers.capability import read_capability
from tools.jwks import generate_key

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
PRIVATE, PUBLIC = generate_key("ES384")
SCOPES = "system/*.cruds"
AUTH: dict[str, Any] = {
    "type": "smart_backend_services",
    "client_id": "gateway",
    "scopes": [SCOPES],
    "private_key_value": {"value": PRIVATE},
}
TYPES = (
    *("Patient", "Practitioner", "Observation", "MedicationRequest", "Slot", "Appointment"),
    *("Organization", "Condition", "Encounter", "AllergyIntolerance"),
)


def records() -> list[dict[str, Any]]:
    """HL7's examples of the demo, and one record each of further types that belong to the patient `example`."""
    found: list[dict[str, Any]] = json.loads(files("server.demo").joinpath("records.json").read_text("utf-8"))
    someone = {"reference": "Patient/example"}
    text = {"text": "Influenza"}
    return [
        *found,
        {"resourceType": "Organization", "id": "hl7", "name": "Health Level Seven", "active": True},
        {"resourceType": "Condition", "id": "flu", "subject": someone, "code": text},
        {"resourceType": "AllergyIntolerance", "id": "nuts", "patient": someone, "code": {"text": "Nuts"}},
        {
            "resourceType": "Encounter",
            "id": "visit",
            "status": "finished",
            "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
            "subject": someone,
        },
    ]


@pytest.fixture(scope="module")
def fhir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    clients = [{"client_id": "gateway", "jwks": {"keys": [PUBLIC]}, "scopes": SCOPES}]
    with sekmet(tmp_path_factory.mktemp("sekmet"), free_port(), clients) as url:
        yield url


@pytest.fixture
async def world(tmp_path: Path, fhir: str) -> AsyncIterator[World]:
    """The integration `ehr` without endpoints."""
    async with gateway(tmp_path) as world:
        await world.create({"name": "ehr", "display_name": "EHR", "protocol": "fhir", "base_url": fhir, "auth": AUTH})
        yield world


async def put(world: World, *resources: dict[str, Any]) -> None:
    texts = await asyncio.gather(
        *(world.call("ehr_update", resource_type=r["resourceType"], id=r["id"], resource=r) for r in resources)
    )
    refused = [text for text in texts if not text.startswith("{")]
    assert refused == []


def ids(text: str) -> list[str]:
    return [r["id"] for r in json.loads(text[text.index("[{") :])]


async def test_examples_are_written_found_and_read_with_the_generic_tools(world: World) -> None:
    await put(world, *records())
    for name in TYPES:
        own = [r["id"] for r in records() if r["resourceType"] == name]
        found = await world.call("ehr_search", resource_type=name, params={"_id": [own]}, count=100)
        assert set(ids(found)) >= {own[0]}
        read = json.loads(await world.call("ehr_read", resource_type=name, id=own[0]))
        assert (read["resourceType"], read["id"]) == (name, own[0])


async def test_four_hundred_records_are_paged_through_without_loss(world: World) -> None:
    people = [
        {"resourceType": "Patient", "id": f"many{n}", "identifier": [{"system": "urn:many", "value": "yes"}]}
        for n in range(400)
    ]
    await put(world, *people)
    arguments: dict[str, Any] = {"resource_type": "Patient", "params": {"identifier": "urn:many|yes"}, "count": 80}
    seen: list[str] = []
    text = await world.call("ehr_search", **arguments)
    for _ in range(20):
        seen += re.findall(r'"id":"(many\d+)"', text)
        if (cursor := re.search(r'"cursor":"([^"]+)"', text)) is None:
            break
        text = await world.call("ehr_search", **arguments, cursor=cursor[1])
    assert sorted(seen) == sorted(p["id"] for p in people)


async def test_writes_are_conditional(world: World) -> None:
    record = {"resourceType": "Patient", "identifier": [{"system": "urn:mrn", "value": "77"}], "active": True}
    arguments: dict[str, Any] = {"resource_type": "Patient", "if_none_exist": "identifier=urn:mrn|77"}
    made = json.loads(await world.call("ehr_create", resource=record, **arguments))
    again = await world.call("ehr_create", resource=record, **arguments)
    assert again.startswith("[It was there already: nothing was created.]\n")
    assert json.loads(again.partition("\n")[2])["id"] == made["id"]
    first = made["meta"]["versionId"]
    changed = {**made, "active": False}
    which: dict[str, Any] = {"resource_type": "Patient", "id": made["id"], "resource": changed}
    new = json.loads(await world.call("ehr_update", **which, version_id=first))
    assert new["meta"]["versionId"] != first
    stale = await world.call("ehr_update", **which, version_id=first)
    assert "[upstream_412]" in stale or "[upstream_409]" in stale
    assert "read it again" in stale


async def test_what_the_server_refuses_is_told_in_its_words(world: World) -> None:
    bad = {"resourceType": "Observation", "status": "no-such-status", "code": 5}
    text = await world.call("ehr_create", resource_type="Observation", resource=bad)
    assert "[upstream_4" in text
    assert '"error: ' in text
    assert "There is no Patient with this id" in await world.call("ehr_read", resource_type="Patient", id="nobody")


async def test_an_unknown_parameter_is_reported_before_the_records(world: World) -> None:
    await put(world, *records())
    text = await world.call("ehr_search", resource_type="Patient", params={"shoesize": "44"})
    assert text.startswith("[The server ignored shoesize") or "[upstream_400]" in text


async def test_the_typed_tools_of_ten_types_answer(tmp_path: Path, fhir: str, world: World) -> None:
    await put(world, *records())
    async with httpx2.AsyncClient(trust_env=False) as http:
        source = read_capability((await http.get(f"{fhir}/metadata")).json(), fhir)
    chosen = [c.endpoint for c in source.candidates if c.tags[0] in TYPES and c.endpoint.method == "GET"]
    assert len(chosen) == 2 * len(TYPES)
    await world.create(
        {
            "name": "typed",
            "display_name": "Typed",
            "protocol": "fhir",
            "base_url": fhir,
            "auth": AUTH,
            "endpoints": [e.model_dump(mode="json") for e in chosen],
        }
    )
    for name in TYPES:
        snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        found = await world.call(f"typed_search_{snake}", _count=5)
        id = ids(found)[0]
        assert json.loads(await world.call(f"typed_read_{snake}", id=id))["resourceType"] == name
    by_name = await world.call("typed_search_patient", identifier=["urn:oid:1.2.36.146.595.217.0.1|12345"])
    assert "example" in ids(by_name)


async def test_the_connection_is_tested_with_the_token(world: World) -> None:
    found = await world.app.admin.test_connection(world.owner, "ehr")
    assert (found["status"], found["auth"]) == ("healthy", "ok")
