"""Keys: which one signs with which algorithm, and what of it is published (rules C1, D1; RFC 7638)."""

import base64
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tools.credentials.keys import key_faults, read_signing_key
from tools.jwks import Algorithm, KeyFault, generate_key, public_jwk, thumbprint
from tools.models import AuthConfig

JWT_BEARER, SMART, GCP = "oauth2_jwt_bearer", "smart_backend_services", "gcp_wif"


@cache
def made(kind: str) -> Any:
    """Keys are slow to make and never changed: one of each a run."""
    match kind:
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "P-521":
            return ec.generate_private_key(ec.SECP521R1())
        case "secp256k1":
            return ec.generate_private_key(ec.SECP256K1())
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(65537, int(kind.split("-")[1]))


def pem(kind: str, style: str = "PKCS8", password: bytes | None = None) -> str:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return (
        made(kind)
        .private_bytes(serialization.Encoding.PEM, getattr(serialization.PrivateFormat, style), encryption)
        .decode()
    )


def public_pem(kind: str) -> str:
    return (
        made(kind)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def jwk(kind: str, **members: Any) -> dict[str, Any]:
    writer = RSAAlgorithm if kind.startswith("RSA") else OKPAlgorithm if kind == "Ed25519" else ECAlgorithm
    return {
        k: v for k, v in (writer.to_jwk(made(kind), as_dict=True) | members).items() if k != "key_ops" and v is not ...
    }


def certificate() -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, made("P-256").public_key(), 1, now, now + timedelta(days=1))
    return builder.sign(made("P-256"), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def auth(kind: str, **fields: Any) -> AuthConfig:
    return AuthConfig(**{"type": kind, **fields})


@pytest.mark.parametrize(
    ("kind", "key", "fields", "alg"),
    [
        (JWT_BEARER, lambda: pem("RSA-2048"), {}, "RS256"),
        (JWT_BEARER, lambda: pem("RSA-2048", "TraditionalOpenSSL"), {}, "RS256"),
        (JWT_BEARER, lambda: pem("P-256"), {}, "ES256"),
        (JWT_BEARER, lambda: pem("P-256", "TraditionalOpenSSL"), {}, "ES256"),
        (JWT_BEARER, lambda: pem("P-384"), {}, "ES384"),
        (JWT_BEARER, lambda: pem("RSA-2048"), {"assertion_algorithm": "RS384"}, "RS384"),
        (JWT_BEARER, lambda: json.dumps(jwk("RSA-2048", alg="RS384")), {}, "RS384"),
        (JWT_BEARER, lambda: json.dumps(jwk("RSA-2048")), {}, "RS256"),
        (SMART, lambda: pem("RSA-2048"), {}, "RS384"),
        (SMART, lambda: pem("P-384"), {}, "ES384"),
        (SMART, lambda: json.dumps(jwk("P-384", alg="ES384", use="sig")), {}, "ES384"),
        (GCP, lambda: pem("RSA-2048"), {}, "RS256"),
        (GCP, lambda: pem("P-256"), {}, "ES256"),
        (JWT_BEARER, lambda: "\n  " + pem("P-256") + "\n", {}, "ES256"),
        (JWT_BEARER, lambda: pem("P-256").replace("\n", "\\n"), {}, "ES256"),
        (JWT_BEARER, lambda: pem("P-256").replace("\n", "\r\n"), {}, "ES256"),
        (JWT_BEARER, lambda: json.dumps({"keys": [jwk("P-256", kid="a")]}), {}, "ES256"),
        (
            JWT_BEARER,
            lambda: json.dumps({"keys": [jwk("P-256", kid="a"), jwk("P-384", kid="b")]}),
            {"assertion_kid": "b"},
            "ES384",
        ),
    ],
)
def test_the_key_decides_the_algorithm(kind: str, key: Callable[[], str], fields: dict[str, Any], alg: str) -> None:
    """Rules C1."""
    config = auth(kind, **fields)
    assert key_faults(config, key()) == []
    signing = read_signing_key(config, key())
    assert signing.alg == alg
    # The oracle: somebody else's code verifies what it signs with the algorithm that it claims.
    token = jwt.encode({"a": 1}, signing.key, algorithm=signing.alg)
    assert jwt.decode(token, signing.key.public_key(), algorithms=[alg]) == {"a": 1}


@pytest.mark.parametrize(
    ("kind", "key", "fields", "says"),
    [
        (JWT_BEARER, lambda: pem("P-521"), {}, "secp521r1"),
        (JWT_BEARER, lambda: pem("secp256k1"), {}, "secp256k1"),
        (JWT_BEARER, lambda: pem("Ed25519"), {}, "kind of key"),
        (JWT_BEARER, lambda: pem("RSA-1024"), {}, "1024 bits"),
        (SMART, lambda: pem("P-256"), {}, "P-256"),
        (GCP, lambda: pem("P-384"), {}, "P-384"),
        (SMART, lambda: pem("P-384"), {"assertion_algorithm": "RS384"}, "RS384"),
        (SMART, lambda: pem("RSA-2048"), {"assertion_algorithm": "ES384"}, "ES384"),
        (JWT_BEARER, lambda: pem("P-256"), {"assertion_algorithm": "ES384"}, "ES384"),
        (JWT_BEARER, lambda: pem("P-256", password=b"pw"), {}, "encrypted"),
        (JWT_BEARER, lambda: pem("RSA-2048", "TraditionalOpenSSL", b"pw"), {}, "encrypted"),
        (JWT_BEARER, lambda: certificate(), {}, "certificate"),
        (JWT_BEARER, lambda: pem("P-256") + certificate(), {}, "certificate"),
        (JWT_BEARER, lambda: public_pem("P-256"), {}, "public key"),
        (JWT_BEARER, lambda: pem("P-256") + pem("P-384"), {}, "several"),
        (JWT_BEARER, lambda: pem("P-256", "OpenSSH"), {}, ""),
        (JWT_BEARER, lambda: pem("P-256")[:-60] + "-----END PRIVATE KEY-----", {}, "can't be read"),
        (JWT_BEARER, lambda: "AAAA", {}, "neither"),
        (JWT_BEARER, lambda: "", {}, "neither"),
        (JWT_BEARER, lambda: "{", {}, "not valid JSON"),
        (JWT_BEARER, lambda: "[]", {}, "kty"),
        (JWT_BEARER, lambda: "{}", {}, "kty"),
        (JWT_BEARER, lambda: json.dumps({"keys": []}), {}, "no keys"),
        (JWT_BEARER, lambda: json.dumps({"keys": "x"}), {}, "no keys"),
        (JWT_BEARER, lambda: json.dumps({"keys": [jwk("P-256"), jwk("P-384")]}), {}, "several keys"),
        (JWT_BEARER, lambda: json.dumps({"keys": [jwk("P-256", kid="a")]}), {"assertion_kid": "z"}, "0 keys"),
        (
            JWT_BEARER,
            lambda: json.dumps({"keys": [jwk("P-256", kid="a"), jwk("P-384", kid="a")]}),
            {"assertion_kid": "a"},
            "2 keys",
        ),
        (JWT_BEARER, lambda: json.dumps(jwk("P-256", d=...)), {}, "public key"),
        (JWT_BEARER, lambda: json.dumps(jwk("RSA-2048", d=...)), {}, "public key"),
        (JWT_BEARER, lambda: json.dumps(jwk("P-256", use="enc")), {}, "use"),
        (JWT_BEARER, lambda: json.dumps(jwk("P-256", alg="ES384")), {}, "ES384"),
        (JWT_BEARER, lambda: json.dumps(jwk("RSA-2048", alg="PS256")), {}, "PS256"),
        (JWT_BEARER, lambda: json.dumps(jwk("RSA-2048", alg="HS256")), {}, "HS256"),
        (JWT_BEARER, lambda: json.dumps(jwk("RSA-2048", alg="none")), {}, "none"),
        (SMART, lambda: json.dumps(jwk("RSA-2048", alg="RS256")), {}, "RS256"),
        (GCP, lambda: json.dumps(jwk("RSA-2048", alg="RS384")), {}, "RS384"),
        (
            JWT_BEARER,
            lambda: json.dumps(jwk("RSA-2048", alg="RS256")),
            {"assertion_algorithm": "RS384"},
            "one algorithm",
        ),
        (JWT_BEARER, lambda: json.dumps(jwk("P-521")), {}, "P-521|secp521r1"),
        (JWT_BEARER, lambda: json.dumps(jwk("Ed25519")), {}, "OKP"),
        (JWT_BEARER, lambda: json.dumps({"kty": "oct", "k": "c2VjcmV0"}), {}, "oct"),
        (JWT_BEARER, lambda: json.dumps(jwk("RSA-1024")), {}, "1024 bits"),
        (JWT_BEARER, lambda: json.dumps(jwk("P-256", x="AAAA")), {}, "can't be read"),
        (JWT_BEARER, lambda: json.dumps(jwk("P-256", y=7)), {}, "can't be read"),
        (JWT_BEARER, lambda: json.dumps(jwk("RSA-2048", e="AQ")), {}, ""),
        (JWT_BEARER, lambda: json.dumps(jwk("RSA-2048", n=jwk("RSA-3072")["n"])), {}, "can't be read"),
        (JWT_BEARER, lambda: json.dumps({"kty": "RSA", "d": "AA"}), {}, "can't be read"),
    ],
)
def test_a_key_that_cannot_sign_here_is_refused_with_a_sentence(
    kind: str, key: Callable[[], str], fields: dict[str, Any], says: str
) -> None:
    """Rules C1: the table; no part of the key is in the sentence."""
    text = key()
    found = key_faults(auth(kind, **fields), text)
    assert [fault.field for fault in found] == ["private_key_value"]
    assert re.search(says, found[0].message)
    body = "".join(line for line in text.splitlines() if not line.startswith("-----"))
    assert not any(body[i : i + 12] in found[0].message for i in range(0, len(body) - 12, 12))


@pytest.mark.parametrize("kind", ["RSA-2048", "P-256", "P-384"])
def test_the_kid_is_assertion_kid_then_the_jwks_own_then_the_thumbprint(kind: str) -> None:
    """Rules C3, D1."""
    plain = jwk(kind)
    assert read_signing_key(auth(JWT_BEARER, assertion_kid="mine"), json.dumps(plain | {"kid": "its"})).kid == "mine"
    assert read_signing_key(auth(JWT_BEARER), json.dumps(plain | {"kid": "its"})).kid == "its"
    assert read_signing_key(auth(JWT_BEARER), json.dumps(plain)).kid == thumbprint(plain)


def test_the_thumbprint_is_that_of_the_rfc() -> None:
    """RFC 7638 3.1: the example."""
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMst"
        "n64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1"
        "n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    assert (
        thumbprint({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256"}) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    )


@pytest.mark.parametrize("alg", ["RS256", "RS384", "ES256", "ES384"])
def test_a_generated_key_signs_and_its_public_jwk_verifies(alg: Algorithm) -> None:
    """Rules D1, D2."""
    text, public = generate_key(alg)
    assert public == public_jwk(text, alg)
    named = {"assertion_algorithm": alg} if alg.endswith("384") else {}
    signing = read_signing_key(auth(JWT_BEARER, **named), text)
    token = jwt.encode({"a": 1}, signing.key, algorithm=alg, headers={"kid": signing.kid})
    assert jwt.decode(token, jwt.PyJWK(public).key, algorithms=[alg]) == {"a": 1}
    assert public["kid"] == signing.kid


@pytest.mark.parametrize(("kind", "alg"), [("RSA-2048", "RS384"), ("P-256", "ES256"), ("P-384", "ES384")])
def test_exactly_the_public_members_are_published(kind: str, alg: Algorithm) -> None:
    """Rules D1: no key_ops, no x5c, nothing private, whatever the JWK holds."""
    given = jwk(kind, x5c=["AAAA"], key_ops=["sign"], exp=1, secret="s")
    published = public_jwk(json.dumps(given), alg, "my-kid")
    own = {"n", "e"} if kind.startswith("RSA") else {"crv", "x", "y"}
    assert set(published) == {"kty", "use", "alg", "kid"} | own
    assert (published["use"], published["alg"], published["kid"]) == ("sig", alg, "my-kid")
    assert published == public_jwk(pem(kind), alg, "my-kid")


def test_coordinates_keep_their_leading_zeros() -> None:
    """RFC 7518 6.2.1.2: full length, also where the number is short; a shorter spelling is refused by strict verifiers."""
    for n in range(1, 400):
        key = ec.derive_private_key(n, ec.SECP256R1())
        if key.public_key().public_numbers().x < 2**248:
            break
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    assert len(base64.urlsafe_b64decode(public_jwk(text, "ES256")["x"] + "==")) == 32


def test_a_key_is_not_published_for_an_algorithm_it_cannot_sign_with() -> None:
    with pytest.raises(KeyFault, match="ES384"):
        public_jwk(pem("P-256"), "ES384")


def test_an_rsa_pem_whose_numbers_do_not_belong_together_is_refused_when_written() -> None:
    """Rules C1: at writing alone; the proof takes long, so signing trusts what was written."""
    numbers = made("RSA-2048").private_numbers()
    mixed = rsa.RSAPrivateNumbers(
        numbers.p, numbers.q, numbers.d, numbers.dmp1 + 2, numbers.dmq1, numbers.iqmp, numbers.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    text = mixed.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    assert key_faults(auth(JWT_BEARER), text)


def test_no_repr_shows_a_key() -> None:
    """Rules I1."""
    assert "key" not in repr(read_signing_key(auth(JWT_BEARER), pem("P-256"))).split("(", 1)[1]
