"""Keys that the gateway makes itself: given as the value `generate`, or made for a rotation. The private part is stored at once."""

import anyio.to_thread

from tools.errors import InvalidRequest, Issue
from tools.jwks import Algorithm, generate_key, private_jwk
from tools.models import AuthConfig, AuthConfigWithSecrets, Integration, SecretInput
from tools.signing_keys import KEY_TYPES, active_key

GENERATE = "generate"
"""As the value of `private_key_value`, alone or with an algorithm: `generate:ES384`."""

_DEFAULT: dict[str, Algorithm] = {
    "oauth2_jwt_bearer": "RS256",
    "smart_backend_services": "RS384",
    "gcp_wif": "RS256",
}
_ALGORITHMS: tuple[Algorithm, ...] = ("RS256", "RS384", "ES256", "ES384")


async def with_generated_key(auth: AuthConfigWithSecrets | None) -> AuthConfigWithSecrets | None:
    """The auth with a fresh key in place of `generate`. Raises InvalidRequest for an unknown algorithm."""
    given = auth.private_key_value.value if auth is not None and auth.private_key_value is not None else ""
    word, _, alg = given.partition(":")
    if auth is None or word != GENERATE:
        return auth
    key = await new_key(auth, alg or None, ("body", "auth", "private_key_value", "value"))
    return auth.model_copy(update={"private_key_value": SecretInput(value=key)})


def without_kept_key(auth: AuthConfigWithSecrets | None, current: Integration) -> AuthConfigWithSecrets | None:
    """`generate` asks for a key where there is none: one that we keep and that has the algorithm stays, so that a file can be
    applied again and again."""
    given = auth.private_key_value.value if auth is not None and auth.private_key_value is not None else ""
    word, _, alg = given.partition(":")
    key = active_key(current)
    if auth is None or word != GENERATE or key is None or current.auth is None or current.auth.type != auth.type:
        return auth
    wanted = alg or auth.assertion_algorithm
    if not current.bindings[key.path].owned or wanted not in (None, key.jwk["alg"]):
        return auth
    return auth.model_copy(update={"private_key_value": None})


async def new_key(auth: AuthConfig, alg: str | None, loc: tuple[str, ...], before: str | None = None) -> str:
    """A private JWK for this auth: with `alg`, else assertion_algorithm, else the algorithm of the key `before`, else the type's."""
    wanted = alg or auth.assertion_algorithm or before or _DEFAULT.get(auth.type)
    if auth.type not in KEY_TYPES:
        raise InvalidRequest([Issue(loc, f"{auth.type} doesn't sign with a key")])
    found: Algorithm | None = next((a for a in _ALGORITHMS if a == wanted), None)
    if found is None:
        raise InvalidRequest([Issue(loc, f"the algorithm is one of {', '.join(_ALGORITHMS)}")])
    # Finding primes takes up to seconds: not on the event loop.
    pem, public = await anyio.to_thread.run_sync(generate_key, found)
    return private_jwk(pem, public)
