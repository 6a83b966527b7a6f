"""Whatever arguments are sent, the upstream receives exactly them: read back by the schema from what arrived (semantics, "From arguments to a request").

`INTEGRATIONS_MCP_TEST_EXAMPLES=10000` runs it long.
"""

import asyncio
import json
import os
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, unquote_plus

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.upstreams import Hostile, Received
from tools.address_guard import NetworkPolicy
from tools.arguments import compile_arguments
from tools.errors import InvalidArguments
from tools.kinds.paths import parse_path
from tools.kinds.rest import PlanRefused, RestPlan, compile_rest
from tools.models import EndpointConfig
from tools.schemas import check_schema
from tools.upstream import Request, Upstream

EXAMPLES = int(os.environ.get("INTEGRATIONS_MCP_TEST_EXAMPLES", "150"))
quietly = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

NAMES = ["a", "b", "id", "q", "filter[name]", "größe", "x y", "a.b", "A", "$top", "n&m=1", "100%", "limit"]
HEADERS = ["X-One", "x-two", "Prefer", "Accept", "Idempotency-Key"]
LITERALS = ["items", "v 1", "a.b", "ü", "x:y", "%2Fraw", "(n)", "..."]
TEXT = st.text(max_size=8) | st.sampled_from(
    ["", "a b", "a+b", "a&b=c", "a/b", "%2e", "null", "true", "5", "\r\n", "ü€😀", "#?;\\"]
)
PATH_TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8) | st.sampled_from(
    ["a b", "group/project", "%41", "%252e%252e", "x#y", "a?b", "50%", "a+b", "é", ";x=1", "..."]
)
HEADER_TEXT = st.text(string.ascii_letters + string.digits + string.punctuation + " ", max_size=8).map(str.strip)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers()
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXT,
    "integer": st.integers(),
    "number": NUMBERS,
    "boolean": st.booleans(),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@dataclass(frozen=True)
class Case:
    endpoint: EndpointConfig
    args: dict[str, Any]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """An endpoint that can be written, and arguments that its schema takes."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]))
    form = draw(st.booleans())
    default_is_body = method in ("POST", "PUT", "PATCH")
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5))
    whole = draw(st.booleans()) and not form
    properties: dict[str, Any] = {}
    args: dict[str, Any] = {}
    params: list[str] = []
    for number, name in enumerate(names):
        places = ["query", "header", "path", "body", None]
        place = draw(st.sampled_from(places))
        goes = place or ("body" if default_is_body else "query")
        if goes == "body" and whole and any(p.get("x-body") for p in properties.values()):
            place = goes = "query"
        sub: dict[str, Any] = {} if place is None else {"x-in": place}
        match goes:
            case "path":
                wire = (
                    draw(st.sampled_from([f"p{number}", None]))
                    if re.fullmatch(r"[A-Za-z0-9_.$-]+", name)
                    else f"p{number}"
                )
                if wire:
                    sub["x-name"] = wire
                params.append(wire or name)
                kind = draw(st.sampled_from(["string", "integer", "number", "boolean"]))
                values = PATH_TEXT if kind == "string" else SCALARS[kind]
            case "header":
                sub["x-name"] = HEADERS[number]
                kind = draw(st.sampled_from([*SCALARS, "object", "array"]))
                values = (
                    HEADER_TEXT
                    if kind == "string"
                    else SCALARS.get(kind, st.just({"k": [1]}) if kind == "object" else st.just([1, "x"]))
                )
            case "body" if whole:
                sub["x-body"] = True
                kind, values = "any", JSON
            case "body" if not form:
                kind, values = "any", JSON
            case _:
                kind = draw(st.sampled_from([*SCALARS, "array", "object"]))
                values = SCALARS.get(kind, st.dictionaries(TEXT, JSON, max_size=2))
        if kind == "array" and goes != "header":
            items = draw(st.sampled_from(list(SCALARS)))
            sub["items"] = {"type": items}
            values = st.lists(SCALARS[items], max_size=3)
        if kind != "any":
            sub["type"] = kind
        if goes not in ("path", "header") and draw(st.booleans()) and "x-body" not in sub:
            sub["x-name"] = f"wire {number}"
        value = draw(values)
        if draw(st.integers(0, 4)) == 0:
            sub["default"] = value
            sub["x-fixed"] = draw(st.booleans())
        elif goes == "path" or draw(st.integers(0, 4)) > 0:
            args[name] = value
        properties[name] = sub
    if any("x-body" in sub for sub in properties.values()):  # then every other one says where it goes
        for sub in properties.values():
            if "x-body" not in sub:
                sub.setdefault("x-in", "query")
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if "body" not in [p.get("x-in") for p in properties.values()] and draw(st.booleans()):
        schema["additionalProperties"] = True
        if not any(p.get("x-body") for p in properties.values()):
            args.update(draw(st.dictionaries(st.sampled_from(["extra", "ex&tra"]), TEXT, max_size=2)))
    literals = draw(st.lists(st.sampled_from(LITERALS), min_size=len(params), max_size=len(params) + 2))
    shuffled = draw(st.permutations(params))
    path = "".join(f"/{text}" + (f"/{{{shuffled[i]}}}" if i < len(shuffled) else "") for i, text in enumerate(literals))
    endpoint = EndpointConfig(
        name="e", description="d", method=method, path=path, input_schema=schema, body_format="form" if form else "json"
    )
    return Case(endpoint, args)


def build(case: Case, base: str) -> tuple[Request, dict[str, Any], RestPlan]:
    names = parse_path(case.endpoint.path).names
    assert check_schema(case.endpoint.input_schema, names) == []
    arguments = compile_arguments(case.endpoint.input_schema, names)
    plan = compile_rest(case.endpoint, base, arguments.schema)
    aliased = {arguments.aliases.get(name, name): value for name, value in case.args.items()}
    values = arguments.prepare(aliased).values
    return plan.build(values, "5e2f"), values, plan


def expected(case: Case) -> dict[str, Any]:
    values = dict(case.args)
    for name, sub in case.endpoint.input_schema["properties"].items():
        if sub.get("x-fixed") or (name not in values and "default" in sub):
            values[name] = sub["default"]
    return values


def typed(text: str, sub: Mapping[str, Any]) -> Any:
    match sub.get("type", "string"):
        case "integer":
            return int(text)
        case "number":
            return float(text) if re.search(r"[.eE]", text) else int(text)
        case "boolean":
            return {"true": True, "false": False}[text]
        case "object" | "array":
            return json.loads(text)
        case _:
            return text


def read_back(
    case: Case, method: str, target: str, headers: list[tuple[str, str]], body: bytes | None
) -> dict[str, Any]:
    """The arguments, from what arrived and the stored schema alone."""
    endpoint, properties = case.endpoint, case.endpoint.input_schema["properties"]
    assert method == endpoint.method
    found: dict[str, Any] = {}
    default = "body" if method in ("POST", "PUT", "PATCH") else "query"
    by_place: dict[str, dict[str, str]] = {"path": {}, "query": {}, "header": {}, "body": {}}
    for name, sub in properties.items():
        by_place[sub.get("x-in", default)][sub.get("x-name", name)] = name

    path, _, query = target.partition("?")
    template = re.split(r"\{([^{}]*)\}", endpoint.path)
    segments = path.removeprefix("/base").split("/")
    shape = endpoint.path.split("/")
    assert len(segments) == len(shape), "the URL keeps its segments"
    for got, told in zip(segments, shape, strict=True):
        if told.startswith("{"):
            name = by_place["path"][told.strip("{}")]
            found[name] = typed(unquote(got, errors="strict"), properties[name])
        else:
            assert unquote(got) == unquote(told)
    assert len(template) // 2 == len(by_place["path"])

    def pairs(text: str, decode: Any, place: str) -> None:
        many: dict[str, list[str]] = {}
        for pair in text.split("&") if text else []:
            key, _, value = pair.partition("=")
            many.setdefault(decode(key), []).append(decode(value))
        for wire, texts in many.items():
            name = by_place[place].get(wire, wire)
            sub = properties.get(name, {})
            if sub.get("type") == "array":
                found[name] = [typed(t, sub["items"]) for t in texts]
            else:
                (only,) = texts
                found[name] = typed(only, sub)

    pairs(query, unquote, "query")
    for wire, name in by_place["header"].items():
        texts = [value for key, value in headers if key.lower() == wire.lower()]
        if texts and not (name not in expected(case) and wire in ("Accept", "Idempotency-Key")):
            (only,) = texts
            found[name] = typed(only, properties[name])
    if body:
        whole = next((n for n, s in properties.items() if s.get("x-body")), None)
        if endpoint.body_format == "form":
            pairs(body.decode(), unquote_plus, "body")
        elif whole is not None:
            found[whole] = json.loads(body)
        else:
            found.update({by_place["body"].get(wire, wire): value for wire, value in json.loads(body).items()})
    return found


def same(found: dict[str, Any], wanted: dict[str, Any], case: Case) -> bool:
    """Equal, null and empty arrays aside outside of JSON bodies."""
    in_json = {
        name
        for name in {*found, *wanted}
        if case.endpoint.body_format == "json"
        and (
            case.endpoint.input_schema["properties"].get(name, {}).get("x-in")
            or ("body" if case.endpoint.method in ("POST", "PUT", "PATCH") else "query")
        )
        == "body"
    }
    given = {n: v for n, v in wanted.items() if n in in_json or v not in (None, [])}
    return json.dumps(found, sort_keys=True) == json.dumps(given, sort_keys=True)


@given(cases())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=quietly)
def test_what_is_sent_reads_back_as_the_arguments_given(case: Case) -> None:
    assume(all(climbs_nowhere(v) for v in expected(case).values()))
    request, _, _ = build(case, "https://api.example/base")
    target = request.url.removeprefix("https://api.example")
    assert request.url.startswith("https://api.example/base")
    assert request.url.isascii()
    assert same(read_back(case, request.method, target, list(request.headers), request.body), expected(case), case)


def climbs_nowhere(value: Any) -> bool:
    """Text that can stand in a path (what can't is refused, see test_bad_input.py)."""
    if not isinstance(value, str):
        return True
    parts = [p for text in (value, unquote(value)) for p in re.split(r"[/\\]", text)]
    return all(p.partition(";")[0] not in ("", ".", "..") for p in parts) and all(
        ord(c) > 31 and ord(c) != 127 for c in value + unquote(value)
    )


def test_what_arrives_over_a_socket_reads_back_as_the_arguments_given() -> None:
    with asyncio.Runner() as runner:
        server, upstream = runner.run(Hostile().__aenter__()), Upstream(NetworkPolicy(allow_private=True))

        @given(cases())
        @settings(max_examples=max(50, EXAMPLES // 20), deadline=None, suppress_health_check=quietly, database=None)
        def each(case: Case) -> None:
            assume(all(climbs_nowhere(v) for v in expected(case).values()))
            request, _, _ = build(case, server.url + "/base")
            runner.run(upstream.send(request, pool="w"))
            got: Received = server.received[-1]
            headers = [(n, v) for n, v in got.headers]
            assert same(read_back(case, got.method, got.target, headers, got.body), expected(case), case)
            if request.body is None:
                assert got.body == b""

        each()
        runner.run(upstream.aclose())
        runner.run(server.__aexit__(None, None, None))


def endpoint(**fields: Any) -> EndpointConfig:
    return EndpointConfig(**{"name": "e", "description": "d", "method": "GET", "path": "/x", **fields})


def plan_of(made: EndpointConfig) -> RestPlan:
    arguments = compile_arguments(made.input_schema, parse_path(made.path).names)
    return compile_rest(made, "https://api.example", arguments.schema)


@pytest.mark.parametrize(
    "fields",
    [
        {"headers": {"X-Integrations-Mcp-Hops": "0"}},
        {"input_schema": {"properties": {"a": {"x-in": "header", "x-name": "x-integrations-mcp-hops"}}}},
        {"headers": {"X-A": "1"}, "input_schema": {"properties": {"a": {"x-in": "header", "x-name": "x-a"}}}},
        {"input_schema": {"properties": {"a": {}, "b": {"x-in": "query", "x-name": "a"}}}},
        {"method": "POST", "input_schema": {"properties": {"a": {}, "b": {"x-in": "body", "x-name": "a"}}}},
        {"path": "/x/{id}", "input_schema": {"properties": {"id": {"x-in": "query"}}}},
        {"path": "/x/{id}", "input_schema": {"properties": {"id": {"x-name": "other"}}}},
    ],
)
def test_an_endpoint_whose_arguments_would_overwrite_each_other_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(PlanRefused):
        plan_of(endpoint(**fields))


@pytest.mark.parametrize(
    ("fields", "args"),
    [
        ({"input_schema": {"properties": {"a": {"x-name": "b"}}, "additionalProperties": True}}, {"a": "1", "b": "2"}),
        (
            {"method": "POST", "input_schema": {"properties": {"a": {"x-body": True}}, "additionalProperties": True}},
            {"a": {"k": 1}, "more": 2},
        ),
        ({"input_schema": {"properties": {"a": {"x-in": "header", "x-name": "X-A"}}}}, {"a": " padded"}),
        ({"input_schema": {"properties": {"a": {"x-in": "header", "x-name": "X-A"}}}}, {"a": "x\r\nEvil: 1"}),
        ({"input_schema": {"properties": {"a": {"x-in": "header", "x-name": "X-A"}}}}, {"a": "größe"}),
    ],
)
def test_an_argument_that_could_not_arrive_as_it_is_is_refused(fields: dict[str, Any], args: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments):
        plan_of(endpoint(**fields)).build(args)


@pytest.mark.parametrize(
    ("fields", "args", "body", "content_type"),
    [
        ({"method": "POST"}, {}, None, None),
        ({"method": "POST", "body_format": "form"}, {"a": None}, None, None),
        (
            {"method": "POST", "body_format": "form"},
            {"a": "x y", "b": [1, 2]},
            b"a=x+y&b=1&b=2",
            "application/x-www-form-urlencoded",
        ),
        ({"method": "POST"}, {"a": None}, b'{"a":null}', "application/json"),
        (
            {"method": "POST", "headers": {"Content-Type": "application/json-patch+json"}},
            {"a": 1},
            b'{"a":1}',
            "application/json-patch+json",
        ),
        ({"method": "POST"}, {"a": 2**80}, b'{"a":1208925819614629174706176}', "application/json"),
        (
            {"method": "POST", "body_format": "form", "input_schema": {"properties": {"w": {"x-body": True}}}},
            {"w": [True]},
            b"[true]",
            "application/x-www-form-urlencoded",
        ),
    ],
)
def test_a_body_is_sent_only_where_there_is_something_to_send(
    fields: dict[str, Any], args: dict[str, Any], body: bytes | None, content_type: str | None
) -> None:
    request = plan_of(endpoint(**fields)).build(args)
    assert request.body == body
    assert [v for n, v in request.headers if n.lower() == "content-type"] == ([content_type] if content_type else [])


@pytest.mark.parametrize(("given_args", "sent"), [({"key": "mine"}, ["mine"]), ({}, ["ours"])])
def test_the_endpoints_own_idempotency_key_wins_where_it_is_given(given_args: dict[str, Any], sent: list[str]) -> None:
    made = endpoint(
        method="POST", input_schema={"properties": {"key": {"x-in": "header", "x-name": "Idempotency-Key"}}}
    )
    request = plan_of(made).build(given_args, "ours")
    assert [v for n, v in request.headers if n.lower() == "idempotency-key"] == sent
