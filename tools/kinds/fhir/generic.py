"""The tools of a FHIR integration without endpoints: search, read, create, update, operation (semantics "Protocols"). Pure."""

from typing import Any

from tools.kinds.fhir.capabilities import Capabilities
from tools.kinds.fhir.requests import MAX_COUNT, OURS
from tools.models import Annotations, EndpointConfig

PARAMS = "params"
_ID = {
    "type": "string",
    "pattern": "^[A-Za-z0-9.-]{1,64}$",
    "description": "The record's id, exactly as a search returned it.",
}


def generic_endpoints(capabilities: Capabilities) -> list[EndpointConfig]:
    """Only what the server can do; a tool with nothing to do isn't there."""
    found = [
        _search(capabilities.names("search-type")),
        _read(capabilities.names("read")),
        _create(capabilities.names("create")),
        _update(capabilities.names("update")),
        _operation(capabilities),
    ]
    return [endpoint for endpoint in found if endpoint is not None]


def _types(names: list[str]) -> dict[str, Any]:
    return {"type": "string", "enum": names, "description": "The FHIR resource type."}


def _search(names: list[str]) -> EndpointConfig | None:
    params = {
        "type": "object",
        "description": (
            'FHIR search parameters, like {"code": "http://loinc.org|8867-4", "date": ["ge2024-01-01"]}. A text is sent as FHIR '
            "writes it; in a list each text is one value, and any may match; a list of lists means all of them."
        ),
        "additionalProperties": True,
    }
    count = {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_COUNT,
        "description": "How many to go for.",
        "x-name": "_count",
    }
    properties = {"resource_type": _types(names), PARAMS: params, "count": count, "cursor": OURS["cursor"]}
    said = "Finds FHIR resources by search parameters. Gives a list of resources, and a cursor where there are more."
    return _endpoint("search", said, "GET", "/{resource_type}", properties, ["resource_type"]) if names else None


def _read(names: list[str]) -> EndpointConfig | None:
    properties = {"resource_type": _types(names), "id": _ID}
    said = "Reads one FHIR resource by its id."
    return _endpoint("read", said, "GET", "/{resource_type}/{id}", properties, [*properties]) if names else None


def _create(names: list[str]) -> EndpointConfig | None:
    body = {"type": "object", "description": "The resource, without id.", "x-body": True, "additionalProperties": True}
    properties = {"resource_type": _types(names), "resource": body, "if_none_exist": OURS["if_none_exist"]}
    said = "Creates a FHIR resource; with if_none_exist only if no such record exists, so that a repeat does no harm."
    return (
        _endpoint("create", said, "POST", "/{resource_type}", properties, ["resource_type", "resource"])
        if names
        else None
    )


def _update(names: list[str]) -> EndpointConfig | None:
    body = {
        "type": "object",
        "description": "The whole resource as it shall be: what is left out is removed.",
        "x-body": True,
        "additionalProperties": True,
    }
    properties = {"resource_type": _types(names), "id": _ID, "resource": body, "version_id": OURS["version_id"]}
    said = (
        "Replaces a FHIR resource. Read it first, and give its meta.versionId as version_id so that no change is lost."
    )
    required = ["resource_type", "id", "resource"]
    return _endpoint("update", said, "PUT", "/{resource_type}/{id}", properties, required) if names else None


def _operation(capabilities: Capabilities) -> EndpointConfig | None:
    names = sorted({*capabilities.operations, *(o for t in capabilities.types for o in t.operations)})
    types = [t.name for t in capabilities.types if t.operations]
    body = {
        "type": "object",
        "description": (
            'Names and values, like {"end": "2024-01-01"}, or a whole Parameters resource where their FHIR types matter.'
        ),
        "x-body": True,
        "additionalProperties": True,
    }
    properties = {
        "operation": {"type": "string", "enum": [f"${name}" for name in names], "description": "The FHIR operation."},
        **({"resource_type": _types(types)} if types else {}),
        "id": {**_ID, "description": "For an operation on one record."},
        "parameters": body,
    }
    said = "Runs a FHIR operation of the server, of a resource type, or of one record."
    return _endpoint("operation", said, "POST", "/$operation", properties, ["operation"]) if names else None


def _endpoint(
    name: str, description: str, method: Any, path: str, properties: dict[str, Any], required: list[str]
) -> EndpointConfig:
    schema = {"type": "object", "properties": properties, "required": required}
    return EndpointConfig(
        name=name,
        description=description,
        method=method,
        path=path,
        input_schema=schema,
        annotations=Annotations(idempotentHint=True) if method == "GET" else None,
    )


def as_parameters(given: dict[str, Any]) -> dict[str, Any]:
    """A Parameters resource of plain names and values; one that is given as such stays."""
    if given.get("resourceType") == "Parameters":
        return given
    rows: list[dict[str, Any]] = []
    for name, value in given.items():
        items: list[Any] = value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType] - any JSON
        rows += [_parameter(name, item) for item in items if item is not None]
    return {"resourceType": "Parameters", "parameter": rows}


def _parameter(name: str, value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"name": name, "valueBoolean": value}
        case int():
            return {"name": name, "valueInteger": value}
        case float():
            return {"name": name, "valueDecimal": value}
        case dict() if "resourceType" in value:
            return {"name": name, "resource": value}
        case dict():
            return {"name": name, "part": as_parameters(value)["parameter"]}  # pyright: ignore[reportUnknownArgumentType] - any JSON
        case _:
            return {"name": name, "valueString": str(value)}
