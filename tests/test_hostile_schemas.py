"""A workspace of 200 hostile schemas: four clients list it and call every tool, and what was meant arrives under its stored name."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.four_clients import CLIENTS, list_and_call
from tests.hostile_schemas import HOSTILE, SHAPES
from tests.nodetools import node_env
from tests.oldworld import judged
from tests.provider_rules import anthropic_refuses, gemini_refuses, openai_refuses
from tests.upstreams import Hostile
from tests.world import World, gateway, served
from tools.published import publish
from tools.schemas import check_schema

pytestmark = pytest.mark.anyio


def tool(name: str) -> str:
    return f"odd_{name}"


def renamed(value: Any, aliases: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {aliases.get(k, k): renamed(v, aliases) for k, v in value.items()}
    return [renamed(v, aliases) for v in value] if isinstance(value, list) else value


GIVEN = {n: renamed(row.written, publish(row.schema).aliases) for n, row in HOSTILE.items()}
"""What a model writes: by published names."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def upstream() -> AsyncGenerator[Hostile]:
    async with Hostile() as server:
        yield server


@pytest.fixture(scope="module")
async def world(upstream: Hostile, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    endpoints = [
        {
            "name": name,
            "description": f"Takes what {name} says.",
            "method": "POST",
            "path": f"/{name}",
            "input_schema": row.schema,
        }
        for name, row in HOSTILE.items()
    ]
    async with gateway(tmp_path_factory.mktemp("home"), tool_name_max=64) as world:
        await world.create({"name": "odd", "display_name": "Hostile", "base_url": upstream.url, "endpoints": endpoints})
        yield world


@pytest.fixture(scope="module")
async def listed(world: World) -> dict[str, Any]:
    """The published schemas by tool name."""
    page, _ = await world.app.toolbox.page(world.owner, None)
    return {entry["name"]: entry["inputSchema"] for entry in page if entry["name"].startswith("odd_")}


def test_the_workspace_is_as_hostile_as_it_says() -> None:
    assert len(HOSTILE) >= 200
    for name, row in SHAPES.items():
        plain = {"type": "object", "properties": {"p": row.schema}, **({"$defs": row.defs} if row.defs else {})}
        assert check_schema(plain) == []
        assert publish(plain).schema != plain, f"{name} is published as it stands: nothing is tested"


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
async def test_every_client_lists_them_all_and_what_was_meant_arrives_under_its_stored_name(
    world: World, upstream: Hostile, listed: dict[str, Any], tmp_path: Path, client: str
) -> None:
    async with served(world) as url:
        upstream.received.clear()
        calls = [(tool(name), GIVEN[name]) for name in HOSTILE]
        seen = await list_and_call(client, url, await world.key("agent"), calls, tmp_path)
    shown = {t["name"]: t["inputSchema"] for t in seen["tools"]}
    assert {name: shown.get(name) for name in listed} == listed
    refused = {n: r["content"][0]["text"] for n, r in zip(HOSTILE, seen["results"], strict=True) if r.get("isError")}
    assert refused == {}
    assert {r.path[1:]: json.loads(r.body) for r in upstream.received} == {n: row.sent for n, row in HOSTILE.items()}


async def test_what_a_model_writes_fits_what_it_was_shown(listed: dict[str, Any]) -> None:
    for name, given in GIVEN.items():
        jsonschema.validate(given, listed[tool(name)], cls=jsonschema.Draft202012Validator)
        jsonschema.validate(given, listed[tool(name)], cls=jsonschema.Draft7Validator)


async def test_every_provider_takes_every_one(listed: dict[str, Any]) -> None:
    for checker in (openai_refuses, anthropic_refuses, gemini_refuses):
        assert {n: said for n, schema in listed.items() if (said := checker(schema))} == {}


async def test_the_stored_ones_would_not_have_been_taken() -> None:
    """A checker that refuses nothing would prove nothing."""
    for checker in (openai_refuses, anthropic_refuses, gemini_refuses):
        refused = [n for n, row in HOSTILE.items() if checker({"type": "object", "properties": {}, **row.schema})]
        assert len(refused) > 50, checker


@pytest.mark.node
@pytest.mark.slow
async def test_ajv_compiles_every_one_strict_or_not(listed: dict[str, Any]) -> None:
    node = await asyncio.to_thread(node_env)
    done = await asyncio.to_thread(
        lambda: node.run(node.script("compile_schemas.mjs"), stdin=json.dumps(listed), timeout=120)
    )
    assert json.loads(done.stdout) == {}, done.stderr


@pytest.mark.slow
async def test_the_converters_of_the_providers_sdks_take_every_one(listed: dict[str, Any]) -> None:
    assert await asyncio.to_thread(judged, listed) == {}
    assert await asyncio.to_thread(judged, {"odd": {"type": "object", "properties": {"a": {"const": 1}}}})
