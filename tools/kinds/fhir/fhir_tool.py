"""A tool of a FHIR integration: an endpoint as FHIR means it, or one of the generic tools."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tools.arguments import Arguments, compile_arguments
from tools.credentials.parts import CredentialParts
from tools.errors import ArgumentFault, InvalidArguments
from tools.kinds.fhir.bundles import shape_fhir
from tools.kinds.fhir.capabilities import capabilities_of
from tools.kinds.fhir.generic import PARAMS, as_parameters, generic_endpoints
from tools.kinds.fhir.interactions import Kind, kind_of, type_of
from tools.kinds.fhir.requests import FhirRequests, compile_fhir, with_own_arguments
from tools.kinds.paths import parse_path
from tools.models import EndpointConfig, Integration
from tools.naming import tool_name
from tools.published import Published, publish
from tools.shaping import Shaped
from tools.tool import Hints, Tool
from tools.upstream import Retry


@dataclass(frozen=True, eq=False)
class FhirTool(Tool):
    """`versioned`: the server demands a version with updates of this type; `generic`: it wasn't written by an operator."""

    versioned: bool
    generic: bool

    @cached_property
    def schema(self) -> dict[str, Any]:
        return with_own_arguments(self.endpoint, self.versioned)

    @cached_property
    def arguments(self) -> Arguments:
        return compile_arguments(self.schema, self.path_names)

    @cached_property
    def published(self) -> Published:
        return publish(self.schema, self.path_names, path=self.endpoint.path)

    @cached_property
    def requests(self) -> FhirRequests:
        return compile_fhir(
            self.endpoint,
            self.integration.base_url,
            self.arguments.schema,
            ours=self.generic or self.schema is not self.endpoint.input_schema,
            open_params=PARAMS if self.generic and self.endpoint.name == "search" else None,
        )

    @property
    def secret_headers(self) -> tuple[tuple[str, str], ...]:
        return self.requests.rest.secret_headers

    @property
    def is_discovered(self) -> bool:
        return self.generic

    @cached_property
    def hints(self) -> Hints:
        """A search by POST is a read (rules G6)."""
        own = super().hints
        if self.requests_kind != "search" or self.endpoint.method == "GET":
            return own
        return replace(own, read_only=True, destructive=False, idempotent=True)

    @cached_property
    def requests_kind(self) -> Kind:
        return kind_of(self.endpoint)

    @cached_property
    def retry(self) -> Retry:
        return replace(super().retry, idempotent=True) if self.requests_kind == "search" else super().retry

    def resource_type(self, values: Mapping[str, Any]) -> str:
        given = values.get("resource_type")
        return given if self.generic and isinstance(given, str) else type_of(self.endpoint)

    def shaped(self, arguments: Mapping[str, Any], raw: Any) -> Shaped:
        return shape_fhir(self.shaper, arguments, raw)

    def ready(self, values: dict[str, Any]) -> tuple[FhirRequests, dict[str, Any]]:
        """What builds this call's requests, and from which values. Raises InvalidArguments."""
        if not (self.generic and self.endpoint.name == "operation"):
            return self.requests, values
        resource_type, id = values.get("resource_type"), values.get("id")
        if id is not None and resource_type is None:
            raise InvalidArguments(
                [ArgumentFault("resource_type", "is needed with id: say what type of record it is.")],
                self.arguments.names,
            )
        path = "/".join(
            ["", *([resource_type] if resource_type else []), *(["{id}"] if id else []), values["operation"]]
        )
        rest = self.requests.rest
        places = {"parameters": rest.places["parameters"], **({"id": ("path", "id")} if id else {})}
        sent = {"parameters": as_parameters(values.get("parameters") or {}), **({"id": id} if id else {})}
        return replace(self.requests, rest=replace(rest, path=parse_path(path), places=places, taken={})), sent


def fhir_tools_of(integration: Integration, parts: CredentialParts, name_limit: int) -> tuple[FhirTool, ...]:
    """Its endpoints; without some, the generic tools for what the server says it can do."""
    if not integration.enabled:
        return ()
    capabilities = capabilities_of(integration.upstream_tools)
    endpoints: list[EndpointConfig] = list(integration.endpoints)
    generic = not endpoints
    if generic and capabilities is not None:
        endpoints = generic_endpoints(capabilities)

    def versioned(endpoint: EndpointConfig) -> bool:
        found = capabilities.of(type_of(endpoint)) if capabilities else None
        return found is not None and found.versioned_update

    return tuple(
        FhirTool(integration, e, tool_name(integration.name, e.name, name_limit), parts, versioned(e), generic)
        for e in sorted(endpoints, key=lambda e: e.name)
    )
