"""moto: AWS's Parameter Store by others, as a server on loopback with an environment of its own, behind a proxy that records."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from oauth_servers.running import TOOLS, cannot_start, free_port, process

VERSION = "5.2.5"


def installed() -> Path:
    """Its Python."""
    root = TOOLS / f"moto-{VERSION}"
    if not (root / "done").exists():
        shutil.rmtree(root, ignore_errors=True)
        for command in (
            [sys.executable, "-m", "venv", str(root)],
            [str(root / "bin/python"), "-m", "pip", "install", "-q", f"moto[server,ssm]=={VERSION}"],
        ):
            run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            if run.returncode != 0:
                cannot_start(f"moto can't be installed: {run.stderr.strip()[-200:]}")
        (root / "done").touch()
    return root / "bin/python"


@dataclass
class Recorder:
    """Forwards to moto and keeps what was asked: (operation, fields). `fail` answers in moto's place: (status, error code).

    `url` is where the store under test connects.
    """

    target: str
    url: str = ""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    fail: list[tuple[int, str]] = field(default_factory=list)
    always: tuple[int, str] | None = None
    denied: str = ""
    """An operation that the role has no permission for, in AWS's words."""

    def names(self) -> list[str]:
        return [fields["Name"] for _, fields in self.asked]


@contextmanager
def recording(target: str) -> Iterator[Recorder]:
    recorder = Recorder(target)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            operation = self.headers["X-Amz-Target"].partition(".")[2]
            recorder.asked.append((operation, json.loads(body)))
            failing = recorder.fail.pop(0) if recorder.fail else recorder.always
            if operation == recorder.denied:
                says = f"User: arn:aws:sts::123456789012:assumed-role/gw/i is not authorized to perform: ssm:{operation} on resource: arn:aws:ssm:x:123456789012:parameter/gw"
                status, answer = 400, json.dumps({"__type": "AccessDeniedException", "message": says}).encode()
            elif failing is not None:
                status, answer = failing[0], json.dumps({"__type": failing[1], "message": "as told"}).encode()
            else:
                headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
                try:
                    with urlopen(Request(recorder.target, body, headers), timeout=10) as got:
                        status, answer = got.status, got.read()
                except HTTPError as e:
                    with e:
                        status, answer = e.code, e.read()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    recorder.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield recorder
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def moto(place: Path) -> Iterator[str]:
    """Gives the URL of a fresh AWS."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [installed(), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with process(command, f"{url}/moto-api/", place / "log", place):
        yield url
