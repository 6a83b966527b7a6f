"""openai-agents: an Agent with an MCPServerStreamableHttp and a Model of our own."""

import json
from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage
from agents.mcp import MCPServerStreamableHttp
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText


def results(items: str | list[Any]) -> list[str]:
    """Texts of all tool results as they go to the Responses API."""
    outputs = [i["output"] for i in items if isinstance(i, dict) and i.get("type") == "function_call_output"]
    return [o if isinstance(o, str) else "".join(block["text"] for block in o) for o in outputs]


class Scripted(Model):
    def __init__(self, mind: Any) -> None:
        self._mind = mind
        self._made = 0

    async def get_response(
        self, system_instructions: Any, input: Any, model_settings: Any, tools: Any, *_: Any, **__: Any
    ) -> ModelResponse:
        decided = self._mind.next(results(input), {t.name: t.params_json_schema for t in tools})
        self._made += 1
        if isinstance(decided, str):
            text = ResponseOutputText(text=decided, type="output_text", annotations=[])
            output: Any = ResponseOutputMessage(
                id=f"m{self._made}", content=[text], role="assistant", status="completed", type="message"
            )
        else:
            output = ResponseFunctionToolCall(
                call_id=f"c{self._made}",
                name=decided.tool,
                arguments=json.dumps(decided.arguments),
                type="function_call",
            )
        return ModelResponse(output=[output], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


async def run(mind: Any, url: str, headers: dict[str, str], prompt: str) -> str:
    async with MCPServerStreamableHttp({"url": url, "headers": headers}) as server:
        agent = Agent("tests", mcp_servers=[server], model=Scripted(mind))
        return (await Runner.run(agent, prompt, run_config=RunConfig(tracing_disabled=True))).final_output
