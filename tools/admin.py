"""Management operations: one function each, shown as REST operation, admin tool and CLI command with the same words and checks.

Every function takes the caller first, checks his permission and his narrowing, and raises `RequestError`s.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tools.approvals import Confirm
from tools.bindings import mask_headers
from tools.call import CallContext
from tools.callers import Caller, Permission
from tools.catalog import Catalogs
from tools.changes import changes_of
from tools.endings import new_call_id
from tools.errors import Forbidden, InvalidArguments, InvalidRequest, Issue, NameTaken, NotFound
from tools.gateway import Gateway
from tools.health import HealthProbe, report
from tools.history import Action, AuditQuery, AuditRecord, CallQuery, CallRecord, History, Kind, change_record
from tools.json_value import plain
from tools.kinds.fhir.listings import FhirListings
from tools.kinds.mcp.described import missing_tool
from tools.kinds.mcp.listings import McpListings
from tools.models import (
    CreateIntegrationRequest,
    EndpointConfig,
    Integration,
    IntegrationPage,
    IntegrationResponse,
    UpdateIntegrationRequest,
)
from tools.naming import nearest, tool_name
from tools.outcome import Outcome
from tools.preview import patched, preview
from tools.registry import ListQuery, Registry, SortField
from tools.secrets import MASK
from tools.tool import Tool
from tools.writing import Writer, Written

_SORT: tuple[SortField, ...] = ("name", "display_name", "created_at", "updated_at")


@dataclass(frozen=True, slots=True)
class AdminRules:
    """Settings of management. `test_requires`: what testing a method other than GET needs besides Integration.view."""

    tool_name_max: int = 48
    test_requires: str = "execute"


class Admin:
    """The management operations over one registry."""

    def __init__(
        self,
        registry: Registry,
        catalogs: Catalogs,
        writer: Writer,
        gateway: Gateway,
        health: HealthProbe,
        rules: AdminRules,
        make_tools: Callable[[Integration], Sequence[Tool]],
        history: History,
        listings: McpListings,
        capabilities: FhirListings,
    ) -> None:
        self._registry, self._catalogs, self._writer = registry, catalogs, writer
        self._gateway, self._health, self._rules = gateway, health, rules
        self._make_tools = make_tools
        self._history, self._listings, self._capabilities = history, listings, capabilities

    # ------------------------------------------------------------------ reading

    async def list(
        self,
        caller: Caller,
        *,
        enabled: bool | None = None,
        protocol: str | None = None,
        search: str | None = None,
        sort_by: str | None = None,
        limit: int = 10,
        continuation_token: int = 0,
    ) -> IntegrationPage:
        """A page, newest first by default; `sort_by` is [+|-](name|display_name|created_at|updated_at)."""
        caller.require("Integration.view")
        sort, descending = parse_sort(sort_by)
        query = ListQuery(
            enabled, protocol, search, sort, descending, limit, continuation_token, await self._visible_ids(caller)
        )
        page = await self._registry.page(caller.workspace, query)
        after = continuation_token + len(page.items)
        more = after < page.total and len(page.items) > 0
        return IntegrationPage(
            items=tuple(self.shown(caller, i) for i in page.items),
            has_more=more,
            continuation_token=after if more else None,
            total=page.total,
        )

    async def get(self, caller: Caller, ref: str) -> Integration:
        """By id or name; what the caller's narrowing hides isn't found. Show it with `shown`."""
        caller.require("Integration.view")
        return await self._find(caller, ref)

    def shown(self, caller: Caller, integration: Integration) -> IntegrationResponse:
        """What answers show: no bindings, secret-looking headers masked, endpoints that the caller doesn't see left out."""
        fields = {name: getattr(integration, name) for name in IntegrationResponse.model_fields}
        fields["endpoints"] = tuple(
            e.model_copy(update={"headers": mask_headers(e.headers)})
            for e in integration.endpoints
            if self._sees_endpoint(caller, integration, e)
        )
        for name in ("mcp_headers", "mcp_env"):
            if fields[name] is not None:
                fields[name] = mask_headers(fields[name])
        return IntegrationResponse(**fields)

    async def endpoint(self, caller: Caller, ref: str, endpoint_name: str) -> tuple[Integration, EndpointConfig]:
        """One endpoint of an integration. Raises NotFound with the nearest name that the caller sees."""
        caller.require("Integration.view")
        integration = await self._find(caller, ref)
        seen = [e for e in self._shown_endpoints(integration) if self._sees_endpoint(caller, integration, e)]
        for endpoint in seen:
            if endpoint.name == endpoint_name:
                return integration, endpoint
        close = nearest(endpoint_name, [e.name for e in seen])
        raise NotFound(
            f"{integration.name} has no endpoint {endpoint_name[:80]}" + (f"; did you mean {close}?" if close else "")
        )

    async def endpoint_of_tool(self, caller: Caller, name: str) -> tuple[str, str]:
        """(integration id, endpoint name) of a tool name, also of a disabled integration. Raises NotFound."""
        catalog = await self._catalogs.get(caller.workspace)
        known: dict[str, tuple[str, str]] = {
            tool_name(i.name, e.name, self._rules.tool_name_max): (i.id, e.name)
            for i in catalog.integrations
            if self._sees(caller, i)
            for e in self._shown_endpoints(i)
            if self._sees_endpoint(caller, i, e)
        }
        if name in known:
            return known[name]
        close = nearest(name, known)
        raise NotFound(f"no tool {name[:80]} in this workspace" + (f"; did you mean {close}?" if close else ""))

    # ------------------------------------------------------------------ writing

    async def create(
        self, caller: Caller, request: CreateIntegrationRequest, *, validate_only: bool = False
    ) -> Written:
        """`validate_only` checks everything and writes nothing; `after` is then what would be stored."""
        caller.require("Integration.create")
        _require_whole(caller)
        if not validate_only:
            written = self._audited(caller, "integration.create", await self._writer.create(caller, request))
            return await self._read_tools(written)
        if any(i.name == request.name for i in (await self._registry.load(caller.workspace))[1]):
            raise NameTaken(f"there is an integration named {request.name} already; update it or choose another name")
        return Written(None, (await self._writer.draft_create(caller, request)).integration)

    async def update(
        self,
        caller: Caller,
        ref: str,
        request: UpdateIntegrationRequest | Callable[[Integration], UpdateIntegrationRequest],
        if_match: int | None = None,
        *,
        validate_only: bool = False,
    ) -> Written:
        """A function as `request` is given the integration as it is when it is written (for a change of one endpoint)."""
        caller.require("Integration.update")
        current = await self._find_whole(caller, ref)
        if not validate_only:
            written = await self._writer.update(caller, ref, request, if_match)
            return await self._read_tools(self._audited(caller, "integration.update", written))
        fields = request(current) if callable(request) else request
        draft = await self._writer.draft_update(caller, current, fields)
        return Written(current, draft.integration, draft.rebound)

    async def delete(self, caller: Caller, ref: str, if_match: int | None = None) -> Integration:
        caller.require("Integration.delete")
        await self._find_whole(caller, ref)
        gone = await self._writer.delete(caller, ref, if_match)
        self._listings.forget(gone)
        changes = [{"at": "", "before": _audit_view(gone), "after": None}]
        self._history.change(
            change_record(caller, datetime.now(UTC), "integration.delete", "integration", gone.id, gone.name, changes)
        )
        return gone

    def _audited(self, caller: Caller, action: Action, written: Written) -> Written:
        before, after = written.before, written.after
        shown = _audit_view(after)
        changes = (
            changes_of(_audit_view(before), shown)
            if before is not None
            else [{"at": "", "before": None, "after": shown}]
        )
        changes += [{"at": f"secret {path}", "before": MASK, "after": MASK} for path in _new_values(before, after)]
        now = datetime.now(UTC)
        self._history.change(change_record(caller, now, action, "integration", after.id, after.name, changes))
        if written.rebound:
            rebound = [
                {"at": path, "before": _origins(before, path), "after": _origins(after, path)}
                for path in written.rebound
            ]
            row = change_record(caller, now, "secret_rebound", "integration", after.id, after.name, rebound)
            self._history.change(row)
        return written

    # ------------------------------------------------------------------ history

    async def calls(self, caller: Caller, query: CallQuery) -> Sequence[CallRecord]:
        """Newest first; of a narrowed caller's own integrations and tools only (rules H4)."""
        caller.require("Integration.view")
        return await self._history.calls(
            caller.workspace, replace(query, integrations=caller.integrations, tools=caller.tools)
        )

    async def audit(
        self, caller: Caller, *, limit: int = 20, before: int | None = None, target: str | None = None
    ) -> Sequence[AuditRecord]:
        """Newest first. Changes of keys need ApiKey.view, those of shared secrets Secret.write; a key that is narrowed to tools
        sees none, since a change shows the whole integration."""
        caller.require("Integration.view")
        kinds: set[Kind] = set() if caller.tools is not None else {"integration"}
        if caller.tools is None and caller.integrations is None:
            kinds |= {kind for kind, needed in _AUDIT_NEEDS.items() if caller.may(needed)}
        query = AuditQuery(frozenset(kinds), limit, before, target, caller.integrations)
        return await self._history.changes(caller.workspace, query)

    # ------------------------------------------------------------------ testing

    async def test(
        self,
        caller: Caller,
        ref: str,
        endpoint_name: str,
        params: Mapping[str, Any],
        hops: int = 0,
        confirm: Confirm | None = None,
        request_id: str = "",
    ) -> Outcome:
        """Runs the same pipeline as a tool call, approval included; raises InvalidRequest where the arguments don't fit (semantics: "test")."""
        caller.require("Integration.view")
        integration, endpoint = await self.endpoint(caller, ref, endpoint_name)
        if endpoint.method != "GET" and self._rules.test_requires == "execute":
            caller.require("Integration.execute")
        if integration.protocol == "mcp" and integration.upstream_tools is None:  # it was never enabled
            await self._listings.read_if_possible(integration)
            integration, endpoint = await self.endpoint(caller, ref, endpoint_name)
        catalog = await self._catalogs.get(caller.workspace)
        tool = self.tool(integration, endpoint)
        context = CallContext(hops=hops, confirm=confirm, insists=True, request_id=request_id)
        outcome = await self._gateway.run(caller, catalog, tool, params, context, new_call_id())
        if isinstance(outcome.error, InvalidArguments):
            raise InvalidRequest(
                [Issue(("body", "params", f.where), f.what, "invalid_argument") for f in outcome.error.faults]
            )
        return outcome

    async def preview(
        self,
        caller: Caller,
        ref: str,
        endpoint_name: str,
        response: Any,
        *,
        params: Mapping[str, Any],
        patch: Mapping[str, Any],
    ) -> Outcome:
        """The endpoint's shaping, with `patch` tried on it, over a given response. Calls and stores nothing."""
        integration, endpoint = await self.endpoint(caller, ref, endpoint_name)
        if patch:
            endpoint = patched(endpoint, patch)
        name = tool_name(integration.name, endpoint.name, self._rules.tool_name_max)
        return preview(integration, endpoint, name, response, params, self._gateway.rules.result_budget)

    async def health(self, caller: Caller) -> dict[str, Any]:
        """Every enabled integration that the caller sees, probed side by side."""
        caller.require("Integration.view")
        catalog = await self._catalogs.get(caller.workspace)
        seen = [i for i in catalog.integrations if i.enabled and self._sees(caller, i)]
        results = await self._health.check_all(seen)
        return report(seen, results, datetime.now(UTC), with_detail=caller.may("Integration.update"))

    async def test_connection(self, caller: Caller, ref: str) -> dict[str, Any]:
        """One fresh probe with the credential, kept as last_tested_at and last_test_status."""
        caller.require("Integration.view")
        integration = await self._find(caller, ref)
        if integration.protocol == "mcp":
            await self._listings.read_if_possible(integration)
            integration = await self._find(caller, ref)
        elif integration.protocol == "fhir":
            await self._capabilities.read_if_possible(integration)
            integration = await self._find(caller, ref)
        found = await self._health.check(integration, fresh=True)
        await self._registry.record_test(integration.workspace_id, integration.id, found.checked_at, found.status)
        may_change = caller.may("Integration.update")
        return report([integration], [found], found.checked_at, with_detail=may_change)["integrations"][0]

    def tools(self, integration: Integration) -> tuple[Tool, ...]:
        """The tools that it shows; none while it is disabled."""
        return tuple(self._make_tools(integration))

    def tool(self, integration: Integration, endpoint: EndpointConfig) -> Tool:
        """The endpoint's tool as the catalog would make it, also where the integration is disabled.

        Raises NotFound where an MCP upstream doesn't have what the endpoint names.
        """
        tools = self._make_tools(integration.model_copy(update={"enabled": True}))
        found = next((t for t in tools if t.endpoint.name == endpoint.name), None)
        if found is None:
            raise NotFound(missing_tool(integration, endpoint))
        return found

    # ------------------------------------------------------------------ who sees what

    async def _find(self, caller: Caller, ref: str) -> Integration:
        try:
            integration = await self._registry.get(caller.workspace, ref)
        except NotFound:
            integration = None
        if integration is None or not self._sees(caller, integration):
            raise NotFound(f"no integration {ref[:80]} in this workspace")
        return integration

    async def _find_whole(self, caller: Caller, ref: str) -> Integration:
        """For changes: a key that sees only some of the tools may not change, or drop, the others."""
        integration = await self._find(caller, ref)
        if caller.tools is not None:
            raise Forbidden("this key is narrowed to some tools, so it can't change integrations")
        return integration

    def _shown_endpoints(self, integration: Integration) -> Sequence[EndpointConfig]:
        """Its endpoints; for an MCP or FHIR upstream without some, the tools that it has."""
        if integration.endpoints or integration.protocol == "rest":
            return integration.endpoints
        return [t.endpoint for t in self._make_tools(integration.model_copy(update={"enabled": True}))]

    async def _read_tools(self, written: Written) -> Written:
        """An upstream's tools as they are now, for those to hold to; what can't be reached doesn't stop the write."""
        after = written.after
        if after.protocol == "fhir" and after.enabled:
            await self._capabilities.read_if_possible(after)
        if after.protocol != "mcp":
            return written
        if not after.enabled:
            self._listings.forget(after)
            return written
        await self._listings.read_if_possible(after, accept=True)
        return written

    def _sees(self, caller: Caller, integration: Integration) -> bool:
        if caller.integrations is not None and integration.id not in caller.integrations:
            return False
        return caller.tools is None or any(
            self._sees_endpoint(caller, integration, e) for e in self._shown_endpoints(integration)
        )

    def _sees_endpoint(self, caller: Caller, integration: Integration, endpoint: EndpointConfig) -> bool:
        if caller.tools is None:
            return True
        return tool_name(integration.name, endpoint.name, self._rules.tool_name_max) in caller.tools

    async def _visible_ids(self, caller: Caller) -> frozenset[str] | None:
        if caller.tools is None:
            return caller.integrations
        catalog = await self._catalogs.get(caller.workspace)
        return frozenset(i.id for i in catalog.integrations if self._sees(caller, i))


_AUDIT_NEEDS: dict[Kind, Permission] = {"api_key": "ApiKey.view", "secret": "Secret.write"}


def _audit_view(integration: Integration) -> dict[str, Any]:
    """The whole integration without secrets."""
    shown = plain(
        integration.model_copy(
            update={"bindings": {}, "upstream_tools": None, "updated_at": integration.created_at, "version": 0}
        )
    )
    for headers in (shown, *shown["endpoints"]):
        for name in ("headers", "mcp_headers", "mcp_env"):
            if headers.get(name):
                headers[name] = mask_headers(headers[name])
    return shown


def _new_values(before: Integration | None, after: Integration) -> list[str]:
    """Paths whose value was written with this change."""
    old = before.bindings if before else {}
    return [
        path for path, b in after.bindings.items() if b.owned and (path not in old or old[path].version != b.version)
    ]


def _origins(integration: Integration | None, path: str) -> list[str]:
    binding = integration.bindings.get(path) if integration else None
    return list(binding.origins) if binding else []


def parse_sort(sort_by: str | None) -> tuple[SortField, bool]:
    """(field, descending). A raw "+" in a query arrives as a blank: accepted. Raises InvalidRequest."""
    if sort_by is None:
        return "created_at", True
    descending = sort_by.startswith("-")
    name = sort_by[1:] if sort_by[:1] in ("+", "-", " ") else sort_by
    for field in _SORT:
        if name == field:
            return field, descending
    raise InvalidRequest(
        [
            Issue(
                ("query", "sort_by"),
                f"sort by one of {', '.join(_SORT)}, with + or - before it",
                "value_error",
                sort_by,
                True,
            )
        ]
    )


def _require_whole(caller: Caller) -> None:
    if caller.integrations is not None or caller.tools is not None:
        raise Forbidden("this key is narrowed to some integrations or tools, so it can't make new ones")
