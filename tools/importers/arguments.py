"""The arguments of a tool while it is made: properties with their places and wire names, which never clash."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.json_schema import Schema
from tools.models import Method
from tools.naming import PROPERTY_NAME, property_aliases

BODY_METHODS = ("POST", "PUT", "PATCH")


class Unusable(ValueError):
    """The operation can't become a tool; the message says why."""


@dataclass(slots=True)
class Arguments:
    """Collected for one operation of `method`; `notes` say what of it was left out."""

    method: Method
    path_names: tuple[str, ...] = ()
    properties: dict[str, Schema] = field(default_factory=dict[str, Schema])
    required: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    open: Schema | bool | None = None

    def add(self, place: str, wire: str, schema: Mapping[str, Any], *, required: bool) -> None:
        """`place` is path, query, header or body. A name that is taken, or that no host takes, gets another one and x-name."""
        name = wire if PROPERTY_NAME.fullmatch(wire) else property_aliases([wire]).get(wire, wire)
        if name in self.properties:
            name = f"{place}_{name}"
        number = 2
        while name in self.properties:
            name, number = f"{name[:60]}_{number}", number + 1
        prop = dict(schema)
        default = "body" if self.method in BODY_METHODS else "query"
        if place not in ("path", default) or (place != "path" and wire in self.path_names):
            prop["x-in"] = place
        if name != wire:
            prop["x-name"] = wire
            if place == "path":
                prop["x-in"] = "path"
        self.properties[name] = prop
        if required and "default" not in prop:
            self.required.append(name)

    def whole_body(self, schema: Mapping[str, Any], *, required: bool) -> None:
        """One argument that is the body."""
        name = "body" if "body" not in self.properties else "request_body"
        self.properties[name] = {**schema, "x-body": True}
        if required:
            self.required.append(name)

    def schema(self) -> Schema:
        made: Schema = {"type": "object", "properties": self.properties}
        if self.required:
            made["required"] = self.required
        if self.open is not None:
            made["additionalProperties"] = self.open
        return made
