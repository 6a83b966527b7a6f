"""Every scenario reaches its goal in every host, judged by what the model saw (agents.md 4.3)."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.demo.definition import load_demo
from server.demo.running import running_clinic
from tests.hosts_simulated import HOSTS, Chat, Host, chatting
from tests.scenarios import AGENT, OWNER
from tests.world import World, gateway
from tools.descriptions import estimate_tokens

pytestmark = pytest.mark.anyio

TEXT_ONLY = Host("text_only")


@asynccontextmanager
async def clinic(home: Path, **settings: Any) -> AsyncGenerator[World]:
    async with running_clinic() as running, gateway(home, **settings) as world:
        await world.app.writer.create(world.owner, load_demo(running.base_url))
        yield world


@pytest.mark.parametrize("host", HOSTS, ids=lambda h: h.name)
async def test_every_goal_is_reached_in_every_host(tmp_path: Path, host: Host) -> None:
    async with clinic(tmp_path) as world:
        async with chatting(world, host) as agent:
            for scenario in AGENT.values():
                agent.turns.clear()
                await scenario(agent)
        async with chatting(world, host, "owner") as owner:
            for scenario in OWNER.values():
                owner.turns.clear()
                await scenario(owner)


async def test_the_face_is_the_same_in_all_hosts(tmp_path: Path) -> None:
    """What a model reads of an agent's calls differs nowhere: no host drops or doubles any of it."""
    seen: dict[str, list[str]] = {}
    async with clinic(tmp_path) as world:
        for host in HOSTS:
            async with chatting(world, host) as chat:
                await chat.call("clinic_search_patients", family="Solo")
                await chat.call("clinic_search_patients", famly="Solo")
                await chat.call("clinic_get_patient", id="998")
                seen[host.name] = [t.saw for t in chat.turns]
    assert len({tuple(saw) for saw in seen.values()}) == 1, seen


async def test_a_host_that_reads_one_page_sees_all_of_a_long_list(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        for n in range(3):
            endpoints = [
                {"name": f"get_{i}", "description": "Gets one thing.", "method": "GET", "path": f"/{i}"}
                for i in range(300)
            ]
            await world.create(
                {"name": f"s{n}", "display_name": "S", "base_url": "https://s.example", "endpoints": endpoints}
            )
        async with chatting(world, Host("first_page_only", first_page_only=True)) as chat:
            assert len(chat.tools) == 901


# ------------------------------------------------------------------ tokens


def model_sees(chat: Chat) -> str:
    """What hosts give to a model of a list: names, descriptions, input schemas."""
    rows = [
        {"name": e["name"], "description": e["description"], "input_schema": e["inputSchema"]}
        for e in chat.tools.values()
    ]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


async def test_the_token_ledger_holds(tmp_path: Path) -> None:
    async with clinic(tmp_path) as world, chatting(world, TEXT_ONLY) as chat:
        ledger = {
            "list": estimate_tokens(model_sees(chat)),
            "error": max(
                [
                    estimate_tokens(await chat.call("clinic_search_patients", famly="Solo", limit=500)),
                    estimate_tokens(await chat.call("clinic_get_patient", id="998")),
                    estimate_tokens(await chat.call("get_result", result_id="r_gone")),
                ]
            ),
            "cut line": estimate_tokens((await chat.call("clinic_list_audit_events")).splitlines()[0]),
            "instructions": estimate_tokens(await world.app.toolbox.instructions(world.owner)),
        }
    budget = {"list": 1600, "error": 120, "cut line": 90, "instructions": 350}
    assert ledger.keys() == budget.keys()
    assert all(0 < ledger[name] <= budget[name] for name in budget), ledger


async def test_the_tools_of_a_manager_fit_a_budget_too(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world, chatting(world, TEXT_ONLY, "owner") as chat:
        assert estimate_tokens(model_sees(chat)) <= 5000
