"""Our OpenAPI document: FastAPI's from the routes, the schemas of our models, and an example for every body and answer.

A compatible superset of the platform's contract: the same names, defaults, limits and statuses, and more.
"""

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import orjson
from fastapi.openapi.utils import get_openapi, validation_error_definition, validation_error_response_definition
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from server.rest import examples, models
from tools.importers.requests import ImportAnswer, ImportRequest
from tools.models import (
    CreateIntegrationRequest,
    IntegrationPage,
    IntegrationResponse,
    TestEndpointRequest,
    UpdateIntegrationRequest,
)

_MODELS: tuple[type[BaseModel], ...] = (
    CreateIntegrationRequest,
    UpdateIntegrationRequest,
    IntegrationResponse,
    IntegrationPage,
    TestEndpointRequest,
    models.TestEndpointAnswer,
    models.PreviewRequest,
    models.ConnectionHealth,
    models.HealthReport,
    models.Error,
    models.CreateApiKeyRequest,
    models.ApiKeyPage,
    models.NewApiKeyResponse,
    models.PutSecretRequest,
    models.SecretPage,
    models.CallPage,
    models.AuditPage,
    models.ApprovalResponse,
    models.ApprovalList,
    models.SigningKeyRequest,
    models.SigningKeys,
    models.TokenEndpointRequest,
    models.TokenEndpoint,
    models.Jwks,
    models.OpenidConfiguration,
    ImportRequest,
    ImportAnswer,
)
_CONTRACT_NAMES = {
    "IntegrationPage": "PaginatedResponse_IntegrationResponse_",
    "TestEndpointAnswer": "TestEndpointResponse",
}
_SHARED = frozenset(
    {"EndpointConfig", "AuthConfig", "AuthConfigWithSecrets", "RetryConfig", "Annotations", "SecretInput"}
)
"""In requests and answers alike: closed, since a request with an unknown key is refused."""
_SECURITY = {
    "BearerAuth": {
        "type": "http",
        "scheme": "bearer",
        "description": "API key issued via `POST /v1/{workspace_id}/api-keys` or `integrations-mcp keys create`.",
    }
}


def document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The whole document of these routes."""
    found = get_openapi(title="integrations-mcp", version=version("integrations-mcp"), routes=routes)
    components = found.setdefault("components", {})
    components["schemas"] = {
        **_schemas(),
        "ValidationError": validation_error_definition,
        "HTTPValidationError": validation_error_response_definition,
    }
    components["securitySchemes"] = _SECURITY
    found["security"] = [{"BearerAuth": []}]
    for path, methods in found["paths"].items():
        for described in methods.values():
            _illustrate(path, described)
    return found


def _schemas() -> dict[str, Any]:
    _, made = models_json_schema([(m, "validation") for m in _MODELS], ref_template="#/components/schemas/{model}")
    schemas: dict[str, Any] = made["$defs"]
    for model in _models_behind(_MODELS):
        for name, field in model.model_fields.items():
            if field.default_factory is not None:
                schemas[model.__name__]["properties"][name].setdefault(
                    "default", field.get_default(call_default_factory=True)
                )
    text = orjson.dumps(schemas).decode()
    for ours, theirs in _CONTRACT_NAMES.items():
        text = re.sub(rf'"(#/components/schemas/)?{ours}"', rf'"\g<1>{theirs}"', text)
    return _opened(orjson.loads(text))


def _opened(schemas: dict[str, Any]) -> dict[str, Any]:
    """What answers hold may grow without breaking a client: their objects aren't closed, and the contract leaves two enums open."""
    for name in schemas:
        if not name.endswith("Request") and name not in _SHARED:
            schemas[name].pop("additionalProperties", None)
    integration = schemas["IntegrationResponse"]
    properties = integration["properties"]
    for name in ("protocol", "enabled"):
        del properties[name]["default"]
        integration["required"].append(name)
    del properties["protocol"]["enum"]
    del properties["mcp_transport"]["anyOf"][0]["enum"]
    return schemas


def _models_behind(roots: Sequence[type[BaseModel]]) -> list[type[BaseModel]]:
    """The models and every model that their fields hold."""
    found: dict[type[BaseModel], None] = {}
    waiting: list[Any] = list(roots)
    while waiting:
        item = waiting.pop()
        if isinstance(item, type) and issubclass(item, BaseModel) and item not in found:
            found[item] = None
            waiting += [field.annotation for field in item.model_fields.values()]
        waiting += getattr(item, "__args__", ())  # pyright: ignore[reportUnknownArgumentType] - any annotation
    return list(found)


def _illustrate(path: str, described: dict[str, Any]) -> None:
    """Adds the examples of one operation."""
    operation: str = described["operationId"]
    if "requestBody" in described:
        described["requestBody"]["content"]["application/json"]["example"] = examples.BODIES[operation]
    for status, answer in described["responses"].items():
        content = answer.get("content")
        if content is not None:
            content["application/json"]["example"] = (
                examples.ANSWERS[operation] if status < "300" else examples.ERRORS[int(status)]
            )
    for parameter in described.get("parameters", ()):
        parameter["example"] = examples.PARAMETERS[parameter["name"]]
