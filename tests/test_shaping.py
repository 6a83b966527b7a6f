"""Stages 2 to 5 of "From a response to a result": the worked examples, what is refused when written, what fails when called."""

import json
from pathlib import Path
from typing import Any

import pytest

from tools.errors import ShapingFailed
from tools.models import EndpointConfig
from tools.shaping import ShapeSyntaxError, compile_shaper, shape

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "shaping.json").read_text("utf-8"))[
    "cases"
]
FIELDS = ("response_filter", "response_mapping", "result_key", "result_template")
PATIENT = {"id": "e1", "family": "Berg", "given": ["Ann"], "meta": {"versionId": "2"}}


def endpoint(**fields: Any) -> EndpointConfig:
    return EndpointConfig(name="e", description="", path="/", **fields)


def text(raw: Any, args: dict[str, Any] | None = None, **fields: Any) -> str:
    return shape(compile_shaper(endpoint(**fields)), args or {}, raw).text


def failure(raw: Any, **fields: Any) -> ShapingFailed:
    with pytest.raises(ShapingFailed) as e:
        text(raw, **fields)
    return e.value


@pytest.mark.parametrize("case", VECTORS, ids=[case["name"] for case in VECTORS])
def test_a_worked_example_gives_every_stage(case: dict[str, Any]) -> None:
    shaper = compile_shaper(endpoint(**{name: case[name] for name in FIELDS if name in case}))
    expected = case["expect"]
    if "error_stage" in expected:
        with pytest.raises(ShapingFailed) as e:
            shape(shaper, case.get("args", {}), case["raw"])
        assert e.value.stage == expected["error_stage"]
        reached: Any = e.value.partial
    else:
        reached = shape(shaper, case.get("args", {}), case["raw"])
        assert reached.text == expected["final_result"]
    # Compared as JSON text: the order of names counts.
    assert json.dumps(reached.after_filter) == json.dumps(expected["after_filter"])
    assert json.dumps(reached.after_mapping) == json.dumps(expected["after_mapping"])


@pytest.mark.parametrize(
    ("paths", "raw", "kept"),
    [
        (["a.0", "a.2"], {"a": [1, 2, 3]}, {"a": [1, 3]}),
        (["a.9"], {"a": [1]}, {}),
        (["a.0.x", "a.y"], {"a": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}, {"a": [{"x": 1, "y": 2}, {"y": 4}]}),
        (["x"], [[{"x": 1, "y": 2}], [{"y": 3}]], [[{"x": 1}]]),
        (["a.x"], {"a": [{}, 1, {"x": None}]}, {"a": [{}, {"x": None}]}),
        (
            ["*.x", "a.y"],
            {"a": {"x": 1, "y": 2, "z": 3}, "b": {"x": 4, "y": 5}},
            {"a": {"x": 1, "y": 2}, "b": {"x": 4}},
        ),
        (["*"], {"a": 1, "b": None}, {"a": 1, "b": None}),
        (["7"], {"7": 1, "8": 2}, {"7": 1}),
        (["@odata.nope", "$ref", "x-y"], {"$ref": 1, "x-y": 2, "z": 3}, {"$ref": 1, "x-y": 2}),
        (["a"], [1, 2], []),
        (["a"], None, None),
        (["a"], "", ""),
        (["0"], [5, 6], [5]),
    ],
)
def test_a_filter_keeps_only_its_paths(paths: list[str], raw: Any, kept: Any) -> None:
    before = json.dumps(raw)
    assert shape(compile_shaper(endpoint(response_filter=paths)), {}, raw).after_filter == kept
    assert json.dumps(raw) == before


@pytest.mark.parametrize(
    ("expression", "raw", "found"),
    [
        ("a.*.b", {"a": {"x": {"b": 1}, "y": {"b": [2, 3]}, "z": 4}}, [1, 2, 3]),
        ("a.b.0", {"a": [{"b": [1, 2]}, {"b": [3]}, {"b": []}]}, [1, 3]),
        ("a.9", {"a": [1]}, None),
        ("a.b", {"a": "text"}, None),
        ("a", None, None),
        ("@", {"a": 1}, {"a": 1}),
        ("length(@)", "four", 4),
        ("a || `7`", {"a": None}, 7),
        ("a < b", {"a": 1, "b": "x"}, None),
        ("to_string(@)", {"a": ["é"]}, '{"a":["é"]}'),
        ("sort_by(@, &n)[*].n", [{"n": 2}, {"n": 1}], [1, 2]),
    ],
)
def test_an_expression_picks(expression: str, raw: Any, found: Any) -> None:
    assert shape(compile_shaper(endpoint(response_mapping={"x": expression})), {}, raw).value == {"x": found}


@pytest.mark.parametrize(
    ("template", "raw", "expected"),
    [
        ("{% for k, v in meta.items() %}{{ k }}={{ v }}{% endfor %}", PATIENT, "versionId=2"),
        ("{{ meta.get('nope', '-') }} {{ meta.keys() | join }} {{ meta.values() | join }}", PATIENT, "- versionId 2"),
        ("{{ meta }} {{ given }}", PATIENT, '{"versionId":"2"} ["Ann"]'),
        ("{{ result.result }} {{ args | length }} {{ result.args }}", {"result": 1, "args": 2}, "1 0 2"),
        ("{{ result.self }} {{ result.range }}", {"range": 1, "self": 2}, "2 1"),
        ("{{ n | times(2) }} {{ n | plus(n) }} {{ n + 1 }} {{ 1 + n }} {{ n - n }}", {"n": 3}, "6 6 4 4 0"),
        ("{% for i in range(3) %}{{ i }}{% endfor %}", {}, "012"),
        ("{{ given[1:] }}{{ given[::-1] }}", {"given": [1, 2]}, "[2][2, 1]"),
        ("{{ 'a\\nb' | indent(2) }} {{ 'a\\nb' | indent(2, true) }}", {}, "a\n  b   a\n  b"),
        ("{{ x }}", {"x": 2**64}, "18446744073709551616"),
        ("{{ a }} {{ b }}", {"a": None, "b": True}, "None True"),
        ("{{ result | tojson }}", {"a": "<é'"}, '{"a": "<é\'"}'),
        ("{{ ['a', 'b'] | join('*') }} 2 * 3 + 4", {}, "a*b 2 * 3 + 4"),
        ("{{ name.upper() }}", {"name": "ann"}, "ANN"),
    ],
)
def test_a_template_writes(template: str, raw: Any, expected: str) -> None:
    assert text(raw, result_template=template) == expected


@pytest.mark.parametrize(
    ("template", "expression", "available", "told"),
    [
        (
            "{{ familly }}",
            "familly",
            ("id", "family", "given", "meta"),
            "'familly' is undefined (line 1); there are id, family, given, meta",
        ),
        ("{{ meta.nope.x }}", "meta.nope", ("versionId",), "'meta.nope' is undefined (line 1); there are versionId"),
        ("\n{{ result.meta.nope }}", "result.meta.nope", ("versionId",), "line 2"),
        ("{{ args.q }}", "args.q", (), "'args.q' is undefined"),
        ("{{ meta.items }}", "", (), ".items()"),
        ("{{ meta.clear }}", "meta.clear", ("versionId",), "'meta.clear' is undefined"),
        ("{{ meta.__class__ }}", "meta.__class__", ("versionId",), "is undefined"),
        ("{{ meta._value }}", "meta._value", ("versionId",), "is undefined"),
        ("{% set i = meta.items() %}{{ i.clear }}", "i.clear", (), "is undefined"),
        ("{{ given.append(1) }}", "", (), "'append' is undefined"),
        ("{{ family | nofilter }}", "nofilter", (), "filter nofilter is unknown"),
        ("{{ 1 / 0 }}", "1 / 0", (), "unable to calculate"),
        ("{% include 'x' %}", "include 'x'", (), "non-existing template"),
        ("{{ given | times(3) }}", "", (), "numbers"),
    ],
)
def test_a_template_that_fails_says_what_and_what_was_there(
    template: str, expression: str, available: tuple[str, ...], told: str
) -> None:
    e = failure(PATIENT, result_template=template)
    assert (e.stage, e.expression, e.available) == ("result_template", expression or template, available)
    assert told in e.message
    assert e.partial.value == PATIENT


def test_a_template_cannot_change_the_answer() -> None:
    raw = {"m": {"a": 1}, "l": [1]}
    for hostile in (
        "{{ m.clear() }}",
        "{{ m['clear']() }}",
        "{{ l.append(2) }}",
        "{{ (m | attr('pop'))('a') }}",
        "{{ m.update({'b': 2}) }}",
    ):
        failure(raw, result_template=hostile)
    assert raw == {"m": {"a": 1}, "l": [1]}


@pytest.mark.parametrize(
    ("fields", "stage", "expression"),
    [
        ({"response_filter": ["a", "b.c"]}, "response_filter", "a, b.c"),
        ({"response_mapping": {"x": "a.b"}}, "response_mapping", "a.b"),
        ({"response_mapping": {"x": "abs(@)"}}, "response_mapping", "abs(@)"),
        ({"result_key": "a"}, "result_key", "a"),
    ],
)
def test_a_path_over_text_is_an_error_of_its_stage(fields: dict[str, Any], stage: str, expression: str) -> None:
    e = failure("plain text", **fields)
    assert (e.stage, e.expression) == (stage, expression)
    assert e.partial.raw == "plain text"


def test_all_faults_are_told_at_once_with_their_places() -> None:
    with pytest.raises(ShapeSyntaxError) as e:
        compile_shaper(
            endpoint(
                response_filter=["ok", "a..b", "x[0]"],
                response_mapping={"good": "a", "bad": "a[", "worse": "nofunction(a)"},
                result_key="length()",
                result_template="{{ f }",
            )
        )
    assert [f.field for f in e.value.faults] == [
        ("response_filter", 1),
        ("response_filter", 2),
        ("response_mapping", "bad"),
        ("response_mapping", "worse"),
        ("result_key",),
        ("result_template",),
    ]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"response_mapping": {"id": "a", "name": "b"}, "response_filter": ["x"]}, ("id", "name")),
        ({"response_filter": ["entry.resource.id", "total", "name.0", "data.*", "other.id"]}, ("id", "total")),
        ({"response_filter": ["id"], "result_template": "x"}, ()),
        ({"response_filter": ["id"], "result_key": "id"}, ()),
        ({}, ()),
    ],
)
def test_the_names_of_a_result_are_those_of_the_mapping_or_the_filter(
    fields: dict[str, Any], names: tuple[str, ...]
) -> None:
    shaper = compile_shaper(endpoint(**fields))
    assert shaper.names == names
    assert shaper.shapes is bool(fields)


def test_numbers_that_json_cannot_hold_are_null_and_long_ones_keep_their_digits() -> None:
    assert text({"x": "nan"}, response_mapping={"x": "to_number(x)"}) == '{"x":null}'
    assert text({"x": 10**30}) == '{"x":1000000000000000000000000000000}'


def test_an_answer_nested_too_deeply_is_a_failure_not_a_crash() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    for fields in (
        {},
        {"response_filter": [".".join("a" * 60)]},
        {"response_mapping": {"x": "to_string(@)"}},
        {"result_template": "{{ result }}"},
        {"result_template": "{{ result | tojson }}"},
    ):
        with pytest.raises(ShapingFailed):
            text(deep, **fields)
    arrays: Any = 1
    for _ in range(100_000):
        arrays = [arrays]
    for fields in ({"response_filter": ["a"]}, {"response_mapping": {"x": "a.b"}}):
        with pytest.raises(ShapingFailed):
            text(arrays, **fields)
