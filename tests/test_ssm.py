"""Secrets in AWS SSM Parameter Store: names, tiers, versions and outages (rules A2-A4, A9, A10, I2, J8), against moto behind a recorder."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import boto3
import pytest
from moto_server import Recorder, moto, recording
from upstreams import Hostile, silence

from server.secret_stores.moving import Moving
from server.secret_stores.ssm import STANDARD_BYTES, SsmSecretStore, SsmSettings, open_ssm
from server.surroundings import secret_store
from tests.world import World, gateway
from tools.callers import ROLE_PERMISSIONS, Caller
from tools.errors import (
    Forbidden,
    InvalidRequest,
    SecretNotFound,
    SecretPathNotAllowed,
    SecretStoreUnavailable,
    StorageUnavailable,
)
from tools.parsing import parse_create, parse_update

pytestmark = pytest.mark.anyio
REGION = "eu-central-1"
PATH = "/gw/acme/shared/key"
MEMBER = Caller("k", "acme", role="member", permissions=ROLE_PERMISSIONS["member"])

# Rules A3, J8: AWS would read another store, another version, strip, fold or decode; Python's fullmatch must not be fooled.
FOREIGN = [
    "arn:aws:ssm:eu-central-1:123456789012:parameter/gw/acme/key",
    "/gw/acme/key:1",
    "/gw/acme/key:label",
    "/aws/reference/secretsmanager/x",
    "/AWS/reference/secretsmanager/x",
    "/ssm/acme/key",
    "/SSMx/acme/key",
    "/gw/acme/../other/key",
    "/gw/./acme/key",
    "/gw//acme/key",
    "/gw/acme/key/",
    "/gw/acme/key ",
    " /gw/acme/key",
    "/gw/acme/key\n",
    "/gw/acme/%6bey",
    "/gw/acme／key",
    "/gw/acme/kéy",
    "gw/acme/key",
    "/gw",
    "/" + "/".join(["gw"] * 11),
    "/gw/" + "x" * 129,
    "/gw" + ("/" + "x" * 128) * 7,
]


class NoAws:
    """A client that nothing may be asked of."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked")


@pytest.mark.parametrize("path", FOREIGN)
async def test_a_name_outside_the_rules_never_leaves_us(path: str) -> None:
    """Rules A3, J8."""
    store = SsmSecretStore(NoAws())
    for refused in (store.read(path), store.read(path, "1"), store.write(path, "x"), store.versions(path)):
        with pytest.raises(SecretNotFound, match="can't be a secret's path"):
            await refused
    with pytest.raises(SecretNotFound):
        await store.remove(path, ["1"])


@pytest.mark.parametrize("version", ["label", "1:2", "-1", "", "०", "0018a7f3"])
async def test_a_version_that_isn_t_a_number_never_leaves_us(version: str) -> None:
    if version == "0018a7f3":
        version += "deadbeef"  # a version of the local store
    with pytest.raises(SecretNotFound):
        await SsmSecretStore(NoAws()).read(PATH, version)


@pytest.mark.parametrize("value", ["", "x" * 8193, "é" * 4097])
async def test_a_value_over_the_limit_never_leaves_us(value: str) -> None:
    """Rules A10: counted in UTF-8 bytes."""
    with pytest.raises(InvalidRequest):
        await SsmSecretStore(NoAws()).write(PATH, value)


async def test_parameter_store_is_never_listed() -> None:
    """Rules A10: no GetParametersByPath, no Describe."""
    with pytest.raises(Forbidden):
        await SsmSecretStore(NoAws()).paths("/gw")


class Answers:
    """A client that answers one thing, as a confused or hostile store would."""

    def __init__(self, **parameter: Any) -> None:
        self.parameter = {"Name": PATH, "Type": "SecureString", "Value": "v" * 10, "Version": 3} | parameter

    def get_parameter(self, Name: str, WithDecryption: bool) -> dict[str, Any]:
        return {"Parameter": self.parameter}


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ({"Name": "/gw/acme/shared/other"}, "another parameter"),
        ({"Name": PATH.upper()}, "another parameter"),
        ({"Type": "String"}, "not a SecureString"),
        ({"Type": "StringList"}, "not a SecureString"),
    ],
)
async def test_what_comes_back_must_be_what_was_asked_for(parameter: dict[str, Any], said: str) -> None:
    """Rules A3."""
    with pytest.raises(SecretStoreUnavailable, match=said):
        await SsmSecretStore(Answers(**parameter)).read(PATH)
    assert (await SsmSecretStore(Answers()).read(PATH)).version == "3"


async def test_another_version_than_the_asked_one_is_not_found() -> None:
    with pytest.raises(SecretNotFound):
        await SsmSecretStore(Answers()).read(PATH, "2")


# ---------------------------------------------------------------------------------------------- moto

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def aws_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with moto(tmp_path_factory.mktemp("moto")) as url:
        yield url


@pytest.fixture
def aws(aws_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """An empty account, and credentials as a process has them."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with recording(aws_url) as recorder:
        session = boto3.Session()
        client = session.client("ssm", region_name=REGION, endpoint_url=aws_url)
        pages = client.get_paginator("describe_parameters").paginate()
        for parameter in [p for page in pages for p in page["Parameters"]]:
            client.delete_parameter(Name=parameter["Name"])
        client.close()
        yield recorder


@pytest.fixture
async def store(aws: Recorder) -> AsyncIterator[SsmSecretStore]:
    made = open_ssm(SsmSettings(region=REGION, endpoint_url=aws.url))
    yield made
    await made.aclose()


@slow
async def test_a_value_is_read_back_by_path_and_by_version(store: SsmSecretStore) -> None:
    first = await store.write(PATH, "one-ÄÖ")
    second = await store.write(PATH, "two")
    assert (first, second) == ("1", "2")
    assert ((await store.read(PATH)).value, (await store.read(PATH)).version) == ("two", "2")
    assert (await store.read(PATH, first)).value == "one-ÄÖ"
    for path, version in (("/gw/acme/none", None), (PATH, "3"), ("/gw/acme/none", "1")):
        with pytest.raises(SecretNotFound):
            await store.read(path, version)


@slow
@pytest.mark.parametrize(
    ("value", "tier"),
    [("x", "Standard"), ("x" * STANDARD_BYTES, "Standard"), ("x" * 4097, "Advanced"), ("é" * 2049, "Advanced")],
)
async def test_the_tier_goes_by_the_size_in_bytes(store: SsmSecretStore, aws: Recorder, value: str, tier: str) -> None:
    """Rules A10: 4 KB Standard, 8 KB Advanced."""
    await store.write(PATH, value)
    assert (await store.read(PATH)).value == value
    ((_, put),) = [a for a in aws.asked if a[0] == "PutParameter"]
    assert (put["Tier"], put["Type"]) == (tier, "SecureString")
    assert "KeyId" not in put


@slow
async def test_the_operator_s_kms_key_encrypts_new_values(aws: Recorder) -> None:
    store = open_ssm(SsmSettings(REGION, aws.url, "alias/aws/ssm"))
    await store.write(PATH, "x")
    assert aws.asked[-1][1]["KeyId"] == "alias/aws/ssm"
    await store.aclose()


@slow
async def test_a_parameter_that_is_advanced_stays_so(store: SsmSecretStore, aws: Recorder) -> None:
    aws.fail = [(400, "ValidationException")]  # what AWS answers to a downgrade; moto takes it
    assert await store.write(PATH, "small") == "1"
    assert [fields["Tier"] for _, fields in aws.asked] == ["Standard", "Advanced"]


@slow
async def test_only_the_whole_parameter_can_be_removed(store: SsmSecretStore) -> None:
    """A version that somebody still uses keeps all of them: AWS can't remove one."""
    first, second = await store.write(PATH, "1"), await store.write(PATH, "2")
    assert list(await store.versions(PATH)) == [first, second]
    await store.remove(PATH, [first])
    await store.remove(PATH, [second])
    assert (await store.read(PATH, first)).value == "1"
    await store.remove(PATH, [first, second])
    await store.remove(PATH, [first, second])
    assert await store.versions(PATH) == {}
    with pytest.raises(SecretNotFound):
        await store.read(PATH)


@slow
async def test_throttling_is_waited_out(store: SsmSecretStore, aws: Recorder) -> None:
    await store.write(PATH, "x")
    aws.fail = [(400, "ThrottlingException"), (400, "ThrottlingException")]
    assert (await store.read(PATH)).value == "x"
    assert len(aws.asked) == 4


@slow
@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "AccessDeniedException",
            r"lacks ssm:(GetParameter \(or kms:Decrypt|PutParameter \(or kms:Encrypt).*IAM policy",
        ),
        ("InvalidKeyId", "KMS key"),
        ("ExpiredTokenException", "expired"),
        ("SomethingNew", "SomethingNew"),
    ],
)
async def test_a_refusal_of_aws_says_what_to_change(store: SsmSecretStore, aws: Recorder, code: str, said: str) -> None:
    aws.always = (400, code)
    for refused in (store.read(PATH), store.write(PATH, "x"), store.versions(PATH)):
        with pytest.raises(SecretStoreUnavailable, match=said):
            await refused


@slow
@pytest.mark.parametrize("operation", ["GetParameter", "PutParameter", "DeleteParameter"])
async def test_doctor_stores_reads_and_removes_one_of_its_own_and_names_the_permission_that_is_missing(
    world: World, aws: Recorder, operation: str
) -> None:
    [found] = [f async for f in secret_store(world.app)]
    assert found.verdict == "ok"
    assert {name.partition(":")[0] for name in aws.names()} == {"/gw/-/doctor"}
    assert await world.app.secrets.versions("/gw/-/doctor") == {}
    aws.denied = operation
    [found] = [f async for f in secret_store(world.app)]
    assert found.verdict == "wrong"
    assert f"lacks ssm:{operation}: see the IAM policy" in found.said
    assert "123456789012" not in found.said


@slow
async def test_a_store_that_isn_t_there_is_told_without_a_name_of_aws(aws: Recorder) -> None:
    store = open_ssm(SsmSettings(REGION, "http://127.0.0.1:9"))
    with pytest.raises(SecretStoreUnavailable, match="can't be reached"):
        await store.read(PATH)
    await store.aclose()


async def test_without_a_region_the_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SecretStoreUnavailable, match="INTEGRATIONS_MCP_SSM_REGION"):
        open_ssm(SsmSettings())


# ---------------------------------------------------------------------------------------------- a gateway on it


@pytest.fixture
async def upstream() -> AsyncIterator[Hostile]:
    async with Hostile() as made:
        yield made


@pytest.fixture
async def world(tmp_path: Path, aws: Recorder) -> AsyncIterator[World]:
    async with gateway(tmp_path, secret_store="ssm", ssm_region=REGION, ssm_endpoint_url=aws.url) as made:
        yield made


def system(url: str, **auth: Any) -> dict[str, Any]:
    return {
        "name": "crm",
        "display_name": "CRM",
        "base_url": url,
        "auth": {"type": "bearer_token"} | (auth or {"bearer_token_value": {"value": "canary-12345678"}}),
        "endpoints": [{"name": "get", "description": "Gets.", "method": "GET", "path": "/things"}],
    }


@slow
async def test_a_provisioned_secret_lives_and_goes_with_its_integration(
    world: World, aws: Recorder, upstream: Hostile
) -> None:
    """Rules A4, A9: its own path only, a new version for a new value, gone after the delete."""
    made = await world.create(system(upstream.url))
    path = f"/gw/acme/integrations/{made.id}/token"
    await world.call("crm_get")
    assert upstream.received[-1].header("authorization") == "Bearer canary-12345678"
    auth = {"type": "bearer_token", "bearer_token_value": {"value": "canary-abcdefgh"}}
    await world.app.admin.update(world.owner, "crm", parse_update({"auth": auth}, "crm"))
    await world.call("crm_get")
    assert upstream.received[-1].header("authorization") == "Bearer canary-abcdefgh"
    await world.app.admin.delete(world.owner, "crm")
    await swept(world)
    assert set(aws.names()) <= {path, f"{path}:1", f"{path}:2"}
    with pytest.raises(SecretNotFound):
        await world.app.secrets.read(path)


async def swept(world: World) -> None:
    """What housekeeping does when the time of everything has come."""
    from tools.writing import Writer

    app = world.app
    later = datetime.now(UTC) + timedelta(hours=1)
    writer = Writer(app.registry, app.secrets, app.writer._rules, now=lambda: later)
    await writer.sweep()


@slow
@pytest.mark.parametrize(
    "path",
    [
        "/gw/acme-prod/shared/key",
        "/gw/ACME/shared/key",
        "/gw/other/integrations/x/token",
        "/gw/acmeX/shared/key",
        "/p/acme/key",
    ],
)
async def test_another_s_secret_is_never_asked_for(world: World, aws: Recorder, upstream: Hostile, path: str) -> None:
    """Rules A2, I2, J2, J8: shown by what left us, not by the store's answer."""
    await world.app.secrets.write(path, "somebody else's")
    aws.asked.clear()
    with pytest.raises(SecretPathNotAllowed):
        await world.create(system(upstream.url, token_ssm_param_path=path), MEMBER)
    body = system(upstream.url, bearer_token_value={"value": "x" * 12})
    body["endpoints"][0]["headers"] = {"x-note": f"secret:{path}"}
    with pytest.raises(SecretPathNotAllowed):
        await world.create(body, MEMBER)
    assert aws.asked == []


@slow
async def test_a_foreign_name_in_a_configuration_is_never_asked_for(
    world: World, aws: Recorder, upstream: Hostile
) -> None:
    """Rules A3, J8: also for the local owner, who may name any path."""
    for path in FOREIGN:
        with pytest.raises(InvalidRequest):
            await world.create(system(upstream.url, token_ssm_param_path=path))
    assert aws.asked == []


@slow
async def test_in_an_outage_known_secrets_go_on_and_new_ones_fail_clearly(
    world: World, aws: Recorder, upstream: Hostile
) -> None:
    """Nothing is half provisioned: no row, and no parameter when AWS is back."""
    await world.create(system(upstream.url))
    await world.call("crm_get")
    aws.always = (400, "AccessDeniedException")
    await world.call("crm_get")
    assert upstream.received[-1].header("authorization") == "Bearer canary-12345678"
    with pytest.raises(StorageUnavailable, match="AccessDenied"):
        await world.create({**system(upstream.url), "name": "new"})
    aws.always = None
    _, integrations = await world.app.registry.load("acme")
    assert [i.name for i in integrations] == ["crm"]
    put = [fields["Name"] for operation, fields in aws.asked if operation == "PutParameter"]
    with pytest.raises(SecretNotFound):
        await world.app.secrets.read(put[-1])


async def test_a_store_that_hangs_holds_up_neither_other_calls_nor_the_end(
    tmp_path: Path, upstream: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    path = {"workspace": "acme", "path": PATH, "origins": [upstream.url]}
    async with Hostile() as hanging:
        hanging.script("/", silence)
        with anyio.fail_after(17):  # AWS's client gives up after 20 s
            async with gateway(
                tmp_path,
                secret_store="ssm",
                ssm_region=REGION,
                ssm_endpoint_url=hanging.url,
                secret_paths_allow=[path],
            ) as world:
                monkeypatch.setattr(world.app.gateway._reader, "_wait_s", 0.1)
                await world.create(system(upstream.url, token_ssm_param_path=PATH))
                await world.create({**system(upstream.url), "name": "open", "auth": None})
                told, _ = await asyncio.gather(
                    world.app.toolbox.call(world.owner, "crm_get", {}), world.call("open_get")
                )
    assert told.error is not None
    assert (told.error.code, told.error.sent) == ("credential_unavailable", "no")
    assert [r.header("authorization") for r in upstream.received] == [None]


@slow
async def test_a_write_that_fails_after_provisioning_removes_what_it_provisioned(
    world: World, aws: Recorder, upstream: Hostile
) -> None:
    """Rules A4: the parameter of a create goes; that of an update keeps the version in use."""
    made = await world.create(system(upstream.url))
    path = f"/gw/acme/integrations/{made.id}/token"
    auth = {"type": "bearer_token", "bearer_token_value": {"value": "canary-abcdefgh"}}

    async def lost(*_: Any) -> None:
        raise StorageUnavailable("lost")

    draft = await world.app.writer.draft_update(world.owner, made, parse_update({"auth": auth}, "crm"))
    with pytest.raises(StorageUnavailable):
        await world.app.writer._provision(draft, made, lost)
    assert (await world.app.secrets.read(path, "1")).value == "canary-12345678"
    await swept(world)
    assert (await world.app.secrets.read(path, "1")).value == "canary-12345678"
    new = await world.app.writer.draft_create(world.owner, parse_create({**system(upstream.url), "name": "new"}))
    with pytest.raises(StorageUnavailable):
        await world.app.writer._provision(new, None, lost)
    with pytest.raises(SecretNotFound):
        await world.app.secrets.read(f"/gw/acme/integrations/{new.integration.id}/token")


@slow
async def test_secrets_move_to_parameter_store_and_back(
    tmp_path: Path, store: SsmSecretStore, aws: Recorder, upstream: Hostile
) -> None:
    """The rows name the versions of the new store, a gateway on it calls as before, and nothing of ours stays behind."""
    async with gateway(tmp_path) as before:
        made = await before.create(system(upstream.url))
        path = f"/gw/acme/integrations/{made.id}/token"
        await Moving(before.app.registry, before.app.secrets, store).run()
        assert await before.app.secrets.paths("/gw") == []
    async with gateway(tmp_path, secret_store="ssm", ssm_region=REGION, ssm_endpoint_url=aws.url) as on_aws:
        await on_aws.call("crm_get")
    assert upstream.received[-1].header("authorization") == "Bearer canary-12345678"
    async with gateway(tmp_path) as after:
        await Moving(after.app.registry, store, after.app.secrets).run()
        await after.call("crm_get")
    assert upstream.received[-1].header("authorization") == "Bearer canary-12345678"
    assert await store.versions(path) == {}
