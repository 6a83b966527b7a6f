"""serve, stdio, version."""

import os
from pathlib import Path
from typing import Annotated

import typer

from server.cli.options import AsJson, Database, Home, Workspace, in_loop, print_json, settings_of
from server.cli.starting import imports

Config = Annotated[
    Path | None,
    typer.Option(help="A file or folder that is the registry: loaded, watched, and loaded again when it changes."),
]


def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one and prints it. Default: 8080.")] = None,
    workers: Annotated[int | None, typer.Option(help="Server processes. Default: 1.")] = None,
    config: Config = None,
    database: Database = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Serve agents and operators over HTTP: /mcp (Streamable HTTP), /sse, /v1 (REST), /healthz, /readyz.

    Make a key first: integrations-mcp keys create --workspace acme --role owner
    """
    with imports():
        from server.listening import bind
        from server.serving import say, serve

    settings = settings_of(home, database, serves=True, host=host, port=port, workers=workers, config=config)
    sock = bind(settings.host, settings.port)
    bound = sock.getsockname()
    settings = settings.model_copy(update={"port": bound[1]})
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    url = f"http://{shown}:{bound[1]}"
    if settings.host not in ("127.0.0.1", "::1", "localhost") and not settings.public_url.startswith("https://"):
        say(
            "warning: keys and data cross the network in clear here; put TLS in front and set INTEGRATIONS_MCP_PUBLIC_URL to its https URL"
        )

    def ready() -> None:
        say(f"listening on {url} (MCP: {url}/mcp, legacy SSE: {url}/sse, REST: {url}/v1, ready: {url}/readyz)")
        if as_json:
            print_json({"url": url, "mcp_url": f"{url}/mcp", "sse_url": f"{url}/sse", "rest_url": f"{url}/v1"})

    if settings.workers > 1:
        for name, value in (
            ("HOME", str(settings.home)),
            ("DATABASE_URL", settings.registry_url),
            ("HOST", settings.host),
            ("PORT", str(settings.port)),
            ("WORKERS", str(settings.workers)),
            ("CONFIG", str(settings.config.absolute()) if settings.config else ""),
        ):
            os.environ[f"INTEGRATIONS_MCP_{name}"] = value
    raise typer.Exit(serve(settings, sock, ready))


def stdio_command(
    workspace: Workspace = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="No management tool that changes anything.")] = False,
    no_admin: Annotated[bool, typer.Option("--no-admin", help="Only the endpoints' tools.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="The demo clinic, in a registry of its own.")] = False,
    config: Config = None,
    database: Database = None,
    home: Home = None,
) -> None:
    """Serve one client over stdin and stdout, as desktop assistants start it. The local user is the owner."""
    with imports():
        from server.app import open_app
        from server.stdio import serve_stdio
        from tools.callers import local_caller

    settings = settings_of(home, database, workspace, serves=True, config=config)

    async def run() -> None:
        if demo:
            from server.demo.running import running_demo

            async with running_demo(settings) as (app, _):
                await serve_stdio(app, local_caller(app.settings.workspace, read_only=read_only, admin=not no_admin))
            return
        async with open_app(settings, background=True) as app:
            await serve_stdio(app, local_caller(settings.workspace, read_only=read_only, admin=not no_admin))

    in_loop(run)


def version_command(as_json: AsJson = False) -> None:
    """Show the version."""
    from server.version import VERSION

    if as_json:
        print_json({"version": VERSION})
    else:
        typer.echo(VERSION)
