"""call and tools: what an agent can do, done from the shell."""

import asyncio
import json
import sys
from textwrap import shorten
from typing import Annotated, Any

import typer

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, settings_of


def call_command(
    tool: Annotated[str, typer.Argument(help="Name of the tool, as `integrations-mcp tools` lists it.")],
    args: Annotated[str, typer.Option("--args", help="Arguments as a JSON object.")] = "{}",
    explain: Annotated[bool, typer.Option("--explain", help="Show every stage.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Approve the call, where it needs a person's approval.")] = False,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Call a tool as an agent would. Exit code 1 when the call fails. A call that needs approval is shown first, on a terminal.

    Example: integrations-mcp call clinic_get_patient --args '{"id": "f001"}' --explain
    """
    from server.app import open_app
    from tools.call import CallContext
    from tools.callers import local_caller
    from tools.explain import explain as explained
    from tools.outcome import Outcome

    settings = settings_of(home, database, workspace)
    try:
        arguments: Any = json.loads(args)
    except json.JSONDecodeError as e:
        raise typer.BadParameter(f"not JSON: {e}", param_hint="--args") from None
    if not isinstance(arguments, dict):
        raise typer.BadParameter("arguments are a JSON object, like '{\"id\": 1}'", param_hint="--args")

    async def confirm(question: str, key: str = "") -> bool | None:
        if yes:
            return True
        return await asyncio.to_thread(typer.confirm, question, err=True) if sys.stdin.isatty() else None

    async def run() -> Outcome:
        async with open_app(settings) as running:
            context = CallContext(confirm=confirm)
            return await running.toolbox.call(local_caller(settings.workspace), tool, arguments, context)  # pyright: ignore[reportUnknownArgumentType]

    outcome = in_loop(run)
    stages = explained(outcome, outcome.trace.masker, with_detail=True) if explain else None
    if as_json:
        shown = {"ok": not outcome.is_error, "text": outcome.text, "status": outcome.status}
        print_json({**shown, "explain": stages} if stages is not None else shown)
    else:
        if stages is not None:
            from server.cli.stages import print_stages

            print_stages(stages)
        typer.echo(outcome.text)
    raise typer.Exit(1 if outcome.is_error else 0)


def tools_command(
    workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """List the tools as a model sees them, with their size in tokens (estimate)."""
    import orjson

    from server.app import open_app
    from tools.callers import local_caller
    from tools.descriptions import estimate_tokens
    from tools.hosts import hosts_over

    settings = settings_of(home, database, workspace)

    async def run() -> list[dict[str, Any]]:
        async with open_app(settings) as running:
            caller = local_caller(settings.workspace)
            catalog = await running.catalogs.get(caller.workspace)
            return [entry for _, entry in running.toolbox.entries(catalog, caller)]

    entries = in_loop(run)
    tokens = [estimate_tokens(orjson.dumps(e).decode()) for e in entries]
    if as_json:
        print_json({"tools": entries, "tokens": sum(tokens)})
        return
    from server.cli.tables import print_table

    rows = [
        [e["name"], n, shorten(e["description"].split("\n")[0], 90, placeholder=" …")]
        for e, n in zip(entries, tokens, strict=True)
    ]
    print_table(["tool", "tokens", "description"], rows)
    typer.echo(f"{len(entries)} tools, about {sum(tokens)} tokens", err=True)
    for host in hosts_over(len(entries)):
        typer.echo(f"warning: {host.name} takes at most {host.tools} tools", err=True)
