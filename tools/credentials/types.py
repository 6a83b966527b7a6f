"""The auth types: one row each. Adding a type is one module and one row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tools.credentials import Credential, api_key_header, bearer_token
from tools.credentials.api_key_header import DEFAULT_HEADER, HeaderSecret
from tools.credentials.authorization import AuthFault
from tools.credentials.reader import SecretReader
from tools.models import AuthConfig, AuthType
from tools.upstream import Upstream


@dataclass(frozen=True, slots=True)
class CredentialParts:
    """What a credential is made from. `versions` pins secret paths to the versions of this catalog version."""

    reader: SecretReader
    upstream: Upstream
    workspace: str
    integration_id: str
    base_url: str
    versions: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class AuthTypeRow:
    """The parts of one auth type's module."""

    faults: Callable[[AuthConfig], list[AuthFault]]
    secret_paths: Callable[[AuthConfig], tuple[str, ...]]
    token_urls: Callable[[AuthConfig], tuple[str, ...]]
    make: Callable[[AuthConfig, CredentialParts], Credential]


def _make_api_key(auth: AuthConfig, parts: CredentialParts) -> Credential:
    path = auth.ssm_param_path or ""
    return HeaderSecret(parts.reader, path, parts.versions.get(path), auth.header_name or DEFAULT_HEADER)


def _make_bearer(auth: AuthConfig, parts: CredentialParts) -> Credential:
    path = auth.token_ssm_param_path or ""
    return HeaderSecret(parts.reader, path, parts.versions.get(path), "Authorization", "Bearer ")


TYPES: dict[AuthType, AuthTypeRow] = {
    "api_key_header": AuthTypeRow(
        api_key_header.faults, api_key_header.secret_paths, api_key_header.token_urls, _make_api_key
    ),
    "bearer_token": AuthTypeRow(bearer_token.faults, bearer_token.secret_paths, bearer_token.token_urls, _make_bearer),
}
