"""Any accepted schema is published so that every provider takes it, and what only the stored schema refuses is named.

`INTEGRATIONS_MCP_TEST_EXAMPLES=10000` runs them long.
"""

import json
import math
import os
import re
import string
from typing import Any

import jsonschema
import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.arguments import Arguments, Prepared, compile_arguments
from tools.errors import InvalidArguments
from tools.host_rules import check_anthropic, check_gemini, check_openai, check_published
from tools.published import PublishRefused, publish
from tools.schemas import check_schema

EXAMPLES = int(os.environ.get("INTEGRATIONS_MCP_TEST_EXAMPLES", "150"))
examples = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)

NAME_LIST = ["a", "b", "id", "limit", "filter[name]", "filter.name", "filter_name", "größe", "$ref", "x y", "n" * 70]
NAMES = st.sampled_from(NAME_LIST)
SCALARS = st.none() | st.booleans() | st.integers(-100, 100) | st.floats(-9, 9) | st.text(max_size=6)
JSON = st.recursive(SCALARS, lambda c: st.lists(c, max_size=3) | st.dictionaries(NAMES, c, max_size=3), max_leaves=8)
SMALL = st.integers(0, 5)
PATTERNS = st.sampled_from(
    ["^a", "^[A-Z]{3}-\\d+$", "(?i)x", "(?=a)a", "\\p{L}+", "[^,]+", "(a|b)*", "^\\S+$", "(?<n>a)"]
)
FORMATS = st.sampled_from(["date", "date-time", "email", "uri", "uuid", "int64", "odd"])
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "object", "array", "null"])


def optional(**keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keywords)


def extended(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    branches = st.lists(children, min_size=1, max_size=3)
    objects = optional(
        type=st.just("object"),
        properties=st.dictionaries(NAMES, children, max_size=4),
        required=st.lists(NAMES, unique=True, max_size=3),
        additionalProperties=children,
        patternProperties=st.dictionaries(PATTERNS, children, max_size=1),
        minProperties=SMALL,
        dependentRequired=st.dictionaries(NAMES, st.lists(NAMES, unique=True, max_size=2), max_size=1),
        propertyNames=children,
    )
    arrays = optional(
        type=st.just("array"),
        items=children,
        prefixItems=branches,
        contains=children,
        minItems=SMALL,
        uniqueItems=st.booleans(),
    )
    combined = optional(
        anyOf=branches,
        oneOf=branches,
        allOf=branches,
        description=st.text(string.ascii_letters + " .", max_size=20),
        properties=st.dictionaries(NAMES, children, max_size=2),
        **{"not": children, "if": children, "then": children, "else": children},
    )
    return objects | arrays | combined


LEAVES = (
    st.booleans()
    | st.sampled_from([{"$ref": "#/$defs/one"}, {"$ref": "#/$defs/two"}, {"$ref": "#"}])
    | optional(
        type=TYPES | st.lists(TYPES, unique=True, min_size=1, max_size=3),
        minLength=SMALL,
        pattern=PATTERNS,
        format=FORMATS,
        minimum=SCALARS.filter(lambda v: isinstance(v, int | float) and not isinstance(v, bool)),
        exclusiveMaximum=st.floats(-5, 50),
        multipleOf=st.sampled_from([1, 2, 0.5]),
        enum=st.lists(SCALARS, min_size=1, max_size=4),
        const=SCALARS,
        examples=st.lists(JSON, max_size=1),
        description=st.text(max_size=20),
        nullable=st.booleans(),
    )
)
SUBSCHEMAS = st.recursive(LEAVES, extended, max_leaves=12)
SCHEMAS = st.builds(
    lambda root, one, two: {**root, "type": "object", "$defs": {"one": one, "two": two}},
    extended(SUBSCHEMAS),
    SUBSCHEMAS,
    SUBSCHEMAS,
)


@given(SCHEMAS)
@examples
def test_an_accepted_schema_is_published_for_every_provider(schema: dict[str, Any]) -> None:
    if check_schema(schema, ("id",)):
        return
    published, refused = attempt(schema)
    if published is None:
        assert refused in ("size", "properties")
        return
    for check in (check_published, check_openai, check_anthropic, check_gemini):
        assert check(published) == []
    jsonschema.Draft202012Validator.check_schema(published)


def attempt(schema: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    try:
        return publish(schema, ("id",), path="/things/{id}").schema, ""
    except PublishRefused as error:
        return None, error.rule


@given(SCHEMAS, st.data())
@examples
def test_what_only_the_stored_schema_refuses_gets_a_text_that_names_the_argument(
    schema: dict[str, Any], data: st.DataObject
) -> None:
    if check_schema(schema):
        return
    try:
        published = publish(schema).schema
    except PublishRefused:
        return
    values = data.draw(fitting(published))
    assert jsonschema_rs.is_valid(published, values)
    arguments = compile_arguments(schema)
    prepared, error = outcome(arguments, values)
    if prepared is not None:
        assert arguments.prepare(prepared.values).values == prepared.values
        return
    known = {*arguments.names, *values, *schema.get("properties", {}), *NAME_LIST}
    assert error is not None
    for fault in error.faults:
        assert fault.where == "arguments" or begins_with_one_of(known, fault.where), fault
        assert 0 < len(fault.what) < 2000
    told = [
        f
        for f in error.faults
        if f.where != "arguments" or mentions_one_of({*arguments.names, *values, *NAME_LIST}, f.what)
    ]
    assert told or not values, error.faults


def begins_with_one_of(names: set[str], where: str) -> bool:
    return any(where == name or where.startswith((f"{name}.", f"{name}[")) for name in names if name)


def mentions_one_of(names: set[str], text: str) -> bool:
    return any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) for name in names if name)


def fitting(published: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Instances of a published schema, whose keywords are few."""
    if "anyOf" in published:
        return st.one_of([fitting(branch) for branch in published["anyOf"]])
    low, high = published.get("minimum"), published.get("maximum")
    if low is not None and high is not None and low > high:
        return st.nothing()
    match published["type"]:
        case "string" if "enum" in published:
            return st.sampled_from(published["enum"])
        case "string":
            text = st.text(min_size=published.get("minLength", 0), max_size=max(published.get("minLength", 0), 8))
            if "pattern" in published:
                text = st.sampled_from(["ABC-1", "a", "a,b", "aa", "x y", ""]) | text
            if published.get("format") == "date-time":
                text = st.sampled_from(["2024-05-31T14:30:00Z", "2024-05-31T14:30:00+02:00"])
            return text.filter(lambda value: jsonschema_rs.is_valid(published, value))
        case "integer":
            return st.integers(low, high)
        case "number":
            return st.floats(low, high, allow_nan=False, allow_infinity=False) | st.integers(
                None if low is None else math.ceil(low), None if high is None else math.floor(high)
            )
        case "boolean":
            return st.booleans()
        case "array":
            least = published.get("minItems", 0)
            most = min(published.get("maxItems", least + 2), least + 2)
            return (
                st.nothing() if least > most else st.lists(fitting(published["items"]), min_size=least, max_size=most)
            )
        case _:
            properties = {name: fitting(sub) for name, sub in published.get("properties", {}).items()}
            required = published.get("required", [])
            listed = st.fixed_dictionaries(
                {n: v for n, v in properties.items() if n in required},
                optional={n: v for n, v in properties.items() if n not in required},
            )
            further = published.get("additionalProperties", True)
            if properties or further is False:
                return listed
            return st.dictionaries(NAMES, fitting(further) if isinstance(further, dict) else JSON, max_size=2)


def outcome(arguments: Arguments, values: dict[str, Any]) -> tuple[Prepared | None, InvalidArguments | None]:
    try:
        return arguments.prepare(values), None
    except InvalidArguments as error:
        return None, error


@given(
    st.recursive(
        SCALARS | st.floats(),
        lambda c: (
            st.lists(c, max_size=4)
            | st.dictionaries(
                st.text(max_size=12)
                | st.sampled_from(
                    [
                        "type",
                        "properties",
                        "$ref",
                        "anyOf",
                        "items",
                        "required",
                        "pattern",
                        "enum",
                        "x-in",
                        "x-name",
                        "x-fixed",
                        "x-body",
                        "default",
                        "allOf",
                        "not",
                        "$defs",
                    ]
                ),
                c,
                max_size=4,
            )
        ),
        max_leaves=25,
    )
)
@examples
def test_no_hostile_json_as_schema_raises(value: Any) -> None:
    faults = check_schema(value, ("id",))
    for fault in faults:
        assert fault.message
        assert fault.rule
    if not faults:
        publish(value, ("id",), path="/x/{id}")
        compile_arguments(value, ("id",))


@given(
    st.dictionaries(st.text(max_size=8) | NAMES, JSON | st.floats() | st.text(st.characters(), max_size=5), max_size=5)
)
@examples
def test_no_hostile_arguments_raise_anything_but_the_documented_error(values: dict[str, Any]) -> None:
    arguments = compile_arguments(
        {
            "properties": {
                "a": {"type": "integer"},
                "b": {"type": "array", "items": {"type": "object", "properties": {"filter[name]": {"enum": ["x", 1]}}}},
                "limit": {"oneOf": [{"type": "integer", "minimum": 1}, {"type": "string", "format": "date"}]},
            },
            "required": ["a"],
        }
    )
    prepared, error = outcome(arguments, values)
    if prepared is None:
        assert error is not None
        assert error.faults
        return
    assert jsonschema_rs.is_valid(arguments.schema, prepared.values)
    json.dumps(prepared.values, allow_nan=False).encode()


@pytest.mark.parametrize("checker", [check_published, check_openai, check_anthropic, check_gemini])
def test_every_checker_can_refuse(checker: Any) -> None:
    assert (
        checker({"type": "object", "anyOf": [{"required": ["a"]}], "properties": {"filter[a]": {"type": ["x"]}}}) != []
    )
