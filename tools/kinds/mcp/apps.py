"""MCP Apps (SEP-1865, extension io.modelcontextprotocol/ui): the page that an upstream's tool names, read through the gateway.

A tool points to a page by `_meta.ui.resourceUri`. Two upstreams may give theirs the same URI, so it is published below the
integration's name; read is only what a tool names that the caller sees.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from tools.errors import InvalidResponse, UpstreamRefused, UpstreamTimeout, UpstreamUnreachable
from tools.json_schema import is_array, is_object
from tools.kinds.mcp.described import is_for_pages
from tools.kinds.mcp.mcp_tool import McpTool
from tools.kinds.mcp.rpc import LinkLost, Message, RpcError, SessionGone
from tools.kinds.mcp.sessions import McpSessions
from tools.signing import CallSigner
from tools.tool import Tool


def app_tool(tools: Iterable[Tool], uri: str) -> McpTool | None:
    """The first of `tools` that names the page published as `uri`."""
    return next((t for t in tools if isinstance(t, McpTool) and t.app is not None and t.app.published == uri), None)


def called_by_page(tools: Iterable[Tool], name: str) -> McpTool | None:
    """The tool that a page means by its server's own name, where exactly one of `tools` can be meant.

    Hosts pass a page's tools/call on as it is, and nothing in it says which page called (SEP-1865, "Standard MCP Messages"). So the
    tool must be of a server that shows a page, be for pages too, and give what the server gives.
    """
    among = [t for t in tools if isinstance(t, McpTool)]
    paged = {t.integration.id for t in among if t.app is not None}
    found = [
        t
        for t in among
        if t.upstream_name == name and t.integration.id in paged and not t.is_shaped and is_for_pages(t.described)
    ]
    return found[0] if len(found) == 1 else None


def listed_apps(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """Entries of resources/list, one for each page."""
    found: dict[str, dict[str, Any]] = {}
    for tool in tools:
        if isinstance(tool, McpTool) and tool.app is not None:
            uri = tool.app.published
            found.setdefault(uri, {"uri": uri, "name": tool.name, "title": tool.title, "mimeType": APP_TYPE})
    return list(found.values())


APP_TYPE = "text/html;profile=mcp-app"


async def read_app(sessions: McpSessions, tool: McpTool, signer: CallSigner, *, hops: int) -> Message:
    """The masked result of resources/read, its page under the published URI. Raises CallErrors."""
    assert tool.app is not None
    signs = signer if tool.integration.mcp_transport != "stdio" else None
    try:
        async with asyncio.timeout(tool.deadline_s):
            for last in (False, True):
                try:
                    async with sessions.use(tool.integration, tool.auth) as connected:
                        signer.masks += tuple(connected.masks)
                        result = await connected.session.read(tool.app.uri, hops=hops, signer=signs)
                        return _checked(tool.masker(signer.masks).value(result), tool)
                except (LinkLost, SessionGone) as e:
                    if last:
                        raise UpstreamUnreachable("lost its connection again and again") from e
    except RpcError as e:
        raise UpstreamRefused(f"refused to give its page ({e.code})", said=e.message[:2000] or None) from e
    except TimeoutError as e:
        raise UpstreamTimeout(f"no answer within {tool.deadline_s:g} s", sent="yes", retryable=True) from e
    raise AssertionError("either returned or raised")


def _checked(result: Message, tool: McpTool) -> Message:
    assert tool.app is not None
    contents = result.get("contents")
    if not is_array(contents) or not all(_is_content(c) for c in contents):
        raise InvalidResponse("its answer is no page")
    shown = [
        {**c, "uri": tool.app.published if c.get("uri") == tool.app.uri else c.get("uri", tool.app.published)}
        for c in cast("list[Message]", contents)
    ]
    return {"contents": shown, **({"_meta": result["_meta"]} if is_object(result.get("_meta")) else {})}


def _is_content(value: Any) -> bool:
    return is_object(value) and any(isinstance(value.get(key), str) for key in ("text", "blob"))
