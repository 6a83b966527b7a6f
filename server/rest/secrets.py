"""/v1/{ws}/secrets: values that several integrations share, named by path. Values go in and never come out."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI
from starlette.responses import Response

from server.rest.answering import Door, answer
from server.rest.models import PutSecretRequest, SecretPage, SecretResponse
from server.rest.pages import Limit, Offset, next_offset
from server.rest.routing import operation
from tools.callers import Caller
from tools.parsing import parse
from tools.registry import SecretRecord
from tools.secret_admin import SecretAdmin

_ALL = "/v1/{workspace_id}/secrets"
_ONE = _ALL + "/{name:path}"


def add_secrets(router: FastAPI, admin: SecretAdmin, door: Door) -> None:
    """Adds the routes."""
    who, given = Depends(door.caller), Depends(door.body)

    async def put(caller: Annotated[Caller, who], name: str, body: Annotated[Any, given]) -> Response:
        asked = parse(PutSecretRequest, body)
        return answer(shown(caller, await admin.put(caller, name, asked.value, asked.origins)))

    async def listed(caller: Annotated[Caller, who], limit: Limit = 10, continuation_token: Offset = 0) -> Response:
        records, total = await admin.page(caller, limit, continuation_token)
        after = next_offset(continuation_token, len(records), total)
        items = tuple(shown(caller, record) for record in records)
        return answer(SecretPage(items=items, has_more=after is not None, continuation_token=after, total=total))

    async def removed(caller: Annotated[Caller, who], name: str) -> Response:
        await admin.delete(caller, name)
        return Response(status_code=204)

    def shown(caller: Caller, record: SecretRecord) -> SecretResponse:
        return SecretResponse(
            name=record.path.removeprefix(admin.root(caller)),
            path=record.path,
            origins=record.origins,
            created_at=record.created_at,
            updated_at=record.updated_at,
        )

    operation(
        router,
        "PUT",
        _ONE,
        put,
        "put-secret",
        "Store a shared secret",
        "Stores or replaces a value and where it may go. Requires `Secret.write` and the role owner or admin.",
        tag="Secrets",
        takes="PutSecretRequest",
        answers="SecretResponse",
        errors=(404,),
    )
    operation(
        router,
        "GET",
        _ALL,
        listed,
        "list-secrets",
        "List shared secrets",
        "Names, paths and origins, by path; never values. Requires `Secret.write` and the role owner or admin.",
        tag="Secrets",
        answers="SecretPage",
    )
    operation(
        router,
        "DELETE",
        _ONE,
        removed,
        "delete-secret",
        "Remove a shared secret",
        "Integrations that still name it fail from now on (other processes within a minute). Requires `Secret.write` and the role owner or admin.",
        tag="Secrets",
        answers=None,
        status=204,
        errors=(404,),
    )
