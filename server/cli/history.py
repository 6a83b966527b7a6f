"""history calls|audit: what was called and what was changed, newest first, as the local owner."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, settings_of

if TYPE_CHECKING:
    from tools.admin import Admin
    from tools.callers import Caller

_T = TypeVar("_T")
app = typer.Typer(help="What happened: calls, and changes of what is managed.", no_args_is_help=True)
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many.")]
Before = Annotated[
    int | None, typer.Option("--continue", min=1, help="For older ones: the continuation_token that --json gave.")
]


@app.command("calls")
def calls_command(
    tool: Annotated[str | None, typer.Option(help="Only calls of this tool.")] = None,
    integration: Annotated[str | None, typer.Option(help="Only calls of this integration (name or id).")] = None,
    failed: Annotated[
        bool | None, typer.Option("--failed/--ok", help="Only those that ended so. Default: all.")
    ] = None,
    request: Annotated[str | None, typer.Option(help="Only calls of the request with this x-request-id.")] = None,
    limit: Limit = 20,
    before: Before = None,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Which tools were called, by whom and how it ended. With --json: a page as REST answers it.

    Example: integrations-mcp history calls --failed
    """
    from server.rest.history import call_page
    from tools.history import CallQuery

    async def run(admin: "Admin", caller: "Caller") -> Any:
        only = None if integration is None else (await admin.get(caller, integration)).id
        return call_page(await admin.calls(caller, CallQuery(limit + 1, before, tool, only, failed, request)), limit)

    page = _with_admin(run, workspace, database, home)
    if as_json:
        print_json(page.model_dump(mode="json"))
        return
    from server.cli.tables import print_table

    rows = [
        [
            f"{c.at:%Y-%m-%d %H:%M:%S}",
            c.tool,
            c.caller,
            c.error_code or "ok",
            c.status_code or "",
            f"{c.duration_ms:.0f} ms",
            c.attempts,
        ]
        for c in page.items
    ]
    print_table(["when (UTC)", "tool", "caller", "ended", "status", "took", "attempts"], rows)


@app.command("audit")
def audit_command(
    integration: Annotated[str | None, typer.Option(help="Only changes of this integration (name or id).")] = None,
    target: Annotated[str | None, typer.Option(help="Only changes of this id or secret path.")] = None,
    limit: Limit = 20,
    before: Before = None,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Who changed what; the values before and after, without secrets, with --json: a page as REST answers it."""
    from server.rest.history import audit_page

    if integration is not None and target is not None:
        raise typer.BadParameter("give either --integration or --target", param_hint="--target")

    async def run(admin: "Admin", caller: "Caller") -> Any:
        only = target if integration is None else (await admin.get(caller, integration)).id
        return audit_page(await admin.audit(caller, limit=limit + 1, before=before, target=only), limit)

    page = _with_admin(run, workspace, database, home)
    if as_json:
        print_json(page.model_dump(mode="json"))
        return
    from server.cli.tables import print_table

    rows = [
        [f"{c.at:%Y-%m-%d %H:%M:%S}", c.action, c.name, c.caller, ", ".join(r["at"] or "all of it" for r in c.changes)]
        for c in page.items
    ]
    print_table(["when (UTC)", "action", "name", "caller", "changed"], rows)


def _with_admin(
    run: "Callable[[Admin, Caller], Awaitable[_T]]", workspace: str | None, database: str | None, home: Path | None
) -> _T:
    """`run(admin, caller)` on the registry, as the local owner."""
    from server.app import open_app
    from tools.callers import local_caller

    settings = settings_of(home, database, workspace)

    async def main() -> _T:
        async with open_app(settings) as running:
            return await run(running.admin, local_caller(settings.workspace))

    return in_loop(main)
