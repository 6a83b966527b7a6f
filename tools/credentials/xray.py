"""The auth X-ray: walks the way to the credential once and tells it, never with a secret, token or assertion in it.

Shown by test-connection and `auth explain`: type, secret paths, cache hit or mint, token endpoint, grant, client authentication,
claims, scopes asked, granted and missing, clock skew, expiry, and where it failed one sentence that says what to change.
"""

from tools.credentials.types import TYPES, CredentialParts
from tools.errors import CallError
from tools.models import AuthConfig


async def xray(auth: AuthConfig, parts: CredentialParts) -> dict[str, object]:
    """The way in the order of `Credential.explain`, with `ok` first and `failed` last where it ended in a failure."""
    row = TYPES[auth.type]
    credential = row.make(auth, parts)
    way: dict[str, object] = {"ok": True, "type": auth.type, "secret_paths": list(row.secret_paths(auth))}
    try:
        used = await credential.authorize()
    except CallError as error:
        failed = {"code": error.full_code, "reason": error.message, "change": error.advice, "said": error.said}
        return way | credential.explain() | {"ok": False, "failed": {k: v for k, v in failed.items() if v}}
    return way | used.explain
