"""A stored schema with a fault is refused when it is written, and the fault says where."""

from typing import Any

import pytest

from tools.arguments import compile_arguments
from tools.schemas import check_schema

DEEP: Any = {}
for _ in range(40):
    DEEP = {"items": DEEP}


@pytest.mark.parametrize(
    ("schema", "rule", "loc"),
    [
        (None, "root_object", ()),
        ([], "root_object", ()),
        ({"type": "array"}, "root_object", ("type",)),
        ({"type": ["object", "null"]}, "root_object", ("type",)),
        ({"properties": {"a": DEEP}}, "depth", None),
        ({"description": "x" * 70_000}, "size", ()),
        ({"default": float("nan")}, "json", ("default",)),
        ({"description": "\ud800"}, "json", ()),
        ({"properties": {"a": {"type": "text"}}}, "json_schema", ("properties", "a", "type")),
        ({"required": "a"}, "json_schema", ("required",)),
        ({"properties": {"a": {"exclusiveMinimum": True}}}, "json_schema", ("properties", "a", "exclusiveMinimum")),
        ({"properties": {"a": {"items": [{}]}}}, "json_schema", ("properties", "a", "items")),
        ({"properties": {"a": {"$ref": "http://127.0.0.1:1/x"}}}, "ref", ("properties", "a", "$ref")),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "ref", ("properties", "a", "$ref")),
        ({"properties": {"a": {"$ref": "other.json#/x"}}}, "ref", ("properties", "a", "$ref")),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "ref", ("properties", "a", "$ref")),
        ({"properties": {"a": {"$ref": "#/properties"}}}, "ref", ("properties", "a", "$ref")),
        ({"properties": {"a": {"$id": "http://x/y"}}}, "ref", ("properties", "a", "$id")),
        ({"properties": {"a": {"$dynamicRef": "#x"}}}, "ref", ("properties", "a", "$dynamicRef")),
        ({"$ref": "#"}, "ref", ()),
        ({"properties": {"a": {"$ref": "#/properties/b"}, "b": {"allOf": [{"$ref": "#/properties/a"}]}}}, "ref", ()),
        ({"properties": {"a": {"pattern": "["}}}, "pattern", ("properties", "a", "pattern")),
        ({"properties": {"a": {"pattern": "((a{1,500}){1,500}){1,500}"}}}, "pattern", ("properties", "a", "pattern")),
        (
            {"properties": {"a": {"patternProperties": {"(": {}}}}},
            "pattern",
            ("properties", "a", "patternProperties", "("),
        ),
        ({"properties": {"a": {"pattern": "a" * 600}}}, "pattern", ("properties", "a", "pattern")),
        ({"properties": {f"p{i}": {"pattern": f"^{i}$"} for i in range(101)}}, "pattern", ()),
        ({"properties": {"a": {"x-in": "cookie"}}}, "x_in", ("properties", "a", "x-in")),
        ({"properties": {"a": {"x-in": "path"}}}, "x_in", ("properties", "a", "x-in")),
        ({"properties": {"id": {"x-in": "query"}}}, "x_in", ("properties", "id", "x-in")),
        (
            {"properties": {"a": {"x-in": "header", "x-name": "X-A\r\nHost: b"}}},
            "x_name",
            ("properties", "a", "x-name"),
        ),
        ({"properties": {"a": {"x-in": "header", "x-name": "a b"}}}, "x_name", ("properties", "a", "x-name")),
        ({"properties": {"a": {"x-in": "header", "x-name": "Host"}}}, "x_name", ("properties", "a", "x-name")),
        ({"properties": {"a": {"x-name": 5}}}, "x_name", ("properties", "a", "x-name")),
        ({"properties": {"a": {"x-name": "b"}, "b": {}}}, "x_name", ("properties", "b", "x-name")),
        (
            {"properties": {"a": {"x-in": "header", "x-name": "X-A"}, "b": {"x-in": "header", "x-name": "x-a"}}},
            "x_name",
            ("properties", "b", "x-name"),
        ),
        ({"properties": {"a": {"properties": {"b": {"x-in": "query"}}}}}, "x_in", None),
        ({"properties": {"a": {"x-body": True}, "b": {"x-body": True}}}, "x_body", ("properties", "b")),
        ({"properties": {"a": {"x-body": True}, "b": {"x-in": "body"}}}, "x_body", ("properties", "b")),
        ({"properties": {"a": {"x-body": True, "x-in": "query"}}}, "x_body", ("properties", "a", "x-body")),
        ({"properties": {"a": {"x-fixed": True}}}, "x_fixed", ("properties", "a", "x-fixed")),
        ({"properties": {"a": {"x-fixed": "yes", "default": 1}}}, "x_fixed", ("properties", "a", "x-fixed")),
        ({"properties": {"a": {"x-sensitive": 1}}}, "x_sensitive", ("properties", "a", "x-sensitive")),
        ({"properties": {"a": {"type": "integer", "default": "x"}}}, "default", ("properties", "a", "default")),
        ({"properties": {"a": {"default": "x", "format": "date"}}}, "default", ("properties", "a", "default")),
        ({"properties": {"family": {}}, "required": ["famly"]}, "required", ("required", 0)),
    ],
)
def test_a_schema_with_a_fault_is_refused_at_its_place(
    schema: Any, rule: str, loc: tuple[str | int, ...] | None
) -> None:
    found = check_schema(schema, ("id",))
    assert rule in {f.rule for f in found}
    if loc is not None:
        assert loc in {f.loc for f in found if f.rule == rule}


def test_a_schema_nested_beyond_any_stack_is_refused() -> None:
    endless: Any = {}
    for _ in range(100_000):
        endless = {"items": endless}
    assert [f.rule for f in check_schema(endless)] == ["depth"]


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$id": "http://example.com/x",
            "properties": {"a": {"$ref": "#"}},
        },
        {"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"items": {"$ref": "#/$defs/n"}}}},
        {"properties": {"a": {"pattern": "(?=.*x)y"}, "b": {"pattern": "(a+)+$"}, "c": {"pattern": "\\p{L}{1,10}"}}},
        {"properties": {"$ref": {"type": "string"}, "x-in": {"type": "string"}}},
        {"properties": {"a": {"x-in": "header", "x-name": "X-A"}, "b": {"x-in": "query", "x-name": "X-A"}}},
        {
            "properties": {
                "doc": {"x-body": True},
                "id": {"x-in": "path"},
                "v": {"x-in": "header", "x-name": "If-Match"},
            }
        },
        {"properties": {"a": {"x-fixed": True, "default": None}}},
        {"required": ["a"]},
    ],
)
def test_a_good_schema_has_no_fault_and_compiles(schema: dict[str, Any]) -> None:
    assert check_schema(schema, ("id",)) == []
    compile_arguments(schema, ("id",))


def test_a_schema_that_expands_without_end_is_refused() -> None:
    defs: dict[str, Any] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)}
    assert [
        f.rule for f in check_schema({"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**defs, "d30": {}}})
    ] == ["ref"]


def test_a_chain_of_references_that_is_too_long_is_refused() -> None:
    defs: dict[str, Any] = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(1500)}
    assert [
        f.rule for f in check_schema({"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**defs, "d1500": {}}})
    ] == ["ref"]


def test_a_long_chain_of_references_that_comes_round_at_every_level_is_measured_without_a_deep_stack() -> None:
    defs: dict[str, Any] = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(20)}
    schema = {"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**defs, "d20": {"items": {"$ref": "#/$defs/d0"}}}}
    assert check_schema(schema) == []
    compile_arguments(schema)


def test_a_recursive_schema_with_many_branches_compiles_at_once() -> None:
    branch = {"type": "object", "properties": {k: {"$ref": "#/$defs/d"} for k in "abcdefgh"}}
    schema = {"properties": {"p": {"anyOf": [branch, {**branch, "description": "other"}]}}, "$defs": {"d": branch}}
    assert check_schema(schema) == []
    assert compile_arguments(schema).prepare({"p": {"a": {"b": '{"c": {}}'}}}).values == {"p": {"a": {"b": {"c": {}}}}}


def test_a_wrong_required_name_says_which_was_meant() -> None:
    (fault,) = check_schema({"properties": {"family": {}}, "required": ["famly"]})
    assert fault.message == "famly is not in properties; did you mean family?"


def test_at_most_twenty_faults_are_told() -> None:
    assert len(check_schema({"properties": {f"p{i}": {"type": "text"} for i in range(100)}})) == 20


def test_a_wrong_type_is_told_with_the_types_there_are() -> None:
    faults = check_schema({"type": "object", "properties": {"a": {"type": "strin"}}})
    assert [f.loc for f in faults] == [("properties", "a", "type")]
    assert "'string'" in faults[0].message
