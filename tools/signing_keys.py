"""The states of the keys that sign for an integration, and the JWKS they are published in (rules D).

    next --> active --> retiring --> gone

A new key is published as `next` first, because verifiers keep a JWKS for its max-age; it signs as `active`; the one before
stays published as `retiring` until no verifier can meet a signature of it any more. Pure: the clock is an argument.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import orjson

from tools.credentials.keys import read_signing_key
from tools.jwks import KeyFault, public_part
from tools.models import AuthConfig, Binding, Integration, PublishedKey

MAX_AGE = timedelta(seconds=300)
"""How long a verifier may keep a JWKS (Cache-Control)."""
NEXT_FOR = 2 * MAX_AGE
"""How long a key is published before it signs (rules D2)."""
LAST_SIGNATURE = timedelta(seconds=660)
"""How long after the switch a call that began before it may still sign: the longest deadline and a minute."""
RETIRING_FOR = LAST_SIGNATURE + timedelta(minutes=10) + MAX_AGE
"""How long a key stays published after the switch: 10 minutes and the max-age after its last signature (rules D2)."""

_ORDER = {"active": 0, "next": 1, "retiring": 2}
KEY_TYPES = frozenset({"oauth2_jwt_bearer", "smart_backend_services", "gcp_wif"})


def jwks(keys: Iterable[PublishedKey]) -> bytes:
    """The document, byte for byte the same wherever it is shown (rules D1, D3)."""
    ordered = sorted(keys, key=lambda k: (_ORDER[k.state], k.kid))
    return orjson.dumps({"keys": [k.jwk for k in ordered]})


def etag(document: bytes) -> str:
    return f'"{hashlib.sha256(document).hexdigest()[:32]}"'


def key_paths(integration: Integration) -> Iterator[tuple[str, AuthConfig]]:
    """(path, auth) of every private key that the configuration names, each path once."""
    seen: set[str] = set()
    for auth in (integration.auth, *(e.auth for e in integration.endpoints)):
        path = auth.private_key_ssm_param_path if auth is not None and auth.type in KEY_TYPES else None
        if auth is not None and path is not None and path not in seen:
            seen.add(path)
            yield path, auth


def public_of(auth: AuthConfig, text: str) -> dict[str, str] | None:
    """What is published of a private key; None when it can't sign for this auth (calls say why)."""
    try:
        key = read_signing_key(auth, text)
    except KeyFault:
        return None
    return public_part(key.key) | {"use": "sig", "alg": key.alg, "kid": key.kid}


def merged(
    new: Integration, found: Mapping[str, dict[str, str] | None], given: Iterable[str], now: datetime
) -> tuple[PublishedKey, ...]:
    """The keys of `new` after a write. `found` are the public parts, by path, of keys that were looked at in it; `given` are
    the paths whose value comes with it. What was active and isn't any more retires; a next key whose turn can't come goes.
    """
    given, named = set(given), dict(key_paths(new))
    path = new.auth.private_key_ssm_param_path if new.auth is not None and new.auth.type in KEY_TYPES else None
    keys: list[PublishedKey] = []
    for key in new.published_keys:
        same = key.path in named and (key.path not in found or found[key.path] == key.jwk)
        if key.state == "active" and not (same and key.path not in given):
            key = retired(key, now)
        elif key.state == "next" and (path is None or path in given):
            continue
        keys.append(key)
    active = {k.path for k in keys if k.state == "active"}
    for where, jwk in found.items():
        if jwk is None or where in active:
            continue
        # A kid is unique in the set: the same key again, or another under a fixed assertion_kid, takes the old one's place.
        keys = [k for k in keys if k.kid != jwk["kid"]]
        binding = new.bindings.get(where) if where not in given else None
        version = binding.version if binding is not None else None
        keys.append(PublishedKey(kid=jwk["kid"], jwk=jwk, state="active", path=where, version=version, since=now))
    return tuple(keys)


def pinned(new: Integration, written: Mapping[str, str]) -> Integration:
    """What was stored just now is pinned by whoever waits for it; what is pinned already stays."""
    bindings = {
        path: b.model_copy(update={"version": written[path]})
        if path in written and b.owned and b.version is None
        else b
        for path, b in new.bindings.items()
    }
    keys = tuple(
        k.model_copy(update={"version": written[k.path]})
        if k.path in written and k.version is None and k.state != "retiring"
        else k
        for k in new.published_keys
    )
    return new.model_copy(update={"bindings": bindings, "published_keys": keys})


def retired(key: PublishedKey, now: datetime) -> PublishedKey:
    return key.model_copy(update={"state": "retiring", "since": now, "version": None, "hold": False})


def active_key(integration: Integration) -> PublishedKey | None:
    """The one that signs for the integration's own auth, as far as it is known."""
    path = integration.auth.private_key_ssm_param_path if integration.auth is not None else None
    return next((k for k in integration.published_keys if k.state == "active" and k.path == path), None)


def next_key(integration: Integration) -> PublishedKey | None:
    return next((k for k in integration.published_keys if k.state == "next"), None)


def activated(integration: Integration, now: datetime, *, compromised: bool = False) -> Integration:
    """The next key signs from now on; the one before retires, or is unpublished at once where it is compromised."""
    fresh = next_key(integration)
    assert fresh is not None
    assert integration.auth is not None
    before = active_key(integration)
    keys: list[PublishedKey] = []
    for key in integration.published_keys:
        if key is fresh:
            keys.append(key.model_copy(update={"state": "active", "since": now, "hold": False}))
        elif key is before:
            keys += [] if compromised else [retired(key, now)]
        elif not (compromised and key.state == "retiring"):
            keys.append(key)
    binding = integration.bindings.get(fresh.path, Binding(owned=True))
    return integration.model_copy(
        update={
            "published_keys": tuple(keys),
            "auth": integration.auth.model_copy(update={"private_key_ssm_param_path": fresh.path}),
            "bindings": {**integration.bindings, fresh.path: binding.model_copy(update={"version": fresh.version})},
        }
    )


def advanced(integration: Integration, now: datetime) -> Integration | None:
    """The integration with every step taken whose time has come; None where there is none (rules D2)."""
    changed = integration
    fresh = next_key(changed)
    if fresh is not None and not fresh.hold and now >= fresh.since + NEXT_FOR:
        changed = activated(changed, now)
    kept = tuple(k for k in changed.published_keys if k.state != "retiring" or now < k.since + RETIRING_FOR)
    if len(kept) != len(changed.published_keys):
        changed = changed.model_copy(update={"published_keys": kept})
    return None if changed is integration else changed


def due(integration: Integration) -> datetime | None:
    """When `advanced` has something to do next."""
    moments = [k.since + NEXT_FOR for k in integration.published_keys if k.state == "next" and not k.hold]
    moments += [k.since + RETIRING_FOR for k in integration.published_keys if k.state == "retiring"]
    return min(moments, default=None)


def shown(integration: Integration) -> list[dict[str, Any]]:
    """The keys as an operator sees them: never a private part."""
    rows: list[dict[str, Any]] = []
    for key in sorted(integration.published_keys, key=lambda k: (_ORDER[k.state], k.kid)):
        then: datetime | None = None
        match key.state:
            case "next" if not key.hold:
                then = key.since + NEXT_FOR
            case "retiring":
                then = key.since + RETIRING_FOR
            case _:
                pass
        rows.append(
            {
                "kid": key.kid,
                "alg": key.jwk["alg"],
                "state": key.state,
                "since": key.since.isoformat(),
                "until": then.isoformat() if then else None,
                "waits_for_confirmation": key.hold,
                "secret_path": key.path,
            }
        )
    return rows
