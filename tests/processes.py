"""The console script as a process of its own, as users and hosts start it: its own home folder, a small environment, ended for sure."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

SCRIPT = Path(sys.executable).with_name("integrations-mcp")
PATIENCE_S = 30.0


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a desktop host gives: no virtual environment is active; the script's folder is on PATH."""
    path = f"{SCRIPT.parent}{os.pathsep}/usr/bin{os.pathsep}/bin"
    return {"PATH": path, "HOME": str(home), "INTEGRATIONS_MCP_HOME": str(home), **(more or {})}


@dataclass
class Running:
    """One process. Waits end after PATIENCE_S by killing it, which fails the test at the next look."""

    process: subprocess.Popen[str]

    def line(self) -> str:
        """The next line of stdout; empty when it ended."""
        assert self.process.stdout is not None
        with self._patience():
            return self.process.stdout.readline()

    def json_line(self) -> Any:
        line = self.line()
        if not line:
            assert self.process.stderr is not None
            raise AssertionError(f"it ended without a line: {self.process.stderr.read()[-2000:]}")
        return json.loads(line)

    def error_line(self) -> str:
        """The next line of stderr."""
        assert self.process.stderr is not None
        with self._patience():
            return self.process.stderr.readline()

    def write(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None

    def send(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Waits for the end; the exit code."""
        return self.process.wait(PATIENCE_S)

    def rest(self) -> tuple[str, str]:
        """Waits for the end; what is left of stdout and stderr."""
        return self.process.communicate(timeout=PATIENCE_S)

    @contextmanager
    def _patience(self) -> Iterator[None]:
        watchdog = threading.Timer(PATIENCE_S, self.process.kill)
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()


@contextmanager
def running(home: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """`integrations-mcp ARGUMENTS` until the block ends."""
    process = subprocess.Popen(
        [SCRIPT, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home, env),
        cwd=home,
        start_new_session=True,
    )
    try:
        yield Running(process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
        process.communicate()


def run(home: Path, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `integrations-mcp ARGUMENTS` to its end; the exit code is for the caller to judge."""
    return subprocess.run(
        [SCRIPT, *arguments],
        capture_output=True,
        text=True,
        env=environment(home, env),
        cwd=home,
        timeout=PATIENCE_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def cannot(why: str) -> NoReturn:
    """Skips the test in one line; in CI, where everything is there, what can't be tested is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)
