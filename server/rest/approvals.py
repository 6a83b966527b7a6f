"""/v1/{ws}/approvals: the calls that wait for a person, and his answer."""

from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.responses import Response

from server.rest.answering import Door, answer
from server.rest.models import ApprovalList, ApprovalResponse
from server.rest.routing import operation
from tools.approval_admin import ApprovalAdmin
from tools.approvals import Approval
from tools.callers import Caller

_ALL = "/v1/{workspace_id}/approvals"
_ONE = _ALL + "/{approval_id}"


def add_approvals(router: FastAPI, admin: ApprovalAdmin, door: Door) -> None:
    """Adds the routes."""
    who = Depends(door.caller)

    async def listed(caller: Annotated[Caller, who]) -> Response:
        return answer(ApprovalList(items=tuple(shown(a) for a in await admin.list(caller))))

    async def got(caller: Annotated[Caller, who], approval_id: str) -> Response:
        return answer(shown(await admin.get(caller, approval_id)))

    async def approved(caller: Annotated[Caller, who], approval_id: str) -> Response:
        return answer(shown(await admin.approve(caller, approval_id)))

    async def denied(caller: Annotated[Caller, who], approval_id: str) -> Response:
        return answer(shown(await admin.deny(caller, approval_id)))

    operation(
        router,
        "GET",
        _ALL,
        listed,
        "list-approvals",
        "List approvals",
        "Calls that wait for a person, newest first, with the request that would be sent. Requires `Integration.view`.",
        tag="Approvals",
        answers="ApprovalList",
    )
    operation(
        router,
        "GET",
        _ONE,
        got,
        "get-approval",
        "Get an approval",
        "Until it is used up or expires. Requires `Integration.view`.",
        tag="Approvals",
        answers="ApprovalResponse",
        errors=(404,),
    )
    operation(
        router,
        "POST",
        f"{_ONE}/approve",
        approved,
        "approve-call",
        "Approve a call",
        "The same call goes through once. Requires `Integration.update`, and another key than the one that asks.",
        tag="Approvals",
        answers="ApprovalResponse",
        errors=(404,),
    )
    operation(
        router,
        "POST",
        f"{_ONE}/deny",
        denied,
        "deny-call",
        "Deny a call",
        "The same call is refused until the approval expires. Requires `Integration.update`.",
        tag="Approvals",
        answers="ApprovalResponse",
        errors=(404,),
    )


def shown(approval: Approval) -> ApprovalResponse:
    return ApprovalResponse(**{name: getattr(approval, name) for name in ApprovalResponse.model_fields})
