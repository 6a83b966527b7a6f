"""The nouns of JSON Schema that checks, calls and the published schema share: subschemas, references, cost, validators.

A stored schema is JSON Schema 2020-12 of root type object (`{}` means any object); the *effective* one is what calls are held
against. Everything here is bounded: a hostile schema costs milliseconds, whatever it says.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import unquote

import jsonschema_rs

from tools.json_values import is_array, is_object

Schema = dict[str, Any]
IMPORTED = "x-imported"
"""Keyword of a stored input_schema: what the import made that the endpoint comes from (`tools.importers.marking`)."""
Loc = tuple[str | int, ...]

SCHEMA_MAPS = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
SCHEMA_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
SCHEMA_SINGLES = (
    "not",
    "if",
    "then",
    "else",
    "items",
    "contains",
    "additionalProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
)
IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"})
"""Keywords whose subschemas look at the same instance as their parent."""

MAX_ARGUMENT_DEPTH = 32

_MAX_REF_CHAIN = 24  # by depth: 576 frames, well inside what Python's stack takes
_MAX_REF_DEPTH = 24
_MAX_WORK = 50_000
_LIGHT = jsonschema_rs.RegexOptions(size_limit=128 * 1024, dfa_size_limit=1024 * 1024)
_LINEAR = jsonschema_rs.RegexOptions(size_limit=1024 * 1024, dfa_size_limit=1024 * 1024)
_BACKTRACKING = jsonschema_rs.FancyRegexOptions(
    backtrack_limit=10_000, size_limit=1024 * 1024, dfa_size_limit=1024 * 1024
)


def children(schema: Mapping[str, Any]) -> Iterator[tuple[str, Loc, Any]]:
    """(keyword, location below `schema`, subschema) of each direct subschema; malformed keywords are passed over."""
    for keyword in SCHEMA_MAPS:
        if is_object(found := schema.get(keyword)):
            for name, sub in found.items():
                yield keyword, (keyword, name), sub
    for keyword in SCHEMA_LISTS:
        if is_array(found := schema.get(keyword)):
            for index, sub in enumerate(found):
                yield keyword, (keyword, index), sub
    for keyword in SCHEMA_SINGLES:
        if keyword in schema:
            yield keyword, (keyword,), schema[keyword]


def subschemas(schema: Schema) -> Iterator[tuple[Loc, Schema]]:
    """Every object subschema with its location, the root first. Depth must have been checked."""
    todo: list[tuple[Loc, Schema]] = [((), schema)]
    while todo:
        loc, node = todo.pop()
        yield loc, node
        todo.extend((loc + below, sub) for _, below, sub in children(node) if is_object(sub))


def stored_names(schema: Schema) -> Iterator[str]:
    """Every property name at any level, in the order of the document (level by level)."""
    level: list[Schema] = [schema]
    while level:
        for node in level:
            yield from node.get("properties", {})
        level = [sub for node in level for _, _, sub in children(node) if is_object(sub)]


def resolve(root: Schema, ref: str) -> Any:
    """What a local `$ref` (`#` or `#/...`) points at; raises KeyError where it points at nothing."""
    if ref == "#":
        return root
    if not ref.startswith("#/"):
        raise KeyError(ref)
    found: Any = root
    for part in ref[2:].split("/"):
        step = unquote(part).replace("~1", "/").replace("~0", "~")
        if is_object(found):
            found = found[step]
        elif is_array(found) and step.isascii() and step.isdigit() and int(step[:6]) < len(found):
            found = found[int(step[:6])]
        else:
            raise KeyError(ref)
    return found


def wire_name(name: str, prop: Any) -> str:
    """The name that the upstream sees: `x-name`, else the property's own."""
    given = prop.get("x-name") if is_object(prop) else None
    return given if isinstance(given, str) else name


def fixed_value(prop: Any) -> tuple[bool, Any]:
    """(whether the property is `x-fixed`, its value: `const`, else `default`)."""
    if not is_object(prop) or prop.get("x-fixed") is not True:
        return False, None
    return True, prop["const"] if "const" in prop else prop.get("default")


def sure_parts(schema: Schema, root: Schema) -> list[Any]:
    """The subschemas that hold whenever `schema` does: its `$ref`'s target and its allOfs."""
    parts: list[Any] = list(schema.get("allOf", ()))
    if isinstance(ref := schema.get("$ref"), str):
        parts.append(resolve(root, ref))
    return parts


def is_closed(schema: Schema) -> bool:
    """Whether unknown arguments are refused: it lists properties and says nothing of further ones (semantics)."""
    says = ("additionalProperties", "patternProperties", "unevaluatedProperties")
    listed = False
    todo: list[Any] = [schema]
    while todo:
        part = todo.pop()
        if is_object(part):
            if any(keyword in part for keyword in says):
                return False
            listed = listed or "properties" in part
            todo.extend(sure_parts(part, schema))
    return listed


def effective_schema(schema: Schema, path_params: Sequence[str] = (), path: str = "") -> Schema:
    """The stored schema as calls are held against it: root type object, every path parameter a required property.

    A schema that lists no properties stays open to any, also when path parameters or required names are added to it. A path
    parameter without description is described by its place in `path`.
    """
    effective: Schema = {k: v for k, v in schema.items() if k not in ("$schema", "$id")}
    effective["type"] = "object"
    properties: dict[str, Any] = dict(effective.get("properties", {}))
    by_wire = {
        wire_name(name, prop): name
        for name, prop in properties.items()
        if not is_object(prop) or prop.get("x-in", "path") == "path"
    }
    required: list[str] = list(effective.get("required", ()))
    for param in path_params:
        name = by_wire.get(param, param)
        prop: Any = properties.setdefault(name, {"type": "string"})
        if path and is_object(prop) and not prop.get("description"):
            told = f"Identifier in the path {path}; use it exactly as another tool returned it."
            properties[name] = prop = {**prop, "description": told}
        if name not in required and not (is_object(prop) and ("default" in prop or prop.get("x-fixed"))):
            required.append(name)
    if effective.get("additionalProperties") is not False:
        properties.update({name: {} for name in required if name not in properties})
    if properties:
        if "properties" not in effective:
            effective.setdefault("additionalProperties", True)
        effective["properties"] = properties
    if required:
        effective["required"] = required
    return effective


def compile_validator(schema: Schema) -> jsonschema_rs.Validator:
    """A validator with format checks and no way to the network; patterns run in linear time.

    Only where a pattern needs look-around or back references do all of the schema run with a backtracking limit.
    Raises ValueError (jsonschema_rs.ValidationError is one).
    """
    try:
        return jsonschema_rs.Draft202012Validator(schema, validate_formats=True, offline=True, pattern_options=_LINEAR)
    except jsonschema_rs.ValidationError:
        return jsonschema_rs.Draft202012Validator(
            schema, validate_formats=True, offline=True, pattern_options=_BACKTRACKING
        )


def compile_validators(schema: Schema) -> jsonschema_rs.ValidatorMap:
    """`compile_validator` of every subschema, by JSON pointer with `#` before it. No `$schema` in it, or raises ValueError."""
    try:
        return jsonschema_rs.validator_map_for(schema, validate_formats=True, offline=True, pattern_options=_LINEAR)
    except jsonschema_rs.ValidationError:
        return jsonschema_rs.validator_map_for(
            schema, validate_formats=True, offline=True, pattern_options=_BACKTRACKING
        )


def pattern_weight(pattern: str) -> Literal["light", "heavy", "impossible"]:
    """Whether a regular expression compiles, and small: a heavy one costs milliseconds each time a schema is compiled."""
    try:
        jsonschema_rs.Draft202012Validator({"pattern": pattern}, pattern_options=_LIGHT)
    except ValueError:
        try:
            compile_validator({"pattern": pattern})
        except ValueError:
            return "impossible"
        return "heavy"
    return "light"


def argument_depth(root: Schema) -> int:
    """How deep arguments may nest so that validating one path of them stays within a bound of work.

    Recursive schemas that branch (`allOf: [{items: #}, {items: #}]`) double the work with each level of the instance.
    0 where even one level is too much. Raises ValueError where references never end.
    """
    if not any("$ref" in node for _, node in subschemas(root)):
        return MAX_ARGUMENT_DEPTH
    cost = _Cost(root)
    depths = range(_MAX_REF_DEPTH, 0, -1)
    return next((depth for depth in depths if cost.of(root, depth, 0) <= _MAX_WORK), 0)


class _Cost:
    """An upper bound of the subschemas that are looked at along one path into an instance, by its depth."""

    def __init__(self, root: Schema) -> None:
        self.root = root
        self.known: dict[tuple[int, int], int] = {}

    def of(self, node: Any, depth: int, chain: int) -> int:
        if not is_object(node):
            return 1
        if chain > _MAX_REF_CHAIN:
            raise ValueError("its $refs never end, or are chained too long")
        key = (id(node), depth)
        if key in self.known:
            return self.known[key]
        work = 1
        below: dict[Loc, int] = {}
        if isinstance(ref := node.get("$ref"), str):
            work += self.of(resolve(self.root, ref), depth, chain + 1)
        for keyword, loc, sub in children(node):
            if keyword in ("$defs", "definitions"):
                continue
            if keyword in IN_PLACE:
                work += self.of(sub, depth, chain + 1)
            elif depth > 0:
                label = loc if keyword == "properties" else ("*",)
                below[label] = below.get(label, 0) + self.of(sub, depth - 1, 0)
        work += below.pop(("*",), 0) + max(below.values(), default=0)
        self.known[key] = min(work, _MAX_WORK + 1)
        return self.known[key]
