"""Writes tests/transcripts from the scenarios: `python -m tests.write_transcripts`. Read the diff: it is what agents will read."""

import asyncio
import json
import re
import tempfile
from pathlib import Path

from server.demo.definition import load_demo
from server.demo.running import running_clinic
from tests.hosts_simulated import Host, chatting
from tests.scenarios import AGENT, OWNER, Scenario
from tests.world import gateway
from tools.descriptions import estimate_tokens

FOLDER = Path(__file__).with_name("transcripts")
_CHANGING = (
    (re.compile(r"\b([rtc])_[A-Za-z0-9]{12}\b"), r"\1_ID"),
    (re.compile(r"127\.0\.0\.1:\d+"), "CLINIC"),
    (re.compile(r"until \d\d:\d\d UTC"), "until HH:MM UTC"),
    (re.compile(r"in \d+ ms"), "in N ms"),
    (re.compile(r'"(ms|duration_ms|latency_ms)": ?[\d.]+'), r'"\1":0'),
    (re.compile(r'(Idempotency-Key": ?")[^"]+'), r"\1KEY"),
    (re.compile(r"/integrations/[0-9a-f-]{36}/"), "/integrations/UUID/"),
)
_LONG = 1500


async def transcript(scenario: Scenario, role: str) -> str:
    """One line a turn: what was asked, what the model saw (the middle of a long text left out), about how many tokens."""
    with tempfile.TemporaryDirectory() as home:
        async with running_clinic() as clinic, gateway(Path(home)) as world:
            await world.app.writer.create(world.owner, load_demo(clinic.base_url))
            async with chatting(world, Host("text_only"), role) as chat:
                await scenario(chat)
    rows: list[str] = []
    for turn in chat.turns:
        saw = turn.saw
        for pattern, put in _CHANGING:
            saw = pattern.sub(put, saw)
        arguments = json.loads(_CHANGING[0][0].sub(_CHANGING[0][1], json.dumps(turn.arguments)))
        # Rounded, since ids and times differ in length from run to run.
        row = {"call": turn.tool, "arguments": arguments, "saw": _short(saw), "tokens": round(estimate_tokens(saw), -1)}
        rows.append(json.dumps(row, ensure_ascii=False))
    return "\n".join(rows) + "\n"


def _short(text: str) -> str:
    half = _LONG // 2
    return text if len(text) <= _LONG else f"{text[:half]} ... {text[-half:]}"


async def write() -> None:
    FOLDER.mkdir(exist_ok=True)
    for role, scenarios in (("agent", AGENT), ("owner", OWNER)):
        for name, scenario in scenarios.items():
            if name != "all_of_642":
                (FOLDER / f"{name}.jsonl").write_text(await transcript(scenario, role), "utf-8")


if __name__ == "__main__":
    asyncio.run(write())
