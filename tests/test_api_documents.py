"""The documents of Kubernetes, Twilio and Figma become tools that every provider takes, and that four clients list and call."""

import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from tests.api_documents import DOCUMENTS, MEASURED
from tests.four_clients import CLIENTS, list_and_call
from tests.provider_rules import anthropic_refuses, gemini_refuses, openai_refuses
from tests.upstreams import Hostile
from tests.world import World, gateway, served
from tools.importers.frame import Source
from tools.importers.reading import read_source
from tools.published import publish
from tools.tool import Tool

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.node]
FIGURES = Path(__file__).parent.parent / "docs" / "importing.md"
MOST_ENDPOINTS = 1000
SAMPLED = 20
"""Tools of each document that each client calls, spread over all of them."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def sources() -> dict[str, Source]:
    return {name: read_source(document.read(), document.member) for name, document in DOCUMENTS.items()}


@pytest.fixture(scope="module")
async def upstream() -> AsyncGenerator[Hostile]:
    async with Hostile() as server:
        yield server


@pytest.fixture(scope="module")
async def world(
    upstream: Hostile, sources: dict[str, Source], tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[World]:
    """One integration a document; Kubernetes has more operations than one may hold."""
    async with gateway(tmp_path_factory.mktemp("home")) as world:
        for name, source in sources.items():
            endpoints = [c.endpoint.model_dump(mode="json", exclude_unset=True) for c in source.candidates]
            for i in range(0, len(endpoints), MOST_ENDPOINTS):
                some = endpoints[i : i + MOST_ENDPOINTS]
                body = {
                    "name": f"{name}{i or ''}",
                    "display_name": name.title(),
                    "base_url": upstream.url,
                    "endpoints": some,
                }
                await world.create(body)
        yield world


@pytest.fixture(scope="module")
async def tools(world: World) -> dict[str, Tool]:
    """By name, in the list's order."""
    return dict((await world.app.catalogs.get("acme")).tools)


@pytest.fixture(scope="module")
async def distinct(schemas: dict[str, Any]) -> dict[str, Any]:
    """Schemas that many operations share, once."""
    return {name: schemas[name] for name in {json.dumps(schema): name for name, schema in schemas.items()}.values()}


@pytest.fixture(scope="module")
async def schemas(tools: dict[str, Tool]) -> dict[str, Any]:
    return {name: tool.published.schema for name, tool in tools.items()}


def figures() -> dict[str, list[str]]:
    """The rows of the table of docs/importing.md: version, operations, fit, tokens a tool and so on, by the first word."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in FIGURES.read_text("utf-8").splitlines()]
    return {row[0].split()[0].lower(): row[1:] for row in rows if len(row) == 7 and row[0]}


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


@pytest.mark.parametrize("name", MEASURED)
def test_the_figures_of_the_docs_are_what_is_measured(name: str, sources: dict[str, Source]) -> None:
    document, (_, operations, fit, tokens, *_) = MEASURED[name], figures()[name]
    source = sources[name] if name in sources else read_source(document.read(), document.member)
    made = source.candidates
    distinct = {json.dumps(schema): schema for schema in (publish(c.endpoint.input_schema).schema for c in made)}
    for refuses in (openai_refuses, anthropic_refuses, gemini_refuses):
        assert [said for schema in distinct.values() if (said := refuses(schema))] == []
    assert len(made) == number(fit)
    left = [row for row in source.left_out if re.match("[A-Z]+ /", row.key)]
    assert number(operations) == len(made) + len(left), source.left_out
    assert abs(round(sum(c.tokens for c in made) / len(made)) - number(tokens)) <= number(tokens) // 20


def test_the_last_row_of_the_docs_is_the_sum_of_the_others() -> None:
    rows = figures()
    total, each = rows.pop("all"), [rows[name] for name in MEASURED]
    assert len(each) == 9
    for column in (1, 2, 4, 5):
        numbers = [number(row[column]) for row in each if row[column] != "refused"]
        assert number(total[column].partition(" ")[0]) == sum(numbers)


async def test_no_provider_rejects_a_tool(schemas: dict[str, Any], distinct: dict[str, Any]) -> None:
    assert len(schemas) == 1253
    assert all(re.fullmatch("[a-zA-Z0-9_-]{1,48}", name) for name in schemas)
    for checker in (openai_refuses, anthropic_refuses, gemini_refuses):
        assert {n: said for n, schema in distinct.items() if (said := checker(schema))} == {}


def least(schema: dict[str, Any]) -> Any:
    """The least that fits a published schema."""
    if "anyOf" in schema:
        return least(schema["anyOf"][0])
    match schema["type"]:
        case "string" if hexadecimal := re.fullmatch(
            r"\^\(?([A-Z]{2})[A-Z|]*\)?\[0-9a-fA-F\]\{32\}\$", schema.get("pattern", "")
        ):
            return hexadecimal[1] + "0" * 32
        case "string":
            dated = "2024-05-31T14:30:00Z" if schema.get("format") == "date-time" else "a"
            return schema["enum"][0] if "enum" in schema else dated.ljust(schema.get("minLength", 0), "a")
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "array":
            return [least(schema["items"])] * schema.get("minItems", 1)
        case _:
            return {name: least(schema["properties"][name]) for name in schema.get("required", ())}


def sample(tools: dict[str, Tool]) -> dict[str, Tool]:
    chosen: dict[str, Tool] = {}
    for document in DOCUMENTS:
        own = [(n, t) for n, t in tools.items() if n.startswith(document)]
        chosen.update(own[:: max(len(own) // SAMPLED, 1)][:SAMPLED])
    return chosen


def arrives_at(tool: Tool) -> str:
    return re.sub(r"\\\{[^{}]+\\\}", "[^/?]+", re.escape(f"{tool.endpoint.method} {tool.endpoint.path}"))


@pytest.mark.parametrize("client", CLIENTS)
async def test_every_client_lists_them_all_and_what_it_calls_arrives(
    world: World, upstream: Hostile, tools: dict[str, Tool], schemas: dict[str, Any], tmp_path: Path, client: str
) -> None:
    chosen = sample(tools)
    upstream.received.clear()
    async with served(world) as url:
        calls = [(name, least(schemas[name])) for name in chosen]
        seen = await list_and_call(client, url, await world.key("agent"), calls, tmp_path)
    shown = {t["name"]: t["inputSchema"] for t in seen["tools"]}
    assert {n: s for n, s in schemas.items() if shown.get(n) != s} == {}
    refused = {n: r["content"][0]["text"] for n, r in zip(chosen, seen["results"], strict=True) if r.get("isError")}
    assert refused == {}
    arrived = [f"{r.method} {r.path}" for r in upstream.received]
    assert len(arrived) == len(chosen) == SAMPLED * len(DOCUMENTS)
    assert [a for a, t in zip(arrived, chosen.values(), strict=True) if not re.fullmatch(arrives_at(t), a)] == []
