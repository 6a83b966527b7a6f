"""gcp_wif against a server that checks what Google checks, and against google-auth as the oracle (rules E1-E4, J9)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import jwt
import pytest
from google.auth import identity_pool
from oauth_servers.fake_gcp import CLOUD_PLATFORM, FakeGoogle
from oauth_servers.running import serving
from oauth_servers.world import World, a_world
from upstreams import Hostile, Received, answer, redirect

from tools.credentials.parts import GoogleEndpoints
from tools.errors import CallError, CredentialRejected, CredentialUnavailable, Misconfigured
from tools.jwks import generate_key, parse_private_key
from tools.models import AuthConfig

pytestmark = pytest.mark.anyio
POOL = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/pool-1/providers/gw"
GATEWAY = "https://gw.example.com"
ISSUER = f"{GATEWAY}/v1/acme/integrations/i-1"
ACCOUNT = "reader@proj-1.iam.gserviceaccount.com"
READ_ONLY = "https://www.googleapis.com/auth/devstorage.read_only"
PEM, PUBLIC = generate_key("ES256")
JSON_PATH, KEY, SECRET = "/gw/acme/gcp", "/gw/acme/key", "/gw/acme/secret"


@pytest.fixture
def google() -> FakeGoogle:
    return FakeGoogle(POOL, ISSUER, {"keys": [PUBLIC]}, frozenset({ACCOUNT}))


@pytest.fixture
def url(google: FakeGoogle) -> Iterator[str]:
    with serving(google.app) as base:
        yield base


def endpoints(url: str) -> GoogleEndpoints:
    return GoogleEndpoints(url + "/v1/token", url)


def account(url: str, impersonate: str | None = None, **members: Any) -> str:
    value: dict[str, Any] = {"type": "external_account", "audience": POOL, "token_url": url + "/v1/token"}
    if impersonate:
        value["service_account_impersonation_url"] = impersonation(url, impersonate)
    return json.dumps(value | members)


def impersonation(url: str, who: str = ACCOUNT) -> str:
    return f"{url}/v1/projects/-/serviceAccounts/{who}:generateAccessToken"


@pytest.fixture
async def world(url: str) -> AsyncIterator[World]:
    async with a_world({KEY: PEM, JSON_PATH: account(url), SECRET: "the-client-secret"}) as made:
        made.google = endpoints(url)
        yield made


def by_key(**fields: Any) -> AuthConfig:
    return AuthConfig(type="gcp_wif", ssm_param_path=JSON_PATH, private_key_ssm_param_path=KEY, **fields)


async def token(world: World, auth: AuthConfig, **parts: Any) -> Any:
    return await world.credential(auth, world.parts(**({"public_url": GATEWAY} | parts))).authorize()


async def test_a_token_signed_by_our_key_is_exchanged(world: World, google: FakeGoogle) -> None:
    """Rules E1 (1), E3, E4: without impersonation gcp_scopes go to STS."""
    made = await token(world, by_key(gcp_scopes=(READ_ONLY,)))
    assert made.value == "Bearer ya29.federated-0"
    assert google.sts[0]["scope"] == READ_ONLY
    claims = jwt.decode(google.sts[0]["subject_token"], options={"verify_signature": False})
    assert (claims["iss"], claims["sub"]) == (ISSUER, "workspace:acme:integration:i-1")
    assert claims["aud"] == f"https:{POOL}"
    assert claims["exp"] - claims["iat"] == 600
    assert made.explain["expires_in_s"] == 3599
    assert google.sts[0]["subject_token"] in made.masks


async def test_with_impersonation_sts_gets_cloud_platform_and_the_account_our_scopes(
    world: World, google: FakeGoogle, url: str
) -> None:
    """Rules C2, E3, E4: the life asked for, and expiry from expireTime."""
    await world.secrets.write(JSON_PATH, account(url, ACCOUNT, quota_project_id="proj-1"))
    made = await token(world, by_key(gcp_scopes=(READ_ONLY,), token_lifetime_seconds=1200))
    assert made.value == "Bearer ya29.account-1"
    assert google.sts[0]["scope"] == CLOUD_PLATFORM
    assert google.iam == [{"account": ACCOUNT, "body": {"scope": [READ_ONLY], "lifetime": "1200s"}}]
    assert 1190 <= float(made.explain["expires_in_s"]) <= 1201
    assert made.more == (("x-goog-user-project", "proj-1"),)


@pytest.mark.parametrize("off", [-50.0, 50.0])
async def test_a_life_is_taken_from_googles_time_and_not_from_our_clock(
    world: World, google: FakeGoogle, url: str, off: float
) -> None:
    await world.secrets.write(JSON_PATH, account(url, ACCOUNT))
    world.clock.wall_offset += off
    made = await token(world, by_key(gcp_scopes=(READ_ONLY,), token_lifetime_seconds=1200))
    assert 1190 <= float(made.explain["expires_in_s"]) <= 1201


async def test_without_gcp_scopes_it_is_cloud_platform_with_a_warning(world: World, google: FakeGoogle) -> None:
    """Rules E4."""
    made = await token(world, by_key())
    assert google.sts[0]["scope"] == CLOUD_PLATFORM
    assert "gcp_scopes" in str(made.explain["warnings"])


@pytest.mark.parametrize("member", ["id_token", "access_token"])
async def test_a_subject_token_comes_from_another_token_endpoint(world: World, google: FakeGoogle, member: str) -> None:
    """Rules E1 (2): the answer's id_token, else its access token if it is a JWT; Google verifies it."""
    subject = jwt.encode(_claims(), _private(), algorithm="ES256", headers={"kid": PUBLIC["kid"]})
    body = {"access_token": "opaque", "token_type": "Bearer"} | {member: subject}
    async with Hostile() as other:
        other.script("/token", answer(200, json.dumps(body).encode()))
        auth = AuthConfig(
            type="gcp_wif",
            ssm_param_path=JSON_PATH,
            token_url=other.url + "/token",
            client_id="me",
            client_secret_ssm_param_path=SECRET,
        )
        made = await token(world, auth)
        assert made.value == "Bearer ya29.federated-0"
        assert google.sts[0]["subject_token"] == subject
        assert "client_secret" not in google.sts[0]
        assert b"the-client-secret" not in b"".join(r.body for r in other.received)  # Basic first


async def test_an_opaque_subject_token_is_refused_with_advice(world: World, google: FakeGoogle) -> None:
    """Rules E1 (2)."""
    async with Hostile() as other:
        other.script("/token", answer(200, b'{"access_token":"opaque","token_type":"Bearer"}'))
        auth = AuthConfig(
            type="gcp_wif",
            ssm_param_path=JSON_PATH,
            token_url=other.url + "/token",
            client_id="me",
            client_secret_ssm_param_path=SECRET,
        )
        with pytest.raises(Misconfigured, match="JWT"):
            await token(world, auth)
    assert google.sts == []


def _private() -> Any:
    return parse_private_key(PEM).key


def _claims() -> dict[str, Any]:
    now = int(time.time())
    return {"iss": ISSUER, "sub": "robot", "aud": f"https:{POOL}", "iat": now, "exp": now + 300}


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("break_it", ["key", "issuer", "pool", "audience", "clock"])
async def test_what_google_refuses_is_refused_once_with_a_sentence(
    world: World, google: FakeGoogle, url: str, break_it: str
) -> None:
    """Rules B6, J9: another tenant's pool among them."""
    auth = by_key()
    kind: type[CallError] = CredentialRejected
    match break_it:
        case "key":
            await world.secrets.write(KEY, generate_key("ES256")[0])
        case "issuer":
            google.issuer = "https://another.example"
        case "pool":
            await world.secrets.write(JSON_PATH, account(url, audience=POOL.replace("pool-1", "pool-of-another")))
            kind = Misconfigured
        case "audience":
            auth = by_key(assertion_audience="https://elsewhere.example")
        case _:
            world.clock.wall_offset -= 4000
    with pytest.raises(kind) as failure:
        await token(world, auth)
    assert failure.value.advice
    assert google.federated == {}
    assert len(google.sts) == 1
    assert ("clock" in failure.value.advice) == (break_it == "clock")


async def test_an_account_that_may_not_be_impersonated_names_the_role(
    world: World, google: FakeGoogle, url: str
) -> None:
    await world.secrets.write(JSON_PATH, account(url, "writer@proj-1.iam.gserviceaccount.com"))
    with pytest.raises(CallError, match="403") as failure:
        await token(world, by_key())
    assert "Workload Identity User" in (failure.value.advice or "")


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"token_url": "https://sts.googleapis.com.evil.test/v1/token"}, "token_url"),
        ({"service_account_impersonation_url": "http://evil.test/v1/projects/-/serviceAccounts/x"}, "impersonation"),
        ({"credential_source": {"file": "/etc/passwd"}}, "local file"),
        ({"audience": POOL + "\n"}, "audience"),
        ({"type": "service_account", "private_key": "x"}, "external_account"),
    ],
)
async def test_a_json_named_by_path_is_checked_like_one_given_inline(
    world: World, google: FakeGoogle, url: str, members: dict[str, Any], says: str
) -> None:
    """Rules E2, J9: nothing is sent."""
    await world.secrets.write(JSON_PATH, account(url, **members))
    with pytest.raises(Misconfigured, match=says):
        await token(world, by_key())
    assert google.sts == []


async def test_no_tenant_speaks_for_another_at_minting(world: World, google: FakeGoogle) -> None:
    """Rules E1: checked again where it is signed; the second is the same config with a subject of its own."""
    with pytest.raises(Misconfigured, match="workspace:acme:"):
        await token(world, by_key(assertion_subject="workspace:other:integration:i-9"))
    assert google.sts == []
    await token(world, by_key(assertion_subject="workspace:acme:reports"))
    assert len(google.sts) == 1


@pytest.mark.parametrize("at", ["sts", "iam"])
async def test_a_redirect_of_googles_endpoints_is_never_followed(world: World, at: str) -> None:
    """Rules J4, J9: STS and impersonation."""
    async with Hostile() as fake, Hostile() as thief:
        elsewhere = redirect(307, thief.url + "/")
        exchanged = answer(200, b'{"access_token":"ya29.x","token_type":"Bearer","expires_in":60}')
        fake.script("/v1/token", elsewhere if at == "sts" else exchanged)
        fake.script(impersonation("", ACCOUNT), elsewhere)
        world.google = endpoints(fake.url)
        await world.secrets.write(JSON_PATH, account(fake.url, ACCOUNT))
        with pytest.raises(Misconfigured, match="redirect"):
            await token(world, by_key())
        assert thief.received == []


@pytest.mark.parametrize(
    ("body", "life"),
    [
        ({"accessToken": "ya29.ok", "expireTime": "soon"}, 300),
        ({"accessToken": "ya29.ok"}, 300),
        ({"accessToken": "ya29\r\nX: y", "expireTime": "2999-01-01T00:00:00Z"}, None),
        ({"accessToken": 7}, None),
        ([], None),
    ],
)
async def test_a_hostile_impersonation_answer_is_read_by_the_same_rules(
    world: World, body: Any, life: float | None
) -> None:
    """Rules B2, B5, J5."""
    async with Hostile() as fake:
        fake.script("/v1/token", answer(200, b'{"access_token":"ya29.x","token_type":"Bearer","expires_in":60}'))
        fake.script(impersonation("", ACCOUNT), answer(200, json.dumps(body).encode()))
        world.google = endpoints(fake.url)
        await world.secrets.write(JSON_PATH, account(fake.url, ACCOUNT))
        if life is None:
            with pytest.raises((Misconfigured, CredentialUnavailable)):
                await token(world, by_key())
        else:
            assert (await token(world, by_key())).explain["expires_in_s"] == life


# ------------------------------------------------------------------ the oracle


class _Response:
    def __init__(self, reply: httpx2.Response) -> None:
        self.status, self.headers, self.data = reply.status_code, dict(reply.headers), reply.content


class _Supplier(identity_pool.SubjectTokenSupplier):
    """Hands google-auth the very subject token that we sent."""

    def __init__(self, subject: str) -> None:
        self._subject = subject

    def get_subject_token(self, context: Any, request: Any) -> str:
        return self._subject


@pytest.mark.parametrize("impersonate", [None, ACCOUNT])
async def test_our_requests_equal_googles_own_client(world: World, impersonate: str | None) -> None:
    """Rules E3: the same inputs, the same two requests (its telemetry headers aside)."""

    async def sts(request: Received, writer: Any) -> bool:
        body = {"access_token": "ya29.x", "token_type": "Bearer", "expires_in": 3599, "issued_token_type": "x"}
        return await answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})(request, writer)

    generated = {"accessToken": "ya29.y", "expireTime": "2999-01-01T00:00:00Z"}
    async with Hostile() as fake:
        fake.script("/v1/token", sts)
        fake.script(impersonation("", ACCOUNT), answer(200, json.dumps(generated).encode()))
        world.google = endpoints(fake.url)
        await world.secrets.write(JSON_PATH, account(fake.url, impersonate))
        await token(world, by_key(gcp_scopes=(READ_ONLY,), token_lifetime_seconds=1200))
        ours = list(fake.received)
        theirs = identity_pool.Credentials(
            audience=POOL,
            subject_token_type="urn:ietf:params:oauth:token-type:jwt",
            token_url=fake.url + "/v1/token",
            service_account_impersonation_url=impersonation(fake.url, impersonate) if impersonate else None,
            service_account_impersonation_options={"token_lifetime_seconds": 1200},
            subject_token_supplier=_Supplier(dict(parse_qsl(ours[0].body.decode()))["subject_token"]),
            scopes=[READ_ONLY],
        )
        await _refresh(theirs)
        reference = fake.received[len(ours) :]
        if impersonate:
            # Either scope lets its holder call generateAccessToken; which one google-auth asks for moved between releases.
            asked = [dict(parse_qsl(r[0].body.decode()))["scope"] for r in (ours, reference)]
            assert asked[0] == CLOUD_PLATFORM
            assert asked[1] in (CLOUD_PLATFORM, "https://www.googleapis.com/auth/iam")
        assert [_essence(r, impersonate) for r in ours] == [_essence(r, impersonate) for r in reference]
        assert len(ours) == (2 if impersonate else 1)


async def _refresh(credentials: Any) -> None:
    """google-auth blocks, so it runs in a thread beside the loopback server."""

    def send(url: str, method: str = "GET", body: Any = None, headers: Any = None, **_: Any) -> _Response:
        with httpx2.Client() as http:
            return _Response(http.request(method, url, content=body, headers=headers))

    await asyncio.to_thread(credentials.refresh, send)


def _essence(request: Received, impersonate: str | None) -> tuple[Any, ...]:
    kind = request.header("content-type")
    if kind == "application/json":
        body: Any = {k: v for k, v in json.loads(request.body).items() if v is not None}
    else:
        body = dict(parse_qsl(request.body.decode(), strict_parsing=True))
        if impersonate:
            body.pop("scope")
    return request.method, request.path, kind, body, request.header("authorization")
