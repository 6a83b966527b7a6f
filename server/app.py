"""Puts the parts together: Settings -> App. The only module that names the concrete classes; one async context opens and closes all."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import anyio

from server.access_tokens import AccessTokens, Issuer
from server.announcements import Announcements
from server.auth import GuessLimit, Keys
from server.background import Worker
from server.bearer import Bearer
from server.calls import HistoryRules, WrittenBehind
from server.config_watch import config_watch
from server.egress import way_out
from server.issuer_keys import IssuerKeys
from server.keyring import Keyring
from server.launching import Launcher
from server.mcp_app import GatewayServer, make_server
from server.metrics import Metrics
from server.process_identity import ProcessIdentity
from server.protected_resources import ProtectedResources
from server.recording import named, parts_counted, recorder
from server.secret_stores.opening import open_keyring, open_secret_store
from server.settings import Settings
from server.store.approvals import SqlApprovals
from server.store.background import SqlCallQueue
from server.store.call_keys import SqlCallKeys
from server.store.database import Database, open_database
from server.store.history import SqlHistory
from server.store.keys import SqlKeyStore
from server.store.pins import SqlPins
from server.store.registry import SqlRegistry
from server.store.results import SqlResultStore
from server.telemetry import Log, is_traced
from server.upkeep import Expiring, follow_changes, follow_keys, keep_house, kept_up, renew_issuers
from server.version import VERSION
from tools.address_guard import NetworkPolicy
from tools.admin import Admin, AdminRules
from tools.admin_tools.admin_tool import Desk
from tools.approval_admin import ApprovalAdmin
from tools.approvals import Gate
from tools.auth_admin import AuthAdmin
from tools.background import Background, News
from tools.breaker import Breaker
from tools.callers import Caller
from tools.catalog import Catalogs
from tools.checks import CheckRules
from tools.credentials.own_identity import OwnIdentity
from tools.credentials.parts import CredentialParts
from tools.credentials.reader import SecretReader
from tools.credentials.token_cache import TokenCache
from tools.cursors import Cursors
from tools.endings import new_id
from tools.engine import HttpEngine
from tools.errors import StorageUnavailable
from tools.first_listing import FirstListings
from tools.gateway import Gateway, GatewayRules
from tools.health import HealthProbe
from tools.host_list import ALL_HOSTS
from tools.importers.importing import Importer
from tools.key_admin import KeyAdmin
from tools.kinds.fhir.fhir_tool import fhir_tools_of
from tools.kinds.fhir.listings import FhirListings
from tools.kinds.mcp.connecting import Connecting
from tools.kinds.mcp.listings import McpListings
from tools.kinds.mcp.mcp_tool import mcp_tools_of
from tools.kinds.mcp.session import ClientInfo
from tools.kinds.mcp.sessions import McpSessions
from tools.long_results import LongResults
from tools.models import Integration
from tools.patience import Patience
from tools.reading_on import ReadingOn
from tools.secret_admin import SecretAdmin
from tools.secrets import SecretStore
from tools.sending import Sending
from tools.tool import Tool, tools_of
from tools.toolbox import Toolbox
from tools.traffic import Traffic
from tools.upstream import Upstream
from tools.way_out import WayOut
from tools.writing import Writer

_MAX_ANSWER_BYTES = 10 * 1024 * 1024
log = Log("integrations_mcp")


@dataclass(frozen=True, slots=True)
class App:
    """The running parts. `file_admin` writes for the operator's own file.

    `mcp_server` makes the low-level MCP server of one wire.
    """

    settings: Settings
    upstream: Upstream
    registry: SqlRegistry
    secrets: SecretStore
    keys: Keys
    bearer: Bearer
    resources: ProtectedResources | None
    key_store: SqlKeyStore
    catalogs: Catalogs
    gateway: Gateway
    admin: Admin
    file_admin: Admin
    auth_admin: AuthAdmin
    key_admin: KeyAdmin
    secret_admin: SecretAdmin
    importer: Importer
    approval_admin: ApprovalAdmin
    approvals: SqlApprovals
    writer: Writer
    toolbox: Toolbox
    announcements: Announcements
    history: WrittenBehind
    background: SqlCallQueue
    front: Background | None
    worker: Worker | None
    metrics: Metrics | None
    """Where the operator wants figures."""
    expiring: tuple[Expiring, ...]

    def mcp_server(self, local: Caller | None, *, announces: bool) -> GatewayServer:
        return make_server(self.toolbox, self.announcements, self.front, local, VERSION, announces=announces)

    async def is_ready(self) -> str | None:
        """None when calls can be served, else what is missing."""
        try:
            await self.registry.version(self.settings.workspace)
        except StorageUnavailable as e:
            return e.message
        return None


@asynccontextmanager
async def open_app(
    settings: Settings,
    *,
    listeners: frozenset[tuple[str, int]] = frozenset(),
    network: NetworkPolicy | None = None,
    background: bool = False,
) -> AsyncGenerator[App, None]:
    """Opens the registry, the secret store and the way out, and runs what goes on in the background.

    `background`: calls of queue endpoints are accepted and run here, as those of a server are; without it their callers wait for
    the answer. `listeners` are this process's own (address, port): upstreams may never be one of them. Raises StorageUnavailable, ConfigError.
    """
    network = network or NetworkPolicy(allow_private=settings.private_networks, own_listeners=listeners)
    ring = open_keyring(settings)
    async with open_database(settings.registry_url) as database:
        app, closing = _assemble(settings, database, ring, network, background)
        await app.registry.ensure_workspace(settings.workspace)
        watch = config_watch(settings, app.file_admin, app.registry, app.secrets)
        failed: Exception | None = None
        try:
            if watch is not None:
                await watch.load()
            async with anyio.create_task_group() as tasks:
                serves = app.worker is not None
                follow = partial(follow_changes, app.registry, app.catalogs, app.announcements)
                tasks.start_soon(kept_up, "catalog", follow)
                known = partial(follow_keys, app.keys, app.key_store, app.catalogs, serves=serves)
                tasks.start_soon(kept_up, "keys", known)
                tasks.start_soon(
                    kept_up, "housekeeping", partial(keep_house, app.keys, app.auth_admin, app.writer, app.expiring)
                )
                tasks.start_soon(kept_up, "history", app.history.run)
                if app.resources is not None:
                    tasks.start_soon(kept_up, "identity providers", partial(renew_issuers, app.bearer))
                if app.worker is not None:
                    tasks.start_soon(kept_up, "background calls", app.worker.run)
                if watch is not None:
                    tasks.start_soon(kept_up, "config file", watch.follow)
                try:
                    yield app
                except Exception as e:  # noqa: BLE001 - raised below as it is: the task group would wrap it
                    failed = e
                if app.worker is not None:
                    await app.worker.drain(settings.grace_seconds)
                tasks.cancel_scope.cancel()
        finally:
            with anyio.move_on_after(5, shield=True):
                for close in closing:
                    await close()
        if failed is not None:
            raise failed


def _assemble(
    settings: Settings, database: Database, ring: Keyring, network: NetworkPolicy, background: bool
) -> tuple[App, list[Callable[[], Awaitable[None]]]]:
    registry, key_store = SqlRegistry(database, settings.tool_name_max), SqlKeyStore(database)
    secrets, closing = open_secret_store(settings, database, ring)
    way = way_out(settings)
    engine = HttpEngine(network, way=way, user_agent=f"integrations-mcp/{VERSION}")
    upstream = Upstream(network, engine=engine)
    reader = SecretReader(secrets)
    tokens = TokenCache(pins=SqlPins(database))

    withhold = settings.suspicious_tools == "block"
    own_identity = OwnIdentity(settings.allowed_identities, ProcessIdentity(settings.gcp_kubernetes_token_file))

    def parts_of(integration: Integration) -> CredentialParts:
        return CredentialParts(
            reader=reader,
            upstream=upstream,
            tokens=tokens,
            workspace=integration.workspace_id,
            integration_id=integration.id,
            base_url=integration.base_url,
            versions={path: b.version for path, b in integration.bindings.items()},
            origins={path: b.origins for path, b in integration.bindings.items()},
            public_url=settings.public_url,
            network=network,
            own_identity=own_identity,
        )

    def make_tools(integration: Integration) -> tuple[Tool, ...]:
        if integration.protocol == "mcp":
            parts, limit = parts_of(integration), settings.tool_name_max
            return mcp_tools_of(integration, parts, limit, settings.mcp_changed_tools, withhold_suspicious=withhold)
        if integration.protocol == "fhir":
            return fhir_tools_of(integration, parts_of(integration), settings.tool_name_max)
        return tools_of(integration, parts_of(integration), settings.tool_name_max)

    patience = Patience()
    catalogs = Catalogs(registry, make_tools, max_endpoints=settings.catalog_tools, patience=patience)
    results, call_keys = SqlResultStore(database, ring), SqlCallKeys(database)
    history = WrittenBehind(SqlHistory(database), HistoryRules(settings.history_days, settings.audit_days))
    metrics = Metrics(named(catalogs)) if settings.metrics_token is not None else None
    if metrics is not None:
        parts_counted(metrics, catalogs, tokens, history, engine)
    record = recorder(history, metrics)
    traces = None
    if background and is_traced(os.environ):
        from server.tracing import Traces  # half a second of imports

        traces = Traces(os.environ)
        closing = [traces.aclose, *closing]
    connecting = Connecting(
        ClientInfo("integrations-mcp", VERSION),
        upstream,
        reader,
        parts_of,
        Launcher(os.environ),
        settings.stdio_allow,
        _MAX_ANSWER_BYTES,
    )
    sessions = McpSessions(connecting)
    capabilities = FhirListings(upstream, reader, parts_of, registry, changed=catalogs.invalidate)
    listings = McpListings(sessions, registry, changed=catalogs.invalidate)

    async def read_first(integration: Integration) -> None:
        await (listings if integration.protocol == "mcp" else capabilities).read(integration)

    traffic = Traffic(settings.traffic_rules, Breaker(settings.breaker_rules))
    first = FirstListings(catalogs, read_first, traffic.count, _log_fault)
    queue, news = SqlCallQueue(database, ring), News()
    front = None
    if background:
        front = Background(queue, news, wait_s=settings.queue_wait, new_id=lambda: f"c_{new_id()}")
    approvals = SqlApprovals(database, ring)
    gateway = Gateway(
        catalogs,
        Sending(
            upstream,
            sessions,
            Cursors(ring.derive("cursors")),
            call_keys,
            Gate(approvals, history.change),
            catalogs,
            _MAX_ANSWER_BYTES,
        ),
        reader,
        sessions,
        LongResults(results, _log_fault, patience),
        GatewayRules(settings.result_budget, settings.record_arguments),
        traffic,
        first,
        log_fault=_log_fault,
        record=record,
        background=front,
        tracer=traces,
    )
    make_writer = partial(
        Writer,
        registry,
        secrets,
        CheckRules(network, settings.tool_name_max, settings.stdio_allow, settings.public_url, own_identity, way.hosts),
        allowed=settings.allowed_secret_paths,
        prefix=settings.secret_prefix,
        changed=catalogs.invalidate,
    )
    writer = make_writer()
    admin_rules = AdminRules(settings.tool_name_max, settings.test_requires)
    health = HealthProbe(upstream, reader, parts_of, sessions, traffic.breaker)
    parts = (gateway, health, admin_rules, make_tools, history, listings, capabilities)
    admin = Admin(registry, catalogs, writer, *parts)
    file_admin = Admin(registry, catalogs, make_writer(builtin=True), *parts)
    auth_admin = AuthAdmin(
        admin, registry, writer, parts_of, prefix=settings.secret_prefix, public_url=settings.public_url
    )
    importer = Importer(admin, settings.tool_name_max, connecting, withhold_suspicious=withhold)
    toolbox = Toolbox(
        catalogs,
        gateway,
        Desk(admin, importer, results, settings.inline_secrets_over_mcp),
        ReadingOn(results, front),
        page_size=settings.tools_page_size,
        tool_mode=settings.tool_mode,
        pinned=settings.pinned_tools,
    )
    keys = Keys(key_store, patience=patience)
    access, trusted = _open_access(settings, registry, way)
    resources = ProtectedResources(settings.public_url, settings.identity_providers) if access else None
    app = App(
        settings,
        upstream,
        registry,
        secrets,
        keys,
        Bearer(keys, access, resources, GuessLimit()),
        resources,
        key_store,
        catalogs,
        gateway,
        admin,
        file_admin,
        auth_admin,
        KeyAdmin(keys, key_store, registry, history),
        SecretAdmin(registry, secrets, settings.secret_prefix, history, reader.forget),
        importer,
        ApprovalAdmin(approvals, history.change),
        approvals,
        writer,
        toolbox,
        Announcements(),
        history,
        queue,
        front,
        Worker(queue, gateway, catalogs, key_store, news, record) if background else None,
        metrics,
        (results, call_keys, queue, approvals),
    )
    return app, [
        first.aclose,
        listings.aclose,
        sessions.aclose,
        tokens.aclose,
        reader.aclose,
        upstream.aclose,
        *trusted,
        patience.aclose,
        keys.write_used,
        history.close,
        *closing,
    ]


def _open_access(
    settings: Settings, registry: SqlRegistry, way: WayOut
) -> tuple[AccessTokens | None, list[Callable[[], Awaitable[None]]]]:
    """What checks access tokens, with what closes it; None where no identity provider is trusted."""
    if not settings.identity_providers:
        return None, []
    issuers, upstream = issuers_of(settings, way)
    access = AccessTokens(issuers, registry.workspace_id)
    return access, [access.aclose, upstream.aclose]


def issuers_of(settings: Settings, way: WayOut) -> tuple[list[Issuer], Upstream]:
    """The identity providers, and the upstream that asks them, to be closed after them."""
    # The operator named these hosts, so they may be on his own network; what must never be reached isn't reached here either.
    network = NetworkPolicy(allow_private=True)
    upstream = Upstream(
        network, engine=HttpEngine(network, way=replace(way, hosts=ALL_HOSTS), user_agent=f"integrations-mcp/{VERSION}")
    )
    private_allowed = settings.private_networks is not False
    issuers = [Issuer(p, IssuerKeys(p, upstream, private_allowed=private_allowed)) for p in settings.identity_providers]
    return issuers, upstream


def _log_fault(call_id: str, fault: BaseException) -> None:
    if isinstance(fault, StorageUnavailable):
        log.warning("a call misses the registry", call_id=call_id, reason=fault.message)
        return
    # The type and place only: an exception's text can hold what the call was about.
    log.error("call failed by a fault of the gateway", call_id=call_id, fault=type(fault).__name__, exc_info=fault)
