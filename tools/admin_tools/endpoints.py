"""Admin tools that write one endpoint: create, update (JSON merge patch, RFC 7396), delete."""

from collections.abc import Callable, Mapping
from typing import Any

from tools.admin_schemas import create_endpoint_arguments, outermost
from tools.admin_tools.admin_tool import (
    ENDPOINT,
    IF_MATCH,
    INTEGRATION,
    TOOL,
    VALIDATE_ONLY,
    AdminTool,
    Asking,
    Desk,
    admin_tool,
    target,
)
from tools.admin_tools.answers import WRITTEN, written
from tools.admin_tools.writing import body_of
from tools.changes import merge_patch
from tools.errors import InvalidRequest, Issue, NotFound
from tools.json_value import plain
from tools.json_values import is_object
from tools.models import EndpointConfig, Integration, UpdateIntegrationRequest
from tools.parsing import parse


async def _create(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> dict[str, Any]:
    body = body_of(args, {})
    endpoint = parse(EndpointConfig, body)

    def added(current: Integration) -> UpdateIntegrationRequest:
        if any(e.name == endpoint.name for e in current.endpoints):
            raise InvalidRequest(
                [Issue(("name",), f"{current.name} has an endpoint {endpoint.name} already; use update_endpoint")]
            )
        return UpdateIntegrationRequest(endpoints=(*current.endpoints, endpoint))

    return await _write(desk, asking, args["integration"], endpoint.name, added, args)


async def _update(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> dict[str, Any]:
    integration, name = await target(desk, asking.caller, args)
    await desk.admin.endpoint(asking.caller, integration, name)  # not found: with the nearest name
    patch = patch_of(asking, args)

    def patched(current: Integration) -> UpdateIntegrationRequest:
        at = _position(current, name)
        endpoint = patched_endpoint(current.endpoints[at], patch, at)
        return UpdateIntegrationRequest(endpoints=(*current.endpoints[:at], endpoint, *current.endpoints[at + 1 :]))

    return await _write(desk, asking, integration, str(patch.get("name", name)), patched, args)


def patch_of(asking: Asking, args: Mapping[str, Any]) -> Mapping[str, Any]:
    """The merge patch as it came, since null removes; one that came as text, as it was read."""
    given = asking.given.get("patch")
    return given if is_object(given) else args.get("patch") or {}


def patched_endpoint(endpoint: EndpointConfig, patch: Mapping[str, Any], at: int = 0) -> EndpointConfig:
    """The endpoint with a merge patch. Raises InvalidRequest."""
    return parse(EndpointConfig, merge_patch(plain(endpoint), patch), ("body", "endpoints", at))


async def _delete(desk: Desk, asking: Asking, args: Mapping[str, Any]) -> dict[str, Any]:
    integration, name = await target(desk, asking.caller, args)
    current, _ = await desk.admin.endpoint(asking.caller, integration, name)
    note = await asking.sure(f"Remove the endpoint {name} of {current.display_name}?")

    def without(current: Integration) -> UpdateIntegrationRequest:
        at = _position(current, name)
        return UpdateIntegrationRequest(endpoints=(*current.endpoints[:at], *current.endpoints[at + 1 :]))

    return await _write(desk, asking, integration, name, without, args, note)


async def _write(
    desk: Desk,
    asking: Asking,
    integration: str,
    name: str,
    change: Callable[[Integration], UpdateIntegrationRequest],
    args: Mapping[str, Any],
    note: str = "",
) -> dict[str, Any]:
    only = args.get("validate_only", False)
    seen: list[int] = []

    def noting(current: Integration) -> UpdateIntegrationRequest:
        request = change(current)
        seen[:] = [i for i, e in enumerate(request.endpoints or ()) if e.name == name]
        return request

    try:
        done = await desk.admin.update(asking.caller, integration, noting, args.get("if_match"), validate_only=only)
    except InvalidRequest as e:
        raise type(e)([_about_one(i, seen[0] if seen else -1) for i in e.issues]) from None
    return await written(desk, asking, done, validate_only=only, note=note, endpoint=name)


def _about_one(issue: Issue, at: int) -> Issue:
    """The caller gave one endpoint and doesn't know its number."""
    if issue.loc[:2] == ("body", "endpoints") and issue.loc[2:3] == (at,):
        return Issue(("body", *issue.loc[3:]), issue.msg, issue.type, issue.input, issue.has_input)
    return issue


def _position(current: Integration, name: str) -> int:
    for i, endpoint in enumerate(current.endpoints):
        if endpoint.name == name:
            return i
    raise NotFound(
        f"{current.name} has no endpoint {name[:80]} of its own; a tool that its upstream shows is changed by a create_endpoint "
        "with path = the upstream's name of it"
    )


_CREATE, _REQUIRED = create_endpoint_arguments()
_WHICH = {"integration": INTEGRATION, "endpoint": ENDPOINT, "tool": TOOL}

ENDPOINTS: tuple[AdminTool, ...] = (
    admin_tool(
        "create_endpoint",
        "Create endpoint",
        "Adds one operation to an integration; it becomes a tool at once. Then check it with test_integration_endpoint.",
        {"integration": INTEGRATION, **_CREATE, "if_match": IF_MATCH, "validate_only": VALIDATE_ONLY},
        ["integration", *_REQUIRED],
        WRITTEN,
        _create,
        permission="Integration.update",
        read_only=False,
        checked=outermost(
            {"integration": INTEGRATION, **_CREATE, "if_match": IF_MATCH, "validate_only": VALIDATE_ONLY}
        ),
    ),
    admin_tool(
        "delete_endpoint",
        "Delete endpoint",
        "Removes one endpoint and its tool.",
        {**_WHICH, "if_match": IF_MATCH},
        [],
        WRITTEN,
        _delete,
        permission="Integration.update",
        read_only=False,
        destructive=True,
        idempotent=True,
    ),
    admin_tool(
        "update_endpoint",
        "Update endpoint",
        "Changes one endpoint: patch holds only the fields to change, null removes one, objects are merged (JSON merge patch). "
        "Fields are those of create_endpoint. Try a new template or filter with preview_result first.",
        {
            **_WHICH,
            "patch": {"type": "object", "description": 'Like {"result_template": "{{ name }}"}.'},
            "if_match": IF_MATCH,
            "validate_only": VALIDATE_ONLY,
        },
        ["patch"],
        WRITTEN,
        _update,
        permission="Integration.update",
        read_only=False,
        destructive=True,
        idempotent=True,
    ),
)
