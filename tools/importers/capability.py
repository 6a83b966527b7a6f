"""A CapabilityStatement as candidates: one endpoint for each thing that the server does with a resource type. Pure.

`cursor`, `version_id` and `if_none_exist` aren't written into them: every FHIR tool has these by itself.
"""

import re
from dataclasses import replace
from typing import Any

from tools.descriptions import estimate_tokens
from tools.errors import InvalidResponse
from tools.importers.frame import Candidate, Choice, LeftOut, Source, SourceFault
from tools.json_schema import Schema
from tools.json_values import is_object
from tools.kinds.fhir.capabilities import Parameter, ResourceType, capabilities_of, kept
from tools.kinds.fhir.requests import MAX_COUNT
from tools.kinds.rest import to_json
from tools.models import Annotations, EndpointConfig, Method
from tools.published import PublishRefused, publish

COMMON = [
    "Patient",
    "Practitioner",
    "Organization",
    "Encounter",
    "Condition",
    "Observation",
    "AllergyIntolerance",
    "MedicationRequest",
    "Immunization",
    "Procedure",
    "DiagnosticReport",
    "DocumentReference",
    "Appointment",
    "CarePlan",
    "ServiceRequest",
]
"""What most questions are about, for the default choice."""
_INTERACTIONS: tuple[tuple[str, str, Method], ...] = (
    ("search-type", "search", "GET"),
    ("read", "read", "GET"),
    ("create", "create", "POST"),
    ("update", "update", "PUT"),
    ("patch", "patch", "PATCH"),
    ("delete", "delete", "DELETE"),
)
_ONE_MOMENT = r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?\d{4}(-\d{2}(-\d{2}(T[0-9:.]+(Z|[+-]\d{2}:\d{2})?)?)?)?"
_KNOWN = {"string", "token", "reference", "date", "number", "quantity", "uri", "composite", "special"}
_MOST = (30, 20, 12, 6, 0)
_MAX_ENUM = 60
_ID: Schema = {"type": "string", "pattern": "^[A-Za-z0-9.-]{1,64}$", "description": "The id, as a search returned it."}


def read_capability(statement: Any, base_url: str) -> Source:
    """Raises SourceFault for what is no CapabilityStatement."""
    try:
        capabilities = capabilities_of(kept(statement, base_url))
    except InvalidResponse as e:
        raise SourceFault(e.message) from None
    assert capabilities is not None
    candidates: list[Candidate] = []
    left: list[LeftOut] = []
    for found in capabilities.types:
        for code, verb, method in _INTERACTIONS:
            if code in found.interactions:
                candidates.append(_candidate(found, verb, method))
        if others := sorted(found.interactions - {code for code, _, _ in _INTERACTIONS}):
            left.append(LeftOut(found.name, f"{', '.join(others)}: not a tool"))
    software = statement.get("software")
    title = software.get("name") if is_object(software) else None
    source = Source(str(title or "FHIR server")[:200], base_url, None, tuple(candidates), tuple(left), protocol="fhir")
    return replace(source, default=default_choice(source))


def default_choice(source: Source) -> Choice:
    """Search and read of the types that most questions are about; of the first ones where the server has none of those.

    An agent that is shown several hundred tools finds none of them.
    """
    reads = [c for c in source.candidates if c.endpoint.method == "GET"]
    types = list(dict.fromkeys(c.tags[0] for c in reads))
    chosen = [name for name in COMMON if name in types] or types[: len(COMMON)]
    return Choice(tags=tuple(chosen), methods=("GET",))


def _candidate(found: ResourceType, verb: str, method: Method) -> Candidate:
    name = f"{verb}_{_snake(found.name)}"
    path = f"/{found.name}" if verb in ("search", "create") else f"/{found.name}/{{id}}"
    notes: list[str] = []
    schema = _search_schema(found, path, notes) if verb == "search" else _schema(verb, found)
    endpoint = EndpointConfig(
        name=name[:64],
        description=_description(verb, found),
        method=method,
        path=path,
        input_schema=schema,
        annotations=Annotations(destructiveHint=True) if verb == "delete" else None,
    )
    tokens = estimate_tokens(endpoint.description + to_json(publish(schema, (), path=path).schema).decode())
    key = f"{method} {path}"
    return Candidate(key, endpoint, tags=(found.name,), operation_id=name, notes=tuple(notes), tokens=tokens)


def _description(verb: str, found: ResourceType) -> str:
    match verb:
        case "search":
            return f"Finds {found.name} resources. Gives a list, and a cursor where there are more."
        case "read":
            return f"Reads one {found.name} by its id."
        case "create":
            return f"Creates a {found.name}; with if_none_exist only if no such record exists."
        case "update":
            return f"Replaces a {found.name}: read it first, and give its meta.versionId as version_id."
        case "patch":
            return f"Changes parts of a {found.name} by JSON Patch."
        case _:
            return f"Deletes one {found.name}."


def _schema(verb: str, found: ResourceType) -> Schema:
    properties: Schema = {} if verb == "create" else {"id": _ID}
    match verb:
        case "create" | "update":
            properties["resource"] = {
                "type": "object",
                "x-body": True,
                "description": f"The {found.name} as FHIR JSON{', without id' if verb == 'create' else ', whole'}.",
                "additionalProperties": True,
            }
        case "patch":
            operation = {"type": "object", "additionalProperties": True}
            properties["patch"] = {
                "type": "array",
                "items": operation,
                "x-body": True,
                "description": "JSON Patch operations.",
            }
        case _:
            pass
    return {"type": "object", "properties": properties, "required": [*properties]}


def _search_schema(found: ResourceType, path: str, notes: list[str]) -> Schema:
    """As many parameters as every host takes; those that the server explains first."""
    usable = [
        p for p in found.parameters if not p.name.startswith("_") and re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", p.name)
    ]
    usable.sort(
        key=lambda p: (p.name not in ("patient", "subject", "identifier", "name", "date", "code", "status"), p.name)
    )
    schema: Schema = {}
    for most in _MOST:
        properties: Schema = {"_id": {"type": "string", "description": "The resource's id.", "x-fhir-type": "token"}}
        properties |= {p.name: _property(p) for p in usable[:most]}
        for name, values in (("_include", found.includes), ("_revinclude", found.revincludes)):
            values = [v for v in values if v != "*" and ":" in v][: _MAX_ENUM if most > 12 else 15]
            if values:
                said = "Related resources to give as well, apart from the matches."
                properties[name] = {"type": "array", "items": {"type": "string", "enum": values}, "description": said}
        properties["_sort"] = {
            "type": "string",
            "description": "Parameters to sort by, comma between; - before one for descending.",
        }
        properties["_count"] = {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_COUNT,
            "description": "How many to go for.",
        }
        schema = {"type": "object", "properties": properties}
        try:
            publish(schema, (), path=path)
        except PublishRefused:
            continue
        if len(usable) > most:
            notes.append(
                f"{len(usable) - most} search parameters left out: {', '.join(p.name for p in usable[most:])[:300]}"
            )
        break
    return schema


def _property(parameter: Parameter) -> Schema:
    kind = parameter.type if parameter.type in _KNOWN else "special"
    said, known = parameter.documentation[:120], {"x-fhir-type": kind} if kind != "special" else {}
    match kind:
        case "token":
            how = "code, or system|code; any of them may match"
            shape: Schema = {"type": "array", "items": {"type": "string"}}
        case "date":
            how = 'like [["ge2024-01-01"],["lt2025-01-01"]]: all lists must match'
            moment = {"type": "string", "pattern": f"^{_ONE_MOMENT}$"}
            shape = {"type": "array", "items": {"type": "array", "items": moment}}
        case "reference":
            how, shape = "id, or Type/id", {"type": "string"}
        case "number" | "quantity":
            how, shape = "may begin with ge, gt, le, lt, ne", {"type": "string"}
        case _:
            how, shape = "", {"type": "string"}
    text = f"{said} ({how})" if said and how else said or how
    return {**shape, **({"description": text} if text else {}), **known}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
