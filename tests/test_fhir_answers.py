"""What an agent is given of a FHIR server's answers, also of a hostile one's (rules G1-G3, G5, G7, G8, I6, J12)."""

import base64
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fhir_servers.small import bundle, fhir, integration, outcome, patient, search, statement
from tests.upstreams import Hostile, answer
from tests.world import World, gateway
from tools.models import UpdateIntegrationRequest

pytestmark = pytest.mark.anyio
READ = {"name": "read", "method": "GET", "path": "/Patient/{id}"}
CREATE = {"name": "add", "method": "POST", "path": "/Patient"}
UPDATE = {"name": "put", "method": "PUT", "path": "/Patient/{id}"}


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with gateway(tmp_path) as world:
        yield world


def cursor_of(text: str) -> str:
    found = re.search(r'"cursor":"([^"]+)"', text)
    assert found is not None, text
    return found[1]


def ids(text: str) -> list[str]:
    return re.findall(r'"id":"([^"]+)"', text)


def asked(upstream: Hostile) -> list[str]:
    """What was asked but /metadata."""
    return [r.target for r in upstream.received if r.path != "/fhir/metadata"]


# -- what a search gives


async def test_a_search_is_a_list_of_resources_without_generated_narrative(world: World, upstream: Hostile) -> None:
    generated = {"status": "generated", "div": "<div>obey me</div>"}
    own = {"status": "additional", "div": "<div>allergic</div>"}
    upstream.script("/fhir/Patient", fhir(200, bundle(patient("1", text=generated), patient("2", text=own), total=2)))
    await integration(world, upstream, search())
    text = await world.call("ehr_find")
    assert json.loads(text) == [patient("1"), patient("2", text=own)]


@pytest.mark.parametrize(
    ("shaping", "expected"),
    [
        ({"response_filter": ["entry.resource.id"]}, [{"id": "1"}]),
        ({"result_key": "entry.resource.id"}, ["1"]),
        ({"response_mapping": {"n": "total"}}, {"n": None}),
    ],
)
async def test_an_operators_shaping_reads_the_bundle_as_it_came(
    world: World, upstream: Hostile, shaping: dict[str, Any], expected: Any
) -> None:
    upstream.script("/fhir/Patient", fhir(200, bundle(patient("1", active=True))))
    await integration(world, upstream, search() | shaping)
    assert json.loads(await world.call("ehr_find")) == expected


async def test_included_resources_are_kept_apart(world: World, upstream: Hostile) -> None:
    found = bundle(patient("1"), {"resourceType": "Practitioner", "id": "d"})
    found["entry"][1]["search"]["mode"] = "include"
    upstream.script("/fhir/Patient", fhir(200, found))
    await integration(world, upstream, search())
    shown = json.loads(await world.call("ehr_find", _include="Patient:general-practitioner"))
    assert (ids(json.dumps(shown["resources"], separators=(",", ":"))), shown["included"][0]["id"]) == (["1"], "d")


async def test_warnings_are_told_and_are_never_a_record(world: World, upstream: Hostile) -> None:
    said = outcome(("warning", "not-supported", "phonetics unknown"), ("information", "informational", "took 3 ms"))
    upstream.script("/fhir/Patient", fhir(200, bundle(said)))
    await integration(world, upstream, search())
    text = await world.call("ehr_find")
    assert text == "[Warnings of the server: warning: phonetics unknown (at Patient.name)]\n[]"


async def test_a_lone_outcome_is_the_result(world: World, upstream: Hostile) -> None:
    upstream.script("/fhir/Patient", fhir(200, outcome(("error", "invalid", "no good"))))
    await integration(world, upstream, search())
    text = await world.call("ehr_find")
    assert json.loads(text)["issue"][0]["diagnostics"] == "no good"
    assert "instructions" not in text


@pytest.mark.parametrize(
    ("sent", "self_link", "said"),
    [
        ({"status": "a"}, "Patient?_count=5", "[The server ignored status: the results are NOT narrowed by it.]"),
        ({"status": "a"}, "Patient?status=a", ""),
        ({"_sort": "name"}, "Patient?x=1", ""),
        ({"status": "a"}, "?_getpages=77", ""),
        ({"patient": "1"}, "Patient?_count=5", "ignored the parameter patient"),
        ({"_id": "1"}, "Patient?_count=5", "ignored the parameter _id"),
        ({"patient.name:exact": "x"}, "Patient?_count=5", "ignored the parameter patient.name:exact"),
    ],
)
async def test_a_filter_that_was_ignored_is_said_first_and_one_of_a_person_is_an_error(
    world: World, upstream: Hostile, sent: dict[str, str], self_link: str, said: str
) -> None:
    for path in ("/fhir/Patient", "/fhir/Patient/_search"):
        upstream.script(path, fhir(200, bundle(patient("1"), self_=f"{upstream.url}/fhir/{self_link}")))
    await integration(world, upstream, search())
    text = await world.call("ehr_find", **sent)
    assert said in text
    assert text.startswith("[The server ignored") == said.startswith("[")
    assert ('"id":"1"' in text) == (not said.startswith("ignored"))


async def test_a_fixed_filter_that_was_ignored_withholds_what_was_found(world: World, upstream: Hostile) -> None:
    ignored = outcome(("warning", "not-supported", "unknown parameter 'ward'"))
    upstream.script("/fhir/Patient", fhir(200, bundle(patient("1"), ignored)))
    await integration(world, upstream, search(ward={"x-fixed": True, "default": "7"}))
    text = await world.call("ehr_find")
    assert "ignored the parameter ward" in text
    assert '"id"' not in text


# -- pages


def pages(upstream: Hostile, many: int, size: int, **more: Any) -> None:
    """/fhir/Patient in pages of `size`, linked by /fhir/p/{n}."""
    for n in range(many):
        people = [patient(f"{n * size + i}") for i in range(size)]
        links = {"next": f"{upstream.url}/fhir/p/{n + 1}?s=1"} if n + 1 < many else {}
        upstream.script("/fhir/Patient" if n == 0 else f"/fhir/p/{n}", fhir(200, bundle(*people, **links, **more)))


async def test_all_pages_can_be_read_with_the_cursor(world: World, upstream: Hostile) -> None:
    pages(upstream, 5, 20, total=100)
    await integration(world, upstream, search())
    text = await world.call("ehr_find")
    assert text.startswith('[Showing 60 of 100 matches. More: the same call with "cursor":"')
    rest = await world.call("ehr_find", cursor=cursor_of(text))
    assert ids(text) + ids(rest) == [str(n) for n in range(100)]
    assert "cursor" not in rest


async def test_a_missing_total_is_not_zero(world: World, upstream: Hostile) -> None:
    pages(upstream, 5, 20)
    await integration(world, upstream, search())
    assert (await world.call("ehr_find")).startswith("[Showing 60 matches. More:")


async def test_progress_is_told_of_each_page(world: World, upstream: Hostile) -> None:
    from tools.call import CallContext

    told: list[tuple[float, float | None]] = []

    async def progress(done: float, message: str, total: float | None = None) -> None:
        if message.startswith("page"):
            told.append((done, total))

    pages(upstream, 3, 10, total=30)
    await integration(world, upstream, search())
    await world.app.gateway.call(world.owner, "ehr_find", {}, CallContext(progress=progress))
    assert told == [(20.0, 30.0), (30.0, 30.0)]


@pytest.mark.parametrize(
    "link",
    [
        "http://127.0.0.2:9/fhir/Patient?page=2",
        "{url_other_port}/fhir/Patient?page=2",
        "{url}/tenant-b/Patient?page=2",
        "{url}/fhir-b/Patient?page=2",
        "{url}/fhir/../tenant-b/Patient",
        "{url}/fhir/%2e%2e/tenant-b/Patient",
        "{url}/fhir/%252e%252e/tenant-b/Patient",
        "{url}/fhir%2fx/Patient",
        "//evil.example/fhir/Patient",
        "/tenant-b/Patient",
        "file:///etc/passwd",
        "http://user@{host}/fhir/Patient?page=2",
        "http://[",
    ],
)
async def test_a_next_link_that_leads_out_is_not_followed_and_that_is_said(
    world: World, upstream: Hostile, link: str
) -> None:
    host = upstream.url.removeprefix("http://")
    url = link.replace("{url_other_port}", "http://127.0.0.1:9").replace("{url}", upstream.url).replace("{host}", host)
    upstream.script("/fhir/Patient", fhir(200, bundle(patient("1"), next=url)))
    await integration(world, upstream, search())
    text = await world.call("ehr_find")
    assert "leads out of this integration" in text
    assert ids(text) == ["1"]
    assert asked(upstream) == ["/fhir/Patient"]


async def test_a_server_that_names_itself_wrongly_can_be_paged_where_the_operator_says_so(
    world: World, upstream: Hostile
) -> None:
    first = fhir(200, bundle(patient("1"), next="http://internal:8080/fhir?_getpages=abc"))
    upstream.script("/fhir/Patient", first)
    upstream.script("/fhir", fhir(200, bundle(patient("2"))))
    endpoint = search()
    endpoint["input_schema"]["x-fhir-rebase"] = True
    await integration(world, upstream, endpoint)
    assert ids(await world.call("ehr_find")) == ["1", "2"]
    assert asked(upstream) == ["/fhir/Patient", "/fhir?_getpages=abc"]


async def test_a_page_that_leads_back_to_itself_ends_the_search(world: World, upstream: Hostile) -> None:
    upstream.script("/fhir/Patient", fhir(200, bundle(patient("1"), next=f"{upstream.url}/fhir/Patient")))
    await integration(world, upstream, search())
    assert "leads back to a page" in await world.call("ehr_find")
    assert asked(upstream) == ["/fhir/Patient"]


async def test_pages_without_an_end_are_read_twenty_at_a_time(world: World, upstream: Hostile) -> None:
    pages(upstream, 40, 1)
    await integration(world, upstream, search())
    assert len(ids(await world.call("ehr_find"))) == len(asked(upstream)) == 20


async def test_what_was_read_before_the_deadline_is_given_with_the_way_to_go_on(
    world: World, upstream: Hostile
) -> None:
    from tests.upstreams import silence

    upstream.script("/fhir/Patient", fhir(200, bundle(patient("1"), next=f"{upstream.url}/fhir/p/1")))
    upstream.script("/fhir/p/1", silence, fhir(200, bundle(patient("2"))))
    await integration(world, upstream, search() | {"timeout_seconds": 0.3})
    text = await world.call("ehr_find")
    assert "[The next page could not be read [upstream_timeout].]" in text
    assert ids(text) == ["1"]
    assert ids(await world.call("ehr_find", cursor=cursor_of(text))) == ["2"]


async def test_a_next_link_that_changes_a_fixed_argument_is_not_followed(world: World, upstream: Hostile) -> None:
    upstream.script("/fhir/Patient", fhir(200, bundle(patient("1"), next=f"{upstream.url}/fhir/Patient?ward=8")))
    await integration(world, upstream, search(ward={"x-fixed": True, "default": "7"}))
    assert ids(await world.call("ehr_find")) == ["1"]
    assert asked(upstream) == ["/fhir/Patient?ward=7"]


# -- cursors (J12)


async def test_a_cursor_is_only_good_where_it_was_given(world: World, upstream: Hostile) -> None:
    pages(upstream, 5, 20)
    made = await integration(world, upstream, search(ward={"x-fixed": True, "default": "7"}))
    cursor = cursor_of(await world.call("ehr_find", status="a"))
    before = len(upstream.received)
    turned = cursor[:-2] + ("A" if cursor[-2] != "A" else "B") + cursor[-1]
    for bad in (turned, cursor[:-4], "", "x", "http://127.0.0.1/fhir/Patient?page=2", "é"):
        assert "cursor" in await world.call("ehr_find", status="a", cursor=bad)
    assert "isn't one that this search gave" in await world.call("ehr_find", status="b", cursor=cursor)
    other = await world.app.toolbox.call(
        replace(world.owner, id="someone"), "ehr_find", {"status": "a", "cursor": cursor}
    )
    assert "cursor" in other.text
    changed = search(ward={"x-fixed": True, "default": "8"}) | {"description": "d"}
    update = UpdateIntegrationRequest.model_validate({"endpoints": [changed]})
    await world.app.admin.update(world.owner, made.id, update)
    assert "isn't one that this search gave" in await world.call("ehr_find", status="a", cursor=cursor)
    assert asked(upstream)[before - 1 :] == []


# -- writes, errors, binary


@pytest.mark.parametrize("location", ["/fhir/Patient/9/_history/2", "http://elsewhere/base/Patient/9"])
async def test_a_create_without_a_body_tells_what_was_made(world: World, upstream: Hostile, location: str) -> None:
    upstream.script("/fhir/Patient", fhir(201, None, Location=location, ETag='W/"2"'))
    await integration(world, upstream, CREATE)
    made = json.loads(await world.call("ehr_add", active=True))
    assert made == {"resourceType": "Patient", "id": "9", "meta": {"versionId": "2"}}
    assert asked(upstream) == ["/fhir/Patient"]


async def test_an_update_without_a_body_tells_the_new_version(world: World, upstream: Hostile) -> None:
    upstream.script("/fhir/Patient/1", fhir(200, None, ETag='W/"5"'))
    await integration(world, upstream, UPDATE)
    made = json.loads(await world.call("ehr_put", id="1", version_id="4", active=True))
    assert made == {"resourceType": "Patient", "id": "1", "meta": {"versionId": "5"}}


async def test_a_flood_of_included_resources_ends_at_the_size_limit(world: World, upstream: Hostile) -> None:
    flood = bundle(patient("1"), *({"resourceType": "Group", "id": str(n), "name": "x" * 1000} for n in range(11_000)))
    upstream.script("/fhir/Patient", fhir(200, flood))
    await integration(world, upstream, search())
    assert "[response_too_large]" in await world.call("ehr_find", _include="*")


@pytest.mark.parametrize(
    ("tool", "status", "said"),
    [
        ("read", 404, "There is no Patient with this id"),
        ("read", 410, "was deleted"),
        ("find", 400, "It refused the search"),
        ("put", 409, "read it again"),
        ("put", 412, "read it again"),
        ("add", 412, "Several records match if_none_exist"),
        ("add", 422, "breaks a rule of this server"),
    ],
)
async def test_an_error_status_decides_and_is_told_in_the_servers_words(
    world: World, upstream: Hostile, tool: str, status: int, said: str
) -> None:
    words = outcome(("information", "x", "fine"), ("error", "x", "bad family"), ("fatal", "x", "y" * 5000))
    for path in ("/fhir/Patient", "/fhir/Patient/1"):
        upstream.script(path, fhir(status, words))
    await integration(world, upstream, READ, search(), UPDATE, CREATE)
    text = await world.call(f"ehr_{tool}", **({"id": "1"} if tool in ("read", "put") else {}))
    assert said in text
    assert f"[upstream_{status}]" in text
    assert '"fatal: yyy' in text
    assert "instructions" not in text
    assert len(text) < 3000


async def test_a_binary_is_a_blob_and_never_text(world: World, upstream: Hostile) -> None:
    upstream.script("/fhir/Binary/1", answer(200, b"<script>", {"Content-Type": "text/html"}))
    wrapped = {"resourceType": "Binary", "contentType": "application/pdf", "data": base64.b64encode(b"%PDF").decode()}
    upstream.script("/fhir/Binary/2", fhir(200, wrapped))
    await integration(world, upstream, {"name": "file", "method": "GET", "path": "/Binary/{id}"})
    for id, data, media in (("1", b"<script>", "text/html"), ("2", b"%PDF", "application/pdf")):
        outcome = await world.app.toolbox.call(world.owner, "ehr_file", {"id": id})
        assert [(b.type, base64.b64decode(b.data), b.media_type) for b in outcome.blocks] == [("blob", data, media)]
    assert upstream.received[-1].header("accept") == "*/*"


# -- without endpoints


async def test_without_endpoints_it_shows_what_the_server_can_do(world: World, upstream: Hostile) -> None:
    read_only = {"type": "Basic", "interaction": [{"code": "read"}]}
    upstream.script("/fhir/metadata", fhir(200, statement("versioned", read_only)))
    await integration(world, upstream)
    tools = (await world.app.catalogs.get("acme")).tools
    kinds = {n: t.published.schema["properties"].get("resource_type", {}).get("enum") for n, t in tools.items()}
    assert kinds == {
        "ehr_create": ["Patient"],
        "ehr_operation": ["Patient"],
        "ehr_read": ["Basic", "Patient"],
        "ehr_search": ["Patient"],
        "ehr_update": ["Patient"],
    }
    assert tools["ehr_operation"].published.schema["properties"]["operation"]["enum"] == ["$everything"]
    assert [n for n, t in tools.items() if t.hints.read_only] == ["ehr_read", "ehr_search"]


async def test_the_generic_tools_reach_the_server(world: World, upstream: Hostile) -> None:
    upstream.script("/fhir/metadata", fhir(200, statement()))
    upstream.script("/fhir/Patient", fhir(200, bundle(patient("1"))))
    upstream.script("/fhir/Patient/_search", fhir(200, bundle(patient("2"))))
    upstream.script("/fhir/Patient/1", fhir(200, patient("1")))
    upstream.script("/fhir/Patient/1/$everything", fhir(200, patient("3")))
    await integration(world, upstream)
    found = await world.call("ehr_search", resource_type="Patient", params={"status": "a,b", "x": ["c,d"]}, count=5)
    assert ids(found) == ["1"]
    assert ids(await world.call("ehr_search", resource_type="Patient", params={"identifier": "http://x|1"})) == ["2"]
    assert ids(await world.call("ehr_read", resource_type="Patient", id="1")) == ["1"]
    await world.call("ehr_update", resource_type="Patient", id="1", resource={"active": True}, version_id="3")
    await world.call(
        "ehr_operation", operation="$everything", resource_type="Patient", id="1", parameters={"start": "2024-01-01"}
    )
    sent = [r for r in upstream.received if r.path != "/fhir/metadata"]
    assert sent[0].target == "/fhir/Patient?_count=5&status=a%2Cb&x=c%5C%2Cd"
    assert sent[1].body == b"identifier=http%3A%2F%2Fx%7C1"
    assert json.loads(sent[3].body) == {"active": True, "resourceType": "Patient", "id": "1"}
    assert sent[3].header("if-match") == 'W/"3"'
    start = {"name": "start", "valueString": "2024-01-01"}
    assert (sent[4].target, json.loads(sent[4].body)) == (
        "/fhir/Patient/1/$everything",
        {"resourceType": "Parameters", "parameter": [start]},
    )


@pytest.mark.parametrize(
    "params",
    [
        {"_format": "xml"},
        {"resource_type": "Group"},
        {"cursor": "x"},
        {"_count": 5000},
        {"_include:iterate": "Patient:link"},
        {"a&b": "1"},
        {"x": {"a": 1}},
    ],
)
async def test_a_generic_search_takes_search_parameters_and_nothing_else(
    world: World, upstream: Hostile, params: dict[str, Any]
) -> None:
    upstream.script("/fhir/metadata", fhir(200, statement()))
    await integration(world, upstream)
    assert "Not sent" in await world.call("ehr_search", resource_type="Patient", params=params)
    assert asked(upstream) == []


async def test_a_version_is_required_where_the_server_demands_it(world: World, upstream: Hostile) -> None:
    upstream.script("/fhir/metadata", fhir(200, statement("versioned-update")))
    await integration(world, upstream, UPDATE)
    assert "version_id" in await world.call("ehr_put", id="1", active=True)
    assert asked(upstream) == []


# -- health (G10)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, ("healthy", "ok")), (401, ("auth_failed", "failed")), (403, ("auth_failed", "failed"))],
)
async def test_a_tested_connection_asks_for_one_number_with_the_credential(
    world: World, upstream: Hostile, status: int, expected: tuple[str, str]
) -> None:
    upstream.script("/fhir/metadata", fhir(200, statement()))
    upstream.script("/fhir/Patient", fhir(status, bundle(total=3)))
    auth = {"type": "bearer_token", "bearer_token_value": {"value": "s3cret-token"}}
    made = await integration(world, upstream, auth=auth)
    found = await world.app.admin.test_connection(world.owner, made.id)
    assert (found["status"], found["auth"]) == expected
    last = upstream.received[-1]
    assert (last.target, last.header("authorization")) == ("/fhir/Patient?_summary=count", "Bearer s3cret-token")
    assert all(r.header("authorization") is None for r in upstream.received if r.path == "/fhir/metadata")
