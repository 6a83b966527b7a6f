"""A server of a few lines without an SDK. The first argument says what is wrong with it: plain, dies-of-the-probe, bad-tools, no-list, page."""

import json
import os
import sys

mode = sys.argv[1]
ECHO = {
    "name": "echo",
    "description": "Says it again.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
}
BAD = [
    {"name": "", "inputSchema": {"type": "object"}},
    {"name": "no_schema"},
    {"name": "broken", "inputSchema": {"type": "object", "properties": {"x": {"type": "nonsense"}}}},
    {"name": "remote", "inputSchema": {"type": "object", "properties": {"x": {"$ref": "https://x.example/s.json"}}}},
    {"name": "titled", "title": 7, "inputSchema": {"type": "object"}},
    ECHO,
]
PAGE = "ui://charts/bar.html"
PAGED = {**ECHO, "_meta": {"ui": {"resourceUri": PAGE, "visibility": ["model", "app"]}, "ui/resourceUri": PAGE}}


def answer(request: dict) -> dict | None:
    match request["method"]:
        case "initialize":
            return {
                "protocolVersion": "2024-11-05",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "small", "version": "1"},
            }
        case "tools/list" if mode != "no-list":
            return {"tools": [PAGED] if mode == "page" else BAD if mode == "bad-tools" else [ECHO]}
        case "resources/read" if request["params"]["uri"] == PAGE:
            said = f"<html>{sys.argv[2]} {os.environ.get('TOKEN', '')}</html>"
            csp = {"ui": {"csp": {"connectDomains": []}}}
            return {"contents": [{"uri": PAGE, "mimeType": "text/html;profile=mcp-app", "text": said, "_meta": csp}]}
        case "tools/call":
            return {"content": [{"type": "text", "text": request["params"]["arguments"].get("text", "")}]}
        case "server/discover" if mode == "dies-of-the-probe":
            sys.exit(1)
        case _:
            return None


print("a banner that is no message", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    result = answer(request)
    body = (
        {"result": result}
        if result is not None
        else {"error": {"code": -32601, "message": "no tools today" if mode == "no-list" else "no such method"}}
    )
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **body}), flush=True)
