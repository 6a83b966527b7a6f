"""Checks of a stored `input_schema`, done when it is written: what passes here can be compiled, published and called.

Root properties may carry `x-in`, `x-name`, `x-body`, `x-fixed` and `x-sensitive` (semantics "From arguments to a request").
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import jsonschema_rs

from tools.header_names import header_fault
from tools.json_schema import (
    Loc,
    Schema,
    argument_depth,
    compile_validator,
    compile_validators,
    effective_schema,
    fixed_value,
    is_array,
    is_closed,
    is_object,
    pattern_weight,
    resolve,
    subschemas,
    wire_name,
)
from tools.models import MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH
from tools.naming import nearest
from tools.shapes import Shapes

PLACES = ("path", "query", "header", "body")

_MAX_PATTERNS = 100
_MAX_PATTERN_CHARS = 512
_MAX_HEAVY_PATTERNS = 5
_MAX_FAULTS = 20


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """One fault: where in the schema, a sentence, and the stable name of the rule."""

    loc: Loc
    message: str
    rule: str


def check_schema(schema: Any, path_params: Sequence[str] = ()) -> list[SchemaFault]:
    """The faults of a stored schema, [] if there are none. Never raises; a fault of form hides the finer ones."""
    faults = _check_form(schema)
    if not faults:
        faults = _check_meta(schema)
    nodes = list(subschemas(schema)) if not faults else []
    if not faults:
        faults = _check_refs(schema, nodes)
    if not faults:
        faults = [*_check_patterns(nodes), *_check_arguments(schema, nodes, path_params)]
    if not faults:
        faults = _check_compiles(schema, path_params)
    return faults[:_MAX_FAULTS]


def _check_form(schema: Any) -> list[SchemaFault]:
    """Plain JSON of bounded size and depth, root type object."""
    if not is_object(schema):
        return [SchemaFault((), "must be a JSON object", "root_object")]
    todo: list[tuple[Loc, Any]] = [((), schema)]
    while todo:
        loc, value = todo.pop()
        if len(loc) > MAX_SCHEMA_DEPTH:
            return [SchemaFault(loc[:8], f"is nested deeper than {MAX_SCHEMA_DEPTH} levels", "depth")]
        if is_object(value):
            if not all(
                isinstance(k, str) for k in cast("dict[Any, Any]", value)
            ):  # in-process callers may hold any dict
                return [SchemaFault(loc, "has a key that is not a string", "json")]
            todo.extend(((*loc, k), v) for k, v in value.items())
        elif is_array(value):
            todo.extend(((*loc, i), v) for i, v in enumerate(value))
        elif isinstance(value, float) and not math.isfinite(value):
            return [SchemaFault(loc, "is not a number of JSON", "json")]
        elif not isinstance(value, str | int | float | bool | None):
            return [SchemaFault(loc, "is not a value of JSON", "json")]
    try:
        size = len(json.dumps(schema, ensure_ascii=False, separators=(",", ":")).encode())
    except ValueError:
        return [SchemaFault((), "holds text or a number that JSON can't carry", "json")]
    if size > MAX_SCHEMA_BYTES:
        return [SchemaFault((), f"has {size} bytes; at most {MAX_SCHEMA_BYTES} are allowed", "size")]
    if schema.get("type", "object") != "object":
        return [SchemaFault(("type",), 'must be "object": arguments have names', "root_object")]
    return []


def _check_meta(schema: Schema) -> list[SchemaFault]:
    """Valid against the 2020-12 meta-schema."""
    bare = {k: v for k, v in schema.items() if k != "$schema"}
    faults: list[SchemaFault] = []
    for error in _meta_validator().iter_errors(bare):
        loc = tuple(error.instance_path)
        message = f"is not JSON Schema 2020-12: {_short(_best_words(bare, loc) or error.message)}"
        if loc and loc[-1] in ("exclusiveMinimum", "exclusiveMaximum") and isinstance(error.instance, bool):
            message = "must be a number (true and false are from an old draft)"
        elif loc and loc[-1] == "items" and is_array(error.instance):
            message = "must be one schema; a list of them is called prefixItems"
        faults.append(SchemaFault(loc, message, "json_schema"))
        if len(faults) >= _MAX_FAULTS:
            break
    return faults


@cache
def _meta_validator() -> jsonschema_rs.Draft202012Validator:
    # Compiling it takes as long as everything else that is checked in a schema.
    return jsonschema_rs.Draft202012Validator({"$ref": "https://json-schema.org/draft/2020-12/schema"}, offline=True)


def _best_words(schema: Schema, loc: Loc) -> str | None:
    """The fault at `loc` in the words of the reference implementation, which says which branch nearly fits.

    Asked only for a schema that is refused already: it takes 1,000 times as long as the validator that finds the fault.
    """
    import jsonschema  # 60 ms to import, and hardly ever needed

    part: Any = schema
    for step in loc[:-1]:
        part = part[step]
    if not isinstance(part, dict) or len(json.dumps(part, default=str)) > 4096:
        return None
    reference: Any = jsonschema  # untyped
    meta = reference.Draft202012Validator(reference.Draft202012Validator.META_SCHEMA)
    found: Any = reference.exceptions.best_match(meta.iter_errors(part))
    if found is None or list(found.absolute_path)[:1] != list(loc[-1:]):
        return None
    while found.context:  # "not valid under any" says nothing: what the listed values are does
        found = next((e for e in found.context if e.validator == "enum"), found.context[0])
    return str(found.message)


def _check_refs(root: Schema, nodes: Sequence[tuple[Loc, Schema]]) -> list[SchemaFault]:
    """References stay inside, resolve to a schema, and end."""
    faults: list[SchemaFault] = []
    places = {id(node) for _, node in nodes}
    for loc, node in nodes:
        for keyword in ("$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef"):
            if keyword in node and not (keyword == "$id" and not loc):
                faults.append(SchemaFault((*loc, keyword), "is not supported; use a $ref like #/$defs/name", "ref"))
        ref = node.get("$ref")
        if not isinstance(ref, str):
            continue
        try:
            target = resolve(root, ref)
        except KeyError:
            said = "points at nothing in this schema" if ref.startswith("#") else "leaves this schema"
            faults.append(SchemaFault((*loc, "$ref"), f"{_short(ref)} {said}; only #/... is allowed", "ref"))
            continue
        if not isinstance(target, bool) and id(target) not in places:
            faults.append(SchemaFault((*loc, "$ref"), f"{_short(ref)} is not a schema", "ref"))
    if not faults:
        try:
            if argument_depth(root) < 1:
                faults.append(SchemaFault((), "its $refs expand to too much", "ref"))
        except ValueError as error:
            faults.append(SchemaFault((), str(error), "ref"))
    return faults


def _check_patterns(nodes: Sequence[tuple[Loc, Schema]]) -> list[SchemaFault]:
    """Regular expressions compile, small."""
    where: dict[str, Loc] = {}
    for loc, node in nodes:
        if isinstance(pattern := node.get("pattern"), str):
            where.setdefault(pattern, (*loc, "pattern"))
        for pattern in node.get("patternProperties", {}):
            where.setdefault(pattern, (*loc, "patternProperties", pattern))
    if len(where) > _MAX_PATTERNS:
        return [SchemaFault((), f"has {len(where)} patterns; at most {_MAX_PATTERNS} are allowed", "pattern")]
    faults: list[SchemaFault] = []
    heavy = 0
    for pattern, loc in where.items():
        if len(pattern) > _MAX_PATTERN_CHARS:
            faults.append(SchemaFault(loc, f"is longer than {_MAX_PATTERN_CHARS} characters", "pattern"))
            continue
        weight = pattern_weight(pattern)
        heavy += weight != "light"
        if weight == "impossible":
            said = "is not a regular expression, or too large a one"
            faults.append(SchemaFault(loc, f"{_short(pattern)} {said}", "pattern"))
        if heavy > _MAX_HEAVY_PATTERNS:
            faults.append(SchemaFault(loc, "is one large pattern too many", "pattern"))
            break
    return faults


def _check_arguments(
    root: Schema, nodes: Sequence[tuple[Loc, Schema]], path_params: Sequence[str]
) -> list[SchemaFault]:
    """The `x-` keywords are well formed and name each place once."""
    faults: list[SchemaFault] = []
    for loc, node in nodes:
        if not isinstance(node.get("x-sensitive", False), bool):
            faults.append(SchemaFault((*loc, "x-sensitive"), "must be true or false", "x_sensitive"))
        if len(loc) != 2 or loc[0] != "properties":
            faults.extend(
                SchemaFault((*loc, k), "has a meaning on top-level properties only", k.replace("-", "_"))
                for k in ("x-in", "x-name", "x-body", "x-fixed")
                if k in node
            )
    taken: dict[tuple[str, str], str] = {}
    properties: dict[str, Any] = root.get("properties", {})
    for name, prop in properties.items():
        loc: Loc = ("properties", name)
        if not is_object(prop):
            prop = {}
        faults.extend(_check_argument(loc, name, prop, path_params))
        place = _place(name, prop, path_params)
        wire = wire_name(name, prop)
        key = (place, wire.lower() if place == "header" else wire)
        if (other := taken.setdefault(key, name)) != name:
            faults.append(SchemaFault((*loc, "x-name"), f"{_short(wire)} is already taken by {other}", "x_name"))
    for param in path_params:
        if ("path", param) not in taken and param in properties:
            said = "fills a parameter of the path, so x-in must be path or absent"
            faults.append(SchemaFault(("properties", param, "x-in"), said, "x_in"))
    if is_closed(root) or root.get("additionalProperties") is False:
        known = [*Shapes(root).of(root).properties, *path_params]
        for index, name in enumerate(root.get("required", ())):
            if name not in known:
                close = nearest(name, known)
                hint = f"; did you mean {_short(close)}?" if close else ""
                faults.append(
                    SchemaFault(("required", index), f"{_short(name)} is not in properties{hint}", "required")
                )
    bodies = [n for n, p in properties.items() if is_object(p) and p.get("x-body") is True]
    if bodies:
        for name, prop in properties.items():
            if name != bodies[0] and _place(name, prop if is_object(prop) else {}, path_params) in ("body", "rest"):
                said = f"{bodies[0]} is the whole body (x-body); say x-in: query, header or path here"
                faults.append(SchemaFault(("properties", name), said, "x_body"))
    return faults


def _place(name: str, prop: Schema, path_params: Sequence[str]) -> str:
    if (given := prop.get("x-in")) is not None:
        return str(given)
    return "path" if wire_name(name, prop) in path_params else "rest"


def _check_argument(loc: Loc, name: str, prop: Schema, path_params: Sequence[str]) -> Iterator[SchemaFault]:
    place = prop.get("x-in")
    if place is not None and place not in PLACES:
        yield SchemaFault((*loc, "x-in"), "must be path, query, header or body", "x_in")
    wire = prop.get("x-name", name)
    if not isinstance(wire, str) or not wire or len(wire) > 256 or not wire.isprintable():
        yield SchemaFault((*loc, "x-name"), "must be 1 to 256 printable characters", "x_name")
    elif place == "path" and wire not in path_params:
        yield SchemaFault((*loc, "x-in"), f"the path has no {{{_short(wire)}}}", "x_in")
    elif place == "header" and (fault := header_fault(wire)):
        yield SchemaFault((*loc, "x-name"), fault, "x_name")
    for keyword in ("x-body", "x-fixed"):
        if not isinstance(prop.get(keyword, False), bool):
            yield SchemaFault((*loc, keyword), "must be true or false", keyword.replace("-", "_"))
    if prop.get("x-body") is True and place not in (None, "body"):
        yield SchemaFault((*loc, "x-body"), "the whole body can't be in another place", "x_body")
    if prop.get("x-fixed") is True and "default" not in prop and "const" not in prop:
        yield SchemaFault((*loc, "x-fixed"), "needs a default or a const to send", "x_fixed")


def _check_compiles(root: Schema, path_params: Sequence[str]) -> list[SchemaFault]:
    """The validator of the calls can be made, and defaults fit what they are defaults of."""
    try:
        compile_validator(effective_schema(root, path_params))
        with_default = [(loc, node) for loc, node in subschemas(root) if "default" in node or fixed_value(node)[0]]
        if not with_default:
            return []
        validators = compile_validators({k: v for k, v in root.items() if k not in ("$schema", "$id")})
    except ValueError as error:
        return [SchemaFault((), f"can't be used: {_short(str(error).splitlines()[0])}", "json_schema")]
    faults: list[SchemaFault] = []
    for loc, node in with_default:
        fixed, value = fixed_value(node)
        validator = validators.get(_pointer(loc))
        if validator is None:
            continue
        for error in validator.iter_errors(value if fixed else node["default"]):
            faults.append(
                SchemaFault((*loc, "default"), f"doesn't fit its own schema: {_short(error.message)}", "default")
            )
            break
    return faults


def _pointer(loc: Loc) -> str:
    return "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in loc)


def _short(text: str) -> str:
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= 120 else clean[:119] + "…"
