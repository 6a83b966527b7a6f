"""Schemas of OpenAPI 2.0, 3.0 and 3.1 as JSON Schema 2020-12 without references. Whatever a document says, the result is valid.

Only keywords that are known and have a sane value stay: a faulty one is looser, never in the way.
"""

import json
import math
from typing import Any, Literal, TypeGuard

from tools.importers.documents import Document, RefFault
from tools.importers.wording import plain_text
from tools.json_schema import Schema, compile_validator, is_array, is_object, pattern_weight
from tools.schema_merge import both

_TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_MAX_NODES = 3000
_MAX_NESTING = 60
_MAX_PATTERN = 256
_MAX_EXAMPLE = 200


class TooLarge(ValueError):
    """The schema expands to more than anybody reads."""


class SchemaConverter:
    """`depth`: levels of properties and items that stay; below, a schema is its bare type. `chars` of a description at the top."""

    def __init__(self, document: Document, depth: int, chars: int) -> None:
        self._document, self._depth, self._chars = document, depth, chars
        self._nodes = 0
        self.notes: dict[str, None] = {}

    def convert(self, schema: Any, depth: int = 0, refs: tuple[str, ...] = (), *, whole: bool = True) -> Schema:
        """`whole` False for a part of an allOf, which may require what another part lists. Raises TooLarge."""
        self._nodes += 1
        if self._nodes > _MAX_NODES or len(refs) > _MAX_NESTING:
            raise TooLarge
        if not is_object(schema):
            return {}
        if "$ref" in schema:
            return self._referenced(schema, depth, refs, whole)
        if depth > self._depth:
            return self._bare(schema)
        made: Schema = {}
        self._say(schema, made, depth)
        if kinds := _types(schema):
            made["type"] = kinds[0] if len(kinds) == 1 else kinds
        self._constrain(schema, made)
        self._contain(schema, made, depth, refs)
        for keyword in ("anyOf", "oneOf"):
            branches = schema.get(keyword)
            if is_array(branches) and branches:
                # In a request oneOf's "exactly one" helps nobody: what is loosened by the conversion could fit two.
                made.setdefault("anyOf", [self.convert(b, depth, (*refs, "")) for b in branches])
        for part in schema["allOf"] if is_array(schema.get("allOf")) else ():
            made = both(made, self.convert(part, depth, (*refs, ""), whole=False))
            if made.get("type") == []:
                del made["type"]
        if whole and "required" in made:
            made["required"] = [n for n in made["required"] if n in made.get("properties", {})]
        self._default(schema, made)
        return made

    def _referenced(self, schema: Schema, depth: int, refs: tuple[str, ...], whole: bool) -> Schema:
        ref = schema["$ref"]
        try:
            target = self._document.target(ref)
        except RefFault as e:
            self.notes[f"{e}: any value is taken there"] = None
            return {}
        if ref in refs or depth > self._depth:
            made = self._bare(target)
        else:
            made = self.convert(target, depth, (*refs, ref), whole=whole)
        if text := plain_text(schema.get("description"), self._length(depth)):
            made = {**made, "description": text}
        return made

    def _bare(self, schema: Any) -> Schema:
        """Only the type: where recursion ends, and what lies too deep."""
        for _ in range(8):
            if not is_object(schema) or "$ref" not in schema:
                break
            try:
                schema = self._document.target(schema["$ref"])
            except RefFault:
                return {}
        if not is_object(schema):
            return {}
        kinds = _types(schema) or (["object"] if "allOf" in schema else [])
        made: Schema = {"type": kinds[0] if len(kinds) == 1 else kinds} if kinds else {}
        if is_array(values := schema.get("enum")) and 0 < len(values) <= 10:
            made["enum"] = values
        return made

    def _length(self, depth: int) -> int:
        return max(self._chars // (depth + 1), min(self._chars, 60))

    def _say(self, schema: Schema, made: Schema, depth: int) -> None:
        if self._chars and (text := plain_text(schema.get("description"), self._length(depth))):
            made["description"] = text
        example = schema.get("example")
        if example is None and is_array(found := schema.get("examples")) and found:
            example = found[0]
        if self._chars and example not in (None, "") and len(json.dumps(example, default=str)) <= _MAX_EXAMPLE:
            made["examples"] = [example]
        if schema.get("format") == "password":
            made["x-sensitive"] = True

    def _constrain(self, schema: Schema, made: Schema) -> None:
        if is_array(values := schema.get("enum")) and values:
            nullable = schema.get("nullable") is True and None not in values
            made["enum"] = [*values, None] if nullable else list(values)
        if "const" in schema:
            made["const"] = schema["const"]
        if isinstance(word := schema.get("format"), str) and word and word not in ("binary", "password"):
            made["format"] = word
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and len(pattern) <= _MAX_PATTERN and pattern_weight(pattern) == "light":
            made["pattern"] = pattern
        for keyword in _COUNTS:
            if _is_number(n := schema.get(keyword)) and n >= 0 and n == int(n):
                made[keyword] = int(n)
        for keyword in _BOUNDS:
            if _is_number(n := schema.get(keyword)):
                made[keyword] = n
        for old, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if schema.get(old) is True and bound in made:  # OpenAPI 3.0 and before
                made[old] = made.pop(bound)
        if _is_number(n := schema.get("multipleOf")) and n > 0:
            made["multipleOf"] = n
        if schema.get("uniqueItems") is True:
            made["uniqueItems"] = True

    def _contain(self, schema: Schema, made: Schema, depth: int, refs: tuple[str, ...]) -> None:
        if is_object(properties := schema.get("properties")):
            taken = {n: p for n, p in properties.items() if n and not (is_object(p) and p.get("readOnly") is True)}
            made["properties"] = {n: self.convert(p, depth + 1, refs) for n, p in taken.items()}
        if is_array(required := schema.get("required")):
            made["required"] = list(dict.fromkeys(n for n in required if isinstance(n, str)))
        extra = schema.get("additionalProperties")
        if extra is False or (extra is True and "properties" in made):
            made["additionalProperties"] = extra
        elif is_object(extra):
            made["additionalProperties"] = self.convert(extra, depth + 1, refs)
        items = schema.get("items")
        if is_object(items):
            made["items"] = self.convert(items, depth + 1, refs)

    def _default(self, schema: Schema, made: Schema) -> None:
        """A default that doesn't fit its own schema is none."""
        default = schema.get("default")
        if default is None:
            return
        try:
            if compile_validator(made).is_valid(default):
                made["default"] = default
        except ValueError:
            return


def _types(schema: Schema) -> list[str]:
    said: Any = schema.get("type")
    if said == "file":
        said = "string"
    kinds = [t for t in (said if is_array(said) else [said]) if t in _TYPES]
    if not kinds:
        found: Literal["object", "array", ""] = (
            "object" if is_object(schema.get("properties")) else "array" if is_object(schema.get("items")) else ""
        )
        kinds = [found] if found else []
    if kinds and "null" not in kinds and (schema.get("nullable") is True or schema.get("x-nullable") is True):
        kinds.append("null")
    return list(dict.fromkeys(kinds))


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
