"""auth generate-key|rotate-key|keys|jwks|explain|discovery: how an integration signs, and what is wrong where it can't."""

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, settings_of
from server.settings import Settings
from tools.auth_admin import AuthAdmin
from tools.callers import Caller, local_caller

_T = TypeVar("_T")

app = typer.Typer(help="Signing keys, their JWKS, and why a credential doesn't work.", no_args_is_help=True)
Ref = Annotated[str, typer.Argument(help="Name or id of the integration.")]
Alg = Annotated[
    str | None,
    typer.Option(help="RS256, RS384, ES256 or ES384. Default: the old key's, else what the auth type takes."),
]
Hold = Annotated[
    bool,
    typer.Option("--hold", help="Publish it, but don't sign with it before it is confirmed (rotate-key --confirm)."),
]


def _run(settings: Settings, work: Callable[[AuthAdmin, Caller], Awaitable[_T]]) -> _T:
    from server.app import open_app

    async def main() -> _T:
        async with open_app(settings) as running:
            return await work(running.auth_admin, local_caller(settings.workspace))

    return in_loop(main)


@app.command("generate-key")
def generate_key(
    integration: Ref,
    alg: Alg = None,
    hold: Hold = False,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a signing key in the secret store; its private part is never shown.

    The first one signs at once. A further one is published first, and signs after 10 minutes.
    """
    settings = settings_of(home, database, workspace)
    _show(_run(settings, lambda admin, me: admin.generate_key(me, integration, alg, hold=hold)), as_json)


@app.command("rotate-key")
def rotate_key(
    integration: Ref,
    alg: Alg = None,
    hold: Hold = False,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="The other side has the held key: let it sign when its time has come.")
    ] = False,
    compromised: Annotated[
        bool, typer.Option("--compromised", help="The old key is unpublished and the new one signs, both at once.")
    ] = False,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Begin a rotation (next, active, retiring, gone); a running server takes its steps by time."""
    if confirm and (alg or hold or compromised):
        raise typer.BadParameter("--confirm goes alone", param_hint="--confirm")
    settings = settings_of(home, database, workspace)

    async def work(admin: AuthAdmin, me: Caller) -> dict[str, Any]:
        if confirm:
            return await admin.confirm_key(me, integration)
        return await admin.generate_key(me, integration, alg, hold=hold, compromised=compromised)

    _show(_run(settings, work), as_json)


@app.command("keys")
def keys(
    integration: Ref, workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """List the signing keys with their states, and the URL of the JWKS."""
    settings = settings_of(home, database, workspace)
    _show(_run(settings, lambda admin, me: admin.keys(me, integration)), as_json)


@app.command("jwks")
def jwks(integration: Ref, workspace: Workspace = None, database: Database = None, home: Home = None) -> None:
    """Print the JWKS, the same bytes as the published one, for a server where it is uploaded by hand."""
    settings = settings_of(home, database, workspace)
    sys.stdout.buffer.write(_run(settings, lambda admin, me: admin.jwks(me, integration)))
    sys.stdout.flush()


@app.command("explain")
def explain(
    integration: Ref, workspace: Workspace = None, database: Database = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Get a credential once and show the way to it; exit code 1 where it fails, with what to change."""
    settings = settings_of(home, database, workspace)
    way = _run(settings, lambda admin, me: admin.explain(me, integration))
    if as_json:
        print_json(way)
    else:
        _print_way(way)
    raise typer.Exit(0 if way["ok"] else 1)


@app.command("discovery")
def discovery(
    integration: Ref,
    confirm: Annotated[
        str | None, typer.Option(metavar="URL", help="Take this token endpoint, which the server names now.")
    ] = None,
    workspace: Workspace = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show the token endpoint that a FHIR server names, or confirm it after a change (discovery_changed)."""
    settings = settings_of(home, database, workspace)
    found = _run(settings, lambda admin, me: admin.discovery(me, integration, confirm))
    if as_json:
        print_json(found)
        return
    typer.echo(found["token_endpoint"])
    if not found["confirmed"]:
        typer.echo(f"to take it: auth discovery {integration} --confirm {found['token_endpoint']}", err=True)


def _show(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    from server.cli.tables import print_table

    rows = [
        [
            k["kid"],
            k["alg"],
            k["state"],
            k["since"][:16],
            "confirmed" if k["waits_for_confirmation"] else (k["until"] or "")[:16],
        ]
        for k in told["keys"]
    ]
    print_table(["kid", "alg", "state", "since", "until"], rows)
    typer.echo(f"JWKS: {told['jwks_url']}", err=True)
    if told["jwks_url"].startswith("/"):
        typer.echo("set INTEGRATIONS_MCP_PUBLIC_URL for the whole URL", err=True)


def _print_way(way: dict[str, Any]) -> None:
    for name, value in way.items():
        if name in ("ok", "failed"):
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        typer.echo(f"  {name:<20} {text}")
    failed = way.get("failed")
    if failed is None:
        typer.echo("ok: there is a credential")
        return
    typer.echo(f"failed [{failed['code']}]: {failed['reason']}")
    if said := failed.get("said"):
        typer.echo(f"the server says: {said}")
    if change := failed.get("change"):
        typer.echo(f"what to change: {change}")
