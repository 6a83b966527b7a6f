"""approvals and call from the shell, beside an agent whose call waits; who may decide over REST."""

import json
import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.processes import SCRIPT, environment, run
from tests.rest import rest_world

pytestmark = pytest.mark.anyio

ENV = {"INTEGRATIONS_MCP_ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8", "INTEGRATIONS_MCP_WORKSPACE": "acme"}
CALL = ("call", "shop_delete_item", "--args", '{"id": "7"}')


async def cli(home: Path, *arguments: str, code: int = 0) -> str:
    """stdout and stderr of a command that must end with `code`; nobody is at its standard input."""
    done = await anyio.to_thread.run_sync(lambda: run(home, *arguments, env=ENV))
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


async def test_an_agents_call_is_seen_approved_and_denied_from_the_shell(tmp_path: Path) -> None:
    async with rest_world(tmp_path) as shop, await shop.role("operator") as agent:
        await shop.create(approval_policy="writes")

        async def call() -> Any:
            path = "/v1/acme/integrations/shop/endpoints/delete_item/test"
            return (await agent.post(path, json={"params": {"id": "7"}})).json()["error"]

        command = re.search(r"integrations-mcp (approvals approve a_\w+ --workspace acme);", await call())
        assert command is not None
        words = command.group(1).split()
        (row,) = json.loads(await cli(tmp_path, "approvals", "list", "--json"))
        assert (row["id"], row["state"], row["tool"], row["method"]) == (
            words[2],
            "waiting",
            "shop_delete_item",
            "DELETE",
        )
        assert f"DELETE {shop.upstream}/items/7" in await cli(tmp_path, "approvals", "show", words[2])
        await cli(tmp_path, *words, code=2)  # nobody is there to be asked
        assert await call() is not None
        assert shop.sent == []
        await cli(tmp_path, *words, "--yes")
        assert await call() is None
        assert shop.sent == ["DELETE /items/7"]
        assert await call() is not None
        (row,) = json.loads(await cli(tmp_path, "approvals", "list", "--json"))
        await cli(tmp_path, "approvals", "deny", row["id"])
        assert "[approval_denied]" in await call()
        assert "[not_found]" in await cli(tmp_path, "approvals", "approve", row["id"], "--yes", code=1)
        assert shop.sent == ["DELETE /items/7"]


async def test_a_call_from_the_shell_passes_the_same_gate(tmp_path: Path) -> None:
    async with rest_world(tmp_path) as shop:
        await shop.create(approval_policy="writes")
        assert "[approval_required]" in await cli(tmp_path, *CALL, code=1)
        assert shop.sent == []
        await cli(tmp_path, *CALL, "--yes")
        assert shop.sent == ["DELETE /items/7"]


@pytest.mark.parametrize(("typed", "sent"), [(b"y\n", True), (b"n\n", False), (b"\n", False)])
async def test_on_a_terminal_the_request_is_shown_and_asked_for(tmp_path: Path, typed: bytes, sent: bool) -> None:
    async with rest_world(tmp_path) as shop:
        await shop.create(approval_policy="writes")
        keyboard, terminal = pty.openpty()
        try:
            os.write(keyboard, typed)
            done = await anyio.run_process(
                [str(SCRIPT), *CALL],
                stdin=terminal,
                env=environment(tmp_path, ENV),
                cwd=tmp_path,
                check=False,
                stderr=subprocess.PIPE,
            )
        finally:
            os.close(keyboard)
            os.close(terminal)
        assert f"DELETE {shop.upstream}/items/7" in done.stderr.decode() + done.stdout.decode()
        assert done.returncode == (not sent)
        assert shop.sent == (["DELETE /items/7"] if sent else [])


async def test_over_rest_the_key_that_asked_cannot_approve_and_another_can(tmp_path: Path) -> None:
    async with rest_world(tmp_path) as shop, await shop.role("owner") as own, await shop.role("viewer") as viewer:
        await shop.create(approval_policy="writes")
        test = "/v1/acme/integrations/shop/endpoints/delete_item/test"
        assert "[approval_required]" in (await own.post(test, json={"params": {"id": "7"}})).json()["error"]
        (waits,) = (await viewer.get("/v1/acme/approvals")).json()["items"]
        one = f"/v1/acme/approvals/{waits['id']}"
        assert (await viewer.get(one)).json() == waits
        for client in (own, viewer):
            refused = await client.post(f"{one}/approve")
            assert (refused.status_code, refused.json()["error_code"]) == (403, "forbidden")
        assert (await viewer.post(f"{one}/deny")).status_code == 403
        assert (await shop.client.get("/v1/other/approvals")).status_code == 403
        assert (await shop.client.post("/v1/acme/approvals/a_0000000000000000/approve")).status_code == 404
        assert (await shop.client.post(f"{one}/approve")).json()["state"] == "approved"
        assert (await shop.client.post(f"{one}/approve")).status_code == 404
        assert (await own.post(test, json={"params": {"id": "7"}})).json()["error"] is None
        assert (await shop.client.get(one)).status_code == 404
        assert shop.sent == ["DELETE /items/7"]
