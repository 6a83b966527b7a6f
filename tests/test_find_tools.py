"""`find_tools`, `call_tool` and `tool_mode`: thousands of tools behind two, and the right one among the first five."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.settings import SettingsError, read_settings
from tests.data.many_tools import SYSTEMS, many_tools
from tests.upstreams import Hostile
from tests.world import World, gateway
from tools.callers import ROLE_PERMISSIONS, Caller
from tools.catalog import View
from tools.finding import SHOWN, Index, terms_of

pytestmark = pytest.mark.anyio

AGENT = Caller("k", "acme", permissions=ROLE_PERMISSIONS["agent"])


def read_questions(name: str) -> list[tuple[str, str]]:
    lines = Path(__file__).with_name("data").joinpath(name).read_text().splitlines()
    return [(q, tool) for q, tool in (line.split("\t") for line in lines)]


QUESTIONS, HELD_OUT = read_questions("questions.tsv"), read_questions("questions_held_out.tsv")


@pytest.fixture(scope="module")
def view() -> View:
    return View(many_tools())


# ------------------------------------------------------------------ how good it is


def test_the_right_tool_of_2000_is_among_the_first_five_for_95_of_100_plain_questions(view: View) -> None:
    """Scored strictly: exactly the expected tool is among the five shown; a sibling that would do as well counts as wrong."""
    assert len(view.tools) == 2000
    assert len(QUESTIONS) == len({q for q, _ in QUESTIONS}) == 100
    assert {tool for _, tool in QUESTIONS} <= {t.name for t in view.tools}
    assert len(wrong(view, QUESTIONS)) <= 5, wrong(view, QUESTIONS)


def test_questions_that_the_words_were_not_tuned_on_are_answered_nearly_as_well(view: View) -> None:
    assert len(HELD_OUT) == len({q for q, _ in HELD_OUT} - {q for q, _ in QUESTIONS}) == 40
    assert {tool for _, tool in HELD_OUT} <= {t.name for t in view.tools}
    assert len(wrong(view, HELD_OUT)) <= 6, wrong(view, HELD_OUT)


def wrong(view: View, questions: list[tuple[str, str]]) -> list[tuple[str, str]]:
    index = Index.of(view.tools)
    return [(q, tool) for q, tool in questions if tool not in [view.tools[i].name for i in index.search(q, SHOWN)]]


def test_every_system_is_asked_about_at_least_once() -> None:
    assert {tool.split("_")[0] for _, tool in QUESTIONS} == set(SYSTEMS)


@pytest.mark.parametrize(
    ("words", "same"),
    [
        ("closures closed", "close close"),
        ("listPatients", "list_patient"),
        ("policies", "policy"),
        ("orders", "order"),
        ("stopped", "stop"),
        ("the id of a person", "id person"),
    ],
)
def test_words_are_compared_by_their_stems(words: str, same: str) -> None:
    def stems(text: str) -> list[str]:
        return [t for t in terms_of(text) if not t.startswith("=")]

    assert stems(words) == stems(same)


def test_a_tool_that_deletes_is_not_offered_first_unless_something_is_to_go(view: View) -> None:
    index = Index.of(view.tools)
    first = [view.tools[index.search(q, 1)[0]].name for q in ("sponsor volunteers", "remove a volunteer")]
    assert first[0] != "charity_deleteVolunteer"
    assert first[1] == "charity_deleteVolunteer"


def test_a_query_without_a_known_word_finds_nothing(view: View) -> None:
    assert Index.of(view.tools).search("xyzzy", SHOWN) == []
    assert Index.of(()).search("anything", SHOWN) == []


# ------------------------------------------------------------------ the list


async def listed(world: World, caller: Caller = AGENT) -> list[str]:
    page, cursor = await world.app.toolbox.page(caller, None)
    names = [e["name"] for e in page]
    while cursor is not None:
        page, cursor = await world.app.toolbox.page(caller, cursor)
        names += [e["name"] for e in page]
    return names


def shop(n: int, words: int = 5, base: str = "https://shop.example") -> dict[str, Any]:
    return {
        "name": "shop",
        "display_name": "Shop",
        "base_url": base,
        "endpoints": [
            {"name": f"get_{i:02}", "description": "word " * words, "method": "GET", "path": f"/things/{i}"}
            for i in range(n)
        ],
    }


@pytest.mark.parametrize(
    ("mode", "n", "words", "searched"),
    [
        ("all", 61, 5, False),
        ("auto", 60, 5, False),
        ("auto", 61, 5, True),
        ("auto", 40, 300, True),
        ("search", 1, 5, True),
        ("search", 0, 5, False),
    ],
)
async def test_a_long_list_becomes_two_tools_where_the_mode_says_so(
    tmp_path: Path, mode: str, n: int, words: int, searched: bool
) -> None:
    async with gateway(tmp_path, tool_mode=mode) as world:
        await world.create(shop(n, words))
        names = await listed(world)
        if searched:
            assert names == ["call_tool", "find_tools", "get_result"]
        else:
            assert names == ["get_result", *(f"shop_get_{i:02}" for i in range(n))][: n and n + 1]


async def test_pinned_tools_come_first_also_over_pages(tmp_path: Path) -> None:
    async with gateway(tmp_path, tool_mode="search", pinned_tools=("shop_get_01", "*_2*"), tools_page_size=3) as world:
        await world.create(shop(30))
        pinned = ["shop_get_01", *(f"shop_get_2{i}" for i in range(10))]
        assert await listed(world) == [*pinned, "call_tool", "find_tools", "get_result"]


async def test_each_key_has_a_list_of_its_own(tmp_path: Path) -> None:
    async with gateway(tmp_path, tool_mode="auto") as world:
        await world.create(shop(61))
        narrow = replace(AGENT, tools=frozenset({"shop_get_07"}))
        assert await listed(world, narrow) == ["get_result", "shop_get_07"]
        assert "find_tools" in await listed(world)
        found = (await world.app.toolbox.call(narrow, "find_tools", {"query": "thing word"})).structured
    assert found is not None
    assert [row["tool"] for row in found["tools"]] == ["shop_get_07"]
    assert found["total"] == 1


async def test_who_makes_tools_can_call_them_before_the_host_lists_again(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        await world.create(shop(1))
        assert "call_tool" in await listed(world, world.owner)
        assert "call_tool" not in await listed(world)


# ------------------------------------------------------------------ finding and calling


async def test_what_find_tools_names_is_called_with_call_tool(tmp_path: Path) -> None:
    async with Hostile() as server, gateway(tmp_path, tool_mode="search") as world:
        body = shop(1, base=server.url)
        body["endpoints"].append(
            {
                "name": "cancel_order",
                "description": "Cancels an order.",
                "method": "POST",
                "path": "/orders/{id}/cancel",
                "input_schema": {"type": "object", "properties": {"reason": {"type": "string"}}},
            }
        )
        await world.create(body)
        found = (await world.app.toolbox.call(AGENT, "find_tools", {"query": "stop my order"})).structured
        assert found is not None
        assert found["tools"][0]["tool"] == "shop_cancel_order"
        assert set(found["tools"][0]["arguments"]["properties"]) == {"id", "reason"}
        arguments = {"id": "7", "reason": "late"}
        direct = await world.app.toolbox.call(AGENT, "shop_cancel_order", arguments)
        outcome = await world.app.toolbox.call(
            AGENT, "call_tool", {"tool": "shop_cancel_order", "arguments": arguments}
        )
        assert not outcome.is_error
        assert outcome.tool == "shop_cancel_order"
        first = server.received[0]
        assert (first.method, first.target, first.body) == (
            "POST",
            "/orders/7/cancel",
            b'{"reason":"late"}',
        )
        assert server.received[1].body == server.received[0].body
        assert not direct.is_error


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("call_tool", {"tool": "shop_get_99"}, "there is no tool shop_get_99; did you mean"),
        ("call_tool", {"tool": "call_tool", "arguments": {}}, "[invalid_arguments]"),
        ("call_tool", {"name": "shop_get_00"}, "[invalid_arguments]"),
        ("call_tool", {"tool": "shop_get_00", "arguments": {"x": 1}}, "no such argument"),
        ("call_tool", {"tool": "delete_integration", "arguments": {"integration": "shop"}}, "there is no tool"),
        ("find_tools", {}, "query: required"),
        ("find_tools", {"query": ""}, "[invalid_arguments]"),
    ],
)
async def test_call_tool_and_find_tools_refuse_like_the_tools_themselves(
    tmp_path: Path, name: str, arguments: dict[str, Any], says: str
) -> None:
    async with gateway(tmp_path) as world:
        body = shop(3)
        body["endpoints"][0]["input_schema"] = {"type": "object", "properties": {"y": {"type": "string"}}}
        await world.create(body)
        outcome = await world.app.toolbox.call(AGENT, name, arguments)
        assert outcome.is_error
        assert says in outcome.text
        assert len((await world.app.registry.load("acme"))[1]) == 1


def test_pinned_tools_are_read_from_the_environment() -> None:
    assert read_settings({"INTEGRATIONS_MCP_PINNED_TOOLS": '["a_*", "b"]'}).pinned_tools == ("a_*", "b")
    assert read_settings({"INTEGRATIONS_MCP_PINNED_TOOLS": "a_*,b"}).pinned_tools == ("a_*", "b")
    with pytest.raises(SettingsError, match="TOOL_MODE"):
        read_settings({"INTEGRATIONS_MCP_TOOL_MODE": "some"})
