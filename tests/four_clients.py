"""Four MCP clients that list a served gateway's tools and call many: Python 2.3 and 1.30, TypeScript 1.32 and 2.4, over HTTP."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.nodetools import node_env
from tests.oldworld import old_client
from tests.world import http

CLIENTS = ("python 2.3", "python 1.30", "typescript 1.32", "typescript 2.4")
Calls = Sequence[tuple[str, dict[str, Any]]]
_PATIENCE_S = 300


async def list_and_call(client: str, url: str, key: str, calls: Calls, scratch: Path) -> dict[str, Any]:
    """{tools, results} in the wire's spelling, all pages, results in the order of `calls`. Whatever a client can't take raises."""
    if client == "python 2.3":
        return await _modern_python(url, key, calls)
    path = scratch / "calls.json"
    path.write_text(json.dumps(calls), "utf-8")
    words = [
        "--transport",
        "http",
        "--url",
        f"{url}/mcp",
        "--header",
        f"Authorization: Bearer {key}",
        "--calls",
        str(path),
    ]
    if client == "python 1.30":
        old = await asyncio.to_thread(old_client)
        done = await asyncio.to_thread(old.run, *words, timeout=_PATIENCE_S)
    else:
        node = await asyncio.to_thread(node_env)
        script = node.script("list_and_call.mjs" if client == "typescript 1.32" else "list_and_call_v2.mjs")
        done = await asyncio.to_thread(node.run, script, *words, timeout=_PATIENCE_S)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


async def _modern_python(url: str, key: str, calls: Calls) -> dict[str, Any]:
    async with (
        http(url, key) as web,
        Client(streamable_http_client(f"{url}/mcp", http_client=web), mode="2026-07-28") as mcp,
    ):
        tools, cursor = [], None
        while True:
            page = await mcp.list_tools(cursor=cursor)
            tools += page.tools
            if (cursor := page.next_cursor) is None:
                break
        results = [await mcp.call_tool(name, given) for name, given in calls]
    dumped = {"mode": "json", "by_alias": True, "exclude_none": True}
    return {"tools": [t.model_dump(**dumped) for t in tools], "results": [r.model_dump(**dumped) for r in results]}
