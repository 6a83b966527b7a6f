"""API keys: who holds one is known, what it may do is narrowed everywhere, and it ends when it is said to (rules H4)."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from server.auth import GuessLimit, Keys
from server.store.database import open_database
from server.store.keys import SqlKeyStore
from server.store.registry import SqlRegistry
from tests.world import World, gateway, http, served
from tools.callers import ROLE_PERMISSIONS, Caller
from tools.errors import Forbidden, NotFound, RateLimited, StorageUnavailable, Unauthenticated

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.s = 0.0
        self.start = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> float:
        return self.s

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlKeyStore]:
    async with open_database(f"sqlite:///{tmp_path}/registry.db") as database:
        await SqlRegistry(database).ensure_workspace("acme")
        yield SqlKeyStore(database)


def keys_of(store: Any, clock: Clock) -> Keys:
    return Keys(store, clock=clock, now=clock.now)


async def test_a_key_says_who_and_what_it_may(store: SqlKeyStore, clock: Clock) -> None:
    keys = keys_of(store, clock)
    for role, permissions in ROLE_PERMISSIONS.items():
        made = await keys.create("acme", role=role)
        caller = await keys.caller(made.api_key, "x")
        assert (caller.workspace, caller.role, caller.permissions) == ("acme", role, permissions)
        assert made.api_key.encode() not in made.row.hash


async def test_a_key_ends_at_its_moment(store: SqlKeyStore, clock: Clock) -> None:
    keys = keys_of(store, clock)
    made = await keys.create("acme", days=1)
    clock.s = 86_399
    assert await keys.caller(made.api_key, "x")
    clock.s = 86_400
    assert keys.peek(made.api_key) is None
    with pytest.raises(Unauthenticated):
        await keys.caller(made.api_key, "x")


async def test_rotation_ends_the_old_key_at_once_and_keeps_what_it_may(store: SqlKeyStore, clock: Clock) -> None:
    keys = keys_of(store, clock)
    old = await keys.create("acme", role="operator", tools=["a_b"], integrations=["i"], days=10)
    assert await keys.caller(old.api_key, "x")
    new = await keys.rotate("acme", old.row.id)
    with pytest.raises(Unauthenticated):
        await keys.caller(old.api_key, "x")
    caller = await keys.caller(new.api_key, "x")
    assert (caller.role, caller.tools, caller.integrations) == ("operator", frozenset({"a_b"}), frozenset({"i"}))


async def test_a_revoked_key_ends_at_once(store: SqlKeyStore, clock: Clock) -> None:
    keys = keys_of(store, clock)
    made = await keys.create("acme")
    assert await keys.caller(made.api_key, "x")
    await keys.revoke("acme", made.row.id)
    assert keys.peek(made.api_key) is None
    with pytest.raises(Unauthenticated):
        await keys.caller(made.api_key, "x")
    with pytest.raises(NotFound):
        await keys.revoke("other", made.row.id)


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ({"role": "member"}, {"role": "admin"}),
        ({"role": "member"}, {"role": "member", "permissions": ["Secret.write"]}),
        ({"role": "operator"}, {"role": "member"}),
        ({"role": "admin", "tools": ["a"]}, {"role": "agent"}),
        ({"role": "admin", "tools": ["a"]}, {"role": "agent", "tools": ["a", "b"]}),
        ({"role": "admin", "integrations": ["i"]}, {"role": "agent", "integrations": ["j"]}),
        ({"role": "admin", "days": 5}, {"role": "agent", "days": 6}),
        ({"role": "admin", "days": 5}, {"role": "agent", "days": None}),
    ],
)
async def test_nobody_gives_more_than_his_own(
    store: SqlKeyStore, clock: Clock, own: dict[str, Any], wanted: dict[str, Any]
) -> None:
    keys = keys_of(store, clock)
    by = await keys.caller((await keys.create("acme", **own)).api_key, "x")
    with pytest.raises(Forbidden):
        await keys.create("acme", by=by, **wanted)
    bigger = await keys.create("acme", **wanted)
    clock.s = 60
    with pytest.raises(Forbidden):
        await keys.rotate("acme", bigger.row.id, by=by)


async def test_guessing_is_limited_by_address_and_known_keys_go_on(store: SqlKeyStore, clock: Clock) -> None:
    keys = Keys(store, clock=clock, now=clock.now, limit=GuessLimit(burst=3, refill_s=10, clock=clock))
    made = await keys.create("acme")
    await keys.caller(made.api_key, "bad")
    for n in range(3):
        with pytest.raises(Unauthenticated):
            await keys.caller(f"imcp_guess{n}", "bad")
    with pytest.raises(RateLimited) as e:
        await keys.caller("imcp_guess", "bad")
    assert 0 < e.value.retry_after_s <= 10
    assert await keys.caller(made.api_key, "bad")
    with pytest.raises(Unauthenticated):
        await keys.caller("imcp_guess", "other")
    clock.s = 10
    with pytest.raises(Unauthenticated):
        await keys.caller("imcp_guess", "bad")


async def test_one_key_guessed_from_many_addresses_is_limited_too(store: SqlKeyStore, clock: Clock) -> None:
    keys = Keys(store, clock=clock, now=clock.now, limit=GuessLimit(burst=3, clock=clock))
    made = await keys.create("acme")
    for n in range(3):
        with pytest.raises(Unauthenticated):
            await keys.caller(f"{made.api_key[:20]}{n}", f"192.0.2.{n}")
    with pytest.raises(RateLimited, match="begin like this one"):
        await keys.caller(f"{made.api_key[:20]}x", "192.0.2.9")
    assert await keys.caller(made.api_key, "192.0.2.9")


def test_an_ipv6_network_is_one_guesser_and_the_table_is_bounded(clock: Clock) -> None:
    limit = GuessLimit(burst=2, clock=clock)
    for host in ("1", "2"):
        limit.failed(f"2001:db8:0:1::{host}")
    with pytest.raises(RateLimited):
        limit.check("2001:db8:0:1:ffff::3")
    limit.check("2001:db8:0:2::1")
    limit.failed("::ffff:192.0.2.1")
    limit.failed("192.0.2.1")
    with pytest.raises(RateLimited):
        limit.check("192.0.2.1")
    for n in range(20_000):
        limit.failed(f"host {n}", f"prefix {n}")
    assert len(limit._failures) <= 10_000  # pyright: ignore[reportPrivateUsage]


class Outage:
    """The key store while the database is out."""

    def __init__(self, real: SqlKeyStore) -> None:
        self.real, self.out = real, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def key_by_hash(self, hash: bytes) -> Any:
        if self.out:
            raise StorageUnavailable("out")
        return await self.real.key_by_hash(hash)


async def test_in_an_outage_known_keys_work_for_five_minutes(store: SqlKeyStore, clock: Clock) -> None:
    outage = Outage(store)
    keys = keys_of(outage, clock)
    made, unknown = await keys.create("acme"), await keys.create("acme")
    await keys.caller(made.api_key, "x")
    outage.out = True
    clock.s = 299
    assert await keys.caller(made.api_key, "x")
    with pytest.raises(StorageUnavailable):
        await keys.caller(unknown.api_key, "x")
    clock.s = 301
    with pytest.raises(StorageUnavailable):
        await keys.caller(made.api_key, "x")


async def test_a_key_revoked_by_another_process_is_soon_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world, served(world) as url:
        made = await world.app.keys.create("acme", role="owner")
        async with http(url, made.api_key) as client:
            ping = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
            assert (await client.post("/mcp", json=ping, headers=headers)).status_code != 401
            async with open_database(world.app.settings.registry_url) as other:
                await SqlKeyStore(other).delete_key("acme", made.row.id)
            with anyio.fail_after(5):
                while (await client.post("/mcp", json=ping, headers=headers)).status_code != 401:
                    pass


def integration(name: str) -> dict[str, Any]:
    endpoints = [{"name": n, "description": "d", "method": "GET", "path": "/x"} for n in ("one", "two")]
    return {"name": name, "display_name": name, "base_url": "https://api.example", "endpoints": endpoints}


async def narrowed(world: World, **to: Any) -> Caller:
    made = await world.app.keys.create("acme", role="admin", **to)
    return await world.app.keys.caller(made.api_key, "x")


@pytest.mark.parametrize("by", ["integrations", "tools"])
async def test_what_a_caller_may_not_call_is_seen_nowhere(tmp_path: Path, by: str) -> None:
    async with gateway(tmp_path) as world:
        mine, theirs = await world.create(integration("mine")), await world.create(integration("theirs"))
        caller = await narrowed(world, **{by: [mine.id] if by == "integrations" else ["mine_one"]})
        admin, toolbox = world.app.admin, world.app.toolbox
        names = [e["name"] for e in (await toolbox.page(caller, None))[0]]
        assert [n for n in names if "_one" in n or "_two" in n] == (
            ["mine_one", "mine_two"] if by == "integrations" else ["mine_one"]
        )
        page = await admin.list(caller)
        assert [i.name for i in page.items] == ["mine"]
        assert page.total == 1
        assert len(page.items[0].endpoints) == (2 if by == "integrations" else 1)
        for ref in ("theirs", theirs.id):
            with pytest.raises(NotFound):
                await admin.get(caller, ref)
            with pytest.raises(NotFound):
                await admin.test(caller, ref, "one", {})
            with pytest.raises(NotFound):
                await admin.delete(caller, ref)
        if by == "tools":
            with pytest.raises(NotFound):
                await admin.test(caller, "mine", "two", {})
        outcome = await toolbox.call(caller, "theirs_one", {})
        assert "[unknown_tool]" in outcome.text
        assert "theirs_two" not in outcome.text
        assert [i["name"] for i in (await admin.health(caller))["integrations"]] == ["mine"]
        assert "theirs" not in await toolbox.instructions(caller)
