"""What a schema says of a value's types and fields, seen through `$ref`, allOf, anyOf, oneOf, then, else and dependentSchemas.

Used to repair arguments and to fill defaults, never to judge: the validator does that.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from tools.json_schema import Schema, is_array, is_object, sure_parts

Types = frozenset[str]


def type_of(value: Any) -> str:
    """The JSON type name; "integer" for whole numbers, "" for what isn't JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    for kind, name in ((float, "number"), (str, "string"), (dict, "object"), (list, "array")):
        if isinstance(value, kind):
            return name
    return ""


@dataclass(slots=True)
class Shape:
    """`types` None: any. `properties` of every branch, `required` of all of them; `prefix`, `items` and `additional` are schemas."""

    types: Types | None = None
    properties: dict[str, Any] = field(default_factory=dict[str, Any])
    required: set[str] = field(default_factory=set[str])
    prefix: Sequence[Any] = ()
    items: Any = True
    additional: Any = True

    def item(self, i: int) -> Any:
        """The schema of an array's item at `i`."""
        return self.prefix[i] if i < len(self.prefix) else self.items


class Shapes:
    """The shapes of one root schema, each made when first asked for. References must end (`check_schema`)."""

    def __init__(self, root: Schema) -> None:
        self.root = root
        self._known: dict[int, Shape] = {}

    def of(self, schema: Any) -> Shape:
        if not is_object(schema):
            return _ANY
        found = self._known.get(id(schema))
        if found is None:
            found = Shape(types=self._types(schema))
            self._collect(schema, found, sure=True)
            self._known[id(schema)] = found
        return found

    def fill(self, value: Any, schema: Any) -> Any:
        """A copy with the defaults of missing optional properties, at every level that is there."""
        shape = self.of(schema)
        if is_array(value):
            return [self.fill(item, shape.item(i)) for i, item in enumerate(value)]
        if not is_object(value):
            return value
        filled = {k: self.fill(v, shape.properties.get(k, shape.additional)) for k, v in value.items()}
        own = self.own_properties(schema)
        for name, prop in own.items():
            if name not in filled and is_object(prop) and "default" in prop:
                filled[name] = deepcopy(prop["default"])
        return filled

    def own_properties(self, schema: Any) -> dict[str, Any]:
        """The properties that hold whatever branch is taken: the schema's, its `$ref`'s and its allOf's."""
        if not is_object(schema):
            return {}
        own: dict[str, Any] = dict(schema.get("properties", {}))
        for sub in sure_parts(schema, self.root):
            own = {**self.own_properties(sub), **own}
        return own

    def _types(self, schema: Any) -> Types | None:
        if not is_object(schema):
            return None
        types = _named_types(schema)
        for sub in sure_parts(schema, self.root):
            types = _both(types, self._types(sub))
        for keyword in ("anyOf", "oneOf"):
            branches = [self._types(sub) for sub in schema.get(keyword, ())]
            known = [b for b in branches if b is not None]
            if branches and len(known) == len(branches):
                types = _both(types, frozenset[str]().union(*known))
        return types

    def _collect(self, schema: Any, shape: Shape, *, sure: bool) -> None:
        if not is_object(schema):
            return
        for name, prop in schema.get("properties", {}).items():
            known = shape.properties.setdefault(name, prop)
            if known is not prop and known != prop:
                shape.properties[name] = _either(known, prop, "allOf" if sure else "anyOf")
        if sure:
            shape.required.update(schema.get("required", ()))
        shape.prefix = shape.prefix or schema.get("prefixItems", ())
        if shape.items is True and "items" in schema:
            shape.items = schema["items"]
        if shape.additional is True and "additionalProperties" in schema:
            shape.additional = schema["additionalProperties"]
        for sub in sure_parts(schema, self.root):
            self._collect(sub, shape, sure=sure)
        for keyword in ("anyOf", "oneOf"):
            for sub in schema.get(keyword, ()):
                self._collect(sub, shape, sure=False)
        for sub in (schema.get("then"), schema.get("else"), *schema.get("dependentSchemas", {}).values()):
            self._collect(sub, shape, sure=False)


_ANY = Shape()


def _either(known: Any, prop: Any, keyword: str) -> Any:
    """One property that several branches describe: what it is for stays that of the first."""
    kept = {k: v for k, v in known.items() if k.startswith("x-") or k == "description"} if is_object(known) else {}
    return {**kept, keyword: [known, prop]}


def _named_types(schema: Schema) -> Types | None:
    given = schema.get("type")
    types = None if given is None else frozenset[str]([given] if isinstance(given, str) else given)
    values: list[Any] | None = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        types = _both(types, frozenset(type_of(v) for v in values))
    return types


def _both(one: Types | None, other: Types | None) -> Types | None:
    if one is None or other is None:
        return other if one is None else one
    if "number" in one and "integer" in other:
        one |= {"integer"}
    if "number" in other and "integer" in one:
        other |= {"integer"}
    return one & other
