"""integrations list|get|create|update|delete|test|health: the management operations, from the shell, as the local owner."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, settings_of

if TYPE_CHECKING:
    from server.config_file import Entry
    from tools.admin import Admin
    from tools.callers import Caller
    from tools.models import Integration

app = typer.Typer(
    help="Integrations: list, get, create, update, delete, test, health.", no_args_is_help=True, rich_markup_mode=None
)
Name = Annotated[str, typer.Argument(help="Name or id of the integration.")]
File = Annotated[
    Path | None,
    typer.Option("-f", "--file", help="YAML or JSON with one integration; ${NAME} is taken from the environment."),
]


@app.command("list")
def list_command(
    search: Annotated[str | None, typer.Option(help="Part of a name, display name or id.")] = None,
    protocol: Annotated[str | None, typer.Option(help="rest, fhir or mcp.")] = None,
    enabled: Annotated[bool | None, typer.Option("--enabled/--disabled", help="Only these. Default: all.")] = None,
    sort_by: Annotated[
        str | None, typer.Option(help="name, display_name, created_at or updated_at, with + or - before it.")
    ] = None,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List the workspace's integrations, newest first. With --json: all pages of the REST list as one."""

    async def run(admin: "Admin", caller: "Caller") -> list[Any]:
        found: list[Any] = []
        token: int | None = 0
        while token is not None:
            page = await admin.list(
                caller,
                enabled=enabled,
                protocol=protocol,
                search=search,
                sort_by=sort_by,
                limit=20,
                continuation_token=token,
            )
            found += page.items
            token = page.continuation_token
        return found

    items = _with_admin(run, workspace, database, home)
    if as_json:
        print_json({"items": [i.model_dump(mode="json") for i in items], "total": len(items)})
        return
    from server.cli.tables import print_table

    rows = [
        [i.name, i.display_name, i.protocol, len(i.endpoints), "yes" if i.enabled else "no", i.last_test_status or ""]
        for i in items
    ]
    print_table(["name", "display name", "protocol", "endpoints", "enabled", "last test"], rows)


@app.command("get")
def get_command(
    name: Name, workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Show one integration: as YAML that `apply` takes, or as REST answers it with --json. Never a secret."""

    async def run(admin: "Admin", caller: "Caller") -> "tuple[Integration, Any]":
        stored = await admin.get(caller, name)
        return stored, admin.shown(caller, stored)

    stored, shown = _with_admin(run, workspace, database, home)
    if as_json:
        print_json(shown.model_dump(mode="json"))
        return
    from server.config_export import export_one

    sys.stdout.write(export_one(stored, shown, stored.workspace_id))


@app.command("create")
def create_command(
    file: Annotated[
        Path,
        typer.Option("-f", "--file", help="YAML or JSON with one integration; ${NAME} is taken from the environment."),
    ],
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Create an integration from a file."""
    from tools.parsing import parse_create

    entry = _one(file)

    async def run(admin: "Admin", caller: "Caller") -> Any:
        with _placing(entry):
            return admin.shown(caller, (await admin.create(caller, parse_create(entry.data))).after)

    shown = _with_admin(run, workspace, database, home)
    _tell("created", shown, as_json)


@app.command("update")
def update_command(
    name: Name,
    file: File = None,
    fields: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE, the value as JSON or text; repeatable.")
    ] = None,
    if_match: Annotated[int | None, typer.Option(min=1, help="Only if this is still its version.")] = None,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Change the fields that are given; the others stay. `endpoints` is replaced whole.

    Example: integrations-mcp integrations update clinic --set enabled=false
    """
    from server.config_file import parse_text
    from tools.parsing import parse_update

    if (file is None) == (not fields):
        raise typer.BadParameter("give either -f FILE or --set FIELD=VALUE", param_hint="--set")
    if file is not None:
        entry = _one(file)
    else:
        text = yaml.safe_dump(dict(map(_field, fields or [])))
        entry = parse_text(text.replace("${", "$${"), "--set", {})[0]

    async def run(admin: "Admin", caller: "Caller") -> Any:
        current = await admin.get(caller, name)
        with _placing(entry):
            request = parse_update(entry.data, current.name)
            return admin.shown(caller, (await admin.update(caller, name, request, if_match)).after)

    shown = _with_admin(run, workspace, database, home)
    _tell("updated", shown, as_json)


@app.command("delete")
def delete_command(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    if_match: Annotated[int | None, typer.Option(min=1, help="Only if this is still its version.")] = None,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Delete an integration, its tools and the secrets that were stored for it."""
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise typer.BadParameter("nobody is there to ask: say --yes", param_hint="--yes")
        typer.confirm(f"Delete {name}, its tools and its secrets?", abort=True, err=True)

    async def run(admin: "Admin", caller: "Caller") -> "Integration":
        return await admin.delete(caller, name, if_match)

    gone = _with_admin(run, workspace, database, home)
    if as_json:
        print_json({"deleted": gone.name, "id": gone.id})
    else:
        typer.echo(f"deleted {gone.name}")


@app.command("test")
def run_test(
    name: Name,
    endpoint: Annotated[str | None, typer.Argument(help="Endpoint. Default: only the connection.")] = None,
    args: Annotated[str, typer.Option("--args", help="Arguments as a JSON object.")] = "{}",
    explain: Annotated[bool, typer.Option("--explain", help="Show the request, each attempt and every stage.")] = False,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Call one endpoint, or probe the connection, and show what came of it. Exit code 1 when it fails.

    Example: integrations-mcp integrations test clinic get_patient --args '{"id": "f001"}' --explain
    """
    from tools.explain import explain as explained
    from tools.explain import test_response

    if endpoint is None:
        raise typer.Exit(_test_connection(name, workspace, database, home, as_json))
    named = endpoint
    params = _object(args)

    async def run(admin: "Admin", caller: "Caller") -> Any:
        return await admin.test(caller, name, named, params)

    outcome = _with_admin(run, workspace, database, home)
    stages = explained(outcome, outcome.trace.masker, with_detail=True) if explain else None
    if as_json:
        found = test_response(outcome, outcome.trace.masker).model_dump(mode="json")
        print_json(found if stages is None else {**found, "explain": stages})
    else:
        if stages is not None:
            from server.cli.stages import print_stages

            print_stages(stages)
        typer.echo(outcome.text)
    raise typer.Exit(1 if outcome.is_error else 0)


@app.command("health")
def health_command(
    workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Probe every enabled integration, side by side. Exit code 1 unless all are healthy."""

    async def run(admin: "Admin", caller: "Caller") -> dict[str, Any]:
        return await admin.health(caller)

    found = _with_admin(run, workspace, database, home)
    if as_json:
        print_json(found)
    else:
        from server.cli.tables import print_table

        rows = [
            [
                r["name"],
                r["status"],
                r["auth"],
                "" if r["latency_ms"] is None else f"{r['latency_ms']:.0f} ms",
                r["message"],
            ]
            for r in found["integrations"]
        ]
        print_table(["name", "status", "auth", "latency", "message"], rows)
        typer.echo(found["status"], err=True)
    raise typer.Exit(0 if found["status"] == "healthy" else 1)


def _test_connection(name: str, workspace: str | None, database: str | None, home: Path | None, as_json: bool) -> int:
    async def run(admin: "Admin", caller: "Caller") -> dict[str, Any]:
        return await admin.test_connection(caller, name)

    found = _with_admin(run, workspace, database, home)
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{found['name']}: {found['status']} (auth: {found['auth']}): {found['message']}")
    return 0 if found["status"] == "healthy" else 1


def _with_admin(run: Any, workspace: str | None, database: str | None, home: Path | None) -> Any:
    """`run(admin, caller)` on the registry, as the local owner."""
    from server.app import open_app
    from tools.callers import local_caller

    settings = settings_of(home, database, workspace)

    async def main() -> Any:
        async with open_app(settings) as running:
            return await run(running.admin, local_caller(settings.workspace))

    return in_loop(main)


class _placing:  # noqa: N801 - reads as a statement
    """Faults of the block are told at their line of the file."""

    def __init__(self, entry: "Entry") -> None:
        self._entry = entry

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from server.config_file import ConfigError
        from tools.errors import InvalidRequest

        if isinstance(error, InvalidRequest):
            raise ConfigError(self._entry.faults(error)) from None


def _one(file: Path) -> "Entry":
    from server.cli.config import read
    from server.config_file import ConfigError

    entries = read(file)
    if len(entries) > 1:
        raise ConfigError([entries[1].fault((), "a second integration: `apply -f` takes several at once")])
    return entries[0]


def _field(text: str) -> tuple[str, Any]:
    """FIELD=VALUE; a value that isn't JSON is text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{text!r} is not FIELD=VALUE", param_hint="--set")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _object(text: str) -> dict[str, Any]:
    try:
        value: Any = json.loads(text)
    except json.JSONDecodeError as e:
        raise typer.BadParameter(f"not JSON: {e}", param_hint="--args") from None
    if not isinstance(value, dict):
        raise typer.BadParameter("arguments are a JSON object, like '{\"id\": 1}'", param_hint="--args")
    return value  # pyright: ignore[reportUnknownVariableType] - JSON


def _tell(did: str, shown: Any, as_json: bool) -> None:
    if as_json:
        print_json(shown.model_dump(mode="json"))
    else:
        typer.echo(f"{did} {shown.name} ({len(shown.endpoints)} endpoints)")
