"""backup and restore: the whole registry as one file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.options import AsJson, Database, Home, in_loop, print_json, read_stdin_secret, settings_of

if TYPE_CHECKING:
    from server.backup import Report

_PROMPT = "Passphrase of the key (not shown): "


def backup_command(
    file: Annotated[Path, typer.Argument(help="The new file.")],
    with_key: Annotated[
        bool,
        typer.Option(
            "--with-key", help="The key that secrets are encrypted with, too, under a passphrase from standard input."
        ),
    ] = False,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write the registry and its encrypted secrets into one file, while servers run. It restores to SQLite and PostgreSQL."""
    settings = settings_of(home, database)
    from server.backup import backup

    passphrase = _new_passphrase() if with_key else None
    report = in_loop(lambda: backup(settings, file, passphrase))
    if as_json:
        print_json({"file": str(file), **report.as_json()})
        return
    typer.echo(f"{file}: {_counted(report)}, schema {report.schema}, {file.stat().st_size:,} bytes", err=True)
    if report.store != "local":
        typer.echo(
            f"secrets are in the store {report.store}: only references to them are in the file. Back that store up, too",
            err=True,
        )
    elif report.key_ids and not report.key:
        where = "INTEGRATIONS_MCP_SECRET_KEY" if settings.secret_key else str(settings.home / "secret.key")
        typer.echo(f"the key isn't in it: without {where} its secrets can't be read. Keep that apart", err=True)


def restore_command(
    file: Annotated[Path, typer.Argument(help="A file that backup has written.")],
    replace: Annotated[bool, typer.Option("--replace", help="Remove what is in the registry.")] = False,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make the registry what a backup holds: whole, or nothing is changed. Stop the servers that use it.

    If the key is in the backup and not here, its passphrase is read from standard input and the key file is made.
    """
    settings = settings_of(home, database)
    from server.backup import restore

    report = in_loop(lambda: restore(settings, file, lambda: read_stdin_secret(_PROMPT), replace=replace))
    if as_json:
        print_json({"file": str(file), **report.as_json()})
        return
    typer.echo(f"restored {_counted(report)}, as of {report.made_at}", err=True)
    if report.old_key:
        typer.echo(f"the key that was here before is {settings.home / 'secret.key.replaced'}", err=True)
    if report.ended_calls:
        typer.echo(
            f"{report.ended_calls} background call(s) hadn't ended then: they may have been carried out since, so they are "
            "ended and not sent",
            err=True,
        )
    if report.store != "local":
        typer.echo(
            f"secrets are in the store {report.store}: set INTEGRATIONS_MCP_SECRET_STORE={report.store}", err=True
        )
    elif report.key_ids and not report.key:
        typer.echo(
            f"warning: the key of its secrets isn't here. Put it into {settings.home / 'secret.key'} (or set "
            "INTEGRATIONS_MCP_SECRET_KEY) before you start",
            err=True,
        )


def _new_passphrase() -> str:
    given = read_stdin_secret(_PROMPT)
    if sys.stdin.isatty() and read_stdin_secret("Once more: ") != given:
        raise typer.BadParameter("the two passphrases differ")
    return given


def _counted(report: "Report") -> str:
    rows = report.rows
    return (
        f"{rows['integrations']} integration(s), {rows['secret_values']} secret value(s), {rows['api_keys']} key(s), "
        f"{sum(rows.values()):,} rows in all"
    )
