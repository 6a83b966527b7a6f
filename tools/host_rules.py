"""What providers accept in a tool's input schema, as pure checkers: they judge published schemas and share nothing with their making.

`check_published` is our own list (agents 3), the union of all; the three others are what each provider refuses by itself.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tools.json_schema import is_array, is_object

MAX_BYTES = 8 * 1024
MAX_DEPTH = 10
MAX_PROPERTIES = 100
MAX_ENUM = 50
MAX_EXACT = 2**53 - 1

Loc = tuple[str | int, ...]

_ALLOWED: dict[str, frozenset[str]] = {
    "string": frozenset({"type", "description", "enum", "format", "pattern", "minLength", "maxLength"}),
    "number": frozenset({"type", "description", "minimum", "maximum"}),
    "integer": frozenset({"type", "description", "minimum", "maximum"}),
    "boolean": frozenset({"type", "description"}),
    "object": frozenset({"type", "description", "properties", "required", "additionalProperties"}),
    "array": frozenset({"type", "description", "items", "minItems", "maxItems"}),
}


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a schema breaks, at `loc` in it."""

    rule: str
    loc: Loc
    message: str


def check_published(schema: Any) -> list[Violation]:
    """The rules that every published schema keeps."""
    if not is_object(schema) or schema.get("type") != "object":
        return [Violation("root_object", (), "the root is not of type object")]
    found: list[Violation] = []
    if not is_object(schema.get("properties")):
        found.append(Violation("properties", (), "the root has no properties"))
    if "anyOf" in schema:
        found.append(Violation("root_combination", ("anyOf",), "alternatives at the root"))
    size = len(json.dumps(schema, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_BYTES:
        found.append(Violation("size", (), f"{size} bytes"))
    count = 0
    for loc, node, depth in _walk(schema):
        if not is_object(node):
            found.append(Violation("boolean", loc, "not an object"))
            continue
        if depth > MAX_DEPTH + 1:
            found.append(Violation("depth", loc, f"deeper than {MAX_DEPTH} levels"))
        count += len(_map(node.get("properties")))
        found.extend(Violation(rule, loc, message) for rule, message in _node_faults(node, root=not loc))
    if count > MAX_PROPERTIES:
        found.append(Violation("count", (), f"{count} properties"))
    return found


def _node_faults(node: dict[str, Any], *, root: bool) -> Iterator[tuple[str, str]]:
    if not isinstance(node.get("description", ""), str):
        yield "description", "not text"
    if "anyOf" in node:
        branches = node["anyOf"]
        if set(node) - {"anyOf", "description"}:
            yield "combination", "something beside anyOf and description"
        if not is_array(branches) or not 2 <= len(branches) <= 5:
            yield "combination", "not 2 to 5 alternatives"
        return
    kind = node.get("type")
    if not isinstance(kind, str) or kind not in _ALLOWED:
        yield "type", f"not a single known type: {kind!r}"
        return
    if extra := set(node) - _ALLOWED[kind]:
        yield "keyword", f"not for every host: {sorted(extra)}"
    properties = _map(node.get("properties"))
    for name in properties:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            yield "key", f"property {name!r}"
    required = node.get("required", [])
    if any(name not in properties for name in required) or len(set(required)) != len(required):
        yield "required", "names no property, or one twice"
    if kind == "array" and not is_object(node.get("items")):
        yield "items", "array without items"
    if "additionalProperties" in node:
        value = node["additionalProperties"]
        if not (value is False if root else is_object(value) and not properties):
            yield "additional", "neither false at the root nor a map"
    if "enum" in node:
        values = node["enum"]
        if not 1 <= len(values) <= MAX_ENUM or not all(isinstance(v, str) and v for v in values):
            yield "enum", "not 1 to 50 texts"
        elif len(set(values)) != len(values):
            yield "enum", "the same value twice"
    counted = ("minLength", "maxLength", "minItems", "maxItems")
    for keyword in (*counted, *(("minimum", "maximum") if kind == "integer" else ())):
        bound = node.get(keyword, 0)
        if not isinstance(bound, int) or abs(bound) > MAX_EXACT:
            yield "bound", f"{keyword} {bound} is not a whole number that JavaScript carries"
    if node.get("format", "date-time") != "date-time":
        yield "format", node["format"]
    if re.search(r"\(\?(?!:)|\\[pPkKuxc1-9]|\[\[:|[*+?}]\+", node.get("pattern", "")):
        yield "pattern", node["pattern"]


def _walk(schema: Any) -> Iterator[tuple[Loc, Any, int]]:
    """(location, node, depth) of all nodes; properties, items and maps are one level deeper, alternatives are not."""
    todo: list[tuple[Loc, Any, int]] = [((), schema, 0)]
    while todo:
        loc, node, depth = todo.pop()
        yield loc, node, depth
        if not is_object(node):
            continue
        for name, sub in _map(node.get("properties")).items():
            todo.append(((*loc, "properties", name), sub, depth + 1))
        for keyword in ("items", "additionalProperties"):
            if keyword in node and node[keyword] is not False:
                todo.append(((*loc, keyword), node[keyword], depth + 1))
        branches = node.get("anyOf")
        for i, sub in enumerate(branches if is_array(branches) else ()):
            todo.append(((*loc, "anyOf", i), sub, depth))


def check_anthropic(schema: Any) -> list[Violation]:
    """Refused for the whole request: another root type, combinations at the root, property keys outside the pattern."""
    found: list[Violation] = []
    if _map(schema).get("type") != "object":
        found.append(Violation("anthropic_root", (), "input_schema.type is not object"))
    for keyword in ("anyOf", "oneOf", "allOf"):
        if keyword in _map(schema):
            found.append(Violation("anthropic_root", (keyword,), "not allowed at the top level"))
    for loc, node in _every_node(schema):
        for name in _map(node.get("properties")):
            if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", name):
                found.append(Violation("anthropic_key", (*loc, "properties", name), "property key"))
    return found


def check_openai(schema: Any) -> list[Violation]:
    """Refused for the whole request in functions that are not strict."""
    root = _map(schema)
    found: list[Violation] = []
    if root.get("type") != "object":
        found.append(Violation("openai_root", (), "type is not object"))
    if not is_object(root.get("properties")):
        found.append(Violation("openai_properties", (), "object schema missing properties"))
    for keyword in ("anyOf", "oneOf", "allOf", "enum", "not", "if"):
        if keyword in root:
            found.append(Violation("openai_root", (keyword,), "not allowed at the top level"))
    for loc, node in _every_node(schema):
        kind = node.get("type")
        if (kind == "array" or (isinstance(kind, list) and "array" in kind)) and "items" not in node:
            found.append(Violation("openai_items", loc, "array schema missing items"))
        if re.search(r"\(\?<?[=!]|\\[pP]\{", str(node.get("pattern", ""))):
            found.append(Violation("openai_pattern", loc, "look-around or \\p"))
        if str(node.get("$ref", "#")).startswith("#") is False:
            found.append(Violation("openai_ref", loc, "reference to elsewhere"))
    return found


_GEMINI = frozenset(
    [
        "type",
        "format",
        "title",
        "description",
        "nullable",
        "enum",
        "maxItems",
        "minItems",
        "properties",
        "required",
        "minProperties",
        "maxProperties",
        "minLength",
        "maxLength",
        "pattern",
        "example",
        "anyOf",
        "propertyOrdering",
        "default",
        "items",
        "minimum",
        "maximum",
        "additionalProperties",
    ]
)


def check_gemini(schema: Any) -> list[Violation]:
    """The Schema message of function declarations: a subset of OpenAPI 3.0."""
    found: list[Violation] = []
    for loc, node in _every_node(schema):
        if extra := set(node) - _GEMINI:
            found.append(Violation("gemini_keyword", loc, f"unknown: {sorted(extra)}"))
        kind = node.get("type")
        if "anyOf" in node:
            if set(node) - {"anyOf", "description"}:
                found.append(Violation("gemini_any_of", loc, "other fields beside anyOf"))
        elif not isinstance(kind, str):
            found.append(Violation("gemini_type", loc, "not one type"))
        if kind == "array" and "items" not in node:
            found.append(Violation("gemini_items", loc, "missing field"))
        if kind == "object" and loc and node.get("properties") == {}:
            found.append(Violation("gemini_properties", loc, "should be non-empty for OBJECT type"))
        if any(name not in _map(node.get("properties")) for name in node.get("required", ())):
            found.append(Violation("gemini_required", loc, "property is not defined"))
        if "enum" in node and (kind != "string" or not all(isinstance(v, str) and v for v in node["enum"])):
            found.append(Violation("gemini_enum", loc, "only non-empty text"))
        if node.get("format", "date-time") not in ("date-time", "enum"):
            found.append(Violation("gemini_format", loc, "only enum and date-time"))
        for keyword in ("items", "additionalProperties"):
            if isinstance(node.get(keyword), bool) and not (
                keyword == "additionalProperties" and node[keyword] is False
            ):
                found.append(Violation("gemini_boolean", (*loc, keyword), "a boolean is no schema"))
    return found


def _every_node(value: Any) -> Iterator[tuple[Loc, dict[str, Any]]]:
    """Every object that stands where a schema can stand."""
    todo: list[tuple[Loc, Any]] = [((), value)]
    while todo:
        loc, node = todo.pop()
        if not is_object(node):
            continue
        found: dict[str, Any] = _map(node)
        yield loc, found
        for keyword in ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"):
            todo.extend(((*loc, keyword, name), sub) for name, sub in _map(found.get(keyword)).items())
        for keyword in ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"):
            todo.append(((*loc, keyword), found.get(keyword)))
        for keyword in ("anyOf", "oneOf", "allOf", "prefixItems"):
            branches = found.get(keyword)
            todo.extend(((*loc, keyword, i), sub) for i, sub in enumerate(branches if is_array(branches) else ()))


def _map(value: Any) -> dict[str, Any]:
    return value if is_object(value) else {}
