"""A policy without a mind repairs planted faults over MCP, only by calling what `fix` says (agents.md 4.4)."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.upstreams import Hostile, answer, redirect, silence
from tests.world import World, gateway, http, listening, served

pytestmark = pytest.mark.anyio

PATIENT = {"id": "7", "name": [{"family": "Solo", "given": ["Han"]}], "birthDate": "1942-07-13"}


async def _patient(request: Request) -> JSONResponse:
    if request.path_params["id"] != "7":
        return JSONResponse({"message": f"No patient {request.path_params['id']}"}, 404)
    return JSONResponse(PATIENT)


async def _search(request: Request) -> JSONResponse:
    if request.query_params.get("family") is None:
        return JSONResponse({"message": "query parameter 'family' is required"}, 400)
    return JSONResponse({"total": 1, "entry": [{"resource": PATIENT, "score": 1.0}]})


async def _message(request: Request) -> JSONResponse:
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return JSONResponse({"message": "unsupported"}, 415)
    return JSONResponse({"sent": dict(await request.form())})


async def _report(request: Request) -> JSONResponse:
    if request.headers.get("x-tenant") != "north":
        return JSONResponse({"message": "header X-Tenant is missing"}, 400)
    return JSONResponse({"rows": 3})


async def _visits(request: Request) -> Response:
    return JSONResponse({"made": True})


async def _plain(request: Request) -> Response:
    if "json" not in request.headers["accept"]:
        return JSONResponse({"message": "not acceptable"}, 406)
    return JSONResponse({"ok": True})


async def _to_slash(request: Request) -> Response:
    return RedirectResponse("/v1/visits/", 307)


UPSTREAM = Starlette(
    routes=[
        Route("/v1/patients", _search),
        Route("/v1/patients/{id}", _patient),
        Route("/v1/messages", _message, methods=["POST"]),
        Route("/v1/reports/daily", _report),
        Route("/v1/visits/", _visits, methods=["POST"]),
        Route("/v1/plain", _plain),
        Route("/v1/visits", _to_slash, methods=["POST"]),
    ]
)


def clinic(base: str) -> dict[str, Any]:
    """The integration as it should be: every endpoint works."""
    family = {"type": "object", "properties": {"family": {"type": "string"}}, "required": ["family"]}
    text = {"type": "object", "properties": {"text": {"type": "string"}}}
    return {
        "name": "clinic",
        "display_name": "Clinic",
        "base_url": f"{base}/v1",
        "endpoints": [
            {"name": "get_patient", "description": "Gets one patient.", "method": "GET", "path": "/patients/{id}"},
            {
                "name": "search_patients",
                "description": "Finds patients by name.",
                "method": "GET",
                "path": "/patients",
                "input_schema": family,
            },
            {
                "name": "send_message",
                "description": "Sends a message.",
                "method": "POST",
                "path": "/messages",
                "body_format": "form",
                "input_schema": text,
            },
            {
                "name": "daily_report",
                "description": "Reads the report.",
                "method": "GET",
                "path": "/reports/daily",
                "headers": {"X-Tenant": "north"},
            },
            {
                "name": "old_report",
                "description": "Same.",
                "method": "GET",
                "path": "/reports/daily",
                "headers": {"X-Tenant": "north"},
            },
            {"name": "read_plain", "description": "Reads.", "method": "GET", "path": "/plain"},
            {
                "name": "make_visit",
                "description": "Makes a visit.",
                "method": "POST",
                "path": "/visits/",
                "input_schema": text,
            },
        ],
    }


PARAMS: dict[str, dict[str, Any]] = {
    "get_patient": {"id": "7"},
    "search_patients": {"family": "Solo"},
    "send_message": {"text": "hello"},
    "make_visit": {"text": "hello"},
}


def plant(endpoint: str, **patch: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    return endpoint, patch, {}


FAULTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "a name in a template": plant("get_patient", result_template="{{ birthdat }}"),
    "a member in a template": plant("get_patient", result_template="{{ name[0].famly }}"),
    "an argument in a template": plant("search_patients", result_template="{{ args.famili }}: {{ total }}"),
    "a field in a mapping": plant("get_patient", response_mapping={"born": "birthdate", "id": "id"}),
    "a mapping that starts too far in": plant("search_patients", response_mapping={"family": "entry.name.family"}),
    "a JMESPath expression": plant("get_patient", response_mapping={"family": "name[0].famly"}),
    "a path in a filter": plant("search_patients", response_filter=["entry.resorce.id", "total"]),
    "a result key": plant("search_patients", result_key="entrys"),
    "the method": plant("send_message", method="PUT"),
    "a word in the path": plant("get_patient", path="/pateints/{id}"),
    "the base path twice": plant("get_patient", path="/v1/patients/{id}"),
    "a slash at the end": plant("make_visit", path="/visits"),
    "the body format": plant("send_message", body_format="json"),
    "a missing header": plant("daily_report", headers={}),
    "an Accept header": plant("read_plain", headers={"Accept": "text/csv"}),
    "a field's wire name": plant(
        "search_patients",
        input_schema={
            "type": "object",
            "properties": {"family": {"type": "string", "x-name": "famly"}},
            "required": ["family"],
        },
    ),
    "a base URL of its own": plant("get_patient", base_url="https://127.0.0.1:1/v1"),
    "https where http is spoken": ("get_patient", {}, {"base_url": "https"}),
}


@asynccontextmanager
async def management(world: World) -> AsyncGenerator[Client, None]:
    async with (
        served(world) as url,
        http(url, await world.key("owner")) as client,
        Client(streamable_http_client(f"{url}/mcp", http_client=client), mode="2026-07-28") as mcp,
    ):
        yield mcp


async def call(mcp: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    result = await mcp.call_tool(tool, arguments)
    text = result.content[0].text  # pyright: ignore
    assert not result.is_error, text
    return json.loads(text)  # pyright: ignore


async def repaired_in(mcp: Client, tool: str, params: dict[str, Any], most: int = 3) -> int:
    """The policy: test; call the first fix; again. Returns the fixes it took; fails where it is stuck."""
    for turns in range(most + 1):
        found = await call(mcp, "test_integration_endpoint", {"tool": tool, "params": params})
        if found["ok"] and not found["problems"]:
            return turns
        fix = next((p["fix"] for p in found["problems"] if p["fix"]), None)
        assert fix is not None, f"stuck: {found['summary']} {found['problems']}"
        await call(mcp, fix["tool"], fix["arguments"])
    raise AssertionError(f"not repaired by {most} fixes")


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_scripted_policy_repairs_a_planted_fault_by_its_fix_alone(tmp_path: Path, fault: str) -> None:
    name, patch, of_integration = FAULTS[fault]
    async with listening(UPSTREAM) as base, gateway(tmp_path) as world:
        body = clinic(base)
        next(e for e in body["endpoints"] if e["name"] == name).update(patch)
        if of_integration:
            body["base_url"] = body["base_url"].replace("http:", "https:")
        await world.create(body)
        async with management(world) as mcp:
            assert await repaired_in(mcp, f"clinic_{name}", PARAMS.get(name, {})) == 1


async def test_the_integrations_address_is_taken_from_an_endpoint_that_has_the_right_one(tmp_path: Path) -> None:
    async with listening(UPSTREAM) as base, gateway(tmp_path) as world:
        body = clinic(base)
        body["endpoints"][4]["base_url"] = body["base_url"]
        body["base_url"] = "http://127.0.0.1:1/v1"
        await world.create(body)
        async with management(world) as mcp:
            assert await repaired_in(mcp, "clinic_get_patient", {"id": "7"}) == 1


@pytest.mark.parametrize(
    ("step", "location", "method", "code", "fix"),
    [
        (
            answer(400, b"The plain HTTP request was sent to HTTPS port"),
            "",
            "GET",
            "base_url_scheme",
            {"base_url": "https://{}"},
        ),
        (None, "https://{}/x", "POST", "base_url_scheme", {"base_url": "https://{}"}),
        (None, "https://elsewhere.example/x", "POST", "redirect_refused", None),
        (answer(405, b"", {"Allow": "HEAD, PUT, DELETE"}), "", "POST", "method_not_allowed", None),
        (answer(400, b"unknown field 'zzz'"), "", "POST", "upstream_400", None),
        (answer(400, b"header X-Trace-Token is missing"), "", "GET", "missing_header", None),
        (silence, "", "GET", "deadline", {"patch": {"timeout_seconds": None}}),
    ],
)
async def test_signs_of_the_server_lead_to_a_fix_or_to_a_person(
    tmp_path: Path, step: Any, location: str, method: str, code: str, fix: dict[str, Any] | None
) -> None:
    async with Hostile() as server, gateway(tmp_path) as world:
        host = server.url.removeprefix("http://")
        server.script("/x", redirect(308, location.format(host)) if location else step)
        body = clinic(server.url)
        body["base_url"] = server.url
        body["endpoints"] = [{"name": "do", "description": "Does.", "method": method, "path": "/x"}]
        if code == "deadline":
            body["endpoints"][0]["timeout_seconds"] = 0.1
        await world.create(body)
        found = (
            await world.app.toolbox.call(world.owner, "test_integration_endpoint", {"tool": "clinic_do"})
        ).structured
    assert found is not None
    problem = found["problems"][0]
    assert problem["code"] == code
    if fix is None:
        assert problem["fix"] is None
        assert problem["ask_human"]
    else:
        arguments = {k: v.format(host) if isinstance(v, str) else v for k, v in fix.items()}
        assert arguments.items() <= problem["fix"]["arguments"].items()


async def test_the_integration_without_a_fault_has_no_problems(tmp_path: Path) -> None:
    async with listening(UPSTREAM) as base, gateway(tmp_path) as world:
        body = clinic(base)
        await world.create(body)
        async with management(world) as mcp:
            for endpoint in body["endpoints"]:
                tool = f"clinic_{endpoint['name']}"
                assert await repaired_in(mcp, tool, PARAMS.get(endpoint["name"], {})) == 0


async def test_faults_one_behind_the_other_are_repaired_in_turn(tmp_path: Path) -> None:
    async with listening(UPSTREAM) as base, gateway(tmp_path) as world:
        body = clinic(base)
        body["endpoints"][0] |= {
            "path": "/pateints/{id}",
            "response_mapping": {"born": "birthdate"},
            "result_template": "{{ brn }}",
        }
        await world.create(body)
        async with management(world) as mcp:
            assert await repaired_in(mcp, "clinic_get_patient", {"id": "7"}, most=4) == 3
            result = await mcp.call_tool("clinic_get_patient", {"id": "7"})
            assert result.content[0].text == "1942-07-13"  # pyright: ignore


@pytest.mark.parametrize(
    ("status", "auth", "code"),
    [(401, False, "no_auth"), (401, True, "credential_rejected"), (500, True, "upstream_500")],
)
async def test_what_only_a_person_can_mend_names_the_person_and_offers_no_call(
    tmp_path: Path, status: int, auth: bool, code: str
) -> None:
    async def no(request: Request) -> JSONResponse:
        return JSONResponse({"message": "no"}, status)

    async with listening(Starlette(routes=[Route("/v1/patients", no)])) as base, gateway(tmp_path) as world:
        body = clinic(base)
        if auth:
            body["auth"] = {"type": "bearer_token", "bearer_token_value": {"value": "canary-0123456789"}}
        await world.create(body)
        arguments = {"tool": "clinic_search_patients", "params": {"family": "x"}}
        found = (await world.app.toolbox.call(world.owner, "test_integration_endpoint", arguments)).structured
    assert found is not None
    problem = found["problems"][0]
    assert problem["code"] == code
    assert problem["fix"] is None
    assert problem["ask_human"]
    assert "canary" not in json.dumps(found)


async def test_a_fix_is_sure_only_where_it_was_tried_on_the_answer(tmp_path: Path) -> None:
    async with listening(UPSTREAM) as base, gateway(tmp_path) as world:
        body = clinic(base)
        # Mending the name that fails first leaves another that can't be mended: the fix alone is not enough.
        body["endpoints"][0]["result_template"] = "{{ birthdat }} {{ zzzzzz }}"
        await world.create(body)
        arguments = {"tool": "clinic_get_patient", "params": {"id": "7"}}
        found = (await world.app.toolbox.call(world.owner, "test_integration_endpoint", arguments)).structured
    assert found is not None
    assert found["problems"][0]["at"] == "/endpoints/0/result_template"
    assert found["problems"][0]["fix"]["arguments"]["patch"] == {"result_template": "{{ birthDate }} {{ zzzzzz }}"}
    assert found["problems"][0]["sure"] is False


async def test_an_id_that_is_not_there_is_no_fault_of_the_path(tmp_path: Path) -> None:
    async with listening(UPSTREAM) as base, gateway(tmp_path) as world:
        await world.create(clinic(base))
        arguments = {"tool": "clinic_get_patient", "params": {"id": "998"}}
        found = (await world.app.toolbox.call(world.owner, "test_integration_endpoint", arguments)).structured
    assert found is not None
    assert [p["fix"] for p in found["problems"]] == [None]


async def test_a_field_that_this_record_just_does_not_have_is_not_mended_to_another(tmp_path: Path) -> None:
    async with listening(UPSTREAM) as base, gateway(tmp_path) as world:
        body = clinic(base)
        body["endpoints"][0]["response_mapping"] = {"id": "id", "died": "deceasedDate", "nick": "nickname"}
        await world.create(body)
        arguments = {"tool": "clinic_get_patient", "params": {"id": "7"}}
        found = (await world.app.toolbox.call(world.owner, "test_integration_endpoint", arguments)).structured
    assert found is not None
    assert found["ok"] is True
    assert [(p["at"], p["fix"]) for p in found["problems"]] == [
        ("/endpoints/0/response_mapping/died", None),
        ("/endpoints/0/response_mapping/nick", None),
    ]


@pytest.mark.parametrize(
    ("value", "template"),
    [
        ({"name}}{{ 1 ": 1}, "{{ nam }}"),
        ({"na\\me": 1}, "{{ name }}"),
        ([[[{"a": 1}]]], "{{ nam }}"),
        ("text", "{{ nam }}"),
        (None, "{{ nam }}"),
    ],
)
async def test_names_of_an_answer_cannot_write_into_a_template(tmp_path: Path, value: Any, template: str) -> None:
    async with gateway(tmp_path) as world:
        await world.create(clinic("https://clinic.example"))
        arguments = {"tool": "clinic_get_patient", "sample": value, "patch": {"result_template": template}}
        found = (await world.app.toolbox.call(world.owner, "preview_result", arguments)).structured
    assert found is not None
    assert found["ok"] is False
    assert [p["fix"] for p in found["problems"]] == [None]


async def test_a_large_answer_is_looked_at_only_where_it_failed(tmp_path: Path) -> None:
    rows = [{"id": i, "name": "x"} for i in range(60_000)]
    async with gateway(tmp_path) as world:
        await world.create(clinic("https://clinic.example"))
        arguments = {"tool": "clinic_get_patient", "sample": rows, "patch": {"response_filter": ["ids"]}}
        found = (await world.app.toolbox.call(world.owner, "preview_result", arguments)).structured
        assert found is not None
        assert found["problems"] == []
        patch = {"result_template": "{{ nam }}"}
        found = (await world.app.toolbox.call(world.owner, "preview_result", {**arguments, "patch": patch})).structured
        assert found is not None
        assert [p["code"] for p in found["problems"]] == ["shaping_failed"]
