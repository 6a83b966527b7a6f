"""The official MCP conformance suite's client scenarios against the gateway as a client of MCP servers."""

import asyncio
import itertools
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from server.listening import bind
from tests.nodetools import node_env
from tests.world import World, gateway
from tools.call import CallContext

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.node]
DRIVER = Path(__file__).parent / "driver.py"
PLAYED = (
    "initialize",
    "tools_call",
    "sse-retry",
    "http-standard-headers",
    "http-custom-headers",
    "http-invalid-tool-headers",
    "json-schema-ref-no-deref",
    "json-schema-2020-12-preservation",
    "sep-2322-client-request-state",
)
PARTLY = {
    # A server that lists the version it has just refused: tried again as an older server, not with the same version.
    "request-metadata": "ClientRetrySupportedVersion",
}
_NO_PERSON = (
    "a person signs in with a browser and the client registers itself; the gateway signs with what an operator gave it"
)
LEFT_OUT = {
    "elicitation-sep1034-client-defaults": "its server asks beside the stream of the call",
    "auth/client-credentials-jwt": "the token endpoint is found by metadata; the gateway is given token_url (tests/test_credentials_*)",
    "auth/client-credentials-basic": "the token endpoint is found by metadata; the gateway is given token_url",
    "auth/wif-jwt-bearer": "the token endpoint is found by metadata; the gateway is given token_url",
    "auth/enterprise-managed-authorization": _NO_PERSON,
    "auth/dpop": "no auth type of the contract has proof of possession",
    "auth/dpop-nonce": "no auth type of the contract has proof of possession",
    "sep-2640-": "skills are resources, of which only pages of MCP Apps are passed on",
    "auth/": _NO_PERSON,
}


def sample(schema: dict[str, Any]) -> Any:
    """A value that fits the simple schemas of the suite."""
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    match schema.get("type"):
        case "object":
            required = schema.get("required", list(schema.get("properties", {})))
            return {name: sample(schema["properties"][name]) for name in required}
        case "integer" | "number":
            return 5
        case "boolean":
            return True
        case "array":
            return []
        case _:
            return schema.get("enum", ["us-west1"])[0]


class Agrees:
    """The user at a client that fills in what a form proposes."""

    asks_now, answers, state = True, None, None

    async def ask(self, message: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        return {"action": "accept", "content": sample({**schema, "required": list(schema["properties"])})}


async def play(world: World, scenario: str, url: str, context: dict[str, Any]) -> None:
    """Connects the gateway to the suite's server and calls what it shows."""
    body = {"name": "up", "display_name": "Up", "protocol": "mcp", "mcp_transport": "http", "mcp_url": url}
    await world.create(body)
    page, _ = await world.app.toolbox.page(world.owner, None)
    shown = [e for e in page if e["name"].startswith("up_")]
    calls = [(e["name"], sample(e["inputSchema"])) for e in shown]
    if scenario == "json-schema-2020-12-preservation":  # it asks what the client made of a schema
        kept = (await world.app.registry.get("acme", "up")).upstream_tools
        assert kept is not None
        schema = next(t["inputSchema"] for t in kept.tools if t["name"] == "json_schema_2020_12_tool")
        calls = [("up_json_schema_echo", {"schema": schema})]
    elif "toolCalls" in context:
        calls = [(f"up_{c['name']}", c["arguments"]) for c in context["toolCalls"]]
    for name, arguments in calls:
        await world.app.toolbox.call(world.owner, name, arguments, CallContext(user=Agrees()))


async def suite(home: Path, scenario: str) -> tuple[int, str]:
    """(exit code, what it printed)"""
    tools = node_env()
    failed: list[BaseException] = []

    async def driven(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(await reader.readline())
        try:
            async with gateway(home) as world:
                await play(world, scenario, asked["url"], json.loads(asked["MCP_CONFORMANCE_CONTEXT"] or "{}"))
            writer.write(b"1")
        except Exception as e:
            failed.append(e)
        finally:
            writer.close()

    sock = bind("127.0.0.1", 0)
    async with await asyncio.start_server(driven, sock=sock):
        command = f"{sys.executable} {DRIVER} {sock.getsockname()[1]}"
        arguments = ("client", "--command", command, "--scenario", scenario, "--output-dir", str(home / "results"))
        done = await to_thread.run_sync(partial(tools.run, tools.conformance, *arguments, timeout=120))
    if failed:
        raise failed[0]
    return done.returncode, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize("scenario", PLAYED)
async def test_the_gateway_is_a_client_as_the_suite_wants_it(tmp_path: Path, scenario: str) -> None:
    code, said = await suite(tmp_path, scenario)
    assert code == 0, said


@pytest.mark.parametrize(("scenario", "check"), PARTLY.items())
async def test_of_these_scenarios_only_one_check_is_not_met(tmp_path: Path, scenario: str, check: str) -> None:
    code, said = await suite(tmp_path, scenario)
    assert code != 0
    assert " 0 failed, 1 warnings" in said, said
    assert check in said


def test_each_scenario_of_the_suite_is_played_or_left_out_with_a_reason() -> None:
    tools = node_env()
    listed = tools.run(tools.conformance, "list").stdout.partition("Client scenarios")[2]
    rows = itertools.takewhile(lambda line: line.strip().startswith("- "), listed.splitlines()[1:])
    names = [line.split()[1] for line in rows]
    assert {*PLAYED, *PARTLY} <= set(names)
    unexplained = [n for n in names if n not in (*PLAYED, *PARTLY) and not n.startswith(tuple(LEFT_OUT))]
    assert unexplained == []
    assert len(names) > 40
