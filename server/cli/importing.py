"""import openapi|curl|fhir|mcp: what an operator has already becomes endpoints, shown before it is written."""

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, read_stdin_secret, settings_of

if TYPE_CHECKING:
    from tools.importers.requests import ImportAnswer

app = typer.Typer(
    help="Make endpoints from an OpenAPI document, a curl line, a FHIR server or an MCP server.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Name = Annotated[str | None, typer.Option(help="The integration: new, or one to follow. Default: from the title.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Write it without asking.")]
Enabled = Annotated[bool, typer.Option("--enabled/--disabled", help="Whether a new integration is enabled.")]
Patterns = list[str] | None
Endpoints = Annotated[Patterns, typer.Option("--endpoint", help="Only endpoints with these names.")]
Prune = Annotated[bool, typer.Option("--prune", help="Remove endpoints whose operation is gone.")]
Token = Annotated[bool, typer.Option("--secret-stdin", help="Read a bearer token for the server from stdin.")]
AuthFile = Annotated[Path | None, typer.Option(help="JSON file with the auth object; - is stdin.")]


@app.command("openapi")
def openapi_command(
    source: Annotated[str, typer.Argument(help="File or URL of the document: JSON or YAML, OpenAPI 2.0, 3.0 or 3.1.")],
    name: Name = None,
    tag: Annotated[Patterns, typer.Option(help="Only these tags; * and ? fit anything, !PATTERN takes away.")] = None,
    path: Annotated[Patterns, typer.Option(help="Only these paths, like '/pets*'; repeatable.")] = None,
    method: Annotated[Patterns, typer.Option(help="Only these methods.")] = None,
    operation: Annotated[Patterns, typer.Option(help="Only these operationIds.")] = None,
    endpoint: Endpoints = None,
    base_url: Annotated[str | None, typer.Option(help="Instead of what the document says.")] = None,
    secret_stdin: Annotated[bool, typer.Option("--secret-stdin", help="Read the API's secret from stdin.")] = False,
    client_id: Annotated[str | None, typer.Option(help="Where the document says OAuth client credentials.")] = None,
    enabled: Enabled = False,
    prune: Prune = False,
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
        **_credential(secret_stdin, None),
    }
    if source.startswith(("https://", "http://")):
        body["url"] = source
    else:
        from server.cli.bundling import read_bundled

        body["document"] = read_bundled(Path(source))
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


@app.command("fhir")
def fhir_command(
    url: Annotated[str, typer.Argument(help="The server's FHIR base URL; its /metadata says what it can do.")],
    name: Name = None,
    resource: Annotated[Patterns, typer.Option(help="Only these resource types; * and ? fit anything.")] = None,
    interaction: Annotated[
        Patterns, typer.Option(help="Only search, read, create, update, patch or delete; !delete takes away.")
    ] = None,
    endpoint: Endpoints = None,
    secret_stdin: Token = False,
    auth: AuthFile = None,
    enabled: Enabled = False,
    prune: Prune = False,
    yes: Yes = False,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show what a FHIR server can do as tools, and make them. Without a choice: search and read of what most questions are about.

    Example: integrations-mcp import fhir https://ehr.example.com/fhir --name ehr --resource Patient --interaction search
    """
    operations = ["!" * i.startswith("!") + i.removeprefix("!").lower() + "_*" for i in interaction or []]
    body: dict[str, Any] = {
        "fhir": url,
        "name": name,
        "tags": resource or [],
        "operations": operations,
        "names": endpoint or [],
        "enabled": enabled,
        "prune": prune,
        **_credential(secret_stdin, auth),
    }
    _import(body, yes, workspace, database, home, as_json)


@app.command("mcp")
def mcp_command(
    source: Annotated[str, typer.Argument(metavar="URL|COMMAND", help="The server's URL, or its program.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Of the program; put -- before the first that begins with -.")
    ] = None,
    name: Name = None,
    transport: Annotated[str | None, typer.Option(help="http or sse. Default: found out.")] = None,
    header: Annotated[Patterns, typer.Option(help="NAME=VALUE for a URL; VALUE can be secret:/path.")] = None,
    env: Annotated[Patterns, typer.Option(help="NAME=VALUE for a program; VALUE can be secret:/path.")] = None,
    tool: Annotated[Patterns, typer.Option(help="Only these tools of the server; * and ? fit anything.")] = None,
    hint: Annotated[
        Patterns, typer.Option(help="Only read-only, additive or destructive ones, by the server's word.")
    ] = None,
    endpoint: Endpoints = None,
    secret_stdin: Token = False,
    auth: AuthFile = None,
    enabled: Enabled = False,
    prune: Prune = False,
    yes: Yes = False,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show the tools of an MCP server, choose and rename them. Texts and schemas stay the server's until you edit them.

    Example: integrations-mcp import mcp https://tracker.example.com/mcp --name tracker --tool '*_issue*'
    """
    body: dict[str, Any] = {
        "name": name,
        "tags": hint or [],
        "operations": tool or [],
        "names": endpoint or [],
        "enabled": enabled,
        "prune": prune,
        **_credential(secret_stdin, auth),
    }
    if source.startswith(("https://", "http://")):
        body |= {"mcp_url": source, "mcp_transport": transport, "mcp_headers": _pairs(header, "--header")}
    else:
        # The operator's list has absolute paths; whoever types here means what his shell would run.
        body |= {"mcp_command": shutil.which(source) or source, "mcp_env": _pairs(env, "--env")}
        body["mcp_args"] = arguments or []
    _import(body, yes, workspace, database, home, as_json)


def _pairs(given: Patterns, option: str) -> dict[str, str] | None:
    if bad := [pair.partition("=")[0] for pair in given or () if "=" not in pair]:
        raise typer.BadParameter(f"{option} {bad[0]}: write NAME=VALUE")
    return {name: value for name, _, value in (pair.partition("=") for pair in given or ())} or None


def _credential(secret_stdin: bool, auth: Path | None) -> dict[str, Any]:
    if secret_stdin:
        return {"secret": {"value": read_stdin_secret()}}
    if auth is None:
        return {}
    try:
        return {"auth": json.loads(sys.stdin.buffer.read() if str(auth) == "-" else auth.read_bytes())}
    except ValueError:  # its words could hold a part of a secret
        raise typer.BadParameter("--auth: the file is no JSON object of an integration's auth") from None


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
        told.append(f"follows the source in {', '.join(endpoint.changed)}")
    if endpoint.kept:
        told.append(f"your {', '.join(endpoint.kept)} stays")
    if endpoint.conflicts:
        told.append(f"the source changed {', '.join(endpoint.conflicts)} too")
    return told
