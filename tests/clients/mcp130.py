"""A client of the year before: mcp 1.30. Runs in its own environment (tests/oldworld.py), prints one JSON object.

mcp130.py --transport http|sse --url URL [--header "Name: value"]... [--tool NAME --arguments JSON]
mcp130.py --transport stdio [--env NAME=value]... [--tool NAME --arguments JSON] -- COMMAND ARG...

--calls FILE makes many calls, one after the other; the file holds [[tool, arguments]].
"""

import argparse
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", choices=["http", "sse", "stdio"], required=True)
    parser.add_argument("--url")
    parser.add_argument("--header", action="append", default=[], type=lambda text: pair(text, ":"))
    parser.add_argument("--env", action="append", default=[], type=lambda text: pair(text, "="))
    parser.add_argument("--tool")
    parser.add_argument("--arguments", type=json.loads, default={})
    parser.add_argument("--calls", type=lambda path: json.loads(Path(path).read_text("utf-8")), default=[])
    parser.add_argument("command", nargs="*")
    return parser.parse_args()


def pair(text: str, mark: str) -> tuple[str, str]:
    name, _, value = text.partition(mark)
    return name.strip(), value.strip()


@asynccontextmanager
async def streams(wanted: argparse.Namespace) -> AsyncIterator[tuple[Any, Any]]:
    headers = dict(wanted.header)
    if wanted.transport == "http":
        async with (
            create_mcp_http_client(headers) as http,
            streamable_http_client(wanted.url, http_client=http) as (
                read,
                write,
                _,
            ),
        ):
            yield read, write
    elif wanted.transport == "sse":
        async with sse_client(wanted.url, headers) as (read, write):
            yield read, write
    else:
        command, *arguments = wanted.command
        server = StdioServerParameters(command=command, args=arguments, env=dict(wanted.env))
        async with stdio_client(server) as (read, write):
            yield read, write


async def main() -> None:
    wanted = options()
    async with streams(wanted) as (read, write), ClientSession(read, write) as session:
        hello = await session.initialize()
        tools, page = [], await session.list_tools()
        tools += page.tools
        while page.nextCursor is not None:
            page = await session.list_tools(cursor=page.nextCursor)
            tools += page.tools
        results = [await session.call_tool(name, given) for name, given in wanted.calls]
        result = await session.call_tool(wanted.tool, wanted.arguments) if wanted.tool else None
    print(
        json.dumps(
            {
                "server": hello.serverInfo.model_dump(mode="json", exclude_none=True),
                "version": hello.protocolVersion,
                "instructions": hello.instructions,
                "tools": [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools],
                "results": [r.model_dump(mode="json", by_alias=True, exclude_none=True) for r in results],
                "result": result and result.model_dump(mode="json", by_alias=True, exclude_none=True),
            }
        )
    )


anyio.run(main)
