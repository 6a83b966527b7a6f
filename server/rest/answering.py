"""What every operation of the REST contract shares: who calls it, its JSON body, and its answer."""

from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from server.app import App
from server.mcp_app import CALLER
from server.rest.bodies import read_json
from tools.callers import Caller
from tools.errors import Forbidden
from tools.kinds.rest import to_json

_CREDENTIALS = {"key": "API key", "token": "access token", "local": "user"}


class Door:
    """The dependencies of the routes: FastAPI runs them in the order in which an operation names them, `caller` first."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def caller(self, request: Request, workspace_id: str) -> Caller:
        """Raises Unauthenticated, and Forbidden for any workspace but the key's own, whether it exists or not."""
        scope = request.scope
        caller = await self._app.bearer.caller(dict(scope["headers"]), scope.get("client"), scope["path"])
        scope[CALLER] = caller
        if workspace_id.lower() != caller.workspace.lower():
            raise Forbidden(f"this {_CREDENTIALS[caller.kind]} is for another workspace")
        return caller

    async def body(self, request: Request) -> Any:
        return await read_json(request, self._app.settings.max_body_bytes)


def answer(content: BaseModel | dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A model or a JSON object as the answer."""
    data = content.model_dump_json().encode() if isinstance(content, BaseModel) else to_json(content)
    return Response(data, status, headers, "application/json")
