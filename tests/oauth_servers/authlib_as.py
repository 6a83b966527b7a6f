"""An authorization server out of authlib's parts: client_credentials (basic, post, private_key_jwt) and the jwt-bearer grant.

Lenient where oidc-provider is strict: it takes Basic with a raw, unencoded secret and answers failed clients with 400 or 401.
The verification of assertions is authlib's; ours are the tables of clients and the 5-minute rule.
"""

import os
import time
from dataclasses import dataclass, field
from typing import Any

import flask
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, InvalidClientError, InvalidGrantError, grants
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion, JWTBearerGrant
from joserfc import jwk, jwt
from joserfc.errors import JoseError

ALGORITHMS = ["RS256", "RS384", "ES256", "ES384"]


@dataclass
class Client(ClientMixin):
    client_id: str
    methods: tuple[str, ...]
    secret: str = ""
    jwks: dict[str, Any] = field(default_factory=dict)
    scopes: frozenset[str] = frozenset({"read", "write"})
    grants: tuple[str, ...] = ("client_credentials", JWTBearerGrant.GRANT_TYPE)

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return ""

    def get_allowed_scope(self, scope: str | None) -> str:
        return " ".join(s for s in (scope or "").split() if s in self.scopes)

    def check_client_secret(self, client_secret: str) -> bool:
        return bool(self.secret) and client_secret == self.secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in self.methods

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.grants


class AuthlibServer:
    """`forms` are the token requests as they came, `users` the subjects that the grant accepts."""

    def __init__(self, *clients: Client, users: frozenset[str] = frozenset()) -> None:
        os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # loopback has no TLS
        self.clients = {client.client_id: client for client in clients}
        self.users = users
        self.forms: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.audiences: list[str] = []
        self.seen: set[str] = set()
        self.app = flask.Flask("authlib_as")
        # Scopes that a client lacks are dropped in silence; those that nobody has are invalid_scope.
        self.app.config["OAUTH2_SCOPES_SUPPORTED"] = sorted({s for client in clients for s in client.scopes})
        self._server = AuthorizationServer(
            self.app, query_client=self.clients.get, save_token=lambda token, request: None
        )
        self._server.register_client_auth_method(_Assertion.CLIENT_AUTH_METHOD, _Assertion(self))
        methods = ["client_secret_basic", "client_secret_post", _Assertion.CLIENT_AUTH_METHOD]
        self._server.register_grant(
            type("Grant", (grants.ClientCredentialsGrant,), {"TOKEN_ENDPOINT_AUTH_METHODS": methods})
        )
        self._server.register_grant(type("Bearer", (_Bearer,), {"home": self}))
        self.app.add_url_rule("/token", "token", self._token, methods=["POST"])

    def _token(self) -> Any:
        self.forms.append(dict(flask.request.form))
        self.headers.append(dict(flask.request.headers))
        return self._server.create_token_response()

    def check_claims(self, assertion: str, key: Any, error: type[Exception]) -> jwt.Token:
        try:
            token = jwt.decode(assertion, key, algorithms=ALGORITHMS)
        except JoseError as e:
            raise error(description=e.description) from e
        return token


class _Assertion(JWTBearerClientAssertion):
    def __init__(self, home: AuthlibServer) -> None:
        super().__init__()
        self._home = home

    def get_audiences(self) -> list[str]:
        return self._home.audiences

    def resolve_client_public_key(self, client: Client) -> jwk.KeySet:
        return jwk.KeySet.import_key_set(client.jwks)

    def process_assertion_claims(self, assertion: str, resolve_key: Any) -> Any:
        """As shipped it takes RS256 and ES256 alone; SMART's algorithms and 5 minutes are this server's policy."""
        token = self._home.check_claims(assertion, resolve_key, InvalidClientError)
        now = time.time()
        if token.claims["exp"] < now:
            raise InvalidClientError(description="The token is expired")
        if token.claims["exp"] > now + 300:
            raise InvalidClientError(description="exp is too far in the future")
        self.verify_claims(token.claims)
        return token.claims

    def validate_jti(self, claims: Any, jti: str) -> bool:
        fresh = jti not in self._home.seen
        self._home.seen.add(jti)
        return fresh


class _Bearer(JWTBearerGrant):
    home: AuthlibServer

    def authenticate_token_endpoint_client(self) -> Any:  # pragma: no cover - the assertion names the client
        return None

    def process_assertion_claims(self, assertion: str) -> Any:
        """As shipped it takes RS256 and ES256 alone."""
        _, claims = self.extract_assertion(assertion)
        client = self.resolve_issuer_client(claims["iss"])
        if client is None:
            raise InvalidGrantError(description="The issuer is not known on this server.")
        token = self.home.check_claims(assertion, self.resolve_client_public_key(client), InvalidGrantError)
        self.verify_claims(token.claims)
        return token.claims

    def resolve_issuer_client(self, issuer: str) -> Client | None:
        return self.home.clients.get(issuer)

    def resolve_client_public_key(self, client: Client) -> jwk.KeySet:
        return jwk.KeySet.import_key_set(client.jwks)

    def get_audiences(self) -> list[str]:
        return self.home.audiences

    def authenticate_user(self, subject: str) -> str | None:
        return subject if subject in self.home.users else None

    def has_granted_permission(self, client: Client, user: str) -> bool:
        return True
