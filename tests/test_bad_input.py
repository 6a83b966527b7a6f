"""Bad input is met with a clear error, and nothing is lost: at writing, in arguments, from upstreams, from the disk."""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.upstreams import Hostile, answer, endless, gzip_bomb, redirect
from tests.world import World, gateway
from tools.address_guard import NetworkPolicy
from tools.errors import InvalidRequest, NameTaken, StorageUnavailable

pytestmark = pytest.mark.anyio
JSON = {"Content-Type": "application/json"}
FREE = "https://api.example"  # never called


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        yield server


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with gateway(tmp_path) as world:
        yield world


def body(base_url: str = FREE, /, name: str = "sys", **endpoint: Any) -> dict[str, Any]:
    made = {"name": "do", "description": "d", "method": "GET", "path": "/x", **endpoint}
    return {"name": name, "display_name": "S", "base_url": base_url, "endpoints": [made]}


async def refused(world: World, given: dict[str, Any]) -> list[str]:
    """The places of the faults, after asserting that nothing was stored."""
    with pytest.raises(InvalidRequest) as e:
        await world.create(given)
    assert (await world.app.registry.load("acme"))[1] == ()
    return [".".join(str(p) for p in issue.loc) for issue in e.value.issues]


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


# -- at writing


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {"type": "string"},
        {"properties": {"a": {"$ref": "https://evil.example/schema.json"}}},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"properties": {"a": {"$ref": "#/$defs/none"}}},
        {"properties": {"a": {"pattern": "("}}},
        {"properties": {"a": {"type": "string", "pattern": "(" * 300 + ")" * 300}}},
        {"properties": {"a": {"pattern": "a{1,9999}{1,9999}{1,9999}"}}},
        {"properties": {"a": {"enum": ["x" * 70_000]}}},
        {"properties": {"a": {"type": "nothing"}}},
        {"properties": {"a": {"minLength": -1}}},
        {"required": "a"},
        nested(40),
    ],
)
async def test_a_hostile_schema_is_refused_when_it_is_written(world: World, schema: dict[str, Any]) -> None:
    places = await refused(world, body(input_schema=schema))
    assert all(place.startswith("body.endpoints.0.input_schema") for place in places)


async def test_a_schema_that_expands_exponentially_costs_nothing(world: World) -> None:
    defs: dict[str, Any] = {"d0": {"type": "string"}}
    for n in range(1, 30):
        part = {"$ref": f"#/$defs/d{n - 1}"}
        defs[f"d{n}"] = {"type": "object", "properties": {"a": part, "b": part}}
    started = time.process_time()
    await world.create(body(input_schema={"$defs": defs, "properties": {"x": {"$ref": "#/$defs/d29"}}}))
    entries, _ = await world.app.toolbox.page(world.owner, None)
    assert time.process_time() - started < 5  # CPU, not the wall
    assert len(json.dumps(next(e for e in entries if e["name"] == "sys_do"))) < 64 * 1024


async def test_a_catastrophic_pattern_does_not_stall_a_call(world: World, upstream: Hostile) -> None:
    schema = {"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    await world.create(body(upstream.url, input_schema=schema))
    started = time.process_time()
    assert "[invalid_arguments]" in await world.call("sys_do", a="a" * 40 + "!")
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("result_template", "{{ a"),
        ("result_template", "{% for %}"),
        ("result_template", "x" * 17_000),
        ("result_key", "a["),
        ("response_mapping", {"a": "]"}),
        ("path", "/x/{a"),
        ("path", "/x/../y"),
        ("path", "/x/%2e%2e/y"),
        ("path", "/x\r\ny"),
        ("path", "https://evil.example/x"),
        ("path", "/x?y=1"),
        ("base_url", "https://user:pass@api.example"),
        ("base_url", "https://api.example\r\nHost: evil"),
        ("base_url", "ftp://api.example"),
        ("headers", {"X-A": "1\r\nX-B: 2"}),
        ("headers", {"X-A\r\nX-B": "1"}),
        ("headers", {"Host": "evil.example"}),
        ("headers", {"Content-Length": "0"}),
        ("headers", {"Transfer-Encoding": "chunked"}),
    ],
)
async def test_what_cannot_work_is_refused_at_its_place(world: World, field: str, value: Any) -> None:
    places = await refused(world, body(**{field: value}))
    assert any(place.startswith(f"body.endpoints.0.{field}") for place in places)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "[fd00:ec2::254]",
        "10.0.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "0.0.0.0",
        "[::]",
    ],
)
async def test_an_address_inside_is_refused_in_any_spelling_when_it_is_written(tmp_path: Path, host: str) -> None:
    async with gateway(tmp_path, network=NetworkPolicy()) as world:
        assert await refused(world, body(f"http://{host}/x")) == ["body.base_url"]
        assert await refused(world, body(FREE, base_url=f"http://{host}/x")) == ["body.endpoints.0.base_url"]


@pytest.mark.parametrize(
    ("first", "second"),
    [(("ab", "c_d"), ("ab_c", "d")), (("ab", "c.d"), ("ab_c", "d")), (("ab", "DO"), ("ab_x", None))],
)
async def test_two_tools_of_one_name_are_refused_also_when_one_is_disabled(
    world: World, first: tuple[str, str], second: tuple[str, str | None]
) -> None:
    one = body(name=first[0])
    one["endpoints"][0]["name"] = first[1]
    two = body(name=second[0] if second[1] else first[0] + "2")
    if second[1]:
        two["endpoints"][0]["name"] = second[1]
    else:
        two = body(name="ab2")
        two["endpoints"] = [{**two["endpoints"][0], "name": n} for n in ("do", "DO")]
    await world.create({**one, "enabled": False})
    with pytest.raises(InvalidRequest, match="which is taken by"):
        await world.create(two)


@pytest.mark.parametrize("name", ["result", "RESULT"])
async def test_the_gateways_own_names_are_refused(world: World, name: str) -> None:
    given = body(name="get")
    given["endpoints"][0]["name"] = name
    assert await refused(world, given) == ["body.endpoints.0.name"]


async def test_the_same_create_twice_is_a_taken_name(world: World) -> None:
    await world.create(body())
    with pytest.raises(NameTaken):
        await world.create(body())


async def test_two_writers_cannot_take_one_tool_name_at_once(world: World) -> None:
    one, two = body(name="ab"), body(name="ab_c")
    one["endpoints"][0]["name"], two["endpoints"][0]["name"] = "c_d", "d"
    done = await asyncio.gather(world.create(one), world.create(two), return_exceptions=True)
    assert sum(isinstance(d, NameTaken | InvalidRequest) for d in done) == 1
    assert len((await world.app.registry.load("acme"))[1]) == 1


# -- arguments


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "/",
        "%2f",
        "%2F",
        "%2e%2e",
        ".%2e",
        "%2E.",
        "../x",
        "a/../b",
        "a/..",
        "..\\x",
        "\\",
        "a//b",
        "..;x",
        ";x",
        "a\r\nb",
        "a%0d%0ab",
        "\x00",
        "%00",
    ],
)
async def test_a_path_argument_that_would_climb_is_refused_and_nothing_is_sent(
    world: World, upstream: Hostile, value: str
) -> None:
    await world.create(body(upstream.url, method="DELETE", path="/x/{id}"))
    text = await world.call("sys_do", id=value)
    assert text.startswith("Not sent: 1 argument does not fit sys_do.\n- id: ")
    assert upstream.received == []


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("a b", "a%20b"),
        ("group/project", "group%2Fproject"),
        ("a?b#c", "a%3Fb%23c"),
        ("...", "..."),
        ("%41", "%2541"),
        ("é", "%C3%A9"),
        ("a\\b", "a%5Cb"),
        ("@evil.example", "%40evil.example"),
    ],
)
async def test_a_path_argument_stays_one_segment(world: World, upstream: Hostile, value: str, sent: str) -> None:
    await world.create(body(upstream.url, path="/x/{id}"))
    await world.call("sys_do", id=value)
    assert upstream.received[0].target == f"/x/{sent}"


async def test_two_values_cannot_climb_together(world: World, upstream: Hostile) -> None:
    await world.create(body(upstream.url, path="/x/{a}{b}"))
    assert "[invalid_arguments]" in await world.call("sys_do", a=".a", b=".") or upstream.received
    await world.create(body(upstream.url, name="sys2", path="/x/.{a}"))
    assert "[invalid_arguments]" in await world.call("sys2_do", a=".")


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\x00b"])
async def test_a_line_break_never_leaves_its_place(world: World, upstream: Hostile, value: str) -> None:
    schema = {"properties": {"h": {"type": "string", "x-in": "header", "x-name": "X-H"}, "q": {"type": "string"}}}
    await world.create(body(upstream.url, input_schema=schema))
    assert "[invalid_arguments]" in await world.call("sys_do", h=value)
    await world.call("sys_do", q=value)
    (only,) = upstream.received
    assert only.header("x-evil") is None
    assert "%0" in only.target


@pytest.mark.parametrize("value", ["\ud800", float("nan"), float("inf"), {"a": ["\udfff"]}])
async def test_what_json_cannot_carry_is_refused(world: World, upstream: Hostile, value: Any) -> None:
    await world.create(body(upstream.url, method="POST"))
    assert "[invalid_arguments]" in await world.call("sys_do", a=value)
    assert upstream.received == []


async def test_arguments_nested_without_end_are_refused(world: World, upstream: Hostile) -> None:
    await world.create(body(upstream.url, method="POST"))
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    assert "[invalid_arguments]" in await world.call("sys_do", a=deep)


# -- answers


async def called(world: World, upstream: Hostile, step: Any, **endpoint: Any) -> str:
    await world.create(body(upstream.url, **endpoint))
    upstream.script("/x", step)
    return await world.call("sys_do")


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (answer(200, b"{", JSON), "invalid_response"),
        (answer(200, b"<html>", JSON), "invalid_response"),
        (answer(200, b'{"a": NaN}', JSON), "invalid_response"),
        (answer(200, b"\xff\xfe", JSON), "invalid_response"),
        (answer(200, b"[" * 100_000, JSON), "invalid_response"),
        (answer(200, b"[" * 300 + b"]" * 300, JSON), "invalid_response"),  # more than an answer of ours could hold
        (answer(200, b'{"a": "\\ud800", "n": 123456789012345678901234}', JSON), "invalid_response"),
        (answer(200, b'{"a": NaN, "n": 123456789012345678901234}', JSON), "invalid_response"),
        (answer(200, b"abc", {"Content-Type": "text/plain; charset=nothing-known"}), "invalid_response"),
        (answer(200, b"\xff", {"Content-Type": "text/plain; charset=utf-8"}), "invalid_response"),
        (answer(200, b"\xff", {"Content-Type": "application/json; charset=utf-16"}), "invalid_response"),
        (answer(200, b"abc", {"Content-Type": "text/plain; charset=base64"}), "invalid_response"),
        # Codecs of Python's that no server means: the first takes time by the square of the length, so hours for 10 MB.
        (
            answer(200, b"a" * 99 + b"-" + b"a" * 99, {"Content-Type": "text/plain; charset=punycode"}),
            "invalid_response",
        ),
        (answer(200, b"a-a", {"Content-Type": "application/json; charset=punycode"}), "invalid_response"),
        (answer(200, b"abc", {"Content-Type": "text/plain; charset=idna"}), "invalid_response"),
        (answer(200, b"+AHM-", {"Content-Type": "text/plain; charset=utf-7"}), "invalid_response"),
        (answer(200, b"\\x41", {"Content-Type": "text/plain; charset=unicode_escape"}), "invalid_response"),
        (answer(200, b"abc", {"Content-Type": "text/plain; charset=undefined"}), "invalid_response"),
        (gzip_bomb(200 * 1024 * 1024), "response_too_large"),
        (gzip_bomb(200 * 1024 * 1024, "deflate"), "response_too_large"),
        (endless({}, b"x" * 65536), "response_too_large"),
        (endless(JSON, b"[" * 65536), "response_too_large"),
        (answer(200, b"not gzip", {"Content-Encoding": "gzip"}), "invalid_response"),
        (answer(200, b"", {"Content-Length": "104857600"}), "response_too_large"),
        (answer(200, b"[" + b"[]," * 1_000_000 + b"0]", JSON), "response_too_large"),
        (answer(200, b"[" + b"[]," * 1_000_000 + b"0]"), "response_too_large"),
        (redirect(302, "http://169.254.169.254/latest/meta-data"), "misconfigured"),
        (redirect(302, "http://[::ffff:169.254.169.254]/"), "misconfigured"),
        (redirect(302, "http://10.0.0.1/"), "misconfigured"),
        (redirect(302, "file:///etc/passwd"), "redirect_refused"),
        (redirect(302, "gopher://127.0.0.1:70/"), "redirect_refused"),
    ],
)
async def test_a_hostile_answer_ends_with_its_code(world: World, upstream: Hostile, step: Any, code: str) -> None:
    text = await called(world, upstream, step, timeout_seconds=20)
    assert code == "any" or f"[{code}]" in text
    assert "Traceback" not in text
    assert "[internal]" not in text


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
async def test_a_template_that_never_ends_is_the_templates_failure(
    world: World, upstream: Hostile, template: str
) -> None:
    text = await called(world, upstream, answer(200, b"{}", JSON), result_template=template)
    assert "[shaping_failed]" in text


async def test_a_redirect_from_a_write_is_not_followed_and_may_have_been_done(world: World, upstream: Hostile) -> None:
    text = await called(world, upstream, redirect(303, "/done"), method="POST")
    assert "MAY have been carried out" in text
    assert [r.path for r in upstream.received] == ["/x"]


async def test_a_name_that_resolves_inside_is_refused_before_any_packet(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path, network=NetworkPolicy()) as world:
        await world.create(body(f"http://localhost:{upstream.port}"))  # a name: judged by what it resolves to
        text = await world.call("sys_do")
    assert "points at an address that isn't allowed here" in text
    assert upstream.connections == 0


# -- the disk


@pytest.fixture
async def quick(tmp_path: Path) -> AsyncIterator[World]:
    """Written to once, so that there is something to lose."""
    async with gateway(tmp_path) as world:
        await world.create(body(name="before"))
        yield world


def database(world: World) -> Path:
    return world.app.settings.home / "registry.db"


async def test_a_locked_database_refuses_the_write_whole_and_calls_go_on(quick: World, upstream: Hostile) -> None:
    await quick.create(body(upstream.url))
    await quick.call("sys_do")
    lock = sqlite3.connect(database(quick))
    lock.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StorageUnavailable, match="locked"):
            await quick.create(
                {**body(name="late"), "auth": {"type": "bearer_token", "bearer_token_value": {"value": "v" * 20}}}
            )
        assert "GET" in await quick.call("sys_do")
    finally:
        lock.rollback()
        lock.close()
    assert {i.name for i in (await quick.app.registry.load("acme"))[1]} == {"before", "sys"}
    assert await quick.app.secrets.paths("/gw/acme") == []


async def test_a_full_disk_refuses_the_write_whole(quick: World) -> None:
    engine = quick.app.registry._database._backend.writes  # pyright: ignore[reportPrivateUsage] - a page limit is per connection
    async with engine.connect() as connection:
        pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar()
        await connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageUnavailable, match="disk is full"):
        await quick.create(
            {
                **body(name="late", description="x" * 8000, result_template="y" * 16000),
                "auth": {"type": "bearer_token", "bearer_token_value": {"value": "v" * 8000}},
            }
        )
    assert [i.name for i in (await quick.app.registry.load("acme"))[1]] == ["before"]
    assert await quick.app.secrets.paths("/gw/acme") == []


async def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StorageUnavailable, match="isn't an SQLite database"):
        async with gateway(tmp_path):
            pass


async def test_all_faults_are_told_at_once(world: World) -> None:
    given = body(path="/x/{", result_template="{{", input_schema={"type": "array"}, headers={"Host": "x"})
    given["endpoints"].append({**given["endpoints"][0], "name": "do"})
    places = await refused(world, given)
    for field in ("path", "result_template", "input_schema"):
        assert any(place.startswith(f"body.endpoints.0.{field}") for place in places), json.dumps(places)
    assert "body.endpoints.1.name" in places
