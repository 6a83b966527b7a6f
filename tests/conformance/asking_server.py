"""The suite's fixture tools that answer in several blocks or ask their client for something: MCP servers of the current SDK.

`HANDSHAKE` has those of 2025-11-25, which ask while the call runs; `MODERN` those of 2026-07-28, whose calls end with the question.
"""

from typing import Any

import mcp_types as types
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolRequestParams, CallToolResult, InputRequests, InputRequiredResult

from tests.conformance.fixtures import MIXED

_Context = ServerRequestContext[Any, Any]
DEFAULTS = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}
_OPTIONS = ["option1", "option2", "option3"]
_TITLED = [{"const": f"value{n}", "title": f"{word} Option"} for n, word in enumerate(("First", "Second", "Third"), 1)]
ENUMS = {
    "untitledSingle": {"type": "string", "enum": _OPTIONS},
    "titledSingle": {"type": "string", "oneOf": _TITLED},
    "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _OPTIONS}},
    "titledMulti": {"type": "array", "items": {"anyOf": _TITLED}},
}
USER = {"username": {"type": "string", "description": "User's response"}, "email": {"type": "string"}}


def _form(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _text(said: str) -> CallToolResult:
    return CallToolResult(content=[types.TextContent(type="text", text=said)])


def _server(name: str, tools: dict[str, dict[str, Any]], call: Any) -> Server[Any]:
    async def listed(ctx: _Context, params: Any) -> types.ListToolsResult:
        found = [types.Tool(name=n, description=f"Fixture {n}.", input_schema=_form(p)) for n, p in tools.items()]
        return types.ListToolsResult(tools=found)

    return Server(name, version="1", on_list_tools=listed, on_call_tool=call)


async def _during(ctx: _Context, params: CallToolRequestParams) -> CallToolResult:
    match params.name:
        case "multiple_content_types":
            return CallToolResult.model_validate({"content": MIXED})
        case "elicitation":
            got = await ctx.session.elicit_form((params.arguments or {})["message"], _form(USER), ctx.request_id)
            return _text(f"User response: <action: {got.action}, content: {got.content}>")
        case "elicitation_sep1034_defaults":
            got = await ctx.session.elicit_form("Who is it?", _form(DEFAULTS), ctx.request_id)
        case _:
            got = await ctx.session.elicit_form("Which?", _form(ENUMS), ctx.request_id)
    return _text(f"Elicitation completed: action={got.action}, content={got.content}")


HANDSHAKE = _server(
    "handshake",
    {
        "multiple_content_types": {},
        "elicitation": {"message": {"type": "string"}},
        "elicitation_sep1034_defaults": {},
        "elicitation_sep1330_enums": {},
    },
    _during,
)


def _asks(message: str, field: str, kind: str = "string") -> types.ElicitRequest:
    form = _form({field: {"type": kind}})
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=form))


def _samples(question: str) -> types.CreateMessageRequest:
    said = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=question))
    return types.CreateMessageRequest(params=types.CreateMessageRequestParams(messages=[said], max_tokens=100))


_NAME = {"user_name": _asks("What is your name?", "name")}
_ROUNDS: dict[str, list[InputRequests]] = {
    "elicitation": [_NAME],
    "sampling": [{"capital_question": _samples("What is the capital of France?")}],
    "list_roots": [{"client_roots": types.ListRootsRequest()}],
    "request_state": [{"confirm": _asks("Please confirm", "ok", "boolean")}],
    "tampered_state": [{"confirm": _asks("Please confirm", "ok", "boolean")}],
    "multiple_inputs": [{**_NAME, "greeting": _samples("Greet"), "client_roots": types.ListRootsRequest()}],
    "multi_round": [
        {"step1": _asks("Step 1: What is your name?", "name")},
        {"step2": _asks("Step 2: What is your favorite color?", "color")},
    ],
}
"""What a tool asks for in each round."""
_STATELESS = frozenset({"elicitation", "sampling", "list_roots"})


async def _between(ctx: _Context, params: CallToolRequestParams) -> CallToolResult | InputRequiredResult:
    """`requestState` is the number of the round, taken on trust: who changes it must be caught before it comes here."""
    capabilities = ctx.session.client_capabilities
    if params.name == "capabilities":
        if capabilities is None or capabilities.sampling is None:
            raise MCPError(
                types.MISSING_REQUIRED_CLIENT_CAPABILITY, "Sampling", {"requiredCapabilities": {"sampling": {}}}
            )
        return InputRequiredResult(input_requests={"model": _samples("Hello")})
    rounds, at = _ROUNDS[params.name], int(params.request_state or "0")
    given = params.input_responses or {}
    if rounds[at].keys() <= given.keys():
        at += 1
    if at == len(rounds):
        return _text(f"state-ok after round {at}: {given}")
    state = None if params.name in _STATELESS else str(at)
    return InputRequiredResult(input_requests=rounds[at], request_state=state)


MODERN = _server("modern", {name: {} for name in (*_ROUNDS, "capabilities")}, _between)
