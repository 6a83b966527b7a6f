"""`integrations-mcp demo`: what it prints is true, parses, and works as it stands."""

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.nodetools import node_env
from tests.processes import SCRIPT, Running, environment, run, running

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PATIENT = "Leia Solo"
"""In the clinic's records, and in the answer to the call that the demo gives as its example."""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a running demo printed for each host: heading to text."""
    with running(tmp_path_factory.mktemp("home"), "demo", "--port", "0") as process:
        lines: list[str] = []
        while (line := process.line()) and not line.startswith("Ctrl-C"):
            lines.append(line.rstrip("\n"))
        assert line, lines
        text = "\n".join(lines)
        told = text[text.index("Running. Connect your own assistant:") :]
        blocks = [block.partition("\n") for block in told.split("\n\n")]
        yield {"all": text} | {heading.split(":")[0]: body for heading, _, body in blocks}


async def listed(url: str, headers: dict[str, str]) -> list[str]:
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=False) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        return [t.name for t in (await client.list_tools()).tools]


def test_every_stage_of_the_calls_is_shown_before(printed: dict[str, str]) -> None:
    shown = printed["all"]
    for call in (
        "clinic_search_patients",
        "clinic_book_appointment",
        "clinic_daily_report",
        "clinic_cancel_appointment",
    ):
        assert call in shown
    assert PATIENT in shown
    assert "demo-clinic-key" not in shown


@pytest.mark.parametrize(("host", "servers"), [("Cursor", "mcpServers"), ("VS Code", "servers")])
async def test_a_file_for_a_host_leads_to_the_tools(printed: dict[str, str], host: str, servers: str) -> None:
    (server,) = json.loads(printed[host])[servers].values()
    assert "clinic_get_patient" in await listed(server["url"], server["headers"])


async def test_the_line_for_claude_code_leads_to_the_tools(printed: dict[str, str]) -> None:
    command = shlex.split(printed["Claude Code"])
    assert command[:6] == ["claude", "mcp", "add", "--transport", "http", "--header"]
    header, name, url = command[6:]
    assert name == "gateway"
    field, _, value = header.partition(": ")
    assert "clinic_get_patient" in await listed(url, {field: value})


async def test_the_file_for_claude_desktop_starts_with_nothing_on_path(printed: dict[str, str], tmp_path: Path) -> None:
    (server,) = json.loads(printed["Claude Desktop"])["mcpServers"].values()
    assert server["command"] == str(SCRIPT)
    parameters = StdioServerParameters(**server, env={**environment(tmp_path), "PATH": "/usr/bin:/bin"})
    async with Client(stdio_client(parameters), mode="legacy") as client:
        result: Any = await client.call_tool("clinic_search_patients", {"family": "Solo"})
    assert PATIENT in result.content[0].text


def test_the_curl_line_works_as_printed(printed: dict[str, str]) -> None:
    done = subprocess.run(printed["curl"], shell=True, capture_output=True, text=True, timeout=30, check=True)
    assert PATIENT in json.loads(done.stdout)["result"]["content"][0]["text"]


@pytest.mark.node
def test_the_inspector_line_works_as_printed(printed: dict[str, str]) -> None:
    tools = node_env()
    line = printed["MCP Inspector"]
    done = subprocess.run(
        line,
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tools.root,
        env=tools.environment(),
    )
    assert done.returncode == 0, done.stderr
    assert "clinic_get_patient" in [t["name"] for t in json.loads(done.stdout)["tools"]]


async def test_json_is_one_line_with_what_scripts_need(tmp_path: Path) -> None:
    with running(tmp_path, "demo", "--json", "--port", "0") as process:
        said = process.json_line()
        assert set(said) == {"mcp_url", "sse_url", "rest_url", "workspace_id", "api_key", "example"}
        headers = {"Authorization": f"Bearer {said['api_key']}"}
        async with httpx2.AsyncClient(headers=headers, trust_env=False, timeout=30) as client:
            shown = await client.get(f"{said['rest_url']}/{said['workspace_id']}/integrations")
            assert [i["name"] for i in shown.json()["items"]] == ["clinic"]
            async with Client(streamable_http_client(said["mcp_url"], http_client=client)) as mcp:
                result: Any = await mcp.call_tool(said["example"]["tool"], said["example"]["arguments"])
        assert PATIENT in result.content[0].text
        process.send()
        out, err = process.rest()
    assert (process.process.returncode, out) == (0, "")
    assert "Traceback" not in err


def test_a_demo_in_use_is_not_disturbed_by_a_second_one(tmp_path: Path) -> None:
    with running(tmp_path, "demo", "--json", "--port", "0") as first:
        said = first.json_line()
        second = run(tmp_path, "demo", "--json", "--port", "0", "--once")
        assert second.returncode == 0
        params = {"name": said["example"]["tool"], "arguments": said["example"]["arguments"]}
        headers = {
            "Authorization": f"Bearer {said['api_key']}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/call",
            "Mcp-Name": params["name"],
        }
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {**params, "_meta": meta}}
        answer = httpx2.post(said["mcp_url"], json=body, headers=headers, trust_env=False, timeout=30)
    assert PATIENT in answer.json()["result"]["content"][0]["text"]


def test_a_demo_can_be_run_again(tmp_path: Path) -> None:
    for _ in range(2):
        done = run(tmp_path, "demo", "--once", "--port", "0")
        assert done.returncode == 0, done.stderr
        assert PATIENT in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]


@pytest.mark.parametrize(("chosen", "logged"), [({}, False), ({"INTEGRATIONS_MCP_LOG_LEVEL": "info"}, True)])
def test_what_is_shown_already_is_logged_only_when_that_was_chosen(
    tmp_path: Path, chosen: dict[str, str], logged: bool
) -> None:
    done = run(tmp_path, "demo", "--once", "--port", "0", env=chosen)
    assert "[invalid_arguments]" in done.stdout
    assert ("call failed" in done.stderr) is logged


def told(done: subprocess.CompletedProcess[str], *, as_json: bool) -> str:
    """The one sentence of a command that failed: on stderr, and with --json as JSON on stdout."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    if as_json:
        return json.loads(done.stdout)["detail"]
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    return line.removeprefix("integrations-mcp: ")


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_taken_port_is_told_with_what_to_do(tmp_path: Path, flags: list[str]) -> None:
    with running(tmp_path, "demo", "--json", "--port", "0") as first:
        port = str(httpx2.URL(first.json_line()["mcp_url"]).port)
        second = run(tmp_path, "demo", "--port", port, *flags)
    what = f"port {port} on 127.0.0.1 is taken: choose another with --port, or 0 for a free one"
    assert told(second, as_json=bool(flags)) == what


@pytest.mark.parametrize("command", [["demo", "--port", "0"], ["demo", "--json", "--port", "0"], ["stdio", "--demo"]])
@pytest.mark.parametrize("place", ["file/inside", "/proc/nowhere"])
def test_a_home_that_cannot_be_written_to_is_told_with_what_to_do(
    tmp_path: Path, command: list[str], place: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    home = tmp_path / place
    what = told(run(tmp_path, *command, env={"INTEGRATIONS_MCP_HOME": str(home)}), as_json="--json" in command)
    assert what.startswith(f"can't write to {home}/demo (")
    assert what.endswith("set INTEGRATIONS_MCP_HOME to a folder that you may write to")


@pytest.mark.parametrize("arguments", [["stdio"], ["stdio", "--demo"]])
async def test_stdio_ends_with_its_input_and_when_asked_to(tmp_path: Path, arguments: list[str]) -> None:
    ping = '{"jsonrpc":"2.0","id":1,"method":"ping"}\n'
    for end, codes in ((Running.end_input, (0,)), (Running.send, (0, -15))):
        with running(tmp_path, *arguments) as process:
            process.write(ping)
            assert process.json_line()["id"] == 1
            end(process)
            assert process.end() in codes
