"""What a FHIR server is sent: media types, Prefer, search values, preconditions (rules G3-G7, G9, G11)."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.fhir_servers.small import bundle, fhir, integration, outcome, patient, search
from tests.upstreams import Hostile, Received, answer
from tests.world import World, gateway

pytestmark = pytest.mark.anyio
UPDATE = {"name": "put", "method": "PUT", "path": "/Patient/{id}"}
CREATE = {"name": "add", "method": "POST", "path": "/Patient"}
RESOURCE = {"type": "object", "properties": {"resource": {"type": "object", "x-body": True}}}


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        server.script("/fhir/Patient", fhir(200, bundle(patient("1"))))
        server.script("/fhir/Patient/_search", fhir(200, bundle(patient("1"))))
        server.script("/fhir/Patient/1", fhir(200, patient("1")))
        yield server


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with gateway(tmp_path) as world:
        yield world


def sent(upstream: Hostile) -> Received:
    """The last request."""
    return upstream.received[-1]


def query(received: Received) -> list[str]:
    return [unquote(pair) for pair in received.target.partition("?")[2].split("&") if pair]


async def test_a_search_is_strict_and_asks_for_fhir_json(world: World, upstream: Hostile) -> None:
    await integration(world, upstream, search())
    await world.call("ehr_find", active=True)
    assert sent(upstream).header("accept") == "application/fhir+json, application/json;q=0.9"
    assert sent(upstream).header("prefer") == "handling=strict"
    assert query(sent(upstream)) == ["active=true"]


@pytest.mark.parametrize(
    ("rules", "value", "expected"),
    [
        ({}, ["a", "b,c"], ["code=a,b\\,c"]),
        ({}, [["a", "b"], ["c"]], ["code=a,b", "code=c"]),
        ({}, "http://loinc.org|8867-4", ["code=http://loinc.org|8867-4"]),
        ({"x-fhir-type": "token"}, "http://loinc.org|a|b$,\\", ["code=http://loinc.org|a\\|b\\$\\,\\\\"]),
        ({"x-fhir-type": "string"}, "Solo, Han|$", ["code=Solo\\, Han\\|\\$"]),
        ({"x-name": "code:not"}, ["a", "b"], ["code:not=a,b"]),
        ({"x-fixed": True, "default": "a,b"}, None, ["code=a,b"]),
        ({"x-name": "_sort"}, "-date,code", ["_sort=-date,code"]),
        ({}, [], []),
        ({}, True, ["code=true"]),
    ],
)
async def test_a_list_is_or_a_list_of_lists_is_and_and_separators_in_values_are_escaped(
    world: World, upstream: Hostile, rules: dict[str, Any], value: Any, expected: list[str]
) -> None:
    await integration(world, upstream, search(code=rules))
    await world.call("ehr_find", **({} if value is None else {"code": value}))
    assert query(sent(upstream)) == expected


@pytest.mark.parametrize(
    ("arguments", "in_body"),
    [
        ({"identifier": "http://x|1"}, True),
        ({"name": "Solo"}, True),
        ({"given_exact": "Han"}, True),
        ({"status": "active"}, False),
        ({"status": ["x" * 200] * 12}, True),
        ({"ward": "7"}, True),
        ({"address": "open"}, False),
    ],
)
async def test_what_names_people_or_is_long_is_searched_by_post(
    world: World, upstream: Hostile, arguments: dict[str, Any], in_body: bool
) -> None:
    properties: dict[str, Any] = {
        "given_exact": {"x-name": "given:exact"},
        "ward": {"x-sensitive": True},
        "address": {"x-sensitive": False},
    }
    await integration(world, upstream, search(**properties))
    await world.call("ehr_find", **arguments)
    assert sent(upstream).method == ("POST" if in_body else "GET")
    if in_body:
        assert sent(upstream).target == "/fhir/Patient/_search"
        assert sent(upstream).header("content-type") == "application/x-www-form-urlencoded"
        assert sent(upstream).header("idempotency-key") is None


@pytest.mark.parametrize("status", [405, 415])
async def test_a_server_without_search_by_post_is_asked_by_get(world: World, upstream: Hostile, status: int) -> None:
    upstream.script("/fhir/Patient/_search", answer(status))
    await integration(world, upstream, search())
    assert '"id":"1"' in await world.call("ehr_find", identifier="x|1")
    assert (sent(upstream).method, query(sent(upstream))) == ("GET", ["identifier=x|1"])


async def test_a_search_by_post_is_a_read_and_is_retried(world: World, upstream: Hostile) -> None:
    upstream.script("/fhir/Patient/_search", answer(502, headers={"Retry-After": "0"}), fhir(200, bundle(patient("1"))))
    endpoint = {"name": "find", "method": "POST", "path": "/Patient/_search"}
    await integration(world, upstream, endpoint)
    assert '"id":"1"' in await world.call("ehr_find", status=["a", "b"])
    assert sent(upstream).body == b"status=a%2Cb"
    tools = (await world.app.catalogs.get("acme")).tools
    assert tools["ehr_find"].hints.read_only


@pytest.mark.parametrize(
    ("filters", "arguments", "expected"),
    [
        (["entry.resource.id", "entry.resource.name.family", "total"], {}, ["_elements=name"]),
        (["entry.resource.id", "entry.resource.name"], {"_include": "Patient:link"}, ["_include=Patient:link"]),
        (["entry.resource.name"], {"_summary": "true"}, ["_summary=true"]),
        (["entry.resource.valueQuantity"], {}, []),
        (["entry.resource"], {}, []),
        (["entry.*.name"], {}, []),
    ],
)
async def test_elements_are_derived_from_the_filter_where_that_is_safe(
    world: World, upstream: Hostile, filters: list[str], arguments: dict[str, Any], expected: list[str]
) -> None:
    await integration(world, upstream, search() | {"response_filter": filters})
    await world.call("ehr_find", **arguments)
    assert query(sent(upstream)) == expected


async def test_a_server_that_refuses_elements_is_asked_for_all(world: World, upstream: Hostile) -> None:
    upstream.script(
        "/fhir/Patient", fhir(400, outcome(("error", "invalid", "_elements?"))), fhir(200, bundle(patient("1")))
    )
    await integration(world, upstream, search() | {"response_filter": ["entry.resource.id", "entry.resource.name"]})
    assert '"id":"1"' in await world.call("ehr_find")
    assert query(sent(upstream)) == []


async def test_an_update_carries_the_version_and_asks_for_the_record_back(world: World, upstream: Hostile) -> None:
    await integration(world, upstream, UPDATE | {"input_schema": RESOURCE})
    await world.call("ehr_put", id="1", version_id='W/"3"', resource={"active": True})
    assert sent(upstream).header("if-match") == 'W/"3"'
    assert sent(upstream).header("prefer") == "return=representation"
    assert sent(upstream).header("content-type") == "application/fhir+json"
    assert json.loads(sent(upstream).body) == {"active": True, "resourceType": "Patient", "id": "1"}


@pytest.mark.parametrize(
    ("resource", "said"),
    [
        ({"meta": {"tag": [{"code": "SUBSETTED"}]}}, "SUBSETTED"),
        ({"id": "2"}, "must be the same as id"),
        ({"resourceType": "Group"}, "must be Patient"),
    ],
)
async def test_a_body_that_would_lose_or_move_data_is_not_sent(
    world: World, upstream: Hostile, resource: dict[str, Any], said: str
) -> None:
    await integration(world, upstream, UPDATE | {"input_schema": RESOURCE})
    before = len(upstream.received)
    text = await world.call("ehr_put", id="1", resource=resource)
    assert said in text
    assert "Not sent" in text
    assert len(upstream.received) == before


@pytest.mark.parametrize(
    "condition",
    [
        "?identifier=a|1",
        "identifier=a|1&_id=2",
        "http://x/Patient?identifier=1",
        "identifier=",
        "a b=1",
        "id\r\nX: y=1",
        "_id=1",
        "#a=1",
        "",
    ],
)
async def test_a_condition_that_is_more_than_a_search_is_refused(
    world: World, upstream: Hostile, condition: str
) -> None:
    await integration(world, upstream, CREATE)
    before = len(upstream.received)
    text = await world.call("ehr_add", if_none_exist=condition, active=True)
    assert "if_none_exist" in text
    assert len(upstream.received) == before


async def test_a_conditional_create_is_retried_and_says_when_the_record_was_there(
    world: World, upstream: Hostile
) -> None:
    no_wait = {"Retry-After": "0"}
    upstream.script("/fhir/Patient", answer(502, headers=no_wait), fhir(200, patient("7")))
    await integration(world, upstream, CREATE)
    text = await world.call("ehr_add", if_none_exist="identifier=http://x|1", active=True)
    assert text.startswith("[It was there already: nothing was created.]\n")
    assert sent(upstream).header("if-none-exist") == "identifier=http://x|1"
    assert json.loads(sent(upstream).body) == {"active": True}


async def test_a_plain_create_whose_fate_is_unknown_is_not_repeated(world: World, upstream: Hostile) -> None:
    upstream.script("/fhir/Patient", answer(502, headers={"Retry-After": "0"}))
    await integration(world, upstream, CREATE)
    assert "[outcome_unknown]" in await world.call("ehr_add", active=True)
    assert sum(r.method == "POST" for r in upstream.received) == 1


@pytest.mark.parametrize(
    ("body", "media"),
    [
        ([{"op": "replace", "path": "/active", "value": False}], "application/json-patch+json"),
        ({"resourceType": "Parameters"}, "application/fhir+json"),
    ],
)
async def test_a_patch_is_named_by_what_it_is(world: World, upstream: Hostile, body: Any, media: str) -> None:
    schema = {"type": "object", "properties": {"patch": {"x-body": True}}}
    await integration(
        world, upstream, {"name": "patch", "method": "PATCH", "path": "/Patient/{id}", "input_schema": schema}
    )
    await world.call("ehr_patch", id="1", patch=body)
    assert sent(upstream).header("content-type") == media
    assert json.loads(sent(upstream).body) == body


@pytest.mark.parametrize("id", ["", ".", "..", "%2e%2e", "a/../b", "..;x"])
async def test_an_id_that_would_climb_is_refused(world: World, upstream: Hostile, id: str) -> None:
    await integration(world, upstream, {"name": "read", "method": "GET", "path": "/Patient/{id}"})
    before = len(upstream.received)
    assert "Not sent" in await world.call("ehr_read", id=id)
    assert len(upstream.received) == before


async def test_more_than_a_hundred_at_once_is_refused_with_the_way_to_go_on(world: World, upstream: Hostile) -> None:
    await integration(world, upstream, search(_count={"type": "integer"}))
    assert "at most 100" in await world.call("ehr_find", _count=1000)


@pytest.mark.parametrize(
    ("endpoint", "where"),
    [
        (search(_format={"type": "string"}), "properties._format"),
        (search(x={"type": "string", "x-name": "_pretty"}), "properties.x"),
        ({"name": "a", "method": "DELETE", "path": "/Patient"}, "path"),
        ({"name": "a", "method": "PUT", "path": "/Patient"}, "path"),
        ({"name": "a", "method": "GET", "path": "/Patient/$export"}, "path"),
        ({"name": "a", "method": "GET", "path": "/x", "headers": {"Prefer": "respond-async"}}, "headers.Prefer"),
    ],
)
async def test_what_cannot_be_offered_is_refused_when_it_is_written(
    world: World, upstream: Hostile, endpoint: dict[str, Any], where: str
) -> None:
    from tools.errors import InvalidRequest

    with pytest.raises(InvalidRequest) as refused:
        await integration(world, upstream, endpoint)
    assert any(".".join(map(str, i.loc)).endswith(where) for i in refused.value.issues)
