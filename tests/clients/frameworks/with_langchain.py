"""langchain: create_agent with the tools of langchain-mcp-adapters and a chat model of our own."""

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_mcp_adapters.client import MultiServerMCPClient
from pydantic import Field


class Scripted(BaseChatModel):
    mind: Any
    shown: dict[str, Any] = Field(default_factory=dict)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        functions = [convert_to_openai_tool(t)["function"] for t in tools]
        return self.model_copy(update={"shown": {f["name"]: f["parameters"] for f in functions}})

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        saw = [str(m.text) for m in messages if isinstance(m, ToolMessage)]
        decided = self.mind.next(saw, self.shown)
        if isinstance(decided, str):
            message = AIMessage(decided)
        else:
            call = {"name": decided.tool, "args": decided.arguments, "id": f"c{len(saw)}", "type": "tool_call"}
            message = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=message)])


async def run(mind: Any, url: str, headers: dict[str, str], prompt: str) -> str:
    client = MultiServerMCPClient({"gateway": {"transport": "streamable_http", "url": url, "headers": headers}})
    agent = create_agent(Scripted(mind=mind), await client.get_tools())
    done = await agent.ainvoke({"messages": [{"role": "user", "content": prompt}]})
    return str(done["messages"][-1].text)
