"""Runs the bridge on this process's stdin and stdout until the host closes them."""

import anyio
import httpx2
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from server.bridge import PATIENCE_S, Bridge
from server.bridge_messages import Message

_LAST_CALLS_S = 5.0


async def bridge_stdio(url: str, api_key: str, *, patience_s: float = PATIENCE_S) -> None:
    """`url` is the whole URL of /mcp. The key goes nowhere but to it."""
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    # A call may take minutes: only connecting has a limit.
    timeout = httpx2.Timeout(None, connect=5.0)
    async with httpx2.AsyncClient(headers=headers, timeout=timeout) as client, stdio_server() as (read, write):

        async def to_host(message: Message) -> None:
            await write.send(SessionMessage(jsonrpc_message_adapter.validate_python(message, by_name=False)))

        bridge = Bridge(client, url, to_host, patience_s=patience_s)
        async with anyio.create_task_group() as tasks:
            async for received in read:
                if isinstance(received, Exception):
                    continue  # not JSON-RPC: there is no id to answer to
                message = received.message.model_dump(by_alias=True, mode="json", exclude_unset=True)
                await bridge.from_host(message, tasks)
            with anyio.move_on_after(_LAST_CALLS_S):
                while not bridge.is_idle:  # noqa: ASYNC110 - the process is about to end; a few looks are all there are
                    await anyio.sleep(0.02)
            await bridge.close()
            tasks.cancel_scope.cancel()
        await write.aclose()  # or the writer of stdout waits for more
