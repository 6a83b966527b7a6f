"""Imports as an operation: preview, choice, writing, following a document again, secrets, URLs, permissions, the shell."""

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.processes import run
from tests.world import World, gateway, http, listening, served
from tools.errors import InvalidRequest
from tools.importers.frame import Source
from tools.importers.importing import Importer, in_a_process
from tools.importers.marking import MARK
from tools.importers.reading import read_source
from tools.importers.requests import ImportAnswer, ImportRequest
from tools.models import Integration
from tools.parsing import parse, parse_update

pytestmark = pytest.mark.anyio
KEY = "canary-0123456789"
PETS: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "Pet shop API", "version": "1"},
    "servers": [{"url": "http://127.0.0.1:9"}],
    "components": {"securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-Key"}}},
    "paths": {
        "/pets": {
            "get": {
                "operationId": "listPets",
                "summary": "Lists pets.",
                "parameters": [{"name": "limit", "in": "query", "schema": {"type": "integer"}}],
            }
        },
        "/pets/{id}": {
            "get": {
                "operationId": "getPet",
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {}}],
            },
            "delete": {"operationId": "deletePet"},
        },
        "/photos": {"post": {"operationId": "upload", "requestBody": {"content": {"multipart/form-data": {}}}}},
    },
}


def changed(**operations: Any) -> dict[str, Any]:
    """PETS with other operations at `get_pets` and so on; None takes one away."""
    paths = {path: dict(item) for path, item in PETS["paths"].items()}
    for name, operation in operations.items():
        method, _, path = name.partition("_")
        if operation is None:
            del paths["/" + path][method]
        else:
            paths.setdefault("/" + path, {})[method] = operation
    return {**PETS, "paths": paths}


async def bring(world: World, document: Any = PETS, **more: Any) -> ImportAnswer:
    """An import that is read in this process: that a process of its own reads the same is a test for itself."""

    async def read(data: bytes, where: str) -> Source:
        return read_source(data, where)

    body: dict[str, Any] = {"name": "pets", "document": document, "apply": True, **more}
    importer = Importer(world.app.admin, 48, world.app.importer.connecting, read)
    return await importer.run(world.owner, parse(ImportRequest, body))


async def stored(world: World) -> Integration:
    return await world.app.admin.get(world.owner, "pets")


async def edit(world: World, name: str, **fields: Any) -> None:
    """As an operator edits one endpoint: with the whole list."""
    now = await stored(world)
    endpoints = [{**e.model_dump(mode="json"), **(fields if e.name == name else {})} for e in now.endpoints]
    await world.app.admin.update(world.owner, "pets", parse_update({"endpoints": endpoints}, "pets"))


def rows(answer: ImportAnswer) -> dict[str, str]:
    return {row.name: row.change for row in answer.endpoints}


async def test_a_preview_says_what_would_be_made_and_writes_nothing(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        shown = await bring(world, apply=False)
        assert (shown.change, shown.applied, shown.problems) == ("create", False, ())
        assert rows(shown) == {"list_pets": "add", "get_pet": "add", "delete_pet": "add"}
        assert [row.operation for row in shown.left_out] == ["POST /photos"]
        assert shown.tokens == sum(row.tokens for row in shown.endpoints) > 0
        assert (await world.app.admin.list(world.owner)).total == 0


async def test_what_is_chosen_is_created_disabled_unless_asked_otherwise(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        await bring(world, methods=["GET"])
        made = await stored(world)
        assert ([e.name for e in made.endpoints], made.enabled) == (["list_pets", "get_pet"], False)
        other = await bring(world, name="open", enabled=True)
        assert other.enabled
        assert {t["name"] for t in await names(world)} >= {"open_list_pets"}


async def names(world: World) -> list[dict[str, str]]:
    catalog = await world.app.catalogs.get("acme")
    return [{"name": name} for name in catalog.tools]


async def test_an_imported_tool_calls_the_api_with_the_secret_that_was_given(tmp_path: Path) -> None:
    seen: list[tuple[str, str | None]] = []

    async def pet(request: Request) -> Response:
        seen.append((str(request.url.path), request.headers.get("x-key")))
        return JSONResponse({"name": "Rex"})

    async with gateway(tmp_path) as world, listening(Starlette(routes=[Route("/v1/pets/{id}", pet)])) as url:
        answer = await bring(world, base_url=f"{url}/v1", enabled=True, secret={"value": KEY})
        assert "Rex" in await world.call("pets_get_pet", id="p 1")
        assert seen == [("/v1/pets/p 1", KEY)]
        assert KEY not in answer.model_dump_json()


async def test_a_document_that_did_not_change_changes_nothing(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        await bring(world)
        version = (await stored(world)).version
        again = await bring(world)
        assert (again.change, set(rows(again).values())) == ("none", {"same"})
        assert (await stored(world)).version == version


async def test_what_was_not_edited_follows_the_document_and_what_was_edited_stays(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        await bring(world)
        await edit(world, "list_pets", description="Mine.", response_filter=["name"])
        new = changed(get_pets={"operationId": "allPets", "summary": "Lists every pet."})
        answer = await bring(world, new)
        row = next(r for r in answer.endpoints if r.name == "list_pets")
        assert (row.changed, row.kept, row.conflicts) == (("input_schema",), ("description",), ("description",))
        endpoint = (await stored(world)).endpoints[0]
        assert (endpoint.name, endpoint.description, endpoint.response_filter) == ("list_pets", "Mine.", ("name",))
        assert endpoint.input_schema["properties"] == {}
        settled = await bring(world, new)
        assert next(r for r in settled.endpoints if r.name == "list_pets").conflicts == ()


async def test_a_deleted_endpoint_stays_deleted_until_it_is_asked_for(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        await bring(world)
        kept = [e.model_dump(mode="json") for e in (await stored(world)).endpoints if e.name != "delete_pet"]
        await world.app.admin.update(world.owner, "pets", parse_update({"endpoints": kept}, "pets"))
        assert rows(await bring(world))["delete_pet"] == "offered"
        assert len((await stored(world)).endpoints) == 2
        assert rows(await bring(world, operations=["deletePet"]))["delete_pet"] == "add"
        assert len((await stored(world)).endpoints) == 3


async def test_an_operation_that_is_gone_is_told_and_removed_only_when_asked(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        await bring(world)
        without = changed(get_pets=None)
        assert rows(await bring(world, without))["list_pets"] == "gone"
        assert len((await stored(world)).endpoints) == 3
        assert rows(await bring(world, without, prune=True))["list_pets"] == "remove"
        assert [e.name for e in (await stored(world)).endpoints] == ["get_pet", "delete_pet"]


async def test_an_endpoint_that_a_person_wrote_is_never_touched(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        own = {"name": "mine", "description": "Mine.", "method": "GET", "path": "/pets"}
        await world.create({"name": "pets", "display_name": "P", "base_url": "http://127.0.0.1:9", "endpoints": [own]})
        answer = await bring(world, names=["*"])
        assert rows(answer)["mine"] == "own"
        mine = (await stored(world)).endpoints[0]
        assert (mine.name, mine.description, MARK in mine.input_schema) == ("mine", "Mine.", False)


async def test_hosts_never_see_the_mark(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        await bring(world, enabled=True)
        assert MARK in (await stored(world)).endpoints[0].input_schema
        catalog = await world.app.catalogs.get("acme")
        assert MARK not in json.dumps([t.published.schema for t in catalog.tools.values()])


async def test_a_document_is_fetched_through_the_guard(tmp_path: Path) -> None:
    async def document(request: Request) -> Response:
        return JSONResponse({**PETS, "servers": [{"url": "/api"}]})

    async with gateway(tmp_path) as world, listening(Starlette(routes=[Route("/openapi.json", document)])) as url:
        answer = await bring(world, None, url=f"{url}/openapi.json")
        assert answer.base_url == f"{url}/api"
        with pytest.raises(InvalidRequest, match="404"):
            await bring(world, None, url=f"{url}/none.json")
        with pytest.raises(InvalidRequest, match="this address isn't allowed here"):
            await bring(world, None, url="http://169.254.169.254/openapi.json")


async def test_a_line_becomes_an_endpoint_of_an_integration_that_is_there(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        await bring(world)
        line = f"curl -H 'X-Key: {KEY}' http://127.0.0.1:9/orders/17"
        answer = await bring(world, None, curl=line)
        assert [e.path for e in (await stored(world)).endpoints][-1] == "/orders/{order_id}"
        assert KEY not in answer.model_dump_json()
        made = await bring(world, None, curl=line, name="orders")
        secret = (await world.app.admin.get(world.owner, "orders")).auth
        assert secret is not None
        assert secret.ssm_param_path is not None
        assert (await world.app.secrets.read(secret.ssm_param_path)).value == KEY
        assert KEY not in made.model_dump_json()


@pytest.mark.parametrize("body", [{}, {"curl": "curl https://x.io", "url": "https://x.io"}, {"document": "nothing"}])
async def test_no_source_or_two_or_a_faulty_one_is_refused(tmp_path: Path, body: dict[str, Any]) -> None:
    async with gateway(tmp_path) as world:
        with pytest.raises(InvalidRequest):
            await world.app.importer.run(world.owner, parse(ImportRequest, body))


async def test_a_process_reads_as_this_one_does() -> None:
    data = json.dumps(PETS).encode()
    assert await in_a_process(data, "") == read_source(data, "")


async def test_the_rest_operation_needs_the_permission_and_answers_as_the_importer(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world, served(world) as url:
        async with http(url, await world.key("viewer")) as viewer:
            assert (await viewer.post("/v1/acme/imports", json={"document": PETS})).status_code == 403
        async with http(url, await world.key("member")) as member:
            answer = await member.post("/v1/acme/imports", json={"document": PETS, "apply": True})
            assert (answer.status_code, answer.json()["integration"]) == (200, "pet_shop")
            assert (await member.get("/v1/acme/integrations/pet_shop")).json()["enabled"] is False
            faulty = await member.post("/v1/acme/imports", json={"document": "{"})
            assert faulty.status_code == 422


def test_the_shell_previews_then_writes_and_reads_files_beside_the_document(tmp_path: Path) -> None:
    pet = {"get": {"operationId": "getPet", "parameters": [{"$ref": "#/id"}]}}
    id_of = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    outside = {"get": {"operationId": "steal", "parameters": [{"$ref": "../secret.json#/a"}]}}
    (tmp_path / "secret.json").write_text(json.dumps({"a": {"name": KEY, "in": "query"}}))
    folder = tmp_path / "api"
    (folder / "paths").mkdir(parents=True)
    (folder / "paths" / "pet.json").write_text(json.dumps({"pet": pet, "id": id_of}))
    paths = {"/pets/{id}": {"$ref": "paths/pet.json#/pet"}, "/out": outside}
    servers = [{"url": "https://api.shop.example"}]
    (folder / "api.json").write_text(json.dumps({**PETS, "paths": paths, "servers": servers}))
    shown = run(tmp_path, "import", "openapi", "api/api.json", "--json")
    assert shown.returncode == 0, shown.stderr
    answer = json.loads(shown.stdout)
    assert [e["name"] for e in answer["endpoints"]] == ["get_pet"]
    assert "leaves the document" in answer["left_out"][0]["why"]
    assert KEY not in shown.stdout
    assert json.loads(run(tmp_path, "integrations", "list", "--json").stdout)["total"] == 0
    done = run(tmp_path, "import", "openapi", "api/api.json", "--yes")
    assert "created pet_shop (disabled): 1 add" in done.stdout
    assert json.loads(run(tmp_path, "integrations", "list", "--json").stdout)["total"] == 1
