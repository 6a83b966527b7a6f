"""pydantic-ai: an Agent with an MCPToolset and a FunctionModel."""

from typing import Any

from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelMessage, ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel


def results(messages: list[ModelMessage]) -> list[str]:
    """Texts of all tool results as the provider's API would get them, errors among them."""
    texts: list[str] = []
    for part in (p for m in messages for p in m.parts):
        if isinstance(part, ToolReturnPart):
            texts.append(part.model_response_str())
        elif isinstance(part, RetryPromptPart):
            texts.append(part.model_response())
    return texts


async def run(mind: Any, url: str, headers: dict[str, str], prompt: str) -> str:
    def think(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        decided = mind.next(results(messages), {t.name: t.parameters_json_schema for t in info.function_tools})
        part = TextPart(decided) if isinstance(decided, str) else ToolCallPart(decided.tool, decided.arguments)
        return ModelResponse(parts=[part])

    async with Agent(FunctionModel(think), toolsets=[MCPToolset(url, headers=headers)]) as agent:
        return (await agent.run(prompt)).output
