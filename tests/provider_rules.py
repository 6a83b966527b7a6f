"""What providers say of a function's parameters, written from their own pages and errors (2026-11) and from nothing of ours.

Each checker gives sentences; none means that it is taken. `tools/host_rules.py` is the product's; these two must never share code.

OpenAI: function calling guide, "supported schemas", and the errors "schema must have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/
'enum'/'not' at the top level", "object schema missing properties", "array schema missing items", "is not a valid regex".
Anthropic: tool use guide (JSON Schema 2020-12, type object), and the errors "input_schema does not support oneOf, allOf, or anyOf at the top
level", "Property keys should match pattern '^[a-zA-Z0-9_.-]{1,64}$'", "JSON schema is invalid".
Gemini: the Schema message of its API, and the errors "should be non-empty for OBJECT type", "property is not defined", "only allowed for
STRING type", "only 'enum' and 'date-time' are supported for STRING type", "missing field".
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs

COMBINING = {
    "oneOf",
    "anyOf",
    "allOf",
    "not",
    "if",
    "then",
    "else",
    "enum",
    "const",
    "$ref",
    "dependentSchemas",
    "dependentRequired",
}
LOOKING_ROUND = re.compile(r"\(\?(=|!|<=|<!|[a-z]*[imsx]|P?<)|\\[pPAzZGkK]|\\[1-9]|\[:\w+:\]|&&|[+*?}]\+|\(\?>")


def objects_in(value: Any, names_only: bool = False) -> Iterator[dict[str, Any]]:
    """Every object of a schema that is a schema: anything but the maps of properties."""
    if isinstance(value, list):
        for item in value:
            yield from objects_in(item)
    elif isinstance(value, dict):
        if not names_only:
            yield value
        for keyword, sub in value.items():
            if keyword not in ("enum", "const", "default", "examples", "required", "example") or names_only:
                yield from objects_in(
                    sub, names_only=keyword in ("properties", "patternProperties", "$defs") and not names_only
                )


def openai_refuses(schema: Any) -> list[str]:
    said: list[str] = []
    if schema.get("type") != "object":
        said.append("the top level is not of type object")
    said += [f"{word} at the top level" for word in COMBINING & schema.keys()]
    if not isinstance(schema.get("properties"), dict):
        said.append("object schema missing properties")
    nodes = list(objects_in(schema))
    for node in nodes:
        kinds = node.get("type")
        if "array" in (kinds if isinstance(kinds, list) else [kinds]) and not isinstance(node.get("items"), dict):
            said.append("array schema missing items")
        if LOOKING_ROUND.search(node.get("pattern", "")):
            said.append(f"{node['pattern']} is not a valid regex")
        if not isinstance(node.get("required", []), list):
            said.append("required is no list")
        if "$ref" in node:
            said.append("a reference, which some of its models don't follow")
    if sum(len(n.get("properties", {})) for n in nodes) > 5000 or sum(len(n.get("enum", ())) for n in nodes) > 1000:
        said.append("more than 5,000 properties or 1,000 values of enums")
    return said


def anthropic_refuses(schema: Any) -> list[str]:
    said: list[str] = []
    try:
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as error:
        said.append(f"JSON schema is invalid: {error.message}")
    if schema.get("type") != "object":
        said.append("input_schema.type should be object")
    said += [f"no {word} at the top level" for word in ("oneOf", "allOf", "anyOf") if word in schema]
    for node in objects_in(schema):
        said += [
            f"property key {k!r}" for k in node.get("properties", {}) if not re.fullmatch("[a-zA-Z0-9_.-]{1,64}", k)
        ]
    return said


GEMINI_FIELDS = {
    "STRING": {"enum", "format", "minLength", "maxLength", "pattern"},
    "NUMBER": {"format", "minimum", "maximum"},
    "INTEGER": {"format", "minimum", "maximum"},
    "BOOLEAN": set[str](),
    "ARRAY": {"items", "minItems", "maxItems"},
    "OBJECT": {"properties", "required", "minProperties", "maxProperties", "additionalProperties", "propertyOrdering"},
}
GEMINI_FORMATS = {"STRING": {"enum", "date-time"}, "NUMBER": {"float", "double"}, "INTEGER": {"int32", "int64"}}


def gemini_refuses(schema: Any, where: str = "parameters") -> list[str]:
    if not isinstance(schema, dict):
        return [f"{where}: {json.dumps(schema)} is no Schema"]
    said: list[str] = []
    if "anyOf" in schema:
        if schema.keys() - {"anyOf", "description", "title"}:
            said.append(f"{where}: when using any_of, it must be the only field set")
        for i, branch in enumerate(schema["anyOf"]):
            said += gemini_refuses(branch, f"{where}.anyOf[{i}]")
        return said
    kind = schema.get("type")
    kind = kind.upper() if isinstance(kind, str) else kind
    if not isinstance(kind, str) or kind not in GEMINI_FIELDS:
        return [f"{where}: type {schema.get('type')!r}"]
    odd = schema.keys() - GEMINI_FIELDS[kind] - {"type", "description", "title", "nullable", "default", "example"}
    said += [f"{where}: unknown name {name!r} for {kind}" for name in sorted(odd)]
    if schema.get("format") is not None and schema["format"] not in GEMINI_FORMATS.get(kind, ()):
        said.append(f"{where}: format {schema['format']!r} for {kind}")
    if any(not isinstance(v, str) or v == "" for v in schema.get("enum", ())):
        said.append(f"{where}.enum: cannot be empty, only strings")
    properties = schema.get("properties", {})
    if "properties" in schema and not properties and where != "parameters":
        said.append(f"{where}.properties: should be non-empty for OBJECT type")
    said += [
        f"{where}.required: {name}: property is not defined"
        for name in schema.get("required", ())
        if name not in properties
    ]
    if kind == "ARRAY" and "items" not in schema:
        said.append(f"{where}.items: missing field")
    for name, sub in properties.items():
        said += gemini_refuses(sub, f"{where}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema and schema[name] is not False:
            said += gemini_refuses(schema[name], f"{where}.{name}")
    return said
