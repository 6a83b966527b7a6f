"""Faults of arguments in words that a model can act on (agents "Error texts").

`jsonschema_rs` says what is wrong; this says it with published names, short values, the nearest known name and what would fit.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jsonschema_rs

from tools.errors import ArgumentFault
from tools.json_schema import Loc, Schema, is_array, is_object
from tools.naming import nearest

MAX_VALUE_CHARS = 80
_MOST_LISTED = 10

_TYPES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "an array",
    "null": "null",
}
_FORMATS = {
    "date": "a date like 1987-04-21",
    "date-time": "a date and time with zone like 2024-05-31T14:30:00Z",
    "time": "a time with zone like 14:30:00Z",
    "duration": "a duration like P3D",
    "email": "an e-mail address like ann@example.com",
    "idn-email": "an e-mail address like ann@example.com",
    "uri": "a full URL like https://example.com/page",
    "iri": "a full URL like https://example.com/page",
    "uri-reference": "a URL",
    "uuid": "a UUID like 123e4567-e89b-12d3-a456-426614174000",
    "ipv4": "an IPv4 address like 192.0.2.1",
    "ipv6": "an IPv6 address like 2001:db8::1",
    "hostname": "a host name like example.com",
    "regex": "a regular expression",
    "json-pointer": "a JSON pointer like /a/b",
}


def format_words(name: str) -> str:
    """What a value of a `format` looks like: "a date like 1987-04-21"."""
    return _FORMATS.get(name, f"a valid {name}")


def shown(value: Any) -> str:
    """A value as JSON, at most 80 characters, control characters escaped."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = "this value"
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 1] + "…"


def listed(values: Iterable[Any], last: str = "or") -> str:
    """`"a", "b" or "c"`; at most 10, then how many more."""
    texts = [shown(v) for v in values]
    if len(texts) > _MOST_LISTED:
        return f"{', '.join(texts[:_MOST_LISTED])} and {len(texts) - _MOST_LISTED} more"
    return f" {last} ".join(filter(None, (", ".join(texts[:-1]), texts[-1]))) if texts else "nothing"


def path_text(loc: Iterable[str | int], aliases: Mapping[str, str]) -> str:
    """`items[2].code` with published names; the root is "arguments"."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{aliases.get(part, part)}" if text else aliases.get(part, part)
    return _clean(text) or "arguments"


def unknown_text(name: str, properties: Mapping[str, Any]) -> str:
    """`properties` are the known ones by published name; a name that one description alone mentions is meant, too."""
    guess = nearest(name, properties) or _described_as(name, properties)
    return f"no such argument; did you mean {guess}?" if guess else "no such argument."


def faults_of(
    error: jsonschema_rs.ValidationError, values: Any, root: Schema, aliases: Mapping[str, str]
) -> Iterator[ArgumentFault]:
    """One validation error of `values` against effective schema `root` as faults with published names."""
    loc: Loc = tuple(error.instance_path)
    kinds = jsonschema_rs.ValidationErrorKind
    match error.kind:
        case kinds.Required(property=name):
            why = "required, but missing."
            if error.schema_path[-1:] == ["dependentRequired"] or "dependentRequired" in error.schema_path[-2:]:
                why = "required together with what you gave, but missing."
            yield ArgumentFault(path_text((*loc, name), aliases), why)
        case kinds.AdditionalProperties(unexpected=names) | kinds.UnevaluatedProperties(unexpected=names):
            node = _node(root, error.schema_path[:-1])
            known = {aliases.get(k, k): v for k, v in node.get("properties", {}).items()}
            for name in names[:_MOST_LISTED]:
                yield ArgumentFault(path_text((*loc, name), {}), unknown_text(name, known))
        case kinds.FalseSchema() if error.schema_path[-1:] == ["additionalProperties"]:
            for name in list(_node(values, loc))[:_MOST_LISTED]:  # no properties are listed, so all are unknown
                yield ArgumentFault(path_text((*loc, name), {}), unknown_text(name, {}))
        case kinds.AnyOf(context=branches) | kinds.OneOfNotValid(context=branches):
            yield from _branch_faults(error, branches, values, root, aliases)
        case _:
            yield ArgumentFault(path_text(loc, aliases), _sentence(error, root, aliases))


def _sentence(error: jsonschema_rs.ValidationError, root: Schema, aliases: Mapping[str, str]) -> str:
    value = error.instance
    kinds = jsonschema_rs.ValidationErrorKind
    match error.kind:
        case kinds.Type(types=types):
            return f"{shown(value)} is not {' or '.join(_TYPES.get(t, t) for t in types)}."
        case kinds.Enum(options=options):
            guess = nearest(value, [o for o in options if isinstance(o, str)]) if isinstance(value, str) else None
            hint = f" Did you mean {shown(guess)}?" if guess else ""
            return f"{shown(value)} is not one of {listed(options)}.{hint}"
        case kinds.Constant(expected_value=expected):
            return f"must be {shown(expected)}, not {shown(value)}."
        case kinds.Format(format=name):
            return f"{shown(value)} is not {format_words(name)}."
        case kinds.Minimum(limit=limit):
            return f"{shown(value)} is less than {limit}."
        case kinds.Maximum(limit=limit):
            return f"{shown(value)} is more than {limit}."
        case kinds.ExclusiveMinimum(limit=limit):
            return f"{shown(value)} is not more than {limit}."
        case kinds.ExclusiveMaximum(limit=limit):
            return f"{shown(value)} is not less than {limit}."
        case kinds.MultipleOf(multiple_of=factor):
            return f"{shown(value)} is not a multiple of {factor}."
        case kinds.MinLength(limit=limit):
            return f"{shown(value)} is too short: at least {limit} {_plural('character', limit)}."
        case kinds.MaxLength(limit=limit):
            return f"{shown(value)} is too long: at most {limit} {_plural('character', limit)}."
        case kinds.Pattern(pattern=pattern):
            examples = _node(root, error.schema_path[:-1]).get("examples")
            like = f" Example: {shown(examples[0])}." if is_array(examples) and examples else ""
            return f"{shown(value)} does not match the pattern {_cut(pattern)}.{like}"
        case kinds.MinItems(limit=limit):
            return f"has {_length(value)} items; at least {limit} are needed."
        case kinds.MaxItems(limit=limit):
            return f"has {_length(value)} items; at most {limit} are allowed."
        case kinds.UniqueItems():
            return "holds the same item twice."
        case kinds.Contains():
            return "lacks an item that it must hold."
        case kinds.MinProperties(limit=limit):
            names = ", ".join(aliases.get(n, n) for n in list(root.get("properties", {}))[:_MOST_LISTED])
            more = f" of {names}" if names and not error.instance_path else ""
            given = f" ({_names(value, aliases)})" if value and not names else ""
            return f"has {_length(value)} {_plural('field', _length(value))}{given}; at least {limit}{more} are needed."
        case kinds.MaxProperties(limit=limit):
            return f"has {_length(value)} fields ({_names(value, aliases)}); at most {limit} are allowed."
        case kinds.PropertyNames(error=inner):
            return f"the field name {shown(inner.instance)} is not allowed."
        case kinds.UnevaluatedItems(unexpected=indices):
            return f"holds items that are not allowed, the first at [{indices[0] if indices else 0}]."
        case kinds.OneOfMultipleValid():
            return f"fits several forms that exclude each other: leave out some of {_names(value, aliases)}."
        case kinds.FalseSchema() if error.instance_path:
            return "is not allowed here."
        case kinds.Not() | kinds.FalseSchema():
            return f"is not allowed like this: {_names(value, aliases)}."
        case kinds.BacktrackLimitExceeded() | kinds.RegexEngineFailure():
            return f"{shown(value)} could not be matched within the limits; give a shorter value."
        case _:
            return f"does not fit: {_cut(error.message)}."


def _branch_faults(
    error: jsonschema_rs.ValidationError,
    branches: list[list[jsonschema_rs.ValidationError]],
    values: Any,
    root: Schema,
    aliases: Mapping[str, str],
) -> Iterator[ArgumentFault]:
    """anyOf and oneOf: what to give where only that differs, the types where they differ, else the closest branch."""
    kinds = jsonschema_rs.ValidationErrorKind
    loc: Loc = tuple(error.instance_path)
    choices: list[str] = []
    types: list[str] = []
    for branch in branches:
        own = [e.kind for e in branch if len(e.instance_path) == len(loc)]
        missing = [k.property for k in own if isinstance(k, kinds.Required)]
        if missing and len(missing) == len(branch):
            choices.append(" and ".join(path_text((name,), aliases) for name in missing))
        types += [t for k in own if isinstance(k, kinds.Type) for t in k.types]
    if branches and len(choices) == len(branches):
        yield ArgumentFault(path_text(loc, aliases), f"give {' or '.join(dict.fromkeys(choices))}.")
        return
    wrong_type = [any(isinstance(e.kind, kinds.Type) and len(e.instance_path) == len(loc) for e in b) for b in branches]
    if all(wrong_type):
        words = " or ".join(_TYPES.get(t, t) for t in dict.fromkeys(types))
        yield ArgumentFault(path_text(loc, aliases), f"{shown(error.instance)} is not {words}.")
        return
    fitting = [b for b, wrong in zip(branches, wrong_type, strict=True) if not wrong]
    closest = min(fitting, key=lambda b: (len(b), -max((len(e.instance_path) for e in b), default=0)))
    if len(fitting) > 1:
        yield ArgumentFault(path_text(loc, aliases), f"fits none of the {len(branches)} forms; the closest one says:")
    for inner in closest[:_MOST_LISTED]:
        yield from faults_of(inner, values, root, aliases)


def _described_as(name: str, properties: Mapping[str, Any]) -> str | None:
    """The one property whose description holds the name as a word."""
    word = name.replace("_", " ").lower()
    if len(word) < 3:
        return None
    found = [
        known
        for known, prop in properties.items()
        if is_object(prop) and f" {word} " in f" {_words(str(prop.get('description', ''))[:2000])} "
    ]
    return found[0] if len(found) == 1 else None


def _words(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _node(root: Any, loc: Iterable[str | int]) -> Schema:
    node: Any = root
    for part in loc:
        if is_object(node) and part in node:
            node = node[str(part)]
        elif is_array(node) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            return {}
    return node if is_object(node) else {}


def _names(value: Any, aliases: Mapping[str, str]) -> str:
    if not is_object(value) or not value:
        return shown(value)
    return ", ".join(path_text((name,), aliases) for name in list(value)[:_MOST_LISTED])


def _length(value: Any) -> int:
    return len(value) if is_object(value) or is_array(value) else 0


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _clean(text: str) -> str:
    return _cut("".join(c if c.isprintable() else "?" for c in text))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 1] + "…"
