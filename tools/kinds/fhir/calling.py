"""One FHIR call: the request, its fallbacks, the pages of a search, and what the answer means (rules G)."""

import base64
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from tools.answers import Raw, read_raw, status_error
from tools.callers import Caller
from tools.cursors import Cursors
from tools.errors import ArgumentFault, CallError, InvalidArguments, UpstreamRefused
from tools.exchange import Answer, Request
from tools.json_values import is_object
from tools.kinds.fhir.bundles import Page, ignored, is_bundle, joined, read_page
from tools.kinds.fhir.fhir_tool import FhirTool
from tools.kinds.fhir.links import followed, is_under, target_of
from tools.kinds.fhir.outcomes import explained, is_outcome
from tools.kinds.fhir.requests import FhirRequests
from tools.masking import Masker
from tools.outcome import Trace
from tools.signing import CallSigner
from tools.upstream import Attempt, Limits, Upstream, retry_after_s

MAX_PAGES = 20
_LOCATION = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/([A-Za-z0-9.-]{1,64})(?:/_history/([A-Za-z0-9.-]{1,64}))?/?$")
_PEOPLE = frozenset({"patient", "subject", "identifier", "_id"})


class Told(Protocol):
    """Who is told of progress."""

    async def __call__(self, done: float, message: str, total: float | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class FhirCall:
    """What the gateway knows of one call. `admit` raises where it may not be sent."""

    caller: Caller
    signer: CallSigner
    trace: Trace
    key: str | None
    hops: int
    progress: Told | None
    on_attempt: Callable[[Attempt], None]
    admit: Callable[[], Awaitable[None]]


class FhirCalls:
    """`max_bytes` is for all pages of a search together."""

    def __init__(self, upstream: Upstream, cursors: Cursors, max_bytes: int) -> None:
        self._upstream, self._cursors, self._max_bytes = upstream, cursors, max_bytes

    async def run(self, tool: FhirTool, values: dict[str, Any], call: FhirCall) -> Raw:
        """The raw, masked value of a success; remarks are left in the trace. Raises CallErrors."""
        requests, values = tool.ready(values)
        sent, own = requests.split(values)
        exchange = _Exchange(self._upstream, tool, call, self._max_bytes)
        if requests.kind == "search":
            raw = await self._search(tool, requests, sent, own, exchange)
        else:
            request = requests.build(sent, own, call.key, call.hops)
            exchange.idempotent = exchange.idempotent or (requests.ours == "if_none_exist" and own is not None)
            answer = await exchange.first(request)
            raw = _written(exchange, requests, answer, own)
        call.trace.raw = raw
        return raw

    async def _search(
        self, tool: FhirTool, requests: FhirRequests, sent: dict[str, Any], cursor: str | None, exchange: "_Exchange"
    ) -> Raw:
        call, base = exchange.call, requests.rest.base
        of = (call.caller.workspace, tool.integration.id, tool.endpoint.name, call.caller.id)
        fixed = requests.fixed_values(sent)
        elements = requests.derived(sent)
        if cursor is not None:
            url = requests.absolute(self._cursors.open(cursor, of, sent))
            if not is_under(url, base) or not _holds(url, fixed):
                raise InvalidArguments(
                    [ArgumentFault("cursor", "leads elsewhere now: leave it out to begin again.")], ()
                )
            answer = await exchange.first(requests.go_on(url, call.hops))
        else:
            form = requests.in_body(sent, elements)
            request = requests.build(sent, None, None, call.hops, elements=elements, form=form)
            answer = await exchange.first(request, expects=(400, 405, 415) if form or elements else ())
            if form and answer.status in (405, 415):
                form = False
                request = requests.build(sent, None, None, call.hops, elements=elements)
                answer = await exchange.again(request, expects=(400,) if elements else ())
            if elements and answer.status == 400:  # strict servers refuse what they don't know: ask for all of it
                request = requests.build(sent, None, None, call.hops, form=form)
                answer = await exchange.again(request)
            exchange.refuse(answer)
        raw = read_raw(answer, exchange.masker)
        if not is_bundle(raw.value):
            return raw
        pages, notes, following = [raw.value], list[str](), None
        page = read_page(raw.value)
        if cursor is None:
            notes += _ignored(requests, sent, page, fixed)
        seen, url = {answer.url, exchange.url}, exchange.url
        wanted, shown = requests.wanted(sent), len(page.matches)
        attempts = len(call.trace.attempts)
        while page.next is not None:
            following = followed(page.next, url, base, rebase=requests.rebase)
            if following is None or not _holds(following, fixed):
                notes.append(
                    "Paging stops here: the server's next link leads out of this integration, and isn't followed."
                )
                following = None
                break
            if following in seen:
                notes.append("Paging stops here: the server's next link leads back to a page that was read already.")
                following = None
                break
            if shown >= wanted or len(pages) >= MAX_PAGES:
                break
            try:
                answer = await exchange.page(requests.go_on(following, call.hops))
                more = read_raw(answer, exchange.masker)
            except CallError as e:
                notes.append(f"The next page could not be read [{e.full_code}].")
                break
            if not is_bundle(more.value):
                notes.append("The next page could not be read: the server sent something else.")
                break
            pages.append(more.value)
            seen.add(following)
            url, following, page = following, None, read_page(more.value)
            shown += len(page.matches)
            if call.progress is not None and shown > attempts:  # progress only grows, and attempts were told before
                total = None if page.total is None else float(max(page.total, shown))
                await call.progress(float(shown), f"page {len(pages)}: {shown} found", total)
        whole = joined(pages)
        found = read_page(whole)
        if found.warnings:
            notes.append(f"Warnings of the server: {'; '.join(found.warnings)[:1000]}")
        if following is not None:
            sealed = self._cursors.seal(target_of(following), of, sent)
            many = f"{shown} of {found.total}" if found.total is not None and cursor is None else f"{shown}"
            notes.append(f'Showing {many} matches. More: the same call with "cursor":"{sealed}".')
        call.trace.notes = tuple(notes)
        return Raw("json", whole, raw.media_type)


def _ignored(requests: FhirRequests, sent: Mapping[str, Any], page: Page, fixed: Mapping[str, Any]) -> list[str]:
    """Rules G3: said first; an error where the answer would then be about other people than was asked."""
    unused = ignored(page.self_link, requests.sent_names(sent), page.warnings)
    if not unused:
        return []
    worst = [n for n in unused if n in fixed or n.partition(":")[0].partition(".")[0] in _PEOPLE]
    if worst:
        raise UpstreamRefused(
            f"ignored the parameter {', '.join(worst)}: what it found is not narrowed by it, and is withheld"
        )
    return [f"The server ignored {', '.join(unused)}: the results are NOT narrowed by it."]


def _holds(url: str, fixed: Mapping[str, str | list[str]]) -> bool:
    """Whether a page's URL says nothing against the fixed arguments (a server may keep them to itself)."""
    query = parse_qs(urlsplit(url).query, keep_blank_values=True)
    return all(query.get(n) in (None, [v] if isinstance(v, str) else v) for n, v in fixed.items())


def _written(exchange: "_Exchange", requests: FhirRequests, answer: Answer, own: str | None) -> Raw:
    if requests.kind == "binary":
        return _binary(answer, exchange.masker)
    if requests.ours == "if_none_exist" and own is not None and answer.status == 200:
        exchange.call.trace.notes = ("It was there already: nothing was created.",)
    raw = read_raw(answer, exchange.masker)
    if requests.kind not in ("create", "update", "patch") or not (raw.kind == "empty" or is_outcome(raw.value)):
        return raw
    where = answer.headers.get("location", "") or answer.headers.get("content-location", "")
    if not where and requests.kind != "create":
        where = exchange.url
    try:
        path = urlsplit(where).path
    except ValueError:
        return raw
    found = _LOCATION.search(exchange.masker.text(path))
    if found is None:
        return raw
    tag = answer.headers.get("etag", "").removeprefix("W/").strip('"')
    version = found[3] or exchange.masker.text(tag) or None
    told: dict[str, Any] = {"resourceType": found[1], "id": found[2]}
    if version:
        told["meta"] = {"versionId": version}
    if is_outcome(raw.value):
        told["outcome"] = raw.value
    return Raw("json", told, "application/fhir+json")


def _binary(answer: Answer, masker: Masker) -> Raw:
    """Never rendered (rules G5): a blob, also where the server wraps it in a Binary resource."""
    media = answer.headers.get("content-type", "").partition(";")[0].strip().lower() or "application/octet-stream"
    if media.endswith("json"):
        value = read_raw(answer, masker).value
        if is_object(value) and value.get("resourceType") == "Binary" and isinstance(value.get("data"), str):
            return Raw("blob", value["data"], str(value.get("contentType") or "application/octet-stream"))
    return Raw("blob", base64.b64encode(masker.body(answer.body)).decode(), media)


class _Exchange:
    """The requests of one call, under one deadline and one limit of bytes."""

    def __init__(self, upstream: Upstream, tool: FhirTool, call: FhirCall, max_bytes: int) -> None:
        self._upstream, self._tool, self.call = upstream, tool, call
        self._ends_at = time.monotonic() + tool.deadline_s
        self._bytes = max_bytes
        self.idempotent = tool.retry.idempotent
        self.url = ""

    @property
    def masker(self) -> Masker:
        return self._tool.masker(self.call.signer.masks)

    async def first(self, request: Request, expects: tuple[int, ...] = ()) -> Answer:
        """Asks whether it may, sends, and refuses an error status unless it is expected."""
        self.call.trace.request = request
        await self.call.admit()
        self._ends_at = time.monotonic() + self._tool.deadline_s
        return await self.again(request, expects)

    async def again(self, request: Request, expects: tuple[int, ...] = ()) -> Answer:
        self.call.trace.request, self.url = request, request.url
        answer = self.call.trace.answer = await self._send(request, self.call.on_attempt)
        if answer.status not in expects:
            self.refuse(answer)
        return answer

    async def page(self, request: Request) -> Answer:
        """A further page; the trace goes on to show the first."""
        answer = await self._send(request, None)
        self.refuse(answer)
        return answer

    async def _send(self, request: Request, on_attempt: Callable[[Attempt], None] | None) -> Answer:
        answer = await self._upstream.send(
            request,
            pool=self._tool.integration.workspace_id,
            retry=replace(self._tool.retry, idempotent=self.idempotent),
            limits=Limits(max(0.0, self._ends_at - time.monotonic()), max(0, self._bytes)),
            signer=self.call.signer,
            attempts=self.call.trace.attempts,
            on_progress=on_attempt,
        )
        self._bytes -= len(answer.body)
        return answer

    def refuse(self, answer: Answer) -> None:
        """Raises what a status other than 2xx means: it decides, whatever the body says (rules G8)."""
        if 200 <= answer.status < 300:
            return
        request = self.call.trace.request
        assert request is not None
        error = status_error(
            answer,
            request,
            self.masker,
            idempotent=self.idempotent,
            unsure_before=any(a.maybe_done for a in self.call.trace.attempts[:-1]),
            retry_after_s=retry_after_s(answer.headers, time.time()),
        )
        kind = self._tool.requests_kind
        values = self.call.trace.arguments or {}
        raise explained(error, answer, self.masker, kind, self._tool.resource_type(values))
