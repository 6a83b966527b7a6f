"""The seven operations of the contract, and test-connection and preview beside them."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from server.rest.answering import Door, answer
from server.rest.models import PreviewRequest, TestEndpointAnswer
from server.rest.pages import Limit, Offset
from server.rest.routing import operation
from server.rest.versions import etag, wanted_versions
from server.wire import REQUEST_ID, hops_of
from tools.admin import Admin
from tools.callers import Caller
from tools.explain import explain as explained
from tools.explain import test_response
from tools.kinds.rest import HOPS_HEADER
from tools.models import Integration, TestEndpointRequest
from tools.outcome import Outcome
from tools.parsing import parse, parse_create, parse_update

_ALL = "/v1/{workspace_id}/integrations"
_ONE = _ALL + "/{integration_id}"
_ENDPOINT = _ONE + "/endpoints/{endpoint_name}"
_NO_VERSION = 0

Flag = Annotated[bool | None, Query()]
Word = Annotated[str | None, Query()]
Search = Annotated[str | None, Query(min_length=1, max_length=200)]
IfMatch = Annotated[
    str | None, Header(alias="If-Match", description="The ETag that was read; another version by now is a 412.")
]
Explain = Annotated[bool, Query(description="Adds `explain`: every stage of the call, for people.")]


def add_integrations(router: FastAPI, admin: Admin, door: Door) -> None:
    """Adds the routes; `admin` does the work, `door` says who is calling."""
    who, given = Depends(door.caller), Depends(door.body)

    async def listed(
        caller: Annotated[Caller, who],
        enabled: Flag = None,
        protocol: Word = None,
        search: Search = None,
        sort_by: Word = None,
        limit: Limit = 10,
        continuation_token: Offset = 0,
    ) -> Response:
        page = await admin.list(
            caller,
            enabled=enabled,
            protocol=protocol,
            search=search,
            sort_by=sort_by,
            limit=limit,
            continuation_token=continuation_token,
        )
        return answer(page)

    async def created(caller: Annotated[Caller, who], body: Annotated[Any, given]) -> Response:
        written = await admin.create(caller, parse_create(body))
        path = f"{_ALL.format(workspace_id=written.after.workspace_id)}/{written.after.id}"
        return shown(caller, written.after, 201, {"Location": path})

    async def got(caller: Annotated[Caller, who], integration_id: str) -> Response:
        return shown(caller, await admin.get(caller, integration_id))

    async def updated(
        caller: Annotated[Caller, who], integration_id: str, body: Annotated[Any, given], if_match: IfMatch = None
    ) -> Response:
        expected = await expected_version(caller, integration_id, if_match)
        written = await admin.update(caller, integration_id, lambda now: parse_update(body, now.name), expected)
        return shown(caller, written.after)

    async def deleted(caller: Annotated[Caller, who], integration_id: str, if_match: IfMatch = None) -> Response:
        await admin.delete(caller, integration_id, await expected_version(caller, integration_id, if_match))
        return Response(status_code=204)

    async def tested(
        request: Request,
        caller: Annotated[Caller, who],
        integration_id: str,
        endpoint_name: str,
        body: Annotated[Any, given],
        explain: Explain = False,
    ) -> Response:
        params = parse(TestEndpointRequest, body).params
        outcome = await admin.test(
            caller,
            integration_id,
            endpoint_name,
            params,
            hops_of(request.headers.get(HOPS_HEADER)),
            request_id=request.scope[REQUEST_ID],
        )
        return stages(outcome, explain)

    async def previewed(
        caller: Annotated[Caller, who],
        integration_id: str,
        endpoint_name: str,
        body: Annotated[Any, given],
        explain: Explain = False,
    ) -> Response:
        asked = parse(PreviewRequest, body)
        outcome = await admin.preview(
            caller, integration_id, endpoint_name, asked.response, params=asked.params, patch=asked.endpoint
        )
        return stages(outcome, explain)

    async def health(caller: Annotated[Caller, who]) -> Response:
        return answer(await admin.health(caller))

    async def connected(caller: Annotated[Caller, who], integration_id: str) -> Response:
        return answer(await admin.test_connection(caller, integration_id))

    async def expected_version(caller: Caller, ref: str, if_match: str | None) -> int | None:
        versions = wanted_versions(if_match)
        if versions is None or len(versions) == 1:
            return None if versions is None else next(iter(versions))
        current = (await admin.get(caller, ref)).version
        return current if current in versions else _NO_VERSION

    def shown(
        caller: Caller, integration: Integration, status: int = 200, headers: dict[str, str] | None = None
    ) -> Response:
        return answer(admin.shown(caller, integration), status, {"ETag": etag(integration.version), **(headers or {})})

    def stages(outcome: Outcome, explain: bool) -> Response:
        found = test_response(outcome, outcome.trace.masker)
        if not explain:
            return answer(found)
        return answer(TestEndpointAnswer(**dict(found), explain=explained(outcome, outcome.trace.masker)))

    operation(
        router,
        "GET",
        _ALL,
        listed,
        "list-integrations",
        "List integrations",
        "Newest first. Requires `Integration.view`.",
        answers="PaginatedResponse_IntegrationResponse_",
    )
    operation(
        router,
        "POST",
        _ALL,
        created,
        "create-integration",
        "Create an integration",
        "Everything is checked now, not at the first call. Requires `Integration.create`.",
        takes="CreateIntegrationRequest",
        answers="IntegrationResponse",
        status=201,
        errors=(404, 409),
    )
    operation(
        router,
        "GET",
        f"{_ALL}/health-check",
        health,
        "integration-health-check",
        "Bulk integration health check",
        "Probes every enabled integration, side by side and without side effects. Requires `Integration.view`.",
        answers="HealthReport",
    )
    operation(
        router,
        "GET",
        _ONE,
        got,
        "get-integration",
        "Get an integration",
        "By id, or by name. Requires `Integration.view`.",
        answers="IntegrationResponse",
        errors=(404,),
    )
    operation(
        router,
        "PUT",
        _ONE,
        updated,
        "update-integration",
        "Update an integration",
        "A field left out stays; null clears a nullable one; endpoints, when given, replace the list whole. "
        "Requires `Integration.update`.",
        takes="UpdateIntegrationRequest",
        answers="IntegrationResponse",
        errors=(404, 412),
    )
    operation(
        router,
        "DELETE",
        _ONE,
        deleted,
        "delete-integration",
        "Delete an integration",
        "The secrets that were provisioned for it go with it. Requires `Integration.delete`.",
        answers=None,
        status=204,
        errors=(404, 412),
    )
    operation(
        router,
        "POST",
        f"{_ENDPOINT}/test",
        tested,
        "test-integration-endpoint",
        "Test an integration endpoint",
        "Really runs the call and returns each stage. A failure of the upstream is a 200 whose `error` says what happened. "
        "Requires `Integration.view`, and `Integration.execute` for any method but GET.",
        takes="TestEndpointRequest",
        answers="TestEndpointResponse",
        errors=(404,),
    )
    operation(
        router,
        "POST",
        f"{_ENDPOINT}/preview",
        previewed,
        "preview-integration-endpoint",
        "Shape a given response",
        "The endpoint's shaping, or a changed one, over a response that is given; nothing is called. "
        "Requires `Integration.view`.",
        takes="PreviewRequest",
        answers="TestEndpointResponse",
        errors=(404,),
    )
    operation(
        router,
        "POST",
        f"{_ONE}/test-connection",
        connected,
        "test-integration-connection",
        "Test the connection",
        "One fresh probe, the credential included; kept as last_tested_at and last_test_status. Requires `Integration.view`.",
        answers="ConnectionHealth",
        errors=(404,),
    )
