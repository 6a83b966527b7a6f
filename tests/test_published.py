"""The published schema, row by row: what breaks a host elsewhere, and what is published instead."""

import json
import shutil
import subprocess
from typing import Any

import pytest

from tools.host_rules import check_anthropic, check_gemini, check_openai, check_published
from tools.publish_rules import portable_pattern
from tools.published import PublishRefused, publish
from tools.schemas import check_schema

ANY_ARRAY = {"type": "array", "items": {"type": "string"}}
ANY = {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}, {"type": "object"}, ANY_ARRAY]}


def prop(stored: Any, **root: Any) -> Any:
    """The published form of property `p`."""
    schema = {"properties": {"p": stored}, **root}
    assert check_schema(schema) == []
    published = publish(schema).schema
    for check in (check_published, check_openai, check_anthropic, check_gemini):
        assert check(published) == []
    return published["properties"].get("p")


@pytest.mark.parametrize(
    ("stored", "published"),
    [
        # boolean subschemas
        (True, ANY),
        ({}, ANY),
        (False, None),
        # types
        ({"type": ["string", "null"]}, {"type": "string"}),
        ({"type": ["integer", "string"]}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        ({"type": ["integer", "number"]}, {"type": "number"}),
        ({"type": "null"}, None),
        ({"minLength": 2}, {"type": "string", "minLength": 2}),
        ({"properties": {"a": {"type": "string"}}}, {"type": "object", "properties": {"a": {"type": "string"}}}),
        # const, enum
        ({"const": "a"}, {"type": "string", "enum": ["a"]}),
        ({"const": 5}, {"type": "integer", "description": "Always 5."}),
        ({"enum": ["", "a", None, "b"]}, {"type": "string", "enum": ["a", "b"]}),
        ({"type": "integer", "enum": [1, 2]}, {"type": "integer", "description": "One of: 1 or 2."}),
        # bounds
        (
            {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10},
            {"type": "integer", "minimum": 1, "maximum": 9},
        ),
        ({"type": "integer", "exclusiveMinimum": 0.5, "minimum": 3}, {"type": "integer", "minimum": 3}),
        ({"type": "integer", "minimum": 0.5, "maximum": 2**63 - 1}, {"type": "integer", "minimum": 1}),
        ({"type": "string", "minLength": 1.0, "maxLength": 2**60}, {"type": "string", "minLength": 1}),
        ({"type": "number", "exclusiveMinimum": 0}, {"type": "number", "description": "More than 0."}),
        ({"type": "integer", "multipleOf": 5}, {"type": "integer", "description": "A multiple of 5."}),
        # pattern, format
        ({"type": "string", "pattern": "^[A-Z]{3}-\\d+$"}, {"type": "string", "pattern": "^[A-Z]{3}-\\d+$"}),
        ({"type": "string", "pattern": "(?i)^a$"}, {"type": "string", "description": "Must match (?i)^a$."}),
        (
            {"type": "string", "pattern": "^(?=A)A", "examples": ["ABC"]},
            {"type": "string", "description": 'Example: "ABC".'},
        ),
        ({"type": "string", "format": "date-time"}, {"type": "string", "format": "date-time"}),
        ({"type": "string", "format": "date"}, {"type": "string", "description": "A date like 1987-04-21."}),
        ({"type": "integer", "format": "int64"}, {"type": "integer"}),
        # arrays
        ({"type": "array"}, ANY_ARRAY),
        (
            {"type": "array", "examples": [[1]]},
            {**ANY_ARRAY, "description": "Example: [1].", "items": {"type": "integer"}},
        ),
        (
            {"type": "array", "default": [{}]},
            {**ANY_ARRAY, "description": "Default: [{}].", "items": {"type": "object"}},
        ),
        (
            {"type": "array", "contains": {}, "uniqueItems": True, "items": {"type": "string"}},
            {**ANY_ARRAY, "description": "Each item once."},
        ),
        (
            {"type": "array", "prefixItems": [{"type": "number"}, {"type": "string"}], "items": False},
            {
                "type": "array",
                "description": "Items in this order: number, string.",
                "items": {"anyOf": [{"type": "number"}, {"type": "string"}]},
                "maxItems": 2,
            },
        ),
        (
            {"prefixItems": [{"type": "number"}, {"type": "number"}]},
            {"type": "array", "items": {"type": "number"}},
        ),
        # annotations
        (
            {
                "type": "string",
                "title": "T",
                "$comment": "c",
                "x-foo": 1,
                "deprecated": True,
                "nullable": True,
                "xml": {},
            },
            {"type": "string"},
        ),
        (
            {"type": "string", "description": "Day of birth", "examples": ["1987-04-21"]},
            {"type": "string", "description": 'Day of birth. Example: "1987-04-21".'},
        ),
        (
            {"type": "integer", "description": "Page size.", "default": 20},
            {"type": "integer", "description": "Page size. Default: 20."},
        ),
        # objects
        ({"type": "string", "properties": {"a": {}}, "required": ["a"]}, {"type": "string"}),
        ({"type": "object", "required": ["zz"]}, {"type": "object"}),
        (
            {"type": "object", "additionalProperties": {"type": "integer"}},
            {"type": "object", "additionalProperties": {"type": "integer"}},
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
            {"type": "object", "properties": {"a": {"type": "string"}}},
        ),
        (
            {"type": "object", "patternProperties": {"^x": {}}, "propertyNames": {}, "unevaluatedProperties": False},
            {"type": "object"},
        ),
        # combinations
        (
            {"allOf": [{"type": "string", "minLength": 1}, {"minLength": 3, "maxLength": 9}]},
            {"type": "string", "minLength": 3, "maxLength": 9},
        ),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "string"}),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        ({"anyOf": [{"const": "a"}, {"enum": ["b", "a"]}]}, {"type": "string", "enum": ["a", "b"]}),
        (
            {
                "anyOf": [
                    {
                        "type": "object",
                        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                        "required": ["a", "b"],
                    },
                    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                ]
            },
            {
                "type": "object",
                "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "b": {"type": "string"}},
                "required": ["a"],
            },
        ),
    ],
)
def test_a_property_is_published_as_every_host_takes_it(stored: Any, published: Any) -> None:
    assert prop(stored) == published


def test_alternatives_that_a_property_tells_apart_stay() -> None:
    def kind(name: str) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"kind": {"const": name}, name: {"type": "string"}},
            "required": ["kind"],
        }

    published = prop({"oneOf": [kind("card"), kind("cash")]})
    assert [b["properties"]["kind"]["enum"] for b in published["anyOf"]] == [["card"], ["cash"]]


def test_a_long_enum_is_told_in_part() -> None:
    published = prop({"type": "string", "enum": [f"v{i}" for i in range(60)]})
    assert published["description"].startswith('One of 60 values: "v0", ')
    assert '"v19" and so on.' in published["description"]
    assert "enum" not in published


def test_references_are_inlined_and_siblings_win() -> None:
    published = prop(
        {"$ref": "#/$defs/d", "description": "mine"}, **{"$defs": {"d": {"type": "string", "description": "its"}}}
    )
    assert published == {"type": "string", "description": "mine"}


def test_recursion_is_cut_at_the_third_level() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}
    found, depth = prop({"$ref": "#/$defs/n"}, **{"$defs": {"n": node}}), 0
    while "properties" in found:
        found, depth = found["properties"]["next"], depth + 1
    assert depth == 3
    assert found == {"type": "object", "description": "Nested once more in the same form."}


def test_an_empty_schema_has_properties() -> None:
    assert publish({}).schema == {"type": "object", "properties": {}}


def test_alternatives_at_the_root_become_optional_and_are_told() -> None:
    schema = {
        "properties": {"family": {"type": "string"}},
        "oneOf": [
            {"required": ["family"]},
            {"properties": {"identifier": {"type": "string"}}, "required": ["identifier"]},
        ],
    }
    published = publish(schema)
    assert published.schema == {
        "type": "object",
        "description": "Give only one of family or identifier.",
        "properties": {"family": {"type": "string"}, "identifier": {"type": "string"}},
    }
    assert [w.rule for w in published.warnings] == ["root_combination"]


def test_keys_that_a_provider_refuses_get_an_alias_everywhere() -> None:
    schema = {
        "properties": {
            "filter[name]": {"type": "string"},
            "o": {"type": "object", "properties": {"a.b": {"type": "string"}}, "required": ["a.b"]},
        },
        "required": ["filter[name]"],
    }
    published = publish(schema)
    assert published.schema["required"] == ["filter_name"]
    assert published.schema["properties"]["o"] == {
        "type": "object",
        "properties": {"a_b": {"type": "string"}},
        "required": ["a_b"],
    }
    assert published.aliases == {"filter[name]": "filter_name", "a.b": "a_b"}


def test_fixed_arguments_are_hidden() -> None:
    schema = {"properties": {"key": {"x-fixed": True, "const": 1}, "q": {"type": "string"}}, "required": ["key", "q"]}
    assert publish(schema).schema == {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}


def test_a_path_parameter_is_described_by_the_path() -> None:
    published = publish({}, ["id"], path="/patients/{id}").schema
    assert published["properties"]["id"] == {
        "type": "string",
        "description": "Identifier in the path /patients/{id}; use it exactly as another tool returned it.",
    }
    assert published["required"] == ["id"]


def test_closed_stays_closed_at_the_root_only() -> None:
    assert publish({"properties": {}, "additionalProperties": False}).schema["additionalProperties"] is False
    assert (
        "additionalProperties"
        not in publish({"additionalProperties": {"type": "string"}, "properties": {"a": {}}}).schema
    )


def test_what_is_nested_too_deep_becomes_a_plain_object() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(13):
        schema = {"type": "object", "properties": {"a": schema}}
    published = publish(schema)
    assert check_published(published.schema) == []
    assert "depth" in {w.rule for w in published.warnings}
    found = published.schema
    while "properties" in found:
        found = found["properties"]["a"]
    assert found == {"type": "object", "description": "Its fields are not listed here."}


@pytest.mark.parametrize("kind", ["array", ["array", "integer"]])
def test_arrays_that_are_nested_too_deep_hold_texts(kind: Any) -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(13):
        schema = {"type": kind, "items": schema}
    published = publish({"properties": {"a": schema}})
    assert check_published(published.schema) == []
    assert "Each item as JSON text." in json.dumps(published.schema)


def test_what_is_too_large_loses_its_deep_levels_first() -> None:
    inner = {"type": "object", "properties": {f"f{i}": {"type": "string", "description": "x" * 60} for i in range(40)}}
    schema = {"properties": {f"p{i}": {"type": "object", "properties": {"q": inner}} for i in range(4)}}
    published = publish(schema)
    assert check_published(published.schema) == []
    assert set(published.schema["properties"]) == {"p0", "p1", "p2", "p3"}
    assert "size" in {w.rule for w in published.warnings}


@pytest.mark.parametrize(
    ("schema", "rule"),
    [
        ({"properties": {f"p{i}": {"type": "string"} for i in range(101)}}, "properties"),
        ({"properties": {f"p{i}": {"type": "string", "description": "x" * 200} for i in range(60)}}, "size"),
    ],
)
def test_what_stays_too_large_is_refused(schema: dict[str, Any], rule: str) -> None:
    with pytest.raises(PublishRefused) as caught:
        publish(schema)
    assert caught.value.rule == rule
    assert caught.value.status == 422


PATTERNS = [
    ("^[A-Z]{3}-\\d+$", True),
    ("^[a-z0-9_.-]+$", True),
    ("^(?:a|b)*$", True),
    ("^\\d{4}-\\d{2}-\\d{2}$", True),
    ("^[^,]+$", True),
    ("a\\.b\\/c", True),
    ("^\\S+@\\S+$", True),
    ("(?i)a", False),
    ("(?=a)", False),
    ("(?<n>a)", False),
    ("\\p{L}", False),
    ("a++", False),
    ("\\Aa\\z", False),
    ("[[:alpha:]]", False),
    ("[\\d-x]", False),
    ("a{,3}", False),
    ("{", False),
    ("\\-", False),
    ("^*", False),
    ("(", False),
    ("a**", False),
    ("[z-a]", False),
    ("[+-]?\\d+", True),
    ("[A-Za-z_][\\w.-]*", True),
    ("a" + "b??" * 80 + "\\x", False),
]


@pytest.mark.parametrize(("pattern", "portable"), PATTERNS)
def test_only_patterns_that_every_host_compiles_are_published(pattern: str, portable: bool) -> None:
    assert portable_pattern(pattern) is portable


@pytest.mark.node
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_portable_patterns_compile_in_node_with_mode_u() -> None:
    node = shutil.which("node")
    assert node is not None
    script = "for (const p of process.argv.slice(1)) new RegExp(p, 'u')"
    subprocess.run([node, "-e", script, "--", *(p for p, portable in PATTERNS if portable)], check=True)


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (check_published, {"type": "array"}, "root_object"),
    (check_published, {"type": "object"}, "properties"),
    (check_published, {"type": "object", "properties": {}, "anyOf": [{}, {}]}, "root_combination"),
    (check_published, {"type": "object", "properties": {"a": {"type": "string", "description": "x" * 9000}}}, "size"),
    (check_published, {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(101)}}, "count"),
    *(
        (check_published, {"type": "object", "properties": {name: bad}}, rule)
        for name, bad, rule in (
            ("a", True, "boolean"),
            ("a[b]", {"type": "string"}, "key"),
            ("a", {"type": ["string", "null"]}, "type"),
            ("a", {"$ref": "#/x"}, "type"),
            ("a", {"type": "array"}, "items"),
            ("a", {"type": "string", "const": "a"}, "keyword"),
            ("a", {"type": "integer", "exclusiveMinimum": 1}, "keyword"),
            ("a", {"type": "string", "title": "a"}, "keyword"),
            ("a", {"type": "integer", "maximum": 2**63 - 1}, "bound"),
            ("a", {"type": "string", "minLength": 1.0}, "bound"),
            ("a", {"type": "string", "enum": [""]}, "enum"),
            ("a", {"type": "string", "enum": ["a", "a"]}, "enum"),
            ("a", {"type": "string", "format": "date"}, "format"),
            ("a", {"type": "string", "pattern": "(?=a)"}, "pattern"),
            ("a", {"type": "object", "required": ["b"]}, "required"),
            ("a", {"type": "object", "additionalProperties": False}, "additional"),
            ("a", {"anyOf": [{"type": "string"}]}, "combination"),
            ("a", {"anyOf": [{"type": "string"}, {"type": "integer"}], "type": "string"}, "combination"),
            ("a", {"type": "string", "description": 5}, "description"),
        )
    ),
    (check_openai, {"type": "object"}, "openai_properties"),
    (check_openai, {"type": "string", "properties": {}}, "openai_root"),
    (check_openai, {"type": "object", "properties": {}, "oneOf": []}, "openai_root"),
    (check_openai, {"type": "object", "properties": {"a": {"type": "array"}}}, "openai_items"),
    (check_openai, {"type": "object", "properties": {"a": {"pattern": "(?<!a)"}}}, "openai_pattern"),
    (check_openai, {"type": "object", "properties": {"a": {"$ref": "http://x"}}}, "openai_ref"),
    (check_anthropic, {"type": "object", "allOf": []}, "anthropic_root"),
    (check_anthropic, {"type": "object", "properties": {"a": {"items": {"properties": {"a b": {}}}}}}, "anthropic_key"),
    (check_gemini, {"type": "object", "properties": {"a": {"type": "string", "const": "a"}}}, "gemini_keyword"),
    (check_gemini, {"type": "object", "properties": {"a": {"type": ["string"]}}}, "gemini_type"),
    (check_gemini, {"type": "object", "properties": {"a": {"type": "array"}}}, "gemini_items"),
    (check_gemini, {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}}, "gemini_properties"),
    (check_gemini, {"type": "object", "required": ["a"]}, "gemini_required"),
    (check_gemini, {"type": "object", "properties": {"a": {"type": "integer", "enum": [1]}}}, "gemini_enum"),
    (check_gemini, {"type": "object", "properties": {"a": {"type": "string", "format": "date"}}}, "gemini_format"),
    (check_gemini, {"type": "object", "properties": {"a": {"anyOf": [], "type": "string"}}}, "gemini_any_of"),
    (check_gemini, {"type": "object", "properties": {"a": {"type": "array", "items": True}}}, "gemini_boolean"),
]


@pytest.mark.parametrize(("checker", "schema", "rule"), BAD)
def test_each_rule_of_a_checker_refuses_what_it_is_for(checker: Any, schema: dict[str, Any], rule: str) -> None:
    assert rule in {v.rule for v in checker(schema)}


def test_the_depth_rule_refuses_what_is_too_deep() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(13):
        schema = {"type": "object", "properties": {"a": schema}}
    assert {v.rule for v in check_published(schema)} == {"depth"}
