"""gcp_wif by the gateway's own AWS or Kubernetes identity: for whom the operator lists, and for nobody else (rules A6, E1, E3, J6, J9)."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import jwt
import pytest
from google.auth import aws as google_aws
from oauth_servers.fake_gcp import AWS_TYPE, CLOUD_PLATFORM, FakeGoogle
from oauth_servers.running import serving
from oauth_servers.world import World, a_world
from test_credentials_gcp import (
    ACCOUNT,
    POOL,
    PUBLIC,
    READ_ONLY,
    _claims,
    _essence,
    _private,
    _refresh,
    account,
    endpoints,
    impersonation,
)
from upstreams import Hostile, answer

from server.process_identity import ProcessIdentity
from tests.world import gateway
from tools.credentials.own_identity import AllowedIdentity, OwnIdentity, SubjectToken
from tools.errors import CredentialRejected, CredentialUnavailable, InvalidRequest, Misconfigured
from tools.models import AuthConfig
from tools.signing import CallSigner
from tools.upstream import Request

pytestmark = pytest.mark.anyio
JSON_PATH = "/gw/acme/gcp"
KUBERNETES = "https://kubernetes.default.svc"
AUTH = AuthConfig(type="gcp_wif", ssm_param_path=JSON_PATH, gcp_scopes=(READ_ONLY,), token_lifetime_seconds=1200)
KEY_ID, KEY, SESSION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "session/token+with=signs"
LISTED = (AllowedIdentity("acme", POOL, ""), AllowedIdentity("acme", POOL, ACCOUNT))


class Watched:
    """The process's real identity; `asked` is how often anything of it was read."""

    def __init__(self, token_file: Path | None = None) -> None:
        self._real, self.asked = ProcessIdentity(token_file), 0

    async def aws(self, audience: str) -> SubjectToken:
        self.asked += 1
        return await self._real.aws(audience)

    async def kubernetes(self) -> SubjectToken:
        self.asked += 1
        return await self._real.kubernetes()


@pytest.fixture
def google() -> FakeGoogle:
    fake = FakeGoogle(POOL, KUBERNETES, {"keys": [PUBLIC]}, frozenset({ACCOUNT}))
    fake.aws[KEY_ID] = KEY
    return fake


@pytest.fixture
async def world(google: FakeGoogle) -> AsyncIterator[World]:
    with serving(google.app) as url:
        async with a_world() as made:
            made.google = endpoints(url)
            yield made


@pytest.fixture
def aws_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process on AWS whose credentials are in its environment, and no other."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_SESSION_TOKEN": SESSION,
        "AWS_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def service_account_token(**changes: Any) -> str:
    claims = _claims() | {"iss": KUBERNETES, "sub": "system:serviceaccount:gw:gateway"} | changes
    return jwt.encode(claims, _private(), algorithm="ES256", headers={"kid": PUBLIC["kid"]})


async def authorized(
    world: World, watched: Watched, allowed: tuple[AllowedIdentity, ...] = LISTED, **members: Any
) -> Any:
    text = account(world.google.iam, **members)
    await world.secrets.write(JSON_PATH, text)
    parts = world.parts(own_identity=OwnIdentity(allowed, watched))
    return await world.credential(AUTH, parts).authorize()


@pytest.mark.parametrize("whom", [None, ACCOUNT])
async def test_a_signed_request_to_aws_is_exchanged(
    world: World, google: FakeGoogle, aws_environment: None, whom: str | None
) -> None:
    """Rules E1 (3): the other end checks the signature by itself, the audience in it too."""
    made = await authorized(world, Watched(), impersonate=whom, subject_token_type=AWS_TYPE)
    assert made.value == ("Bearer ya29.account-1" if whom else "Bearer ya29.federated-0")
    assert google.sts[0]["scope"] == (CLOUD_PLATFORM if whom else READ_ONLY)
    assert made.explain["subject_token"] == "this gateway's own AWS identity"
    for secret in (KEY, SESSION, google.sts[0]["subject_token"]):
        assert secret not in repr(made.explain)
    assert {SESSION, google.sts[0]["subject_token"]} <= set(made.masks)


async def test_the_token_of_kubernetes_is_read_again_when_it_changes(
    world: World, google: FakeGoogle, tmp_path: Path
) -> None:
    """Rules E1 (3): the kubelet swaps a link; the next exchange has the fresh one."""
    link, sent = tmp_path / "token", []
    for number in range(2):
        file = tmp_path / f"data-{number}"
        file.write_text(service_account_token(jti=str(number)) + "\n")
        (tmp_path / "new").symlink_to(file)
        (tmp_path / "new").rename(link)
        world.tokens.drop("acme", "i-1")
        made = await authorized(world, Watched(link), impersonate=ACCOUNT)
        assert made.explain["subject_token"] == "this gateway's own Kubernetes identity"
        sent.append(google.sts[-1]["subject_token"])
    assert [jwt.decode(t, options={"verify_signature": False})["jti"] for t in sent] == ["0", "1"]


@pytest.mark.parametrize("whom", [None, ACCOUNT])
async def test_our_aws_requests_equal_googles_own_client(world: World, aws_environment: None, whom: str | None) -> None:
    """Rules E3: the same inputs, the same requests. The signature differs in that ours covers the audience: its own signer,
    told to sign that header too, makes the same one in the same second."""
    body = {"access_token": "ya29.x", "token_type": "Bearer", "expires_in": 3599}
    generated = {"accessToken": "ya29.y", "expireTime": "2999-01-01T00:00:00Z"}
    async with Hostile() as fake:
        fake.script("/v1/token", answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"}))
        fake.script(impersonation("", ACCOUNT), answer(200, json.dumps(generated).encode()))
        world.google = endpoints(fake.url)
        for _ in range(10):
            fake.received.clear()
            await authorized(world, Watched(), impersonate=whom, subject_token_type=AWS_TYPE)
            ours = list(fake.received)
            signer = google_aws.RequestSigner("eu-central-1")
            credentials = google_aws.AwsSecurityCredentials(KEY_ID, KEY, SESSION)
            url = "https://sts.eu-central-1.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"
            target = {"x-goog-cloud-target-resource": POOL}
            signed = signer.get_request_options(credentials, url, "POST", "", target)["headers"]
            theirs = google_aws.Credentials(
                audience=POOL,
                subject_token_type=AWS_TYPE,
                token_url=fake.url + "/v1/token",
                service_account_impersonation_url=impersonation(fake.url, whom) if whom else None,
                service_account_impersonation_options={"token_lifetime_seconds": 1200},
                credential_source={
                    "environment_id": "aws1",
                    "regional_cred_verification_url": url.replace("eu-central-1", "{region}"),
                },
                scopes=[READ_ONLY],
            )
            await _refresh(theirs)
            reference = fake.received[len(ours) :]
            ours_token, their_token = (_headers(r[0].body) for r in (ours, reference))
            if ours_token["x-amz-date"] == signed["x-amz-date"] == their_token["x-amz-date"]:
                break
            # The second turned between them: once more.
        assert len(ours) == len(reference) == (2 if whom else 1)
        assert ours_token["Authorization"] == signed["Authorization"]
        assert [_apart(r, whom) for r in ours] == [_apart(r, whom) for r in reference]
        assert ours_token | {"Authorization": ""} == their_token | {"Authorization": ""}


def _headers(body: bytes) -> dict[str, str]:
    token = dict(parse_qsl(body.decode()))["subject_token"]
    return {h["key"]: h["value"] for h in json.loads(unquote(token))["headers"]}


def _apart(request: Any, whom: str | None) -> Any:
    """The request, with the AWS request in it apart from its headers."""
    method, path, kind, body, authorization = _essence(request, whom)
    if "subject_token" in body:
        body["subject_token"] = {k: v for k, v in json.loads(unquote(body["subject_token"])).items() if k != "headers"}
    return method, path, kind, body, authorization


@pytest.mark.parametrize("where", ["ec2", "ec2 with version 1 only", "ecs"])
async def test_a_role_of_the_machine_is_found_by_version_2_of_its_metadata_service(
    world: World, google: FakeGoogle, aws_environment: pytest.MonkeyPatch, where: str
) -> None:
    """Rules E1 (3): the operator's own destinations; version 1 would answer whoever makes this machine send a GET."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_EC2_METADATA_DISABLED"):
        aws_environment.delenv(name)
    credentials = {
        "Code": "Success",
        "AccessKeyId": KEY_ID,
        "SecretAccessKey": KEY,
        "Token": SESSION,
        "Expiration": "2999-01-01T00:00:00Z",
    }
    role = json.dumps(credentials).encode()
    async with Hostile() as metadata:
        if where == "ecs":
            aws_environment.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", metadata.script("/role", answer(200, role)))
        aws_environment.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
        metadata.script("/latest/api/token", answer(200, b"v2-token") if where == "ec2" else answer(403))
        metadata.script("/latest/meta-data/iam/security-credentials/", answer(200, b"gateway"))
        metadata.script("/latest/meta-data/iam/security-credentials/gateway", answer(200, role))
        if where == "ec2 with version 1 only":
            with pytest.raises(CredentialUnavailable, match="AWS credentials"):
                await authorized(world, Watched(), subject_token_type=AWS_TYPE)
            assert {r.method for r in metadata.received} == {"PUT"}
            return
        made = await authorized(world, Watched(), subject_token_type=AWS_TYPE)
        assert made.value == "Bearer ya29.federated-0"
        assert SESSION in made.masks
        asked = [r for r in metadata.received if r.method == "GET" and where == "ec2"]
        assert {r.header("x-aws-ec2-metadata-token") for r in asked} <= {"v2-token"}


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("token_type", [AWS_TYPE, "urn:ietf:params:oauth:token-type:jwt"])
@pytest.mark.parametrize(
    "allowed",
    [
        (),
        (AllowedIdentity("other", POOL, ""), AllowedIdentity("Acme", POOL, "")),
        (AllowedIdentity("acme", POOL.replace("pool-1", "pool-2"), ""),),
        (AllowedIdentity("acme", POOL, ACCOUNT),),
    ],
)
async def test_what_is_not_on_the_list_is_refused_before_anything_is_read(
    world: World,
    google: FakeGoogle,
    aws_environment: None,
    tmp_path: Path,
    allowed: tuple[AllowedIdentity, ...],
    token_type: str,
) -> None:
    """Rules E1, J9: another tenant's pool, another's workspace, no impersonation where only one is lent. Nothing leaves."""
    (tmp_path / "token").write_text(service_account_token())
    watched = Watched(tmp_path / "token")
    with pytest.raises(Misconfigured, match="isn't open to this workspace"):
        await authorized(world, watched, allowed, subject_token_type=token_type)
    assert watched.asked == 0
    assert google.sts == []
    await authorized(world, watched, LISTED, subject_token_type=token_type)
    assert (watched.asked, len(google.sts)) == (1, 1)


async def test_a_json_that_was_changed_in_the_store_is_held_to_the_list_too(
    world: World, google: FakeGoogle, aws_environment: None
) -> None:
    """Rules E1, J9: who may write the secret by its path isn't who wrote the list."""
    watched = Watched()
    with pytest.raises(Misconfigured, match="pool-of-another"):
        await authorized(
            world, watched, subject_token_type=AWS_TYPE, audience=POOL.replace("pool-1", "pool-of-another")
        )
    assert (watched.asked, google.sts) == (0, [])


async def test_googles_words_about_a_refused_request_hide_what_was_in_it(
    world: World, google: FakeGoogle, aws_environment: None
) -> None:
    """Rules A6, J6: the session token stands in the subject token, and this server quotes it by itself."""
    google.aws[KEY_ID] = "another"
    with pytest.raises(CredentialRejected) as failure:
        await authorized(world, Watched(), subject_token_type=AWS_TYPE)
    assert "SignatureDoesNotMatch [secret]" in (failure.value.said or "")
    assert SESSION not in repr(failure.value)


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        ({"AWS_REGION": None, "AWS_DEFAULT_REGION": None}, "AWS_REGION"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "role"),
    ],
)
async def test_a_process_that_is_nobody_at_aws_says_what_the_operator_does(
    world: World, aws_environment: pytest.MonkeyPatch, breaks: dict[str, None], says: str
) -> None:
    for name in breaks:
        aws_environment.delenv(name, raising=False)
    with pytest.raises(Misconfigured) as failure:
        await authorized(world, Watched(), subject_token_type=AWS_TYPE)
    assert says in (failure.value.advice or "")


@pytest.mark.parametrize("content", ["", "not a token", "a.b", "a.b.c d", "a.b.c\nd", "ä.b.c", "a.b." + "c" * 20_000])
async def test_a_file_that_holds_no_token_is_told_without_its_content(
    world: World, google: FakeGoogle, tmp_path: Path, content: str
) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(Misconfigured, match="GCP_KUBERNETES_TOKEN_FILE") as failure:
        await authorized(world, Watched(tmp_path / "token"))
    assert not content or content not in str(failure.value)
    assert google.sts == []


async def test_without_the_file_calls_fail_until_it_is_there(world: World, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no Kubernetes identity"):
        await authorized(world, Watched())
    with pytest.raises(CredentialUnavailable, match="FileNotFoundError"):
        await authorized(world, Watched(tmp_path / "token"))


# ------------------------------------------------------------------ where the token may go


@pytest.mark.parametrize(
    ("url", "goes"),
    [
        ("https://storage.googleapis.com/b", True),
        ("https://europe-west1-aiplatform.googleapis.com/v1", True),
        ("https://erp.example.com:8443/v1", True),
        ("https://erp.example.com/v1", False),
        ("http://storage.googleapis.com/b", False),
        ("https://storage.googleapis.com:8443/b", False),
        ("https://storage.googleapis.com.evil.test/b", False),
        ("https://evilgoogleapis.com/b", False),
        ("https://evil.test/storage.googleapis.com", False),
    ],
)
async def test_the_token_goes_to_google_and_to_the_origins_of_its_entry(
    world: World, aws_environment: None, url: str, goes: bool
) -> None:
    """Rules A1, E1: what the identity opens is the operator's; a tenant can't have it sent to himself."""
    entry = AllowedIdentity("acme", POOL, "", ("https://erp.example.com:8443",))
    await world.secrets.write(JSON_PATH, account(world.google.iam, subject_token_type=AWS_TYPE))
    credential = world.credential(AUTH, world.parts(own_identity=OwnIdentity((entry,), Watched())))
    signer = CallSigner(credential, (), (), {}, world.reader)
    if goes:
        assert dict(await signer.sign(Request("GET", url)))["Authorization"] == "Bearer ya29.federated-0"
    else:
        with pytest.raises(Misconfigured, match="own identity"):
            await signer.sign(Request("GET", url))


async def test_writing_refuses_what_a_call_would(tmp_path: Path, aws_environment: pytest.MonkeyPatch) -> None:
    """Rules E1, J9: at the integration and at an endpoint. What is allowed is written, and the X-ray names the source."""
    whom = "reader@proj-1.iam.gserviceaccount.com"
    listed = ({"workspace": "acme", "audience": POOL, "service_account": whom},)

    def body(**changes: Any) -> dict[str, Any]:
        text = account("https://sts.googleapis.com", subject_token_type=AWS_TYPE)
        text = text.replace(
            "https://sts.googleapis.com/v1/projects", "https://iamcredentials.googleapis.com/v1/projects"
        )
        value = json.loads(text) | {
            "service_account_impersonation_url": f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{whom}:generateAccessToken"
        }
        value |= changes.pop("json", {})
        given = {
            "name": "bucket",
            "display_name": "B",
            "base_url": "https://storage.googleapis.com/storage/v1",
            "auth": {"type": "gcp_wif", "gcp_scopes": [READ_ONLY], "api_key_value": {"value": json.dumps(value)}},
        }
        return given | changes

    async with gateway(tmp_path / "a") as stranger:
        with pytest.raises(InvalidRequest, match="isn't open to this workspace"):
            await stranger.create(body())
        assert await stranger.app.registry.due_sweeps(stranger.app.writer._now()) == []
    async with gateway(tmp_path / "b", gcp_identity_allow=listed) as world:
        for refused, at in (
            (body(json={"service_account_impersonation_url": None}), ("body", "auth", "api_key_value")),
            (body(json={"audience": POOL.replace("pool-1", "pool-2")}), ("body", "auth", "api_key_value")),
            (body(base_url="https://evil.test"), ("body", "base_url")),
            (
                body(endpoints=[{"name": "x", "description": "d", "path": "/x", "base_url": "https://evil.test"}]),
                ("body", "endpoints", 0, "base_url"),
            ),
        ):
            with pytest.raises(InvalidRequest) as failure:
                await world.create(refused)
            assert [issue.loc for issue in failure.value.issues] == [at]
        await world.create(body())
        aws_environment.delenv("AWS_REGION")  # so that the way ends before anything would leave for Google
        way = await world.app.auth_admin.explain(world.owner, "bucket")
        assert (way["ok"], way["subject_token"]) == (False, "this gateway's own AWS identity")
        assert "AWS_REGION" in json.dumps(way)
