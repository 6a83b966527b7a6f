"""Schemas that are accepted and that some host, provider or SDK can't take as they stand; what a call of each sends, by stored names.

`SHAPES` are of one property, `ROOTS` whole schemas. `HOSTILE` puts each shape in two places: at the root, and in an object or,
behind a reference, in the items of an array; each time under a name that some provider refuses.
"""

from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

ODD_NAMES = (
    "filter[v]", "a.b", "größe", "$v", "x y", "n" * 70, "@id", "v/1", "名前", "🙂", "v:w", "a,b", "#v", "%5Bv%5D", "v'\"", "\\v", "-", "~1v", "*",
    "__proto__", "constructor", "toString",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """`sent` fits the stored schema; `given` is what a model gives for it by the published one, where that differs by more than names."""

    schema: Any
    sent: Any
    defs: dict[str, Any] = field(default_factory=dict[str, Any])
    given: Any = None

    @property
    def written(self) -> Any:
        return self.sent if self.given is None else self.given


def text(**more: Any) -> dict[str, Any]:
    return {"type": "string", **more}


def obj(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **more}


def nested(depth: int, leaf: Any) -> Any:
    for _ in range(depth):
        leaf = {"a": leaf}
    return leaf


def nested_schema(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = text()
    for _ in range(depth):
        schema = obj({"a": schema})
    return schema


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


TREE = obj({"value": text(), "children": {"type": "array", "items": ref("tree")}})
CARD = obj({"kind": {"const": "card"}, "number": text()}, required=["kind", "number"])
CASH = obj({"kind": {"const": "cash"}, "coins": {"type": "integer"}}, required=["kind"])
PATTERNS = {
    "flags": ("(?i)^abc$", "ABC"), "lookahead": ("^(?=.*[0-9]).+$", "a1"), "lookbehind": ("(?<=a)b", "ab"), "named_group": ("(?P<y>[0-9]{4})", "2024"),
    "letters": ("^\\p{L}+$", "ä"), "anchors": ("\\Aabc\\z", "abc"), "posix": ("^[[:alpha:]]+$", "a]"), "back_reference": ("(a)\\1", "aa"),
    "escaped_hyphen": ("^\\-$", "-"), "not_followed": ("^a(?!b)", "ac"), "intersection": ("^[a-z&&[^b]]$", "c]"), "long": (f"^({'|'.join(f'v{i}' for i in range(100))})$", "v7"),
}  # fmt: skip
FORMATS = {
    "date": "1987-04-21", "time": "14:30:00Z", "duration": "P3D", "email": "ann@example.com", "idn-email": "ann@example.com", "uri": "https://example.com/a",
    "uuid": "123e4567-e89b-12d3-a456-426614174000", "ipv4": "192.0.2.1", "ipv6": "2001:db8::1", "hostname": "example.com", "regex": "^a$", "json-pointer": "/a/b",
    "byte": "aGk=", "binary": "x", "password": "p", "phone": "+31 20",
}  # fmt: skip

SHAPES: dict[str, Row] = {
    # booleans and nothing at all
    "true": Row(True, "x"),
    "anything": Row({}, 5),
    "only_a_description": Row({"description": "Anything."}, {"k": [1, None]}),
    # types
    "type_or_null": Row({"type": ["string", "null"]}, "s"),
    "integer_or_text": Row({"type": ["integer", "string"]}, 5),
    "object_array_null": Row({"type": ["object", "array", "null"]}, {"k": 1}),
    "every_type": Row({"type": ["array", "boolean", "integer", "null", "number", "object", "string"]}, False),
    "openapi_nullable": Row(text(nullable=True), "s"),
    "no_type_but_length": Row({"minLength": 2}, "ab"),
    "no_type_but_properties": Row({"properties": {"a": text()}}, {"a": "x"}),
    # const and enum
    "const_text": Row({"const": "a"}, "a"),
    "const_number": Row({"const": 5}, 5),
    "const_object": Row({"const": {"a": [1]}}, {"a": [1]}),
    "const_true": Row({"const": True}, True),
    "enum_of_all_types": Row({"enum": ["a", 1, None, True]}, 1),
    "enum_with_empty_text": Row({"enum": ["", "a", "b"]}, "b"),
    "enum_of_500": Row(text(enum=[f"v{i}" for i in range(500)]), "v499"),
    "enum_of_integers": Row({"type": "integer", "enum": [1, 2]}, 2),
    "enum_of_objects": Row({"enum": [{"a": 1}, {"b": 2}]}, {"b": 2}),
    "enum_of_unicode": Row({"enum": ["ä", "名", "\u2028"], "title": "T"}, "\u2028"),
    # numbers
    "exclusive_integer": Row({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10}, 9),
    "exclusive_number": Row({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
    "multiple_of_a_cent": Row({"type": "number", "multipleOf": 0.01}, 19.99),
    "int64": Row({"type": "integer", "format": "int64", "minimum": -(2**63), "maximum": 2**63 - 1}, 2**53 - 1),
    "double": Row({"type": "number", "format": "double", "maximum": 1e308}, 1.5e300),
    # text
    **{f"pattern_{name}": Row(text(pattern=pattern), value) for name, (pattern, value) in PATTERNS.items()},
    **{f"format_{name}": Row(text(format=name), value) for name, value in FORMATS.items()},
    "length_as_a_float": Row(text(minLength=1.0, maxLength=2**60, title="T"), "x"),
    "content_encoding": Row(text(contentEncoding="base64", contentMediaType="image/png"), "aGk="),
    # arrays
    "array_without_items": Row({"type": "array"}, ["a"]),
    "array_of_true": Row({"type": "array", "items": True}, [1, "a"]),
    "tuple": Row({"type": "array", "prefixItems": [{"type": "number"}, text()], "items": False}, [1.5, "a"]),
    "tuple_with_a_rest": Row({"type": "array", "prefixItems": [text()], "items": {"type": "integer"}}, ["a", 1, 2]),
    "pair_of_numbers": Row({"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}]}, [4.9, 52.4]),
    "contains_and_unique": Row({"type": "array", "items": text(), "contains": {"const": "a"}, "uniqueItems": True}, ["b", "a"]),
    "array_of_tuples": Row({"type": "array", "items": {"type": "array", "prefixItems": [text(), {"type": "boolean"}]}}, [["a", True]]),
    # objects
    "pattern_properties": Row({"type": "object", "patternProperties": {"^x": {"type": "integer"}}}, {"x1": 1}),
    "property_names": Row({"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}}, {"abc": 1}),
    "unevaluated": Row({"allOf": [obj({"a": text()})], "unevaluatedProperties": False}, {"a": "x"}),
    "map_beside_properties": Row(obj({"a": text()}, additionalProperties={"type": "integer"}), {"a": "x", "b": 1}),
    "map_of_maps": Row({"additionalProperties": {"additionalProperties": {"type": ["integer", "null"]}}}, {"a": {"b": 1}}),
    "closed_inside": Row(obj({"a": text()}, additionalProperties=False), {"a": "x"}),
    "at_least_two": Row({"type": "object", "minProperties": 2}, {"a": 1, "b": 2}),
    "dependent_required": Row(obj({"a": text(), "b": text()}, dependentRequired={"a": ["b"]}), {"a": "x", "b": "y"}),
    "dependent_schemas": Row(obj({"a": text()}, dependentSchemas={"a": {"required": ["b"]}}), {"a": "x", "b": 1}),
    "required_but_unknown": Row({"type": "object", "required": ["zz"]}, {"zz": 1}),
    "empty_properties": Row({"type": "object", "properties": {}}, {"a": 1}),
    "properties_of_a_text": Row(text(properties={"a": text()}, required=["a"]), "x"),
    "never": Row(obj({"never": False, "a": text()}), {"a": "x"}),
    "odd_inside_odd": Row(obj({"a[b]": obj({"c.d": text()}, required=["c.d"])}), {"a[b]": {"c.d": "x"}}),
    "two_names_one_alias": Row(obj({"a.b": text(), "a[b]": text(), "a_b": text()}), {"a.b": "1", "a[b]": "2", "a_b": "3"}),
    "twelve_levels": Row(nested_schema(12), nested(12, "x")),
    # alternatives
    "any_of_null": Row({"anyOf": [text(), {"type": "null"}]}, "s"),
    "one_of_types": Row({"oneOf": [text(), {"type": "integer"}]}, 5),
    "one_of_consts": Row({"oneOf": [{"const": "a", "title": "A"}, {"const": "b", "description": "B"}]}, "b"),
    "seven_objects": Row({"anyOf": [obj({f"p{i}": text()}, required=[f"p{i}"]) for i in range(7)]}, {"p6": "x"}),
    "discriminated": Row({"oneOf": [CARD, CASH], "discriminator": {"propertyName": "kind"}}, {"kind": "cash", "coins": 2}),
    "alternatives_in_alternatives": Row({"anyOf": [{"anyOf": [text(), {"type": "integer"}]}, {"type": "boolean"}]}, True),
    "all_of": Row({"allOf": [text(minLength=1), {"maxLength": 9}]}, "abc"),
    "all_of_any_of": Row({"allOf": [{"anyOf": [text(), {"type": "integer"}]}, {"not": {"const": "x"}}]}, "y"),
    "not": Row({"type": "string", "not": {"enum": ["a"]}}, "b"),
    "if_then_else": Row(obj({"a": text(), "b": text()}) | {"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {}}, {"a": "1", "b": "2"}),
    "required_alternatives": Row(obj({"a": text(), "b": text()}, anyOf=[{"required": ["a"]}, {"required": ["b"]}]), {"b": "x"}),
    "one_or_many": Row({"oneOf": [text(), {"type": "array", "items": text()}]}, ["a"]),
    # references
    "ref_with_siblings": Row({**ref("d"), "description": "mine", "minLength": 2}, "ab", {"d": text(description="its")}),
    "chain_of_refs": Row(ref("c0"), "x", {**{f"c{i}": ref(f"c{i + 1}") for i in range(15)}, "c15": text(title="end")}),
    "tree": Row(ref("tree"), {"value": "r", "children": [{"value": "c", "children": []}]}, {"tree": TREE}),
    "two_that_hold_each_other": Row(ref("p"), {"q": {"p": {"q": {}}}}, {"p": obj({"q": ref("q")}), "q": obj({"p": ref("p")})}),
    "escaped_ref": Row({"$ref": "#/$defs/a~1b%25"}, "x", {"a/b%": text(title="odd")}),
    "definitions": Row({"$ref": "#/$defs/old/definitions/x"}, "x", {"old": {"definitions": {"x": text(id="x")}}}),
    # annotations of other drafts and of OpenAPI
    "openapi_words": Row(text(example="e", xml={"name": "x"}, externalDocs={"url": "u"}, deprecated=True, readOnly=True), "x"),
    "vendor_words": Row(text(title="T", **{"x-foo": {"y": 1}, "$comment": "c"}), "x"),
    "draft_3": Row({"type": "integer", "divisibleBy": 2, "disallow": "string", "extends": {}}, 3),
    "draft_7_dependencies": Row(obj({"a": text()}, dependencies={"a": ["b"]}), {"a": "x", "b": "y"}),
    "default_and_examples": Row(text(default="d", examples=["e", "f"]), "x"),
    "long_description": Row(text(title="T", description="Ä\u0007\n" * 600), "x"),
}  # fmt: skip

ROOTS: dict[str, Row] = {
    "root_any_of": Row({"properties": {"a": text(), "b": text()}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"b": "x"}),
    "root_one_of": Row({"oneOf": [obj({"a": text()}, required=["a"]), obj({"b": {"type": "integer"}}, required=["b"])]}, {"b": 1}),
    "root_all_of": Row({"allOf": [obj({"a": text()}), obj({"b[]": text()})]}, {"a": "x", "b[]": "y"}),
    "root_not": Row({"properties": {"a": text(), "b": text()}, "not": {"required": ["a", "b"]}}, {"a": "x"}),
    "root_if": Row({"properties": {"a": text()}, "if": {"required": ["a"]}, "then": {"properties": {"b": text()}, "required": ["b"]}}, {"a": "x", "b": "y"}),
    "root_ref": Row({"$ref": "#/$defs/r", "$defs": {"r": obj({"a.b": text()})}}, {"a.b": "x"}),
    "root_in_itself": Row({"properties": {"v": text(), "again": {"$ref": "#"}}}, {"v": "1", "again": {"again": {"v": "3"}}}),
    "root_dependent": Row({"properties": {"a": text()}, "dependentSchemas": {"a": {"properties": {"b": text()}, "required": ["b"]}}}, {"a": "x", "b": "y"}),
    "root_map": Row({"additionalProperties": {"type": ["integer", "null"]}}, {"a": 1, "b.c": 2}),
    "root_patterns": Row({"patternProperties": {"^x": text()}}, {"x1": "v"}),
    "root_unevaluated": Row({"properties": {"a": text(title="A")}, "unevaluatedProperties": False}, {"a": "x"}),
    "root_of_draft_4": Row({"$schema": "http://json-schema.org/draft-04/schema#", "id": "urn:x", "title": "T", **obj({"a": text()})}, {"a": "x"}),
    "root_of_draft_7": Row({"$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://x.example/s", **obj({"a": text()})}, {"a": "x"}),
    "root_without_properties": Row({"type": "object"}, {"any": {"thing": [1]}}),
    "root_nullable": Row(obj({"a": text()}, nullable=True, title="T", examples=[{"a": "x"}]), {"a": "x"}),
    "root_fixed": Row({"properties": {"a": text(), "f": {"const": 1, "x-fixed": True}}}, {"a": "x", "f": 1}, given={"a": "x"}),
    "root_renamed": Row({"properties": {"when": text(**{"x-name": "filter[when]"})}}, {"filter[when]": "x"}, given={"when": "x"}),
}  # fmt: skip


def _placed() -> dict[str, Row]:
    names = cycle(ODD_NAMES)
    rows: dict[str, Row] = {}
    for label, row in SHAPES.items():
        defs = {"$defs": row.defs} if row.defs else {}
        name = next(names)
        rows[f"{label}_at_the_root"] = Row(
            {"properties": {name: row.schema}, **defs}, {name: row.sent}, given={name: row.written}
        )
        name, number = next(names), len(rows)
        if number % 4 == 1:
            inside = {"properties": {"o": obj({name: row.schema}, required=[name])}, **defs}
            rows[f"{label}_in_an_object"] = Row(inside, {"o": {name: row.sent}}, given={"o": {name: row.written}})
        else:
            listed = {"type": "array", "items": ref("item")}
            inside = {"properties": {"l": listed}, "$defs": {**row.defs, "item": obj({name: row.schema})}}
            rows[f"{label}_in_an_array"] = Row(inside, {"l": [{name: row.sent}]}, given={"l": [{name: row.written}]})
    return rows


HOSTILE: dict[str, Row] = {**_placed(), **ROOTS}
"""By endpoint name."""
