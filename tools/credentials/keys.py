"""The noun "signing key": a private key with the algorithm and kid that it signs with (rules C1)."""

from dataclasses import dataclass, field

from tools.credentials.authorization import AuthFault
from tools.jwks import Algorithm, KeyFault, ParsedKey, PrivateKey, parse_private_key, public_part, thumbprint
from tools.models import AuthConfig

# Google's STS verifies RS256 and ES256 only; SMART App Launch names RS384 and ES384.
_BY_TYPE: dict[str, dict[str, Algorithm]] = {
    "oauth2_jwt_bearer": {"RSA": "RS256", "P-256": "ES256", "P-384": "ES384"},
    "gcp_wif": {"RSA": "RS256", "P-256": "ES256"},
    "smart_backend_services": {"RSA": "RS384", "P-384": "ES384"},
}
_ALLOWED: dict[str, frozenset[str]] = {
    "oauth2_jwt_bearer": frozenset({"RS256", "RS384", "ES256", "ES384"}),
    "gcp_wif": frozenset({"RS256", "ES256"}),
    "smart_backend_services": frozenset({"RS384", "ES384"}),
}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """`kid` is assertion_kid, else the JWK's own, else the RFC 7638 thumbprint: never absent (rules C3, D1)."""

    key: PrivateKey = field(repr=False)
    alg: Algorithm
    kid: str


def read_signing_key(auth: AuthConfig, text: str, *, prove: bool = False) -> SigningKey:
    """The key in `text` with its algorithm for this auth config; `prove` as in `parse_private_key`. Raises KeyFault."""
    parsed = parse_private_key(text, auth.assertion_kid, prove=prove)
    kid = auth.assertion_kid or parsed.kid or thumbprint(public_part(parsed.key))
    return SigningKey(parsed.key, _algorithm(auth, parsed), kid)


def _algorithm(auth: AuthConfig, parsed: ParsedKey) -> Algorithm:
    allowed = _ALLOWED[auth.type]
    named = auth.assertion_algorithm or parsed.alg
    if named is None:
        found = _BY_TYPE[auth.type].get(parsed.kind)
        if found is None:
            raise KeyFault(f"{auth.type} can't sign with a {parsed.kind} key: use {_kinds(auth)}")
        return found
    if parsed.alg is not None and parsed.alg != named:
        raise KeyFault(
            f"the JWK is for {parsed.alg}, but assertion_algorithm is {named}: a key signs with one algorithm only"
        )
    if named not in allowed:
        raise KeyFault(f"{auth.type} can't sign with {named}: only with {', '.join(sorted(allowed))}")
    if not parsed.fits(named):
        raise KeyFault(f"a {parsed.kind} key can't sign with {named}")
    return named


def _kinds(auth: AuthConfig) -> str:
    return " or ".join(f"{kind} ({alg})" for kind, alg in _BY_TYPE[auth.type].items())


def key_faults(auth: AuthConfig, private_key_value: str) -> list[AuthFault]:
    """What is wrong with a key that is given inline, for writing time (rules C1)."""
    if auth.type not in _ALLOWED:
        return []
    try:
        read_signing_key(auth, private_key_value, prove=True)
    except KeyFault as fault:
        return [AuthFault("private_key_value", str(fault))]
    return []
