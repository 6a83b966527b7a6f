"""The noun "external account": Google's JSON, of which only four members are used (rules E1, E2).

Anything else in it could make us read a file, call a URL, run a program or send the token to another host.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from tools.credentials.parts import GoogleEndpoints

JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
ID_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - a type's name
AWS_TYPE = "urn:ietf:params:aws:token-type:aws4_request"
AUDIENCE = re.compile(
    r"//iam\.googleapis\.com/projects/[0-9]+/locations/global/workloadIdentityPools/[a-z0-9-]+/providers/[a-z0-9-]+",
    re.ASCII,
)
SERVICE_ACCOUNT = re.compile(r"[a-z0-9._-]+@[a-z0-9.-]+\.iam\.gserviceaccount\.com", re.ASCII)
_ACCOUNT = re.compile(
    rf"/v1/projects/-/serviceAccounts/(?P<who>{SERVICE_ACCOUNT.pattern}):generateAccessToken", re.ASCII
)
_QUOTA_PROJECT = re.compile(r"[a-z0-9][a-z0-9:.-]{0,98}", re.ASCII)
_OWN_KINDS = {
    "service_account": "a service account's own key: the point of gcp_wif is to have none",
    "authorized_user": "a person's login",
    "impersonated_service_account": "built on another credential",
    "external_account_authorized_user": "a person's login",
}
_SOURCES = {
    "file": "reads a local file",
    "url": "calls a URL",
    "executable": "runs a program",
    "certificate": "reads local key files",
}


@dataclass(frozen=True, slots=True)
class ExternalAccount:
    audience: str
    subject_token_type: str
    impersonation_url: str | None
    quota_project_id: str | None

    @property
    def service_account(self) -> str:
        """Whom it impersonates; empty for nobody."""
        found = _ACCOUNT.search(self.impersonation_url or "")
        return found["who"] if found else ""


def read_external_account(
    text: str, google: GoogleEndpoints, *, own_identity: bool = False
) -> ExternalAccount | list[str]:
    """The account, or everything that is wrong with the JSON, each a sentence (rules E2).

    `own_identity`: the subject token is this process's; its type says whether at AWS or at Kubernetes.
    """
    try:
        value: Any = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return ["the value is not JSON: give the external_account configuration that Google's console downloads"]
    if not isinstance(value, dict):
        return ["the value is not a JSON object: give the external_account configuration"]
    account: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType] - JSON has string keys
    kind = account.get("type")
    if kind != "external_account":
        why = _OWN_KINDS.get(kind) if isinstance(kind, str) else None
        return [f"type must be external_account{f', not {kind} ({why})' if why else ''}"]
    found = [*_source_faults(account.get("credential_source")), *_host_faults(account, google)]
    audience = account.get("audience")
    if not isinstance(audience, str) or not AUDIENCE.fullmatch(audience):
        found.append(
            "audience must be //iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER"
        )
    token_type = account.get("subject_token_type", JWT_TYPE)
    if own_identity and token_type not in (JWT_TYPE, AWS_TYPE):
        found.append(f"subject_token_type must be {AWS_TYPE} (AWS) or {JWT_TYPE} (Kubernetes)")
    elif not own_identity and token_type not in (JWT_TYPE, ID_TOKEN_TYPE):
        found.append(f"subject_token_type must be {JWT_TYPE} or {ID_TOKEN_TYPE}: the subject token is a JWT")
    url = account.get("service_account_impersonation_url")
    if url is not None and not _is_impersonation(url, google):
        found.append(
            f"service_account_impersonation_url must be {google.iam}/v1/projects/-/serviceAccounts/"
            "NAME@PROJECT.iam.gserviceaccount.com:generateAccessToken"
        )
    quota = account.get("quota_project_id")
    if quota is not None and not (isinstance(quota, str) and _QUOTA_PROJECT.fullmatch(quota)):
        found.append("quota_project_id is not a project id")
    return found or ExternalAccount(str(audience), str(token_type), url, quota)


def _is_impersonation(url: object, google: GoogleEndpoints) -> bool:
    return (
        isinstance(url, str) and url.startswith(google.iam) and _ACCOUNT.fullmatch(url[len(google.iam) :]) is not None
    )


def _source_faults(source: object) -> list[str]:
    """A credential_source is never used; AWS's is let pass, the ones that would act here are named."""
    if not isinstance(source, dict):
        return [] if source is None else ["credential_source must be left out"]
    kinds: dict[str, Any] = source  # pyright: ignore[reportUnknownVariableType] - JSON has string keys
    if str(kinds.get("environment_id", "")).startswith("aws"):
        return []  # its url members belong to AWS's metadata service and aren't used either
    return [
        f"credential_source.{kind} {does}, which a gateway never does for a tenant: remove credential_source, the subject "
        "token comes from the integration's key, from token_url, or from where the operator says"
        for kind, does in _SOURCES.items()
        if kind in kinds
    ]


def _host_faults(account: dict[str, Any], google: GoogleEndpoints) -> list[str]:
    found: list[str] = []
    if account.get("token_url", google.sts) != google.sts:
        found.append(f"token_url must be {google.sts}")
    if account.get("universe_domain", "googleapis.com") != "googleapis.com":
        found.append("universe_domain must be googleapis.com or left out")
    return found
