"""Faults in where a request goes and what it carries, told from the upstream's answer and from the integration's other endpoints. Pure."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tools.errors import CallError
from tools.kinds.paths import origin_of
from tools.masking import is_secret_header
from tools.models import EndpointConfig
from tools.naming import nearest
from tools.outcome import Outcome
from tools.tool import Tool

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_VERBS: Mapping[str, tuple[str, ...]] = {
    "GET": ("get", "read", "list", "search", "find", "show", "fetch", "count"),
    "POST": ("create", "add", "make", "book", "send", "new", "post", "start", "run"),
    "PUT": ("update", "replace", "set", "put", "change", "edit"),
    "PATCH": ("update", "patch", "change", "edit", "move"),
    "DELETE": ("delete", "remove", "cancel", "drop"),
}
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{1,63}")
_QUOTED = re.compile(r"['\"`]([A-Za-z][A-Za-z0-9_.-]{0,63})['\"`]")
_HEADER = re.compile(r"\b[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)+\b")
_PARAMETER = re.compile(r"\{[^{}]*\}")
_CLOSE = 0.75


@dataclass(frozen=True, slots=True)
class Repair:
    """A fault, and the merge patch that mends it: of the endpoint, or with `whole` of the integration. `at` is relative to that."""

    code: str
    what: str
    stage: str = ""
    at: tuple[str | int, ...] = ()
    available: tuple[str, ...] = ()
    patch: dict[str, Any] | None = None
    whole: bool = False
    sure: bool = False
    ask_human: str | None = None


def request_repairs(tool: Tool, outcome: Outcome, error: CallError) -> list[Repair]:
    """The most telling sign first; at most one, since a fix changes what the next answer says."""
    for rule in _RULES:
        for repair in rule(tool, outcome, error):
            return [repair]
    return []


def _method(tool: Tool, outcome: Outcome, error: CallError) -> Iterator[Repair]:
    """405 names what is allowed (RFC 9110 15.5.6)."""
    answer = outcome.trace.answer
    if answer is None or answer.status != 405:
        return
    allowed = [m for m in _METHODS if m in re.split(r"[,\s]+", answer.headers.get("allow", "").upper())]
    words = re.split(r"[_.\-]+", tool.endpoint.name.lower())
    meant = [m for m in allowed if any(w in _VERBS[m] for w in words)]
    choice = allowed[0] if len(allowed) == 1 else meant[0] if len(meant) == 1 else None
    yield Repair(
        "method_not_allowed",
        f"the server doesn't take {tool.endpoint.method} here"
        + (f", only {', '.join(allowed)}" if allowed else " and doesn't say what it takes"),
        at=("method",),
        available=tuple(allowed),
        patch={"method": choice} if choice else None,
        sure=len(allowed) == 1,
        ask_human="Choose the method by the API's documentation.",
    )


def _body_format(tool: Tool, outcome: Outcome, error: CallError) -> Iterator[Repair]:
    """415: the other body format, unless a header of ours names a third."""
    answer, e = outcome.trace.answer, tool.endpoint
    if answer is None or answer.status != 415:
        return
    own = next((n for n in e.headers if n.lower() == "content-type"), None)
    patch: dict[str, Any] = (
        {"headers": {own: None}} if own else {"body_format": "form" if e.body_format == "json" else "json"}
    )
    takes = tuple(
        t.strip()
        for n in ("accept-post", "accept-patch", "accept")
        for t in answer.headers.get(n, "").split(",")
        if t.strip()
    )
    sent = "application/json" if e.body_format == "json" else "application/x-www-form-urlencoded"
    yield Repair(
        "body_format",
        f"the server doesn't take a body of type {e.headers[own] if own else sent}",
        at=("headers", own) if own else ("body_format",),
        available=takes,
        patch=patch,
    )


def _accept(tool: Tool, outcome: Outcome, error: CallError) -> Iterator[Repair]:
    """406: our own Accept header asks for what the server doesn't have."""
    answer = outcome.trace.answer
    own = next((n for n in tool.endpoint.headers if n.lower() == "accept"), None)
    if answer is not None and answer.status == 406 and own:
        yield Repair(
            "not_acceptable",
            f"the server has nothing of type {tool.endpoint.headers[own]}",
            at=("headers", own),
            patch={"headers": {own: None}},
        )


def _scheme(tool: Tool, outcome: Outcome, error: CallError) -> Iterator[Repair]:
    """https to a server that speaks http, or the other way round."""
    base, place = _base(tool)
    said = f"{error.said or ''} {error.detail or ''}".lower()
    other = None
    if error.code == "certificate_refused" and base.startswith("https:") and _speaks_http(said):
        other = "http" + base.removeprefix("https")
    elif base.startswith("http:") and "https" in said and ("plain http" in said or "http request" in said):
        other = "https" + base.removeprefix("http")
    if other is not None:
        what = f"the server at this address speaks {urlsplit(other).scheme}, not {urlsplit(base).scheme}"
        yield Repair("base_url_scheme", what, at=("base_url",), patch={"base_url": other}, whole=place == "integration")


def _speaks_http(said: str) -> bool:
    return any(
        sign in said
        for sign in (
            "wrong version number",
            "wrong_version_number",
            "record layer",
            "http request",
            "unknown protocol",
            "packet length",
        )
    )


def _redirect(tool: Tool, outcome: Outcome, error: CallError) -> Iterator[Repair]:
    """A write that is redirected to nearly the same URL: by a slash, or from http to https."""
    if error.code != "redirect_refused" or outcome.trace.request is None or "Location: " not in (error.detail or ""):
        return
    sent = urlsplit(outcome.trace.request.url)
    where = urlsplit((error.detail or "").partition("Location: ")[2].removesuffix("?..."))
    base, place = _base(tool)
    if (where.scheme, where.hostname, where.path) == ("https", sent.hostname, sent.path) and sent.scheme == "http":
        other = f"https://{where.netloc}{urlsplit(base).path}"
        yield Repair(
            "base_url_scheme",
            "the server redirects http to https",
            at=("base_url",),
            patch={"base_url": other},
            whole=place == "integration",
            sure=True,
        )
    elif where.netloc == sent.netloc and where.path.rstrip("/") == sent.path.rstrip("/") and where.path != sent.path:
        path = tool.endpoint.path.rstrip("/") + ("/" if where.path.endswith("/") else "")
        yield Repair(
            "path_slash",
            f"the server redirects to the same path {'with' if path.endswith('/') else 'without'} a slash at its end",
            at=("path",),
            patch={"path": path},
            sure=True,
        )


def _own_base(tool: Tool, outcome: Outcome, error: CallError) -> Iterator[Repair]:
    """The endpoint has an address of its own and it is that one that fails."""
    own, whole = tool.endpoint.base_url, tool.integration.base_url
    status = error.upstream_status
    if (
        own
        and whole
        and own.rstrip("/") != whole.rstrip("/")
        and (status is None or status in (404, 410))
        and error.code not in ("misconfigured",)
    ):
        different = "address" if origin_of(own) != origin_of(whole) else "path"
        yield Repair(
            "endpoint_base_url",
            f"this endpoint has a base_url of its own, whose {different} differs from the integration's, and nothing is found there",
            at=("base_url",),
            available=(whole,),
            patch={"base_url": None},
        )


def _base_of_others(tool: Tool, outcome: Outcome, error: CallError) -> Iterator[Repair]:
    """The integration's address can't be reached while endpoints with their own name another port of the same host."""
    if error.code not in ("upstream_unreachable", "certificate_refused") or tool.endpoint.base_url:
        return
    host = urlsplit(tool.integration.base_url).hostname
    others = {e.base_url for e in tool.integration.endpoints if e.base_url and urlsplit(e.base_url).hostname == host}
    if len(others) == 1:
        other = others.pop()
        yield Repair(
            "base_url",
            "nothing answers at base_url; another endpoint of this integration uses the same host with another port",
            at=("base_url",),
            available=(other,),
            patch={"base_url": other},
            whole=True,
        )


def _path(tool: Tool, outcome: Outcome, error: CallError) -> Iterator[Repair]:
    """404: part of the path stands twice, or is spelled unlike that of the other endpoints."""
    if error.upstream_status not in (404, 410):
        return
    e = tool.endpoint
    base, _ = _base(tool)
    segments = [s for s in e.path.split("/") if s]
    prefix = [s for s in urlsplit(base).path.split("/") if s]
    others = [o for o in tool.integration.endpoints if o.name != e.name and (o.base_url or "") == (e.base_url or "")]
    if prefix and segments[: len(prefix)] == prefix and not any(_segments(o)[: len(prefix)] == prefix for o in others):
        yield _moved(
            e, segments[len(prefix) :], f"base_url ends in /{'/'.join(prefix)} already, so it stands twice in the URL"
        )
        return
    known = list(dict.fromkeys(s for o in others for s in _segments(o) if not _PARAMETER.search(s)))
    for i, segment in enumerate(segments):
        if _PARAMETER.search(segment) or segment in known:
            continue
        close = difflib.get_close_matches(segment, known, n=1, cutoff=_CLOSE)
        if close:
            yield _moved(
                e,
                [*segments[:i], close[0], *segments[i + 1 :]],
                f"no other endpoint has {segment!r} in its path; others have {close[0]!r}",
                known,
            )
            return
    starts = {o.path.strip("/").split("/")[0] for o in others if o.path.strip("/").count("/")}
    if len(starts) == 1 and len(others) > 1 and segments and not prefix and segments[0] not in starts:
        first = starts.pop()
        if any(_segments(o)[1:2] == segments[:1] for o in others):
            yield _moved(e, [first, *segments], f"the other paths begin with /{first}", known)


def _moved(endpoint: EndpointConfig, segments: list[str], what: str, available: list[str] | None = None) -> Repair:
    return Repair(
        "path_not_found", what, at=("path",), available=tuple(available or ()), patch={"path": "/" + "/".join(segments)}
    )


def _header(tool: Tool, outcome: Outcome, error: CallError) -> Iterator[Repair]:
    """The server's words name a header that another endpoint sends and this one doesn't."""
    e, said = tool.endpoint, error.said or ""
    if error.upstream_status not in (400, 401, 403, 412, 422, 428):
        return
    own = {n.lower() for n in e.headers}
    known = {n.lower(): (n, v) for o in tool.integration.endpoints if o.name != e.name for n, v in o.headers.items()}
    named = [
        w for w in _HEADER.findall(said) if w.lower() not in own and (w.lower() in known or w.lower().startswith("x-"))
    ]
    if not named:
        return
    name, value = known.get(named[0].lower(), (named[0], None))
    copied = value is not None and (not is_secret_header(name) or value.startswith("secret:"))
    yield Repair(
        "missing_header",
        f"the server wants the header {name}"
        + (", which another endpoint of this integration sends" if value is not None else ""),
        at=("headers", name),
        patch={"headers": {name: value}} if copied else None,
        ask_human=f"A person must say what the header {name} has to hold; update_endpoint then sets it in headers.",
    )


def _field(tool: Tool, outcome: Outcome, error: CallError) -> Iterator[Repair]:
    """The server's words name a field that is nearly one that we send: its wire name (x-name) is wrong."""
    if error.upstream_status not in (400, 422) or not error.said:
        return
    wires = {wire: name for name, (place, wire) in tool.plan.places.items() if place not in ("path", "whole_body")}
    words = _QUOTED.findall(error.said) or [w for w in _WORD.findall(error.said) if w not in wires]
    asked = [w.rsplit(".", 1)[-1] for w in words]
    for word in asked:
        if word in wires or word.lower() in _COMMON:
            continue
        close = difflib.get_close_matches(word, list(wires), n=1, cutoff=_CLOSE) or [
            w for w in [nearest(word, wires)] if w and _letters(w) == _letters(word)
        ]
        if close:
            argument = wires[close[0]]
            yield Repair(
                "wrong_field",
                f"the server speaks of {word!r}; argument {argument!r} is sent as {close[0]!r}",
                at=("input_schema", "properties", argument, "x-name"),
                available=tuple(wires),
                patch={"input_schema": {"properties": {argument: {"x-name": word}}}},
            )
            return


def _deadline(tool: Tool, outcome: Outcome, error: CallError) -> Iterator[Repair]:
    """The endpoint gives up sooner than the default."""
    own = tool.endpoint.timeout_seconds
    if error.code in ("upstream_timeout", "upstream_timeout_unknown") and own is not None and own < 30:
        yield Repair(
            "deadline", f"its own timeout_seconds is {own:g}", at=("timeout_seconds",), patch={"timeout_seconds": None}
        )


def _no_auth(tool: Tool, outcome: Outcome, error: CallError) -> Iterator[Repair]:
    """401 without any auth configured."""
    if error.upstream_status == 401 and tool.auth is None:
        answer = outcome.trace.answer
        wants = answer.headers.get("www-authenticate", "").split(" ")[0] if answer is not None else ""
        yield Repair(
            "no_auth",
            "the server wants a credential and the integration has no auth" + (f"; it takes {wants}" if wants else ""),
            at=("auth",),
            whole=True,
            ask_human="A person must say how calls are signed and store the secret; update_integration then sets auth with its path.",
        )


def _base(tool: Tool) -> tuple[str, str]:
    own = tool.endpoint.base_url
    return (own, "endpoint") if own else (tool.integration.base_url, "integration")


def _segments(endpoint: EndpointConfig) -> list[str]:
    return [s for s in endpoint.path.split("/") if s]


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_COMMON = frozenset(
    {
        "field",
        "fields",
        "missing",
        "required",
        "parameter",
        "query",
        "body",
        "invalid",
        "unknown",
        "the",
        "is",
        "must",
        "be",
        "value",
    }
)
_RULES = (
    _method,
    _body_format,
    _accept,
    _scheme,
    _redirect,
    _own_base,
    _base_of_others,
    _path,
    _header,
    _field,
    _deadline,
    _no_auth,
)
