"""Starts and stops the servers of these tests: WSGI ones in a thread, others as processes, all on loopback."""

import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from werkzeug.serving import make_server

TOOLS = Path(__file__).parents[2] / ".tools"
HERE = Path(__file__).parent


def cannot_start(why: str) -> NoReturn:
    """On a developer's machine the test is skipped in one line; where everything has to be there it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """A WSGI app on a port of its own; gives its URL."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(
    command: Sequence[str | Path], ready: str, log: Path, cwd: Path, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A server process; `ready` is a URL that answers once it is up (within 30 s)."""
    with log.open("wb") as output:
        run = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "HOME": str(cwd)} | dict(environment or {}),
        )
    try:
        ends = time.monotonic() + 30
        while not _answers(ready):
            if run.poll() is not None or time.monotonic() > ends:
                cannot_start(f"{Path(command[0]).name} didn't come up: {log.read_text(errors='replace')[-400:]}")
            time.sleep(0.05)
        yield
    finally:
        run.terminate()
        run.wait(10)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except urllib.error.HTTPError as answer:
        answer.close()
        return True
    except OSError:
        return False
