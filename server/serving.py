"""Runs the HTTP application: uvicorn with a drain that lets running calls end and closes open streams (SIGTERM, SIGINT)."""

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import uvicorn
from sse_starlette.sse import AppStatus
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.supervisors import multiprocess

from server.app import App, open_app
from server.hosts_allowed import allowed_hosts
from server.http import HttpApp
from server.http_connection import ConnectionLimits, LimitedConfig
from server.rest_api import rest_app
from server.settings import Settings, read_settings
from server.telemetry import set_up_logs
from server.worker_figures import Slot

_LISTENERS = "_INTEGRATIONS_LISTENERS"
"""Tells worker processes which sockets are this server's own (address|port, comma-separated); not a setting."""
_FIGURES = "_INTEGRATIONS_FIGURES"
"""The same for the folder in which their figures meet."""
_FIRST_ANSWER_S = 60.0
_LAST_WORDS_S = 0.1
"""Between the end of the last call and the end of the streams: the SDK writes a call's answer after its handler has ended."""


class Serving:
    """The ASGI application of one process, opened by its lifespan and drained by `begin_drain`.

    With `app` it serves one that is open already and stays so; else it opens its own. `sessions`: legacy clients get sessions.
    """

    def __init__(
        self,
        settings: Settings,
        listeners: frozenset[tuple[str, int]] = frozenset(),
        *,
        sessions: bool = True,
        app: App | None = None,
        figures: Path | None = None,
    ) -> None:
        """`figures`: the folder in which the workers of one server add theirs up."""
        self._settings, self._listeners, self._sessions = settings, listeners, sessions
        self._figures = figures
        self._app = app
        self._http: HttpApp | None = None
        self._drain: asyncio.Task[None] | None = None
        self.failure: Exception | None = None
        """Why it couldn't start."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        assert self._http is not None
        await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self.opened():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as e:  # noqa: BLE001 - told to uvicorn, which ends the process
            failed = "shutdown" if self._http is not None else "startup"
            self.failure = e
            await send({"type": f"lifespan.{failed}.failed", "message": str(e)})
            return
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[None, None]:
        settings = self._settings
        opened = nullcontext(self._app) if self._app else open_app(settings, listeners=self._listeners, background=True)
        async with opened as app:
            allowed = allowed_hosts(
                settings.host, settings.public_url, settings.allowed_hosts, settings.allowed_origins
            )
            slot = Slot(self._figures, app.metrics) if self._figures is not None and app.metrics is not None else None
            http = HttpApp(app, rest_app(app), allowed, sessions=self._sessions, slot=slot)
            async with _kept_up(slot), http.running():
                AppStatus.disable_automatic_graceful_drain()
                # What was made while starting lives as long as the process: the collector needn't look at it again.
                gc.collect()
                gc.freeze()
                # Calls leave little that refers to itself: it is looked for less often than every 700 objects.
                gc.set_threshold(10_000, 20, 20)
                self._app, self._http = app, http
                self._listen_for_the_end()
                yield

    def _listen_for_the_end(self) -> None:
        """uvicorn waits for open streams before it ends the lifespan, so draining begins where the signal arrives."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            before = signal.getsignal(number)

            def handle(received: int, frame: FrameType | None, before: Any = before) -> None:
                loop.call_soon_threadsafe(self.begin_drain)
                if callable(before):
                    before(received, frame)

            signal.signal(number, handle)

    def begin_drain(self) -> None:
        """Called in the loop when the process was asked to end."""
        if self._drain is None and self._app is not None:
            self._app.announcements.close()
            self._drain = asyncio.ensure_future(self._end_streams())

    async def _end_streams(self) -> None:
        """Idle SSE streams are closed when the running calls have ended, or the grace time has."""
        assert self._http is not None
        try:
            async with asyncio.timeout(self._settings.grace_seconds):
                await self._http.until_idle()
        except TimeoutError:
            pass
        await asyncio.sleep(_LAST_WORDS_S)
        AppStatus.should_exit = True


@asynccontextmanager
async def _kept_up(slot: Slot | None) -> AsyncGenerator[None, None]:
    if slot is None:
        yield
        return
    writing = asyncio.ensure_future(slot.run())
    try:
        yield
    finally:
        writing.cancel()
        slot.close()


class Server(uvicorn.Server):
    """uvicorn's, but that it takes what waits in the listeners' queues before it closes them: the system would reset it."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None] = lambda: None) -> None:
        """`ready` is told when requests are answered."""
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        waiting = [connection for sock in sockets or [] for connection in _waiting(sock)]
        for server in self.servers:
            server.close()
        # uvloop closes them at the end of this turn: what came meanwhile is taken, too.
        waiting += [connection for sock in sockets or [] for connection in _waiting(sock)]
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        return kind(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """Connections that the system has made and nobody has taken yet."""
    with suppress(OSError):  # none is left, or it is closed
        listener.setblocking(False)
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            yield connection


def config_of(app: ASGIApp | str, settings: Settings, **more: Any) -> uvicorn.Config:
    return LimitedConfig(
        app,
        ConnectionLimits(settings.max_connections, settings.client_seconds),
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.grace_seconds) + 1,
        **more,
    )


def serve(settings: Settings, sock: socket.socket, ready: Callable[[], None]) -> int:
    """Serves until asked to end; returns the exit code. `ready` is called when requests are answered."""
    host, port = sock.getsockname()[:2]
    listeners = frozenset({(host, port)})
    if settings.workers > 1:
        return _serve_with_workers(settings, sock, listeners, ready)
    _end_without_a_signal()
    serving = Serving(settings, listeners, sessions=True)
    server = Server(config_of(serving, settings), ready)
    try:
        server.run(sockets=[sock])
    except SystemExit:  # uvicorn's own code, where the lifespan failed
        if serving.failure is None:
            raise
    if serving.failure is not None:
        raise serving.failure
    return 0 if server.started else 1


class Worker(multiprocess.Process):
    """uvicorn's worker process with our server in it: all have one queue of connections, which the last to end must leave empty."""

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = Server(self.config)
        return self._server


def _serve_with_workers(
    settings: Settings, sock: socket.socket, listeners: frozenset[tuple[str, int]], ready: Callable[[], None]
) -> int:
    from uvicorn.config import STARTUP_FAILURE

    multiprocess.Process = Worker  # the supervisor makes them in several places and can't be told of which class

    class Workers(multiprocess.Multiprocess):
        def terminate_all(self) -> None:
            # Held open here, connections would be taken that nobody answers any more.
            for listener in self.sockets:
                listener.close()
            super().terminate_all()

    # Workers are new processes: they read the settings again, from the environment that the CLI has completed.
    os.environ[_LISTENERS] = ",".join(f"{host}|{port}" for host, port in listeners)
    config = config_of("server.serving:worker_app", settings, factory=True, workers=settings.workers)
    with ExitStack() as stack:
        if settings.metrics_token is not None:
            made = TemporaryDirectory(prefix="integrations-mcp-", ignore_cleanup_errors=True)
            os.environ[_FIGURES] = stack.enter_context(made)
        workers = Workers(config, sockets=[sock])
        threading.Thread(target=_when_answered, args=(sock.getsockname(), ready), daemon=True).start()
        workers.run()
    return 1 if any(p.exitcode == STARTUP_FAILURE for p in workers.processes) else 0


def _when_answered(where: tuple[Any, ...], ready: Callable[[], None]) -> None:
    """The workers are processes of their own: the first that answers /healthz is heard here. The socket listens already, so this waits."""
    every = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - asked, not listened on
    host = every.get(str(where[0]), str(where[0]))
    with suppress(OSError), socket.create_connection((host, where[1]), timeout=_FIRST_ANSWER_S) as asking:
        shown = f"[{host}]" if ":" in host else host
        asking.sendall(f"GET /healthz HTTP/1.1\r\nHost: {shown}:{where[1]}\r\nConnection: close\r\n\r\n".encode())
        if asking.recv(12).startswith(b"HTTP/1.1 "):
            ready()


def worker_app() -> Serving:
    """The application of one worker process: no legacy sessions, since the next request may go to another worker."""
    pairs = (part.rpartition("|") for part in os.environ.pop(_LISTENERS, "").split(",") if part)
    listeners = frozenset((host, int(port)) for host, _, port in pairs)
    settings = read_settings()
    set_up_logs(settings.log_level)
    figures = os.environ.pop(_FIGURES, None)
    return Serving(settings, listeners, sessions=False, figures=Path(figures) if figures else None)


async def run_beside(config: uvicorn.Config, sock: socket.socket, ready: Callable[[], None]) -> None:
    """Serves in a loop that is running already, until asked to end; calls `ready` when requests are answered."""
    _end_without_a_signal()
    await Server(config, ready).serve(sockets=[sock])


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


def _end_without_a_signal() -> None:
    """uvicorn raises the signal again when it has ended, which would kill us before everything else is closed."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _do_nothing)


def say(text: str) -> None:
    """For people, on stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201
