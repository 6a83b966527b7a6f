"""`bearer_token`: a stored token in `Authorization: Bearer` (RFC 6750 2.1)."""

from tools.credentials import Credential
from tools.credentials.api_key_header import HeaderSecret
from tools.credentials.authorization import AuthFault
from tools.credentials.parts import CredentialParts
from tools.models import AuthConfig


def faults(auth: AuthConfig) -> list[AuthFault]:
    if auth.token_ssm_param_path is None:
        return [
            AuthFault(
                "token_ssm_param_path", "bearer_token needs the token: token_ssm_param_path or bearer_token_value"
            )
        ]
    return []


def secret_paths(auth: AuthConfig) -> tuple[str, ...]:
    return (auth.token_ssm_param_path,) if auth.token_ssm_param_path else ()


def token_urls(auth: AuthConfig) -> tuple[str, ...]:
    return ()


def make(auth: AuthConfig, parts: CredentialParts) -> Credential:
    path = auth.token_ssm_param_path or ""
    return HeaderSecret(parts.reader, path, parts.versions.get(path), "Authorization", "Bearer ")
