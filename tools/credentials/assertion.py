"""The noun "assertion": a short-lived JWT that we sign (RFC 7523 3; rules C2-C4). A new jti for every one."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import jwt

from tools.credentials.keys import SigningKey
from tools.credentials.timing import Timing

LIFE_S = 240
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Claims:
    """What is asserted. `audience` is one string, never an array (rules C4); `more` are further claims."""

    issuer: str
    subject: str
    audience: str
    life_s: int = LIFE_S
    more: tuple[tuple[str, str], ...] = ()

    def shown(self, key: SigningKey) -> dict[str, object]:
        """For the auth X-ray: header and claims, never jti or signature, so it can't be used as an assertion."""
        return {
            "header": {"alg": key.alg, "kid": key.kid, "typ": "JWT"},
            "claims": {
                "iss": self.issuer,
                "sub": self.subject,
                "aud": self.audience,
                "exp - iat": self.life_s,
                "jti": "(fresh each time)",
                **dict(self.more),
            },
        }


def sign(claims: Claims, key: SigningKey, timing: Timing) -> str:
    """iss, sub, aud, iat, exp, jti (128 random bits), no nbf; header typ JWT and kid, no jku (rules C3)."""
    now = int(timing.wall())
    payload: Mapping[str, object] = {
        "iss": claims.issuer,
        "sub": claims.subject,
        "aud": claims.audience,
        "iat": now,
        "exp": now + claims.life_s,
        "jti": secrets.token_urlsafe(16),
        **dict(claims.more),
    }
    return jwt.encode(dict(payload), key.key, algorithm=key.alg, headers={"kid": key.kid})
