"""calls list|show|cancel: background calls of queue endpoints, for the operator with the registry at hand."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, settings_of
from server.settings import Settings
from tools.errors import NotFound

if TYPE_CHECKING:  # imported where it is used: the command line starts without the database
    from server.store.background import SqlCallQueue
    from tools.background import BackgroundCall

app = typer.Typer(help="Background calls: list, show, cancel.", no_args_is_help=True)
_T = TypeVar("_T")
CallId = Annotated[str, typer.Argument(help="The call's id, c_...")]


@app.command("list")
def list_calls(
    state: Annotated[
        list[str] | None, typer.Option(help="Only accepted, running, done, failed or cancelled ones; repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List background calls, newest first; done ones are kept 24 hours."""
    settings = settings_of(home, database, workspace)
    from tools.background import STATES, State

    states = tuple[State, ...](s for s in STATES if s in (state or ()))
    for wrong in set(state or ()) - set(states):
        raise typer.BadParameter(f"{wrong!r} is not a state: {', '.join(STATES)}", param_hint="--state")
    rows = [shown(c) for c in _with_queue(settings, lambda q: q.newest(settings.workspace, states, limit))]
    if as_json:
        print_json(rows)
        return
    from server.cli.tables import print_table

    columns = ["call_id", "tool", "caller", "state", "attempts", "accepted_at", "error_code"]
    print_table(
        ["call", "tool", "caller", "state", "attempts", "accepted", "error"],
        [["" if r[c] is None else r[c] for c in columns] for r in rows],
    )


@app.command("show")
def show(
    call_id: CallId, workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Show one call: whose it is, how far it is, how it ended. Not its arguments or its answer: they are its caller's."""
    settings = settings_of(home, database, workspace)
    call = _with_queue(settings, lambda q: q.find(settings.workspace, call_id))
    if call is None:
        raise _absent(call_id)
    row = shown(call)
    if as_json:
        print_json(row)
        return
    for name, value in row.items():
        typer.echo(f"{name:<12} {'' if value is None else value}".rstrip())


@app.command("cancel")
def cancel(call_id: CallId, workspace: Workspace = None, database: Database = None, home: Home = None) -> None:
    """End a call that waits or runs. One that runs is cut off: what its request did upstream isn't undone."""
    settings = settings_of(home, database, workspace)

    async def run(queue: "SqlCallQueue") -> "tuple[bool, BackgroundCall | None]":
        done = await queue.cancel(settings.workspace, call_id, datetime.now(UTC))
        return done, await queue.find(settings.workspace, call_id)

    done, call = _with_queue(settings, run)
    if call is None:
        raise _absent(call_id)
    if not done:
        typer.echo(f"{call_id} has ended already: {call.state}", err=True)
        raise typer.Exit(1)
    after = "; it was running and may have been carried out" if call.attempts else "; it had not begun"
    typer.echo(f"cancelled {call_id}{after}", err=True)


def shown(call: "BackgroundCall") -> dict[str, Any]:
    """A call's row for people and programs."""
    return {
        "call_id": call.id,
        "tool": call.tool,
        "caller": call.caller.id,
        "request_id": call.request_id or None,
        "state": call.state,
        "attempts": call.attempts,
        "progress": call.progress,
        "error_code": call.error_code,
        "accepted_at": _iso(call.accepted_at),
        "started_at": _iso(call.started_at),
        "ended_at": _iso(call.ended_at),
        "expires_at": _iso(call.expires_at),
    }


def _with_queue(settings: Settings, act: "Callable[[SqlCallQueue], Awaitable[_T]]") -> _T:
    from server.secret_stores.opening import open_keyring
    from server.store.background import SqlCallQueue
    from server.store.database import open_database

    async def run() -> _T:
        ring = open_keyring(settings)
        async with open_database(settings.registry_url) as database:
            return await act(SqlCallQueue(database, ring))

    return in_loop(run)


def _absent(call_id: str) -> NotFound:
    return NotFound(f"There is no background call {call_id[:64]} in this workspace.")


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")
