"""Arguments fit the tool's schema, are repaired by it, or are refused with words that a model can act on.

Compiled once per catalog version; `prepare` is on the path of every call. Validation is with the stored schema (agents 1 and 3,
semantics "From arguments to a request" 6): what hosts see may be looser.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jsonschema_rs

from tools.argument_texts import faults_of, path_text, unknown_text
from tools.errors import ArgumentFault, InvalidArguments
from tools.json_schema import (
    Loc,
    Schema,
    argument_depth,
    compile_validator,
    effective_schema,
    fixed_value,
    is_array,
    is_closed,
    is_object,
    stored_names,
    subschemas,
)
from tools.json_values import weigh
from tools.naming import property_aliases
from tools.shapes import Shapes, type_of

_MOST_FAULTS = 20
_MOST_NODES = 2000


@dataclass(slots=True)
class Prepared:
    """`values` by stored name, valid, with defaults and fixed values; `changes` names each repair ("limit: text read as integer")."""

    values: dict[str, Any]
    changes: tuple[str, ...] = ()


def compile_arguments(schema: Schema, path_params: Sequence[str] = (), *, path: str = "") -> "Arguments":
    """From a stored schema that `check_schema` found no fault in; raises ValueError for others."""
    return Arguments(schema, path_params, path)


class Arguments:
    """The compiled arguments of one tool. `schema` is the effective one; `names` are the published names, in order."""

    def __init__(self, stored: Schema, path_params: Sequence[str] = (), path: str = "") -> None:
        self.schema = effective_schema(stored, path_params, path)
        self.aliases = property_aliases(stored_names(self.schema))
        self._validator = compile_validator(self.schema)
        self._max_depth = argument_depth(self.schema)
        self._shapes = Shapes(self.schema)
        root = self._shapes.of(self.schema)
        self._fixed = {name: fixed_value(prop)[1] for name, prop in root.properties.items() if fixed_value(prop)[0]}
        self._properties = {name: prop for name, prop in root.properties.items() if name not in self._fixed}
        self._known = frozenset(self._properties)
        self.names = tuple(self.aliases.get(name, name) for name in self._properties)
        self._closed = is_closed(stored)
        self._defaults = any("default" in node for _, node in subschemas(self.schema))

    def prepare(self, args: Mapping[str, Any]) -> Prepared:
        """Raises InvalidArguments with every fault."""
        self._refuse_unsound(args)
        if not self.aliases and args.keys() <= self._known:
            values = {**args, **self._fixed}
            if self._validator.is_valid(values):
                return Prepared(self._filled(values))
        return self._repaired(args)

    def _repaired(self, args: Mapping[str, Any]) -> Prepared:
        changes: list[str] = []
        values = self._repair(dict(args), self.schema, (), changes)
        faults: list[ArgumentFault] = []
        known = {self.aliases.get(name, name): prop for name, prop in self._properties.items()}
        unknown = [n for n in values if n in self._fixed or (self._closed and n not in self._known)]
        for name in unknown:
            del values[name]
        faults += [ArgumentFault(path_text((n,), {}), unknown_text(n, known)) for n in unknown[:_MOST_FAULTS]]
        values.update(self._fixed)
        errors = self._errors(values)
        for error in islice(errors, _MOST_FAULTS):
            faults.extend(f for f in faults_of(error, values, self.schema, self.aliases) if f not in faults)
        if next(errors, None) is not None or len(unknown) > _MOST_FAULTS:
            faults.append(ArgumentFault("arguments", "more faults like these."))
        if faults:
            raise InvalidArguments(faults, self.names)
        return Prepared(self._filled(values), tuple(changes))

    def _errors(self, values: dict[str, Any]) -> Iterator[jsonschema_rs.ValidationError]:
        """What is wrong; of large arguments the first alone, since all are made before the first is given."""
        if weigh(values, _MOST_NODES)[0] <= _MOST_NODES:
            return self._validator.iter_errors(values)
        try:
            self._validator.validate(values)
        except jsonschema_rs.ValidationError as e:
            return iter((e,))
        return iter(())

    def _repair(self, value: Any, schema: Any, loc: Loc, changes: list[str]) -> Any:
        """A copy in stored names, with what the schema can tell was meant; faults stay for the validator to find."""
        shape = self._shapes.of(schema)
        if isinstance(value, str) and shape.types is not None and "string" not in shape.types:
            read = _json(value)
            if type_of(read) not in shape.types and not (type_of(read) == "integer" and "number" in shape.types):
                return value
            changes.append(f"{path_text(loc, self.aliases)}: text read as {type_of(read)}")
            return self._repair(read, schema, loc, changes)
        if is_array(value):
            return [self._repair(item, shape.item(i), (*loc, i), changes) for i, item in enumerate(value)]
        if not is_object(value):
            return value
        stored = {self.aliases[name]: name for name in shape.properties if name in self.aliases} if self.aliases else {}
        repaired: dict[str, Any] = {}
        for given, item in value.items():
            name = stored.get(given, given)
            sub = shape.properties.get(name, shape.additional)
            types = self._shapes.of(sub).types
            if item is None and types is not None and "null" not in types and name not in shape.required:
                changes.append(f"{path_text((*loc, name), self.aliases)}: null left out")
                continue
            repaired[name] = self._repair(item, sub, (*loc, name), changes)
        return repaired

    def _filled(self, values: dict[str, Any]) -> dict[str, Any]:
        return self._shapes.fill(values, self.schema) if self._defaults else values

    def _refuse_unsound(self, args: Mapping[str, Any]) -> None:
        """What no schema can allow: text that isn't Unicode, NaN, nesting beyond what can be checked."""
        for name, value in args.items():
            if (isinstance(value, str) and value.isascii()) or type(value) in (bool, int):
                continue
            self._refuse_value(name, value)
        if not all(map(str.isascii, args)):
            for name in args:
                self._refuse_value("arguments", name)

    def _refuse_value(self, name: str, value: Any) -> None:
        todo: list[tuple[int, Any]] = [(1, value)]
        while todo:
            depth, item = todo.pop()
            why = None
            if is_object(item):
                todo.extend((depth + 1, v) for pair in item.items() for v in pair)
            elif is_array(item):
                todo.extend((depth + 1, v) for v in item)
            elif isinstance(item, str):
                why = "holds text that is not valid Unicode." if _has_surrogates(item) else None
            elif isinstance(item, float) and not math.isfinite(item):
                why = "holds a number that JSON can't carry (NaN or infinity)."
            if depth > self._max_depth + 1:
                why = f"is nested deeper than {self._max_depth} levels."
            if why:
                raise InvalidArguments([ArgumentFault(path_text((name,), self.aliases), why)], self.names)


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


_UNREADABLE = object()


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _UNREADABLE


def _refuse(constant: str) -> Any:
    raise ValueError(constant)
