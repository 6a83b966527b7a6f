"""Signing keys of an integration and its discovered token endpoint: what `auth` does from the shell."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI
from starlette.responses import Response

from server.rest.answering import Door, answer
from server.rest.models import SigningKeyRequest, TokenEndpointRequest
from server.rest.routing import operation
from tools.auth_admin import AuthAdmin
from tools.callers import Caller
from tools.parsing import parse

_KEYS = "/v1/{workspace_id}/integrations/{integration_id}/signing-keys"
_TOKEN = "/v1/{workspace_id}/integrations/{integration_id}/token-endpoint"  # noqa: S105 - a path
_TAG = "Signing keys"


def add_signing_keys(router: FastAPI, admin: AuthAdmin, door: Door) -> None:
    """Adds the routes; `admin` does the work, `door` says who is calling."""
    who, given = Depends(door.caller), Depends(door.body)

    async def listed(caller: Annotated[Caller, who], integration_id: str) -> Response:
        return answer(await admin.keys(caller, integration_id))

    async def made(caller: Annotated[Caller, who], integration_id: str, body: Annotated[Any, given]) -> Response:
        asked = parse(SigningKeyRequest, body)
        told = await admin.generate_key(
            caller, integration_id, asked.alg, hold=asked.hold, compromised=asked.compromised
        )
        return answer(told, 201)

    async def confirmed(caller: Annotated[Caller, who], integration_id: str) -> Response:
        return answer(await admin.confirm_key(caller, integration_id))

    async def named(caller: Annotated[Caller, who], integration_id: str) -> Response:
        return answer(await admin.discovery(caller, integration_id))

    async def taken(caller: Annotated[Caller, who], integration_id: str, body: Annotated[Any, given]) -> Response:
        asked = parse(TokenEndpointRequest, body)
        return answer(await admin.discovery(caller, integration_id, confirm=asked.token_endpoint))

    operation(
        router,
        "GET",
        _KEYS,
        listed,
        "list-signing-keys",
        "List signing keys",
        "With their states, and the URL of the JWKS. Requires `Integration.view`.",
        tag=_TAG,
        answers="SigningKeys",
        errors=(404,),
    )
    operation(
        router,
        "POST",
        _KEYS,
        made,
        "create-signing-key",
        "Make a signing key",
        "In the secret store; the private part is never shown. The first one signs at once, a further one is published first and "
        "signs after 10 minutes. Requires `Integration.update`.",
        tag=_TAG,
        answers="SigningKeys",
        status=201,
        takes="SigningKeyRequest",
        errors=(404,),
    )
    operation(
        router,
        "POST",
        _KEYS + "/confirm",
        confirmed,
        "confirm-signing-key",
        "Confirm a held signing key",
        "The other side has it: it signs when its time has come. Requires `Integration.update`.",
        tag=_TAG,
        answers="SigningKeys",
        errors=(404,),
    )
    operation(
        router,
        "GET",
        _TOKEN,
        named,
        "get-token-endpoint",
        "Show the discovered token endpoint",
        "What the FHIR server names now. Requires `Integration.view`.",
        tag=_TAG,
        answers="TokenEndpoint",
        errors=(404,),
    )
    operation(
        router,
        "POST",
        _TOKEN,
        taken,
        "confirm-token-endpoint",
        "Confirm the discovered token endpoint",
        "After `discovery_changed`, or at another origin. Only what the server names now can be confirmed. Requires "
        "`Integration.update` and the role owner or admin.",
        tag=_TAG,
        answers="TokenEndpoint",
        takes="TokenEndpointRequest",
        errors=(404,),
    )
