"""What is fuzzed: each target takes bytes and raises where a parser or guard breaks its word.

The word is the same for all: whatever comes in, only the documented refusal comes out, and what passes keeps the guard's promise.
`tests/test_fuzz_targets.py` runs each one for a moment under hypothesis; `tests/fuzz/run.py` runs one for as long as you like.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from server.egress import AllowedUpstreams
from tools.address_guard import NetworkPolicy, check_url, judge, spelled_address
from tools.connection import Connection
from tools.cursors import Cursors
from tools.engine import _target  # pyright: ignore[reportPrivateUsage]
from tools.errors import CallError, InvalidArguments, InvalidResponse, ResponseTooLarge, UpstreamRefused
from tools.exchange import ConnectionLost
from tools.expressions import Budget, ExpressionFailed, ExpressionSyntaxError, compile_expression
from tools.hidden_text import visible, visible_texts, visible_value
from tools.host_list import EVERY, HostList, plain_host
from tools.host_rules import check_published
from tools.importers.curl import read_curl
from tools.importers.frame import SourceFault
from tools.importers.reading import read_source
from tools.kinds.fhir.links import followed, is_under
from tools.kinds.mcp.events import EventReader
from tools.kinds.mcp.questions import Interview
from tools.kinds.mcp.rpc import RpcError, parsed, result_of
from tools.kinds.paths import base_url_fault, parse_path
from tools.masking import Masker
from tools.published import PublishRefused, publish
from tools.schemas import check_schema
from tools.template_guard import TemplateSyntaxError
from tools.templates import Template, TemplateFailed
from tools.upstream import _FINISHED_URL, _location  # pyright: ignore[reportPrivateUsage]

ANSWER: dict[str, Any] = {
    "id": "p-1",
    "name": [{"family": "Ito", "given": ["A", "B"]}],
    "n": 12345678901234567890,
    "deep": {"a": [{"b": [1, 2, {"c": None}]}]},
    "text": "x" * 500,
    "rows": [{"k": i, "v": str(i)} for i in range(50)],
}
STRICT = NetworkPolicy()
MOST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """`seeds` begin the search; `run` raises where the promise is broken."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def address(data: bytes) -> None:
    """What the guard lets pass is what the engine would dial: one reader can't be told another host than the other."""
    url = data.decode("utf-8", "replace")
    if check_url(url, STRICT) is not None or not _FINISHED_URL.fullmatch(url):
        return
    _, host, port, shown = _target(url)
    assert host, url
    assert "\r" not in shown
    assert "\n" not in shown
    literal = spelled_address(host)
    assert literal is None or judge(literal, port, STRICT) is None, url


def path(data: bytes) -> None:
    """A filled path has the template's segments and never climbs, decoded once or twice."""
    template, _, rest = data.decode("utf-8", "replace").partition("\x1e")
    try:
        plan = parse_path(template)
    except ValueError:
        return
    values = dict(zip(plan.names, [*rest.split("\x1e"), *["x"] * len(plan.names)], strict=False))
    filled, faults = plan.fill(values)
    if faults:
        return
    segments = filled.split("/")
    assert len(segments) == plan.segments + 1, (template, values, filled)
    assert not any(unquote(unquote(s)) in (".", "..") for s in segments), (template, values, filled)
    assert filled.isascii(), filled
    assert not set(filled) & set(" ?#\\\r\n\x00"), filled
    for literal in plan.parts:
        assert literal in filled


def base_url(data: bytes) -> None:
    """A base URL that passes has a host, no user and no query for every reader."""
    url = data.decode("utf-8", "replace")
    if base_url_fault(url) is not None or check_url(url, STRICT) is not None:
        return
    assert "@" not in url.split("/")[2]
    assert not set(url) & set("?#\\ \r\n\t"), url


def redirect(data: bytes) -> None:
    """A Location comes out as a finished URL or not at all."""
    where = _location("https://api.example/a/b", data.decode("utf-8", "surrogateescape"))
    if where is not None:
        assert _FINISHED_URL.fullmatch(where)
        check_url(where, STRICT)


def next_link(data: bytes) -> None:
    """What is followed lies under the base."""
    base = "https://ehr.example/t1/fhir"
    found = followed(data.decode("utf-8", "replace"), base + "/Patient?x=1", base, rebase=False)
    if found is not None:
        assert is_under(found, base)
        decoded = unquote(unquote(found.partition("?")[0]))
        assert decoded.startswith(base), found
        assert ".." not in decoded.split("/"), found


def curl(data: bytes) -> None:
    with suppress(SourceFault):
        read_curl(data.decode("utf-8", "replace"))


def openapi(data: bytes) -> None:
    with suppress(SourceFault):
        read_source(data[:MOST], "https://api.example/openapi.json")


def sse(data: bytes) -> None:
    """However a stream is cut into pieces, its events are the same; each is JSON-RPC, or refused with a documented error."""
    whole, pieces = EventReader(MOST), EventReader(MOST)
    try:
        events = whole.feed(data)
    except ResponseTooLarge:
        return
    width = 1 + (data[0] if data else 0) % 7
    cut = [event for at in range(0, len(data), width) for event in pieces.feed(data[at : at + width])]
    assert [(e.name, e.data, e.id) for e in cut] == [(e.name, e.data, e.id) for e in events], (data, cut, events)
    for event in events:
        rpc(event.data.encode())


def rpc(data: bytes) -> None:
    try:
        message = parsed(data)
    except ValueError:
        return
    if isinstance(message, dict):
        with suppress(RpcError, InvalidResponse):
            result_of(message)


class _Transport(asyncio.Transport):
    """Takes what is written and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: Any) -> None:
        pass

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@lru_cache(maxsize=1)
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def http(data: bytes) -> None:
    """An answer in pieces ends as an answer within its limit or as a documented failure, and never leaves the loop's callback."""

    async def run() -> None:
        connection, transport = Connection(), _Transport()
        connection.connection_made(transport)
        current = connection.begin("GET", b"GET / HTTP/1.1\r\n\r\n", None, 4096)
        width = 1 + (data[0] if data else 0)
        for at in range(1, len(data), width):
            connection.data_received(data[at : at + width])
        connection.connection_lost(None)
        assert current.finished.done()
        failure = current.finished.exception()
        assert failure is None or isinstance(failure, CallError | ConnectionLost), repr(failure)
        if failure is None:
            assert 200 <= current.status < 1000
            assert len(current.body()) <= 4096
        assert not connection.is_idle

    _loop().run_until_complete(run())


def template(data: bytes) -> None:
    try:
        made = Template(data.decode("utf-8", "replace"))
        text = made.render(ANSWER, {"id": "1"})
    except (TemplateSyntaxError, TemplateFailed):
        return
    assert len(text) < 20_000_000


def expression(data: bytes) -> None:
    with suppress(ExpressionSyntaxError, ExpressionFailed):
        json.dumps(compile_expression(data.decode("utf-8", "replace")).evaluate(ANSWER, Budget()))


_CURSORS = Cursors(bytes(32))
_OF = ("acme", "i", "e", "k")


def cursor(data: bytes) -> None:
    try:
        _CURSORS.open(data.decode("utf-8", "replace"), _OF, {})
    except InvalidArguments:
        return
    raise AssertionError("a cursor that nobody sealed was opened")


_STRANGE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202d\u202e\U000e0000-\U000e007f]")
_RUNS = re.compile("[\u200b-\u200d\u2060-\u2064\ufeff]{2}|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2}")


def hidden(data: bytes) -> None:
    """What is taken out is gone, the rest is there in its order; cleaning twice is cleaning once."""
    text = data.decode("utf-8", "replace")
    seen = visible(text)
    assert not _STRANGE.search(seen), ascii(seen)
    assert not _RUNS.search(seen), ascii(seen)
    assert visible(seen) == seen, ascii(text)
    left = iter(text)
    assert all(c in left for c in seen), ascii(text)
    with suppress(ValueError):
        value: Any = json.loads(text)
        assert visible_texts(visible_texts(value)) == visible_texts(value)
        visible_value(value)


def host_list(data: bytes) -> None:
    """An entry that the setting takes lets pass the host itself, or what is below it, whoever reads the URL."""
    entry, _, url = data.decode("utf-8", "replace").partition("\x1e")
    try:
        (kept,) = AllowedUpstreams(hosts=(entry,)).hosts
    except ValueError:
        return
    hosts = HostList({EVERY: (kept,)})
    if hosts.fault("w", url) is not None or base_url_fault(url) is not None or check_url(url, STRICT) is not None:
        return
    dialed = _target(url)[1]
    assert hosts.allows("w", dialed), (entry, url, dialed)
    name, below = plain_host(dialed), kept.startswith("*.")
    assert name.endswith(kept[1:]) if below else name == kept, (entry, url)


class _Nobody:
    asks_now, answers, state = False, None, None

    async def ask(self, message: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        raise AssertionError


def _interview() -> Interview:
    async def made() -> Interview:
        masker = Masker(("swordfish-99",))
        return Interview(_Nobody(), "up", lambda: masker, asyncio.timeout(None), _Sealed())

    return _loop().run_until_complete(made())


class _Sealed:
    def seal(self, state: str) -> str:
        return _CURSORS.seal(state, _OF, {})

    def open(self, sealed: str) -> str:
        return _CURSORS.open(sealed, _OF, {})


def questions(data: bytes) -> None:
    """What an upstream asks comes out as bounded forms without hidden characters and secrets, or is refused."""
    with suppress(ValueError):
        asked = parsed(data)
        if not isinstance(asked, dict):
            return
        try:
            found = _interview().questions(asked)
        except UpstreamRefused:
            return
        text = json.dumps(found.get("inputRequests", {}), ensure_ascii=False)
        assert "swordfish-99" not in text
        assert visible(text) == text, ascii(text)
        assert len(found.get("requestState", "")) <= MOST
        for question in found.get("inputRequests", {}).values():
            assert question["method"] == "elicitation/create"
            assert question["params"]["mode"] == "form"
            assert question["params"]["message"].startswith("[up] ")
            assert "url" not in question["params"]


def state(data: bytes) -> None:
    """No state but one that was sealed for this call is opened, and that one as it was."""
    text = data.decode("utf-8", "replace")
    assert _Sealed().open(_Sealed().seal(text)) == text
    for sealed in (text, _CURSORS.seal(text, ("other",), {})):
        try:
            _Sealed().open(sealed)
        except InvalidArguments:
            continue
        raise AssertionError("a state that nobody sealed was opened")


def published(data: bytes) -> None:
    """A schema that passes the checks is published by the rules of every host, or refused."""
    with suppress(ValueError):
        schema = parsed(data[:MOST])
        if not isinstance(schema, dict) or check_schema(schema):
            return
        try:
            shown = publish(schema).schema
        except PublishRefused:
            return
        assert check_published(shown) == [], (schema, shown)


def _spellings() -> Iterator[bytes]:
    for host in (
        b"127.0.0.1",
        b"0x7f.1",
        b"[::1]",
        b"[::ffff:127.0.0.1]",
        b"a.example",
        b"2130706433",
        b"[64:ff9b::a9fe:a9fe]",
    ):
        yield b"http://" + host + b":8080/x?y#z"
    yield "http://１２７。0.0.1/".encode()
    yield b"https://u:p@a.example@b.example\\c/"


TARGETS: dict[str, Target] = {
    "address": Target(address, tuple(_spellings())),
    "base_url": Target(base_url, tuple(_spellings())),
    "redirect": Target(redirect, (*_spellings(), b"//b.example/", b"../x%2f..", b"?q", b"http:\\\\b")),
    "next_link": Target(
        next_link,
        (b"https://ehr.example/t1/fhir/?page=2", b"?p=2", b"../../t2/fhir", b"//ehr.example/t1/fhir/%2e%2e/x"),
    ),
    "path": Target(
        path, (b"/a/{id}/b\x1e..", b"/{a}{b}\x1e.\x1e.", b"/x/{a}:{b}\x1e%2e%2e\x1e;x", b"/{a}\x1e\xe2\x80\xae")
    ),
    "curl": Target(
        curl,
        (
            b"curl -X POST 'https://a.example/x/1?q=2' -H 'Authorization: Bearer k' -d '{\"a\":1}'",
            b"curl -u a:b --data-urlencode @f https://[::1/ $'\\x41'",
            b"curl -F a=@b https://a.example -G -d 'a=b&c'",
        ),
    ),
    "openapi": Target(
        openapi,
        (
            b'{"openapi":"3.1.0","info":{"title":"T"},"servers":[{"url":"/v1"}],"paths":{"/p/{id}":{"get":{"parameters":[{"name":"id","in":"path","schema":{"$ref":"#/components/schemas/A"}}],"responses":{}}}},"components":{"schemas":{"A":{"allOf":[{"$ref":"#/components/schemas/A"},{"type":"string"}]}}}}',
            b"swagger: '2.0'\nhost: a.example\npaths:\n  /x:\n    post:\n      parameters:\n      - {name: b, in: body, schema: {type: object}}\n",
            b'{"resourceType":"CapabilityStatement","rest":[{"mode":"server","resource":[{"type":"Patient","interaction":[{"code":"read"}],"searchParam":[{"name":"a","type":"token"}]}]}]}',
        ),
    ),
    "sse": Target(
        sse,
        (
            b'event: message\r\ndata: {"jsonrpc":"2.0","id":1,"result":{}}\r\n\r\n',
            b"\xef\xbb\xbfdata: a\rdata\r\rid: 1\n\nretry: 9\n\n",
        ),
    ),
    "rpc": Target(
        rpc,
        (
            b'{"jsonrpc":"2.0","id":1,"error":{"code":true,"message":[1]}}',
            b'{"result":12345678901234567890123}',
            b"[" * 300,
        ),
    ),
    "http": Target(
        http,
        (
            b"\x05HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            b"\x50HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"\x02HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"\x09HTTP/1.0 301 x\r\nLocation: \xff\r\nContent-Length: 99999999999999999999\r\n\r\n",
        ),
    ),
    "template": Target(
        template,
        (
            b"{{ name[0].family | upper }}{% for r in rows %}{{ r.k }}{% endfor %}",
            b"{% set a = [1,2] %}{{ a | tojson(4) }}{{ text | replace('x','yy') }}",
            b"{# #}{{ {'a': 1} }}{{ range(9) | join(',') }}",
        ),
    ),
    "expression": Target(
        expression,
        (
            b"rows[?k > `3`].{a: k, b: to_string(@)} | sort_by(@, &a)[0:3:2]",
            b"name[*].given[]",
            b"deep.a.0.b",
            b"join(text, rows[*].v)",
        ),
    ),
    "hidden": Target(
        hidden,
        (
            "a\u200b\u200cb\U000e0041\u202e\x1b[8m".encode(),
            "\u845b\U000e0100\U000e0101\u2764\ufe0f\ufe0e".encode(),
            b'{"a\\u202e": ["\\u001b", "\xe2\x80\xae"]}',
        ),
    ),
    "host_list": Target(
        host_list,
        (
            b"*.example.org\x1ehttps://a.example.org/x",
            b"a.example\x1ehttp://A.EXAMPLE.:80/",
            b"2001:DB8::1\x1ehttp://[2001:db8::1]/",
            b"*.1\x1ehttp://10.0.0.1/",
        ),
    ),
    "questions": Target(
        questions,
        (
            b'{"inputRequests":{"q":{"method":"elicitation/create","params":{"mode":"form","message":"Who?","requestedSchema":'
            b'{"type":"object","properties":{"a":{"type":"string","title":"A swordfish-99","enumNames":["x"]}}}}}},"requestState":"s"}',
            b'{"inputRequests":{"q":{"method":"elicitation/create","params":{"mode":"url","url":"https://x.example"}}}}',
        ),
    ),
    "state": Target(state, (b"1", _CURSORS.seal("s", ("other",), {}).encode())),
    "published": Target(
        published,
        (
            b'{"type":"object","properties":{"a b":{"type":["string","null"],"enum":["x",null]},"c":{"$ref":"#/$defs/c"}},'
            b'"$defs":{"c":{"anyOf":[{"type":"integer","minimum":-99999999999999999999},{"type":"array"}]}},"required":["a b"]}',
        ),
    ),
    "cursor": Target(cursor, (_CURSORS.seal("/x?y", ("other",), {}).encode(), b"====", b"\xc3\xa9")),
}
