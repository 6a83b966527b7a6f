"""Which FHIR interaction an endpoint is, by its method and path, and what can't be offered (rules G5, G7, G11). Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from tools.json_schema import is_object, wire_name
from tools.kinds.rest import PlanFault
from tools.models import EndpointConfig

Kind = Literal["search", "read", "create", "update", "patch", "delete", "operation", "binary", "other"]
TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")


def segments_of(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def kind_of(endpoint: EndpointConfig) -> Kind:
    parts = segments_of(endpoint.path)
    last = parts[-1] if parts else ""
    if last.startswith("$"):
        return "operation"
    is_type = TYPE.fullmatch(last) is not None or (len(parts) == 1 and last == "{resource_type}")
    match endpoint.method:
        case "GET" if len(parts) == 2 and parts[0] == "Binary":
            return "binary"
        case "GET":
            return "search" if is_type or last == "_history" else "read"
        case "POST" if last == "_search":
            return "search"
        case "POST":
            return "create" if is_type and len(parts) == 1 else "other"
        case "PUT":
            return "update"
        case "PATCH":
            return "patch"
        case "DELETE":
            return "delete"


def type_of(endpoint: EndpointConfig) -> str:
    """The resource type that it is about; empty where the path doesn't say."""
    parts = [part for part in segments_of(endpoint.path) if TYPE.fullmatch(part)]
    if not parts:
        return ""
    return parts[-1] if kind_of(endpoint) == "search" else parts[0]


def faults_of(endpoint: EndpointConfig, schema: Mapping[str, Any]) -> Iterator[PlanFault]:
    """What an operator can't write into an endpoint of a FHIR integration."""
    parts = segments_of(endpoint.path)
    if endpoint.method in ("PUT", "PATCH", "DELETE") and len(parts) < 2 and not (parts and parts[0].startswith("$")):
        yield PlanFault(
            ("path",), f"a {endpoint.method} names one record, like /Patient/{{id}}; conditional ones aren't offered"
        )
    if parts and parts[-1] == "$export":
        yield PlanFault(("path",), "$export runs in the background, which isn't supported yet")
    for name, value in endpoint.headers.items():
        if name.lower() == "prefer" and "respond-async" in value.lower():
            yield PlanFault(("headers", name), "respond-async isn't supported yet")
    properties: dict[str, Any] = schema.get("properties") or {}
    for name, rules in properties.items():
        if wire_name(name, rules) in ("_format", "_pretty"):
            yield PlanFault(
                ("input_schema", "properties", name), "the format is the gateway's: _format and _pretty can't be set"
            )
        if is_object(rules) and not isinstance(rules.get("x-fhir-type", ""), str):
            yield PlanFault(("input_schema", "properties", name, "x-fhir-type"), "is a FHIR type, like token or date")
