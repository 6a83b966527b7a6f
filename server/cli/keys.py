"""keys create|list|revoke|rotate: API keys, made by the operator with the registry at hand, as the local owner."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, settings_of

if TYPE_CHECKING:
    from tools.callers import Caller
    from tools.key_admin import IssuedKey, KeyAdmin
    from tools.registry import ApiKey

_T = TypeVar("_T")
_MOST = 10_000

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
    from tools.callers import ROLE_PERMISSIONS, Role

    known: Role | None = next((r for r in ROLE_PERMISSIONS if r == role), None)
    if known is None:
        raise typer.BadParameter(f"{role!r} is not a role: {', '.join(ROLE_PERMISSIONS)}", param_hint="--role")

    async def run(admin: "KeyAdmin", caller: "Caller") -> "IssuedKey":
        return await admin.create(caller, days=days, name=name, role=known, integrations=integration, tools=tool)

    made = _new(_with_keys(run, workspace, database, home))
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

    async def run(admin: "KeyAdmin", caller: "Caller") -> "list[ApiKey]":
        return (await admin.page(caller, _MOST, 0))[0]

    rows = [_shown(key) for key in _with_keys(run, workspace, database, home)]
    if as_json:
        print_json(rows)
        return
    from server.cli.tables import print_table

    print_table(
        ["key", "name", "role", "expires", "last used"],
        [[r["key_id"], r["name"], r["role"], r["expires_at"] or "never", r["last_used_at"] or "never"] for r in rows],
    )


@app.command("revoke")
def revoke(
    key_id: str, workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """End a key: at once here, within a second in running servers."""

    async def run(admin: "KeyAdmin", caller: "Caller") -> None:
        await admin.revoke(caller, key_id)

    _with_keys(run, workspace, database, home)
    if as_json:
        print_json({"revoked": key_id})
    else:
        typer.echo(f"revoked {key_id}", err=True)


@app.command("rotate")
def rotate(
    key_id: str, workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Make a new key with the rights of an old one, which ends in the same moment."""

    async def run(admin: "KeyAdmin", caller: "Caller") -> "IssuedKey":
        return await admin.rotate(caller, key_id)

    made = _new(_with_keys(run, workspace, database, home))
    if as_json:
        print_json(made)
    else:
        typer.echo(made["api_key"])


def _with_keys(
    run: "Callable[[KeyAdmin, Caller], Awaitable[_T]]",
    workspace: str | None,
    database: str | None,
    home: Path | None,
) -> _T:
    """`run(admin, caller)` on the registry, as the local owner."""
    from server.app import open_app
    from tools.callers import local_caller

    settings = settings_of(home, database, workspace)

    async def main() -> _T:
        async with open_app(settings) as running:
            return await run(running.key_admin, local_caller(settings.workspace))

    return in_loop(main)


def _new(made: "IssuedKey") -> dict[str, Any]:
    return {"api_key": made.api_key, **_shown(made.row)}


def _shown(key: "ApiKey") -> dict[str, Any]:
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
