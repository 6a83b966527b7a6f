"""A FHIR base URL and an MCP server become tools: looked at with the credential that was given, chosen, written, followed again."""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from tests.fhir_servers.small import bundle, fhir, patient, statement
from tests.mcp_upstreams import lowlevel
from tests.processes import run
from tests.test_mcp_upstream import upstream
from tests.upstreams import Hostile, Received, answer
from tests.world import World, gateway, http, served
from tools.errors import InvalidRequest
from tools.importers.frame import Source
from tools.importers.importing import Importer
from tools.importers.reading import read_source
from tools.importers.requests import ImportAnswer, ImportRequest
from tools.models import Integration
from tools.parsing import parse, parse_update

pytestmark = pytest.mark.anyio
TOKEN = "canary-0123456789"
SMALL = str(Path(lowlevel.__file__).with_name("small.py"))


@pytest.fixture
async def url() -> AsyncGenerator[str, None]:
    async with upstream() as made:
        yield made


@pytest.fixture
async def world(tmp_path: Path, url: str) -> AsyncGenerator[World, None]:
    """Closed before the upstream is, so that nothing of the SDK's server is cut off."""
    async with gateway(tmp_path, stdio_allow=(f"{sys.executable} {SMALL} *",)) as made:
        yield made


async def bring(world: World, **body: Any) -> ImportAnswer:
    async def read(data: bytes, where: str) -> Source:
        return read_source(data, where)

    importer = Importer(world.app.admin, 48, world.app.importer.connecting, read)
    return await importer.run(world.owner, parse(ImportRequest, body))


async def stored(world: World, name: str) -> Integration:
    return await world.app.admin.get(world.owner, name)


def rows(answer: ImportAnswer) -> dict[str, str]:
    return {row.name: row.change for row in answer.endpoints}


async def edit(world: World, name: str, endpoint: str, **fields: Any) -> None:
    endpoints = [e.model_dump(mode="json") for e in (await stored(world, name)).endpoints]
    endpoints = [{**e, **(fields if e["name"] == endpoint else {})} for e in endpoints]
    await world.app.admin.update(world.owner, name, parse_update({"endpoints": endpoints}, name))


# ------------------------------------------------------------------ FHIR


async def test_a_fhir_base_url_becomes_tools_that_find_records(world: World) -> None:
    more = {"type": "Basic", "interaction": [{"code": "read"}, {"code": "create"}]}
    async with Hostile() as server:
        server.script("/fhir/metadata", fhir(200, statement("", more)))
        server.script("/fhir/Patient/_search", fhir(200, bundle(patient("1"))))
        shown = await bring(world, fhir=f"{server.url}/fhir/")
        assert (shown.integration, shown.applied, rows(shown)) == (
            "small",
            False,
            {"search_patient": "add", "read_patient": "add"},
        )
        assert "4 more operations are outside of the default choice: Basic (2), Patient (2)" in shown.warnings
        chosen = await bring(world, fhir=f"{server.url}/fhir", operations=["search_*", "create_*"], tags=["!Basic"])
        assert rows(chosen) == {"search_patient": "add", "create_patient": "add"}
        await bring(world, fhir=f"{server.url}/fhir", name="ehr", enabled=True, apply=True)
        assert '"id":"1"' in await world.call("ehr_search_patient", name="Ann")
        await edit(world, "ehr", "read_patient", description="Mine.")
        again = await bring(world, fhir=f"{server.url}/fhir/metadata", name="ehr", tags=["*"], apply=True)
        assert rows(again) == {
            "search_patient": "same",
            "read_patient": "same",
            **dict.fromkeys(("create_patient", "update_patient", "read_basic", "create_basic"), "add"),
        }
        assert (await stored(world, "ehr")).endpoints[1].description == "Mine."


async def test_a_token_is_used_from_memory_where_the_statement_needs_one_and_kept_only_when_written(
    world: World,
) -> None:
    async def protected(request: Received, writer: asyncio.StreamWriter) -> bool:
        allowed = request.header("authorization") == f"Bearer {TOKEN}"
        return await (fhir(200, statement()) if allowed else fhir(401, {}))(request, writer)

    async with Hostile() as server:
        server.script("/fhir/metadata", protected)
        with pytest.raises(InvalidRequest, match="answered 401; give auth"):
            await bring(world, fhir=f"{server.url}/fhir")
        shown = await bring(world, fhir=f"{server.url}/fhir", name="ehr", secret={"value": TOKEN})
        assert shown.auth is not None
        assert await world.app.secrets.paths("/gw") == []
        assert TOKEN not in shown.model_dump_json()
        await bring(world, fhir=f"{server.url}/fhir", name="ehr", secret={"value": TOKEN}, apply=True)
        auth = (await stored(world, "ehr")).auth
        assert auth is not None
        assert (await world.app.secrets.read(auth.token_ssm_param_path or "")).value == TOKEN
        before = len(server.received)
        assert set(rows(await bring(world, fhir=f"{server.url}/fhir", name="ehr")).values()) == {"same"}
        assert len(server.received) == before + 2  # without the token first


async def test_what_is_stored_is_never_asked_elsewhere(world: World) -> None:
    async with Hostile() as server, Hostile() as other:
        server.script("/fhir/metadata", fhir(200, statement()))
        await bring(world, fhir=f"{server.url}/fhir", name="ehr", secret={"value": TOKEN}, apply=True)
        with pytest.raises(InvalidRequest, match="give another name"):
            await bring(world, fhir=f"{other.url}/fhir", name="ehr")
        with pytest.raises(InvalidRequest, match="change its auth by an update"):
            await bring(world, fhir=f"{server.url}/fhir", name="ehr", secret={"value": "x"})
        assert other.received == []


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (fhir(200, {"resourceType": "Bundle"}), "is no CapabilityStatement"),
        (answer(200, b"<html>", {"Content-Type": "text/html"}), "is no CapabilityStatement"),
        (fhir(404), "answered 404"),
    ],
)
async def test_what_is_no_fhir_server_is_refused_in_words(world: World, step: Any, said: str) -> None:
    async with Hostile() as server:
        server.script("/metadata", step)
        with pytest.raises(InvalidRequest, match=said):
            await bring(world, fhir=server.url)
    with pytest.raises(InvalidRequest, match="never reachable"):
        await bring(world, fhir="http://169.254.169.254/fhir")


# ------------------------------------------------------------------ MCP


@pytest.mark.parametrize("path", ["/mcp", "/sse"])
async def test_an_mcp_url_becomes_chosen_and_renamed_tools_whose_texts_stay_the_servers(
    world: World, url: str, path: str
) -> None:
    await bring(world, mcp_url=url + path, name="up", operations=["*_write", "add"], enabled=True, apply=True)
    made = await stored(world, "up")
    assert made.mcp_transport == {"/mcp": "http", "/sse": "sse"}[path]
    assert [(e.name, e.path, e.description) for e in made.endpoints] == [
        ("add", "add", ""),
        ("slow_write", "slow_write", ""),
    ]
    page, _ = await world.app.toolbox.page(world.owner, None)
    entries = {e["name"]: e for e in page if e["name"].startswith("up_")}
    assert set(entries) == {"up_add", "up_slow_write"}
    assert entries["up_add"]["inputSchema"]["required"] == ["a", "b"]
    assert entries["up_add"]["description"].startswith("Does add.")
    assert '{"sum":3}' in await world.call("up_add", a=1, b=2)
    await edit(world, "up", "add", description="Adds.")
    lowlevel.extra.append("getNew")
    again = await bring(world, mcp_url=url + path, name="up", operations=["getNew"], apply=True)
    assert (rows(again)["add"], rows(again)["get_new"]) == ("same", "add")
    assert [e.description for e in (await stored(world, "up")).endpoints] == ["Adds.", "", ""]
    assert await world.call("up_get_new") == "getNew called"
    lowlevel.extra.clear()
    gone = await bring(world, mcp_url=url + path, name="up", prune=True, apply=True)
    assert rows(gone)["get_new"] == "remove"


async def test_tools_that_no_host_could_take_are_left_out_with_the_reason_and_hints_choose(world: World) -> None:
    program = {"mcp_command": sys.executable, "mcp_args": [SMALL, "bad-tools"]}
    shown = await bring(world, **program, tags=["destructive"])
    assert (shown.integration, rows(shown), len(shown.left_out)) == ("small", {"echo": "add"}, 5)
    assert any("titled" in row.operation for row in shown.left_out)
    assert rows(await bring(world, **program, tags=["read-only"])) == {}


async def test_a_program_that_is_not_on_the_operators_list_is_refused_before_it_runs(
    world: World, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    program = {"mcp_command": sys.executable, "mcp_args": ["-c", f"open({str(ran)!r}, 'w')"]}
    async with served(world) as url, http(url, await world.key("member")) as client:
        refused = await client.post("/v1/acme/imports", json=program)
    assert (refused.status_code, refused.json()["error_code"]) == (403, "command_not_allowed")
    assert "INTEGRATIONS_MCP_STDIO_ALLOW=" in refused.json()["detail"]
    assert not ran.exists()


async def test_an_mcp_server_is_listed_with_the_token_that_was_given_and_echoes_of_it_are_masked(
    world: World, url: str
) -> None:
    lowlevel.extra.append(f"say-{TOKEN}")
    shown = await bring(world, mcp_url=f"{url}/mcp", secret={"value": TOKEN})
    assert shown.endpoints
    assert TOKEN not in shown.model_dump_json()
    async with Hostile() as server:
        server.script("/mcp", *[answer(401, b"")] * 9)
        with pytest.raises(InvalidRequest, match="give auth"):
            await bring(world, mcp_url=f"{server.url}/mcp")


# ------------------------------------------------------------------ doors


async def test_an_agent_that_manages_imports_by_tool_and_never_with_secrets(world: World) -> None:
    async def ask(**arguments: Any) -> Any:
        return await world.app.toolbox.call(world.owner, "import_integration", arguments)

    program = {"mcp_command": sys.executable, "mcp_args": [SMALL, "plain"], "name": "up"}
    shown = await ask(**program)
    assert shown.structured["written"] is False
    assert shown.structured["endpoints"][0]["tool"] == "up_echo"
    done = await ask(**program, apply=True, enabled=True)
    assert done.structured["summary"] == "Done. up: 1 add."
    assert await world.call("up_echo", text="hi") == "hi"
    for secret in (
        {"curl": f"curl -H 'Authorization: Bearer {TOKEN}' https://shop.example/a"},
        {"mcp_url": "https://x.example/mcp", "auth": {"type": "bearer_token", "bearer_token_value": {"value": TOKEN}}},
    ):
        refused = await ask(**secret)
        assert refused.is_error
        assert "Give secrets by path" in refused.text
        assert TOKEN not in refused.text


def test_the_shell_imports_an_mcp_program(tmp_path: Path) -> None:
    words = ("import", "mcp", sys.executable, SMALL, "plain", "--name", "up")
    allow = {"INTEGRATIONS_MCP_STDIO_ALLOW": json.dumps([f"{sys.executable} {SMALL} plain"])}
    done = run(tmp_path, *words, "--tool", "e*", "--enabled", "--yes", env=allow)
    assert "created up: 1 add" in done.stdout, done.stderr
