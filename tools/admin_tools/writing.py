"""Admin tools that write whole integrations: create, update, delete."""

from collections.abc import Mapping
from typing import Any

from tools.admin_schemas import create_integration_arguments, outermost, update_integration_arguments
from tools.admin_tools.admin_tool import IF_MATCH, INTEGRATION, VALIDATE_ONLY, AdminTool, Asking, Desk, admin_tool
from tools.admin_tools.answers import WRITTEN, removed, written
from tools.errors import InvalidRequest, Issue
from tools.json_values import is_object
from tools.models import INLINE_SECRETS, READ_ONLY_FIELDS
from tools.parsing import parse_create, parse_update

_OWN = frozenset({"integration", "validate_only", "if_match"})


def body_of(args: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The contract's body among a tool's arguments. `given` is what came in: an explicit null clears a field."""
    body = {name: value for name, value in args.items() if name not in _OWN}
    return body | {name: None for name, value in given.items() if value is None and name not in _OWN}


def refuse_inline_secrets(desk: Desk, auth: Any, name: str, workspace: str) -> None:
    """Secrets don't go through a model's context (agents.md, "Management tools" 6). Raises InvalidRequest."""
    if desk.inline_secrets or not is_object(auth):
        return
    given = [field for field in INLINE_SECRETS if auth.get(field) is not None]
    if given:
        field = INLINE_SECRETS[given[0]].removesuffix("_ssm_param_path").removesuffix("ssm_param_path") or "api_key"
        raise InvalidRequest(
            [
                Issue(
                    ("auth", given[0]),
                    f"Give secrets by path (/gw/{workspace}/integrations/{name}/{field}) or let a person run: integrations-mcp secrets set ...",
                    "inline_secret",
                )
            ]
        )


async def _create(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> dict[str, Any]:
    refuse_inline_secrets(desk, args.get("auth"), args["name"], asking.caller.workspace)
    only = args.get("validate_only", False)
    request = parse_create(body_of(args, asking.given))
    done = await desk.admin.create(asking.caller, request, validate_only=only)
    return await written(desk, asking, done, validate_only=only)


async def _update(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> dict[str, Any]:
    current = await desk.admin.get(asking.caller, args["integration"])
    refuse_inline_secrets(desk, args.get("auth"), current.name, asking.caller.workspace)
    only = args.get("validate_only", False)
    request = parse_update(body_of(args, asking.given), current.name)
    if_match, note = args.get("if_match"), ""
    if request.endpoints is not None and not only:
        kept = {e.name for e in request.endpoints}
        dropped = [e.name for e in current.endpoints if e.name not in kept]
        if dropped:
            listed = ", ".join(dropped[:10]) + (" and more" if len(dropped) > 10 else "")
            note = await asking.sure(f"Remove {len(dropped)} endpoint(s) of {current.display_name}: {listed}?")
            # What was asked about is what is done: a change by somebody else meanwhile is a version mismatch.
            if_match = if_match or current.version
    done = await desk.admin.update(asking.caller, current.id, request, if_match, validate_only=only)
    return await written(desk, asking, done, validate_only=only, note=note)


async def _delete(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> dict[str, Any]:
    current = await desk.admin.get(asking.caller, args["integration"])
    tools = desk.admin.tools(current)
    note = await asking.sure(f"Delete {current.display_name} ({current.name}) with {len(tools)} tools and its secrets?")
    gone = await desk.admin.delete(asking.caller, current.id, args.get("if_match"))
    return removed(desk, gone, note)


_CREATE, _REQUIRED = create_integration_arguments()
_UPDATE = update_integration_arguments()

WRITING: tuple[AdminTool, ...] = (
    admin_tool(
        "create_integration",
        "Create integration",
        "Connects a system: its base URL, how calls are signed, and its endpoints, each of which becomes a tool. Everything is checked "
        "before anything is stored. Try it with validate_only first, then check each endpoint with test_integration_endpoint.",
        {**_CREATE, "validate_only": VALIDATE_ONLY},
        _REQUIRED,
        WRITTEN,
        _create,
        permission="Integration.create",
        read_only=False,
        checked=outermost({**_CREATE, "validate_only": VALIDATE_ONLY}),
        ignored=READ_ONLY_FIELDS,
    ),
    admin_tool(
        "delete_integration",
        "Delete integration",
        "Deletes an integration with all its tools and stored secrets. It can't be undone; to switch it off, use update_integration "
        "with enabled false.",
        {"integration": INTEGRATION, "if_match": IF_MATCH},
        ["integration"],
        WRITTEN,
        _delete,
        permission="Integration.delete",
        read_only=False,
        destructive=True,
        idempotent=True,
    ),
    admin_tool(
        "update_integration",
        "Update integration",
        "Changes fields of one integration; what is left out stays. For one endpoint use update_endpoint, create_endpoint or "
        "delete_endpoint.",
        {"integration": INTEGRATION, **_UPDATE, "if_match": IF_MATCH, "validate_only": VALIDATE_ONLY},
        ["integration"],
        WRITTEN,
        _update,
        permission="Integration.update",
        read_only=False,
        destructive=True,
        idempotent=True,
        checked=outermost(
            {"integration": INTEGRATION, **_UPDATE, "name": {}, "if_match": IF_MATCH, "validate_only": VALIDATE_ONLY}
        ),
        ignored=READ_ONLY_FIELDS,
    ),
)
