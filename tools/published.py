"""The schema that hosts see, made from the stored one so that every provider takes it (agents 3). Pure.

Order: path parameters added, fixed arguments hidden, references inlined, combinations merged, then `publish_rules.RULES` on each
node. The result is self-contained, at most 8 KB and 10 levels deep; what is too deep is cut to plain objects, and only what stays
too large is refused.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tools.errors import RequestError
from tools.json_schema import (
    Loc,
    Schema,
    effective_schema,
    fixed_value,
    is_array,
    is_object,
    resolve,
    stored_names,
)
from tools.naming import property_aliases
from tools.publish_rules import RULES, Node
from tools.schema_merge import TYPES, both, discriminated, either, properties_of_either
from tools.shapes import type_of

MAX_BYTES = 8 * 1024
MAX_DEPTH = 10
GOOD_DEPTH = 5
MAX_PROPERTIES = 100

_DEPTHS = (MAX_DEPTH, GOOD_DEPTH, 4, 3, 2, 1)
_MAX_NODES = 1500
_MAX_RECURSION = 3
_ANY = ("string", "number", "boolean", "object", "array")
_HINTS = {
    "string": ("minLength", "maxLength", "pattern", "format", "contentEncoding"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "object": ("properties", "required", "patternProperties", "additionalProperties", "minProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"),
}


@dataclass(frozen=True, slots=True)
class SchemaWarning:
    """Something that was loosened; `loc` is in the stored schema."""

    rule: str
    loc: Loc
    message: str


@dataclass(frozen=True, slots=True)
class Published:
    """`schema` for hosts; `aliases` stored property name -> published one (Arguments maps them back by itself)."""

    schema: Schema
    aliases: dict[str, str]
    warnings: tuple[SchemaWarning, ...] = ()


class PublishRefused(RequestError):
    """The schema can't be made safe for every host; `rule` and `loc` say where."""

    code = "invalid_request"
    status = 422

    def __init__(self, rule: str, loc: Loc, message: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.loc = loc


def publish(schema: Schema, path_params: Sequence[str] = (), *, path: str = "") -> Published:
    """From a stored schema that `check_schema` found no fault in. Raises PublishRefused.

    `path` is the endpoint's, for the description of identifiers in it.
    """
    effective = effective_schema(schema, path_params, path)
    aliases = property_aliases(stored_names(effective))
    refused: PublishRefused | None = None
    for depth in _DEPTHS:
        publisher = _Publisher(effective, aliases, depth)
        try:
            made = publisher.root()
        except _TooMuch:
            refused = PublishRefused("size", (), "expands to too much for any host")
            continue
        refused = _too_large(made)
        if refused is None:
            if depth < MAX_DEPTH:
                publisher.warn("size", (), f"is large: levels below {depth} are published as plain objects")
            return Published(made, aliases, tuple(publisher.warnings))
    assert refused is not None
    raise refused


def _too_large(made: Schema) -> PublishRefused | None:
    size = len(json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_BYTES:
        return PublishRefused("size", (), f"has {size} bytes as hosts see it; at most {MAX_BYTES} are allowed")
    count = _count_properties(made)
    if count > MAX_PROPERTIES:
        return PublishRefused("properties", (), f"has {count} properties; at most {MAX_PROPERTIES} are allowed")
    return None


def _count_properties(node: Any) -> int:
    if is_array(node):
        return sum(map(_count_properties, node))
    if not is_object(node):
        return 0
    own = node.get("properties")
    subs = [*(own.values() if is_object(own) else ()), node.get("items"), node.get("additionalProperties")]
    return (len(own) if is_object(own) else 0) + sum(map(_count_properties, [*subs, node.get("anyOf")]))


class _TooMuch(Exception):
    """More nodes than any published schema may have: try a shallower one."""


class _Publisher:
    """One attempt at one depth."""

    def __init__(self, stored: Schema, aliases: dict[str, str], depth: int) -> None:
        self.stored = stored
        self.aliases = aliases
        self.depth = depth
        self.nodes = 0
        self.warnings: list[SchemaWarning] = []

    def warn(self, rule: str, loc: Loc, message: str) -> None:
        warning = SchemaWarning(rule, loc, message)
        if warning not in self.warnings:
            self.warnings.append(warning)

    def root(self) -> Schema:
        node, refs = self._expanded(self.stored, ())
        notes: list[str] = []
        maps: list[dict[str, Any]] = [node.get("properties", {})]
        for keyword in ("anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"):
            branches: Any = node.pop(keyword, None)
            if branches is None:
                continue
            self.warn("root_combination", (keyword,), "is told in the description and checked when called")
            if keyword in ("anyOf", "oneOf"):
                opened = [self._expanded(b, refs) for b in branches]
                refs = tuple(r for _, some in opened for r in some)
                maps += [b.get("properties", {}) for b, _ in opened]
                notes += self._choice([b.get("required", []) for b, _ in opened], exclusive=keyword == "oneOf")
            elif keyword in ("then", "else", "dependentSchemas"):
                subs: list[Any] = list(branches.values()) if keyword == "dependentSchemas" else [branches]
                maps += [self._expanded(sub, refs)[0].get("properties", {}) for sub in subs]
        found = properties_of_either(maps)
        properties = {**found, **maps[0]}
        node["properties"] = {n: p for n, p in properties.items() if not fixed_value(p)[0]}
        node["type"] = "object"
        return self._typed(node, (), 0, refs, notes)

    def _choice(self, required: Sequence[list[str]], *, exclusive: bool) -> list[str]:
        sets = [" and ".join(self.aliases.get(n, n) for n in names) for names in required if names]
        if len(sets) < 2 or len(sets) != len(required):
            return []
        return [f"Give {'only one of ' if exclusive else ''}{' or '.join(dict.fromkeys(sets[:8]))}."]

    def _expanded(self, schema: Any, refs: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
        """The node with its `$ref`s and allOfs merged into it; children stay as stored. `refs` are those on the way here."""
        self.nodes += 1
        if self.nodes > _MAX_NODES:
            raise _TooMuch
        if not is_object(schema):
            return {}, refs
        node = {k: v for k, v in schema.items() if k not in ("$ref", "allOf", "$defs", "definitions")}
        parts: list[Any] = list(schema.get("allOf", ()))
        if isinstance(ref := schema.get("$ref"), str):
            if refs.count(ref) >= _MAX_RECURSION:
                stub: Schema = {"type": "object", "description": "Nested once more in the same form."}
                return both(node, stub), refs
            refs = (*refs, ref)
            parts.insert(0, resolve(self.stored, ref))
        for part in parts:
            merged, refs = self._expanded(part, refs)
            node = both(node, merged)
        return node, refs

    def _pieces(self, node: Schema, refs: tuple[str, ...]) -> list[tuple[Schema, tuple[str, ...]]]:
        """The node as alternatives of one type each (a single type is a single alternative); null is left out."""
        keyword = next((k for k in ("anyOf", "oneOf") if is_array(node.get(k))), None)
        if keyword is not None:
            outer = {k: v for k, v in node.items() if k != keyword and k not in ("description", "default", "examples")}
            pieces: list[tuple[Schema, tuple[str, ...]]] = []
            for branch in node[keyword]:
                if branch is False:
                    continue
                opened, inner = self._expanded(branch, refs)
                pieces += self._pieces(both(opened, outer), inner)
            return pieces
        any_array = {"items": {"type": "string"}} if not {"type", "items", "prefixItems"} & node.keys() else {}
        return [({**(any_array if n == "array" else {}), **node, "type": n}, refs) for n in _types_of(node)]

    def _build(self, schema: Any, loc: Loc, level: int, refs: tuple[str, ...]) -> Schema | None:
        """The published form of a nested schema; None for what can never be given."""
        if schema is False:
            return None
        node, refs = self._expanded(schema, refs)
        pieces = self._pieces(node, refs)
        by_type: dict[str, list[Schema]] = {}
        for piece, inner in pieces:
            by_type.setdefault(piece["type"], []).append(piece)
            refs = max(refs, inner, key=len)
        if "number" in by_type and "integer" in by_type:
            by_type["number"] += by_type.pop("integer")
        forms: list[tuple[str, Schema]] = []
        for name, group in by_type.items():
            if name == "object" and discriminated(group) and len(by_type) + len(group) <= 5:
                forms += [(name, piece) for piece in group]
                continue
            if len(group) > 1:
                self.warn("combination", loc, f"alternatives of type {name} are published as one")
            forms.append((name, either(name, group)))
        own = {k: node[k] for k in ("description", "default", "examples") if k in node}
        if not forms:
            return None
        if len(forms) == 1:
            return self._typed({**forms[0][1], **own, "type": forms[0][0]}, loc, level, refs, [])
        branches = [self._typed({**f, "type": n}, (*loc, i), level, refs, []) for i, (n, f) in enumerate(forms)]
        outer = Node({"type": "boolean", **own}, loc)
        for rule in RULES:
            rule(outer)
        return _described({"anyOf": branches}, own.get("description"), outer.notes)

    def _typed(self, schema: Schema, loc: Loc, level: int, refs: tuple[str, ...], notes: list[str]) -> Schema:
        """Rules on a node of one type, then its children."""
        node = Node(schema, loc, notes)
        for rule in RULES:
            rule(node)
        for rule_name, message in node.warnings:
            self.warn(rule_name, loc, message)
        made = node.schema
        if node.type == "object":
            self._children_of_object(node, level, refs)
        elif node.type == "array":
            items = self._items(node, level, refs)
            made["items"] = items if items is not None else {"type": "string"}
        return _described(made, made.pop("description", None), node.notes)

    def _children_of_object(self, node: Node, level: int, refs: tuple[str, ...]) -> None:
        made, loc = node.schema, node.loc
        stored: dict[str, Any] = made.pop("properties", {})
        required: list[str] = made.pop("required", [])
        additional = made.pop("additionalProperties", None)
        if level >= self.depth and (stored or is_object(additional)):
            node.notes.append("Its fields are not listed here.")
            self.warn("depth", loc, f"is deeper than {self.depth} levels: published as a plain object")
            return
        properties: dict[str, Any] = {}
        for name, prop in stored.items():
            built = self._build(prop, (*loc, "properties", name), level + 1, refs)
            if built is not None:
                properties[self.aliases.get(name, name)] = built
            else:
                self.warn("boolean", (*loc, "properties", name), "can never be given: left out")
            if level + 1 == GOOD_DEPTH + 1:
                self.warn("depth", loc, f"is nested deeper than {GOOD_DEPTH} levels")
        if properties or not loc:
            made["properties"] = properties
        if present := [alias for n in dict.fromkeys(required) if (alias := self.aliases.get(n, n)) in properties]:
            made["required"] = present
        if additional is False:
            made["additionalProperties"] = False
        elif is_object(additional) and (
            built := self._build(additional, (*loc, "additionalProperties"), level + 1, refs)
        ):
            made["additionalProperties"] = built

    def _items(self, node: Node, level: int, refs: tuple[str, ...]) -> Schema | None:
        """None: items are texts. On the last level they may be anything but arrays, which would be a level more."""
        if level <= self.depth:
            items = self._build(node.schema["items"], (*node.loc, "items"), level + 1, refs)
            forms: list[Any] = items.get("anyOf", [items]) if items is not None else []
            if level < self.depth or all(form.get("type") != "array" for form in forms):
                return items
        node.notes.append("Each item as JSON text.")
        return None


def _types_of(node: Schema) -> list[str]:
    """The types of a node without alternatives, null left out; the five that say everything where it says nothing."""
    given = node.get("type")
    if given is not None:
        types: list[str] = [t for t in TYPES if t == given or (is_array(given) and t in given)]
    elif "const" in node or "enum" in node:
        values: list[Any] = [node["const"]] if "const" in node else node["enum"]
        kinds = {type_of(v) for v in values}
        types = [t for t in TYPES if t in kinds]
    else:
        types = [name for name, hints in _HINTS.items() if any(h in node for h in hints)] or list(_ANY)
    if "number" in types and "integer" in types:
        types.remove("integer")
    return [t for t in types if t != "null"]


def _described(schema: Schema, text: Any, notes: Sequence[str]) -> Schema:
    """The schema with its description: the operator's text, then the notes, each once."""
    said = text.strip() if isinstance(text, str) else ""
    fresh = [n for n in dict.fromkeys(notes) if n not in said]
    if said and fresh and said[-1] not in ".!?:":
        said += "."
    full = " ".join(filter(None, (said, *fresh)))
    body = {k: v for k, v in schema.items() if k != "type"}
    head: Schema = {"type": schema["type"]} if "type" in schema else {}
    return {**head, **({"description": full} if full else {}), **body}
