"""The demo, running: the clinic on loopback, and a gateway with a registry of its own that knows it. Never the user's registry."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import count
from pathlib import Path
from typing import IO

import uvicorn

from server.app import App, open_app
from server.demo.clinic import clinic_app
from server.demo.definition import DEMO_KEY, load_demo
from server.listening import bind
from server.settings import Settings
from tools.address_guard import NetworkPolicy
from tools.callers import local_caller
from tools.errors import NotFound
from tools.models import AuthConfigWithSecrets, SecretInput, UpdateIntegrationRequest

WORKSPACE = "demo"


@dataclass(frozen=True, slots=True)
class Clinic:
    """Where the demo's upstream answers."""

    base_url: str


@contextmanager
def demo_settings(settings: Settings) -> Generator[Settings]:
    """The user's settings with a folder, registry and workspace of the demo's own.

    The folder is `demo` in the home folder, or demo-2 and so on while other demos run: each run has a clinic of its own,
    and a registry can name only one. Raises OSError with a sentence that helps.
    """
    for number in count(1):
        home = settings.home / ("demo" if number == 1 else f"demo-{number}")
        make_folder(home)
        with (home / "in-use").open("w") as file:
            if not _lock(file):
                continue
            own = {"home": home, "database_url": "", "workspace": WORKSPACE, "secret_key": None}
            yield settings.model_copy(update=own)
            return


def _lock(file: IO[str]) -> bool:
    """Whether this process is the only one that holds the file now; it does until the file is closed."""
    try:
        import fcntl
    except ImportError:  # Windows: two demos at once share a registry there
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@asynccontextmanager
async def running_clinic() -> AsyncGenerator[Clinic, None]:
    """The clinic on a free port of loopback, until the block ends."""
    config = uvicorn.Config(clinic_app(DEMO_KEY), log_config=None, access_log=False, lifespan="off")
    server = _QuietServer(config)
    sock = bind("127.0.0.1", 0)
    task = asyncio.ensure_future(server.serve(sockets=[sock]))
    try:
        yield Clinic(f"http://127.0.0.1:{sock.getsockname()[1]}")
    finally:
        server.should_exit = True
        await task


class _QuietServer(uvicorn.Server):
    """Signals are the gateway's: the clinic ends with its block."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@asynccontextmanager
async def running_demo(
    settings: Settings, listeners: frozenset[tuple[str, int]] = frozenset()
) -> AsyncGenerator[tuple[App, Clinic], None]:
    """The clinic and a gateway that may reach loopback, with the integration `clinic` written for this run's port."""
    network = NetworkPolicy(allow_private=(ip_network("127.0.0.0/8"),), own_listeners=listeners)
    with demo_settings(settings) as own:
        async with (
            running_clinic() as clinic,
            open_app(own, listeners=listeners, network=network, background=True) as app,
        ):
            await write_demo(app, clinic.base_url)
            yield app, clinic


async def write_demo(app: App, base_url: str) -> None:
    """Creates the integration, or brings one of an earlier run up to date."""
    caller = local_caller(WORKSPACE)
    request = load_demo(base_url)
    try:
        await app.registry.get(WORKSPACE, request.name)
    except NotFound:
        await app.writer.create(caller, request)
        return
    fields = {n: getattr(request, n) for n in request.model_fields_set if n not in ("name", "auth")}
    auth = AuthConfigWithSecrets(
        type="api_key_header", header_name="X-Clinic-Key", api_key_value=SecretInput(value=DEMO_KEY)
    )
    await app.writer.update(caller, request.name, UpdateIntegrationRequest(**fields, auth=auth))


def make_folder(home: Path) -> None:
    """Raises OSError with a sentence that helps."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (home / "in-use").open("a"):
            pass
    except OSError as e:
        raise OSError(
            f"can't write to {home} ({e.strerror}): set INTEGRATIONS_MCP_HOME to a folder that you may write to"
        ) from None
