"""The management operations as MCP tools: what they show, what they answer, and how they say no."""

import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.world import World, gateway, listening
from tools.call import CallContext
from tools.callers import ROLE_PERMISSIONS, Caller, local_caller
from tools.host_rules import check_published
from tools.outcome import Outcome

pytestmark = pytest.mark.anyio

READ = {
    "read_audit",
    "read_calls",
    "get_integration",
    "integration_health_check",
    "list_integrations",
    "preview_result",
    "test_connection",
    "test_integration_endpoint",
}
WRITE = {
    "import_integration",
    "create_endpoint",
    "create_integration",
    "delete_endpoint",
    "delete_integration",
    "update_endpoint",
    "update_integration",
}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World, None]:
    async with gateway(tmp_path) as world:
        yield world


def shop(base: str = "https://shop.example", **more: Any) -> dict[str, Any]:
    return {
        "name": "shop",
        "display_name": "Shop",
        "base_url": base,
        "endpoints": [
            {"name": "get_item", "description": "Gets one item by its id.", "method": "GET", "path": "/items/{id}"},
            {"name": "list_items", "description": "Lists all items there are.", "method": "GET", "path": "/items"},
        ],
        **more,
    }


async def done(world: World, tool: str, /, **arguments: Any) -> dict[str, Any]:
    outcome = await world.app.toolbox.call(world.owner, tool, arguments)
    assert not outcome.is_error, outcome.text
    assert outcome.structured is not None
    return outcome.structured


async def refused(world: World, tool: str, /, caller: Caller | None = None, **arguments: Any) -> Outcome:
    outcome = await world.app.toolbox.call(caller or world.owner, tool, arguments)
    assert outcome.is_error, outcome.text
    assert outcome.text == outcome.blocks[0].text
    assert len(outcome.blocks) == 1
    return outcome


def names(world: World, entries: list[dict[str, Any]]) -> set[str]:
    return {e["name"] for e in entries}


# ------------------------------------------------------------------ what is listed


@pytest.mark.parametrize(
    ("caller", "seen"),
    [
        (local_caller("acme"), READ | WRITE),
        (local_caller("acme", read_only=True), READ),
        (local_caller("acme", admin=False), set[str]()),
        (Caller("k", "acme", permissions=ROLE_PERMISSIONS["viewer"]), READ),
        (Caller("k", "acme", permissions=ROLE_PERMISSIONS["agent"]), set[str]()),
        (Caller("k", "acme", permissions=ROLE_PERMISSIONS["member"]), (READ | WRITE) - {"delete_integration"}),
    ],
    ids=["owner", "read only", "no admin", "viewer", "agent", "member"],
)
async def test_management_tools_are_seen_by_those_who_may_use_them(
    world: World, caller: Caller, seen: set[str]
) -> None:
    entries, _ = await world.app.toolbox.page(caller, None)
    assert names(world, entries) == seen


@pytest.mark.parametrize("tool", sorted(READ | WRITE))
async def test_a_management_tool_that_is_not_seen_cannot_be_called_either(world: World, tool: str) -> None:
    agent = Caller("k", "acme", permissions=ROLE_PERMISSIONS["agent"])
    outcome = await refused(world, tool, agent, integration="shop")
    assert "there is no tool" in outcome.text
    assert outcome.text.endswith("[unknown_tool]")


async def test_published_schemas_pass_our_own_rules_and_outputs_are_closed(world: World) -> None:
    entries, _ = await world.app.toolbox.page(world.owner, None)
    for entry in entries:
        assert check_published(entry["inputSchema"]) == [], entry["name"]
        assert set(entry["annotations"]) == {
            "title",
            "readOnlyHint",
            "destructiveHint",
            "idempotentHint",
            "openWorldHint",
        }
        output = entry["outputSchema"]
        assert output["additionalProperties"] is False
        text = json.dumps(output)
        assert "$ref" not in text
        assert '"format"' not in text
        assert '"type": [' not in text, "clients that know single types only refuse the list form"
        jsonschema.Draft202012Validator.check_schema(output)


# ------------------------------------------------------------------ writing


async def test_create_answers_with_tools_warnings_and_how_to_call_before_the_client_lists_again(world: World) -> None:
    body = shop()
    body["endpoints"][0]["description"] = ""
    found = await done(world, "create_integration", **body)
    assert found["tools"] == {"made": ["shop_get_item", "shop_list_items"], "renamed": [], "removed": []}
    assert {"rule": "description_missing", "where": "shop_get_item"}.items() <= found["warnings"][0].items()
    assert found["call"] == {"tool": "call_tool", "arguments": {"tool": "shop_get_item", "arguments": {"id": "..."}}}
    assert "Your client may not show new tools until it reconnects; until then: call_tool" in found["next"]
    assert (await done(world, "get_integration", integration="shop"))["version"] == found["version"]


@pytest.mark.parametrize("ref", ["shop", "id", "tool"])
async def test_one_endpoint_is_patched_by_name_id_or_tool(world: World, ref: str) -> None:
    integration = await world.create(shop())
    which: dict[str, Any] = {"integration": integration.id if ref == "id" else "shop", "endpoint": "get_item"}
    which = {"tool": "shop_get_item"} if ref == "tool" else which
    found = await done(world, "update_endpoint", **which, patch={"path": "/v2/items/{id}", "headers": {"X-A": "1"}})
    assert found["changes"] == [
        {"at": "/endpoints/0/path", "before": "/items/{id}", "after": "/v2/items/{id}"},
        {"at": "/endpoints/0/headers/X-A", "before": None, "after": "1"},
    ]
    stored = await world.app.admin.get(world.owner, "shop")
    assert stored.endpoints[0].path == "/v2/items/{id}"
    assert stored.endpoints[1] == integration.endpoints[1]


async def test_a_change_of_one_endpoint_warns_of_that_one_only(world: World) -> None:
    body = shop()
    body["endpoints"][1]["description"] = ""
    await world.create(body)
    found = await done(world, "update_endpoint", tool="shop_get_item", patch={"description": "One"})
    assert {r["where"] for r in found["warnings"]} == {"shop_get_item"}
    found = await done(world, "update_integration", integration="shop", display_name="Shop 2")
    assert {r["where"] for r in found["warnings"]} >= {"shop_get_item", "shop_list_items"}


async def test_null_in_a_patch_removes_and_what_is_left_out_stays(world: World) -> None:
    body = shop()
    body["endpoints"][0] |= {"result_template": "{{ name }}", "headers": {"X-A": "1", "X-B": "2"}}
    await world.create(body)
    await done(
        world, "update_endpoint", tool="shop_get_item", patch={"result_template": None, "headers": {"X-A": None}}
    )
    endpoint = (await world.app.admin.get(world.owner, "shop")).endpoints[0]
    assert endpoint.result_template is None
    assert endpoint.headers == {"X-B": "2"}


async def test_a_secret_header_survives_a_patch_of_something_else(world: World) -> None:
    body = shop()
    body["endpoints"][0]["headers"] = {"X-Api-Token": "canary-0123456789"}
    await world.create(body)
    found = await done(world, "update_endpoint", tool="shop_get_item", patch={"description": "Gets one item, by id."})
    assert "canary" not in json.dumps(found)
    assert (await world.app.admin.get(world.owner, "shop")).endpoints[0].headers == {"X-Api-Token": "canary-0123456789"}


async def test_renaming_an_endpoint_is_told_as_a_renamed_tool(world: World) -> None:
    await world.create(shop())
    found = await done(world, "update_endpoint", tool="shop_get_item", patch={"name": "read_item"})
    assert found["tools"] == {"made": [], "renamed": [{"from": "shop_get_item", "to": "shop_read_item"}], "removed": []}


async def test_an_endpoint_is_added_and_removed(world: World) -> None:
    await world.create(shop())
    new = {"name": "buy", "description": "Buys one item now.", "path": "/buy"}
    assert (await done(world, "create_endpoint", integration="shop", **new))["tools"]["made"] == ["shop_buy"]
    assert (await done(world, "delete_endpoint", tool="shop_buy"))["tools"]["removed"] == ["shop_buy"]
    assert [e.name for e in (await world.app.admin.get(world.owner, "shop")).endpoints] == ["get_item", "list_items"]


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("create_integration", {**shop(), "name": "other"}),
        ("update_integration", {"integration": "shop", "base_url": "https://new.example"}),
        ("update_endpoint", {"tool": "shop_get_item", "patch": {"path": "/new/{id}"}}),
        ("create_endpoint", {"integration": "shop", "name": "buy", "description": "Buys one item.", "path": "/buy"}),
    ],
)
async def test_validate_only_says_what_would_be_and_writes_nothing(
    world: World, tool: str, arguments: dict[str, Any]
) -> None:
    before = await world.create(shop())
    found = await done(world, tool, **arguments, validate_only=True)
    assert found["written"] is False
    assert found["summary"].startswith("Nothing was written")
    assert (await world.app.registry.load("acme"))[1] == (before,)


async def test_a_null_clears_a_nullable_field_and_a_read_only_field_is_ignored(world: World) -> None:
    await world.create(shop(auth={"type": "api_key_header", "api_key_value": {"value": "canary-0123456789"}}))
    whole = (await done(world, "get_integration", integration="shop"))["integration"]
    whole["display_name"], whole["auth"] = "Shop 2", None
    await done(world, "update_integration", integration="shop", **whole)
    stored = await world.app.admin.get(world.owner, "shop")
    assert (stored.display_name, stored.auth) == ("Shop 2", None)


async def test_arguments_that_came_as_text_are_read(world: World) -> None:
    await world.create(shop())
    await done(world, "update_endpoint", tool="shop_get_item", patch='{"path": "/v3/{id}", "timeout_seconds": null}')
    assert (await world.app.admin.get(world.owner, "shop")).endpoints[0].path == "/v3/{id}"


async def test_what_to_check_next_is_the_endpoint_written_and_never_a_write(world: World) -> None:
    body = shop()
    body["endpoints"].insert(0, {"name": "buy", "description": "Buys one item now.", "path": "/buy"})
    await world.create(body)
    found = await done(world, "update_endpoint", tool="shop_list_items", patch={"description": "Lists all the items."})
    assert found["next"] == 'Check it with test_integration_endpoint {"tool":"shop_list_items","params":{...}}'
    assert (await done(world, "update_endpoint", tool="shop_buy", patch={"body_format": "form"}))["next"] is None
    assert "shop_get_item" in (await done(world, "update_integration", integration="shop", display_name="X"))["next"]


# ------------------------------------------------------------------ refusals


async def test_every_fault_is_told_with_its_place_and_code(world: World) -> None:
    body = shop("ftp://shop.example")
    body["endpoints"][1] |= {"path": "/a?b=c", "metod": "GET"}
    body["endpoints"][0] |= {"result_template": "{{ a "}
    outcome = await refused(world, "create_integration", **body)
    assert outcome.text.startswith("Not done: ")
    assert "\n- endpoints[1].metod: unknown field; did you mean method?" in outcome.text
    del body["endpoints"][1]["metod"]
    outcome = await refused(world, "create_integration", **body)
    lines = outcome.text.split("\n")
    assert lines[0] == "Not done: 3 things must be changed first. Nothing was changed."
    assert {line.split(":")[0] for line in lines[1:4]} == {
        "- base_url",
        "- endpoints[0].result_template",
        "- endpoints[1].path",
    }
    assert lines[4] == "Correct them and call again. [invalid_request]"
    assert outcome.error is not None
    assert (outcome.error.full_code, outcome.error.fault, outcome.error.sent) == ("invalid_request", "arguments", "no")


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "says"),
    [
        ("get_integration", {"integration": "nope"}, "not_found", "no integration nope"),
        ("update_endpoint", {"tool": "shop_get_itm", "patch": {}}, "not_found", "did you mean shop_get_item?"),
        ("create_integration", shop(), "name_taken", "there is an integration named shop already"),
        (
            "update_integration",
            {"integration": "shop", "enabled": False, "if_match": 7},
            "version_mismatch",
            "its version is 1, not 7",
        ),
        (
            "update_endpoint",
            {"tool": "shop_get_item", "patch": {"path": "/a?b"}},
            "invalid_request",
            "- path: a path has no query",
        ),
        (
            "create_endpoint",
            {"integration": "shop", "name": "get_item", "description": "", "path": "/"},
            "invalid_request",
            "use update_endpoint",
        ),
        ("update_integration", {"integration": "shop", "base_uri": "x"}, "invalid_arguments", "did you mean base_url?"),
        (
            "test_integration_endpoint",
            {"integration": "shop"},
            "invalid_request",
            "give tool, or integration and endpoint",
        ),
        (
            "test_integration_endpoint",
            {"tool": "shop_get_item", "params": {"idd": "1"}},
            "invalid_request",
            "- params.id: required, but missing.",
        ),
        (
            "preview_result",
            {"tool": "shop_get_item", "result_id": "t_gone"},
            "not_found",
            "run test_integration_endpoint again",
        ),
    ],
)
async def test_a_refusal_keeps_its_own_code_and_says_what_to_do(
    world: World, tool: str, arguments: dict[str, Any], code: str, says: str
) -> None:
    await world.create(shop())
    outcome = await refused(world, tool, **arguments)
    assert outcome.text.startswith(("Not done: ", "Not sent: "))
    assert says in outcome.text
    assert outcome.text.endswith(f"[{code}]")
    assert outcome.error is not None
    assert outcome.error.full_code == code


async def test_secrets_are_not_taken_through_a_model(world: World) -> None:
    body = shop(auth={"type": "bearer_token", "bearer_token_value": {"value": "canary-0123456789"}})
    outcome = await refused(world, "create_integration", **body)
    assert (
        "Give secrets by path (/gw/acme/integrations/shop/token) or let a person run: integrations-mcp secrets set ..."
        in outcome.text
    )
    assert "canary" not in outcome.text
    await world.create(shop())
    outcome = await refused(world, "update_integration", integration="shop", auth=body["auth"])
    assert "Give secrets by path" in outcome.text


async def test_secrets_are_taken_where_the_operator_allows_it(tmp_path: Path) -> None:
    async with gateway(tmp_path, inline_secrets_over_mcp=True) as world:
        body = shop(auth={"type": "bearer_token", "bearer_token_value": {"value": "canary-0123456789"}})
        assert "canary" not in json.dumps(await done(world, "create_integration", **body))


async def test_a_key_narrowed_to_tools_reads_only_those_and_changes_nothing(world: World) -> None:
    integration = await world.create(shop())
    narrow = replace(world.owner, tools=frozenset({"shop_get_item"}))
    outcome = await world.app.toolbox.call(narrow, "get_integration", {"integration": "shop"})
    assert outcome.structured is not None
    assert [e["name"] for e in outcome.structured["integration"]["endpoints"]] == ["get_item"]
    outcome = await refused(world, "get_integration", narrow, integration="shop", endpoint="list_item")
    assert "list_items" not in outcome.text
    assert (await refused(world, "update_endpoint", narrow, tool="shop_get_item", patch={})).text.endswith(
        "[forbidden]"
    )
    assert (await refused(world, "test_integration_endpoint", narrow, tool="shop_list_items")).text.endswith(
        "[not_found]"
    )
    assert (await world.app.admin.get(world.owner, integration.id)).version == integration.version


# ------------------------------------------------------------------ asking first


@pytest.mark.parametrize(
    ("tool", "arguments", "question"),
    [
        ("delete_integration", {"integration": "shop"}, "Delete Shop (shop) with 2 tools and its secrets?"),
        ("delete_endpoint", {"tool": "shop_get_item"}, "Remove the endpoint get_item of Shop?"),
        (
            "update_integration",
            {"integration": "shop", "endpoints": shop()["endpoints"][:1]},
            "Remove 1 endpoint(s) of Shop: list_items?",
        ),
    ],
)
@pytest.mark.parametrize("answer", [True, False, None])
async def test_what_can_hurt_asks_first_where_the_client_can(
    world: World, tool: str, arguments: dict[str, Any], question: str, answer: bool | None
) -> None:
    before = await world.create(shop())
    asked: list[str] = []

    async def confirm(text: str, key: str = "confirm") -> bool | None:
        asked.append(text)
        return answer

    outcome = await world.app.toolbox.call(world.owner, tool, arguments, CallContext(confirm=confirm))
    assert asked == [question]
    after = (await world.app.registry.load("acme"))[1]
    if answer is False:
        assert outcome.text.endswith("[declined]")
        assert after == (before,)
    else:
        assert outcome.structured is not None
        assert after != (before,)
        assert ("The user was not asked first" in outcome.structured["summary"]) == (answer is None)


async def test_an_update_that_drops_no_endpoint_asks_nobody(world: World) -> None:
    await world.create(shop())

    async def confirm(text: str, key: str = "confirm") -> bool | None:
        raise AssertionError(text)

    arguments = {"integration": "shop", "endpoints": shop()["endpoints"], "enabled": False}
    assert not (
        await world.app.toolbox.call(world.owner, "update_integration", arguments, CallContext(confirm=confirm))
    ).is_error


# ------------------------------------------------------------------ testing and previews


async def test_a_test_shows_every_stage_with_its_shape_and_keeps_the_answer(world: World) -> None:
    async def item(request: Request) -> JSONResponse:
        return JSONResponse({"entry": [{"id": str(i), "tags": ["a"], "n": 1.5, "x": None} for i in range(30)]})

    async with listening(Starlette(routes=[Route("/items", item)])) as base:
        body = shop(base)
        body["endpoints"][1] |= {"response_filter": ["entry.id"], "result_key": "entry"}
        await world.create(body)
        found = await done(world, "test_integration_endpoint", tool="shop_list_items")
    assert found["ok"] is True
    assert found["problems"] == []
    stages = {s["name"]: s for s in found["stages"]}
    assert stages["raw_response"]["shape"] == '{"entry":[30 x {"id":"str","tags":[1 x "str"],"n":"num","x":null}]}'
    assert stages["after_filter"]["shape"] == '{"entry":[30 x {"id":"str"}]}'
    assert found["agent_sees"].startswith('[{"id":"0"}')
    assert found["request"]["method"] == "GET"
    assert [a["status"] for a in found["attempts"]] == [200]
    # The server is gone: shaping goes on with the answer that was kept.
    preview = await done(
        world,
        "preview_result",
        tool="shop_list_items",
        result_id=found["result_id"],
        patch={"result_template": "{{ result|length }} items"},
    )
    assert preview["agent_sees"] == "30 items"
    assert preview["next"] == "Write it with update_endpoint and the same patch."
    assert (await world.app.admin.get(world.owner, "shop")).endpoints[1].result_template is None
    read_on = await world.app.toolbox.call(world.owner, "get_result", {"result_id": found["result_id"]})
    assert not read_on.is_error


async def test_a_kept_answer_belongs_to_the_caller_that_tested(world: World) -> None:
    async def item(request: Request) -> JSONResponse:
        return JSONResponse({"a": 1})

    async with listening(Starlette(routes=[Route("/items", item)])) as base:
        await world.create(shop(base))
        found = await done(world, "test_integration_endpoint", tool="shop_list_items")
    other = replace(world.owner, id="other")
    outcome = await refused(world, "preview_result", other, tool="shop_list_items", result_id=found["result_id"])
    assert outcome.text.endswith("[not_found]")


async def test_a_sample_is_shaped_with_arguments_and_a_fault_names_its_repair(world: World) -> None:
    await world.create(shop())
    which = {"tool": "shop_get_item", "sample": {"name": "Lamp"}, "params": {"id": "7"}}
    good = await done(world, "preview_result", **which, patch={"result_template": "{{ args.id }}: {{ name }}"})
    assert good["agent_sees"] == "7: Lamp"
    bad = await done(world, "preview_result", **which, patch={"result_template": "{{ nam }}"})
    assert bad["ok"] is False
    assert bad["problems"][0]["fix"]["arguments"]["patch"] == {"result_template": "{{ name }}"}


async def test_history_is_read_newest_first_and_narrowed(world: World) -> None:
    async def item(request: Request) -> JSONResponse:
        return JSONResponse({"a": 1}, 200 if request.path_params["id"] == "1" else 404)

    async with listening(Starlette(routes=[Route("/items/{id}", item)])) as base:
        await world.create(shop(base))
        await done(world, "update_integration", integration="shop", display_name="Shop 2")
        await world.call("shop_get_item", id="1")
        await world.call("shop_get_item", id="2")
    calls = await done(world, "read_calls", integration="shop")
    assert [(r["tool"], r["error_code"]) for r in calls["calls"]] == [
        ("shop_get_item", "upstream_404"),
        ("shop_get_item", None),
    ]
    assert len((await done(world, "read_calls", failed=True))["calls"]) == 1
    audit = await done(world, "read_audit", integration="shop")
    assert [r["action"] for r in audit["changes"]] == ["integration.update", "integration.create"]
    assert {"at": "/display_name", "before": "Shop", "after": "Shop 2"} in audit["changes"][0]["changes"]
    narrow = replace(world.owner, tools=frozenset({"shop_list_items"}))
    outcome = await world.app.toolbox.call(narrow, "read_calls", {})
    assert outcome.structured is not None
    assert outcome.structured["calls"] == []


async def test_list_shows_rows_and_get_of_a_large_integration_shortens_its_endpoints(world: World) -> None:
    body = shop()
    body["endpoints"] = [
        {"name": f"get_{i:03}", "description": "Gets one thing. " * 20, "method": "GET", "path": f"/things/{i}"}
        for i in range(150)
    ]
    await world.create(body)
    listed = await done(world, "list_integrations")
    assert [(r["name"], r["endpoints"]) for r in listed["integrations"]] == [("shop", 150)]
    short = await done(world, "get_integration", integration="shop")
    assert short["integration"]["endpoints"][7] == {"name": "get_007", "request": "GET /things/7"}
    assert "read one with get_integration and its name as endpoint" in short["summary"]
    one = await done(world, "get_integration", integration="shop", endpoint="get_007")
    assert [e["path"] for e in one["integration"]["endpoints"]] == ["/things/7"]


@pytest.mark.parametrize("tool", sorted(READ | WRITE))
async def test_structured_content_fits_its_schema_and_the_text_is_the_same_json(world: World, tool: str) -> None:
    async def item(request: Request) -> JSONResponse:
        return JSONResponse({"a": 1})

    arguments: dict[str, dict[str, Any]] = {
        "create_endpoint": {"integration": "shop", "name": "buy", "description": "Buys one item.", "path": "/buy"},
        "create_integration": {**shop(), "name": "other"},
        "delete_endpoint": {"tool": "shop_get_item"},
        "delete_integration": {"integration": "shop"},
        "get_integration": {"integration": "shop", "fields": ["base_url"]},
        "import_integration": {"curl": "curl https://shop.example/orders/7", "name": "orders"},
        "preview_result": {"tool": "shop_get_item", "sample": {"a": 1}},
        "test_connection": {"integration": "shop"},
        "test_integration_endpoint": {"tool": "shop_get_item", "params": {"id": "1"}},
        "update_endpoint": {"tool": "shop_get_item", "patch": {"path": "/x/{id}"}},
        "update_integration": {"integration": "shop", "enabled": False},
    }
    async with listening(Starlette(routes=[Route("/items/{id}", item)])) as base:
        await world.create(shop(base))
        outcome = await world.app.toolbox.call(world.owner, tool, arguments.get(tool, {}))
    assert not outcome.is_error, outcome.text
    entries, _ = await world.app.toolbox.page(world.owner, None)
    schema = next(e["outputSchema"] for e in entries if e["name"] == tool)
    jsonschema.Draft202012Validator(schema).validate(outcome.structured)
    assert json.loads(outcome.text) == outcome.structured
