"""Imports as a management operation: read the source off the event loop, plan, tell, and write through the same checks as a person."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio
import anyio.to_process
import orjson

from tools.admin import Admin
from tools.callers import Caller
from tools.errors import CallError, Forbidden, InvalidRequest, Issue, NotFound
from tools.importers.frame import MAX_BYTES, Choice, Source, SourceFault
from tools.importers.plan import Plan, plan_import
from tools.importers.requests import ImportAnswer, ImportedEndpoint, ImportRequest, NotImported
from tools.importers.wording import integration_name
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
from tools.upstream import Limits, Request, Upstream

MANY_TOOLS = 60
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
        upstream: Upstream,
        tool_name_max: int,
        read: Callable[[bytes, str], Awaitable[Source]] = in_a_process,
    ) -> None:
        self._admin, self._upstream, self._limit, self._read = admin, upstream, tool_name_max, read

    async def run(self, caller: Caller, request: ImportRequest) -> ImportAnswer:
        """A preview, or the import. Raises InvalidRequest (also where `url` can't be fetched), Forbidden, and what a write raises."""
        if not (caller.may("Integration.create") or caller.may("Integration.update")):
            raise Forbidden("an import needs the permission Integration.create or Integration.update")
        try:
            source, auth = await self._source(caller, request)
        except SourceFault as e:
            raise InvalidRequest([Issue(("body",), str(e), "source")]) from None
        if request.base_url:
            source = replace(source, base_url=request.base_url)
        name = request.name or integration_name(source.title)
        try:
            stored = await self._admin.get(caller, name)
        except NotFound:
            return await self._create(caller, request, source, auth, name)
        return await self._update(caller, request, source, stored)

    # ------------------------------------------------------------------ reading

    async def _source(self, caller: Caller, request: ImportRequest) -> tuple[Source, AuthConfigWithSecrets | None]:
        if sum(x is not None for x in (request.url, request.document, request.curl)) != 1:
            raise SourceFault("give exactly one of url, document and curl")
        if request.curl is not None:
            from tools.importers.curl import read_curl

            found = read_curl(request.curl)
            return found.source, request.auth or found.auth
        if request.url is not None:
            data, where = await self._fetch(caller, request.url), request.url
        else:
            given = request.document
            data, where = given.encode() if isinstance(given, str) else orjson.dumps(given), ""
        source = await self._read(data, where)
        return source, request.auth or _with_secret(source.auth, request)

    async def _fetch(self, caller: Caller, url: str) -> bytes:
        asked = Request("GET", url, (("Accept", "application/json, application/yaml, */*;q=0.5"),))
        try:
            answer = await self._upstream.send(asked, pool=caller.workspace, limits=Limits(_FETCH_S, MAX_BYTES))
        except CallError as e:
            raise SourceFault(f"the document can't be fetched: {e.message}") from None
        if answer.status != 200:
            raise SourceFault(f"the document's server answered {answer.status}")
        return answer.body

    # ------------------------------------------------------------------ writing

    async def _create(
        self, caller: Caller, request: ImportRequest, source: Source, auth: AuthConfigWithSecrets | None, name: str
    ) -> ImportAnswer:
        plan = self._plan(source, request, None, name)
        body = {
            "name": name,
            "display_name": request.display_name or source.title[:256],
            "protocol": source.protocol,
            "base_url": source.base_url,
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
        if source.base_url and source.base_url.rstrip("/") != stored.base_url.rstrip("/") and request.curl is None:
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
        choice = Choice(request.tags, request.paths, request.methods, request.operations, request.names)
        if choice.is_everything and stored is None and source.default is not None:
            choice = source.default
        single = request.curl is not None
        if single and stored is not None:
            source = _at(source, stored.base_url)
        endpoints = stored.endpoints if stored is not None else None
        return plan_import(source, choice, endpoints, name, self._limit, prune=request.prune, whole=not single)


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
            "counts": {**counts, "left_out": len(source.left_out)},
            "tokens": sum(row.tokens for row in in_list),
            "warnings": warnings,
            "problems": problems,
        }
    )
