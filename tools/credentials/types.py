"""The auth types: one row each. Adding a type is one module and one row."""

from collections.abc import Callable
from dataclasses import dataclass

from tools.credentials import (
    Credential,
    api_key_header,
    bearer_token,
    gcp_wif,
    oauth2_client_credentials,
    oauth2_jwt_bearer,
    smart_backend_services,
)
from tools.credentials.authorization import AuthFault
from tools.credentials.parts import CredentialParts
from tools.models import AuthConfig, AuthType

__all__ = ["TYPES", "AuthTypeRow", "CredentialParts", "faults"]


@dataclass(frozen=True, slots=True)
class AuthTypeRow:
    """The parts of one auth type's module. `token_urls` are the configured ones; a discovered one isn't known yet."""

    faults: Callable[[AuthConfig], list[AuthFault]]
    secret_paths: Callable[[AuthConfig], tuple[str, ...]]
    token_urls: Callable[[AuthConfig], tuple[str, ...]]
    make: Callable[[AuthConfig, CredentialParts], Credential]


TYPES: dict[AuthType, AuthTypeRow] = {
    "api_key_header": AuthTypeRow(
        api_key_header.faults, api_key_header.secret_paths, api_key_header.token_urls, api_key_header.make
    ),
    "bearer_token": AuthTypeRow(
        bearer_token.faults, bearer_token.secret_paths, bearer_token.token_urls, bearer_token.make
    ),
    "oauth2_client_credentials": AuthTypeRow(
        oauth2_client_credentials.faults,
        oauth2_client_credentials.secret_paths,
        oauth2_client_credentials.token_urls,
        oauth2_client_credentials.make,
    ),
    "oauth2_jwt_bearer": AuthTypeRow(
        oauth2_jwt_bearer.faults,
        oauth2_jwt_bearer.secret_paths,
        oauth2_jwt_bearer.token_urls,
        oauth2_jwt_bearer.make,
    ),
    "smart_backend_services": AuthTypeRow(
        smart_backend_services.faults,
        smart_backend_services.secret_paths,
        smart_backend_services.token_urls,
        smart_backend_services.make,
    ),
    "gcp_wif": AuthTypeRow(gcp_wif.faults, gcp_wif.secret_paths, gcp_wif.token_urls, gcp_wif.make),
}


def faults(auth: AuthConfig) -> list[AuthFault]:
    """Everything that is wrong with an auth config as written (semantics: "Auth types"); secrets' values are checked apart."""
    return TYPES[auth.type].faults(auth)
