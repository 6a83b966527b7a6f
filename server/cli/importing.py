"""import openapi|curl: what an operator has already becomes endpoints, shown before it is written."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, read_stdin_secret, settings_of

if TYPE_CHECKING:
    from tools.importers.requests import ImportAnswer

app = typer.Typer(
    help="Make endpoints from an OpenAPI document or a curl line.", no_args_is_help=True, rich_markup_mode=None
)
Name = Annotated[str | None, typer.Option(help="The integration: new, or one to follow. Default: from the title.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Write it without asking.")]
Enabled = Annotated[bool, typer.Option("--enabled/--disabled", help="Whether a new integration is enabled.")]
Patterns = list[str] | None


@app.command("openapi")
def openapi_command(
    source: Annotated[str, typer.Argument(help="File or URL of the document: JSON or YAML, OpenAPI 2.0, 3.0 or 3.1.")],
    name: Name = None,
    tag: Annotated[Patterns, typer.Option(help="Only these tags; * and ? fit anything, !PATTERN takes away.")] = None,
    path: Annotated[Patterns, typer.Option(help="Only these paths, like '/pets*'; repeatable.")] = None,
    method: Annotated[Patterns, typer.Option(help="Only these methods.")] = None,
    operation: Annotated[Patterns, typer.Option(help="Only these operationIds.")] = None,
    endpoint: Annotated[Patterns, typer.Option(help="Only endpoints with these names.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Instead of what the document says.")] = None,
    secret_stdin: Annotated[bool, typer.Option("--secret-stdin", help="Read the API's secret from stdin.")] = False,
    client_id: Annotated[str | None, typer.Option(help="Where the document says OAuth client credentials.")] = None,
    enabled: Enabled = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove endpoints that the document no longer has.")] = False,
    yes: Yes = False,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show what an OpenAPI document would become, and make it. Done again, it follows the document and keeps your edits.

    Example: integrations-mcp import openapi petstore.yaml --name pets --tag pets --method GET
    """
    body: dict[str, Any] = {
        "name": name,
        "tags": tag or [],
        "paths": path or [],
        "methods": method or [],
        "operations": operation or [],
        "names": endpoint or [],
        "base_url": base_url,
        "client_id": client_id,
        "enabled": enabled,
        "prune": prune,
    }
    if source.startswith(("https://", "http://")):
        body["url"] = source
    else:
        from server.cli.bundling import read_bundled

        body["document"] = read_bundled(Path(source))
    if secret_stdin:
        body["secret"] = {"value": read_stdin_secret()}
    _import(body, yes, workspace, database, home, as_json)


@app.command("curl")
def curl_command(
    line: Annotated[str, typer.Argument(help="The whole line in quotes; - reads it from stdin.")],
    name: Name = None,
    enabled: Enabled = False,
    yes: Yes = False,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make an endpoint from a curl line. Its secret goes into the secret store and is never shown.

    Example: pbpaste | integrations-mcp import curl - --name shop
    """
    text = sys.stdin.read() if line == "-" else line
    _import({"name": name, "curl": text, "enabled": enabled}, yes, workspace, database, home, as_json)


def _import(
    body: dict[str, Any], yes: bool, workspace: str | None, database: str | None, home: Path | None, as_json: bool
) -> None:
    """Shows the preview; writes with --yes, or when the person at the terminal agrees."""
    shown = _run({**body, "apply": yes}, workspace, database, home)
    if as_json:
        print_json(shown.model_dump(mode="json"))
        raise typer.Exit(1 if shown.problems else 0)
    _print(shown)
    if shown.applied or shown.change == "none" or shown.problems:
        raise typer.Exit(1 if shown.problems else 0)
    if not sys.stdin.isatty():
        typer.echo("nothing was written: say --yes to write it", err=True)
        return
    typer.confirm(f"{shown.change.capitalize()} {shown.integration}?", abort=True, err=True)
    _print(_run({**body, "apply": True}, workspace, database, home), rows=False)


def _run(body: dict[str, Any], workspace: str | None, database: str | None, home: Path | None) -> "ImportAnswer":
    from server.app import open_app
    from tools.callers import local_caller
    from tools.importers.requests import ImportRequest
    from tools.parsing import parse

    request = parse(ImportRequest, body)
    settings = settings_of(home, database, workspace)

    async def main() -> "ImportAnswer":
        async with open_app(settings) as running:
            return await running.importer.run(local_caller(settings.workspace), request)

    return in_loop(main)


def _print(shown: "ImportAnswer", *, rows: bool = True) -> None:
    from server.cli.tables import print_table

    if rows:
        table = [
            [e.change, e.operation, e.tool, e.tokens or "", "; ".join([*_edits(e), *e.notes])] for e in shown.endpoints
        ]
        print_table(["change", "operation", "tool", "tokens", "notes"], table)
        for left in shown.left_out:
            typer.echo(f"left out: {left.operation}: {left.why}")
        for words in (*shown.warnings, *shown.problems):
            typer.echo(f"note: {words}")
    told = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in shown.counts.items() if count)
    did = {"create": "created", "update": "updated", "none": "nothing to change in"}[shown.change]
    would = did if shown.applied or shown.change == "none" else f"would be {did}:"
    state = "" if shown.enabled else " (disabled)"
    typer.echo(f"{would} {shown.integration}{state}: {told}; {shown.tokens} tokens in a list")


def _edits(endpoint: Any) -> list[str]:
    told: list[str] = []
    if endpoint.changed:
        told.append(f"follows the document in {', '.join(endpoint.changed)}")
    if endpoint.kept:
        told.append(f"your {', '.join(endpoint.kept)} stays")
    if endpoint.conflicts:
        told.append(f"the document changed {', '.join(endpoint.conflicts)} too")
    return told
