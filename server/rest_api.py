"""The REST contract on /v1 (FastAPI): errors in the contract's shapes, whatever raised them. Imported by `serve` only."""

from collections.abc import Sequence
from typing import Any, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from server.app import App
from server.jwks_routes import add_jwks
from server.mcp_app import CALLER
from server.openapi import document
from server.refusals import refusal, refused
from server.rest.answering import Door
from server.rest.approvals import add_approvals
from server.rest.history import add_history
from server.rest.imports import add_imports
from server.rest.integrations import add_integrations
from server.rest.keys import add_keys
from server.rest.secrets import add_secrets
from server.rest.signing_keys import add_signing_keys
from server.telemetry import Log
from server.wire import REQUEST_ID
from tools.callers import Caller
from tools.errors import GatewayError, Internal, InvalidRequest, Issue, MissingPermission

log = Log("integrations_mcp")


def rest_app(app: App) -> ASGIApp:
    """The application behind everything that isn't MCP; `server.http` has checked Host and Origin and set the request id."""
    api = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    door = Door(app)
    add_integrations(api, app.admin, door)
    add_keys(api, app.key_admin, door)
    add_secrets(api, app.secret_admin, door)
    add_history(api, app.admin, door)
    add_imports(api, app.importer, door)
    add_approvals(api, app.approval_admin, door)
    add_signing_keys(api, app.auth_admin, door)
    add_jwks(api, app)
    described = document(api.routes)

    async def refuse(request: Request, error: Exception) -> Response:
        caller = request.scope.get(CALLER)
        if isinstance(error, MissingPermission) and isinstance(caller, Caller) and caller.kind == "token":
            app.bearer.explain(error, request.scope["path"])
        return await _refuse(request, error)

    async def openapi() -> Response:
        return JSONResponse(described)

    api.add_api_route("/openapi.json", openapi, include_in_schema=False)
    api.add_exception_handler(GatewayError, refuse)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _unrouted)
    api.add_exception_handler(Exception, _fault)

    async def rest(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            # RFC 9110 9.3.2: as GET; the server below sends no body for it.
            scope = {**scope, "method": "GET"}
        try:
            await api(scope, receive, send)
        except Exception as e:
            log.error("a request failed by a fault of the gateway", request_id=scope[REQUEST_ID], exc_info=e)

    return rest


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    status, body, headers = refusal(error, request.scope[REQUEST_ID])
    return JSONResponse(body, status, {k.decode(): v.decode() for k, v in headers})


async def _invalid(request: Request, error: Exception) -> Response:
    """Path, query and header parameters; bodies are parsed by `tools.parsing`."""
    assert isinstance(error, RequestValidationError)
    faults = cast("Sequence[dict[str, Any]]", error.errors())
    issues = [Issue(tuple(f["loc"]), f["msg"], f["type"], f.get("input"), f["type"] != "missing") for f in faults]
    return await _refuse(request, InvalidRequest(issues))


async def _unrouted(request: Request, error: Exception) -> Response:
    """No such path, or the path has other methods: Starlette names those of the first route only."""
    assert isinstance(error, HTTPException)
    allowed = _methods_of(request)
    if allowed:
        body = refused(f"use {' or '.join(allowed)}", "method_not_allowed", request.scope[REQUEST_ID])
        return JSONResponse(body, 405, {"Allow": ", ".join(allowed)})
    return JSONResponse(refused("there is no such path", "not_found", request.scope[REQUEST_ID]), 404)


def _methods_of(request: Request) -> list[str]:
    found: set[str] = set()
    for route in request.app.routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            found |= route.methods
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


async def _fault(request: Request, error: Exception) -> Response:
    return await _refuse(
        request, Internal(f"a fault of the gateway; its log has the request {request.scope[REQUEST_ID]}")
    )
