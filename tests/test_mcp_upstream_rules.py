"""The pure parts of MCP upstreams: events, what can be shown, what can be passed on."""

import asyncio
import json
from typing import Any

import pytest

from tools.errors import InvalidResponse, ResponseTooLarge, UpstreamRefused
from tools.kinds.mcp.calling import checked, is_plain_text, text_of, value_of
from tools.kinds.mcp.described import MAX_TOOL_BYTES, fault_of, input_schema_of, kept, output_schema_of
from tools.kinds.mcp.events import EventReader
from tools.kinds.mcp.rpc import Ask, Peer
from tools.models import EndpointConfig

TEXT = {"type": "text", "text": "hi"}
OBJECT: dict[str, Any] = {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("pieces", "data"),
    [
        ([b"data: one\n\n"], ["one"]),
        ([b"data: a", b"b\n", b"\ndata:c\n\n"], ["ab", "c"]),
        ([b"data: 1\r\ndata: 2\r\n\r\n"], ["1\n2"]),
        ([b": comment\n\n", b"event: x\n\n", b"data: y\n\n"], ["y"]),
        ([b"data: never finished\n"], []),
        ([bytes([b]) for b in "data: é\n\n".encode()], ["é"]),
        ([b"data: a\r", b"\n\r", b"\n"], ["a"]),
    ],
)
def test_events_are_read_however_the_bytes_are_cut(pieces: list[bytes], data: list[str]) -> None:
    reader = EventReader(1000)
    assert [event.data for piece in pieces for event in reader.feed(piece)] == data


def test_an_event_that_grows_too_long_is_refused_before_it_ends() -> None:
    reader = EventReader(100)
    for _ in range(10):
        assert reader.feed(b"data: 1234") == []
    with pytest.raises(ResponseTooLarge):
        reader.feed(b"5")


def test_many_small_events_are_not_counted_together() -> None:
    reader = EventReader(100)
    assert len([e for _ in range(50) for e in reader.feed(b"data: 12345678\n\n")]) == 50


@pytest.mark.parametrize(
    "tool",
    [
        {"inputSchema": OBJECT},
        {"name": "", "inputSchema": OBJECT},
        {"name": "a\nb", "inputSchema": OBJECT},
        {"name": "x" * 257, "inputSchema": OBJECT},
        {"name": "x"},
        {"name": "x", "inputSchema": []},
        {"name": "x", "inputSchema": OBJECT, "description": 7},
        {"name": "x", "inputSchema": OBJECT, "annotations": "readOnly"},
        {"name": "x", "inputSchema": OBJECT, "icons": ["a.png"]},
        {"name": "x", "inputSchema": {"type": "object", "properties": {"a": {"type": "wrong"}}}},
        {"name": "x", "inputSchema": {"type": "object", "properties": {"a": {"$ref": "https://a.example/s"}}}},
    ],
)
def test_a_tool_that_some_host_could_not_take_has_a_fault(tool: dict[str, Any]) -> None:
    assert fault_of(tool) is not None
    listing = kept([tool, {"name": "good", "inputSchema": OBJECT}], None, source="s", server="", protocol_version="")
    assert [t["name"] for t in listing.tools] == ["good"]
    assert len(listing.left_out) == 1


def test_a_tool_is_changed_when_it_looks_otherwise_than_when_first_seen_and_not_after_it_was_accepted() -> None:
    def read(description: str, before: Any) -> Any:
        tool = {"name": "t", "description": description, "inputSchema": OBJECT}
        return kept([tool], before, source="s", server="", protocol_version="")

    first = read("one", None)
    second = read("two", first)
    assert second.changed == ("t",)
    assert read("two", second).changed == ("t",)
    assert read("one", second).changed == ()
    assert read("two", None).changed == ()


def test_an_upstream_cannot_hide_or_rename_arguments_with_our_keywords() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "x-fixed": True, "const": "b", "x-name": "c"}}}
    assert input_schema_of({"inputSchema": schema})["properties"] == {"a": {"type": "string", "const": "b"}}


def test_an_endpoints_schema_decides_which_arguments_there_are_and_open_ones_are_the_upstreams() -> None:
    theirs = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "number"}}}
    ours = {"type": "object", "properties": {"b": {"description": "How many."}}}
    endpoint = EndpointConfig(name="e", description="", path="t", input_schema=ours)
    assert input_schema_of({"inputSchema": theirs}, endpoint) == {
        "type": "object",
        "properties": {"b": {"type": "number", "description": "How many."}},
    }


@pytest.mark.parametrize(
    ("schema", "stays"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, True),
        ({"type": "array"}, False),
        ({"type": "object", "properties": {"a": True}}, False),
        ({"type": "object", "properties": {"a": {"type": "string", "pattern": "(?i)x"}}}, False),
        ({"type": "object", "properties": {"a": {"$ref": "https://a.example/s"}}}, False),
    ],
)
def test_an_output_schema_that_costs_some_host_the_list_is_not_shown(schema: dict[str, Any], stays: bool) -> None:
    assert (output_schema_of({"outputSchema": schema}) is not None) is stays


@pytest.mark.parametrize("kind", ["input_required", "task", 7])
def test_what_is_no_final_result_is_refused(kind: Any) -> None:
    with pytest.raises(UpstreamRefused):
        checked({"resultType": kind, "content": [TEXT]})


def test_an_answer_that_is_no_result_is_refused() -> None:
    with pytest.raises(InvalidResponse):
        checked({"hello": 1})


def test_content_of_a_kind_that_clients_do_not_know_becomes_text() -> None:
    found = checked({"content": [{"type": "hologram", "data": 1}, TEXT]})
    assert found["content"] == [{"type": "text", "text": '{"type":"hologram","data":1}'}, TEXT]


def test_structured_content_that_is_no_object_is_told_as_text_where_nothing_else_tells_it() -> None:
    assert checked({"content": [], "structuredContent": [1, 2]}) == {"content": [{"type": "text", "text": "[1,2]"}]}
    assert checked({"content": [TEXT], "structuredContent": [1, 2]}) == {"content": [TEXT]}


def test_fields_that_we_do_not_know_stay() -> None:
    result = {"content": [{**TEXT, "new": 1}], "alsoNew": {"a": 1}}
    assert checked(result) == result


@pytest.mark.parametrize(
    ("result", "kind", "value"),
    [
        ({"content": [TEXT], "structuredContent": {"a": 1}}, "json", {"a": 1}),
        ({"content": [{"type": "text", "text": '{"a":12345678901234567890}'}]}, "json", {"a": 12345678901234567890}),
        ({"content": [TEXT]}, "text", "hi"),
        ({"content": [{"type": "text", "text": "[not json"}]}, "text", "[not json"),
    ],
)
def test_shaping_begins_with_what_has_most_structure(result: dict[str, Any], kind: str, value: Any) -> None:
    raw = value_of(result)
    assert (raw.kind, raw.value) == (kind, value)


def test_only_one_text_and_nothing_else_may_be_cut() -> None:
    assert is_plain_text({"content": [TEXT]})
    assert not is_plain_text({"content": [TEXT, TEXT]})
    assert not is_plain_text({"content": [TEXT], "structuredContent": {}})
    assert not is_plain_text({"content": [TEXT], "isError": True})
    assert not is_plain_text({"content": [{"type": "image", "data": "", "mimeType": "image/png"}]})


def test_a_result_reads_as_its_texts_and_the_names_of_the_rest() -> None:
    link = {"type": "resource_link", "uri": "file:///x", "name": "x"}
    image = {"type": "image", "data": "", "mimeType": "image/png"}
    assert text_of({"content": [TEXT, link, image]}) == "hi\n[resource file:///x]\n[image image/png]"


def test_a_tool_that_mirrors_into_headers_what_no_header_can_hold_is_left_out_and_an_unused_anchor_is_no_fault() -> (
    None
):
    mirrored = {"type": "object", "properties": {"a": {"type": "object", "x-mcp-header": "A"}}}
    assert "x-mcp-header" in (fault_of({"name": "t", "inputSchema": mirrored}) or "")
    anchored = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/b"}},
        "$defs": {"b": {"$anchor": "b", "type": "string"}},
    }
    assert fault_of({"name": "t", "inputSchema": anchored}) is None
    assert fault_of({"name": "t", "inputSchema": {**anchored, "properties": {"a": {"$ref": "#b"}}}}) is not None


async def silent(*_: Any) -> None:
    """Takes what it is told, and says nothing."""


@pytest.mark.anyio
@pytest.mark.parametrize(
    "said",
    [
        b'{"method":"notifications/progress","params":[1]}',
        b'{"method":"notifications/progress","params":{"progressToken":[],"progress":1}}',
        b'{"method":"notifications/progress","params":{"progressToken":1,"progress":1%b}}' % (b"0" * 400),
        b'{"method":"notifications/message","params":"text"}',
        b'{"method":"elicitation/create","id":7,"params":[]}',
        b'{"id":[],"result":{}}',
        b'{"a":12345678901234567890,"b":%b}' % (b"[" * 5000),
        b'{"method":"\\ud800","params":{"n":12345678901234567890}}',
    ],
)
async def test_nothing_that_an_upstream_says_ends_the_reading_of_what_it_says_next(said: bytes) -> None:
    heard: list[str] = []
    peer = Peer(silent, lambda method, params: heard.append(f"{method} {len(params)}"))
    asking = asyncio.ensure_future(peer.request(Ask("tools/call", {}, progress=silent)))
    await asyncio.sleep(0)
    peer.receive(said)
    peer.receive(b'{"id":1,"result":{"done":true}}')
    assert await asking == {"done": True}


@pytest.mark.anyio
async def test_reports_of_progress_that_were_told_are_not_held_until_the_answer() -> None:
    told: list[float] = []

    async def tell(done: float, *_: Any) -> None:
        told.append(done)

    peer = Peer(silent, lambda *_: None)
    asking = asyncio.ensure_future(peer.request(Ask("tools/call", {}, progress=tell)))
    await asyncio.sleep(0)
    for n in range(100):
        peer.receive(json.dumps({"method": "notifications/progress", "params": {"progressToken": 1, "progress": n}}))
    held = peer._waiting[1].reports  # pyright: ignore[reportPrivateUsage]
    assert len(held) == 100
    async with asyncio.timeout(5):
        while held:
            await asyncio.wait(set(held))
    peer.receive(b'{"id":1,"result":{}}')
    assert (await asking, told) == ({}, [float(n) for n in range(100)])


def test_a_tool_or_a_list_as_large_as_nobody_needs_is_not_kept() -> None:
    large: dict[str, Any] = {"name": "x", "inputSchema": OBJECT, "_meta": {"a": "x" * MAX_TOOL_BYTES}}
    assert "at most" in (fault_of(large) or "")
    assert fault_of({"name": "x", "inputSchema": {**OBJECT, "maximum": 10**30}}) is None
