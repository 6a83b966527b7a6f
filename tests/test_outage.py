"""The database goes away: what was known is served, also by a replica that nobody had called before."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from tests.upstreams import Hostile, answer
from tests.world import gateway, http, served

if TYPE_CHECKING:
    from tests.postgres import Postgres

pytest_plugins = ("tests.postgres",)
pytestmark = [pytest.mark.anyio, pytest.mark.postgres]

READ = {"name": "read", "description": "d", "method": "GET", "path": "/x"}
HEADERS = {
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/call",
    "Mcp-Name": "sy_read",
}


def call() -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    }
    params = {"name": "sy_read", "arguments": {}, "_meta": meta}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


async def test_a_replica_serves_keys_and_tools_that_it_was_never_asked_for(
    tmp_path: Path, own_postgres: "Postgres"
) -> None:
    settings = {"database_url": own_postgres.fresh_url(), "secret_key": "A" * 43 + "="}
    async with Hostile() as upstream, gateway(tmp_path, **settings) as first:
        upstream.script("/x", answer(200, b"fine"))
        await first.create({"name": "sy", "display_name": "S", "base_url": upstream.url, "endpoints": [READ]})
        key = await first.key()
        async with gateway(tmp_path, **settings) as second, served(second) as url, http(url, key) as client:
            late = await first.key()  # made while the second is running
            with anyio.fail_after(20):
                for each in (key, late):
                    while second.app.keys.peek(each) is None or second.app.catalogs.known("acme") is None:  # noqa: ASYNC110
                        await asyncio.sleep(0)
            own_postgres.stop()
            try:
                for each in (key, late):
                    answered = await client.post(
                        "/mcp", json=call(), headers={**HEADERS, "Authorization": f"Bearer {each}"}
                    )
                    assert answered.status_code == 200
                    assert answered.json()["result"]["content"][0]["text"] == "fine"
                ready = await client.get("/readyz")
                assert ready.status_code == 503
                assert int(ready.headers["retry-after"]) >= 1
            finally:
                own_postgres.start()
