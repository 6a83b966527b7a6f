"""A CapabilityStatement becomes endpoints that a server takes (pure), and the default choice is small."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest

from tests.fhir_servers.small import bundle, fhir, integration, patient, statement
from tests.upstreams import Hostile
from tests.world import World, gateway
from tools.importers.capability import COMMON, default_choice, read_capability
from tools.importers.frame import Source, SourceFault
from tools.importers.importing import Importer
from tools.importers.reading import read_source
from tools.importers.requests import ImportRequest

BASE = "https://ehr.example.com/fhir"


def resource(name: str, *codes: str, **fields: Any) -> dict[str, Any]:
    return {"type": name, "interaction": [{"code": code} for code in codes], **fields}


def test_only_what_the_server_can_do_is_offered() -> None:
    source = read_capability(statement("", resource("Basic", "read", "vread")), BASE)
    assert [c.key for c in source.candidates] == [
        "GET /Basic/{id}",
        "GET /Patient",
        "GET /Patient/{id}",
        "POST /Patient",
        "PUT /Patient/{id}",
    ]
    assert [(left.key, left.why) for left in source.left_out] == [("Basic", "vread: not a tool")]


def test_parameters_have_the_shapes_of_their_fhir_types() -> None:
    source = read_capability(statement(), BASE)
    properties = next(c for c in source.candidates if c.key == "GET /Patient").endpoint.input_schema["properties"]
    assert properties["identifier"]["items"] == {"type": "string"}
    assert properties["birthdate"]["items"]["items"]["pattern"].startswith("^(eq|ne|")
    assert properties["_include"]["items"]["enum"] == ["Patient:general-practitioner"]
    assert properties["_count"]["maximum"] == 100


def test_a_type_with_too_many_parameters_for_hosts_keeps_the_useful_ones_and_says_which_are_gone() -> None:
    many = [{"name": f"p{n}", "type": "token", "documentation": "d" * 300} for n in range(190)]
    more = resource("Observation", "search-type", searchParam=[*many, {"name": "patient", "type": "reference"}])
    source = read_capability(statement("", more), BASE)
    found = next(c for c in source.candidates if c.key == "GET /Observation")
    assert "patient" in found.endpoint.input_schema["properties"]
    assert "search parameters left out" in found.notes[0]


def test_the_default_choice_reads_what_most_questions_are_about() -> None:
    every = [
        resource(f"Type{chr(65 + n // 26)}{chr(97 + n % 26)}", "read", "search-type", "create") for n in range(140)
    ]
    common = [resource(name, "read", "search-type", "create", "delete") for name in COMMON]
    source = read_capability(statement("", *every, *common), BASE)
    chosen = [c for c in source.candidates if default_choice(source).takes(c)]
    assert {c.tags[0] for c in chosen} == set(COMMON)
    assert {c.endpoint.method for c in chosen} == {"GET"}
    assert len(chosen) == 2 * len(COMMON)


@pytest.mark.parametrize("statement", [None, [], "x", {}, {"resourceType": "Bundle"}])
def test_what_is_no_statement_is_refused(statement: Any) -> None:
    with pytest.raises(SourceFault):
        read_capability(statement, BASE)


@pytest.mark.parametrize(
    "rest",
    [None, 5, [None], [{"resource": "x"}], [{"resource": [None, {"type": 5}, {"type": "../x"}, {"type": "Ok"}]}]],
)
def test_what_is_malformed_in_a_statement_is_passed_over(rest: Any) -> None:
    assert read_capability({"resourceType": "CapabilityStatement", "rest": rest}, BASE).candidates == ()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with gateway(tmp_path) as world:
        yield world


@pytest.mark.anyio
async def test_a_statement_is_imported_like_any_other_document(world: World) -> None:
    async with Hostile() as upstream:
        upstream.script("/fhir/metadata", fhir(200, statement()))
        request = ImportRequest(url=f"{upstream.url}/fhir/metadata", name="ehr", apply=True, enabled=True)
        await Importer(world.app.admin, 48, world.app.importer.connecting, at_once).run(world.owner, request)
        made = await world.app.admin.get(world.owner, "ehr")
    assert (made.protocol, made.base_url) == ("fhir", f"{upstream.url}/fhir")
    assert [e.name for e in made.endpoints] == ["search_patient", "read_patient"]


async def at_once(data: bytes, where: str) -> Source:
    return read_source(data, where)


@pytest.mark.anyio
async def test_what_is_imported_is_called_as_fhir_means_it(world: World) -> None:
    async with Hostile() as upstream:
        upstream.script("/fhir/metadata", fhir(200, statement()))
        upstream.script("/fhir/Patient/_search", fhir(200, bundle(patient("1"))))
        source = read_capability(statement(), f"{upstream.url}/fhir")
        await integration(world, upstream, *(c.endpoint.model_dump(mode="json") for c in source.candidates))
        ranges = [["ge1970-01-01"], ["lt1980"]]
        text = await world.call("ehr_search_patient", birthdate=ranges, identifier=["http://x|1,2", "3"])
        assert '"id":"1"' in text
        sent = unquote_plus(upstream.received[-1].body.decode())
        assert sent == "birthdate=ge1970-01-01&birthdate=lt1980&identifier=http://x|1\\,2,3"
        assert "Not sent" in await world.call("ehr_search_patient", birthdate=[["yesterday"]])
