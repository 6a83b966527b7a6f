"""The commands' root: what is common to all of them, and how failures become exit codes (0 done, 1 failed, 2 wrong usage)."""

import sys
from typing import Any

import typer

from server.cli import auth, calling, config, connect, demo, doctor, integrations, keys, lint, loading, secrets, serving
from server.cli.options import print_json
from server.config_file import ConfigError
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
app.add_typer(lint.app, name="tools")
app.add_typer(integrations.app, name="integrations")
app.command("load")(loading.load_command)
app.command("apply")(config.apply_command)
app.command("diff")(config.diff_command)
app.command("export")(config.export_command)
app.command("check")(config.check_command)
app.command("connect")(connect.connect_command)
app.command("doctor")(doctor.doctor_command)
app.command("version")(serving.version_command)


def run() -> None:
    """Runs the command line; every expected failure is a sentence on stderr, never a traceback.

    With --json it is also told on stdout, as REST tells it: `detail` and `error_code`.
    """
    try:
        app()
    except SettingsError as e:
        fail(f"integrations-mcp: {e}", 2)
    except ConfigError as e:
        rows = [{"file": f.file, "line": f.line, "loc": f.loc, "msg": f.message, "type": f.type} for f in e.faults]
        fail(str(e), 1, {"detail": rows, "error_code": InvalidRequest.code})
    except InvalidRequest as e:
        lines = [f"{'.'.join(str(p) for p in i.loc if p != 'body')}: {i.msg}" for i in e.issues]
        rows = [{"loc": i.loc, "msg": i.msg, "type": i.type} for i in e.issues]
        fail("integrations-mcp: " + "\n".join(lines), 1, {"detail": rows, "error_code": e.code})
    except GatewayError as e:
        fail(f"integrations-mcp: {e.message} [{e.code}]", 1, {"detail": e.message, "error_code": e.code})
    except (OSError, ValueError) as e:
        fail(f"integrations-mcp: {e}", 1, {"detail": str(e), "error_code": "failed"})
    except KeyboardInterrupt:
        sys.exit(130)


def fail(text: str, code: int, told: dict[str, Any] | None = None) -> None:
    """Ends the process with `text` on stderr."""
    if told is not None and "--json" in sys.argv:
        print_json(told)
    print(text, file=sys.stderr)
    sys.exit(code)
