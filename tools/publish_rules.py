"""The rules of a published node, one small function each, applied in the order of `RULES` (agents 3).

A rule gets a node of one `type` (children still as stored), changes it in place and may add notes, which end up in its
description. What a rule takes out, the stored schema still checks.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from tools.argument_texts import format_words, listed, shown
from tools.json_schema import Loc, Schema, is_array, is_object
from tools.schema_merge import item_forms
from tools.shapes import type_of

MAX_ENUM = 50
MAX_EXACT = 2**53 - 1
"""The largest whole number that JavaScript carries exactly."""
_SHOWN_OF_LONG_ENUM = 20
_KEPT_FORMATS = ("date-time",)

KEYWORDS: dict[str, tuple[str, ...]] = {
    "string": ("enum", "format", "pattern", "minLength", "maxLength"),
    "number": ("minimum", "maximum"),
    "integer": ("minimum", "maximum"),
    "boolean": (),
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "minItems", "maxItems"),
}
"""What a published node of each type may hold beside `type` and `description`."""


@dataclass(slots=True)
class Node:
    """A node on its way: `schema` is changed in place, `notes` become sentences of its description."""

    schema: Schema
    loc: Loc
    notes: list[str] = field(default_factory=list[str])
    warnings: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def type(self) -> str:
        return self.schema["type"]


def const_is_an_enum_of_one(node: Node) -> None:
    if "const" in node.schema:
        node.schema["enum"] = [node.schema.pop("const")]


def enum_holds_short_lists_of_text(node: Node) -> None:
    """Gemini takes strings only and no empty one; long lists are told in part."""
    if "enum" not in node.schema:
        return
    values: list[Any] = [v for v in node.schema.pop("enum") if v is not None and v != ""]
    fitting = [v for v in values if type_of(v) == node.type or (node.type == "number" and type_of(v) == "integer")]
    if node.type == "string" and fitting and len(fitting) <= MAX_ENUM:
        node.schema["enum"] = list(dict.fromkeys(fitting))
    elif len(fitting) > MAX_ENUM:
        first = ", ".join(shown(v) for v in fitting[:_SHOWN_OF_LONG_ENUM])
        node.notes.append(f"One of {len(fitting)} values: {first} and so on.")
        node.warnings.append(("enum", f"{len(fitting)} values: the first {_SHOWN_OF_LONG_ENUM} are in the description"))
    elif len(fitting) > 1:
        node.notes.append(f"One of: {listed(fitting)}.")
    elif fitting:
        node.notes.append(f"Always {shown(fitting[0])}.")


def bounds_are_inclusive(node: Node) -> None:
    """Integers: the next one; else into the description."""
    s = node.schema
    low, high = s.pop("exclusiveMinimum", None), s.pop("exclusiveMaximum", None)
    if node.type == "integer":
        if low is not None:
            s["minimum"] = max(s.get("minimum", -math.inf), math.floor(low) + 1)
        if high is not None:
            s["maximum"] = min(s.get("maximum", math.inf), math.ceil(high) - 1)
        return
    if low is not None:
        node.notes.append(f"More than {low}.")
    if high is not None:
        node.notes.append(f"Less than {high}.")


def whole_bounds_are_exact_everywhere(node: Node) -> None:
    """A host in JavaScript writes 2^63-1 as 2^63 and more, which a provider that reads 64 bits refuses; Gemini takes no 1.0 for a length."""
    counted = ("minLength", "maxLength", "minItems", "maxItems")
    for keyword in (*counted, *(("minimum", "maximum") if node.type == "integer" else ())):
        if (bound := node.schema.get(keyword)) is None:
            continue
        if abs(bound) > MAX_EXACT:
            del node.schema[keyword]
        else:
            node.schema[keyword] = math.ceil(bound) if keyword == "minimum" else math.floor(bound)


def multiples_are_told(node: Node) -> None:
    if (factor := node.schema.pop("multipleOf", None)) is not None and factor != 1:
        node.notes.append(f"A multiple of {factor}.")


def patterns_are_portable(node: Node) -> None:
    pattern = node.schema.get("pattern")
    if isinstance(pattern, str) and not portable_pattern(pattern):
        del node.schema["pattern"]
        if not is_array(node.schema.get("examples")):
            node.notes.append(f"Must match {shown(pattern)[1:-1]}.")
        node.warnings.append(("pattern", "is told in the description: not every host can compile it"))


def formats_are_told(node: Node) -> None:
    """Gemini knows date-time only; others ignore them."""
    name = node.schema.get("format")
    if isinstance(name, str) and (node.type != "string" or name not in _KEPT_FORMATS):
        del node.schema["format"]
        if node.type == "string" and name:
            words = format_words(name[:40])
            node.notes.append(words[0].upper() + words[1:] + ".")


def tuples_are_arrays_of_their_items(node: Node) -> None:
    """An item fits any of the places; which, is told."""
    prefix = node.schema.pop("prefixItems", None)
    if node.type != "array" or not is_array(prefix):
        return
    rest = node.schema.get("items", False)
    if node.schema.get("items") is False:
        node.schema["maxItems"] = min(node.schema.get("maxItems", len(prefix)), len(prefix))
    forms = item_forms({"prefixItems": prefix, **node.schema})
    node.schema["items"] = forms[0] if len(forms) == 1 else {"anyOf": forms}
    kinds = [form["type"] for form in prefix if is_object(form) and isinstance(form.get("type"), str)]
    if len(forms) > 1 and len(kinds) == len(prefix):
        node.notes.append(f"Items in this order: {', '.join(kinds)}{', then others' if rest is not False else ''}.")


def arrays_have_items(node: Node) -> None:
    if node.type != "array" or ("items" in node.schema and node.schema["items"] is not False):
        return
    samples: list[Any] = [*(node.schema.get("examples") or ()), node.schema.get("default")]
    items = next((s[0] for s in samples if is_array(s) and s), "")
    kind = type_of(items)
    node.schema["items"] = {"type": kind} if kind in ("integer", "number", "boolean", "object") else {"type": "string"}
    node.warnings.append(("items", f"array without items: published with items of type {node.schema['items']['type']}"))


def uniqueness_is_told(node: Node) -> None:
    if node.type == "array" and node.schema.get("uniqueItems") is True:
        node.notes.append("Each item once.")


def object_rules_are_told(node: Node) -> None:
    if node.type != "object":
        return
    if (least := node.schema.get("minProperties", 0)) > 0:
        node.notes.append(f"At least {least} field{'s' if least > 1 else ''}.")
    dependent: dict[str, list[str]] = node.schema.get("dependentRequired", {})
    for name, others in list(dependent.items())[:5]:
        if others:
            node.notes.append(f"{name} needs {', '.join(others[:5])}.")


def additional_is_false_at_the_root_or_a_map(node: Node) -> None:
    """Nested: kept only where it is all that the object says."""
    additional = node.schema.get("additionalProperties")
    keep = additional is False if not node.loc else is_object(additional) and not node.schema.get("properties")
    if not keep:
        node.schema.pop("additionalProperties", None)


def examples_and_default_are_told(node: Node) -> None:
    examples = node.schema.get("examples")
    if is_array(examples) and examples:
        node.notes.append(f"Example: {shown(examples[0])}.")
    if (default := node.schema.get("default")) is not None and node.loc:
        node.notes.append(f"Default: {shown(default)}.")


def only_known_keywords_stay(node: Node) -> None:
    """Annotations, x- keywords, and what belongs to another type."""
    kept = ("type", "description", *KEYWORDS[node.type])
    for keyword in [k for k in node.schema if k not in kept]:
        del node.schema[keyword]


RULES = (
    const_is_an_enum_of_one,
    enum_holds_short_lists_of_text,
    bounds_are_inclusive,
    whole_bounds_are_exact_everywhere,
    multiples_are_told,
    patterns_are_portable,
    formats_are_told,
    tuples_are_arrays_of_their_items,
    arrays_have_items,
    uniqueness_is_told,
    object_rules_are_told,
    additional_is_false_at_the_root_or_a_map,
    examples_and_default_are_told,
    only_known_keywords_stay,
)

_IN_CLASS = r"(?:[^\\\[\]\-\s]|[ ]|\\[\^$\\.*+?()\[\]{}|/\-nrtfv])"
_PORTABLE = re.compile(
    r"""(?>                                    # atomic: a hostile pattern must not make this one backtrack
        \\[dDwWsSbBnrtfv]                    # classes and controls
      | \\[\^$\\.*+?()\[\]{}|/]              # escaped syntax characters: the only ones that mode u takes
      | """
    + rf"\[\^?-?(?:\\[dDwWsS](?!-[^\]])|{_IN_CLASS}(?:-{_IN_CLASS})?)+-?\]"
    + r"""
      | \((?:\?:)?                           # no look-around, no names, no flags
      | \)
      | [|.^$]
      | [*+?]\??
      | \{\d{1,3}(?:,\d{0,3})?\}\??
      | [^\\\[\](){}|.^$*+?]
    )*+""",
    re.VERBOSE,
)


def portable_pattern(pattern: str) -> bool:
    """Whether every host compiles it: ECMA-262 mode `u`, no look-around, no `\\p`, no flags. Doubt means no."""
    if len(pattern) > 256 or not pattern.isprintable() or not _PORTABLE.fullmatch(pattern):
        return False
    if re.search(r"--|&&|\|\||~~|(?:^|[(|])(?!\?:)[*+?{]|[\^$][*+?{]|\\[bB][*+?{]|[*+?}]\??[*+{]", pattern):
        return False
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return True
