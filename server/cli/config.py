"""apply, diff, export, check: integrations as files in git."""

import gc
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, settings_of

if TYPE_CHECKING:
    from server.app import App
    from server.config_file import Entry
    from server.config_plan import Plan, Planner, Step

Files = Annotated[
    Path,
    typer.Option("-f", "--file", help="YAML or JSON file, or a folder of them; ${NAME} is taken from the environment."),
]
_SIGNS = {"create": "+", "update": "~", "delete": "-", "keep": "="}
_SHORT = 100


def apply_command(
    file: Files,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Delete the integrations that aren't in it.")] = False,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make the workspace what the file says: shows what will change, asks, and writes. All is checked before anything is written.

    Example: integrations-mcp apply -f integrations.yaml --yes
    """
    from server.app import open_app

    settings = settings_of(home, database, workspace)
    entries = read(file)

    async def run() -> "tuple[Plan, bool]":
        async with open_app(settings) as running:
            planner = planner_of(running)
            plan = await planner.plan(entries, prune=prune)
            if not as_json:
                _print_plan(plan)
            agreed = plan.is_empty or yes or _agrees(as_json)
            if agreed:
                await planner.carry_out(plan)
            return plan, agreed

    plan, applied = in_loop(run)
    if as_json:
        print_json({"plan": [_row(step) for step in plan.steps], "applied": applied})
    if not applied:
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(1)


def diff_command(
    file: Files,
    prune: Annotated[bool, typer.Option("--prune", help="As apply --prune would.")] = False,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show what `apply` would change. Exit code 1 when there is something."""
    from server.app import open_app

    settings = settings_of(home, database, workspace)
    entries = read(file)

    async def run() -> "Plan":
        async with open_app(settings) as running:
            return await planner_of(running).plan(entries, prune=prune)

    plan = in_loop(run)
    if as_json:
        print_json({"plan": [_row(step) for step in plan.steps]})
    else:
        _print_plan(plan)
    raise typer.Exit(0 if plan.is_empty else 1)


def export_command(
    names: Annotated[list[str] | None, typer.Argument(help="Only these integrations. Default: all.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="One file. Default: standard output.")] = None,
    folder: Annotated[Path | None, typer.Option("--dir", help="A file for each integration in this folder.")] = None,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
) -> None:
    """Write the workspace's integrations as YAML that `apply` takes. Secrets are named, never written out."""
    from server.app import open_app
    from server.config_export import export_all, export_one
    from tools.callers import local_caller
    from tools.models import Integration, IntegrationResponse

    if out is not None and folder is not None:
        raise typer.BadParameter("give either --out or --dir", param_hint="--dir")
    settings = settings_of(home, database, workspace)

    async def run() -> list[tuple[Integration, IntegrationResponse]]:
        caller = local_caller(settings.workspace)
        async with open_app(settings) as running:
            _, everything = await running.registry.load(settings.workspace)
            found = [await running.admin.get(caller, name) for name in names] if names else everything
            return [(i, running.admin.shown(caller, i)) for i in found]

    rows = in_loop(run)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for stored, shown in rows:
            (folder / f"{stored.name}.yaml").write_text(export_one(stored, shown, settings.workspace), "utf-8")
        typer.echo(f"wrote {len(rows)} file(s) to {folder}", err=True)
    elif out is not None:
        out.write_text(export_all(rows, settings.workspace), "utf-8")
        typer.echo(f"wrote {len(rows)} integration(s) to {out}", err=True)
    else:
        sys.stdout.write(export_all(rows, settings.workspace))


def check_command(
    file: Annotated[Path, typer.Argument(help="YAML or JSON file, or a folder of them.")], as_json: AsJson = False
) -> None:
    """Check integrations without a server or a registry; each fault is told as file:line: field: what is wrong."""
    from server.config_check import check_entries
    from server.egress import host_list
    from tools.address_guard import NetworkPolicy
    from tools.checks import CheckRules
    from tools.credentials.own_identity import OwnIdentity

    settings = settings_of()
    network = NetworkPolicy(allow_private=settings.private_networks)
    entries = read(file)
    rules = CheckRules(
        network,
        settings.tool_name_max,
        settings.stdio_allow,
        settings.public_url,
        OwnIdentity(settings.allowed_identities),
        host_list(settings),
    )
    check_entries(entries, rules, settings.workspace)
    if as_json:
        print_json({"ok": True, "integrations": [entry.name for entry in entries]})
    else:
        typer.echo(f"{file}: {len(entries)} integration(s), nothing wrong")


def planner_of(running: "App") -> "Planner":
    """The local owner's."""
    from server.config_plan import Planner
    from tools.callers import local_caller

    settings = running.settings
    caller = local_caller(settings.workspace)
    return Planner(running.admin, running.registry, running.secrets, caller, tool_name_max=settings.tool_name_max)


def read(file: Path) -> "list[Entry]":
    """The entries of a file that has some, with this shell's environment. Raises ConfigError."""
    from server.config_file import ConfigError, Fault, read_entries

    # Of a file of thousands nothing is garbage before all of it is read: the collector would go over it again and again.
    gc.disable()
    try:
        entries = read_entries(file, os.environ)
    finally:
        gc.enable()
    if not entries:
        raise ConfigError([Fault(str(file), 1, (), "there are no integrations in it")])
    return entries


def _agrees(as_json: bool) -> bool:
    if as_json or not sys.stdin.isatty():
        raise typer.BadParameter("nobody is there to ask: say --yes", param_hint="--yes")
    return typer.confirm("Apply?", err=True)


def _row(step: "Step") -> dict[str, Any]:
    changes = [{"at": c.at, "before": c.before, "after": c.after} for c in step.changes]
    return {"action": step.action, "name": step.name, "changes": changes}


def _print_plan(plan: "Plan") -> None:
    for step in plan.steps:
        endpoints = len((step.after or step.before).endpoints)  # pyright: ignore[reportOptionalMemberAccess] - one of them is there
        typer.echo(f"{_SIGNS[step.action]} {step.action} {step.name} ({endpoints} endpoints)")
        for change in step.changes:
            typer.echo(f"    {change.at}: {_short(change.before)} -> {_short(change.after)}")
    counts = [f"{n} to {a}" for a in ("create", "update", "delete") if (n := sum(s.action == a for s in plan.steps))]
    typer.echo(", ".join(counts) if counts else "nothing to change")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) and value.startswith("(") else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"
