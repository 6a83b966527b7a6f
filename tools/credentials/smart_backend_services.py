"""`smart_backend_services`: client_credentials with private_key_jwt, RS384 or ES384 (SMART App Launch 2.2, Backend Services)."""

from tools.credentials import Credential
from tools.credentials.assertion import JWT_BEARER, LIFE_S, Claims, sign
from tools.credentials.authorization import AuthFault, masks_of
from tools.credentials.client_auth import Form
from tools.credentials.keys import SigningKey
from tools.credentials.minted import KeyReader, MintedCredential, Secrets, note_scopes, warn
from tools.credentials.parts import CredentialParts
from tools.credentials.request_faults import (
    audience_faults,
    life_faults,
    parameter_faults,
    required,
    scope_faults,
    url_faults,
)
from tools.credentials.scopes import distinct, smart_scope_fault
from tools.credentials.token_cache import Token
from tools.credentials.token_endpoint import TokenEndpoint, Trail, extra_fields, scope_field
from tools.errors import Misconfigured
from tools.kinds.paths import origin_of
from tools.models import AuthConfig


def faults(auth: AuthConfig) -> list[AuthFault]:
    found = required(auth, "client_id", "private_key_ssm_param_path")
    found += url_faults(auth) + parameter_faults(auth) + audience_faults(auth)
    found += life_faults(auth, 30, None, "the assertion's life (at most 240 s are used)")
    if not auth.scopes:
        found.append(AuthFault("scopes", "smart_backend_services needs at least one scope, e.g. system/Patient.rs"))
    found += scope_faults(auth.scopes) or [
        AuthFault("scopes", fault) for scope in auth.scopes or () if (fault := smart_scope_fault(scope))
    ]
    return found


def secret_paths(auth: AuthConfig) -> tuple[str, ...]:
    return (auth.private_key_ssm_param_path,) if auth.private_key_ssm_param_path else ()


def token_urls(auth: AuthConfig) -> tuple[str, ...]:
    """Empty where the token endpoint is discovered under base_url."""
    return (auth.token_url,) if auth.token_url else ()


def make(auth: AuthConfig, parts: CredentialParts) -> Credential:
    path, client_id = auth.private_key_ssm_param_path or "", auth.client_id or ""
    scopes = distinct(auth.scopes)
    keys = KeyReader(auth, path)

    async def mint(secrets: Secrets, trail: Trail) -> Token:
        key = keys.key(secrets)
        trail |= {"grant": "client_credentials", "client_auth": "private_key_jwt", "client_id": client_id}
        url = auth.token_url or await _discovered(parts, path, key, trail)
        life = min(auth.token_lifetime_seconds, LIFE_S)
        claims = Claims(client_id, client_id, auth.assertion_audience or url, life)
        trail["assertion"] = claims.shown(key)

        def fields() -> Form:
            return [
                ("grant_type", "client_credentials"),
                *scope_field(scopes),
                ("client_assertion_type", JWT_BEARER),
                ("client_assertion", sign(claims, key, parts.tokens.timing)),
                *extra_fields(auth.token_params),
            ]

        bound = [path] if auth.token_url else []  # a discovered one was checked against base_url and the pin
        answer = await TokenEndpoint(parts, url, bound, trail).token(fields)
        note_scopes(trail, scopes, answer)
        return Token(answer.access_token, answer.life_s, masks_of([answer.access_token]), trail)

    return MintedCredential(auth, parts, [path], mint)


async def _discovered(parts: CredentialParts, path: str, key: SigningKey, trail: Trail) -> str:
    """The pinned token endpoint of base_url's SMART configuration (rules A1, C6)."""
    base = parts.base_url
    if not base:
        raise Misconfigured("there is no token URL and no base_url to discover it from", advice="set token_url")
    discovery = parts.tokens.discovery
    found = await discovery.find(parts.upstream, parts.workspace, base)
    trail["discovered"] = found.token_endpoint
    warn(trail, found.warnings(key.alg))
    origin = origin_of(found.token_endpoint)
    if origin != origin_of(base) and origin not in parts.origins.get(path, ()):
        raise Misconfigured(
            f"the FHIR server names a token endpoint at another origin, {origin}, that nobody has confirmed",
            advice="an owner or admin must confirm it: set token_url to it, if that is right",
        )
    pinned = await discovery.pins.pin(parts.workspace, parts.integration_id, base, found.token_endpoint)
    if pinned != found.token_endpoint:
        trail["problem"] = "discovery_changed"
        raise Misconfigured(
            f"discovery_changed: the FHIR server now names the token endpoint {found.token_endpoint}, before it was {pinned}",
            advice="an owner or admin must confirm the change, or set token_url",
        )
    return pinned
