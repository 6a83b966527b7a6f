"""doctor: what is wrong when a host doesn't see the tools."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, settings_of

if TYPE_CHECKING:
    from server.finding import Finding

_MARKS = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}


def doctor_command(
    workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Look at settings, files, disk, the way out, registry, clocks, identity providers, keys, secrets, DNS, tools, integrations and this machine's hosts; say what to do.

    Exit code 1 when something is wrong.
    """
    settings = settings_of(home, database, workspace)

    async def run() -> "list[Finding]":
        from server.checkup import check_up

        found: list[Finding] = []
        async for finding in check_up(settings, Path.home(), Path.cwd()):
            found.append(finding)
            if not as_json:
                typer.echo(f"{_MARKS[finding.verdict]} {finding.what}: {finding.said}")
                if finding.do:
                    typer.echo(f"        -> {finding.do}")
        return found

    found = in_loop(run)
    wrong = any(f.verdict == "wrong" for f in found)
    if as_json:
        print_json({"ok": not wrong, "findings": [{"what": f.what, **asdict(f)} for f in found]})
    raise typer.Exit(1 if wrong else 0)
