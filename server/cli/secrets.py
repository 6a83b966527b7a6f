"""secrets set|list|rm: values come from standard input and are never printed."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, read_stdin_secret, settings_of
from tools.errors import InvalidRequest, Issue
from tools.kinds.paths import base_url_fault, origin_of
from tools.registry import SecretRecord
from tools.secrets import is_under, path_fault, value_fault

app = typer.Typer(help="Secrets that integrations name by path: set, list, rm.", no_args_is_help=True)
PATH = Annotated[str, typer.Argument(help="Like /gw/acme/shared/clinic_key: 2 to 10 segments.")]


@app.command("set")
def set_secret(
    path: PATH,
    workspace: Workspace = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Where it may go, like https://api.example.com; repeatable. Needed for shared secrets."),
    ] = None,
    database: Database = None,
    home: Home = None,
) -> None:
    """Store a secret; the value is read from standard input.

    Example: printf %s "$KEY" | integrations-mcp secrets set /gw/acme/shared/clinic_key --origin https://api.clinic.example
    """
    from server.app import open_app

    settings = settings_of(home, database, workspace)
    issues = [Issue(("path",), fault)] if (fault := path_fault(path)) else []
    for url in origin or []:
        if fault := base_url_fault(url):
            issues.append(Issue(("origin",), f"{url}: {fault}"))
    shared = is_under(path, f"/{settings.secret_prefix}/{settings.workspace}/shared")
    if shared and not origin:
        issues.append(Issue(("origin",), "a shared secret needs at least one --origin: where it may go"))
    if issues:
        raise InvalidRequest(issues)
    value = read_stdin_secret()
    if fault := value_fault(value):
        raise InvalidRequest([Issue(("value",), fault)])

    async def run() -> None:
        async with open_app(settings) as running:
            now = datetime.now(UTC)
            before = await running.registry.secret_record(path)
            old = await running.secrets.versions(path)
            await running.registry.put_secret_record(
                SecretRecord(
                    path,
                    settings.workspace,
                    tuple(sorted({origin_of(u) for u in origin})) if origin else (before.origins if before else ()),
                    before.created_at if before else now,
                    now,
                )
            )
            await running.secrets.write(path, value)
            await running.secrets.remove(path, old)

    in_loop(run)
    typer.echo(f"stored {path}", err=True)


@app.command("list")
def list_secrets(
    workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """List the paths of stored secrets of the workspace (never values)."""
    from server.app import open_app

    settings = settings_of(home, database, workspace)

    async def run() -> list[SecretRecord]:
        async with open_app(settings) as running:
            return await running.registry.secret_records(settings.workspace)

    rows = [{"path": r.path, "origins": list(r.origins), "updated_at": r.updated_at.isoformat()} for r in in_loop(run)]
    if as_json:
        print_json(rows)
        return
    from server.cli.tables import print_table

    print_table(["path", "may go to", "updated"], [[r["path"], ", ".join(r["origins"]), r["updated_at"]] for r in rows])


@app.command("rm")
def remove_secret(path: PATH, workspace: Workspace = None, database: Database = None, home: Home = None) -> None:
    """Remove a stored secret. Integrations that name it fail from then on."""
    from server.app import open_app
    from tools.errors import NotFound

    settings = settings_of(home, database, workspace)

    async def run() -> int:
        async with open_app(settings) as running:
            record = await running.registry.secret_record(path)
            if record is None or record.workspace != settings.workspace:
                raise NotFound(f"no secret is stored under {path} in workspace {settings.workspace}")
            users = await running.registry.secret_users(path)
            await running.secrets.remove(path, await running.secrets.versions(path))
            await running.registry.delete_secret_record(path)
            return len(users)

    users = in_loop(run)
    typer.echo(f"removed {path}" + (f"; {users} integration(s) still name it" if users else ""), err=True)
