"""sekmet-fhir: a FHIR R4 server by others that is its own SMART token server; installed into an environment of its own."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oauth_servers.running import TOOLS, cannot_start, process

VERSION = "0.1.1"


def installed() -> Path:
    """Its command."""
    root = TOOLS / f"sekmet-{VERSION}"
    if not (root / "done").exists():
        shutil.rmtree(root, ignore_errors=True)
        for command in (
            [sys.executable, "-m", "venv", str(root)],
            [str(root / "bin/python"), "-m", "pip", "install", "-q", f"sekmet-fhir=={VERSION}"],
        ):
            run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            if run.returncode != 0:
                cannot_start(f"sekmet-fhir can't be installed: {run.stderr.strip()[-200:]}")
        (root / "done").touch()
    return root / "bin/sekmet"


@contextmanager
def sekmet(place: Path, port: int, clients: list[dict[str, Any]]) -> Iterator[str]:
    """Gives its FHIR base URL. `clients`: client_id, jwks or jwks_url, scopes (one string)."""
    url = f"http://127.0.0.1:{port}/fhir"
    settings = {
        "base_url": url,
        "host": "127.0.0.1",  # its default is every interface
        "port": port,
        "data_dir": str(place / "data"),
        "simulator": {"enabled": False},
        "server_auth": {"types": ["smart"], "smart_clients": clients},
    }
    (place / "settings.yaml").write_text(json.dumps(settings))
    with process([installed(), "serve"], f"{url}/metadata", place / "log", place):
        yield url
