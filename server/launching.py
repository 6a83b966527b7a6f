"""Starts the programs of MCP upstreams over stdio: small environment, own group, ended with everything that they started.

On Linux each runs under `reaper.py`, which ends it even when the gateway is killed. Elsewhere a killed gateway leaves the closing
of stdin, which MCP servers take as their end.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# What a program needs to start at all. Nothing else of the gateway's environment, which may hold keys.
_INHERITED = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PATH", "SYSTEMROOT", "TEMP")
_REAPER = str(Path(__file__).with_name("reaper.py"))
_PATIENCE_S = 2.0
_BUFFER = 1 << 20


class ChildProcess:
    """`tools.kinds.mcp.stdio.Child`. `stop` closes stdin, waits, then kills whatever is left."""

    def __init__(self, process: asyncio.subprocess.Process, control: int | None) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr
        self._process, self._control = process, control
        self.pid = process.pid

    async def stop(self) -> None:
        try:
            self.stdin.close()
            with contextlib.suppress(TimeoutError):
                await self._ended(_PATIENCE_S)
        finally:
            self._kill()
            with contextlib.suppress(TimeoutError):
                await self._ended(_PATIENCE_S)
            transport = getattr(self._process, "_transport", None)  # holds the pipes, and nothing public closes it
            if transport is not None:
                transport.close()

    async def _ended(self, within: float) -> None:
        # Not `process.wait()` alone: it waits for the pipes too, which a grandchild may hold.
        async with asyncio.timeout(within):
            await self._process.wait()

    def _kill(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            os.close(control)  # the reaper kills everything and ends
        elif self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if sys.platform == "win32":
                    self._process.kill()
                else:
                    os.killpg(self._process.pid, signal.SIGKILL)


class Launcher:
    """`tools.kinds.mcp.stdio.Launch` over the environment that this process was started with."""

    def __init__(self, environ: Mapping[str, str], *, reaper: bool = sys.platform == "linux") -> None:
        self._environment = {name: environ[name] for name in _INHERITED if name in environ}
        self._reaper = reaper

    async def __call__(self, command: str, arguments: Sequence[str], environment: Mapping[str, str]) -> ChildProcess:
        """Raises OSError where the program isn't there or can't be executed."""
        if not os.access(command, os.X_OK):
            raise FileNotFoundError(2, "there is no such program", command)
        merged = {**self._environment, **environment}
        if not self._reaper:
            return ChildProcess(await _spawn((command, *arguments), merged, ()), None)
        read, write = os.pipe()
        try:
            words = (sys.executable, "-I", "-S", _REAPER, str(read), "--", command, *arguments)
            process = await _spawn(words, merged, (read,))
        except BaseException:
            os.close(write)
            raise
        finally:
            os.close(read)
        return ChildProcess(process, write)


async def _spawn(
    words: Sequence[str], environment: Mapping[str, str], fds: Sequence[int]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environment),
        cwd="/" if sys.platform != "win32" else None,
        pass_fds=tuple(fds),
        start_new_session=sys.platform != "win32",
        limit=_BUFFER,
    )
