"""Imports as a management operation: read the source off the event loop, plan, tell, and write through the same checks as a person."""

import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_process

from tools.admin import Admin
from tools.callers import Caller
from tools.checks import inline_values
from tools.errors import CallError, Forbidden, InvalidRequest, Issue, NotFound
from tools.importers.frame import MAX_BYTES, Choice, Source, SourceFault
from tools.importers.live import LiveSources, Read
from tools.importers.plan import Plan, plan_import
from tools.importers.requests import ImportAnswer, ImportedEndpoint, ImportRequest, NotImported
from tools.importers.scanning import scanned
from tools.importers.wording import integration_name
from tools.kinds.mcp.connecting import Connecting
from tools.kinds.rest import to_json
from tools.models import (
    INLINE_SECRETS,
    MAX_ENDPOINTS,
    AuthConfig,
    AuthConfigWithSecrets,
    CreateIntegrationRequest,
    Integration,
    UpdateIntegrationRequest,
)
from tools.parsing import parse
from tools.upstream import Limits, Request

MANY_TOOLS = 60
_SOURCES = ("url", "document", "curl", "fhir", "mcp_url", "mcp_command")
_LIVE = frozenset({"fhir", "mcp_url", "mcp_command"})
_FETCH_S = 60.0
_READ_S = 120.0
_SECRET_OF = {
    "api_key_header": "api_key_value",
    "bearer_token": "bearer_token_value",
    "oauth2_client_credentials": "client_secret_value",
}


async def in_a_process(data: bytes, where: str) -> Source:
    """A hostile document costs a process that is ended, never the gateway. Raises SourceFault."""
    from tools.importers.reading import read_source  # with its YAML, which nobody else waits for

    try:
        with anyio.fail_after(_READ_S):
            return await anyio.to_process.run_sync(read_source, data, where, cancellable=True)
    except TimeoutError:
        raise SourceFault(f"reading the document takes longer than {_READ_S:g} s") from None
    except anyio.BrokenWorkerProcess:
        raise SourceFault("reading the document takes more than this machine has") from None


class Importer:
    """`read` turns bytes into a source."""

    def __init__(
        self,
        admin: Admin,
        tool_name_max: int,
        connecting: Connecting,
        read: Read = in_a_process,
        *,
        withhold_suspicious: bool = False,
    ) -> None:
        self._admin, self._limit, self._read, self._withhold = admin, tool_name_max, read, withhold_suspicious
        self.connecting, self._live = connecting, LiveSources(connecting, read)

    async def run(self, caller: Caller, request: ImportRequest, *, for_model: bool = False) -> ImportAnswer:
        """A preview, or the import. Raises InvalidRequest (also where `url` can't be fetched), Forbidden, and what a write raises.

        `for_model`: what a server that can't be asked says for operators only is left out.
        """
        if not (caller.may("Integration.create") or caller.may("Integration.update")):
            raise Forbidden("an import needs the permission Integration.create or Integration.update")
        try:
            given = [x for x in _SOURCES if getattr(request, x) is not None]
            if len(given) != 1:
                raise SourceFault(f"give exactly one of {', '.join(_SOURCES)}")
            if given[0] in _LIVE:
                may_see = caller.may("Integration.update")
                return await self._run_live(caller, request, for_model=for_model or not may_see)
            source, auth = await self._source(caller, request)
            source = scanned(source, withhold=self._withhold)
        except SourceFault as e:
            raise InvalidRequest([Issue(("body",), str(e), "source")]) from None
        if request.base_url:
            source = replace(source, base_url=request.base_url)
        name = request.name or integration_name(source.title)
        stored = await self._stored(caller, name)
        if stored is None:
            return await self._create(caller, request, source, auth, name, {"base_url": source.base_url})
        return await self._update(caller, request, source, stored)

    async def _stored(self, caller: Caller, name: str) -> Integration | None:
        try:
            return await self._admin.get(caller, name)
        except NotFound:
            return None

    # ------------------------------------------------------------------ running servers

    async def _run_live(self, caller: Caller, request: ImportRequest, *, for_model: bool) -> ImportAnswer:
        """A new integration is checked as a create would check it before anything is asked; one that is there is asked with
        what it has. Raises SourceFault too."""
        if request.base_url is not None or request.client_id is not None:
            raise SourceFault("base_url and client_id are for documents: the server's URL and auth say it all")
        auth = request.auth
        if request.secret is not None:
            if auth is not None:
                raise SourceFault("give auth, or secret (a bearer token), not both")
            auth = AuthConfigWithSecrets(type="bearer_token", bearer_token_value=request.secret)
        stored = await self._stored(caller, request.name) if request.name else None
        if stored is not None:
            await self._admin.update(caller, stored.id, UpdateIntegrationRequest(), validate_only=True)
            _same_server(request, stored)
            source = await self._asked(stored, {}, for_model=for_model)
            return await self._update(caller, request, source, stored)
        faults: list[SourceFault] = []
        for fields in _server_fields(request):
            body = {**fields, "name": request.name or f"import-{uuid.uuid4().hex}", "display_name": "import"}
            asked = parse(CreateIntegrationRequest, {**body, "auth": auth})
            draft = (await self._admin.create(caller, asked, validate_only=True)).after
            given = {str(getattr(draft.auth, path)): value for path, value in inline_values(auth).items()}
            try:
                source = await self._asked(draft, given, for_model=for_model)
            except SourceFault as e:
                faults.append(e)
                continue
            name = request.name or integration_name(source.title)
            if (there := await self._stored(caller, name)) is not None:
                _same_server(request, there)
                return await self._update(caller, request, source, there)
            return await self._create(caller, request, source, auth, name, fields)
        raise faults[0]

    async def _asked(self, integration: Integration, given: Mapping[str, str], *, for_model: bool) -> Source:
        """Raises SourceFault."""
        source = await self._live.ask(integration, given, with_detail=not for_model)
        return scanned(source, withhold=self._withhold)

    # ------------------------------------------------------------------ reading

    async def _source(self, caller: Caller, request: ImportRequest) -> tuple[Source, AuthConfigWithSecrets | None]:
        if request.curl is not None:
            from tools.importers.curl import read_curl

            found = read_curl(request.curl)
            return found.source, request.auth or found.auth
        if request.url is not None:
            data, where = await self._fetch(caller, request.url), request.url
        else:
            given = request.document
            data, where = given.encode() if isinstance(given, str) else to_json(given), ""
        source = await self._read(data, where)
        return source, request.auth or _with_secret(source.auth, request)

    async def _fetch(self, caller: Caller, url: str) -> bytes:
        asked = Request("GET", url, (("Accept", "application/json, application/yaml, */*;q=0.5"),))
        try:
            answer = await self.connecting.upstream.send(
                asked, pool=caller.workspace, limits=Limits(_FETCH_S, MAX_BYTES)
            )
        except CallError as e:
            detail = f" ({e.detail})" if e.detail and caller.may("Integration.update") else ""
            raise SourceFault(f"the document can't be fetched: {e.message}{detail}") from None
        if answer.status != 200:
            raise SourceFault(f"the document's server answered {answer.status}")
        return answer.body

    # ------------------------------------------------------------------ writing

    async def _create(
        self,
        caller: Caller,
        request: ImportRequest,
        source: Source,
        auth: AuthConfigWithSecrets | None,
        name: str,
        fields: Mapping[str, Any],
    ) -> ImportAnswer:
        """`fields` are those that say what server it is."""
        plan = self._plan(source, request, None, name)
        body = {
            **fields,
            "name": name,
            "display_name": request.display_name or source.title[:256],
            "protocol": source.protocol,
            "endpoints": [e.model_dump(mode="json") for e in plan.endpoints],
            "enabled": request.enabled,
            "auth": auth,
        }
        problems: list[str] = []
        id: str | None = None
        try:
            _check_count(plan)
            asked = parse(CreateIntegrationRequest, body)
            written = await self._admin.create(caller, asked, validate_only=not request.apply)
            id = written.after.id if request.apply else None
        except InvalidRequest as e:
            if request.apply:
                raise
            problems = [f"{'.'.join(map(str, i.loc[1:]))}: {i.msg}" for i in e.issues]
        warnings = [] if auth else [*source.warnings]
        if plan.others:
            chosen = "the default choice" if _choice(request).is_everything else "the choice"
            warnings.append(f"{plan.others} more operations are outside of {chosen}: {_tags_outside(source, plan)}")
        return _answer(
            source, plan, name, id, "create", request, request.enabled, auth or source.auth, [*warnings], problems
        )

    async def _update(
        self, caller: Caller, request: ImportRequest, source: Source, stored: Integration
    ) -> ImportAnswer:
        name = stored.name

        def change(now: Integration) -> UpdateIntegrationRequest:
            plan = self._plan(source, request, now, name)
            _check_count(plan)
            return UpdateIntegrationRequest(endpoints=plan.endpoints)

        plan = self._plan(source, request, stored, name)
        warnings: list[str] = []
        elsewhere = source.base_url.rstrip("/") != stored.base_url.rstrip("/")
        if source.base_url and elsewhere and request.curl is None and source.protocol != "mcp":
            warnings.append(f"its base_url stays {stored.base_url}; the document says {source.base_url}")
        if source.auth is not None and stored.auth is None:
            warnings.append(f"the source signs its calls ({source.auth.type}); this integration has no auth")
        changed = plan.endpoints != stored.endpoints
        problems: list[str] = []
        if changed:
            try:
                await self._admin.update(caller, stored.id, change, validate_only=not request.apply)
            except InvalidRequest as e:
                if request.apply:
                    raise
                problems = [f"{'.'.join(map(str, i.loc[1:]))}: {i.msg}" for i in e.issues]
        done = "update" if changed else "none"
        return _answer(source, plan, name, stored.id, done, request, stored.enabled, stored.auth, warnings, problems)

    def _plan(self, source: Source, request: ImportRequest, stored: Integration | None, name: str) -> Plan:
        choice = _choice(request)
        if choice.is_everything and stored is None and source.default is not None:
            choice = source.default
        single = request.curl is not None
        if single and stored is not None:
            source = _at(source, stored.base_url)
        endpoints = stored.endpoints if stored is not None else None
        return plan_import(source, choice, endpoints, name, self._limit, prune=request.prune, whole=not single)


def _choice(request: ImportRequest) -> Choice:
    return Choice(request.tags, request.paths, request.methods, request.operations, request.names)


def _server_fields(request: ImportRequest) -> list[dict[str, Any]]:
    """The fields of an integration that say what server it is, the likeliest first: a URL may speak either transport."""
    if request.fhir is not None:
        return [{"protocol": "fhir", "base_url": request.fhir.rstrip("/").removesuffix("/metadata")}]
    more = {name: getattr(request, name) for name in ("mcp_args", "mcp_headers", "mcp_env") if getattr(request, name)}
    if request.mcp_command is not None:
        return [{"protocol": "mcp", "mcp_transport": "stdio", "mcp_command": request.mcp_command, **more}]
    old = urlsplit(request.mcp_url or "").path.rstrip("/").endswith("/sse")
    transports = [request.mcp_transport] if request.mcp_transport else ["sse", "http"] if old else ["http", "sse"]
    return [{"protocol": "mcp", "mcp_transport": t, "mcp_url": request.mcp_url, **more} for t in transports]


def _same_server(request: ImportRequest, stored: Integration) -> None:
    """What is stored is asked with its own credential, so never anything else. Raises SourceFault."""
    if request.auth is not None or request.secret is not None or request.mcp_headers or request.mcp_env:
        raise SourceFault(f"{stored.name} is there and is asked with what it has: change its auth by an update")
    asked = _server_fields(request)[0]
    url = asked.get("base_url") or asked.get("mcp_url") or asked.get("mcp_command")
    there = stored.base_url.rstrip("/") if stored.protocol == "fhir" else stored.mcp_url or stored.mcp_command
    same = stored.protocol == asked["protocol"] and url == there
    if not same or (request.mcp_command is not None and (request.mcp_args or ()) != (stored.mcp_args or ())):
        raise SourceFault(f"{stored.name} is {stored.protocol} at {there} already: give another name for this one")


def _tags_outside(source: Source, plan: Plan) -> str:
    told = {row.operation for row in plan.rows}
    tags = Counter(tag for c in source.candidates if c.key not in told for tag in c.tags)
    named = ", ".join(f"{tag} ({count})" for tag, count in tags.most_common(40))
    return named + (", ..." if len(tags) > 40 else "") if tags else "choose by path, method or name"


def _with_secret(auth: AuthConfig | None, request: ImportRequest) -> AuthConfigWithSecrets | None:
    """What the document says with the secret that was given for it; None without one: it can't be stored."""
    if request.secret is None:
        return None
    if auth is None:
        raise SourceFault("the document says no auth that can be used, so the secret has no place: give auth")
    fields = auth.model_dump(exclude_none=True)
    if request.client_id is not None:
        fields["client_id"] = request.client_id
    return AuthConfigWithSecrets.model_validate({**fields, _SECRET_OF[auth.type]: request.secret})


def _at(source: Source, base_url: str) -> Source:
    """The endpoint of a line as one of an integration at `base_url`: below it where it lies there, else with an address of its own."""
    (candidate,) = source.candidates
    path = candidate.endpoint.path
    full, base = f"{source.base_url}{path}", base_url.rstrip("/")
    if full.startswith(base + "/"):
        endpoint = candidate.endpoint.model_copy(update={"path": full.removeprefix(base)})
    else:
        endpoint = candidate.endpoint.model_copy(update={"base_url": source.base_url})
    return replace(source, candidates=(replace(candidate, endpoint=endpoint),))


def _check_count(plan: Plan) -> None:
    if (count := len(plan.endpoints)) > MAX_ENDPOINTS:
        said = f"{count} endpoints; an integration has at most {MAX_ENDPOINTS}: choose by tag, path or name"
        raise InvalidRequest([Issue(("body", "endpoints"), said, "too_long")])


def _answer(
    source: Source,
    plan: Plan,
    name: str,
    id: str | None,
    change: str,
    request: ImportRequest,
    enabled: bool,
    auth: AuthConfig | None,
    warnings: list[str],
    problems: list[str],
) -> ImportAnswer:
    in_list: list[ImportedEndpoint] = [r for r in plan.rows if r.change in ("add", "change", "same")]
    if len(in_list) > MANY_TOOLS:
        warnings.append(f"{len(in_list)} tools are more than most agents choose from well: narrow the choice")
    counts = Counter(row.change for row in plan.rows)
    return ImportAnswer.model_validate(
        {
            "integration": name,
            "id": id,
            "change": change,
            "applied": request.apply and change != "none",
            "enabled": enabled,
            "base_url": source.base_url,
            "auth": auth.model_dump(exclude=set(INLINE_SECRETS)) if auth else None,
            "endpoints": plan.rows,
            "left_out": [NotImported(operation=row.key, why=row.why) for row in source.left_out],
            "counts": {**counts, "not_chosen": plan.others, "left_out": len(source.left_out)},
            "tokens": sum(row.tokens for row in in_list),
            "warnings": warnings,
            "problems": problems,
        }
    )
