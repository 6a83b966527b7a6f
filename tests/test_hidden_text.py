"""Hidden characters of upstreams' texts are taken out, whichever way they come; what scripts and emoji need stays."""

import json
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.wire import call_result
from tests.security.upstreams import mcp_server
from tests.upstreams import Hostile, answer
from tests.world import World, gateway
from tools.hidden_text import visible, visible_texts, visible_value
from tools.kinds.mcp.calling import without_hidden

pytestmark = pytest.mark.anyio
TAGS = "".join(chr(0xE0000 + ord(c)) for c in "obey")
ESC = "\x1b[8m"
TOOL = {"name": "long", "inputSchema": {"type": "object"}}
COUNT = "dev.integrations-mcp/hidden_characters"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (f"a{ESC}b", "a[8mb"),
        ("a\x00\x08\x7fb", "ab"),
        ("a\x9b31mb", "a31mb"),
        ("ä\x1bß", "äß"),
        (f"fine{TAGS}.", "fine."),
        ("a\u202edcba\u202c", "adcba\u202c"),
        ("😀" + "\U000e0120\U000e0121\U000e0122", "😀"),
        ("x\ufe00\ufe01\ufe02", "x\ufe00"),
        ("a\u200b\x00\u200c\x00\u200bb", "a\u200bb"),
        ("a\u200b\U000e0100\u200c\U000e0101\u200bb", "a\u200bb"),
        ("a\ufe00\u202e\ufe01b", "a\ufe00b"),
        ("a\u200b\u200c\u200b\u2060b", "a\u200bb"),
        ("\U000e0100x", "x"),
        ("葛\U000e0100\U000e0101", "葛\U000e0100"),
    ],
)
def test_what_a_person_does_not_see_is_taken_out(text: str, seen: str) -> None:
    assert visible(text) == seen


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\tb\r\nc",
        "Zoë Ünlü, 東京都, Ελλάδα",
        "👩\u200d⚕️ and ❤️",
        "می\u200cخواهم",
        "葛\U000e0100城",
        "\u200fשלום\u200e (\u2067abc\u2069)",
        "soft\u00adhyphen",
    ],
)
def test_what_scripts_and_emoji_are_written_with_stays_and_costs_no_copy(text: str) -> None:
    assert visible(text) is text


@given(
    st.text(
        alphabet=st.characters(exclude_categories=("Cs",)) | st.sampled_from("\x1b\x9b\u200b\u2060\ufe01\U000e0041")
    )
)
def test_nothing_of_the_kind_is_left_in_any_text_and_nothing_else_is_lost(text: str) -> None:
    seen = visible(text)
    assert not [c for c in seen if unicodedata.category(c) == "Cc" and c not in "\t\n\r"]
    assert not [c for c in seen if 0xE0000 <= ord(c) <= 0xE007F]
    ordinary = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Mn"))
    assert "".join(c for c in seen if unicodedata.category(c) not in ("Cc", "Cf", "Mn")) == ordinary


def test_a_value_reads_as_its_text_does() -> None:
    assert visible_value({"a" + TAGS: [f"x{TAGS}", "e\x1b", 12345678901234567890123]}) == {
        "a": ["x", "e\x1b", 12345678901234567890123]
    }


def test_the_texts_of_a_value_are_cleaned_with_their_names_and_nothing_is_copied_for_none() -> None:
    plain = {"a": [1, None, {"b": "葛\U000e0100"}], "c": {}}
    assert visible_texts(plain) is plain
    shown = visible_texts({**plain, f"d{TAGS}": ["e\x1b", {"f": f"g{TAGS}"}]})
    assert shown == {**plain, "d": ["e", {"f": "g"}]}
    assert shown["a"] is plain["a"]


def test_every_text_of_an_mcp_result_is_looked_at() -> None:
    result = {
        "content": [
            {"type": "text", "text": f"a{ESC}"},
            {"type": "resource", "resource": {"uri": "note://1", "text": f"b{TAGS}"}},
            {"type": "resource_link", "uri": "file:///x", "name": "c\x9b", "description": "d\x00"},
            {"type": "image", "data": "AAAA", "mimeType": "image/png"},
        ],
        "structuredContent": {"e": f"f{TAGS}"},
        "_meta": {"g": 1},
    }
    seen, taken = without_hidden(result)
    assert seen == {
        "content": [
            {"type": "text", "text": "a[8m"},
            {"type": "resource", "resource": {"uri": "note://1", "text": "b"}},
            {"type": "resource_link", "uri": "file:///x", "name": "c", "description": "d"},
            {"type": "image", "data": "AAAA", "mimeType": "image/png"},
        ],
        "structuredContent": {"e": "f"},
        "_meta": {"g": 1},
    }
    assert taken == 1 + 4 + 1 + 1 + 4


# -- through a whole gateway


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


@pytest.fixture
async def world(tmp_path: Path, upstream: Hostile) -> AsyncIterator[World]:
    async with gateway(tmp_path) as made:
        read = {"name": "read", "description": "Reads.", "method": "GET", "path": "/x"}
        more = {
            "as_text": {"result_template": "Note: {{ note }}"},
            "picked": {"result_key": "note"},
            "short": {"result_key": "items", "max_result_length": 500},
        }
        await made.create(
            {
                "name": "up",
                "display_name": "Up",
                "base_url": upstream.url,
                "auth": {"type": "bearer_token", "bearer_token_value": {"value": "swordfish-99"}},
                "endpoints": [read, *({**read, "name": name, **fields} for name, fields in more.items())],
            }
        )
        yield made


@pytest.mark.parametrize(
    ("tool", "media", "body", "text", "taken"),
    [
        ("up_read", "text/plain", f"a{ESC}b", "a[8mb", 1),
        ("up_read", "text/plain", f"echo sword\x1bfish-99 sword{TAGS}fish-99", "echo [secret] [secret]", 5),
        ("up_read", "application/json", {"note": f"a{TAGS}\x9b"}, '{"note":"a"}', 5),
        ("up_read", "application/json", {"note": "a\x1b"}, '{"note":"a\\u001b"}', None),
        ("up_as_text", "application/json", {"note": f"a{ESC}"}, "Note: a[8m", 1),
        ("up_picked", "application/json", {"note": f"a{ESC}"}, "a[8m", 1),
        ("up_read", "text/plain", "nothing hidden", "nothing hidden", None),
    ],
)
async def test_a_result_is_told_without_them_and_says_how_many_they_were(
    world: World, upstream: Hostile, tool: str, media: str, body: Any, text: str, taken: int | None
) -> None:
    sent = body if isinstance(body, str) else json.dumps(body)
    upstream.script("/x", answer(200, sent.encode(), {"Content-Type": media}))
    told = call_result(await world.app.toolbox.call(world.owner, tool, {}))
    assert told["content"] == [{"type": "text", "text": text}]
    assert told["_meta"].get(COUNT) == taken


async def test_an_error_s_words_are_told_without_them(world: World, upstream: Hostile) -> None:
    said = f"no{TAGS} such\x1b sword\x9bfish-99 😀\U000e0120\U000e0121"
    upstream.script("/x", answer(400, json.dumps({"message": said}).encode(), {"Content-Type": "application/json"}))
    assert '"no such [secret] 😀"' in await world.call("up_read")


async def test_what_is_read_on_is_told_without_them_too(world: World, upstream: Hostile) -> None:
    items = [{"id": n, "note": f"{n}{TAGS}" + "x" * 40} for n in range(50)]
    upstream.script("/x", answer(200, json.dumps({"items": items}).encode(), {"Content-Type": "application/json"}))
    outcome = await world.app.toolbox.call(world.owner, "up_short", {})
    assert outcome.trace.hidden == 4 * 50
    for more in ({"from": 40}, {"fields": ["note"]}):
        text = await world.call("get_result", result_id=outcome.result_id, **more)
        assert "xxxx" in text
        assert visible(text) is text


@pytest.mark.parametrize("lines", [10, 1000])
async def test_an_mcp_upstream_s_text_is_told_and_cut_without_them(
    tmp_path: Path, upstream: Hostile, lines: int
) -> None:
    upstream.script("/mcp", mcp_server([TOOL], f"line {ESC}{'y' * 60}\n" * lines))
    async with gateway(tmp_path) as made:
        where = {"mcp_transport": "http", "mcp_url": f"{upstream.url}/mcp"}
        await made.create({"name": "mc", "display_name": "Mc", "protocol": "mcp", **where})
        outcome = await made.app.toolbox.call(made.owner, "mc_long", {})
        assert (outcome.cut is not None) is (lines == 1000)
        assert "line [8myyy" in outcome.text
        assert visible(outcome.text) is outcome.text
        told = call_result(outcome)
        assert told["_meta"][COUNT] == lines
        assert "\x1b" not in told["content"][0]["text"]
