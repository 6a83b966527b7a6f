"""The commands' root: what is common to all of them, and how failures become exit codes (0 done, 1 failed, 2 wrong usage)."""

import sys

import typer

from server.cli import auth, calling, demo, keys, loading, secrets, serving
from server.settings import SettingsError
from tools.errors import GatewayError, InvalidRequest

app = typer.Typer(
    name="integrations-mcp",
    help="An MCP gateway: describe a REST system once, and its endpoints are tools that agents call. Begin with `integrations-mcp demo`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("serve")(serving.serve_command)
app.command("stdio")(serving.stdio_command)
app.command("demo")(demo.demo_command)
app.add_typer(keys.app, name="keys")
app.add_typer(secrets.app, name="secrets")
app.add_typer(auth.app, name="auth")
app.command("call")(calling.call_command)
app.command("tools")(calling.tools_command)
app.command("load")(loading.load_command)
app.command("version")(serving.version_command)


def run() -> None:
    """Runs the command line; every expected failure is a sentence on stderr, never a traceback."""
    try:
        app()
    except SettingsError as e:
        fail(str(e), 2)
    except InvalidRequest as e:
        lines = [f"{'.'.join(str(p) for p in i.loc if p != 'body')}: {i.msg}" for i in e.issues]
        fail("\n".join(lines), 1)
    except GatewayError as e:
        fail(e.message, 1)
    except (OSError, ValueError) as e:
        fail(str(e), 1)
    except KeyboardInterrupt:
        sys.exit(130)


def fail(text: str, code: int) -> None:
    print(f"integrations-mcp: {text}", file=sys.stderr)
    sys.exit(code)
