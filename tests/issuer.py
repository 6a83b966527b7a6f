"""An issuer of access tokens on loopback: its metadata and keys are served, and what was asked for is counted."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.world import listening

PUBLIC_URL = "https://gw.example"
MCP, SSE, REST = (f"{PUBLIC_URL}/{door}" for door in ("mcp", "sse", "v1"))
SCOPES: dict[str, list[str]] = {
    "call": ["agent"],
    "look": ["Integration.view"],
    "manage": ["member"],
    "rule": ["admin"],
}
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
RSA_KEYS = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]


def jwk_of(key: PrivateKey, kid: str, **more: Any) -> dict[str, Any]:
    """The public part as a JWKS has it."""
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**orjson.loads(algorithm.to_jwk(key.public_key())), "kid": kid, **more}  # pyright: ignore[reportArgumentType]


@dataclass
class Issuer:
    """`published` are the JWKs, `asked` the paths that were asked for; `status` other than 200 is what all of it answers."""

    url: str = ""
    name: str = ""
    published: list[dict[str, Any]] = field(default_factory=lambda: [jwk_of(RSA_KEYS[0], "one", alg="RS256")])
    asked: list[str] = field(default_factory=list[str])
    status: int = 200
    metadata: str = "/.well-known/oauth-authorization-server"

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        self.asked.append(path)
        if self.status != 200:
            return Response(status_code=self.status)
        if path == "/keys":
            return JSONResponse({"keys": self.published})
        if path == self.metadata:
            return JSONResponse({"issuer": self.name or self.url, "jwks_uri": f"{self.url}/keys"})
        return Response(status_code=404)

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Those of a sound token; None takes one out."""
        now = int(time.time())
        made = {
            "iss": self.name or self.url,
            "sub": "user-1",
            "aud": [MCP, SSE, REST],
            "exp": now + 600,
            "iat": now,
            "client_id": "app",
            "scope": "call look",
            "workspace": "acme",
            **changed,
        }
        return {name: value for name, value in made.items() if value is not None}

    def token(
        self,
        *,
        key: Any = RSA_KEYS[0],
        alg: str = "RS256",
        header: dict[str, Any] | None = None,
        payload: bytes | None = None,
        **changed: Any,
    ) -> str:
        """Signed with `key`; `payload` replaces the claims by bytes as they are."""
        headers = {"typ": "at+jwt", "kid": "one", **(header or {})}
        headers = {name: value for name, value in headers.items() if value is not None}
        return jwt.PyJWS().encode(payload or orjson.dumps(self.claims(**changed)), key, alg, headers)

    def provider(self, **more: Any) -> dict[str, Any]:
        """The entry of the setting."""
        return {"issuer": self.name or self.url, "workspace_claim": "workspace", "scopes": SCOPES, **more}

    def settings(self, **more: Any) -> dict[str, Any]:
        """For `gateway`."""
        return {"public_url": PUBLIC_URL, "identity_providers": [self.provider(**more)]}


@asynccontextmanager
async def issuer() -> AsyncGenerator[Issuer, None]:
    made = Issuer()
    async with listening(Starlette(routes=[Route("/{path:path}", made.answer)])) as url:
        made.url = url
        yield made
