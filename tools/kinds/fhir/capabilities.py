"""What a CapabilityStatement says, as rows that the registry keeps: one for each resource type, and one for the server. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tools.errors import InvalidResponse
from tools.json_values import is_array, is_object
from tools.kinds.fhir.interactions import TYPE
from tools.models import UpstreamTools

SYSTEM = ""
_MAX_TYPES = 300
_MAX_PARAMETERS = 200


@dataclass(frozen=True, slots=True)
class Parameter:
    """A search parameter: its FHIR type (string, token, reference, ...) and what the server says of it."""

    name: str
    type: str
    documentation: str = ""


@dataclass(frozen=True, slots=True)
class ResourceType:
    """What the server does with one type. `interactions` are FHIR's codes: read, search-type, create, ..."""

    name: str
    interactions: frozenset[str]
    parameters: tuple[Parameter, ...]
    includes: tuple[str, ...]
    revincludes: tuple[str, ...]
    operations: tuple[str, ...]
    versioned_update: bool
    conditional_create: bool


@dataclass(frozen=True, slots=True)
class Capabilities:
    """`types` in order of name; `operations` are the system's."""

    types: tuple[ResourceType, ...]
    operations: tuple[str, ...]

    def of(self, name: str) -> ResourceType | None:
        return next((t for t in self.types if t.name == name), None)

    def names(self, interaction: str) -> list[str]:
        return [t.name for t in self.types if interaction in t.interactions]


def kept(statement: Any, source: str) -> UpstreamTools:
    """What the registry keeps of a statement. Raises InvalidResponse for what is none."""
    if not is_object(statement) or statement.get("resourceType") not in ("CapabilityStatement", "Conformance"):
        raise InvalidResponse("its /metadata is no CapabilityStatement")
    rest = next((r for r in _objects(statement.get("rest")) if r.get("mode", "server") == "server"), dict[str, Any]())
    rows = {row["name"]: row for found in _objects(rest.get("resource")) if (row := _row(found)) is not None}
    system = {"name": SYSTEM, "operations": _operations(rest)}
    software = statement.get("software")
    named: Mapping[str, Any] = software if is_object(software) else {}
    return UpstreamTools(
        tools=(system, *(rows[name] for name in sorted(rows)[:_MAX_TYPES])),
        left_out=tuple(f"{name}: more than {_MAX_TYPES} types" for name in sorted(rows)[_MAX_TYPES:][:100]),
        server=" ".join(str(named.get(key, ""))[:100] for key in ("name", "version")).strip(),
        protocol_version=str(statement.get("fhirVersion", ""))[:20],
        source=source,
    )


def capabilities_of(listing: UpstreamTools | None) -> Capabilities | None:
    """From what the registry keeps; None where it was never read."""
    if listing is None:
        return None
    rows = {row["name"]: row for row in listing.tools}
    types = tuple(
        ResourceType(
            name,
            frozenset(row["interactions"]),
            tuple(Parameter(*p) for p in row["parameters"]),
            tuple(row["includes"]),
            tuple(row["revincludes"]),
            tuple(row["operations"]),
            row["versioning"] == "versioned-update",
            row["conditionalCreate"],
        )
        for name, row in rows.items()
        if name != SYSTEM
    )
    return Capabilities(types, tuple(rows.get(SYSTEM, {}).get("operations", ())))


def _row(resource: dict[str, Any]) -> dict[str, Any] | None:
    name = resource.get("type")
    if not isinstance(name, str) or not TYPE.fullmatch(name):
        return None
    parameters = [
        [p["name"], str(p.get("type", "")), " ".join(str(p.get("documentation", "")).split())[:300]]
        for p in _objects(resource.get("searchParam"))
        if isinstance(p.get("name"), str) and 0 < len(p["name"]) <= 64
    ]
    return {
        "name": name,
        "interactions": sorted({str(i.get("code")) for i in _objects(resource.get("interaction"))}),
        "parameters": sorted({p[0]: p for p in parameters}.values())[:_MAX_PARAMETERS],
        "includes": _texts(resource.get("searchInclude")),
        "revincludes": _texts(resource.get("searchRevInclude")),
        "operations": _operations(resource),
        "versioning": str(resource.get("versioning", "")),
        "conditionalCreate": resource.get("conditionalCreate") is True,
    }


def _operations(holder: dict[str, Any]) -> list[str]:
    """Their names; `export` runs in the background, which isn't offered (rules G11)."""
    names = {str(o.get("name", "")).lstrip("$") for o in _objects(holder.get("operation"))}
    return sorted(n for n in names if n.replace("-", "").replace("_", "").isalnum() and n.isascii() and n != "export")


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if is_object(item)] if is_array(value) else []


def _texts(value: Any) -> list[str]:
    return sorted({t for t in value if isinstance(t, str) and len(t) <= 128}) if is_array(value) else []
