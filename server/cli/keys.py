"""keys create|list|revoke|rotate: API keys, made by the operator with the registry at hand."""

from datetime import datetime
from typing import Annotated, Any

import typer

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, settings_of
from tools.registry import ApiKey

app = typer.Typer(help="API keys: create, list, revoke, rotate.", no_args_is_help=True)


@app.command("create")
def create(
    workspace: Workspace = None,
    role: Annotated[str, typer.Option(help="owner, admin, member, operator, viewer or agent.")] = "member",
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="Days until it expires. Default: never.")] = None,
    integration: Annotated[
        list[str] | None, typer.Option(help="Only this integration (name or id); repeatable.")
    ] = None,
    tool: Annotated[list[str] | None, typer.Option(help="Only this tool; repeatable.")] = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key. It is shown once. The workspace is made if it isn't there."""
    from server.auth import Keys
    from server.store.database import open_database
    from server.store.keys import SqlKeyStore
    from server.store.registry import SqlRegistry
    from tools.callers import ROLE_PERMISSIONS, Role

    settings = settings_of(home, database, workspace)
    known: Role | None = next((r for r in ROLE_PERMISSIONS if r == role), None)
    if known is None:
        raise typer.BadParameter(f"{role!r} is not a role: {', '.join(ROLE_PERMISSIONS)}", param_hint="--role")

    async def run() -> dict[str, Any]:
        async with open_database(settings.registry_url) as db:
            registry = SqlRegistry(db)
            ws = await registry.ensure_workspace(settings.workspace)
            ids = [(await registry.get(ws, ref)).id for ref in integration] if integration else None
            made = await Keys(SqlKeyStore(db)).create(
                ws, role=known, name=name, days=days, integrations=ids, tools=tool
            )
        return {"api_key": made.api_key, **shown(made.row)}

    made = in_loop(run)
    if as_json:
        print_json(made)
        return
    typer.echo(f"{made['api_key']}")
    typer.echo(
        f"key {made['key_id']} for workspace {made['workspace']}, role {made['role']}: shown only now.", err=True
    )


@app.command("list")
def list_keys(
    workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """List the workspace's keys (never the keys themselves)."""
    from server.store.database import open_database
    from server.store.keys import SqlKeyStore

    settings = settings_of(home, database, workspace)

    async def run() -> list[ApiKey]:
        async with open_database(settings.registry_url) as db:
            return (await SqlKeyStore(db).keys(settings.workspace, 10_000, 0))[0]

    rows = [shown(key) for key in in_loop(run)]
    if as_json:
        print_json(rows)
        return
    from server.cli.tables import print_table

    print_table(
        ["key", "name", "role", "expires", "last used"],
        [[r["key_id"], r["name"], r["role"], r["expires_at"] or "never", r["last_used_at"] or "never"] for r in rows],
    )


@app.command("revoke")
def revoke(key_id: str, workspace: Workspace = None, database: Database = None, home: Home = None) -> None:
    """End a key: at once here, within a second in running servers."""
    from server.store.database import open_database
    from server.store.keys import SqlKeyStore

    settings = settings_of(home, database, workspace)

    async def run() -> None:
        async with open_database(settings.registry_url) as db:
            await SqlKeyStore(db).delete_key(settings.workspace, key_id)

    in_loop(run)
    typer.echo(f"revoked {key_id}", err=True)


@app.command("rotate")
def rotate(
    key_id: str, workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Make a new key with the rights of an old one, which ends in the same moment."""
    from server.auth import Keys
    from server.store.database import open_database
    from server.store.keys import SqlKeyStore

    settings = settings_of(home, database, workspace)

    async def run() -> dict[str, Any]:
        async with open_database(settings.registry_url) as db:
            made = await Keys(SqlKeyStore(db)).rotate(settings.workspace, key_id)
        return {"api_key": made.api_key, **shown(made.row)}

    made = in_loop(run)
    if as_json:
        print_json(made)
    else:
        typer.echo(made["api_key"])


def shown(key: ApiKey) -> dict[str, Any]:
    """A key's row for people and programs; never the key."""
    return {
        "key_id": key.id,
        "workspace": key.workspace,
        "name": key.name,
        "role": key.role,
        "permissions": sorted(key.permissions),
        "integrations": None if key.integrations is None else sorted(key.integrations),
        "tools": None if key.tools is None else sorted(key.tools),
        "created_at": _iso(key.created_at),
        "expires_at": _iso(key.expires_at),
        "last_used_at": _iso(key.last_used_at),
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
