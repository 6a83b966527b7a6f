"""The noun "admin tool": one management operation as hosts see it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tools.admin import Admin
from tools.approvals import Confirm
from tools.arguments import Arguments, compile_arguments
from tools.callers import Caller, Permission
from tools.errors import Declined, InvalidRequest, Issue
from tools.importers.importing import Importer
from tools.results import ResultStore


@dataclass(frozen=True, slots=True)
class Desk:
    """What the management tools work with. `inline_secrets`: whether a secret may be given as an argument."""

    admin: Admin
    importer: Importer
    results: ResultStore
    inline_secrets: bool = False
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks for one management operation, and how to ask the user about it. `given`: the arguments as they came."""

    caller: Caller
    confirm: Confirm | None = None
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])
    hops: int = 0
    """Gateways that the request came through."""

    async def sure(self, question: str) -> str:
        """Goes on if the user agrees or can't be asked; says which. Raises Declined."""
        answer = await self.confirm(question) if self.confirm is not None else None
        if answer is False:
            raise Declined("the user was asked and declined")
        return "" if answer else " The user was not asked first: this client can't show questions."


Run = Callable[[Desk, Asking, Mapping[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class AdminTool:
    """`run` answers the structured content: an object that is complete by itself. `arguments` check what `run` doesn't."""

    name: str
    permission: Permission
    entry: dict[str, Any]
    arguments: Arguments
    run: Run
    ignored: frozenset[str] = frozenset()
    """Arguments that are dropped in silence: read-only fields, so that get, change, update works."""


def or_null(type: str) -> dict[str, Any]:
    """One `type` a branch: clients that know only single types (Gemini's) don't stumble over the list form."""
    return {"anyOf": [{"type": type}, {"type": "null"}]}


TEXT: dict[str, Any] = {"type": "string"}
TEXT_OR_NULL = or_null("string")
WHOLE: dict[str, Any] = {"type": "integer"}
WHOLE_OR_NULL = or_null("integer")
YES_NO: dict[str, Any] = {"type": "boolean"}
OBJECT: dict[str, Any] = {"type": "object"}
OBJECT_OR_NULL = or_null("object")
ROWS: dict[str, Any] = {"type": "array", "items": {"type": "object"}}
TEXTS: dict[str, Any] = {"type": "array", "items": {"type": "string"}}

INTEGRATION = {"type": "string", "description": "Name or id of the integration, as list_integrations shows it."}
ENDPOINT = {"type": "string", "description": "Name of the endpoint. Leave it out when tool is given."}
TOOL = {"type": "string", "description": "Name of the tool, in place of integration and endpoint."}
VALIDATE_ONLY = {"type": "boolean", "description": "Check everything, write nothing. Default: false."}
IF_MATCH = {
    "type": "integer",
    "minimum": 1,
    "description": "Only if the version is still this one, as get_integration shows it.",
}


def admin_tool(
    name: str,
    title: str,
    description: str,
    properties: dict[str, Any],
    required: list[str],
    output: dict[str, Any],
    run: Run,
    *,
    permission: Permission = "Integration.view",
    read_only: bool = True,
    destructive: bool = False,
    idempotent: bool | None = None,
    open_world: bool = False,
    checked: dict[str, Any] | None = None,
    ignored: frozenset[str] = frozenset(),
) -> AdminTool:
    """`checked`: the properties that arguments are checked by, where `run` checks the insides better than a schema could."""
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    title = f"Gateway: {title}"
    entry = {
        "name": name,
        "title": title,
        "description": description,
        "inputSchema": schema,
        "outputSchema": {
            "type": "object",
            "properties": output,
            "required": list(output),
            "additionalProperties": False,
        },
        "annotations": {
            "title": title,
            "readOnlyHint": read_only,
            "destructiveHint": destructive,
            "idempotentHint": read_only if idempotent is None else idempotent,
            "openWorldHint": open_world,
        },
    }
    return AdminTool(
        name, permission, entry, compile_arguments({**schema, "properties": checked or properties}), run, ignored
    )


async def target(desk: Desk, caller: Caller, args: Mapping[str, Any]) -> tuple[str, str]:
    """(integration, endpoint) from either pair of names or `tool`."""
    if (name := args.get("tool")) is not None:
        return await desk.admin.endpoint_of_tool(caller, name)
    if args.get("integration") is None or args.get("endpoint") is None:
        raise InvalidRequest([Issue(("tool",), "give tool, or integration and endpoint")])
    return args["integration"], args["endpoint"]
