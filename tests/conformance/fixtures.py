"""What the official conformance suite calls: its fixture tools as endpoints over a small upstream, and as tools of MCP servers.

The suite names tools like `test_simple_text`; here that is endpoint `text` of integration `test_simple`. `test` itself is an MCP
server (`asking_server`), for the tools that ask. `CONTENT` is what each answers in the wire's spelling, so that we can check by
content what the suite only ticks.
"""

import asyncio
import base64
import struct
import wave
import zlib
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

TEXT = "This is a simple text response for testing."
ERROR = "This tool intentionally returns an error for testing"
FAILS_AFTER_S = 2.0
"""Of the job that fails: longer than the gateway waits before it gives a task."""
BUSY_ANSWERS = 2
"""How often the slow endpoint says 503 before it answers: one progress notification an attempt, and the suite wants three."""


def png() -> bytes:
    """One red pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0"))
        + chunk(b"IEND", b"")
    )


def wav() -> bytes:
    """Ten milliseconds of silence."""
    file = BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(160))
    return file.getvalue()


PDF = b"%PDF-1.1\n%%EOF\n"

CONTENT: dict[str, dict[str, Any]] = {
    "test_simple_text": {"type": "text", "text": TEXT},
    "test_image_content": {"type": "image", "data": base64.b64encode(png()).decode(), "mimeType": "image/png"},
    "test_audio_content": {"type": "audio", "data": base64.b64encode(wav()).decode(), "mimeType": "audio/wav"},
    "test_embedded_resource": {
        "type": "resource",
        "resource": {
            "uri": "attachment://test_embedded_resource",
            "mimeType": "application/pdf",
            "blob": base64.b64encode(PDF).decode(),
        },
    },
    "test_tool_with_progress": {"type": "text", "text": "done"},
    "json_schema_2020_12_tool": {"type": "text", "text": "ok"},
}


MIXED: list[dict[str, Any]] = [
    {"type": "text", "text": "Multiple content types test:"},
    {"type": "image", "data": base64.b64encode(png()).decode(), "mimeType": "image/png"},
    {
        "type": "resource",
        "resource": {"uri": "test://mixed-content-resource", "mimeType": "application/json", "text": '{"test":"data"}'},
    },
]
"""What `test_multiple_content_types` answers: several blocks, so its upstream is an MCP server (`asking_server`)."""


def upstream(change_tools: Callable[[], Awaitable[None]]) -> Starlette:
    """The far end of all fixture tools; `change_tools` is called by the one that changes the list while it runs."""
    asked = 0

    async def slow(request: Request) -> Response:
        nonlocal asked
        asked += 1
        if asked % (BUSY_ANSWERS + 1):
            return PlainTextResponse("busy", 503, {"Retry-After": "0"})
        return PlainTextResponse("done")

    def fixed(path: str, body: bytes, media_type: str) -> Route:
        async def answer(request: Request) -> Response:
            return Response(body, media_type=media_type)

        return Route(path, answer)

    async def failing(request: Request) -> Response:
        return JSONResponse({"message": ERROR}, 422)

    async def schema(request: Request) -> Response:
        return PlainTextResponse("ok")

    async def trigger(request: Request) -> Response:
        await change_tools()
        return PlainTextResponse("changed")

    async def compute(request: Request) -> Response:
        """Takes as long as it is told, or until its client leaves: a call that is cancelled was to take a minute."""
        asked = await request.json()
        with anyio.move_on_after(asked["seconds"]):
            while (await request.receive())["type"] != "http.disconnect":
                pass
        return PlainTextResponse(f"computed {asked.get('label', '')}".rstrip())

    async def job(request: Request) -> Response:
        await asyncio.sleep(FAILS_AFTER_S)
        return JSONResponse({"message": ERROR}, 422)

    return Starlette(
        routes=[
            fixed("/simple_text", TEXT.encode(), "text/plain"),
            fixed("/image_content", png(), "image/png"),
            fixed("/audio_content", wav(), "audio/wav"),
            fixed("/embedded_resource", PDF, "application/pdf"),
            Route("/error_handling", failing),
            Route("/tool_with_progress", slow),
            Route("/2020_12_tool", schema, methods=["POST"]),
            Route("/trigger_tool_change", trigger),
            Route("/compute", compute, methods=["POST"]),
            Route("/job", job, methods=["POST"]),
        ]
    )


# The suite's own has an $anchor as well, which a schema written here may not have: references go by $defs only.
SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


COMPUTE: dict[str, Any] = {
    "type": "object",
    "properties": {"seconds": {"type": "number"}, "label": {"type": "string"}},
    "required": ["seconds"],
}


def queued(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """An endpoint that runs in the background: a task, for a client that takes one."""
    return {
        "name": name,
        "description": f"Fixture {name}, which takes a while.",
        "method": "POST",
        "path": f"/{name}",
        "timeout_seconds": 90,
        "input_schema": schema,
        "result_delivery": "queue",
    }


def over_rest(name: str, base_url: str, **more: Any) -> dict[str, Any]:
    """One tool `test_{name}`: its last word is the endpoint's name."""
    integration, _, endpoint = f"test_{name}".rpartition("_")
    get = {"name": endpoint, "description": f"Fixture {name}.", "method": "GET", "path": f"/{name}", **more}
    return {"name": integration, "display_name": integration, "base_url": base_url, "endpoints": [get]}


def over_mcp(name: str, url: str) -> dict[str, Any]:
    return {"name": name, "display_name": name, "protocol": "mcp", "mcp_transport": "http", "mcp_url": f"{url}/mcp"}


def integrations(base_url: str, handshake_url: str, modern_url: str) -> list[dict[str, Any]]:
    """The integrations as a REST body would have them; the two others are `asking_server`'s."""
    names = (
        "simple_text",
        "image_content",
        "audio_content",
        "embedded_resource",
        "error_handling",
        "trigger_tool_change",
    )
    busy = {"retry_config": {"max_retries": 3, "retry_on_status": [503]}}
    schema = {
        "name": "schema_2020_12_tool",
        "description": "Tool with JSON Schema 2020-12 features",
        "method": "POST",
        "path": "/2020_12_tool",
        "input_schema": SCHEMA_2020_12,
    }
    return [
        *(over_rest(name, base_url) for name in names),
        over_rest("tool_with_progress", base_url, **busy),
        {"name": "slow", "display_name": "Slow", "base_url": base_url, "endpoints": [queued("compute", COMPUTE)]},
        {"name": "failing", "display_name": "Failing", "base_url": base_url, "endpoints": [queued("job", {})]},
        {"name": "json", "display_name": "JSON", "base_url": base_url, "endpoints": [schema]},
        over_mcp("test", handshake_url),
        over_mcp("test_input_required_result", modern_url),
    ]
