"""approvals list|show|approve|deny: calls that wait for a person, decided at the gateway's own machine."""

import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, settings_of
from tools.approval_admin import ApprovalAdmin
from tools.approvals import Approval
from tools.callers import Caller

_T = TypeVar("_T")
app = typer.Typer(help="Calls that wait for a person: see them, approve or deny them.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="Like a_0123456789abcdef, as the refused call and `approvals list` name it.")]


@app.command("list")
def list_approvals(
    workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """List what waits, newest first; also what was approved and not called again yet, and what was denied."""
    found = _run(workspace, database, home, lambda admin, caller: admin.list(caller))
    if as_json:
        print_json([_shown(a) for a in found])
        return
    from server.cli.tables import print_table

    rows = [[a.id, a.state, a.tool, a.caller, f"{a.method} {a.url}", _left(a)] for a in found]
    print_table(["approval", "state", "tool", "asked by", "request", "minutes left"], rows)


@app.command("show")
def show(
    approval: Id, workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Show the whole request of one, secrets masked."""
    found = _run(workspace, database, home, lambda admin, caller: admin.get(caller, approval))
    if as_json:
        print_json(_shown(found))
        return
    typer.echo(_text(found))


@app.command("approve")
def approve(
    approval: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show the request and let exactly this call through, once.

    Example: integrations-mcp approvals approve a_0123456789abcdef
    """
    found = _run(workspace, database, home, lambda admin, caller: admin.get(caller, approval))
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise typer.BadParameter("nobody is there to ask: say --yes", param_hint="--yes")
        typer.echo(_text(found), err=True)
        typer.confirm("Approve this call?", abort=True, err=True)
    done = _run(workspace, database, home, lambda admin, caller: admin.approve(caller, approval))
    if as_json:
        print_json(_shown(done))
    else:
        typer.echo(f"approved {done.id}: the same call goes through once, within {_left(done)} minutes", err=True)


@app.command("deny")
def deny(
    approval: Id, workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Refuse this call, until the approval would have expired."""
    done = _run(workspace, database, home, lambda admin, caller: admin.deny(caller, approval))
    if as_json:
        print_json(_shown(done))
    else:
        typer.echo(f"denied {done.id}", err=True)


def _run(
    workspace: str | None,
    database: str | None,
    home: Any,
    work: Callable[[ApprovalAdmin, Caller], Awaitable[_T]],
) -> _T:
    """As the local user of the workspace."""
    from server.app import open_app
    from tools.callers import local_caller

    settings = settings_of(home, database, workspace)

    async def run() -> _T:
        async with open_app(settings) as running:
            return await work(running.approval_admin, local_caller(settings.workspace))

    return in_loop(run)


def _text(a: Approval) -> str:
    head = f"{a.id} ({a.state}, {_left(a)} minutes left): {a.tool}, asked for by {a.caller_kind} {a.caller}"
    return f"{head}\n\n{a.request_text()}\n"


def _left(a: Approval) -> int:
    return max(0, round((a.expires_at - datetime.now(UTC)).total_seconds() / 60))


def _shown(a: Approval) -> dict[str, Any]:
    return {
        "id": a.id,
        "state": a.state,
        "tool": a.tool,
        "integration": a.integration,
        "integration_version": a.integration_version,
        "caller": a.caller,
        "caller_kind": a.caller_kind,
        "method": a.method,
        "url": a.url,
        "headers": list(a.headers),
        "body": a.body,
        "created_at": a.created_at.isoformat(),
        "expires_at": a.expires_at.isoformat(),
    }
