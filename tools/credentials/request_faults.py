"""Checks at writing that several auth types share; each fault names the field and says what to change."""

from tools.credentials.authorization import AuthFault
from tools.credentials.scopes import scope_fault
from tools.credentials.token_url import url_fault
from tools.models import INLINE_SECRETS, AuthConfig

MAX_PARAMS = 10
_INLINE = {path: inline for inline, path in INLINE_SECRETS.items()}
# What we set ourselves; a second value beside it could replace it at a server that takes the last one (rules B8).
_OURS_EXACT = frozenset({"grant_type", "scope"})
_OURS_PREFIX = ("client_", "assertion")


def required(auth: AuthConfig, *fields: str) -> list[AuthFault]:
    return [AuthFault(name, f"{auth.type} needs {_named(name)}") for name in fields if not getattr(auth, name)]


def _named(field: str) -> str:
    return f"{field} or {_INLINE[field]}" if field in _INLINE else field


def url_faults(auth: AuthConfig) -> list[AuthFault]:
    """The form of token_url; `token_url_faults` judges where it leads."""
    if auth.token_url and (fault := url_fault(auth.token_url)):
        return [AuthFault("token_url", f"token_url {fault}")]
    return []


def scope_faults(scopes: tuple[str, ...] | None, field: str = "scopes") -> list[AuthFault]:
    """Each element is one scope-token (rules B3)."""
    return [AuthFault(field, fault) for scope in scopes or () if (fault := scope_fault(scope))]


def parameter_faults(auth: AuthConfig) -> list[AuthFault]:
    """token_params: at most 10, none that we set ourselves (rules B8)."""
    params = auth.token_params or {}
    found: list[AuthFault] = []
    if len(params) > MAX_PARAMS:
        found.append(AuthFault("token_params", f"token_params has {len(params)} fields; at most {MAX_PARAMS} are sent"))
    for name in params:
        low = name.strip().lower()
        if not low or low in _OURS_EXACT or low.startswith(_OURS_PREFIX):
            found.append(
                AuthFault("token_params", f"token_params can't set {name!r}: the gateway sets it from the other fields")
            )
    return found


def audience_faults(auth: AuthConfig) -> list[AuthFault]:
    """An audience chosen by one party and a discovered URL by another is the audience-injection attack (rules C4)."""
    if auth.assertion_audience is None:
        return []
    if not auth.token_url:
        return [AuthFault("assertion_audience", "assertion_audience works only together with an explicit token_url")]
    if not auth.assertion_audience.strip():
        return [AuthFault("assertion_audience", "assertion_audience is empty: leave it out for the token URL")]
    return []


def life_faults(auth: AuthConfig, least: int, most: int | None, what: str) -> list[AuthFault]:
    """token_lifetime_seconds within the bounds of its type (rules C2)."""
    value = auth.token_lifetime_seconds
    if value < least or (most is not None and value > most):
        bounds = f"{least} to {most} s" if most is not None else f"at least {least} s"
        return [AuthFault("token_lifetime_seconds", f"token_lifetime_seconds is {what}: {bounds}")]
    return []
