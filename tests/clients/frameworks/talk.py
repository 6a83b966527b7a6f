"""Scripted models in the agent loops of public frameworks, each with the framework's own MCP client: `python talk.py FRAMEWORK`.

A job is a line of stdin, {"policy", "url", "key", "prompt"}. Each turn is a line of stdout, {"turn": {"tool", "arguments", "saw"}}: a call and what
the model read of it in the framework's own messages. After "Still running" the model waits for a line of stdin, as one that does something
else first. The job's last line is {"answer", "tools"}: what the model said, and the tools that the framework showed it (input schemas by name).
"""

import asyncio
import importlib
import json
import sys
from collections.abc import Sequence
from typing import Any

from policies import POLICIES, Call

MOST_TURNS = 8


class Mind:
    """The model, whatever the framework. `next` gets all results so far, as texts, oldest first, and input schemas by tool."""

    def __init__(self, policy: str, prompt: str) -> None:
        self._policy = POLICIES[policy]
        self._prompt = prompt
        self._calls: list[Call] = []
        self._told = 0
        self.tools: dict[str, Any] = {}

    def next(self, saw: Sequence[str], tools: dict[str, Any]) -> Call | str:
        self.tools = tools
        assert len(saw) == len(self._calls), f"{len(self._calls)} calls, but the model reads {len(saw)} results"
        for call, text in zip(self._calls[self._told :], saw[self._told :], strict=True):
            say({"turn": {"tool": call.tool, "arguments": call.arguments, "saw": text}})
            if text.startswith("Still running"):
                sys.stdin.readline()
        self._told = len(saw)
        if len(saw) >= MOST_TURNS:
            return "I give up."
        decided = self._policy(self._prompt, saw, tools)
        if isinstance(decided, Call):
            assert decided.tool in tools, f"{decided.tool} was not shown to the model"
            self._calls.append(decided)
        return decided


def say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


async def main(framework: str) -> None:
    module = importlib.import_module(f"with_{framework}")
    while line := sys.stdin.readline():
        job = json.loads(line)
        mind = Mind(job["policy"], job["prompt"])
        answer = await module.run(mind, job["url"], {"Authorization": f"Bearer {job['key']}"}, job["prompt"])
        say({"answer": answer, "tools": mind.tools})


asyncio.run(main(sys.argv[1]))
