"""tools and tools lint: what agents see, and what makes it hard for them."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from server.cli.calling import tools_command
from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, settings_of

if TYPE_CHECKING:
    from tools.lint import LintRow

app = typer.Typer(help="The tools as a model sees them; `tools lint` says what makes them hard to use.")


@app.callback(invoke_without_command=True)
def tools(
    ctx: typer.Context,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List the tools as a model sees them, with their size in tokens (estimate)."""
    if ctx.invoked_subcommand is None:
        tools_command(workspace, database, home, as_json)


@app.command("lint")
def lint_command(
    workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Say what makes the workspace's tools hard for agents, a rule a row. Exit code 1 when a host would refuse something."""
    from server.app import open_app
    from server.egress import host_list
    from tools.callers import local_caller
    from tools.checks import unreached
    from tools.lint import LintRow, lint
    from tools.linted import linted

    settings = settings_of(home, database, workspace)

    async def run() -> "list[LintRow]":
        async with open_app(settings) as running:
            caller = local_caller(settings.workspace)
            catalog = await running.catalogs.get(caller.workspace)
            rows = lint([linted(tool, settings.result_budget) for tool in catalog.view(caller).tools])
            hosts = host_list(settings)
            return rows + [
                LintRow("host_not_allowed", "error", ".".join(map(str, (i.name, *issue.loc[1:]))), issue.msg)
                for i in catalog.integrations
                for issue in unreached(i, hosts)
            ]

    rows = in_loop(run)
    errors = sum(row.severity == "error" for row in rows)
    if as_json:
        print_json({"ok": errors == 0, "rows": [asdict(row) for row in rows]})
    else:
        from server.cli.tables import print_table

        if rows:
            print_table(["severity", "rule", "where", "what"], [[r.severity, r.rule, r.where, r.message] for r in rows])
        typer.echo(f"{errors} errors, {len(rows) - errors} other rows", err=True)
    raise typer.Exit(1 if errors else 0)
