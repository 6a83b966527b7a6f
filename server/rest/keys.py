"""/v1/{ws}/api-keys: made, listed, rotated and ended."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI
from starlette.responses import Response

from server.rest.answering import Door, answer
from server.rest.models import ApiKeyPage, ApiKeyResponse, CreateApiKeyRequest, NewApiKeyResponse
from server.rest.pages import Limit, Offset, next_offset
from server.rest.routing import operation
from tools.callers import Caller
from tools.key_admin import IssuedKey, KeyAdmin
from tools.parsing import parse
from tools.registry import ApiKey

_ALL = "/v1/{workspace_id}/api-keys"
_ONE = _ALL + "/{key_id}"


def add_keys(router: FastAPI, admin: KeyAdmin, door: Door) -> None:
    """Adds the routes."""
    who, given = Depends(door.caller), Depends(door.body)

    async def created(caller: Annotated[Caller, who], body: Annotated[Any, given]) -> Response:
        asked = parse(CreateApiKeyRequest, body)
        made = await admin.create(
            caller,
            days=asked.duration_days,
            name=asked.name,
            role=asked.role,
            permissions=asked.permissions,
            integrations=asked.integrations,
            tools=asked.tools,
        )
        return answer(_new(made), 201)

    async def listed(caller: Annotated[Caller, who], limit: Limit = 10, continuation_token: Offset = 0) -> Response:
        keys, total = await admin.page(caller, limit, continuation_token)
        after = next_offset(continuation_token, len(keys), total)
        items = tuple(ApiKeyResponse(**_fields(key)) for key in keys)
        return answer(ApiKeyPage(items=items, has_more=after is not None, continuation_token=after, total=total))

    async def rotated(caller: Annotated[Caller, who], key_id: str) -> Response:
        return answer(_new(await admin.rotate(caller, key_id)))

    async def ended(caller: Annotated[Caller, who], key_id: str) -> Response:
        await admin.revoke(caller, key_id)
        return Response(status_code=204)

    operation(
        router,
        "POST",
        _ALL,
        created,
        "create-api-key",
        "Create an API key",
        "It is shown this once. Nobody gives more than his own key has. Requires `ApiKey.create`.",
        tag="API keys",
        takes="CreateApiKeyRequest",
        answers="NewApiKeyResponse",
        status=201,
    )
    operation(
        router,
        "GET",
        _ALL,
        listed,
        "list-api-keys",
        "List API keys",
        "Newest first, never the keys themselves. Requires `ApiKey.view`.",
        tag="API keys",
        answers="ApiKeyPage",
    )
    operation(
        router,
        "POST",
        f"{_ONE}/rotate",
        rotated,
        "rotate-api-key",
        "Rotate an API key",
        "A new key with the same rights; the old one ends in the same moment. Requires `ApiKey.create`.",
        tag="API keys",
        answers="NewApiKeyResponse",
        errors=(404,),
    )
    operation(
        router,
        "DELETE",
        _ONE,
        ended,
        "delete-api-key",
        "End an API key",
        "At once in the process that did it, within a second in the others. Requires `ApiKey.delete`.",
        tag="API keys",
        answers=None,
        status=204,
        errors=(404,),
    )


def _new(made: IssuedKey) -> NewApiKeyResponse:
    return NewApiKeyResponse(**_fields(made.row), api_key=made.api_key)


def _fields(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.id,
        "name": key.name,
        "role": key.role,
        "permissions": tuple(sorted(key.permissions)),
        "integrations": None if key.integrations is None else tuple(sorted(key.integrations)),
        "tools": None if key.tools is None else tuple(sorted(key.tools)),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
    }
