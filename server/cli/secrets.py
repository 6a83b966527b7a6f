"""secrets set|list|rm|rekey|move: values come from standard input and are never printed."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, read_stdin_secret, settings_of
from tools.errors import InvalidRequest, Issue

if TYPE_CHECKING:
    from tools.registry import SecretRecord

app = typer.Typer(help="Secrets that integrations name by path, and the store that they are in.", no_args_is_help=True)
PATH = Annotated[str, typer.Argument(help="Like /gw/acme/shared/clinic_key: 2 to 10 segments.")]
_MOST = 10_000


@app.command("set")
def set_secret(
    path: PATH,
    workspace: Workspace = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Where it may go, like https://api.example.com; repeatable. A new shared secret needs one."),
    ] = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Store a secret; the value is read from standard input.

    Example: printf %s "$KEY" | integrations-mcp secrets set /gw/acme/shared/clinic_key --origin https://api.clinic.example
    """
    from server.app import open_app
    from tools.callers import local_caller

    settings = settings_of(home, database, workspace)
    value = read_stdin_secret()

    async def run() -> "SecretRecord":
        async with open_app(settings) as running:
            return await running.secret_admin.put_at(local_caller(settings.workspace), path, value, origin or [])

    stored = in_loop(run)
    if as_json:
        print_json(_shown(stored))
    else:
        typer.echo(f"stored {path}", err=True)


@app.command("list")
def list_secrets(
    workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """List the paths of stored secrets of the workspace (never values)."""
    from server.app import open_app
    from tools.callers import local_caller

    settings = settings_of(home, database, workspace)

    async def run() -> "list[SecretRecord]":
        async with open_app(settings) as running:
            return (await running.secret_admin.page(local_caller(settings.workspace), _MOST, 0))[0]

    rows = [_shown(record) for record in in_loop(run)]
    if as_json:
        print_json(rows)
        return
    from server.cli.tables import print_table

    print_table(["path", "may go to", "updated"], [[r["path"], ", ".join(r["origins"]), r["updated_at"]] for r in rows])


@app.command("rm")
def remove_secret(
    path: PATH, workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Remove a stored secret. Integrations that name it fail from then on."""
    from server.app import open_app
    from tools.callers import local_caller

    settings = settings_of(home, database, workspace)

    async def run() -> int:
        async with open_app(settings) as running:
            return await running.secret_admin.delete_at(local_caller(settings.workspace), path)

    users = in_loop(run)
    if as_json:
        print_json({"removed": path, "still_named_by": users})
        return
    typer.echo(f"removed {path}" + (f"; {users} integration(s) still name it" if users else ""), err=True)


@app.command("rekey")
def rekey(database: Database = None, home: Home = None) -> None:
    """Encrypt everything in the local store with a new key: all or nothing. Cut off, it is finished by running it again.

    The key file is replaced; where INTEGRATIONS_MCP_SECRET_KEY gives the key, the new one is read from standard input.
    """
    from server.keyring import given
    from server.secret_stores.opening import open_keyring
    from server.secret_stores.rekeying import rekey_file, reseal
    from server.store.database import open_database

    settings = settings_of(home, database)
    new = given(read_stdin_secret()) if settings.secret_key else None

    async def run() -> int:
        async with open_database(settings.registry_url) as opened:
            if new is not None:
                return await reseal(opened, [open_keyring(settings)], new)
            return await rekey_file(opened, settings.home)

    count = in_loop(run)
    then = "set INTEGRATIONS_MCP_SECRET_KEY to the new key and restart" if new is not None else "restart"
    typer.echo(f"{count} value(s) are encrypted with the new key; {then} the running servers", err=True)


@app.command("move")
def move(
    to: Annotated[Literal["local", "ssm"], typer.Option(help="The store to move to.")],
    database: Database = None,
    home: Home = None,
) -> None:
    """Move every secret of all workspaces to another store, and every integration with it. Stop the servers meanwhile.

    From the store of INTEGRATIONS_MCP_SECRET_STORE. Cut off, it is finished by running it again.
    """
    from server.secret_stores.moving import Moved, Moving
    from server.secret_stores.opening import open_keyring, open_secret_store
    from server.store.database import open_database
    from server.store.registry import SqlRegistry

    settings = settings_of(home, database)
    if settings.secret_store == to:
        raise InvalidRequest([Issue(("to",), f"{to} is the store that is in use: name the other one")])

    async def run() -> Moved:
        async with open_database(settings.registry_url) as opened:
            ring = open_keyring(settings)
            source, closing = open_secret_store(settings, opened, ring)
            target, more = open_secret_store(settings.model_copy(update={"secret_store": to}), opened, ring)
            try:
                return await Moving(SqlRegistry(opened, settings.tool_name_max), source, target).run()
            finally:
                for close in (*closing, *more):
                    await close()

    moved = in_loop(run)
    typer.echo(f"{len(moved.paths)} secret(s) moved, {moved.integrations} integration(s) switched", err=True)
    for path in sorted(moved.missing):
        typer.echo(f"warning: nothing is stored under {path}, which an integration names", err=True)
    typer.echo(f"now set INTEGRATIONS_MCP_SECRET_STORE={to} and start the servers", err=True)


def _shown(record: "SecretRecord") -> dict[str, Any]:
    return {"path": record.path, "origins": list(record.origins), "updated_at": record.updated_at.isoformat()}
