"""The demo, running: the clinic on loopback, and a gateway with a registry of its own that knows it. Never the user's registry."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

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


def demo_settings(settings: Settings) -> Settings:
    """The user's settings with a folder, registry and workspace of the demo's own."""
    home = settings.home / "demo"
    return settings.model_copy(
        update={"home": home, "database_url": "", "workspace": WORKSPACE, "secret_key": None, "config": None}
    )


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

    def install_signal_handlers(self) -> None:
        pass


@asynccontextmanager
async def running_demo(
    settings: Settings, listeners: frozenset[tuple[str, int]] = frozenset()
) -> AsyncGenerator[tuple[App, Clinic], None]:
    """The clinic and a gateway that may reach loopback, with the integration `clinic` written for this run's port."""
    own = demo_settings(settings)
    make_folder(own.home)
    network = NetworkPolicy(allow_private=(ip_network("127.0.0.0/8"),), own_listeners=listeners)
    async with running_clinic() as clinic, open_app(own, listeners=listeners, network=network) as app:
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
    except OSError as e:
        raise OSError(
            f"can't write to {home} ({e.strerror}): set INTEGRATIONS_MCP_HOME to a folder that you may write to"
        ) from None
