"""The noun "SMART configuration": finds the token endpoint of a FHIR server (SMART App Launch 2.2, 9; rules C6)."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Protocol

from tools.credentials.diagnosis import kind_of
from tools.credentials.timing import Timing
from tools.credentials.token_answer import BadAnswer, json_object
from tools.credentials.token_url import url_fault
from tools.errors import CallError, Misconfigured
from tools.kinds.paths import origin_of
from tools.upstream import Limits, Request, Retry, Upstream

PATH = "/.well-known/smart-configuration"
_KEPT_S, _FAILURE_KEPT_S = 3600.0, 60.0
_LIMITS = Limits(deadline_s=10.0, max_bytes=256 * 1024, redirects=3, other_origins=False)
_RETRY = Retry(max_retries=2, statuses=frozenset({429, 500, 502, 503, 504}))
_MAX_ENTRIES = 10_000


class Pins(Protocol):
    """Which token endpoint an integration was first led to (rules C6). A registry-backed one survives restarts."""

    async def pin(self, workspace: str, integration_id: str, base_url: str, endpoint: str) -> str:
        """Keeps `endpoint` if nothing is pinned yet for this integration and base URL; returns what is pinned."""
        ...

    async def confirm(self, workspace: str, integration_id: str, base_url: str, endpoint: str) -> None:
        """Replaces the pin: what an owner or admin does when the server has really moved."""
        ...


class ProcessPins:
    """Pins in memory: the first use of each process counts."""

    def __init__(self) -> None:
        self._pins: dict[tuple[str, str, str], str] = {}

    async def pin(self, workspace: str, integration_id: str, base_url: str, endpoint: str) -> str:
        return self._pins.setdefault((workspace, integration_id, base_url), endpoint)

    async def confirm(self, workspace: str, integration_id: str, base_url: str, endpoint: str) -> None:
        self._pins[workspace, integration_id, base_url] = endpoint


@dataclass(frozen=True, slots=True)
class SmartConfiguration:
    """What minting needs of the document; missing capabilities are warnings, since many servers don't list them."""

    token_endpoint: str
    grants: tuple[str, ...] | None
    auth_methods: tuple[str, ...] | None
    algorithms: tuple[str, ...] | None

    def warnings(self, alg: str) -> list[str]:
        found: list[str] = []
        for wanted, offered, name in (
            ("client_credentials", self.grants, "grant_types_supported"),
            ("private_key_jwt", self.auth_methods, "token_endpoint_auth_methods_supported"),
            (alg, self.algorithms, "token_endpoint_auth_signing_alg_values_supported"),
        ):
            if offered is not None and wanted not in offered:
                found.append(f"the server's SMART configuration doesn't list {wanted} in {name}")
        return found


class SmartDiscovery:
    """Cached 1 h per workspace and base URL, failures 60 s."""

    def __init__(self, timing: Timing, pins: Pins | None = None) -> None:
        self._timing = timing
        self.pins: Pins = pins or ProcessPins()
        self._kept: OrderedDict[tuple[str, str], tuple[float, SmartConfiguration | CallError]] = OrderedDict()

    async def find(self, upstream: Upstream, workspace: str, base_url: str) -> SmartConfiguration:
        """Raises Misconfigured or CredentialUnavailable."""
        key = (workspace, base_url)
        kept = self._kept.get(key)
        if kept is None or self._timing.monotonic() >= kept[0]:
            kept = self._kept[key] = await self._fetch(upstream, workspace, base_url)
            if len(self._kept) > _MAX_ENTRIES:
                self._kept.popitem(last=False)
        match kept[1]:
            case SmartConfiguration() as found:
                return found
            case failure:
                raise type(failure)(failure.message, advice=failure.advice, detail=failure.detail)

    def forget(self, workspace: str, base_url: str) -> None:
        self._kept.pop((workspace, base_url), None)

    async def _fetch(
        self, upstream: Upstream, workspace: str, base_url: str
    ) -> tuple[float, SmartConfiguration | CallError]:
        url = base_url.rstrip("/") + PATH
        found: SmartConfiguration | CallError
        try:
            request = Request("GET", url, (("Accept", "application/json"),))
            answer = await upstream.send(request, pool=workspace, retry=_RETRY, limits=_LIMITS)
            body = json_object(answer)
            if answer.status != 200 or isinstance(body, BadAnswer):
                what = body.what if isinstance(body, BadAnswer) else f"answered {answer.status}"
                found = _nothing(url, what)
            else:
                found = _read(url, body)
        except CallError as e:
            found = kind_of(e)(f"the SMART configuration can't be read: {e.message}", advice=_ADVICE, detail=e.detail)
        life = _KEPT_S if isinstance(found, SmartConfiguration) else _FAILURE_KEPT_S
        return self._timing.monotonic() + life, found


_ADVICE = "check base_url, or set token_url yourself"


def _read(url: str, body: dict[str, Any]) -> SmartConfiguration | CallError:
    endpoint = body.get("token_endpoint")
    if not isinstance(endpoint, str) or len(endpoint) > 2048 or url_fault(endpoint) is not None:
        return _nothing(url, "names no usable token_endpoint")
    return SmartConfiguration(
        endpoint,
        _strings(body.get("grant_types_supported")),
        _strings(body.get("token_endpoint_auth_methods_supported")),
        _strings(body.get("token_endpoint_auth_signing_alg_values_supported")),
    )


def _strings(value: Any) -> tuple[str, ...] | None:
    return tuple(str(item) for item in value) if isinstance(value, list) else None  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - JSON


def _nothing(url: str, what: str) -> Misconfigured:
    return Misconfigured(f"the SMART configuration at {origin_of(url)} {what}", advice=_ADVICE)
