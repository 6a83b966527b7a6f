"""`oauth2_client_credentials`: a token for the client itself (RFC 6749 4.4)."""

from tools.credentials import Credential
from tools.credentials.authorization import AuthFault, masks_of
from tools.credentials.client_auth import ClientSecret, Form
from tools.credentials.minted import MintedCredential, Secrets, note_scopes
from tools.credentials.parts import CredentialParts
from tools.credentials.request_faults import parameter_faults, required, scope_faults, url_faults
from tools.credentials.scopes import distinct
from tools.credentials.token_cache import Token
from tools.credentials.token_endpoint import TokenEndpoint, Trail, extra_fields, scope_field
from tools.models import AuthConfig


def faults(auth: AuthConfig) -> list[AuthFault]:
    found = required(auth, "token_url", "client_id", "client_secret_ssm_param_path")
    found += url_faults(auth) + scope_faults(auth.scopes) + parameter_faults(auth)
    if auth.assertion_audience is not None:
        # Silently ignored, an audience would look as if it were asked for (rules B8).
        found.append(
            AuthFault("assertion_audience", "oauth2_client_credentials sends no audience: use token_params for that")
        )
    return found


def secret_paths(auth: AuthConfig) -> tuple[str, ...]:
    return (auth.client_secret_ssm_param_path,) if auth.client_secret_ssm_param_path else ()


def token_urls(auth: AuthConfig) -> tuple[str, ...]:
    return (auth.token_url,) if auth.token_url else ()


def make(auth: AuthConfig, parts: CredentialParts) -> Credential:
    path, url, client_id = auth.client_secret_ssm_param_path or "", auth.token_url or "", auth.client_id or ""
    scopes = distinct(auth.scopes)

    async def mint(secrets: Secrets, trail: Trail) -> Token:
        trail |= {"grant": "client_credentials", "client_id": client_id}
        client = ClientSecret(client_id, secrets[path].value, auth.client_auth_method)

        def fields() -> Form:
            return [("grant_type", "client_credentials"), *scope_field(scopes), *extra_fields(auth.token_params)]

        answer = await TokenEndpoint(parts, url, [path], trail).token(fields, client)
        note_scopes(trail, scopes, answer)
        return Token(answer.access_token, answer.life_s, masks_of([answer.access_token, *client.hidden()]), trail)

    return MintedCredential(auth, parts, [path], mint)
