"""A canary secret is nowhere in clear, in any of its spellings: answers, errors, logs, the database, the CLI (rules A6, I1)."""

import base64
import gzip
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from server.telemetry import _Lines  # pyright: ignore[reportPrivateUsage]
from tests.upstreams import Hostile, Step, answer, redirect
from tests.world import World, gateway, http, served
from tools import explain as explaining
from tools.errors import InvalidRequest

pytestmark = pytest.mark.anyio
CANARY = 'Canary/7+x"9&%=y\\z 3'
HEADER_CANARY = "header-canary-5d0c/+=&"


def spellings(secret: str) -> Iterator[str]:
    """What must not be found anywhere."""
    yield secret
    yield quote(secret, safe="")
    yield quote(secret, safe="").replace("%2F", "%2f").replace("%2B", "%2b")
    yield quote_plus(secret)
    yield quote(secret, safe="!'()*~")
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret)[1:-1].replace("/", "\\/")
    for lead in ("", "client-1:", "client-12:", "client-123:"):
        whole = base64.b64encode((lead + secret).encode()).decode()
        yield whole[(len(lead) + 2) // 3 * 4 : -4]
        yield whole[(len(lead) + 2) // 3 * 4 : -4].replace("+", "-").replace("/", "_")
    yield "".join(f"\\u{ord(c):04x}" for c in secret)


def assert_hidden(what: str, text: str | bytes) -> None:
    for secret in (CANARY, HEADER_CANARY):
        for spelling in spellings(secret):
            found = spelling in text if isinstance(text, str) else spelling.encode() in text
            assert not found, f"{what}: {spelling!r}"


def echoes(secret: str) -> dict[str, Step]:
    """Answers that give the credential back, each in another way (rules J6)."""
    kinds = {"Content-Type": "application/json"}
    every = {
        "plain": secret,
        "quoted": quote(secret, safe=""),
        "plus": quote_plus(secret),
        "js": quote(secret, safe="!'()*~"),
    }
    every["basic"] = base64.b64encode(f"client-1:{secret}".encode()).decode()
    every["basic2"] = base64.urlsafe_b64encode(f"client-12:{secret}".encode()).decode()
    body = json.dumps({**every, "error": {"message": f"bad key {secret}"}}).encode()
    escaped = b'{"a": "%s"}' % "".join(f"\\u{ord(c):04x}" for c in secret).encode()
    return {
        "/json": answer(200, body, kinds),
        "/slashes": answer(200, body.replace(b"/", b"\\/"), kinds),
        "/unicode": answer(200, escaped, kinds),
        "/text": answer(200, secret.encode(), {"Content-Type": "text/plain"}),
        "/utf16le": answer(200, secret.encode("utf-16-le"), {"Content-Type": "text/plain; charset=utf-16le"}),
        "/jis": answer(
            200,
            secret[:4].encode() + b"\x1b(B" + secret[4:].encode(),
            {"Content-Type": "text/plain; charset=iso-2022-jp"},
        ),
        "/utf16": answer(200, secret.encode("utf-16"), {"Content-Type": "text/plain; charset=utf-16"}),
        "/gzip": answer(200, gzip.compress(body), {**kinds, "Content-Encoding": "gzip"}),
        "/halves": answer(200, json.dumps({"a": secret[:9], "b": secret[9:]}).encode(), kinds),
        "/404": answer(404, body, kinds),
        "/401": answer(401, body, {**kinds, "WWW-Authenticate": f'Bearer error="{quote(secret)}"'}),
        "/500": answer(500, b"x" * 1990 + secret.encode(), {"Content-Type": "text/plain"}),
        "/notjson": answer(200, b"{" + secret.encode(), kinds),
        "/redirect": redirect(302, f"ftp://x.example/{quote(secret, safe='')}?k={quote(secret, safe='')}"),
        "/long": answer(200, json.dumps([{"k": secret, "n": n} for n in range(500)]).encode(), kinds),
    }


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as server:
        for path, step in echoes(CANARY).items():
            server.script(path, step)
        for path, step in echoes(HEADER_CANARY).items():
            server.script("/header" + path, step)
        yield server


async def test_no_log_trace_or_figure_holds_it(
    tmp_path: Path, upstream: Hostile, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As `set_up_logs("debug")` has it: libraries stay at warnings.
    caplog.set_level(logging.WARNING)
    caplog.set_level(logging.DEBUG, "integrations_mcp")
    async with Hostile() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        async with gateway(tmp_path, metrics_token="t" * 16) as world:
            row = await world.create(integration(f"{upstream.url}"))
            for endpoint in row.endpoints:
                await world.call(f"sys_{endpoint.name}")
            async with served(world) as url, http(url, "t" * 16) as client:
                page = (await client.get("/metrics")).text
        exported = b"".join(r.body for r in collector.received)
    assert len(upstream.received) >= len(row.endpoints)
    assert b"tools/call" not in exported  # not over a wire
    assert b"execute_tool sys_get_404" in exported
    assert_hidden("trace export and its metrics", exported)
    assert 'code="upstream_4xx"' in page
    assert_hidden("figures", page)
    lines = _Lines(for_people=False)
    said = "\n".join(lines.format(r) + repr(r.__dict__) for r in caplog.records)
    assert '"outcome": "upstream_404"' in said
    assert_hidden("logs at debug", said)


def integration(base_url: str) -> dict[str, Any]:
    paths = list(echoes(""))
    endpoints = [
        {
            "name": f"get_{prefix}{path[1:]}",
            "description": "d",
            "method": "GET",
            "path": ("/header" if prefix else "") + path,
            "headers": {"X-Token": HEADER_CANARY},
            "retry_config": {"max_retries": 0},
            **({"result_template": "{{ a }}{{ b }}"} if path == "/halves" else {}),
            **({"max_result_length": 3000} if path == "/long" else {}),
        }
        for path in paths
        for prefix in ("", "h_")
    ]
    auth = {"type": "api_key_header", "api_key_value": {"value": CANARY}}
    return {"name": "sys", "display_name": "S", "base_url": base_url, "auth": auth, "endpoints": endpoints}


async def test_the_canary_reaches_the_upstream_and_no_one_else(tmp_path: Path, upstream: Hostile) -> None:
    async with gateway(tmp_path) as world:
        row = await world.create(integration(upstream.url))
        assert_hidden("repr of the row's auth", repr(row.auth) + repr(row.bindings))
        shown = world.app.admin.shown(world.owner, row)
        assert_hidden("get", shown.model_dump_json())
        for endpoint in row.endpoints:
            outcome = await world.app.admin.test(world.owner, "sys", endpoint.name, {})
            assert upstream.received[-1].header("x-api-key") == CANARY
            assert upstream.received[-1].header("x-token") == HEADER_CANARY
            masker = outcome.trace.masker
            for what, text in {
                "text": outcome.text,
                "explain": json.dumps(explaining.explain(outcome, masker), default=str),
                "test": explaining.test_response(outcome, masker).model_dump_json(),
                "error": f"{outcome.error!r} {outcome.error}",
            }.items():
                assert_hidden(f"{endpoint.name} {what}", text)
            if outcome.result_id:
                more = await world.app.toolbox.call(
                    world.owner, "get_result", {"result_id": outcome.result_id, "from": 100}
                )
                assert_hidden(f"{endpoint.name} get_result", more.text)
            await kept_answers_hide(world, f"sys_{endpoint.name}")
        health = await world.app.admin.health(world.owner)
        assert_hidden("health", json.dumps(health, default=str))
        await over_http(world)
        await world.app.admin.delete(world.owner, "sys")
        assert_files_hide(tmp_path, after_delete=True)


async def kept_answers_hide(world: World, tool: str) -> None:
    """A test keeps the raw answer as it is before shaping, to which masking comes once more."""
    tested = (await world.app.toolbox.call(world.owner, "test_integration_endpoint", {"tool": tool})).structured
    assert tested is not None
    if (id := tested["result_id"]) is not None:
        kept = await world.app.toolbox.call(world.owner, "get_result", {"result_id": id})
        assert_hidden(f"{tool} kept", kept.text)


async def over_http(world: World) -> None:
    async with served(world) as url, http(url, await world.key("owner")) as client:
        for method, params in (
            ("tools/list", {}),
            ("tools/call", {"name": "sys_get_json", "arguments": {}}),
            ("tools/call", {"name": "sys_get_404", "arguments": {}}),
            ("tools/call", {"name": "get_integration", "arguments": {"integration": "sys"}}),
            ("tools/call", {"name": "test_integration_endpoint", "arguments": {"tool": "sys_get_401", "params": {}}}),
        ):
            message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            accept = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
            got = await client.post("/mcp", json=message, headers=accept)
            assert_hidden(f"{method} {params}", got.text + repr(dict(got.headers)))


def assert_files_hide(home: Path, *, after_delete: bool) -> None:
    files = [file for file in home.iterdir() if file.is_file()]
    assert any(file.name == "registry.db" for file in files)
    for file in files:
        data = file.read_bytes()
        for spelling in spellings(CANARY):
            assert spelling.encode() not in data, f"{file.name} holds the stored secret in clear"
        assert after_delete


@pytest.mark.parametrize(
    "given",
    [
        {"auth": {"type": "api_key_header", "api_key_value": CANARY}},
        {"auth": {"type": "api_key_header", "api_key_value": {"valeu": CANARY}}},
        {"auth": {"type": "nonsense", "api_key_value": {"value": CANARY}}},
        {"auth": {"type": "api_key_header", "api_key_value": {"value": CANARY * 1000}}},
        {"auth": {"type": "api_key_header", "ssm_param_path": "/a/b", "api_key_value": {"value": CANARY}}},
        {"auth": CANARY},
        {"api_key_value": CANARY},
        {"api_key": {"value": CANARY}},
        {"base_url": f"https://user:{CANARY}@api.example"},
        {"mcp_headers": {"X-Key": CANARY + "\n"}},
        {"mcp_env": CANARY},
        {
            "endpoints": [
                {"name": "do", "description": "d", "path": "/x", "headers": {"Authorization": CANARY + "\r\n"}}
            ]
        },
        {"endpoints": [{"name": "do", "description": "d", "path": "/x", "token": CANARY}]},
        {"endpoints": [{"name": "do", "description": "d", "path": "/x", "auth": {"type": "x", "password": CANARY}}]},
    ],
)
async def test_a_refusal_does_not_echo_a_secret(tmp_path: Path, given: dict[str, Any]) -> None:
    async with gateway(tmp_path) as world:
        with pytest.raises(InvalidRequest) as e:
            await world.create({"name": "sys", "display_name": "S", "base_url": "https://api.example", **given})
        assert_hidden("422", str(e.value) + json.dumps([(i.loc, i.msg, i.input) for i in e.value.issues], default=str))


def test_the_cli_and_its_logs_hide_it_at_debug(tmp_path: Path) -> None:
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("INTEGRATIONS_MCP_")},
        "INTEGRATIONS_MCP_HOME": str(tmp_path / "home"),
        "INTEGRATIONS_MCP_ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8",
        "INTEGRATIONS_MCP_LOG_LEVEL": "debug",
    }
    port = 9  # discard: nobody listens, so the call fails after the secret was read
    file = tmp_path / "sys.json"
    file.write_text(json.dumps(integration(f"http://127.0.0.1:{port}")))
    said = b""
    for args in (
        ["load", str(file), "--json"],
        ["tools", "--json"],
        ["call", "sys_get_json", "--explain", "--json"],
        ["call", "sys_get_json", "--explain"],
        ["secrets", "list", "--json"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "server", *args], env=env, capture_output=True, timeout=60, check=False
        )
        said += done.stdout + done.stderr
    assert b"sys_get_json" in said
    assert_hidden("CLI", said)
    assert_files_hide(tmp_path / "home", after_delete=True)
