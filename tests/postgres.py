"""A PostgreSQL for the tests, started once a run: load it with `pytest_plugins = ("tests.postgres",)` in a test module.

Such a module imports nothing else from here (pytest must be the first to import a plugin); types under TYPE_CHECKING.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest


def program(name: str) -> str | None:
    """The newest installed server program of this name."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: float(p.parts[4]), reverse=True)
    return str(debian[0]) if debian else shutil.which(name)


class Postgres:
    """One server on a loopback port; it can be stopped and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.sockets = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._prefix: list[str] = []
        if os.getuid() == 0:  # the server refuses to run as root
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        make = [program("initdb"), "-D", str(self.data), "-U", "gw", "--auth=trust", "-E", "UTF8", "--no-sync"]
        subprocess.run([*self._prefix, *make], check=True, capture_output=True, cwd=folder)
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.sockets), "-c", "fsync=off"]
        command = [*self._prefix, program("postgres"), "-D", str(self.data), *options]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=self.sockets)
        assert self._process.stderr is not None
        seen: list[str] = []
        for line in self._process.stderr:
            seen.append(line)
            if "ready to accept connections" in line:
                return
        raise RuntimeError("PostgreSQL didn't start: " + "".join(seen))

    def stop(self) -> None:
        """Ends every connection and the server (what a restart looks like from outside)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=30)
        self._process = None

    @property
    def url(self) -> str:
        """As an operator writes it."""
        return f"postgresql://gw@127.0.0.1:{self.port}/postgres"

    def fresh_url(self) -> str:
        """An empty schema of its own in the same database."""
        schema = f"t{uuid4().hex}"
        psql = [program("psql"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "gw", "-d", "postgres"]
        subprocess.run([*psql, "-c", f"CREATE SCHEMA {schema}"], check=True, capture_output=True)
        return f"{self.url}?search_path={schema}"


@contextmanager
def running() -> Iterator[Postgres]:
    if program("initdb") is None or program("postgres") is None:
        pytest.skip("no PostgreSQL server program on this machine")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    folder.chmod(0o755)
    server = Postgres(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server for one test, which may stop it."""
    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty registry's URL, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/home/registry.db"
    return request.getfixturevalue("postgres").fresh_url()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/home/registry.db"
