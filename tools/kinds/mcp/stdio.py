"""stdio: one JSON message a line to and from a child process (MCP spec, transports: stdio). How it is started is injected."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from tools.errors import CallError, ResponseTooLarge
from tools.kinds.mcp.rpc import Ask, LinkLost, Message, Notice, Peer

_STDERR_LINES = 50
_LINE = 500


class Child(Protocol):
    """A running child. `stop` ends it and everything that it started, within a few seconds, whatever it does."""

    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader

    async def stop(self) -> None: ...


Launch = Callable[[str, Sequence[str], Mapping[str, str]], Awaitable[Child]]
"""(command, arguments, its further environment) -> the child. Raises OSError where it can't be started."""


class StdioLink:
    """`rpc.Link` over a child. `said` are the last lines of its stderr, for operators."""

    def __init__(self, child: Child, notice: Notice, max_bytes: int) -> None:
        self._child, self._max = child, max_bytes
        self._peer = Peer(self._write, notice)
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.said: deque[str] = deque(maxlen=_STDERR_LINES)
        self._readers = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._read_stderr())]

    async def request(self, ask: Ask) -> Message:
        return await self._peer.request(ask)

    async def notify(self, method: str) -> None:
        await self._peer.notify(method)

    async def close(self) -> None:
        self._end("it was stopped")
        await self._child.stop()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    def _end(self, why: str, error: CallError | None = None) -> None:
        if not self.ended.done():
            self.ended.set_result(why)
            self._peer.fail(why, error)

    async def _write(self, data: bytes) -> None:
        try:
            self._child.stdin.write(data + b"\n")
            await self._child.stdin.drain()
        except (OSError, RuntimeError) as e:  # RuntimeError: uvloop's, for a transport that is closed
            raise LinkLost("its process doesn't read any more", sent=False) from e

    async def _read(self) -> None:
        """Lines as long as `max_bytes`; a longer one ends the link, since nobody can tell where the next begins."""
        why = "its process ended"
        parts: list[bytes] = []
        size = 0
        try:
            while piece := await self._child.stdout.read(256 * 1024):
                *lines, rest = piece.split(b"\n")
                for line in lines:
                    self._peer.receive(b"".join([*parts, line]))
                    parts, size = [], 0
                parts.append(rest)
                size += len(rest)
                if size > self._max:
                    why = f"the answer is longer than {self._max:,} bytes"
                    self._end(why, ResponseTooLarge(why))
                    return
        except OSError as e:
            why = f"its output broke off ({e.strerror or type(e).__name__})"
        self._end(why)

    async def _read_stderr(self) -> None:
        """Always read, so that a talkative child never blocks; only the last lines are kept."""
        rest = b""
        while piece := await self._child.stderr.read(64 * 1024):
            *lines, rest = (rest[-_LINE:] + piece).split(b"\n")
            for line in lines[-_STDERR_LINES:]:
                self.said.append(line[:_LINE].decode("utf-8", "replace"))
        if rest:
            self.said.append(rest[:_LINE].decode("utf-8", "replace"))
