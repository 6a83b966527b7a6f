"""`oauth2_jwt_bearer`: an assertion signed by us is the grant (RFC 7523 2.1), as Salesforce, DocuSign or Box take it."""

from tools.credentials import Credential
from tools.credentials.assertion import Claims, sign
from tools.credentials.authorization import AuthFault, masks_of
from tools.credentials.client_auth import ClientSecret, Form
from tools.credentials.minted import KeyReader, MintedCredential, Secrets, note_scopes
from tools.credentials.parts import CredentialParts
from tools.credentials.request_faults import (
    audience_faults,
    life_faults,
    parameter_faults,
    required,
    scope_faults,
    url_faults,
)
from tools.credentials.scopes import distinct
from tools.credentials.token_cache import Token
from tools.credentials.token_endpoint import TokenEndpoint, Trail, extra_fields, scope_field
from tools.models import AuthConfig

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def faults(auth: AuthConfig) -> list[AuthFault]:
    found = required(auth, "token_url", "assertion_issuer", "private_key_ssm_param_path")
    found += url_faults(auth) + scope_faults(auth.scopes) + parameter_faults(auth) + audience_faults(auth)
    found += life_faults(auth, 30, 3600, "the assertion's life")
    if auth.client_secret_ssm_param_path is not None and not auth.client_id:
        found.append(AuthFault("client_id", "a client secret needs its client_id"))
    return found


def secret_paths(auth: AuthConfig) -> tuple[str, ...]:
    paths = (auth.private_key_ssm_param_path, auth.client_secret_ssm_param_path)
    return tuple(path for path in paths if path)


def token_urls(auth: AuthConfig) -> tuple[str, ...]:
    return (auth.token_url,) if auth.token_url else ()


def make(auth: AuthConfig, parts: CredentialParts) -> Credential:
    url, issuer = auth.token_url or "", auth.assertion_issuer or ""
    secret_path, paths = auth.client_secret_ssm_param_path, secret_paths(auth)
    scopes = distinct(auth.scopes)
    in_jwt = (("scope", " ".join(scopes)),) if auth.assertion_scopes_in_jwt and scopes else ()
    claims = Claims(
        issuer, auth.assertion_subject or issuer, auth.assertion_audience or url, auth.token_lifetime_seconds, in_jwt
    )
    keys = KeyReader(auth, auth.private_key_ssm_param_path or "")

    async def mint(secrets: Secrets, trail: Trail) -> Token:
        key = keys.key(secrets)
        trail |= {"grant": GRANT, "client_auth": "none", "client_id": auth.client_id, "assertion": claims.shown(key)}
        client = None
        if secret_path and auth.client_id:
            client = ClientSecret(auth.client_id, secrets[secret_path].value, auth.client_auth_method)

        def fields() -> Form:
            form: Form = [("grant_type", GRANT), ("assertion", sign(claims, key, parts.tokens.timing))]
            if auth.client_id and client is None:
                form.append(("client_id", auth.client_id))
            return form + ([] if in_jwt else scope_field(scopes)) + extra_fields(auth.token_params)

        answer = await TokenEndpoint(parts, url, paths, trail).token(fields, client)
        note_scopes(trail, scopes, answer)
        hidden = [answer.access_token, *(client.hidden() if client else ())]
        return Token(answer.access_token, answer.life_s, masks_of(hidden), trail)

    return MintedCredential(auth, parts, paths, mint)
