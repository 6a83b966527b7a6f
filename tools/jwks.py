"""The noun "key": private keys as PEM or JWK, their public JWKs as they are published, and thumbprints.

Pure: nothing here reads a store. Private parts leave only as the PEM that `generate_key` returns. Sentences of KeyFault never
hold key material.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

Algorithm = Literal["RS256", "RS384", "ES256", "ES384"]
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_CURVES: dict[str, tuple[str, Algorithm]] = {"secp256r1": ("P-256", "ES256"), "secp384r1": ("P-384", "ES384")}
_LABEL = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----")
_RSA_PRIVATE = ("d", "p", "q", "dp", "dq", "qi")
_PUBLIC_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y")}


class KeyFault(ValueError):
    """The text isn't a private key that can sign; the message is one sentence that says what to change (rules C1)."""


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """A private key with what its JWK said of itself; a PEM says neither `kid` nor `alg`."""

    key: PrivateKey = field(repr=False)
    kid: str | None = None
    alg: str | None = None

    @property
    def kind(self) -> str:
        """ "RSA", "P-256" or "P-384"."""
        return "RSA" if isinstance(self.key, rsa.RSAPrivateKey) else _CURVES[self.key.curve.name][0]

    def fits(self, alg: str) -> TypeGuard[Algorithm]:
        """Whether this key can sign with `alg` (RFC 7518 3.1)."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            return alg in ("RS256", "RS384")
        return alg == _CURVES[self.key.curve.name][1]


def parse_private_key(text: str, kid: str | None = None, *, prove: bool = True) -> ParsedKey:
    """The one private key in `text`: a PEM (PKCS#8, PKCS#1, SEC1), a JWK, or a JWKS out of which `kid` picks.

    `prove` False leaves out the test that an RSA PEM's numbers are primes that belong together: it takes 0.1 s and lets
    nothing else run meanwhile, so it is for the writing of a key, not for its use.

    Raises KeyFault for everything else: encrypted, public, certificates, several keys, RSA under 2048 bits, other curves.
    """
    text = text.strip()
    parsed = _from_json(text, kid, prove) if text.startswith(("{", "[")) else ParsedKey(_from_pem(text, prove))
    if isinstance(parsed.key, rsa.RSAPrivateKey):
        if parsed.key.key_size < 2048:
            raise KeyFault(f"the RSA key has {parsed.key.key_size} bits; at least 2048 are needed")
    elif parsed.key.curve.name not in _CURVES:
        raise KeyFault(f"the curve {parsed.key.curve.name} is not supported: use P-256 or P-384")
    return parsed


def _from_pem(text: str, prove: bool) -> PrivateKey:
    if "\n" not in text and "\\n" in text:
        text = text.replace("\\n", "\n")  # a PEM that was copied out of a JSON file
    labels = _LABEL.findall(text)
    if not labels:
        raise KeyFault("the value is neither a PEM (-----BEGIN PRIVATE KEY-----) nor a JWK")
    if any("CERTIFICATE" in label for label in labels):
        raise KeyFault("the value holds a certificate: give the private key alone, the server gets the public part")
    if any("PUBLIC" in label for label in labels):
        raise KeyFault("the value is a public key: signing needs the private one")
    if "ENCRYPTED" in labels[0] or "Proc-Type: 4,ENCRYPTED" in text:
        raise KeyFault("the PEM is encrypted with a passphrase: decrypt it first (openssl pkey -in key.pem)")
    if len([label for label in labels if label != "EC PARAMETERS"]) != 1:
        raise KeyFault("the value holds several PEM blocks: give exactly one private key")
    try:
        key = serialization.load_pem_private_key(text.encode(), None, unsafe_skip_rsa_key_validation=not prove)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFault(
            "the PEM can't be read as a private key: was a line lost or broken when it was copied?"
        ) from None
    return _supported(key)


def _from_json(text: str, kid: str | None, prove: bool) -> ParsedKey:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise KeyFault("the value begins like a JWK but is not valid JSON") from None
    members = _object(value)
    if "keys" in members:
        members = _pick(members["keys"], kid)
    if "kty" not in members:
        raise KeyFault("the JSON is not a JWK: it has no kty")
    if members["kty"] not in ("RSA", "EC"):
        raise KeyFault(f"a JWK of type {members['kty']!r} is not supported: use RSA, or EC with P-256 or P-384")
    if "d" not in members:
        raise KeyFault("the JWK is a public key (it has no d): signing needs the private one")
    if members.get("use", "sig") != "sig":
        raise KeyFault(f"the JWK is for use {members['use']!r}, not for signatures (sig)")
    try:
        key = _rsa_key(members, prove) if members["kty"] == "RSA" else ECAlgorithm.from_jwk(members)
    except (ValueError, TypeError, KeyError, OverflowError, UnsupportedAlgorithm, jwt.PyJWTError):
        raise KeyFault(
            "the JWK can't be read as a private key: a member is missing or damaged, or its curve is unknown"
        ) from None
    alg, own_kid = members.get("alg"), members.get("kid")
    return ParsedKey(
        _supported(key),
        own_kid if isinstance(own_kid, str) and own_kid else None,
        alg if isinstance(alg, str) else None,
    )


def _rsa_key(members: dict[str, Any], prove: bool) -> object:
    """Without proof the numbers are taken as they are, where all of them are given."""
    if prove or not set(_RSA_PRIVATE) <= set(members):
        return RSAAlgorithm.from_jwk(members)
    d, p, q, dp, dq, qi, n, e = (_number(members[name]) for name in (*_RSA_PRIVATE, "n", "e"))
    numbers = rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, rsa.RSAPublicNumbers(e, n))
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def _number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType] - JSON has string keys


def _pick(keys: Any, kid: str | None) -> dict[str, Any]:
    if not isinstance(keys, list) or not keys:
        raise KeyFault("the JWKS has no keys")
    found = [jwk for jwk in map(_object, keys) if kid is None or jwk.get("kid") == kid]  # pyright: ignore[reportUnknownArgumentType] - JSON
    if kid is None and len(found) > 1:
        raise KeyFault("the JWKS holds several keys: assertion_kid must say which one signs")
    if len(found) != 1:
        raise KeyFault(f"the JWKS has {len(found)} keys with the kid of assertion_kid; exactly one is needed")
    return found[0]


def _supported(key: object) -> PrivateKey:
    match key:
        case rsa.RSAPrivateKey() | ec.EllipticCurvePrivateKey():
            return key
        case rsa.RSAPublicKey() | ec.EllipticCurvePublicKey():
            raise KeyFault("the value is a public key: signing needs the private one")
        case _:
            raise KeyFault("this kind of key is not supported: use RSA (2048 bits or more), or EC with P-256 or P-384")


def public_part(key: PrivateKey) -> dict[str, str]:
    """kty and its public members, nothing else (the allow list of rules D1)."""
    public = key.public_key()
    jwk = (
        RSAAlgorithm.to_jwk(public, as_dict=True)
        if isinstance(public, rsa.RSAPublicKey)
        else ECAlgorithm.to_jwk(public, as_dict=True)
    )
    return {"kty": str(jwk["kty"])} | {name: str(jwk[name]) for name in _PUBLIC_MEMBERS[jwk["kty"]]}


def public_jwk(pem_or_jwk: str, alg: Algorithm, kid: str | None = None) -> dict[str, str]:
    """The JWK to publish for a private key: exactly kty, use=sig, alg, kid and the public members (rules D1).

    `kid` null is the RFC 7638 thumbprint. Raises KeyFault, also when the key can't sign with `alg`.
    """
    parsed = parse_private_key(pem_or_jwk, kid)
    if not parsed.fits(alg):
        raise KeyFault(f"a key of type {parsed.kind} can't sign with {alg}")
    part = public_part(parsed.key)
    return part | {"use": "sig", "alg": alg, "kid": kid or thumbprint(part)}


def thumbprint(jwk: dict[str, str]) -> str:
    """RFC 7638: base64url of the SHA-256 over the required members in lexicographic order."""
    members = {"kty": jwk["kty"]} | {name: jwk[name] for name in _PUBLIC_MEMBERS[jwk["kty"]]}
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def generate_key(alg: Algorithm) -> tuple[str, dict[str, str]]:
    """A new private key as a PKCS#8 PEM, and its public JWK. RSA has 3072 bits (NIST SP 800-57, beyond 2030)."""
    key: PrivateKey
    match alg:
        case "RS256" | "RS384":
            key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
        case "ES256":
            key = ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return pem, public_jwk(pem, alg)


def private_jwk(pem: str, public: dict[str, str]) -> str:
    """A generated key as the JWK that is stored: unlike a PEM it says its `alg` and `kid`, so it signs with nothing else."""
    key = parse_private_key(pem, prove=False).key
    whole = (
        RSAAlgorithm.to_jwk(key, as_dict=True)
        if isinstance(key, rsa.RSAPrivateKey)
        else ECAlgorithm.to_jwk(key, as_dict=True)
    )
    private = {name: value for name, value in whole.items() if name in ("d", *_RSA_PRIVATE)}
    return json.dumps(public | private, separators=(",", ":"))
