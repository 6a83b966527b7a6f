"""A tool of an MCP upstream as one of ours: unchanged but for its name, or as an endpoint re-describes, narrows and shapes it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from tools.arguments import Arguments, compile_arguments
from tools.credentials.authorization import masks_of
from tools.credentials.parts import CredentialParts
from tools.descriptions import description_of
from tools.hidden_text import visible, visible_texts
from tools.kinds.mcp.described import (
    App,
    annotations_of,
    app_of,
    input_schema_of,
    meta_of,
    output_schema_of,
    schema_fault,
)
from tools.kinds.rest import SECRET_REFERENCE, split_headers
from tools.masking import is_secret_header
from tools.models import EndpointConfig, Integration, UpstreamTools
from tools.naming import RESERVED, tool_name
from tools.published import Published, publish
from tools.suspicious_text import suspicions_of_tool
from tools.tool import Hints, Tool
from tools.upstream import Retry

OnChange = Literal["report", "block"]


@dataclass(frozen=True, eq=False)
class McpTool(Tool):
    """`described` is the upstream's own entry. Without an endpoint of the operator's, `endpoint` is made from it."""

    described: Mapping[str, Any]
    by_operator: bool

    @property
    def upstream_name(self) -> str:
        return self.described["name"]

    @cached_property
    def path_names(self) -> tuple[str, ...]:
        return ()

    @cached_property
    def schema(self) -> dict[str, Any]:
        return input_schema_of(self.described, self.endpoint if self.by_operator else None)

    @cached_property
    def arguments(self) -> Arguments:
        return compile_arguments(self.schema)

    @cached_property
    def published(self) -> Published:
        return replace(self._published, schema=visible_texts(self._published.schema))

    @cached_property
    def _published(self) -> Published:
        return publish(self.schema)

    @property
    def is_discovered(self) -> bool:
        return not self.by_operator

    @property
    def _address(self) -> str:
        return self.integration.mcp_url or "stdio://"

    @property
    def secret_headers(self) -> tuple[tuple[str, str], ...]:
        return split_headers(self.integration.mcp_headers or {}, ())[1]

    @cached_property
    def static_masks(self) -> tuple[str, ...]:
        values = [*(self.integration.mcp_headers or {}).items(), *(self.integration.mcp_env or {}).items()]
        return masks_of([v for n, v in values if is_secret_header(n) and not v.startswith(SECRET_REFERENCE)])

    @cached_property
    def is_shaped(self) -> bool:
        """Whether the result is made of the upstream's, so that it has no structured content of its own any more."""
        return self.by_operator and (self.shaper.shapes or self.endpoint.max_result_length > 0)

    @cached_property
    def app(self) -> App | None:
        """The page for its results; none where the result is shaped, since the page reads the upstream's."""
        return None if self.is_shaped else app_of(self.described, self.integration.name)

    @cached_property
    def hints(self) -> Hints:
        """The upstream's own, with what the spec takes where it says nothing; the operator's win."""
        theirs, own = annotations_of(self.described), self.endpoint.annotations

        def hint(name: str, absent: bool) -> bool:
            mine = getattr(own, name) if own is not None else None
            said = theirs.get(name)
            return mine if mine is not None else said if isinstance(said, bool) else absent

        return Hints(
            hint("readOnlyHint", False),
            hint("destructiveHint", True),
            hint("idempotentHint", False),
            hint("openWorldHint", True),
        )

    @property
    def is_surely_read_only(self) -> bool:
        """An upstream that calls its tool read-only can't spare itself the question: only the operator can."""
        own = self.endpoint.annotations if self.by_operator else None
        return own is not None and own.readOnlyHint is True

    @cached_property
    def retry(self) -> Retry:
        """An attempt whose outcome is unknown is repeated where the hints say that this does no harm."""
        return Retry(1, frozenset(), self.hints.read_only or self.hints.idempotent)

    @cached_property
    def title(self) -> str:
        own = self.endpoint.annotations.title if self.endpoint.annotations else None
        theirs = self.described.get("title") or annotations_of(self.described).get("title")
        return visible(own or (theirs if isinstance(theirs, str) and theirs else super().title))

    @cached_property
    def entry(self) -> dict[str, Any]:
        return visible_texts(self.as_described)

    @property
    def as_described(self) -> dict[str, Any]:
        """The entry as the upstream describes it, hidden characters too: fields that we don't know stay."""
        entry = {k: v for k, v in self.described.items() if k not in ("outputSchema", "execution")}
        entry |= {
            "name": self.name,
            "title": self.title,
            "description": self.described.get("description", ""),
            "inputSchema": self._published.schema,
            "annotations": {**annotations_of(self.described), **self.hints.entry(self.title)},
            "_meta": {**meta_of(self.described, self.app), **self.own_meta},
        }
        if self.by_operator:
            entry["description"] = description_of(
                self.endpoint.model_copy(
                    update={"description": self.endpoint.description.strip() or entry["description"]}
                ),
                returns=self.shaper.names,
                needs_approval=self.needs_approval,
            )
        if not self.is_shaped and (output := output_schema_of(self.described)) is not None:
            entry["outputSchema"] = output
        return entry


def mcp_tools_of(
    integration: Integration,
    parts: CredentialParts,
    name_limit: int,
    on_change: OnChange,
    *,
    withhold_suspicious: bool = False,
) -> tuple[McpTool, ...]:
    """What the integration shows: its endpoints where it has some, else every tool of the upstream, by name.

    A suspicious one can be shown all the same by an endpoint that describes it otherwise.
    """
    listing = integration.upstream_tools
    if not integration.enabled or listing is None:
        return ()
    found: list[McpTool] = []
    taken = set(RESERVED)
    for endpoint, described, by_operator in _pairs(integration, listing, on_change):
        name = tool_name(integration.name, endpoint.name, name_limit)
        tool = McpTool(integration, endpoint, name, parts, described, by_operator)
        if name.lower() in taken or (by_operator and schema_fault(tool.schema) is not None):
            continue
        if withhold_suspicious and suspicions_of_tool(
            tool.as_described if by_operator else {**tool.as_described, "name": described["name"]}
        ):
            continue
        taken.add(name.lower())
        found.append(tool)
    return tuple(found)


def _pairs(
    integration: Integration, listing: UpstreamTools, on_change: OnChange
) -> list[tuple[EndpointConfig, dict[str, Any], bool]]:
    blocked = frozenset(listing.changed) if on_change == "block" else frozenset[str]()
    usable = {t["name"]: t for t in listing.tools if t["name"] not in blocked}
    if integration.endpoints:
        chosen = ((e, usable.get(e.path) or usable.get(e.path.lstrip("/"))) for e in integration.endpoints)
        return sorted(((e, t, True) for e, t in chosen if t is not None), key=lambda row: row[0].name)
    return [(_endpoint_of(t), t, False) for t in usable.values()]


def _endpoint_of(described: Mapping[str, Any]) -> EndpointConfig:
    """Unchecked: an upstream's names and texts keep to no rules of ours."""
    return EndpointConfig.model_construct(
        name=described["name"], description=described.get("description", ""), path=described["name"]
    )
