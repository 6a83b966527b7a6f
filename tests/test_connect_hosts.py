"""`connect HOST`: what is written keeps the rest of the file, parses, and starts as written."""

import json
import os
import shlex
import tomllib
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import yaml
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from server.host_files import HOST_FILES, HostFile, Target
from server.host_merge import HostFileError, entry_in, merged, write_entry
from tests.nodetools import node_env
from tests.processes import SCRIPT, run
from tests.test_connect_bridge import shop

pytestmark = pytest.mark.anyio
HOSTS = {host.name: host for host in HOST_FILES}
URL = Target("/opt/gw/integrations-mcp", "https://gw.example.com/mcp", "the-key")
LOCAL = Target("/opt/gw/integrations-mcp", environment={"INTEGRATIONS_MCP_HOME": "/data/gw"})
EXISTING = {
    "json": '{"theme": "dark", "SECTION": {"other": {"command": "x"}, "gateway": {"command": "old"}}}',
    "toml": '# mine\nmodel = "o9"\n\n[SECTION.gateway]\ncommand = "old"\n[SECTION.gateway.env]\nA = "1"\n\n'
    '[SECTION.other]\ncommand = "x"  # keep\n',
    "yaml": '# mine\nmodel: o9\nSECTION:\n    # the old one\n    gateway:\n        cmd: old\n        envs: {A: "1"}\n'
    "    other:\n        cmd: x  # keep\ntail: 1\n",
}


def parse(host: HostFile, text: str) -> Any:
    return {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}[host.format](text)


@pytest.mark.parametrize("target", [URL, LOCAL], ids=["url", "stdio"])
@pytest.mark.parametrize("name", HOSTS)
def test_our_entry_replaces_an_old_one_and_the_rest_stays(name: str, target: Target) -> None:
    host = HOSTS[name]
    before = EXISTING[host.format].replace("SECTION", host.section)
    after = merged(host, target, before)
    expected = parse(host, before)
    expected[host.section]["gateway"] = host.entry(target)
    assert {k: v for k, v in parse(host, after).items() if k != "inputs"} == expected
    if host.format != "json":
        assert "# mine" in after
        assert "# keep" in after
    assert merged(host, target, after) == after


@pytest.mark.parametrize(
    "before", ["", "a: 1\n", "a: 1", "extensions:\n", "extensions:\n  b:\n    cmd: x\n", "extensions: {}\n"]
)
def test_a_yaml_file_takes_the_entry_wherever_its_section_is(before: str) -> None:
    host = HOSTS["goose"]
    data = yaml.safe_load(before) or {}
    after = yaml.safe_load(merged(host, URL, before))
    assert after == {**data, "extensions": {**(data.get("extensions") or {}), "gateway": host.entry(URL)}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cursor", "{"),
        ("zed", '// comments are not JSON\n{"context_servers": {}}'),
        ("cursor", "[]"),
        ("cursor", '{"mcpServers": []}'),
        ("codex", "a = = 1"),
        ("codex", "mcp_servers = {other = {command = 'x'}}"),
        ("goose", "a: ["),
        ("goose", "extensions: {b: {cmd: x}}"),
    ],
)
def test_a_file_that_cannot_be_changed_safely_is_left_alone(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(HostFileError, match="by hand"):
        write_entry(HOSTS[name], URL, path)
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_has_a_backup_and_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "claude_desktop_config.json"
    assert write_entry(HOSTS["claude-desktop"], URL, path) is None
    first = path.read_text()
    backup = write_entry(HOSTS["claude-desktop"], LOCAL, path)
    assert backup is not None
    assert backup.read_text() == first
    assert path.stat().st_mode & 0o777 == backup.stat().st_mode & 0o777 == 0o600
    assert entry_in(HOSTS["claude-desktop"], path.read_text()) == HOSTS["claude-desktop"].entry(LOCAL)


@pytest.mark.parametrize("name", HOSTS)
def test_only_hosts_that_can_do_no_better_get_the_key_itself(name: str) -> None:
    assert ("the-key" in merged(HOSTS[name], URL, "")) == HOSTS[name].holds_key


def commands() -> list[str]:
    return [name for name, host in HOSTS.items() if "command" in host.entry(LOCAL) or "cmd" in host.entry(LOCAL)]


@pytest.mark.parametrize("name", commands())
async def test_what_is_written_for_a_host_that_starts_us_is_started_and_lists_the_tools(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "host-file"
    done = run(tmp_path, "connect", name, "--write", "--file", str(path))
    assert done.returncode == 0, done.stderr
    entry = entry_in(HOSTS[name], path.read_text())
    assert entry is not None
    command, env = entry.get("command") or entry["cmd"], entry.get("env") or entry.get("envs")
    # A desktop host: no PATH of ours, its own working directory.
    started = StdioServerParameters(
        command=command, args=entry["args"], env={"PATH": "/usr/bin", "HOME": str(tmp_path), **env}, cwd="/"
    )
    with anyio.fail_after(40):
        async with Client(stdio_client(started)) as mcp:
            assert "list_integrations" in [t.name for t in (await mcp.list_tools()).tools]


@pytest.mark.parametrize("name", ["claude-desktop", "zed"])
async def test_a_host_that_only_starts_commands_reaches_a_server_through_the_bridge(tmp_path: Path, name: str) -> None:
    path = tmp_path / "host-file"
    async with shop(tmp_path / "gw") as (url, key):
        settings = {"INTEGRATIONS_MCP_API_KEY": key, "INTEGRATIONS_MCP_URL": url}
        done = await anyio.to_thread.run_sync(
            lambda: run(tmp_path, "connect", name, "--write", "--file", str(path), env=settings)
        )
        assert done.returncode == 0, done.stderr
        assert key not in done.stdout + done.stderr
        entry = entry_in(HOSTS[name], path.read_text())
        assert entry is not None
        started = StdioServerParameters(command=entry["command"], args=entry["args"], env=entry["env"], cwd="/")
        with anyio.fail_after(40):
            async with Client(stdio_client(started)) as mcp:
                assert "shop_get_item" in [t.name for t in (await mcp.list_tools()).tools]


def http_hosts() -> list[str]:
    return [name for name, host in HOSTS.items() if {"url", "serverUrl", "uri"} & set(host.entry(URL))]


@pytest.mark.parametrize("name", http_hosts())
async def test_what_is_written_for_a_host_that_speaks_http_lists_the_tools_with_its_headers(
    tmp_path: Path, name: str
) -> None:
    async with shop(tmp_path) as (url, key):
        host = HOSTS[name]
        entry = host.entry(Target(str(SCRIPT), f"{url}/mcp", key))
        # What each host puts in place of its references.
        headers = {
            k: v.replace("${INTEGRATIONS_MCP_API_KEY}", key)
            .replace("${env:INTEGRATIONS_MCP_API_KEY}", key)
            .replace("${input:gw-key}", key)
            for k, v in entry.get("headers", {}).items()
        }
        if (variable := entry.get("bearer_token_env_var")) is not None:
            headers = {"Authorization": f"Bearer {({'INTEGRATIONS_MCP_API_KEY': key})[variable]}"}
        where = entry.get("url") or entry.get("serverUrl") or entry["uri"]
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False) as client,
            Client(streamable_http_client(where, http_client=client)) as mcp,
        ):
            assert "shop_get_item" in [t.name for t in (await mcp.list_tools()).tools]


@pytest.mark.node
async def test_the_line_for_the_inspector_lists_the_tools_as_printed(tmp_path: Path) -> None:
    node = await anyio.to_thread.run_sync(node_env)
    async with shop(tmp_path) as (url, key):
        settings = {"INTEGRATIONS_MCP_API_KEY": key, "INTEGRATIONS_MCP_URL": url}
        printed = await anyio.to_thread.run_sync(lambda: run(tmp_path, "connect", "inspector", env=settings))
        # What the shell puts in place of the variable; npx finds the package that is installed here.
        npx, package, *words = shlex.split(printed.stdout.replace("$INTEGRATIONS_MCP_API_KEY", key))
        assert (npx, package) == ("npx", "@modelcontextprotocol/inspector")
        done = await anyio.to_thread.run_sync(lambda: node.run(node.inspector, *words))
    assert "shop_get_item" in [t["name"] for t in json.loads(done.stdout)["tools"]], done.stderr


def test_an_unknown_host_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    done = run(tmp_path, "connect", "claud-desktop")
    assert done.returncode == 2
    assert "did you mean claude-desktop" in done.stderr


def test_the_key_is_needed_where_the_file_must_hold_it(tmp_path: Path) -> None:
    done = run(tmp_path, "connect", "claude-desktop", "--url", "https://gw.example.com", "--write")
    assert done.returncode == 2
    assert "INTEGRATIONS_MCP_API_KEY" in done.stderr
    assert not any(name.endswith(".json") for name in os.listdir(tmp_path))
