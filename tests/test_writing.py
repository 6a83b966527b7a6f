"""Write and provision succeed together or not at all; who may aim a secret where (rules A1-A4, A7, A9, C4, J1, J2)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.upstreams import Hostile
from tests.world import LOOPBACK, World, gateway
from tools.bindings import AllowedSecretPath
from tools.callers import ROLE_PERMISSIONS, Caller, Role
from tools.checks import CheckRules
from tools.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    SecretPathNotAllowed,
    SecretStoreUnavailable,
    StorageUnavailable,
    VersionMismatch,
)
from tools.models import Integration
from tools.parsing import parse_create, parse_update
from tools.registry import SecretRecord
from tools.secrets import Secret
from tools.writing import Writer

pytestmark = pytest.mark.anyio
HERE, THERE = "https://api.example", "https://evil.example"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with gateway(tmp_path) as world:
        yield world


def key_of(world: World, role: Role) -> Caller:
    return replace(world.owner, id=role, kind="key", role=role, permissions=ROLE_PERMISSIONS[role])


def body(name: str = "sys", value: str | None = "first-value-1", **fields: Any) -> dict[str, Any]:
    auth = {"type": "bearer_token", "bearer_token_value": {"value": value}} if value else None
    made = {"name": "do", "description": "d", "method": "GET", "path": "/x"}
    return {"name": name, "display_name": "S", "base_url": HERE, "auth": auth, "endpoints": [made], **fields}


async def change(world: World, caller: Caller, ref: str = "sys", **fields: Any) -> Integration:
    return (await world.app.admin.update(caller, ref, parse_update(fields, ref))).after


async def stored(world: World) -> dict[str, str]:
    """path#version -> value of everything that is kept."""
    found: dict[str, str] = {}
    for path in await world.app.secrets.paths("/gw"):
        for version in await world.app.secrets.versions(path):
            found[f"{path}#{version}"] = (await world.app.secrets.read(path, version)).value
    return found


async def referred(world: World) -> set[str]:
    rows = (await world.app.registry.load("acme"))[1]
    return {f"{path}#{b.version}" for row in rows for path, b in row.bindings.items()}


# -- A4: together or not at all


class Store:
    """The real secret store behind a hook that is called before (kind, path) and after each write."""

    def __init__(self, world: World, hook: Callable[[str], Any]) -> None:
        self.real, self.hook = world.app.secrets, hook

    async def read(self, path: str, version: str | None = None) -> Secret:
        return await self.real.read(path, version)

    async def write(self, path: str, value: str) -> str:
        await self.hook("before store")
        version = await self.real.write(path, value)
        await self.hook("after store")
        return version

    async def versions(self, path: str) -> dict[str, datetime]:
        return await self.real.versions(path)

    async def remove(self, path: str, versions: Collection[str]) -> None:
        await self.real.remove(path, versions)

    async def paths(self, prefix: str) -> list[str]:
        return await self.real.paths(prefix)


class Rows:
    """The real registry behind a hook around the commit of a row."""

    def __init__(self, world: World, hook: Callable[[str], Any]) -> None:
        self._real, self._hook = world.app.registry, hook

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name not in ("insert", "replace", "schedule_sweep"):
            return real

        async def around(*args: Any) -> None:
            await self._hook(f"before {name}")
            await real(*args)
            await self._hook(f"after {name}")

        return around


def writer(world: World, hook: Callable[[str], Any], now: Callable[[], datetime] | None = None) -> Writer:
    more: dict[str, Any] = {"now": now} if now else {}
    return Writer(Rows(world, hook), Store(world, hook), CheckRules(LOOPBACK), **more)  # pyright: ignore[reportArgumentType] - Rows is the registry by delegation


STEPS = ["before schedule_sweep", "after schedule_sweep", "before store", "after store", "before {commit}"]


@pytest.mark.parametrize("fault", [StorageUnavailable("out"), SecretStoreUnavailable("out"), OSError("broken")])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("verb", ["create", "update"])
async def test_a_write_that_fails_at_any_step_leaves_nothing_behind(
    world: World, verb: str, step: str, fault: Exception
) -> None:
    if verb == "update":
        await world.create(body())
    before = await stored(world)
    failing = step.format(commit="insert" if verb == "create" else "replace")

    async def hook(now: str) -> None:
        if now == failing:
            raise fault

    failed = writer(world, hook)
    asked = parse_update({"auth": body()["auth"]}, "sys")
    writing = (
        failed.create(world.owner, parse_create(body()))
        if verb == "create"
        else failed.update(world.owner, "sys", asked)
    )
    with pytest.raises(type(fault)):
        await writing
    if failing == "after store":  # stored, and the store's answer lost: only the sweeper can know of it
        await writer(world, _nothing, now=lambda: datetime.now(UTC) + timedelta(days=1)).sweep()
    assert await stored(world) == before
    assert len((await world.app.registry.load("acme"))[1]) == (verb == "update")


@pytest.mark.parametrize("step", [*STEPS, "after {commit}"])
@pytest.mark.parametrize("verb", ["create", "update"])
async def test_a_write_cancelled_at_any_step_is_made_whole_or_not_at_all(world: World, verb: str, step: str) -> None:
    if verb == "update":
        await world.create(body())
    stops_at = step.format(commit="insert" if verb == "create" else "replace")
    there, go_on = asyncio.Event(), asyncio.Event()

    async def hook(now: str) -> None:
        if now == stops_at:
            there.set()
            await go_on.wait()

    if verb == "create":
        writing = asyncio.ensure_future(writer(world, hook).create(world.owner, parse_create(body())))
    else:
        asked = parse_update({"auth": body(value="second-value")["auth"]}, "sys")
        writing = asyncio.ensure_future(writer(world, hook).update(world.owner, "sys", asked))
    async with asyncio.timeout(10):
        await there.wait()
        writing.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
    refers = await referred(world)
    assert refers <= set(await stored(world)), "no row points at a value that is gone"
    late = writer(world, _nothing, now=lambda: datetime.now(UTC) + timedelta(days=1))
    await late.sweep()
    assert set(await stored(world)) == refers


async def _nothing(step: str) -> None:
    pass


async def test_the_value_before_stays_for_calls_that_began_before_and_goes_later(world: World) -> None:
    await world.create(body())
    await change(world, world.owner, auth=body(value="second-value-2")["auth"])
    await world.app.writer.sweep()
    assert sorted((await stored(world)).values()) == ["first-value-1", "second-value-2"]
    await writer(world, _nothing, now=lambda: datetime.now(UTC) + timedelta(minutes=12)).sweep()
    assert list((await stored(world)).values()) == ["second-value-2"]


async def test_a_delete_takes_what_was_provisioned_and_nothing_that_was_named(world: World) -> None:
    path = "/gw/acme/shared/key"
    await world.app.secrets.write(path, "shared-value")
    now = datetime.now(UTC)
    await world.app.registry.put_secret_record(SecretRecord(path, "acme", ("https://api.example:443",), now, now))
    await world.create(body())
    await world.create(body("other", None, auth={"type": "bearer_token", "token_ssm_param_path": path}))
    for name in ("sys", "other"):
        await world.app.admin.delete(world.owner, name)
    await writer(world, _nothing, now=lambda: datetime.now(UTC) + timedelta(days=1)).sweep()
    assert list((await stored(world)).values()) == ["shared-value"]


async def test_concurrent_updates_without_if_match_all_end_and_the_last_stands_whole(world: World) -> None:
    await world.create(body())
    texts = [f"value-number-{n}" for n in range(5)]
    await asyncio.gather(*(change(world, world.owner, auth=body(value=t)["auth"], display_name=t) for t in texts))
    row = await world.app.registry.get("acme", "sys")
    ((path, binding),) = row.bindings.items()
    assert (await world.app.secrets.read(path, binding.version)).value == row.display_name
    assert row.version == 6


async def test_an_update_of_another_version_is_refused(world: World) -> None:
    await world.create(body())
    with pytest.raises(VersionMismatch):
        await world.app.admin.update(world.owner, "sys", parse_update({"display_name": "x"}, "sys"), 7)


# -- A1, J1: where a secret may go


@pytest.mark.parametrize(
    "fields",
    [
        {"base_url": THERE},
        {"base_url": "http://api.example"},
        {"base_url": "https://api.example:8443"},
        {"endpoints": [{"name": "do", "description": "d", "path": "/x", "base_url": THERE}]},
        {"mcp_url": THERE},
        {"auth": {"type": "bearer_token"}, "base_url": THERE},
    ],
)
async def test_a_member_cannot_send_a_stored_secret_elsewhere_but_an_owner_can(
    world: World, fields: dict[str, Any]
) -> None:
    await world.create(body())
    with pytest.raises(InvalidRequest) as e:
        await change(world, key_of(world, "member"), **fields)
    assert {i.type for i in e.value.issues} == {"secret_rebind_required"}
    assert "first-value" not in str(e.value)
    written = await world.app.admin.update(key_of(world, "owner"), "sys", parse_update(fields, "sys"))
    assert len(written.rebound) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"mcp_command": "/opt/mcp/other"},
        {"mcp_args": ["https://evil.example"]},
        {"mcp_env": {"API_TOKEN": "[secret]", "OTHER": "secret:/ops/other", "API_URL": "https://evil.example"}},
        {"mcp_env": {"API_TOKEN": "[secret]", "OTHER": "secret:/ops/other", "HTTPS_PROXY": "http://evil.example"}},
    ],
    ids=["program", "arguments", "url", "proxy"],
)
async def test_a_member_cannot_have_a_programs_secrets_sent_elsewhere_but_an_owner_can(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    env = {"API_TOKEN": "first-value-1", "OTHER": "secret:/ops/other", "API_URL": "https://api.example"}
    made = {"mcp_command": "/opt/mcp/server", "mcp_args": ["https://api.example"], "mcp_env": env}
    async with gateway(tmp_path, stdio_allow=("/opt/mcp/server *", "/opt/mcp/other *")) as world:
        start = {"name": "sys", "display_name": "S", "protocol": "mcp", "mcp_transport": "stdio", "enabled": False}
        await world.create({**start, **made})
        with pytest.raises(InvalidRequest) as e:
            await change(world, key_of(world, "member"), **fields)
        assert {i.type for i in e.value.issues} == {"secret_rebind_required"}
        assert {i.loc[-1] for i in e.value.issues} & {"API_TOKEN", "OTHER"}
        await change(world, key_of(world, "member"), display_name="T", mcp_env={**env, "API_TOKEN": "[secret]"})
        await change(world, key_of(world, "owner"), **fields)


async def test_a_member_who_gives_the_value_again_may_change_where_it_goes(world: World) -> None:
    await world.create(body())
    after = await change(world, key_of(world, "member"), base_url=THERE, auth=body(value="second-value")["auth"])
    assert next(iter(after.bindings.values())).origins == ("https://evil.example:443",)


async def test_an_origin_that_was_left_and_is_taken_again_needs_nothing(world: World) -> None:
    await world.create(body(value=None))
    member = key_of(world, "member")
    await change(world, member, base_url=THERE)
    assert (await change(world, member, base_url=HERE)).base_url == HERE


async def test_a_secret_is_checked_again_when_it_leaves(world: World) -> None:
    async with Hostile() as upstream:
        row = await world.create(body(base_url=upstream.url))
        path, binding = next(iter(row.bindings.items()))
        aimed = row.model_copy(update={"bindings": {path: binding.model_copy(update={"origins": (HERE,)})}})
        await world.app.registry.replace(aimed, row.version, {})  # as a fault of ours would leave it
        world.app.catalogs.invalidate("acme")
        text = await world.call("sys_do")
        assert "[misconfigured]" in text
        assert path not in text
        assert upstream.received == []


# -- A2, J2: who may name which path


@pytest.mark.parametrize("role", ["owner", "member"])
@pytest.mark.parametrize("place", ["auth", "endpoint auth", "headers", "mcp_headers"])
@pytest.mark.parametrize("path", ["theirs", "/gw/other/shared/key", "/gw/acme/shared/none", "/prod/db/password"])
async def test_another_secret_cannot_be_named_anywhere_and_is_never_read(
    world: World, place: str, path: str, role: Role
) -> None:
    if path == "theirs":
        path = next(iter((await world.create(body("theirs"))).bindings))
    auth = {"type": "bearer_token", "token_ssm_param_path": path}
    endpoint = {"name": "do", "description": "d", "path": "/x"}
    given = {
        "auth": body(value=None, auth=auth),
        "endpoint auth": body(value=None, endpoints=[{**endpoint, "auth": auth}]),
        "headers": body(value=None, endpoints=[{**endpoint, "headers": {"X-K": f"secret:{path}"}}]),
        "mcp_headers": body(value=None, mcp_headers={"X-K": f"secret:{path}"}),
    }[place]
    with pytest.raises(SecretPathNotAllowed):
        await world.create(given, key_of(world, role))
    with pytest.raises(NotFound):
        await world.app.registry.get("acme", "sys")


@pytest.mark.parametrize(
    "path",
    [
        "/gw/acme/shared/../x",
        "/gw//x",
        "/gw/x/",
        "/gw/x:1",
        "arn:aws:x",
        "/aws/reference/secretsmanager/x",
        "/SSM/x",
        "/gw/%2e%2e/x",
        "/gw/x ",
        "/gw/ｘ",
        "/x",
        "/" + "a/" * 20 + "b",
    ],
)
async def test_what_is_no_secret_path_is_refused_before_any_store_is_asked(world: World, path: str) -> None:
    with pytest.raises(InvalidRequest) as e:
        await world.create(body(value=None, auth={"type": "bearer_token", "token_ssm_param_path": path}))
    assert e.value.issues[0].loc == ("body", "auth", "token_ssm_param_path")


async def test_a_shared_secret_goes_where_its_record_says_also_for_an_owner(world: World) -> None:
    path, now = "/gw/acme/shared/key", datetime.now(UTC)
    await world.app.registry.put_secret_record(SecretRecord(path, "acme", ("https://api.example:443",), now, now))
    auth = {"type": "bearer_token", "token_ssm_param_path": path}
    await world.create(body(value=None, auth=auth), key_of(world, "member"))
    with pytest.raises(InvalidRequest):
        await world.create(body("oth", None, auth=auth, base_url=THERE), key_of(world, "owner"))


def test_the_operators_list_is_by_workspace_and_whole_segments() -> None:
    entry = AllowedSecretPath("acme", "/p/team/", (HERE,))
    assert entry.covers("acme", "/p/team/key")
    assert not entry.covers("acme", "/p/team2/key")
    assert not entry.covers("other", "/p/team/key")
    assert not AllowedSecretPath("*", "/p/key", ()).covers("acme", "/p/key/more")


async def test_a_private_key_signs_for_one_integration_only(world: World) -> None:
    auth = {
        "type": "oauth2_jwt_bearer",
        "token_url": f"{HERE}/token",
        "assertion_issuer": "i",
        "private_key_ssm_param_path": "/own/keys/one",
    }
    await world.create(body(value=None, auth=auth))
    with pytest.raises(InvalidRequest, match="signs for another integration"):
        await world.create(body("second", None, auth=auth))


# -- A7: `[secret]` means keep


async def test_a_masked_header_comes_back_and_is_kept_and_goes_nowhere_new(world: World) -> None:
    endpoint = {
        "name": "do",
        "description": "d",
        "path": "/x",
        "headers": {"X-Api-Key": "header-value-1", "X-Plain": "p"},
    }
    row = await world.create(body(value=None, endpoints=[endpoint]))
    shown = world.app.admin.shown(world.owner, row).endpoints[0]
    assert shown.headers == {"X-Api-Key": "[secret]", "X-Plain": "p"}
    again = {**endpoint, "headers": dict(shown.headers), "description": "changed"}
    member = key_of(world, "member")
    assert (await change(world, member, endpoints=[again])).endpoints[0].headers["X-Api-Key"] == "header-value-1"
    with pytest.raises(InvalidRequest, match=r"was not given for https://evil\.example"):
        await change(world, member, base_url=THERE, endpoints=[again])
    with pytest.raises(InvalidRequest, match="no value to keep"):
        await change(world, member, endpoints=[{**again, "name": "other"}])
    with pytest.raises(InvalidRequest, match="no value to keep"):
        await world.create(body("new", None, endpoints=[again]))


async def test_an_auth_without_its_secret_keeps_the_stored_one_and_another_type_does_not(world: World) -> None:
    row = await world.create(body())
    kept = await change(world, world.owner, auth={"type": "bearer_token"})
    assert kept.bindings == row.bindings
    with pytest.raises(InvalidRequest):
        await change(world, world.owner, auth={"type": "api_key_header"})
    gone = await change(world, world.owner, auth=None)
    assert gone.bindings == {}
    with pytest.raises(SecretPathNotAllowed):  # it was theirs, and is theirs no longer
        await change(
            world,
            key_of(world, "member"),
            auth={"type": "bearer_token", "token_ssm_param_path": next(iter(row.bindings))},
        )


async def test_a_value_and_its_path_together_are_refused(world: World) -> None:
    given = body()
    given["auth"]["token_ssm_param_path"] = "/a/b"
    with pytest.raises(InvalidRequest, match="not both"):
        await world.create(given)


# -- permissions


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("owner", "list create update delete"),
        ("admin", "list create update delete"),
        ("member", "list create update"),
        ("operator", "list"),
        ("viewer", "list"),
        ("agent", ""),
    ],
)
async def test_a_role_may_do_what_the_table_says(world: World, role: Role, may: str) -> None:
    await world.create(body())
    caller, admin = key_of(world, role), world.app.admin
    for verb, run in {
        "list": lambda: admin.list(caller),
        "create": lambda: admin.create(caller, parse_create(body("new"))),
        "update": lambda: admin.update(caller, "sys", parse_update({"display_name": "x"}, "sys")),
        "delete": lambda: admin.delete(caller, "sys"),
    }.items():
        if verb in may.split():
            await run()
        else:
            with pytest.raises(Forbidden):
                await run()


async def test_a_thousand_integrations_do_not_make_a_write_slow(world: World) -> None:
    """Names are looked up, not all integrations read: counted by what the registry is asked for."""
    asked: list[str] = []

    class Counting(Rows):
        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return super().__getattr__(name)

    made = Writer(Counting(world, _nothing), world.app.secrets, CheckRules(LOOPBACK))  # pyright: ignore[reportArgumentType]
    await made.create(world.owner, parse_create(body()))
    assert "load" not in asked
