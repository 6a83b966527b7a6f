"""load: `apply` without a question, for the first steps."""

from pathlib import Path
from typing import Annotated, Any

import typer

from server.cli.config import planner_of, read
from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, settings_of


def load_command(
    file: Annotated[
        Path, typer.Argument(help="YAML or JSON: one integration, a list of them, or {integrations: [...]}.")
    ],
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Create or update the integrations of a file: `apply` without a question. Nothing is written unless all of it is right."""
    from server.app import open_app

    settings = settings_of(home, database, workspace)
    entries = read(file)

    async def run() -> list[dict[str, Any]]:
        async with open_app(settings) as running:
            planner = planner_of(running)
            plan = await planner.plan(entries)
            await planner.carry_out(plan)
            rows: list[dict[str, Any]] = []
            for step in plan.steps:
                stored = await running.registry.get(settings.workspace, step.name)
                did = {"create": "created", "update": "updated"}.get(step.action, "unchanged")
                rows.append({"name": step.name, "id": stored.id, "did": did, "endpoints": len(stored.endpoints)})
            return rows

    done = in_loop(run)
    if as_json:
        print_json(done)
        return
    for row in done:
        typer.echo(f"{row['did']} {row['name']} ({row['endpoints']} endpoints)")
