"""An MCP server of the current SDK (mcp 2.3) with a tool for each way of answering. Run as `python lowlevel.py [stdio|sse|http PORT]`."""

import asyncio
import os
import sys
from pathlib import Path

import mcp_types as types
import uvicorn
from mcp.server import NotificationOptions, Server
from mcp.server.sse import SseServerTransport
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
OBJECT = {"type": "object", "properties": {}}
SECONDS = {"type": "object", "properties": {"seconds": {"type": "number"}}}
bus = InMemorySubscriptionBus()
extra: list[str] = []
seen: list[dict[str, str]] = []
cancelled: list[str] = []
metas: list[dict] = []


def tool(name: str, schema: dict | None = None, **more: object) -> types.Tool:
    return types.Tool(name=name, description=f"Does {name}.", input_schema=schema or OBJECT, **more)


TOOLS = [
    tool(
        "add",
        {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]},
        title="Add two numbers",
        output_schema={"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]},
        annotations=types.ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
        icons=[types.Icon(src="https://icons.example/add.png", mime_type="image/png")],
        _meta={"example.org/cost": 3},
    ),
    tool("everything"),
    tool("fails"),
    tool("slow", SECONDS, annotations=types.ToolAnnotations(read_only_hint=True)),
    tool("slow_write", SECONDS),
    tool("long_text"),
    tool("huge"),
    tool("steps"),
    tool("environment"),
    tool("dies"),
    tool("asks"),
    tool("records", annotations=types.ToolAnnotations(read_only_hint=True)),
    tool("mirrored", {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}),
    tool("noisy"),
]


async def list_tools(ctx, params):
    return types.ListToolsResult(tools=[*TOOLS, *(tool(name) for name in extra)])


def text(value: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=value)])


async def call_tool(ctx, params):
    args = params.arguments or {}
    metas.append(dict(ctx.meta or {}))
    if ctx.request is not None:
        seen.append(dict(ctx.request.headers))
    match params.name:
        case "add":
            total = args["a"] + args["b"]
            return types.CallToolResult(
                content=[types.TextContent(type="text", text=f'{{"sum":{total}}}')], structured_content={"sum": total}
            )
        case "everything":
            return types.CallToolResult(
                content=[
                    types.TextContent(type="text", text="words", annotations=types.Annotations(priority=0.5)),
                    types.ImageContent(type="image", data=PIXEL, mime_type="image/png"),
                    types.AudioContent(type="audio", data="UklGRg==", mime_type="audio/wav"),
                    types.EmbeddedResource(
                        type="resource",
                        resource=types.TextResourceContents(uri="note://1", mime_type="text/plain", text="a note"),
                    ),
                    types.EmbeddedResource(
                        type="resource",
                        resource=types.BlobResourceContents(uri="blob://1", mime_type="x/y", blob="AAEC"),
                    ),
                    types.ResourceLink(type="resource_link", uri="file:///x", name="x", description="a link"),
                ],
                structured_content={"n": 1, "deep": {"list": [1, "two", None]}},
                _meta={"example.org/trace": "t1"},
            )
        case "fails":
            return types.CallToolResult(content=[types.TextContent(type="text", text="no such thing")], is_error=True)
        case "slow" | "slow_write":
            try:
                await asyncio.sleep(float(args.get("seconds", 30)))
            except asyncio.CancelledError:
                cancelled.append(params.name)
                raise
            return text("done")
        case "long_text":
            return text("\n".join(f"line {n}" for n in range(20_000)))
        case "huge":
            return text("x" * 50_000_000)
        case "steps":
            for n in range(1, 4):
                await ctx.session.report_progress(n, 3, f"step {n}")
            return text("three steps")
        case "environment":
            return text("\n".join(f"{k}={v}" for k, v in sorted(os.environ.items())))
        case "dies":
            os._exit(3)
        case "asks":
            return types.InputRequiredResult(
                input_requests={
                    "who": types.ElicitRequest(
                        params=types.ElicitRequestFormParams(message="Who?", requested_schema=OBJECT)
                    )
                }
            )
        case "records":
            return types.CallToolResult(
                content=[types.TextContent(type="text", text="see the structured content")],
                structured_content={"items": [{"id": n, "name": f"n{n}", "secret": "x"} for n in range(3)]},
            )
        case "mirrored":
            return text(ctx.request.headers.get("mcp-param-region", "none") if ctx.request else "none")
        case "noisy":
            os.write(2, b"noise " * 1_000_000)
            return text("said a lot")
        case name:
            return text(f"{name} called")


async def listen(ctx, params):
    handler = ListenHandler(bus, max_subscriptions=16)
    listening.append(handler)
    return await handler(ctx, params)


listening: list[ListenHandler] = []
server = Server(
    "lowlevel",
    version="7",
    on_list_tools=list_tools,
    on_call_tool=call_tool,
    on_subscriptions_listen=listen,
)
connections = set()


async def track(ctx, call_next):
    result = await call_next(ctx)
    if ctx.method == "notifications/initialized":
        connections.add(ctx.session._connection)
    return result


server.middleware.append(track)


async def change(name: str, times: int = 1) -> None:
    """Adds a tool and says so to everybody."""
    if name not in extra:
        extra.append(name)
    for _ in range(times):
        await bus.publish(ToolsListChanged())
        for connection in list(connections):
            await connection.send_tool_list_changed()


async def over_stdio() -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options(NotificationOptions(tools_changed=True)))


def app() -> Starlette:
    """Streamable HTTP on /mcp, the old transport on /sse, and POST /change?name=...&times=..."""
    options = server.create_initialization_options
    server.create_initialization_options = lambda *a, **k: options(NotificationOptions(tools_changed=True))
    manager = StreamableHTTPSessionManager(server)
    sse = SseServerTransport("/messages/")

    class Mcp:
        async def __call__(self, scope, receive, send):
            await manager.handle_request(scope, receive, send)

    class Sse:
        async def __call__(self, scope, receive, send):
            async with sse.connect_sse(scope, receive, send) as (read, write):
                await server.run(read, write, server.create_initialization_options())

    async def changed(request: Request) -> PlainTextResponse:
        await change(request.query_params["name"], int(request.query_params.get("times", "1")))
        return PlainTextResponse("ok")

    return Starlette(
        routes=[
            Route("/mcp", Mcp()),
            Route("/sse", Sse()),
            Route("/change", changed, methods=["POST"]),
            Mount("/messages", app=sse.handle_post_message),
        ],
        lifespan=lambda _: manager.run(),
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        uvicorn.run(app(), host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
    else:
        if sys.argv[1:]:
            Path(sys.argv[1]).write_text(str(os.getpid()))
        asyncio.run(over_stdio())
