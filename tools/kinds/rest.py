"""`rest`: arguments -> one HTTP request (semantics: "From arguments to a request"). Compiled once; `build` is on the path of a call."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import quote, quote_plus

import orjson

from tools.errors import ArgumentFault, InvalidArguments
from tools.header_names import header_fault
from tools.json_schema import wire_name
from tools.kinds.paths import PathTemplate, base_url_fault, origin_of, parse_path, path_text
from tools.models import EndpointConfig
from tools.upstream import Request

Place = Literal["path", "query", "header", "body", "whole_body"]
HOPS_HEADER = "X-Integrations-Mcp-Hops"
"""How many gateways a request came through (rules H1)."""
SECRET_REFERENCE = "secret:"  # noqa: S105 - the prefix of a reference, not a secret

_BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
_UNRESERVED = re.compile(r"[A-Za-z0-9_.~-]*", re.ASCII)
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
_NOT_A_HEADER = (
    "goes into a header: printable ASCII without line breaks, and no blanks at its ends (they would be lost)."
)


@dataclass(frozen=True, slots=True)
class PlanFault:
    """What can't be planned: `field` is a path inside the endpoint, e.g. ("path",) or ("headers", "Host")."""

    field: tuple[str | int, ...]
    message: str


class PlanRefused(ValueError):
    """The endpoint can't become a request; all faults at once."""

    def __init__(self, faults: list[PlanFault]) -> None:
        super().__init__("; ".join(f.message for f in faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class RestPlan:
    """One endpoint, ready to build requests. `secret_headers` are (name, path) read when a request is signed.

    `path_args` names the argument of each path parameter that isn't called like it (x-name); `taken` the argument that has
    a wire name at the default place, which no further argument may overwrite.
    """

    method: str
    base: str
    origin: str
    path: PathTemplate
    places: Mapping[str, tuple[Place, str]]
    default_place: Place
    path_args: Mapping[str, str]
    taken: Mapping[str, str]
    form: bool
    static_headers: tuple[tuple[str, str], ...]
    body_headers: tuple[tuple[str, str], ...]
    accept: tuple[tuple[str, str], ...]
    secret_headers: tuple[tuple[str, str], ...]
    private_headers: frozenset[str]
    static_names: frozenset[str]

    def build(self, values: Mapping[str, Any], idempotency_key: str | None = None, hops: int = 1) -> Request:
        """The finished request for repaired, validated arguments. Raises InvalidArguments; nothing was sent."""
        query: list[str] = []
        headers = list(self.static_headers)
        fields: dict[str, Any] = {}
        whole: Any = None
        has_whole = False
        faults: list[ArgumentFault] = []
        given: set[str] = set(self.static_names)
        path, path_faults = self._fill_path(values)
        faults += path_faults
        for name, value in values.items():
            known = self.places.get(name)
            if known is None and (other := self.taken.get(name)) is not None:
                faults.append(ArgumentFault(name, f"can't be sent: {other} goes out under this name."))
                continue
            place, wire = known or (self.default_place, name)
            match place:
                case "query":
                    query += pairs(wire, value, quote)
                case "body":
                    fields[wire] = value
                case "header":
                    if value is not None:
                        text = _scalar(value)
                        if _HEADER_VALUE.fullmatch(text) and text == text.strip():
                            headers.append((wire, text))
                            given.add(wire.lower())
                        else:
                            faults.append(ArgumentFault(name, _NOT_A_HEADER))
                case "whole_body":
                    whole, has_whole = value, True
                case "path":
                    pass
        if has_whole and fields:
            faults += [ArgumentFault(name, "has no place: another argument is the whole body.") for name in fields]
        if faults:
            raise InvalidArguments(faults, sorted(self.places))
        body: bytes | None = None
        try:
            if has_whole or fields:
                body = self._encode(whole if has_whole else fields)
            if body is not None and "content-type" not in given:
                headers += self.body_headers
            url = self.base + path + ("?" + "&".join(query) if query else "")
        except UnicodeEncodeError:
            raise InvalidArguments(
                [ArgumentFault("arguments", "hold text that is not valid Unicode (a lone surrogate).")], ()
            ) from None
        if "accept" not in given:
            headers += self.accept
        if idempotency_key is not None and "idempotency-key" not in given:
            headers.append(("Idempotency-Key", idempotency_key))
        headers.append((HOPS_HEADER, str(hops)))
        return Request(self.method, url, tuple(headers), body, self.private_headers)

    def _fill_path(self, values: Mapping[str, Any]) -> tuple[str, list[ArgumentFault]]:
        if not self.path_args:
            return self.path.fill(values)
        args = self.path_args
        path, faults = self.path.fill({name: values.get(args.get(name, name)) for name in self.path.names})
        return path, [ArgumentFault(args.get(f.where, f.where), f.what) for f in faults]

    def _encode(self, value: Any) -> bytes | None:
        """None where there is nothing to send: a form in which everything is null."""
        if not self.form:
            return to_json(value)
        if not isinstance(value, dict):
            return None if value is None else _scalar(value).encode()
        fields: list[str] = []
        for name, item in value.items():  # pyright: ignore[reportUnknownVariableType] - any JSON object
            fields += pairs(str(name), item, quote_plus)  # pyright: ignore[reportUnknownArgumentType]
        return "&".join(fields).encode() or None


def pairs(name: str, value: Any, encode: Any) -> Iterable[str]:
    """`name=value` as it stands in a query or form: arrays repeat the name, null is left out, objects are JSON."""
    if type(value) is str:
        return (f"{_quoted(name, encode)}={_quoted(value, encode)}",)
    if value is None:
        return ()
    key = _quoted(name, encode)
    if isinstance(value, list):
        return [f"{key}={_quoted(_scalar(item), encode)}" for item in value if item is not None]  # pyright: ignore[reportUnknownVariableType] - any JSON
    return (f"{key}={_quoted(_scalar(value), encode)}",)


def _quoted(text: str, encode: Any) -> str:
    return text if _UNRESERVED.fullmatch(text) else encode(text, safe="")


def _scalar(value: Any) -> str:
    text = path_text(value)
    return to_json(value).decode() if text is None else text


def to_json(value: Any) -> bytes:
    """Compact JSON, exactly: integers beyond 64 bits too, which orjson refuses."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def compile_rest(endpoint: EndpointConfig, base_url: str, schema: Mapping[str, Any]) -> RestPlan:
    """Raises PlanRefused. `base_url` is the integration's; `schema` the stored one with the path parameters added."""
    faults: list[PlanFault] = []
    base = endpoint.base_url or base_url
    where: tuple[str | int, ...] = ("base_url",) if endpoint.base_url else ("..", "base_url")
    if not base:
        faults.append(PlanFault(("base_url",), "neither the endpoint nor the integration has a base_url"))
    elif fault := base_url_fault(base):
        faults.append(PlanFault(where, fault))
    path = PathTemplate(("",), (), 0)
    try:
        path = parse_path(endpoint.path)
    except ValueError as e:
        faults.append(PlanFault(("path",), str(e)))
    places, place_faults = _places(endpoint, path, schema)
    faults += place_faults
    static, secret, header_faults = split_headers(endpoint.headers, ("headers",))
    faults += header_faults
    names = frozenset(name.lower() for name, _ in (*static, *secret))
    faults += [
        PlanFault(("input_schema", "properties", name), f"the header {wire} stands in headers already")
        for name, (place, wire) in places.items()
        if place == "header" and wire.lower() in names
    ]
    if faults:
        raise PlanRefused(faults)
    media = "application/x-www-form-urlencoded" if endpoint.body_format == "form" else "application/json"
    private = names.union(wire.lower() for place, wire in places.values() if place == "header")
    default: Place = "body" if endpoint.method in _BODY_METHODS else "query"
    return RestPlan(
        method=endpoint.method,
        base=base.rstrip("/"),
        origin=origin_of(base),
        path=path,
        places=places,
        default_place=default,
        path_args={wire: name for name, (place, wire) in places.items() if place == "path" and wire != name},
        taken={wire: name for name, (place, wire) in places.items() if place == default},
        form=endpoint.body_format == "form",
        static_headers=static,
        body_headers=(("Content-Type", media),),
        accept=(("Accept", "application/json, */*;q=0.5"),),
        secret_headers=secret,
        private_headers=private,
        static_names=names,
    )


def _places(
    endpoint: EndpointConfig, path: PathTemplate, schema: Mapping[str, Any]
) -> tuple[dict[str, tuple[Place, str]], list[PlanFault]]:
    default: Place = "body" if endpoint.method in _BODY_METHODS else "query"
    places: dict[str, tuple[Place, str]] = {}
    faults: list[PlanFault] = []
    taken: dict[tuple[Place, str], str] = {}
    properties: dict[str, Any] = schema.get("properties") or {}
    for name, sub in properties.items():
        rules = cast("dict[str, Any]", sub) if isinstance(sub, dict) else {}
        where = ("input_schema", "properties", name)
        wire = wire_name(name, rules)
        place: Place = rules.get("x-in") or (
            "path" if wire in path.names else "whole_body" if rules.get("x-body") else default
        )
        if place == "body" and rules.get("x-body"):
            place = "whole_body"
        if place == "path" and wire not in path.names:
            faults.append(PlanFault((*where, "x-in"), f"x-in is path, but the path has no {{{wire}}}"))
        if place == "header" and (fault := header_name_fault(wire)):
            faults.append(PlanFault(where, fault))
        if (other := taken.setdefault((place, wire.lower() if place == "header" else wire), name)) != name:
            faults.append(PlanFault((*where, "x-name"), f"{wire} is the name under which {other} goes out already"))
        places[name] = (place, wire)
    filled = {wire for place, wire in places.values() if place == "path"}
    faults += [
        PlanFault(("path",), f"{{{name}}} stands in the path, but no property fills it (x-in: path)")
        for name in path.names
        if name not in filled
    ]
    return places, faults


def header_name_fault(name: str) -> str | None:
    """Why an endpoint can't set this header; None when it can."""
    if name.lower() == HOPS_HEADER.lower():
        return f"{name} counts gateways and is set by the gateway itself"
    return header_fault(name)


def split_headers(
    headers: Mapping[str, str], where: tuple[str | int, ...]
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...], list[PlanFault]]:
    """(static, secret references, faults) of a `headers` field. Values are never quoted in a fault: they may be secrets."""
    static: list[tuple[str, str]] = []
    secret: list[tuple[str, str]] = []
    faults: list[PlanFault] = []
    seen: set[str] = set()
    for name, value in headers.items():
        if fault := header_name_fault(name):
            faults.append(PlanFault((*where, name), fault))
        elif name.lower() in seen:
            faults.append(PlanFault((*where, name), f"{name} is there twice (header names ignore case)"))
        elif not _HEADER_VALUE.fullmatch(value):
            faults.append(PlanFault((*where, name), "a header value is printable ASCII without line breaks"))
        elif value.startswith(SECRET_REFERENCE):
            secret.append((name, value.removeprefix(SECRET_REFERENCE)))
        else:
            static.append((name, value))
        seen.add(name.lower())
    return tuple(static), tuple(secret), faults
