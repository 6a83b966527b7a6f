"""How each guard is switched off, in a test build: the names that attempts use, and what is replaced by nothing.

Where a guard has several layers (written, called, dialed), all are off together: one alone must already stop an attempt.
"""

import re
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest

Off = Callable[[pytest.MonkeyPatch], None]
GUARDS: dict[str, Off] = {}


def guard(name: str) -> Callable[[Off], Off]:
    def known(off: Off) -> Off:
        GUARDS[name] = off
        return off

    return known


def _none(*_: Any, **__: Any) -> None:
    return None


def _true(*_: Any, **__: Any) -> bool:
    return True


def _empty(*_: Any, **__: Any) -> list[Any]:
    return []


ANYTHING = re.compile(r"(?s).*")
NOTHING = re.compile(r"(?!)")


# --------------------------------------------------------------------------- network


@guard("address guard")
def addresses(patch: pytest.MonkeyPatch) -> None:
    """Written, called, resolved, dialed; names and spellings go to the resolver, which reads them all."""
    for place in ("tools.checks.check_url", "tools.upstream.check_url", "tools.credentials.token_url.check_url"):
        patch.setattr(place, _none)
    patch.setattr("tools.dialing.judge", _none)
    patch.setattr("tools.dialing.Dialer._reason", _none)
    patch.setattr("tools.dialing.spelled_address", _none)


@guard("URL shape")
def shapes(patch: pytest.MonkeyPatch) -> None:
    """User parts, odd characters and odd ports; the address guard reads URLs too, so it is off as well."""
    addresses(patch)
    patch.setattr("tools.checks.base_url_fault", _none)
    patch.setattr("tools.kinds.rest.base_url_fault", _none)
    patch.setattr("tools.credentials.token_url.url_fault", _none)
    patch.setattr("tools.credentials.request_faults.url_fault", _none)
    patch.setattr("tools.credentials.smart_discovery.url_fault", _none)
    patch.setattr("tools.upstream._FINISHED_URL", ANYTHING)


@guard("https for credentials")
def https_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tools.credentials.token_url._http_allowed", _true)
    patch.setattr("server.issuer_keys.may_fetch", _true)


@guard("redirect rules")
def redirects(patch: pytest.MonkeyPatch) -> None:
    """As a client that replays everything at whatever Location says."""
    from dataclasses import replace

    from tools.upstream import _location  # pyright: ignore[reportPrivateUsage]

    def follow(request: Any, answer: Any, limits: Any, hops: int) -> Any:
        where = _location(request.url, answer.headers["Location"])
        if where is None or hops > 20:
            raise AssertionError("it goes round")
        return replace(request, url=where)

    patch.setattr("tools.upstream._redirected", follow)


@guard("next link stays under the base")
def next_links(patch: pytest.MonkeyPatch) -> None:
    from urllib.parse import urljoin

    patch.setattr(
        "tools.kinds.fhir.calling.followed", lambda link, url, base, rebase: urljoin(url, link.replace(" ", "%20"))
    )
    patch.setattr("tools.kinds.fhir.calling._holds", _true)


@guard("messages go to the stream's origin")
def sse_origin(patch: pytest.MonkeyPatch) -> None:
    from urllib.parse import urljoin

    patch.setattr("tools.kinds.mcp.old_sse.SseLink._same_origin", lambda self, named: urljoin(self._target.url, named))


@guard("hop count")
def hops(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tools.gateway.MAX_HOPS", 10**9)


@guard("Google's own hosts")
def google(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tools.credentials.external_account._is_impersonation", _true)
    patch.setattr("tools.credentials.external_account._host_faults", _empty)


@guard("TLS verification")
def tls(patch: pytest.MonkeyPatch) -> None:
    import ssl

    from tools.way_out import WayOut

    patch.setattr(WayOut, "context", lambda *_: ssl._create_unverified_context())


@guard("no proxy from the environment")
def proxies(patch: pytest.MonkeyPatch) -> None:
    """As clients do that read HTTP_PROXY."""
    import os

    import httpx2

    from tests.httpx_engine import HttpxEngine
    from tools.engine import HttpEngine

    async def exchange(self: Any, request: Any, *, pool: str, max_bytes: int, wire: Any) -> Any:
        engine = HttpxEngine(httpx2.AsyncHTTPTransport(proxy=httpx2.Proxy(os.environ["HTTP_PROXY"])))
        try:
            return await engine.exchange(request, pool=pool, max_bytes=max_bytes, wire=wire)
        finally:
            await engine.aclose()

    patch.setattr(HttpEngine, "exchange", exchange)


@guard("the operator's list of hosts")
def host_list(patch: pytest.MonkeyPatch) -> None:
    from tools.host_list import HostList

    patch.setattr(HostList, "allows", _true)


@guard("a proxy is asked for addresses")
def tunnels(patch: pytest.MonkeyPatch) -> None:
    """As clients do that leave names to the proxy."""
    from tools.dialing import Dialer
    from tools.way_out import Proxy

    async def unresolved(self: Any, host: str, port: int) -> list[str]:
        return [host]

    patch.setattr(Dialer, "_addresses", unresolved)
    patch.setattr(Dialer, "_reason", _none)
    patch.setattr(Proxy, "stands_before", _true)
    patch.setattr("tools.way_out.ip_address", lambda host: host)


@guard("the proxy's password is the proxy's")
def proxy_password(patch: pytest.MonkeyPatch) -> None:
    """As errors do that name the proxy's URL."""
    from tools.way_out import Proxy

    status = Proxy._status  # pyright: ignore[reportPrivateUsage]

    async def told(self: Any, loop: Any, sock: Any) -> int:
        from tools.exchange import ConnectFailed

        found = await status(self, loop, sock)
        if found != 200:
            raise ConnectFailed(f"http://{self.credentials}@{self.host}:{self.port} answers {found}")
        return found

    patch.setattr(Proxy, "_status", told)


@guard("certificates for named origins")
def certificates(patch: pytest.MonkeyPatch) -> None:
    from tools.way_out import WayOut

    patch.setattr(WayOut, "context", lambda self, *_: next(iter(self.shown.values()), self.tls))


@guard("connections of one workspace")
def pools(patch: pytest.MonkeyPatch) -> None:
    from tools.engine import HttpEngine

    acquire = HttpEngine._acquire  # pyright: ignore[reportPrivateUsage]
    patch.setattr(HttpEngine, "_acquire", lambda self, url, pool: acquire(self, url, "one for all"))


# --------------------------------------------------------------------------- what an argument may become


@guard("path values")
def path_values(patch: pytest.MonkeyPatch) -> None:
    """An empty or climbing value becomes a segment like any other."""
    patch.setattr("tools.kinds.paths.value_fault", _none)
    patch.setattr("tools.kinds.paths._has_dots", lambda path: False)


@guard("path templates")
def path_templates(patch: pytest.MonkeyPatch) -> None:
    from tools.kinds.paths import PathTemplate

    def lenient(path: str) -> PathTemplate:
        return PathTemplate((path,), (), path.count("/"))

    for place in ("tools.kinds.rest.parse_path", "tools.checks.parse_path", "tools.tool.parse_path"):
        patch.setattr(place, lenient)
    patch.setattr("tools.kinds.rest._places", lambda endpoint, path, schema: ({}, []))
    patch.setattr("tools.upstream._FINISHED_URL", ANYTHING)


@guard("header values")
def header_values(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tools.kinds.rest._HEADER_VALUE", ANYTHING)
    patch.setattr("tools.upstream._NOT_IN_VALUE", NOTHING)


@guard("header names")
def header_names(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tools.kinds.rest.header_name_fault", _none)
    patch.setattr("tools.credentials.api_key_header.header_fault", _none)
    patch.setattr("tools.upstream._may_be_sent", _true)
    patch.setattr("tools.schemas._check_argument", _empty)


@guard("encoding of queries and forms")
def queries(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tools.kinds.rest._quoted", lambda text, encode: text.replace(" ", "+").replace("\n", "%0A"))


@guard("schemas of arguments")
def arguments(patch: pytest.MonkeyPatch) -> None:
    """Whatever comes goes out."""
    from tools.arguments import Arguments, Prepared

    patch.setattr(Arguments, "prepare", lambda self, args: Prepared({**self._fixed, **args}))


@guard("template guard")
def templates(patch: pytest.MonkeyPatch) -> None:
    """Budgets and refusals; the attempts are small enough that nothing breaks without them."""
    patch.setattr("tools.templates.check", _none)
    patch.setattr("tools.templates.FUEL", 10**9)
    patch.setattr("tools.templates._Meter.pay", _none)
    patch.setattr("tools.templates.MAX_RANGE", 10**9)
    patch.setattr("tools.templates.MAX_INDENT", 10**9)
    patch.setattr("tools.templates.MULTIPLIERS", ())


@guard("expression budget")
def expressions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tools.expressions.Budget.pay", _none)
    patch.setattr("tools.expressions.MAX_NODES", 10**9)
    patch.setattr("tools.expressions._Interpreter._limit", _none)
    patch.setattr("tools.expressions.MAX_EXPRESSION_CHARS", 10**9)
    visit = _unbounded_visit()
    patch.setattr("tools.expressions._Interpreter.visit", visit)


def _unbounded_visit() -> Any:
    def visit(self: Any, node: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, f"visit_{node['type']}")(node, *args)

    return visit


# --------------------------------------------------------------------------- who is calling


def _as(change: Callable[[Any], Any]) -> Off:
    """Callers come in as `change` makes them."""

    def off(patch: pytest.MonkeyPatch) -> None:
        from server.bearer import Bearer

        real = Bearer.caller

        async def caller(self: Any, headers: Any, client: Any, path: str) -> Any:
            return change(await real(self, headers, client, path))

        patch.setattr(Bearer, "caller", caller)

    return off


def _replaced(**fields: Any) -> Callable[[Any], Any]:
    from dataclasses import replace

    return lambda caller: replace(caller, **fields)


def _permitted(caller: Any) -> Any:
    from tools.callers import ALL_PERMISSIONS

    return _replaced(permissions=ALL_PERMISSIONS, role="owner")(caller)


GUARDS["a key's workspace"] = _as(_replaced(workspace="acme"))
GUARDS["a key's permissions"] = _as(_permitted)
GUARDS["a key's narrowing"] = _as(_replaced(integrations=None, tools=None))


@guard("authentication")
def authentication(patch: pytest.MonkeyPatch) -> None:
    from server.bearer import Bearer
    from tools.callers import local_caller
    from tools.errors import RateLimited, Unauthenticated

    real = Bearer.caller

    async def caller(self: Any, headers: Any, client: Any, path: str) -> Any:
        try:
            return await real(self, headers, client, path)
        except (Unauthenticated, RateLimited):
            return local_caller("acme")

    patch.setattr(Bearer, "caller", caller)


@guard("rows of one workspace")
def rows(patch: pytest.MonkeyPatch) -> None:
    """Every query finds rows of all workspaces."""
    from server.store import approvals, background, integrations, keys
    from server.store.tables import api_keys, background_calls
    from server.store.tables import approvals as approval_rows
    from server.store.tables import integrations as integration_rows

    select = integrations._of  # pyright: ignore[reportPrivateUsage]
    patch.setattr(integrations, "_of", lambda workspace: _unfiltered(select(workspace)))
    patch.setattr(integrations, "_one", lambda workspace, id: (integration_rows.c.id == id,))
    for module, table in ((keys, api_keys), (approvals, approval_rows), (background, background_calls)):
        real = module.key_of
        patch.setattr(
            module, "key_of", lambda ws, table=table, real=real: table.c.workspace if ws == "globex" else real(ws)
        )


def _unfiltered(query: Any) -> Any:
    from sqlalchemy import true

    query._where_criteria = (true(),)
    return query


# --------------------------------------------------------------------------- what belongs to one caller


@guard("sealed results")
def results(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("server.store.results._bound_to", lambda *of: b"anybody")


@guard("sealed cursors")
def cursors(patch: pytest.MonkeyPatch) -> None:
    from tools.cursors import Cursors
    from tools.errors import InvalidArguments

    opened = Cursors.open

    def open_any(self: Any, cursor: str, of: Any, arguments: Any) -> str:
        try:
            return opened(self, cursor, of, arguments)
        except InvalidArguments:
            return b64decode(cursor).decode()

    patch.setattr("tools.cursors._bound", lambda *of: b"anybody")
    patch.setattr(Cursors, "open", open_any)


@guard("calls of one caller")
def background_calls(patch: pytest.MonkeyPatch) -> None:
    from server.store.background import SqlCallQueue
    from server.store.tables import background_calls as table

    async def get(self: Any, workspace: str, caller: str, id: str, now: Any) -> Any:
        from sqlalchemy import select

        async with self._database.read() as connection:
            row = (await connection.execute(select(table).where(table.c.id == id))).first()
        return self._opened(row)

    patch.setattr(SqlCallQueue, "get", get)


@guard("idempotency keys of one caller")
def idempotency(patch: pytest.MonkeyPatch) -> None:
    from tools.idempotency import KeyUse, _hashed  # pyright: ignore[reportPrivateUsage]

    patch.setattr(KeyUse, "of", classmethod(lambda cls, ws, caller, i, e, key, arguments: cls(_hashed(key), "same")))


@guard("what an approval is bound to")
def approval_binding(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tools.approvals._bound", lambda caller, tool, values: tool.name)


@guard("approval gate")
def approval_gate(patch: pytest.MonkeyPatch) -> None:
    from tools.tool import Tool

    patch.setattr(Tool, "needs_approval", False)


@guard("announcements of one workspace")
def announcements(patch: pytest.MonkeyPatch) -> None:
    from server.announcements import _WorkspaceBus  # pyright: ignore[reportPrivateUsage]

    patch.setattr(_WorkspaceBus, "subscribe", lambda self, listener: self._bus.subscribe(listener))


@guard("sessions of one key")
def sessions(patch: pytest.MonkeyPatch) -> None:
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
    from mcp.server.auth.provider import AccessToken

    from server.http import HttpApp

    one = AuthenticatedUser(AccessToken(token="-", client_id="everybody", scopes=[], subject="acme"))
    patch.setattr(HttpApp, "_user_of", lambda self, caller: one)


@guard("Host and Origin")
def hosts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("server.hosts_allowed.AllowedHosts.refusal", _none)


@guard("guesses are counted")
def guesses(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("server.auth.GuessLimit.check", _none)


# --------------------------------------------------------------------------- what an upstream says of its tools


@guard("suspicious texts are withheld")
def suspicious(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tools.kinds.mcp.mcp_tool.suspicions_of_tool", _empty)
    patch.setattr("tools.importers.scanning.suspicions_of_tool", _empty)


@guard("our keywords are the operator's")
def keywords(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tools.kinds.mcp.described._OWN_KEYWORDS", frozenset())


@guard("only the operator calls a tool read-only")
def read_only(patch: pytest.MonkeyPatch) -> None:
    from tools.kinds.mcp.mcp_tool import McpTool

    patch.setattr(McpTool, "is_surely_read_only", property(lambda self: self.hints.read_only))


@guard("changed tools are withdrawn")
def changed(patch: pytest.MonkeyPatch) -> None:
    from tools.kinds.mcp import mcp_tool

    pairs = mcp_tool._pairs  # pyright: ignore[reportPrivateUsage]
    patch.setattr(mcp_tool, "_pairs", lambda integration, listing, on_change: pairs(integration, listing, "report"))


@guard("hidden characters")
def hidden(patch: pytest.MonkeyPatch) -> None:
    """In `visible` itself, which every text of an upstream passes; what isn't printable is no word of an
    error either."""
    patch.setattr("tools.hidden_text._CONTROLS", b"")
    patch.setattr("tools.hidden_text._PLAIN", ANYTHING)
    patch.setattr("tools.error_text._words", lambda error: f": {error.said}" if error.said else "")


@guard("questions are bounded forms")
def questions(patch: pytest.MonkeyPatch) -> None:
    from tools.kinds.mcp.questions import Interview

    patch.setattr(Interview, "questions", lambda self, result: dict(result))
    patch.setattr("tools.kinds.mcp.calling.MAX_ROUNDS", 10**6)


@guard("masking")
def masking(patch: pytest.MonkeyPatch) -> None:
    from tools.masking import Masker

    for name in ("body", "text", "value"):
        patch.setattr(Masker, name, lambda self, value: value)


# --------------------------------------------------------------------------- sizes


@guard("strict bodies")
def bodies(patch: pytest.MonkeyPatch) -> None:
    import json

    async def anything(request: Any, limit: int) -> Any:
        return json.loads((await request.body()).decode("utf-8", "replace"))

    patch.setattr("server.rest.answering.read_json", anything)


@guard("size of answers")
def sizes(patch: pytest.MonkeyPatch) -> None:
    from tools.connection import Exchange

    limit = Exchange.limit
    patch.setattr(Exchange, "limit", lambda self, max_bytes: limit(self, 10**12))


# --------------------------------------------------------------------------- FHIR


@guard("bodies that would lose data")
def subsetted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tools.kinds.fhir.requests.FhirRequests._check_body", lambda self, sent: None)


@guard("conditions are searches")
def conditions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tools.kinds.fhir.requests._condition", lambda text: text)


@guard("includes have an end")
def includes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tools.kinds.fhir.requests._endless", lambda name: None)


@guard("generated narratives are left out")
def narratives(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tools.kinds.fhir.bundles._plain", lambda resource: resource)
