"""POST /v1/{ws}/imports: an OpenAPI document, a curl line, a FHIR or MCP server becomes endpoints, shown first and written when asked."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI
from starlette.responses import Response

from server.rest.answering import Door, answer
from server.rest.routing import operation
from tools.callers import Caller
from tools.importers.importing import Importer
from tools.importers.requests import ImportRequest
from tools.parsing import parse


def add_imports(router: FastAPI, importer: Importer, door: Door) -> None:
    """Adds the route."""
    who, given = Depends(door.caller), Depends(door.body)

    async def imported(caller: Annotated[Caller, who], body: Annotated[Any, given]) -> Response:
        return answer(await importer.run(caller, parse(ImportRequest, body)))

    operation(
        router,
        "POST",
        "/v1/{workspace_id}/imports",
        imported,
        "import-api",
        "Import an API",
        "Shows what an OpenAPI document, a curl line, a FHIR server or an MCP server would become: endpoints, what is left out and why, tokens. With `apply` it "
        "is written; done again, it follows the document and keeps what was edited. Requires `Integration.create`, for an "
        "integration that exists `Integration.update`.",
        takes="ImportRequest",
        answers="ImportAnswer",
    )
