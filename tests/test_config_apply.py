"""apply, diff, export and the watched file, on a whole gateway."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from server.app import App
from server.config_export import export_all
from server.config_file import ConfigError, Entry, parse_text
from server.config_plan import Plan, Planner
from server.config_watch import ConfigWatch
from server.demo.definition import DEMO_KEY, SCRIPT, load_demo
from server.demo.running import running_clinic
from tests.world import World, gateway
from tools.errors import BuiltinReadOnly
from tools.parsing import parse_update
from tools.registry import SecretRecord

pytestmark = pytest.mark.anyio
ENDPOINT: dict[str, Any] = {"name": "get_item", "description": "Gets one.", "method": "GET", "path": "/items/{id}"}
SHOP: dict[str, Any] = {
    "name": "shop",
    "display_name": "Shop",
    "base_url": "http://127.0.0.1:9",
    "auth": {"type": "api_key_header", "api_key_value": {"value": "canary-0123456789"}},
    "endpoints": [ENDPOINT],
}
OTHER: dict[str, Any] = {"name": "other", "display_name": "Other", "base_url": "http://127.0.0.1:9"}


def planner(world: World) -> Planner:
    app = world.app
    return Planner(app.admin, app.registry, app.secrets, world.owner, tool_name_max=app.settings.tool_name_max)


def entries(*integrations: dict[str, Any]) -> list[Entry]:
    return parse_text(yaml.safe_dump({"integrations": list(integrations)}), "f.yaml", {})


async def apply(world: World, *integrations: dict[str, Any], prune: bool = False) -> Plan:
    plan = await planner(world).plan(entries(*integrations), prune=prune)
    await planner(world).carry_out(plan)
    return plan


def actions(plan: Plan) -> dict[str, str]:
    return {step.name: step.action for step in plan.steps}


async def export(world: World) -> str:
    _, stored = await world.app.registry.load("acme")
    return export_all([(i, world.app.admin.shown(world.owner, i)) for i in stored], "acme")


async def test_a_second_apply_plans_nothing_also_with_inline_secrets(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        assert actions(await apply(world, SHOP, OTHER)) == {"shop": "create", "other": "create"}
        again = await planner(world).plan(entries(SHOP, OTHER))
        assert again.is_empty
        before = (await world.app.registry.get("acme", "shop")).version
        await planner(world).carry_out(again)
        assert (await world.app.registry.get("acme", "shop")).version == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"display_name": "S"}, [("display_name", "Shop", "S")]),
        ({"endpoints": [{**ENDPOINT, "path": "/i/{id}"}]}, [("endpoints.get_item.path", "/items/{id}", "/i/{id}")]),
        ({"endpoints": [{**ENDPOINT, "headers": {"X-Token": "t0p"}}]},
         [("endpoints.get_item.headers.X-Token", "(none)", "[secret]")]),
        ({"auth": {**SHOP["auth"], "api_key_value": {"value": "canary-other"}}},
         [("auth.api_key_value", "", "(new value)")]),
        ({"auth": {**SHOP["auth"], "header_name": "X-K"}}, [("auth.header_name", None, "X-K")]),
    ],
)  # fmt: skip
async def test_a_plan_names_each_field_and_never_a_secret(
    tmp_path: Path, change: dict[str, Any], expected: list[tuple[str, Any, Any]]
) -> None:
    async with gateway(tmp_path) as world:
        await apply(world, SHOP)
        plan = await planner(world).plan(entries({**SHOP, **change}))
    assert [(c.at, c.before, c.after) for c in plan.steps[0].changes] == expected


async def test_what_a_file_leaves_out_is_the_default_but_for_enabled_and_stored_secrets(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        await apply(world, {**SHOP, "approval_policy": "all"})
        await world.app.admin.update(world.owner, "shop", parse_update({"enabled": False}, "shop"))
        before = await world.app.registry.get("acme", "shop")
        await apply(world, {**SHOP, "auth": {"type": "api_key_header"}})
        after = await world.app.registry.get("acme", "shop")
    assert (after.approval_policy, after.enabled) == ("none", False)
    assert after.auth == before.auth
    assert after.bindings == before.bindings


async def test_nothing_is_written_when_one_integration_has_a_fault(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        with pytest.raises(ConfigError, match=r"f\.yaml:\d+: base_url: "):
            await apply(world, SHOP, {**OTHER, "base_url": "nonsense"})
        assert (await world.app.registry.load("acme"))[1] == ()


async def test_two_entries_that_give_one_tool_name_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    clash = {**OTHER, "name": "shop_get", "endpoints": [{**ENDPOINT, "name": "item"}]}
    async with gateway(tmp_path) as world:
        with pytest.raises(ConfigError, match="taken by integration shop"):
            await apply(world, SHOP, clash)
        assert (await world.app.registry.load("acme"))[1] == ()


async def test_only_prune_deletes_what_the_file_does_not_have(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        await apply(world, SHOP, OTHER)
        assert actions(await apply(world, SHOP)) == {"shop": "keep"}
        assert actions(await apply(world, SHOP, prune=True)) == {"shop": "keep", "other": "delete"}
        assert [i.name for i in (await world.app.registry.load("acme"))[1]] == ["shop"]


async def test_the_demo_exported_and_applied_elsewhere_has_the_same_tools_and_gives_the_same_answers(
    tmp_path: Path,
) -> None:
    async def seen(world: World) -> tuple[Any, list[str]]:
        tools = (await world.app.toolbox.page(world.owner, None))[0]
        reading = [s for s in SCRIPT if s.tool.startswith(("clinic_search", "clinic_get", "clinic_list_observations"))]
        answers = [await world.call(s.tool, **s.arguments) for s in reading]
        return [t for t in tools if t["name"].startswith("clinic_")], answers

    async with running_clinic() as clinic, gateway(tmp_path / "a") as first, gateway(tmp_path / "b") as second:
        await first.app.admin.create(first.owner, load_demo(clinic.base_url))
        text = await export(first)
        assert DEMO_KEY not in text
        path = (await first.app.registry.get("acme", "clinic")).auth.ssm_param_path  # pyright: ignore
        assert f"secrets set {path}" in text
        now = datetime.now(UTC)
        await second.app.registry.put_secret_record(SecretRecord(path, "acme", (), now, now))  # pyright: ignore
        await second.app.secrets.write(path, DEMO_KEY)  # pyright: ignore
        found = parse_text(text, "f.yaml", {})
        await planner(second).carry_out(await planner(second).plan(found))
        tools, answers = await seen(first)
        assert len(answers) >= 4
        assert (tools, answers) == await seen(second)
        for world in (first, second):
            assert (await planner(world).plan(found)).is_empty
        assert await export(second) == text


async def test_a_header_that_is_masked_in_an_export_is_kept_when_it_is_applied_again(tmp_path: Path) -> None:
    endpoint = {**ENDPOINT, "headers": {"X-Token": "t0p-canary"}, "description": "costs ${x} $${y}"}
    async with gateway(tmp_path) as world:
        await world.create({**OTHER, "endpoints": [endpoint]})
        text = await export(world)
        assert "t0p-canary" not in text
        assert (await planner(world).plan(parse_text(text, "f.yaml", {}))).is_empty


# --------------------------------------------------------------------------- the file that is the registry


def file_planner(app: App) -> Planner:
    from tools.callers import local_caller

    caller = replace(local_caller("acme"), id="config-file")
    return Planner(app.file_admin, app.registry, app.secrets, caller, tool_name_max=48, builtin=True)


@asynccontextmanager
async def watched(tmp_path: Path, *integrations: dict[str, Any]) -> AsyncGenerator[tuple[World, Path]]:
    path = tmp_path / "integrations.yaml"
    path.write_text(yaml.safe_dump({"integrations": list(integrations)}))
    async with gateway(tmp_path / "home") as world, anyio.create_task_group() as tasks:
        watch = ConfigWatch(path, file_planner(world.app), look_s=0.01)
        await watch.load()
        tasks.start_soon(watch.follow)
        yield world, path
        tasks.cancel_scope.cancel()


async def until(world: World, expected: dict[str, str]) -> None:
    """Waits until the registry has exactly these (name -> display name)."""
    with anyio.fail_after(10):
        while {i.name: i.display_name for i in (await world.app.registry.load("acme"))[1]} != expected:
            await anyio.lowlevel.checkpoint()


def replace_file(path: Path, *integrations: dict[str, Any]) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(yaml.safe_dump({"integrations": list(integrations)}))
    fresh.replace(path)


async def test_a_changed_file_is_loaded_again_and_what_left_it_goes(tmp_path: Path) -> None:
    async with watched(tmp_path, SHOP, OTHER) as (world, path):
        await world.create({**OTHER, "name": "mine", "display_name": "Mine"})
        await until(world, {"shop": "Shop", "other": "Other", "mine": "Mine"})
        replace_file(path, {**SHOP, "display_name": "S"})
        await until(world, {"shop": "S", "mine": "Mine"})


async def test_a_file_with_a_fault_is_logged_with_its_line_and_the_version_before_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logs = caplog.records
    async with watched(tmp_path, SHOP) as (world, path):
        with anyio.fail_after(10):
            path.write_text("integrations:\n  - name: shop\n    display_nam: x\n")
            while not any("integrations.yaml:3: display_nam: unknown field" in str(vars(row)) for row in logs):
                await anyio.lowlevel.checkpoint()
            path.unlink()
            while not any("No such file" in str(vars(row)) for row in logs):
                await anyio.lowlevel.checkpoint()
        await until(world, {"shop": "Shop"})
        replace_file(path, {**SHOP, "display_name": "S"})
        await until(world, {"shop": "S"})


async def test_builtin_integrations_take_only_enabled_and_are_not_deleted(tmp_path: Path) -> None:
    async with watched(tmp_path, SHOP) as (world, path):
        admin = world.app.admin
        with pytest.raises(BuiltinReadOnly):
            await admin.delete(world.owner, "shop")
        with pytest.raises(BuiltinReadOnly):
            await admin.update(world.owner, "shop", parse_update({"display_name": "x"}, "shop"))
        await admin.update(world.owner, "shop", parse_update({"enabled": False}, "shop"))
        with pytest.raises(ConfigError, match="operator's file"):
            await apply(world, SHOP)
        assert actions(await apply(world, prune=True)) == {}
        replace_file(path, {**SHOP, "display_name": "S"})
        await until(world, {"shop": "S"})
        shop = await world.app.registry.get("acme", "shop")
    assert (shop.builtin, shop.enabled) == (True, False)


async def test_a_file_may_not_take_over_an_integration_that_is_there(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world:
        await world.create(OTHER)
        with pytest.raises(ConfigError, match="isn't of this file"):
            await file_planner(world.app).plan(entries(OTHER))


async def test_a_gateway_starts_with_its_file_and_not_without_a_right_one(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(yaml.safe_dump(SHOP))
    async with gateway(tmp_path / "home", config=path) as world:
        assert (await world.app.registry.get("acme", "shop")).builtin
    path.write_text("name: shop\n")
    with pytest.raises(ConfigError, match=r"f\.yaml:1: display_name"):
        async with gateway(tmp_path / "home", config=path):
            pass
