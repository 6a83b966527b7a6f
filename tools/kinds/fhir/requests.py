"""FHIR arguments -> HTTP requests: media types, Prefer, search values, preconditions (rules G3-G7, G9, G11). Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from tools.errors import ArgumentFault, InvalidArguments
from tools.exchange import Request
from tools.json_schema import fixed_value, is_array, is_object
from tools.kinds.fhir.interactions import Kind, kind_of, type_of
from tools.kinds.fhir.values import search_value
from tools.kinds.rest import RestPlan, compile_rest
from tools.models import EndpointConfig

JSON = "application/fhir+json"
FORM = "application/x-www-form-urlencoded"
MAX_QUERY = 2000
MAX_COUNT = 100
PAGE_OF = 50
_SENSITIVE = frozenset({"identifier", "name", "family", "given", "birthdate", "phone", "email", "telecom", "address"})
_CHOICES = re.compile(
    r"(abatement|allowed|asNeeded|content|deceased|dose|effective|item|location|medication|multipleBirth|occurrence|onset|"
    r"performed|product|rate|reported|scheduled|serviced|subject|timing|used|value)[A-Z]\w*"
)
_VERSION = re.compile(r'(?:W/)?"?([A-Za-z0-9.-]{1,64})"?')
_CONDITION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*(:[A-Za-z]+)?")
_SHOWN_OTHERWISE = ("_include", "_revinclude", "_summary", "_elements")
OURS: dict[str, dict[str, Any]] = {
    "cursor": {
        "type": "string",
        "description": "To go on: the cursor of the result before, all other arguments the same.",
    },
    "version_id": {
        "type": "string",
        "description": "meta.versionId of the record as you read it; refused if it has changed since.",
    },
    "if_none_exist": {
        "type": "string",
        "description": "Creates only if this search finds nothing, like identifier=http://example.org/mrn|123.",
    },
}
"""Arguments that the gateway adds, and sends in its own way."""
_OURS_OF: dict[Kind, str] = {
    "search": "cursor",
    "update": "version_id",
    "patch": "version_id",
    "create": "if_none_exist",
}


def with_own_arguments(endpoint: EndpointConfig, versioned: bool) -> dict[str, Any]:
    """The stored schema with `cursor`, `version_id` or `if_none_exist`, unless the operator has one of this name."""
    schema = endpoint.input_schema
    name = _OURS_OF.get(kind_of(endpoint))
    properties: dict[str, Any] = schema.get("properties") or {}
    if name is None or name in properties:
        return schema
    made = {**schema, "properties": {**properties, name: OURS[name]}}
    if "properties" not in schema:
        made.setdefault("additionalProperties", True)
    if name == "version_id" and versioned:
        made["required"] = [*schema.get("required", ()), name]
    return made


@dataclass(frozen=True, slots=True)
class FhirRequests:
    """One endpoint, ready to build requests. `types` and `sensitive` are by property name; `elements` is derived from the filter.

    `open_params`: the property whose members are search parameters in FHIR's own syntax (the generic search).
    """

    rest: RestPlan
    kind: Kind
    resource_type: str
    types: Mapping[str, str]
    sensitive: frozenset[str]
    fixed: frozenset[str]
    ours: str | None
    elements: tuple[str, ...] = ()
    rebase: bool = False
    most: int = MAX_COUNT
    open_params: str | None = None

    def split(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
        """(what is sent, the value of the argument that is ours)."""
        sent = dict(values)
        own = sent.pop(self.ours, None) if self.ours else None
        return sent, own if isinstance(own, str) else None

    def parameters(self, sent: Mapping[str, Any]) -> dict[str, str | list[str]]:
        """The search parameters by argument name, as FHIR writes them. Raises InvalidArguments."""
        found: dict[str, str | list[str]] = {}
        for name, value in sent.items():
            place, wire = self.rest.places.get(name, (self.rest.default_place, name))
            if place not in ("query", "body") or (name == self.open_params):
                continue
            if wire == "_count" and name not in self.fixed:
                _check_count(name, value, self.most)
            text = search_value(wire, value, self.types.get(name), as_written=name in self.fixed)
            if text is not None:
                if name not in self.rest.places and (why := _endless(wire)):
                    raise InvalidArguments([ArgumentFault(name, why)], ())
                found[name] = text
        if self.open_params and is_object(more := sent.get(self.open_params)):
            for name, value in more.items():
                _check_open(name, value, self.rest)
                if (text := search_value(name, value, as_written=not is_array(value))) is not None:
                    found[name] = text
        return found

    def build(
        self,
        values: Mapping[str, Any],
        own: str | None = None,
        key: str | None = None,
        hops: int = 1,
        *,
        elements: tuple[str, ...] = (),
        form: bool = False,
    ) -> Request:
        """Raises InvalidArguments; nothing was sent."""
        if self.kind == "search":
            return self._search(values, hops, elements, form)
        sent = dict(values)
        headers: list[tuple[str, str]] = []
        if self.kind in ("create", "update", "patch", "other"):
            self._check_body(sent)
        if own is not None and self.ours == "version_id":
            headers.append(("If-Match", f'W/"{_version(own)}"'))
        if own is not None and self.ours == "if_none_exist":
            headers.append(("If-None-Exist", _condition(own)))
        if self.kind in ("create", "update", "patch") and "prefer" not in self.rest.static_names:
            headers.append(("Prefer", "return=representation"))
        if self.kind in ("read", "operation"):
            for name, (place, wire) in self.rest.places.items():
                if place == "query" and is_array(sent.get(name)):
                    sent[name] = search_value(wire, sent[name], self.types.get(name))
        request = self.rest.build(sent, key, hops)
        if self.kind == "patch" and request.body is not None and not request.body.lstrip().startswith(b"{"):
            headers = [*headers, ("Content-Type", "application/json-patch+json")]
            kept = tuple(h for h in request.headers if h[0].lower() != "content-type")
            request = replace(request, headers=kept)
        return replace(request, headers=(*request.headers, *headers))

    def in_body(self, values: Mapping[str, Any], elements: tuple[str, ...]) -> bool:
        """Whether a search goes out as POST: it names people, or is long (rules G6). Raises InvalidArguments."""
        if self.kind != "search" or self.rest.method != "GET" or self.rest.path.parts[-1].endswith("/_history"):
            return False
        for name in self.parameters(values):
            if name in self.sensitive or (name not in self.rest.places and is_sensitive(name)):
                return True
        return len(self._search(values, 1, elements, False).url.partition("?")[2]) > MAX_QUERY

    def sent_names(self, values: Mapping[str, Any]) -> list[str]:
        """The wire names of a search's parameters."""
        return [self._wire(name) for name in self.parameters(values)]

    def fixed_names(self) -> frozenset[str]:
        return frozenset(self._wire(name) for name in self.fixed)

    def fixed_values(self, values: Mapping[str, Any]) -> dict[str, str | list[str]]:
        """What the operator narrows every search by, by wire name."""
        return {self._wire(name): text for name, text in self.parameters(values).items() if name in self.fixed}

    def wanted(self, values: Mapping[str, Any]) -> int:
        """How many matches to go for before the agent is asked whether it wants more."""
        text = next((v for n, v in self.parameters(values).items() if self._wire(n) == "_count"), "")
        return int(text) if isinstance(text, str) and text.isascii() and text.isdecimal() else PAGE_OF

    def derived(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The elements to ask for, where nothing in this call says otherwise (rules G9)."""
        names = {name.partition(":")[0] for name in self.sent_names(values)} if self.elements else set[str]()
        return () if names.intersection(_SHOWN_OTHERWISE) else self.elements

    def absolute(self, target: str) -> str:
        """A path and query as a URL at the base's origin."""
        parts = urlsplit(self.rest.base)
        return f"{parts.scheme}://{parts.netloc}{target}"

    def go_on(self, url: str, hops: int) -> Request:
        """A further page, with the same headers."""
        return replace(
            self.rest.build(dict.fromkeys(self.rest.path.names, "x"), None, hops), method="GET", url=url, body=None
        )

    def _search(self, values: Mapping[str, Any], hops: int, elements: tuple[str, ...], form: bool) -> Request:
        parameters = self.parameters(values)
        sent = {name: value for name, value in values.items() if name not in parameters and name != self.open_params}
        request = self.rest.build({**sent, **parameters}, None, hops)
        if elements:
            more = f"_elements={quote(','.join(elements), safe=',')}"
            request = replace(request, url=f"{request.url}{'&' if '?' in request.url else '?'}{more}")
        headers = request.headers
        if "prefer" not in self.rest.static_names:
            headers = (*headers, ("Prefer", "handling=strict"))
        if form:
            url, _, query = request.url.partition("?")
            headers = (*headers, ("Content-Type", FORM))
            return replace(request, method="POST", url=f"{url}/_search", body=query.encode(), headers=headers)
        return replace(request, headers=headers)

    def _wire(self, name: str) -> str:
        place = self.rest.places.get(name)
        return place[1] if place else name

    def _check_body(self, sent: dict[str, Any]) -> None:
        whole = next((name for name, (place, _) in self.rest.places.items() if place == "whole_body"), None)
        body = (
            sent.get(whole) if whole else {self._wire(n): v for n, v in sent.items() if n not in self.rest.path.names}
        )
        if not is_object(body):
            return
        at = f"{whole}." if whole else ""
        meta = body.get("meta")
        tags = meta.get("tag") if is_object(meta) else None
        faults: list[ArgumentFault] = []
        if is_array(tags) and any(is_object(tag) and tag.get("code") == "SUBSETTED" for tag in tags):
            faults.append(
                ArgumentFault(
                    f"{at}meta",
                    "says SUBSETTED: this is a part of the record, and the rest would be lost. Read it whole first.",
                )
            )
        if whole and self.kind in ("create", "update"):
            faults += _filled(sent, whole, body, sent.get("resource_type") or self.resource_type, self.kind)
        if faults:
            raise InvalidArguments(faults, sorted(self.rest.places))


def _filled(
    sent: dict[str, Any], whole: str, body: dict[str, Any], resource_type: str, kind: Kind
) -> list[ArgumentFault]:
    """Type and id, which the path says too, are put into the body, or refused where they differ."""
    faults: list[ArgumentFault] = []
    filled = dict(body)
    if resource_type and filled.setdefault("resourceType", resource_type) != resource_type:
        faults.append(ArgumentFault(f"{whole}.resourceType", f"must be {resource_type}, as in the path."))
    id = sent.get("id")
    if kind == "update" and isinstance(id, str) and filled.setdefault("id", id) != id:
        faults.append(ArgumentFault(f"{whole}.id", "must be the same as id."))
    sent[whole] = filled
    return faults


def compile_fhir(
    endpoint: EndpointConfig, base_url: str, schema: Mapping[str, Any], *, ours: bool, open_params: str | None = None
) -> FhirRequests:
    """`schema` is the effective one; `ours`: it has an argument of the gateway's own. Raises PlanRefused."""
    kind = kind_of(endpoint)
    form = kind == "search" and endpoint.method == "POST"
    rest = compile_rest(endpoint.model_copy(update={"body_format": "form"}) if form else endpoint, base_url, schema)
    accept = "*/*" if kind == "binary" else f"{JSON}, application/json;q=0.9"
    rest = replace(rest, accept=(("Accept", accept),))
    if endpoint.body_format != "form" and not form:
        rest = replace(rest, body_headers=(("Content-Type", JSON),))
    properties: dict[str, Any] = schema.get("properties") or {}
    rules = {name: prop for name, prop in properties.items() if is_object(prop)}
    wires = {name: rest.places[name][1] for name in rules}
    most = next((p.get("maximum") for n, p in rules.items() if wires[n] == "_count"), None)
    return FhirRequests(
        rest,
        kind,
        type_of(endpoint),
        types={name: prop["x-fhir-type"] for name, prop in rules.items() if isinstance(prop.get("x-fhir-type"), str)},
        sensitive=frozenset(n for n, p in rules.items() if p.get("x-sensitive", is_sensitive(wires[n])) is True),
        fixed=frozenset(name for name, prop in rules.items() if fixed_value(prop)[0]),
        ours=_OURS_OF.get(kind) if ours else None,
        elements=_elements(endpoint) if kind == "search" else (),
        rebase=schema.get("x-fhir-rebase") is True,
        most=most if isinstance(most, int) else MAX_COUNT,
        open_params=open_params,
    )


def is_sensitive(wire: str) -> bool:
    """Whether a parameter names a person: these never stand in a URL (rules G6)."""
    return any(part.partition(":")[0].lower() in _SENSITIVE for part in wire.split("."))


def _elements(endpoint: EndpointConfig) -> tuple[str, ...]:
    """What the filter reads of each resource; nothing where it reads all, or an element whose name depends on its type."""
    found: dict[str, None] = {}
    for path in endpoint.response_filter or ():
        parts = path.split(".")
        if parts[0] != "entry":
            continue
        if parts[1:2] in (["fullUrl"], ["search"]):
            continue
        name = parts[2] if len(parts) > 2 and parts[1] == "resource" else ""
        if not name.isalpha() or _CHOICES.fullmatch(name):
            return ()
        if name not in ("id", "resourceType"):
            found[name] = None
    return tuple(found)


def _check_count(name: str, value: Any, most: int) -> None:
    if isinstance(value, int) and value > most:
        raise InvalidArguments(
            [ArgumentFault(name, f"is at most {most}; go on with the cursor that the result gives.")], ()
        )


_OPEN_NAME = re.compile(r"_?[A-Za-z][A-Za-z0-9_.:-]*")
_NOT_OPEN = frozenset({"_format", "_pretty", "_count"})


def _endless(name: str) -> str | None:
    """What is wrong with a parameter that an operator would have to offer by name (rules G11)."""
    if name.lower().startswith(("_include:it", "_revinclude:it", "_include:rec", "_revinclude:rec")):
        return "follows references without an end: use it without :iterate."
    return None


def _check_open(name: str, value: Any, rest: RestPlan) -> None:
    why = _endless(name)
    if not _OPEN_NAME.fullmatch(name) or name in _NOT_OPEN or name in rest.places:
        why = (
            "can't be given here: use the tool's own arguments for it."
            if name != "_count"
            else "is the argument count."
        )
    elif is_object(value):
        why = "is a text, or a list of texts."
    if why:
        raise InvalidArguments([ArgumentFault(f"params.{name}", why)], ())


def _version(text: str) -> str:
    if not (found := _VERSION.fullmatch(text.strip())):
        raise InvalidArguments([ArgumentFault("version_id", "is meta.versionId as you read it, like 3.")], ())
    return found[1]


def _condition(text: str) -> str:
    """A search as If-None-Exist carries it. Controls (`_id`, ...) would let a call look for something else than it says."""
    pairs = parse_qsl(text, keep_blank_values=True)
    good = re.fullmatch(r"[!-~]{3,1000}", text) and "#" not in text and pairs and len(pairs) == text.count("&") + 1
    if not good or not all(_CONDITION_NAME.fullmatch(name) and value for name, value in pairs):
        told = "is a search like identifier=http://example.org/mrn|123: names and values, no URL, no ? before it, nothing with _."
        raise InvalidArguments([ArgumentFault("if_none_exist", told)], ())
    return text
