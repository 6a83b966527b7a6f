"""The commands' root: what is common to all of them, and how failures become exit codes (0 done, 1 failed, 2 wrong usage)."""

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from server.cli.options import print_json
from server.cli.starting import imports
from server.settings import SettingsError
from tools.errors import GatewayError, InvalidRequest

# Each is imported when it is called for: what `stdio` doesn't need must not make every assistant wait.
_COMMANDS = {
    "serve": "server.cli.serving:serve_command",
    "stdio": "server.cli.serving:stdio_command",
    "demo": "server.cli.demo:demo_command",
    "keys": "server.cli.keys:app",
    "secrets": "server.cli.secrets:app",
    "auth": "server.cli.auth:app",
    "call": "server.cli.calling:call_command",
    "calls": "server.cli.calls:app",
    "approvals": "server.cli.approvals:app",
    "tools": "server.cli.lint:app",
    "integrations": "server.cli.integrations:app",
    "import": "server.cli.importing:app",
    "history": "server.cli.history:app",
    "load": "server.cli.loading:load_command",
    "apply": "server.cli.config:apply_command",
    "diff": "server.cli.config:diff_command",
    "export": "server.cli.config:export_command",
    "check": "server.cli.config:check_command",
    "backup": "server.cli.backup:backup_command",
    "restore": "server.cli.backup:restore_command",
    "connect": "server.cli.connect:connect_command",
    "doctor": "server.cli.doctor:doctor_command",
    "version": "server.cli.serving:version_command",
}


def _root() -> None:
    pass


class _Commands(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:
        where = _COMMANDS.get(cmd_name)
        if where is None:
            return None
        module, _, attribute = where.partition(":")
        with imports():
            found: Any = getattr(import_module(module), attribute)
        parent = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        parent.callback()(_root)
        if isinstance(found, typer.Typer):
            parent.add_typer(found, name=cmd_name)
        else:
            parent.command(cmd_name)(found)
        group: Any = get_command(parent)
        return group.commands[cmd_name]


app = typer.Typer(
    name="integrations-mcp",
    cls=_Commands,
    help="An MCP gateway: describe a REST system once, and its endpoints are tools that agents call. Begin with `integrations-mcp demo`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


app.callback()(_root)


def run() -> None:
    """Runs the command line; every expected failure is a sentence on stderr, never a traceback.

    With --json it is also told on stdout, as REST tells it: `detail` and `error_code`.
    """
    try:
        app()
    except SettingsError as e:
        fail(f"integrations-mcp: {e}", 2)
    except InvalidRequest as e:
        lines = [f"{'.'.join(str(p) for p in i.loc if p != 'body')}: {i.msg}" for i in e.issues]
        rows = [{"loc": i.loc, "msg": i.msg, "type": i.type} for i in e.issues]
        fail("integrations-mcp: " + "\n".join(lines), 1, {"detail": rows, "error_code": e.code})
    except GatewayError as e:
        fail(f"integrations-mcp: {e.message} [{e.code}]", 1, {"detail": e.message, "error_code": e.code})
    except (OSError, ValueError) as e:
        from server.config_file import ConfigError

        if isinstance(e, ConfigError):
            rows = [{"file": f.file, "line": f.line, "loc": f.loc, "msg": f.message, "type": f.type} for f in e.faults]
            fail(str(e), 1, {"detail": rows, "error_code": InvalidRequest.code})
        fail(f"integrations-mcp: {e}", 1, {"detail": str(e), "error_code": "failed"})
    except KeyboardInterrupt:
        sys.exit(130)


def fail(text: str, code: int, told: dict[str, Any] | None = None) -> None:
    """Ends the process with `text` on stderr."""
    if told is not None and "--json" in sys.argv:
        print_json(told)
    print(text, file=sys.stderr)
    sys.exit(code)
