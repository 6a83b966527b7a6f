"""Options that several commands share, and how their settings are read."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from server.settings import Settings, read_settings

_T = TypeVar("_T")

Database = Annotated[
    str | None,
    typer.Option(help="Registry: sqlite:///PATH or postgresql://...  Default: registry.db in the home folder."),
]
Workspace = Annotated[str | None, typer.Option(help="The workspace (tenant). Default: default.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout and nothing else.")]
Home = Annotated[
    Path | None, typer.Option(help="Folder of the registry and the key file. Default: ~/.integrations-mcp.")
]


def settings_of(
    home: Path | None = None,
    database: str | None = None,
    workspace: str | None = None,
    *,
    serves: bool = False,
    **flags: Any,
) -> Settings:
    """Flags over the environment over the defaults; logs go to stderr from here on.

    A command that prints what it did, and doesn't serve others, logs warnings only, unless the operator chose a level.
    """
    from server.telemetry import set_up_logs

    if database is not None and "://" not in database:
        database = f"sqlite:///{Path(database).absolute()}"
    settings = read_settings(home=home, database_url=database, workspace=workspace, **flags)
    set_up_logs(settings.log_level if serves or "log_level" in settings.model_fields_set else "warning")
    return settings


def in_loop(run: Callable[[], Awaitable[_T]]) -> _T:
    """Runs one coroutine in a new event loop."""

    async def main() -> _T:
        return await run()

    return asyncio.run(main())


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def read_stdin_secret(prompt: str = "Value (not shown): ") -> str:
    """A secret from standard input; one line break at its end isn't part of it. On a terminal it isn't echoed."""
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass(prompt)
    text = sys.stdin.read()
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
