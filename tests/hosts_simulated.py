"""Hosts as they treat tools and results (agents.md 4.3): what a model sees through each, table-driven.

A `Chat` is a model's side of a conversation: `tools` is what it was shown, `call` what it reads. A policy that reaches its goal in
every host needs nothing that some host drops.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.world import World, http, served


def texts(result: dict[str, Any]) -> list[str]:
    return [b["text"] for b in result["content"] if b["type"] == "text"]


def all_text(result: dict[str, Any]) -> str:
    return "\n".join(texts(result))


def structured_wins(result: dict[str, Any]) -> str:
    found = result.get("structuredContent")
    return json.dumps(found) if found is not None else all_text(result)


def both(result: dict[str, Any]) -> str:
    found = result.get("structuredContent")
    return all_text(result) + (f"\n{json.dumps(found)}" if found is not None else "")


def first_block_on_error(result: dict[str, Any]) -> str:
    return texts(result)[0] if result.get("isError") else all_text(result)


@dataclass(frozen=True)
class Host:
    """`seen` makes a model's text of a result; `cut` characters at most (`preview` of a longer one are shown)."""

    name: str
    seen: Callable[[dict[str, Any]], str] = all_text
    first_page_only: bool = False
    prefix: str = ""
    frozen_list: bool = False
    cut: int = 10**9
    preview: int = 10**9
    timeout_s: float = 600
    drops_meta: bool = False


HOSTS = (
    Host("structured_wins", structured_wins),
    Host("text_only"),
    Host("both", both),
    Host("first_block_on_error", first_block_on_error),
    Host("first_page_only", first_page_only=True),
    Host("cut_at", cut=50_000, preview=2_000),
    Host("prefix", prefix="mcp__gateway__"),
    Host("frozen_list", frozen_list=True),
    Host("timeout", timeout_s=60),
    Host("no_meta", drops_meta=True),
)
NAME_MOST = 64
"""Providers refuse longer names, the host's prefix included."""


@dataclass
class Turn:
    """One call and what the model read."""

    tool: str
    arguments: dict[str, Any]
    saw: str


@dataclass
class Chat:
    """A model in one host, talking to one gateway."""

    host: Host
    client: Client
    tools: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    turns: list[Turn] = field(default_factory=list[Turn])
    _listed: bool = False

    async def list(self) -> None:
        """The host lists tools: as often as it likes, once where it freezes the list."""
        if self._listed and self.host.frozen_list:
            return
        self._listed = True
        self.tools = {}
        cursor: str | None = None
        while True:
            page = (await self.client.list_tools(cursor=cursor)).model_dump(by_alias=True, exclude_none=True)
            for entry in page["tools"]:
                name = self.host.prefix + entry["name"]
                assert len(name) <= NAME_MOST, name
                shown = {k: v for k, v in entry.items() if k != "_meta" or not self.host.drops_meta}
                self.tools[name] = {**shown, "name": name}
            cursor = page.get("nextCursor")
            if cursor is None or self.host.first_page_only:
                return

    async def call(self, tool: str, /, **arguments: Any) -> str:
        """What the model reads. A tool that it wasn't shown can't be called: no host would pass it on."""
        name = self.host.prefix + tool
        assert name in self.tools, f"{self.host.name}: the model was not shown {name}"
        async with asyncio.timeout(self.host.timeout_s):
            result = (await self.client.call_tool(tool, arguments)).model_dump(by_alias=True, exclude_none=True)
        if self.host.drops_meta:
            result.pop("_meta", None)
        saw = self.host.seen(result)
        if len(saw) > self.host.cut:
            saw = f"(Result too long: saved to a file. Preview:)\n{saw[: self.host.preview]}"
        assert saw.strip(), "an empty result breaks conversations"
        self.turns.append(Turn(tool, arguments, saw))
        return saw


@asynccontextmanager
async def chatting(world: World, host: Host, role: Any = "agent", mode: Any = "2026-07-28") -> AsyncGenerator[Chat]:
    """A chat over HTTP with a key of this role; the tools are listed."""
    async with (
        served(world) as url,
        http(url, await world.key(role)) as client,
        Client(streamable_http_client(f"{url}/mcp", http_client=client), mode=mode) as mcp,
    ):
        chat = Chat(replace(host), mcp)
        await chat.list()
        yield chat
