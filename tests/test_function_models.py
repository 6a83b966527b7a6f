"""Scripted models in the agent loops of three frameworks, each with its own MCP client, reach their goals in few turns (agents.md 4.4).

The models decide from what their framework let them read (tests/clients/frameworks/policies.py); no live model.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from server.auth import caller_of
from server.demo.definition import load_demo
from server.demo.running import running_clinic
from server.store.database import open_database
from server.store.tables import kept_results
from tests.oldworld import FRAMEWORKS, frameworks
from tests.test_background import DONE, Gate, ended, handle
from tests.upstreams import Hostile
from tests.world import World, gateway, served
from tools.callers import Caller

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
PATIENCE_S = 60


@dataclass
class Talk:
    """A conversation that has ended."""

    turns: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    answer: str = ""
    tools: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def calls(self) -> list[str]:
        return [t["tool"] for t in self.turns]


@dataclass
class Framework:
    """A process with one framework in it. `url` is the gateway's /mcp."""

    process: asyncio.subprocess.Process
    url: str

    async def talk(self, policy: str, key: str, prompt: str, *, while_it_runs: Any = None) -> Talk:
        """`while_it_runs` is awaited when the model has read that its call is still running, with what it read before that."""
        await self._write({"policy": policy, "url": self.url, "key": key, "prompt": prompt})
        talk = Talk()
        while "answer" not in (said := await self._line()):
            turn = said["turn"]
            talk.turns.append(turn)
            if turn["saw"].startswith("Still running"):
                await while_it_runs(talk.turns[0]["saw"])
                await self._write({})
        talk.answer, talk.tools = said["answer"], said["tools"]
        return talk

    async def _write(self, value: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(value).encode() + b"\n")
        await self.process.stdin.drain()

    async def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await self.process.stdout.readline()
            if not line:
                raise AssertionError((await self.process.stderr.read()).decode()[-3000:])
        return json.loads(line)


@asynccontextmanager
async def started(name: str, url: str, home: Path) -> AsyncGenerator[Framework]:
    python = await asyncio.to_thread(frameworks)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        python, FRAMEWORKS / "talk.py", name, stdin=pipe, stdout=pipe, stderr=pipe, limit=1 << 20, cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
    )  # fmt: skip
    try:
        yield Framework(process, f"{url}/mcp")
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def cut_and_expired(world: World, caller: Caller) -> str:
    """The note of a result that was cut for this caller, and whose time is over."""
    note = (await world.app.toolbox.call(caller, "clinic_list_audit_events", {})).text.splitlines()[0]
    async with open_database(world.app.settings.registry_url) as database, database.write() as c:
        await c.execute(update(kept_results).values(expires_at=datetime.now(UTC)))
    return note


def reports(base_url: str) -> dict[str, Any]:
    """An integration whose one tool writes, and goes on in the background."""
    endpoint = {
        "name": "export",
        "description": "Writes a report to the archive.",
        "method": "POST",
        "path": "/export",
        "input_schema": {"properties": {"report": {"type": "string", "description": "Its name."}}},
        "result_delivery": "queue",
    }
    return {"name": "reports", "display_name": "Reports", "base_url": base_url, "endpoints": [endpoint]}


@pytest.mark.parametrize("name", ["pydantic_ai", "openai_agents", "langchain"])
async def test_a_model_that_reads_reaches_every_goal_in_few_turns(tmp_path: Path, name: str) -> None:
    async with (
        running_clinic() as clinic,
        Hostile() as upstream,
        gateway(tmp_path, queue_wait=0, grace_seconds=0) as world,
        served(world) as url,
        started(name, url, tmp_path) as framework,
    ):
        await world.app.writer.create(world.owner, load_demo(clinic.base_url))
        await world.create(reports(upstream.url))
        made = await world.app.keys.create("acme", role="agent")
        agent, caller, owner = made.api_key, caller_of(made.row), await world.key("owner")

        talk = await framework.talk("wrong_argument", agent, "Which patients are called Solo")
        assert "Leia Solo" in talk.answer
        assert talk.calls == ["clinic_search_patients"] * 2
        page, _ = await world.app.toolbox.page(caller, None)
        assert talk.tools == {entry["name"]: entry["inputSchema"] for entry in page}

        note = await cut_and_expired(world, caller)
        talk = await framework.talk("expired_page", agent, f"{note}\nI want the events of the record Patient/f001")
        assert '"record":"Patient/f001"' in talk.answer
        assert talk.calls == ["get_result", "clinic_list_audit_events"]

        talk = await framework.talk("one_of_642", agent, "What happened in audit event 17")
        assert talk.answer.startswith('{"seq":17,') or talk.answer.startswith('[{"seq":17,')
        assert len(talk.turns) <= 3

        gate = Gate()
        upstream.script("/export", gate.step())

        async def finish(accepted: str) -> None:
            gate.open.set()
            await ended(world, handle(accepted), caller)

        talk = await framework.talk("queued_export", agent, "Export report r1", while_it_runs=finish)
        assert json.loads(talk.answer) == json.loads(DONE)
        assert talk.calls == ["reports_export", "get_result", "get_result"]
        assert [(r.method, r.target, json.loads(r.body)) for r in upstream.received] == [
            ("POST", "/export", {"report": "r1"})
        ]

        talk = await framework.talk("template_typo", owner, "Say only the birthday in clinic_get_patient f001")
        assert talk.answer.startswith("Born 19")
        assert len(talk.turns) == 4
        stored = next(
            e for e in (await world.app.admin.get(world.owner, "clinic")).endpoints if e.name == "get_patient"
        )
        assert stored.result_template == "Born {{ birthdate }}"
