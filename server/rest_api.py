"""The REST contract on /v1 (FastAPI)."""

from starlette.types import Receive, Scope, Send

from server.app import App


def rest_app(app: App):  # pyright: ignore
    from server.http import answer

    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, 404, {"detail": "no such path", "error_code": "not_found", "request_id": ""})

    return nothing
