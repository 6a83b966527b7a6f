"""The catalog: one snapshot a version, compiled where something moved, seen by each caller as he may (semantics, "Names")."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from tools.callers import local_caller
from tools.catalog import Catalogs
from tools.credentials.parts import CredentialParts
from tools.errors import StorageUnavailable, UnknownTool
from tools.models import EndpointConfig, Integration
from tools.tool import Tool, tools_of

pytestmark = pytest.mark.anyio
OWNER = local_caller("acme")
PARTS: CredentialParts = None  # type: ignore[assignment] - no tool here has a credential


def integration(name: str, *endpoints: str, version: int = 1, enabled: bool = True) -> Integration:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = [EndpointConfig(name=e, description="d", method="GET", path=f"/{e}") for e in endpoints or ("b", "a")]
    return Integration(
        id=name,
        workspace_id="acme",
        name=name,
        display_name=name,
        base_url="https://x.example",
        endpoints=tuple(made),
        created_at=now,
        updated_at=now,
        version=version,
        enabled=enabled,
    )


class Registry:
    """What a catalog asks of the registry; counts the asking."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[Integration, ...]] = {"acme": (integration("one"), integration("two"))}
        self.number, self.out = 1, False
        self.asked: list[str] = []
        self.gate, self.loading = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def version(self, workspace: str) -> int:
        self.asked.append("version")
        if self.out:
            raise StorageUnavailable("out")
        return self.number

    async def load(self, workspace: str, known: object = ()) -> tuple[int, tuple[Integration, ...]]:
        self.asked.append("load")
        self.loading.set()
        if self.out:
            raise StorageUnavailable("out")
        found = self.number, self.rows.get(workspace, ())
        await self.gate.wait()
        return found


class World:
    def __init__(self, **limits: Any) -> None:
        self.registry, self.compiled, self.s = Registry(), list[str](), 0.0

        def make(row: Integration) -> tuple[Tool, ...]:
            self.compiled.append(row.name)
            return tools_of(row, PARTS, 48)

        self.catalogs = Catalogs(self.registry, make, clock=lambda: self.s, **limits)  # type: ignore[arg-type]


async def test_tools_are_in_the_order_of_their_names_and_a_disabled_integration_has_none() -> None:
    world = World()
    world.registry.rows["acme"] += (integration("off", enabled=False),)
    catalog = await world.catalogs.get("acme")
    assert list(catalog.tools) == ["one_a", "one_b", "two_a", "two_b"]


async def test_only_what_moved_is_compiled_again() -> None:
    world = World()
    before = await world.catalogs.get("acme")
    world.registry.rows["acme"] = (integration("one"), integration("two", "a", version=2))
    world.registry.number = 2
    world.catalogs.invalidate("acme")
    after = await world.catalogs.get("acme")
    assert world.compiled == ["one", "two", "two"]
    assert after.tools["one_a"] is before.tools["one_a"]
    assert "two_b" not in after.tools


async def test_what_was_compiled_of_an_endpoint_goes_on_until_the_endpoint_changes() -> None:
    world = World()
    schema = {"type": "object", "properties": {"n": {"const": 1}}}
    (one, two) = world.registry.rows["acme"]
    one = one.model_copy(
        update={"endpoints": tuple(e.model_copy(update={"input_schema": schema}) for e in one.endpoints)}
    )
    world.registry.rows["acme"] = (one, two)
    before = (await world.catalogs.get("acme")).tools
    made = {name: (before[name].arguments, before[name].published, before[name].entry) for name in ("one_a", "one_b")}

    async def after(**changed: Any) -> Any:
        world.registry.number += 1
        current = world.registry.rows["acme"][0]
        world.registry.rows["acme"] = (current.model_copy(update={"version": world.registry.number, **changed}), two)
        world.catalogs.invalidate("acme")
        return (await world.catalogs.get("acme")).tools

    tools = await after(base_url="https://other.example")
    assert tools["one_a"] is not before["one_a"], "where it goes has changed"
    assert "https://other.example" in tools["one_a"].plan.build({}).url
    assert (tools["one_a"].arguments, tools["one_a"].published, tools["one_a"].entry) == made["one_a"]
    assert tools["one_a"].published is made["one_a"][1]

    tools = await after(display_name="Another")
    assert "Another" in tools["one_a"].entry["title"]
    assert tools["one_a"].published is made["one_a"][1]

    true = {"type": "object", "properties": {"n": {"const": True}}}  # == the schema before, for Python
    a, b = (e for e in sorted(one.endpoints, key=lambda e: e.name))
    tools = await after(endpoints=(a, b.model_copy(update={"input_schema": true})))
    assert tools["one_a"].arguments is made["one_a"][0]
    assert tools["one_b"].arguments.prepare({"n": True}).values == {"n": True}


async def test_a_catalog_is_believed_for_a_while_and_then_its_version_is_read() -> None:
    world = World(trust_s=5)
    await world.catalogs.get("acme")
    world.s = 4.9
    assert world.catalogs.peek("acme") is not None
    world.s = 5
    assert world.catalogs.peek("acme") is None
    await world.catalogs.get("acme")
    assert world.registry.asked == ["load", "version"]


async def test_while_changes_are_told_no_version_is_asked_for_and_without_news_it_is_again() -> None:
    world = World(trust_s=5)
    await world.catalogs.get("acme")
    for world.s in range(1, 60):
        world.catalogs.all_told()
        assert world.catalogs.peek("acme") is not None
    assert world.registry.asked == ["load"]
    world.s = 58 + 4.9  # the last look is only sure to have begun after the one before it
    assert world.catalogs.peek("acme") is not None
    world.s = 58 + 5
    assert world.catalogs.peek("acme") is None


async def test_what_was_told_to_have_moved_is_not_believed_however_fresh_the_news() -> None:
    world = World(trust_s=5)
    await world.catalogs.get("acme")
    world.catalogs.invalidate("acme")
    world.catalogs.all_told()
    world.catalogs.all_told()
    assert world.catalogs.peek("acme") is None


async def test_many_callers_at_once_load_it_once() -> None:
    world = World()
    world.registry.gate.clear()
    waiting = [asyncio.ensure_future(world.catalogs.get("acme")) for _ in range(10)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    world.registry.gate.set()
    assert len({id(c) for c in await asyncio.gather(*waiting[1:])}) == 1
    assert world.registry.asked.count("load") <= 2


async def test_a_change_during_a_load_is_not_lost() -> None:
    world = World()
    await world.catalogs.get("acme")
    world.registry.number = 2
    world.catalogs.invalidate("acme")
    world.registry.gate.clear()
    world.registry.loading.clear()
    loading = asyncio.ensure_future(world.catalogs.get("acme"))
    await world.registry.loading.wait()
    world.registry.number = 3
    world.catalogs.invalidate("acme")  # announced while the older state is on its way
    world.registry.gate.set()
    await loading
    assert (await world.catalogs.get("acme")).version == 3


async def test_while_a_change_is_being_loaded_nobody_is_given_what_was_before() -> None:
    world = World()
    await world.catalogs.get("acme")
    world.registry.number = 2
    world.catalogs.invalidate("acme")
    world.registry.gate.clear()
    world.registry.loading.clear()
    loading = asyncio.ensure_future(world.catalogs.get("acme"))
    await world.registry.loading.wait()
    assert world.catalogs.peek("acme") is None
    waiting = asyncio.ensure_future(world.catalogs.get("acme"))
    world.registry.gate.set()
    assert [(await asked).version for asked in (loading, waiting)] == [2, 2]


async def test_under_many_changes_a_workspace_is_asked_for_once_at_a_time() -> None:
    world, at_once, most = World(), 0, 0
    registry = world.registry
    load, version = registry.load, registry.version

    async def slowly(ask: Any, workspace: str, *known: object) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        for _ in range(3):
            await asyncio.sleep(0)
        try:
            return await ask(workspace, *known)
        finally:
            at_once -= 1

    registry.load, registry.version = partial(slowly, load), partial(slowly, version)  # type: ignore[method-assign]

    async def caller(n: int) -> None:
        for _ in range(30):
            await world.catalogs.get("acme")
            for _ in range(n % 5):
                await asyncio.sleep(0)

    async def editor() -> None:
        for _ in range(200):
            registry.number += 1
            world.catalogs.invalidate("acme")
            await asyncio.sleep(0)

    await asyncio.gather(editor(), *(caller(n) for n in range(40)))
    assert most == 1


async def test_in_an_outage_the_last_catalog_goes_on_and_an_unknown_workspace_is_an_error() -> None:
    world = World(trust_s=5)
    before = await world.catalogs.get("acme")
    world.registry.out = True
    world.catalogs.invalidate("acme")
    assert await world.catalogs.get("acme") is before
    with pytest.raises(StorageUnavailable):
        await world.catalogs.get("other")
    world.registry.out, world.registry.number = False, 9
    world.s = 5
    assert (await world.catalogs.get("acme")).version == 9


async def test_the_workspace_used_longest_ago_is_forgotten_first() -> None:
    world = World(max_endpoints=5)
    world.registry.rows = {w: (integration(w),) for w in ("w1", "w2", "w3")}
    for workspace in ("w1", "w2"):
        await world.catalogs.get(workspace)
    assert world.catalogs.peek("w1") is not None  # a use, after which w2's is the oldest
    await world.catalogs.get("w3")
    assert world.catalogs.peek("w2") is None
    assert world.catalogs.peek("w1") is not None
    assert world.catalogs.peek("w3") is not None


@pytest.mark.parametrize(
    ("narrowed", "seen"),
    [
        ({}, ["one_a", "one_b", "two_a", "two_b"]),
        ({"integrations": frozenset({"two"})}, ["two_a", "two_b"]),
        ({"tools": frozenset({"one_a", "two_b"})}, ["one_a", "two_b"]),
        ({"integrations": frozenset({"one"}), "tools": frozenset({"one_a", "two_b"})}, ["one_a"]),
        ({"integrations": frozenset()}, []),
        ({"permissions": frozenset({"Integration.view"})}, []),
    ],
)
async def test_each_caller_sees_and_finds_what_he_may(narrowed: dict[str, Any], seen: list[str]) -> None:
    catalog = await World().catalogs.get("acme")
    caller = replace(OWNER, **narrowed)
    assert [t.name for t in catalog.view(caller).tools] == seen
    for name in catalog.tools:
        if name in seen:
            assert catalog.find(caller, name).name == name
        else:
            with pytest.raises(UnknownTool) as e:
                catalog.find(caller, name)
            assert all(hidden not in e.value.message.replace(name, "") for hidden in set(catalog.tools) - set(seen))


async def test_a_workspace_in_another_case_is_the_same_workspace() -> None:
    world = World()
    await world.catalogs.get("ACME")
    world.registry.number = 2
    world.catalogs.invalidate("acme")
    assert world.catalogs.peek("ACME") is None
