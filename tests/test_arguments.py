"""Arguments are repaired by the schema, or refused with words that a model can act on."""

from typing import Any

import pytest

from tools.arguments import compile_arguments
from tools.errors import InvalidArguments

PATIENTS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "family": {"type": "string", "description": "Surname (family name)"},
        "birthdate": {"type": "string", "format": "date"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
        "active": {"type": "boolean"},
        "status": {"type": "string", "enum": ["planned", "booked", "done"]},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "code": {"type": "integer"},
                    "filter[by]": {"type": "string"},
                    "unit": {"default": "mg"},
                },
                "required": ["code"],
            },
        },
    },
    "required": ["family"],
}


def faults(schema: dict[str, Any], args: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidArguments) as caught:
        compile_arguments(schema).prepare(args)
    return [f"{f.where}: {f.what}" for f in caught.value.faults]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"family": "x", "birthdate": "21.04.1987"}, 'birthdate: "21.04.1987" is not a date like 1987-04-21.'),
        ({"family": "x", "surname": "y"}, "surname: no such argument; did you mean family?"),
        ({"family": "x", "birthDate": "1987-04-21"}, "birthDate: no such argument; did you mean birthdate?"),
        ({"family": "x", "zebra": 1}, "zebra: no such argument."),
        ({"family": "x", "limit": 5000}, "limit: 5000 is more than 100."),
        ({"family": "x", "limit": 0}, "limit: 0 is less than 1."),
        ({"family": "x", "limit": "many"}, 'limit: "many" is not an integer.'),
        ({"family": 5}, "family: 5 is not a string."),
        ({"family": None}, "family: null is not a string."),
        ({}, "family: required, but missing."),
        (
            {"family": "x", "status": "book"},
            'status: "book" is not one of "planned", "booked" or "done". Did you mean "booked"?',
        ),
        ({"family": "x", "items": [{"code": 1}, {}]}, "items[1].code: required, but missing."),
        ({"family": "x", "items": [{"code": 1, "filter_by": 7}]}, "items[0].filter_by: 7 is not a string."),
    ],
)
def test_a_fault_is_told_in_words_with_the_published_name(args: dict[str, Any], said: str) -> None:
    assert faults(PATIENTS, args) == [said]


def test_all_faults_are_told_at_once() -> None:
    said = faults(PATIENTS, {"limit": 5000, "surname": "x", "birthdate": "yesterday"})
    assert {s.split(":")[0] for s in said} == {"limit", "surname", "birthdate", "family"}


def test_the_accepted_names_come_with_the_faults_in_the_order_of_the_schema() -> None:
    with pytest.raises(InvalidArguments) as caught:
        compile_arguments(PATIENTS).prepare({})
    assert caught.value.accepted == ("family", "birthdate", "limit", "active", "status", "items")


def test_a_long_enum_shows_ten_values() -> None:
    schema = {"properties": {"unit": {"enum": [f"u{i}" for i in range(30)]}}}
    (said,) = faults(schema, {"unit": "zzz"})
    assert '"u9" and 20 more' in said
    assert '"u10"' not in said


def test_a_long_value_is_shortened() -> None:
    (said,) = faults({"properties": {"n": {"type": "integer"}}}, {"n": "x" * 5000})
    assert said.startswith('n: "xxxx')
    assert len(said) < 120


def test_control_characters_of_a_value_are_escaped() -> None:
    (said,) = faults({"properties": {"n": {"enum": ["a"]}}}, {"n": "a\r\n\u202e\x1b[31m"})
    assert said.isprintable()


def test_a_hundred_wrong_items_end_in_a_summary() -> None:
    said = faults({"properties": {"n": {"items": {"type": "integer"}}}}, {"n": ["x"] * 100})
    assert len(said) == 21
    assert said[-1] == "arguments: more faults like these."


@pytest.mark.parametrize(
    ("rule", "args", "said"),
    [
        ({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {}, "arguments: give a or b."),
        ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {}, "arguments: give a or b."),
        (
            {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {"a": 1, "b": 2},
            "arguments: fits several forms that exclude each other: leave out some of a, b.",
        ),
        ({"not": {"required": ["a", "b"]}}, {"a": 1, "b": 2}, "arguments: is not allowed like this: a, b."),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, "b: required together with what you gave, but missing."),
        ({"minProperties": 1}, {}, "arguments: has 0 fields; at least 1 of a, b are needed."),
    ],
)
def test_a_rule_over_several_arguments_names_them(rule: dict[str, Any], args: dict[str, Any], said: str) -> None:
    assert faults({"properties": {"a": {}, "b": {}}, **rule}, args) == [said]


def test_alternatives_of_other_types_are_told_as_types() -> None:
    schema = {"properties": {"when": {"anyOf": [{"type": "integer"}, {"type": "boolean"}]}}}
    assert faults(schema, {"when": "soon"}) == ['when: "soon" is not an integer or true or false.']


def test_of_alternatives_the_closest_one_speaks() -> None:
    cash = {"type": "object", "properties": {"kind": {"const": "cash"}}, "required": ["kind"]}
    card = {
        "type": "object",
        "properties": {"kind": {"const": "card"}, "number": {"type": "string"}},
        "required": ["kind", "number"],
    }
    said = faults({"properties": {"pay": {"oneOf": [cash, card]}}}, {"pay": {"kind": "card"}})
    assert any(s.startswith("pay.") for s in said)


def test_an_example_helps_with_a_pattern() -> None:
    schema = {"properties": {"code": {"pattern": "^[A-Z]{3}$", "examples": ["ABC"]}}}
    assert faults(schema, {"code": "x"}) == ['code: "x" does not match the pattern ^[A-Z]{3}$. Example: "ABC".']


# --------------------------------------------------------------------------- repair


@pytest.mark.parametrize(
    ("args", "values", "changed"),
    [
        ({"limit": "5"}, {"limit": 5}, "limit: text read as integer"),
        ({"active": "true"}, {"active": True}, "active: text read as boolean"),
        ({"birthdate": None}, {}, "birthdate: null left out"),
        ({"items": '[{"code": 1}]'}, {"items": [{"code": 1, "unit": "mg"}]}, "items: text read as array"),
        ({"items": [{"code": "1"}]}, {"items": [{"code": 1, "unit": "mg"}]}, "items[0].code: text read as integer"),
        ({"items": ['{"code": 1}']}, {"items": [{"code": 1, "unit": "mg"}]}, "items[0]: text read as object"),
    ],
)
def test_what_was_meant_is_read_by_the_schema_and_named(
    args: dict[str, Any], values: dict[str, Any], changed: str
) -> None:
    prepared = compile_arguments(PATIENTS).prepare({"family": "x", **args})
    assert prepared.values == {"family": "x", "limit": 20, **values}
    assert prepared.changes == (changed,)


@pytest.mark.parametrize("text", ["5", "true", "null", "[1]", '{"a": 1}'])
def test_text_stays_text_where_the_schema_has_a_string(text: str) -> None:
    prepared = compile_arguments({"properties": {"a": {"type": ["string", "integer"]}, "b": {}}}).prepare(
        {"a": text, "b": text}
    )
    assert prepared.values == {"a": text, "b": text}
    assert prepared.changes == ()


@pytest.mark.parametrize("text", ["5.5", "NaN", "Infinity", "five", "", "True", "[" * 100_000, "9" * 5000])
def test_text_that_is_no_such_value_is_left_and_refused(text: str) -> None:
    (said,) = faults({"properties": {"n": {"type": "integer"}}}, {"n": text}) if text != "9" * 5000 else ("n:",)
    assert said.startswith("n:")


def test_null_stays_where_the_schema_has_it() -> None:
    prepared = compile_arguments({"properties": {"a": {"type": ["string", "null"]}, "b": {}}}).prepare(
        {"a": None, "b": None}
    )
    assert prepared.values == {"a": None, "b": None}


def test_null_in_a_nested_optional_property_is_left_out() -> None:
    schema = {"properties": {"p": {"type": "object", "properties": {"q": {"type": "string"}}}}}
    assert compile_arguments(schema).prepare({"p": {"q": None}}).values == {"p": {}}


def test_repair_sees_through_references_and_branches() -> None:
    schema = {
        "properties": {"p": {"$ref": "#/$defs/p"}, "q": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
        "$defs": {"p": {"allOf": [{"type": "object", "properties": {"n": {"type": "number"}}}]}},
    }
    prepared = compile_arguments(schema).prepare({"p": '{"n": "1.5"}', "q": "7"})
    assert prepared.values == {"p": {"n": 1.5}, "q": 7}


# --------------------------------------------------------------------------- names, defaults, fixed values


def test_aliases_become_stored_names_at_all_levels() -> None:
    schema = {
        "properties": {
            "filter[name]": {"type": "string"},
            "list": {"items": {"properties": {"x.y": {"properties": {"größe": {"type": "integer"}}}}}},
        }
    }
    arguments = compile_arguments(schema)
    prepared = arguments.prepare({"filter_name": "a", "list": [{"x_y": {arguments.aliases["größe"]: 5}}]})
    assert prepared.values == {"filter[name]": "a", "list": [{"x.y": {"größe": 5}}]}


def test_a_stored_name_is_taken_too() -> None:
    assert compile_arguments({"properties": {"filter[name]": {}}}).prepare({"filter[name]": 1}).values == {
        "filter[name]": 1
    }


def test_unknown_arguments_pass_where_the_schema_says_so() -> None:
    for schema in ({}, {"type": "object"}, {"properties": {"a": {}}, "additionalProperties": True}):
        assert compile_arguments(schema).prepare({"zebra": 1}).values == {"zebra": 1}


@pytest.mark.parametrize("schema", [{"properties": {}}, {"properties": {"a": {}}}, {"additionalProperties": False}])
def test_unknown_arguments_are_refused_elsewhere(schema: dict[str, Any]) -> None:
    assert faults(schema, {"zebra": 1}) == ["zebra: no such argument."]


def test_properties_behind_a_reference_are_listed_too() -> None:
    schema = {"$ref": "#/$defs/d", "$defs": {"d": {"allOf": [{"properties": {"family": {}}}]}}}
    assert faults(schema, {"famly": 1}) == ["famly: no such argument; did you mean family?"]


def test_nested_unknown_fields_follow_the_schema_alone() -> None:
    prop = {"type": "object", "properties": {"code": {}}}
    assert compile_arguments({"properties": {"p": prop}}).prepare({"p": {"x": 1}}).values == {"p": {"x": 1}}
    closed = {"properties": {"p": {**prop, "additionalProperties": False}}}
    assert faults(closed, {"p": {"cod": 1}}) == ["p.cod: no such argument; did you mean code?"]


def test_missing_optional_arguments_take_their_default_and_each_call_its_own_copy() -> None:
    arguments = compile_arguments({"properties": {"tags": {"type": "array", "default": ["a"]}}})
    arguments.prepare({}).values["tags"].append("b")
    assert arguments.prepare({}).values == {"tags": ["a"]}


def test_a_given_value_wins_over_the_default() -> None:
    assert compile_arguments(PATIENTS).prepare({"family": "x", "limit": 3}).values["limit"] == 3


def test_fixed_values_are_set_and_cannot_be_given() -> None:
    schema = {"properties": {"key": {"x-fixed": True, "const": 7}, "q": {}}, "required": ["key"]}
    assert compile_arguments(schema).prepare({"q": 1}).values == {"q": 1, "key": 7}
    assert faults(schema, {"key": 7}) == ["key: no such argument."]
    assert compile_arguments(schema).names == ("q",)


def test_a_fixed_value_cannot_be_given_to_an_open_schema_either() -> None:
    schema = {"properties": {"key": {"x-fixed": True, "const": 7}}, "additionalProperties": True}
    assert faults(schema, {"key": 8, "other": 1}) == ["key: no such argument."]


def test_a_path_parameter_is_a_required_argument() -> None:
    arguments = compile_arguments({}, ["id"], path="/patients/{id}")
    assert arguments.schema["properties"]["id"]["description"] == (
        "Identifier in the path /patients/{id}; use it exactly as another tool returned it."
    )
    with pytest.raises(InvalidArguments):
        arguments.prepare({})
    assert arguments.prepare({"id": "998", "free": 1}).values == {"id": "998", "free": 1}


def test_a_path_parameter_under_another_name_is_not_added_again() -> None:
    arguments = compile_arguments({"properties": {"patient": {"x-in": "path", "x-name": "id"}}}, ["id"])
    assert arguments.names == ("patient",)
    assert arguments.schema["required"] == ["patient"]


# --------------------------------------------------------------------------- hostile values


@pytest.mark.parametrize(
    "value", ["\ud800", float("nan"), float("inf"), {"\udfff": 1}, ["a", {"b": "\ud800"}], {"a": float("-inf")}]
)
def test_what_json_cannot_carry_is_refused(value: Any) -> None:
    (said,) = faults({}, {"a": value})
    assert said.startswith("a: holds ")


def test_a_name_that_is_not_unicode_is_refused() -> None:
    assert faults({}, {"\ud800": 1}) == ["arguments: holds text that is not valid Unicode."]


def test_nesting_beyond_the_limit_is_refused() -> None:
    value: Any = 1
    for _ in range(50_000):
        value = [value]
    assert faults({}, {"a": value}) == ["a: is nested deeper than 32 levels."]


def test_a_catastrophic_pattern_ends_with_a_text() -> None:
    schema = {"properties": {"a": {"pattern": "^(a+)+\\1$"}}}
    (said,) = faults(schema, {"a": "a" * 30_000 + "b"})
    assert said.startswith("a: ")


def test_a_schema_that_doubles_with_each_level_takes_shallow_arguments_only() -> None:
    branch = {"items": {"$ref": "#/$defs/d"}}
    schema = {"properties": {"a": {"$ref": "#/$defs/d"}}, "$defs": {"d": {"allOf": [branch, branch, branch]}}}
    value: Any = []
    for _ in range(20):
        value = [value]
    (said,) = faults(schema, {"a": value})
    assert "nested deeper" in said


def test_preparing_prepared_values_changes_nothing() -> None:
    arguments = compile_arguments(PATIENTS)
    once = arguments.prepare({"family": "x", "limit": "5", "items": '[{"code": "3"}]', "birthdate": None})
    again = arguments.prepare(once.values)
    assert again.values == once.values
    assert again.changes == ()


def test_many_unknown_arguments_are_not_each_compared_with_all_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr(
        "tools.arguments.unknown_text", lambda name, _known: compared.append(name) or "no such argument."
    )
    arguments = compile_arguments({"type": "object", "properties": {"a": {"type": "string"}}})
    with pytest.raises(InvalidArguments) as refused:
        arguments.prepare({f"b{n}": 1 for n in range(1000)})
    assert len(compared) == 20
    assert refused.value.faults[-1].what == "more faults like these."


def test_of_large_arguments_the_first_fault_is_told_and_not_all_are_made() -> None:
    arguments = compile_arguments({"type": "object", "properties": {"a": {"type": "array", "items": {"enum": ["x"]}}}})
    for many, told in ((30, 21), (5000, 1)):
        with pytest.raises(InvalidArguments) as refused:
            arguments.prepare({"a": ["y"] * many})
        assert len(refused.value.faults) == told
        assert refused.value.faults[0].where == "a[0]"
    assert arguments.prepare({"a": ["x"] * 5000}).values == {"a": ["x"] * 5000}
