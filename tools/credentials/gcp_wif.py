"""`gcp_wif`: Google's Workload Identity Federation (RFC 8693 at sts.googleapis.com, then optionally generateAccessToken).

The subject token is a JWT of our own (source 1), another token endpoint's (source 2), or this process's own at AWS or Kubernetes
for whom the operator lists (source 3); see rules E1-E4.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jwt
import orjson

from tools.credentials import Credential
from tools.credentials.assertion import Claims, sign
from tools.credentials.authorization import AuthFault, masks_of
from tools.credentials.client_auth import ClientSecret, Form
from tools.credentials.diagnosis import refused
from tools.credentials.external_account import AWS_TYPE, ExternalAccount, read_external_account
from tools.credentials.minted import KeyReader, MintedCredential, Secrets, note_scopes, warn
from tools.credentials.own_identity import AllowedIdentity, OwnIdentity, Platform, SubjectToken, may_go_to
from tools.credentials.parts import CredentialParts, GoogleEndpoints
from tools.credentials.request_faults import life_faults, parameter_faults, scope_faults, url_faults
from tools.credentials.scopes import distinct
from tools.credentials.token_answer import BadAnswer, TokenAnswer, json_object, read_token_answer
from tools.credentials.token_cache import Token
from tools.credentials.token_endpoint import (
    DEADLINE_S,
    TokenEndpoint,
    Trail,
    check_destination,
    extra_fields,
    scope_field,
    send,
)
from tools.errors import Misconfigured
from tools.kinds.paths import origin_of
from tools.masking import Masker
from tools.models import AuthConfig
from tools.upstream import Answer, Request, http_date

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a type's name
SUBJECT_LIFE_S = 600
_NO_SOURCE = (
    "gcp_wif needs a source for its subject token: a private key, or token_url with client_id and client secret"
)


def faults(auth: AuthConfig) -> list[AuthFault]:
    found: list[AuthFault] = []
    if not auth.ssm_param_path:
        found.append(
            AuthFault("ssm_param_path", "gcp_wif needs the external_account JSON: ssm_param_path or api_key_value")
        )
    if auth.scopes:
        found.append(AuthFault("scopes", "gcp_wif takes gcp_scopes, not scopes"))
    if not (auth.private_key_ssm_param_path or _asks_elsewhere(auth) or uses_own_identity(auth)):
        # Half of a source isn't none: an identity that the operator lends is never taken by an oversight.
        found.append(AuthFault("private_key_ssm_param_path", _NO_SOURCE))
    if auth.assertion_algorithm is not None:
        found.append(
            AuthFault("assertion_algorithm", "Google verifies RS256 and ES256 only; the key decides, so leave it out")
        )
    found += url_faults(auth) + scope_faults(auth.gcp_scopes, "gcp_scopes") + parameter_faults(auth)
    return found + life_faults(auth, 600, 43200, "the life that is asked for at impersonation")


def uses_own_identity(auth: AuthConfig) -> bool:
    """Whether the subject token is this process's own (source 3): nothing of another source is there."""
    others = (
        auth.private_key_ssm_param_path,
        auth.token_url,
        auth.client_id,
        auth.client_secret_ssm_param_path,
        auth.assertion_issuer,
        auth.assertion_subject,
        auth.assertion_audience,
    )
    return auth.type == "gcp_wif" and not any(others)


def identity_faults(
    auth: AuthConfig, workspace: str, integration_id: str, public_url: str, own_identity: OwnIdentity
) -> list[AuthFault]:
    """Under our public URL neither iss nor sub can be chosen: one tenant could speak for another; and this process's own
    identity is for workspaces that the operator lists (rules E1).

    For writing time, and asked again at each mint. Nothing to say where the subject token comes from token_url.
    """
    if uses_own_identity(auth) and not own_identity.of(workspace):
        lent = "; this gateway's own AWS or Kubernetes identity isn't open to this workspace"
        return [AuthFault("private_key_ssm_param_path", _NO_SOURCE + lent)]
    if not auth.private_key_ssm_param_path:
        return []
    own = _own_issuer(workspace, integration_id, public_url)
    issuer = auth.assertion_issuer or own
    if not issuer:
        return [
            AuthFault(
                "assertion_issuer", "the gateway has no public URL to be the issuer: set it, or give assertion_issuer"
            )
        ]
    if issuer != own and public_url and _under(issuer, public_url):
        return [
            AuthFault("assertion_issuer", "assertion_issuer can't be another integration of this gateway: leave it out")
        ]
    prefix = f"workspace:{workspace}:"
    if issuer == own and auth.assertion_subject and not auth.assertion_subject.startswith(prefix):
        return [
            AuthFault(
                "assertion_subject", f"assertion_subject must begin with {prefix} while the gateway is the issuer"
            )
        ]
    return []


def account_faults(auth: AuthConfig, text: str, workspace: str, own_identity: OwnIdentity) -> list[AuthFault]:
    """What is wrong with a JSON that is given inline, for writing time (rules E1, E2)."""
    read = read_external_account(text, GoogleEndpoints(), own_identity=uses_own_identity(auth))
    if not isinstance(read, ExternalAccount):
        return [AuthFault("api_key_value", fault) for fault in read]
    if uses_own_identity(auth) and _entry(read, workspace, own_identity) is None:
        return [AuthFault("api_key_value", _not_lent(read))]
    return []


def _entry(account: ExternalAccount, workspace: str, own_identity: OwnIdentity) -> AllowedIdentity | None:
    return own_identity.entry(workspace, account.audience, account.service_account)


def _not_lent(account: ExternalAccount) -> str:
    whom = account.service_account or "no service account"
    return (
        f"this gateway's own identity isn't open to this workspace for {account.audience} with {whom}: "
        "the operator's list has to name exactly these"
    )


def secret_paths(auth: AuthConfig) -> tuple[str, ...]:
    source = auth.private_key_ssm_param_path or auth.client_secret_ssm_param_path
    return tuple(path for path in (auth.ssm_param_path, source) if path)


def token_urls(auth: AuthConfig) -> tuple[str, ...]:
    """Where the subject token's secret goes; Google's endpoints get no stored secret."""
    return (auth.token_url,) if auth.token_url and not auth.private_key_ssm_param_path else ()


def make(auth: AuthConfig, parts: CredentialParts) -> Credential:
    json_path = auth.ssm_param_path or ""
    keys = KeyReader(auth, auth.private_key_ssm_param_path or "")

    async def mint(secrets: Secrets, trail: Trail) -> Token:
        lent = uses_own_identity(auth)
        account = read_external_account(secrets[json_path].value, parts.google, own_identity=lent)
        if not isinstance(account, ExternalAccount):
            raise Misconfigured(f"the external_account JSON under {json_path} can't be used: {'; '.join(account)}")
        scopes = distinct(auth.gcp_scopes) or (CLOUD_PLATFORM,)
        if not auth.gcp_scopes:
            warn(trail, ["gcp_scopes isn't set: the token is good for everything (cloud-platform)"])
        entry: AllowedIdentity | None = None
        if auth.private_key_ssm_param_path:
            subject = SubjectToken(_signed(auth, parts, account, keys, secrets, trail))
        elif lent:
            entry = _entry(account, parts.workspace, parts.own_identity)
            if entry is None:
                raise Misconfigured(_not_lent(account))
            subject = await _own(parts, account, trail)
        else:
            subject = SubjectToken(await _asked(auth, parts, secrets, trail))
        # With impersonation STS gets cloud-platform and the wanted scopes go to generateAccessToken (rules E4).
        sts_scopes = (CLOUD_PLATFORM,) if account.impersonation_url else scopes
        answer = await _exchange(parts, account, subject, sts_scopes, trail)
        token, life = answer.access_token, answer.life_s
        if account.impersonation_url:
            asked = Impersonation(account.impersonation_url, scopes, auth.token_lifetime_seconds)
            token, life = await _impersonate(parts, asked, token, trail)
            trail["scopes"] = {"asked": list(scopes), "granted": list(scopes), "missing": []}
        else:
            note_scopes(trail, scopes, answer)
        more = (("x-goog-user-project", account.quota_project_id),) if account.quota_project_id else ()
        masks = masks_of([token, answer.access_token, subject.value, *subject.hidden])
        return Token(token, life, masks, trail, more, _destinations(entry))

    return MintedCredential(auth, parts, secret_paths(auth), mint)


def _asks_elsewhere(auth: AuthConfig) -> bool:
    return bool(auth.token_url and auth.client_id and auth.client_secret_ssm_param_path)


def _own_issuer(workspace: str, integration_id: str, public_url: str) -> str:
    return f"{public_url}/v1/{workspace}/integrations/{integration_id}" if public_url else ""


def _under(issuer: str, public_url: str) -> bool:
    """Whether an issuer is at the gateway's own origin: its path can't be trusted to tell tenants apart."""
    return origin_of(issuer.strip().lower()) == origin_of(public_url.lower())


def _signed(
    auth: AuthConfig, parts: CredentialParts, account: ExternalAccount, keys: KeyReader, secrets: Secrets, trail: Trail
) -> str:
    """Source 1: a JWT by the integration's own key."""
    if found := identity_faults(auth, parts.workspace, parts.integration_id, parts.public_url, parts.own_identity):
        raise Misconfigured(found[0].message)
    key = keys.key(secrets)
    issuer = auth.assertion_issuer or _own_issuer(parts.workspace, parts.integration_id, parts.public_url)
    subject = auth.assertion_subject or f"workspace:{parts.workspace}:integration:{parts.integration_id}"
    claims = Claims(issuer, subject, auth.assertion_audience or f"https:{account.audience}", SUBJECT_LIFE_S)
    trail |= {"subject_token": "signed by the integration's key", "assertion": claims.shown(key)}
    return sign(claims, key, parts.tokens.timing)


async def _asked(auth: AuthConfig, parts: CredentialParts, secrets: Secrets, trail: Trail) -> str:
    """Source 2: another token endpoint's id_token, else its access token if that is a JWT."""
    path, client_id = auth.client_secret_ssm_param_path or "", auth.client_id or ""
    client = ClientSecret(client_id, secrets[path].value, auth.client_auth_method)

    def fields() -> Form:
        return [("grant_type", "client_credentials"), *extra_fields(auth.token_params)]

    trail |= {"subject_token": "from token_url", "client_id": client_id, "subject_token_endpoint": auth.token_url}
    answer = await TokenEndpoint(parts, auth.token_url or "", [path], trail).token(fields, client)
    token = answer.id_token or answer.access_token
    if not _is_jwt(token):
        raise Misconfigured(
            "token_url gave no id_token and its access token is not a JWT, so Google can't verify it",
            advice="have that server issue JWT access tokens for this client (often by a resource or audience in token_params)",
        )
    return token


def _is_jwt(token: str) -> bool:
    try:
        jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        return False
    return True


async def _own(parts: CredentialParts, account: ExternalAccount, trail: Trail) -> SubjectToken:
    """Source 3: what this process is at AWS or Kubernetes. Only asked for after the operator's list was."""
    source = parts.own_identity.source
    platform: Platform = "AWS" if account.subject_token_type == AWS_TYPE else "Kubernetes"
    trail["subject_token"] = f"this gateway's own {platform} identity"
    if source is None:
        raise Misconfigured("this process has no identity of its own")
    return await (source.aws(account.audience) if platform == "AWS" else source.kubernetes())


def _destinations(entry: AllowedIdentity | None) -> Callable[[str], bool] | None:
    return None if entry is None else lambda origin: may_go_to(origin, entry.origins)


async def _exchange(
    parts: CredentialParts, account: ExternalAccount, subject: SubjectToken, scopes: Sequence[str], trail: Trail
) -> TokenAnswer:
    """The STS exchange (RFC 8693 2.1). Repeating it with one subject token is what Google's own client does."""
    trail["grant"] = EXCHANGE

    def fields() -> Form:
        return [
            ("grant_type", EXCHANGE),
            ("audience", account.audience),
            *scope_field(scopes),
            ("requested_token_type", ACCESS_TOKEN_TYPE),
            ("subject_token", subject.value),
            ("subject_token_type", account.subject_token_type),
        ]

    return await TokenEndpoint(parts, parts.google.sts, [], trail).token(fields, hidden=subject.hidden)


@dataclass(frozen=True, slots=True)
class Impersonation:
    """What generateAccessToken is asked for."""

    url: str
    scopes: tuple[str, ...]
    life_s: int


async def _impersonate(parts: CredentialParts, asked: Impersonation, token: str, trail: Trail) -> tuple[str, float]:
    """(service account's token, seconds of life by expireTime)."""
    trail["impersonation"] = asked.url
    check_destination(parts, asked.url, [])
    timing = parts.tokens.timing
    headers = (
        ("Accept", "application/json"),
        ("Content-Type", "application/json"),
        ("Authorization", f"Bearer {token}"),
    )
    body = orjson.dumps({"scope": asked.scopes, "lifetime": f"{asked.life_s}s"})
    request = Request("POST", asked.url, headers, body, frozenset({"authorization"}))
    answer = await send(parts, lambda: request, trail, timing.monotonic() + DEADLINE_S)
    read = _read_impersonated(answer, timing.wall())
    if isinstance(read, BadAnswer):
        failure = refused(read, answer, trail, Masker(masks_of([token])), timing.wall())
        if answer.status == 403:
            failure.advice = "give the pool's principal the role Workload Identity User on the service account"
        elif answer.status == 400:
            failure.advice = (
                "check gcp_scopes, and token_lifetime_seconds (above 3600 s the organisation must allow it)"
            )
        raise failure
    return read


def _read_impersonated(answer: Answer, wall: float) -> tuple[str, float] | BadAnswer:
    body = json_object(answer)
    if isinstance(body, BadAnswer):
        return body
    if answer.status != 200:
        error: Any = body.get("error")
        details: dict[str, Any] = error if isinstance(error, dict) else {}  # pyright: ignore[reportUnknownVariableType] - JSON
        message = details.get("message")
        return BadAnswer(f"answered {answer.status}", None, message if isinstance(message, str) else None)
    # Read by the same rules as any token answer: what is hostile there is hostile here.
    stand_in = {
        "access_token": body.get("accessToken"),
        "token_type": "Bearer",
        # From the answer's own time: our clock may be off, and a life of its error would be sent too long or minted at each call.
        "expires_in": _left(body.get("expireTime"), http_date(answer.headers.get("Date", "")) or wall),
    }
    read = read_token_answer(Answer(200, answer.headers, orjson.dumps(stand_in), answer.url))
    return read if isinstance(read, BadAnswer) else (read.access_token, read.life_s)


def _left(expire_time: object, wall: float) -> float | None:
    """Seconds until an RFC 3339 time; None where it is missing or unreadable."""
    try:
        return datetime.fromisoformat(str(expire_time).replace("Z", "+00:00")).timestamp() - wall
    except (ValueError, OverflowError):
        return None
