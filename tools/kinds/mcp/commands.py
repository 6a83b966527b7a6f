"""Which programs an MCP upstream over stdio may run: the operator's list, exact, and nothing that loads other code into them."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from shlex import join, split

from tools.errors import Forbidden
from tools.models import Integration

MAX_VARIABLES = 50
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Variables that make a program load code of the caller's choosing, or find other programs.
_LOADING = re.compile(
    r"LD_.*|DYLD_.*|PATH|NODE_OPTIONS|NODE_PATH|PYTHON.*|BASH_ENV|ENV|IFS|PERL5?.*|RUBY.*|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS"
    r"|JDK_JAVA_OPTIONS|GIT_.*|SSL_CERT_.*|OPENSSL_CONF|GCONV_PATH|HOSTALIASES|DOTNET_.*|npm_.*",
    re.IGNORECASE,
)


class CommandNotAllowed(Forbidden):
    """The program isn't on the operator's list of what MCP upstreams over stdio may run."""

    code = "command_not_allowed"


def is_allowed(command: str, arguments: Sequence[str], allow: Iterable[str]) -> bool:
    """Whether an entry covers it: the executable exactly; where the entry goes on, each argument matches its pattern in turn
    (`*` stands for anything; a last `*` for any number of arguments, none too)."""
    return any(_covers(split(entry), command, arguments) for entry in allow)


def _covers(entry: list[str], command: str, arguments: Sequence[str]) -> bool:
    if not entry or entry[0] != command:
        return False
    patterns = entry[1:]
    if not patterns:
        return True
    if patterns[-1] == "*":
        patterns = patterns[:-1]
        arguments = arguments[: len(patterns)]
    return len(patterns) == len(arguments) and all(
        fnmatchcase(given, pattern) for given, pattern in zip(arguments, patterns, strict=True)
    )


def require_allowed(integration: Integration, allow: Iterable[str]) -> None:
    """Raises CommandNotAllowed; the operator's own file may run what it says."""
    i = integration
    if i.protocol != "mcp" or i.mcp_transport != "stdio" or not i.mcp_command or i.builtin:
        return
    if not is_allowed(i.mcp_command, i.mcp_args or (), allow):
        line = join([i.mcp_command, *(i.mcp_args or ())])
        entry = json.dumps([line]) if len(line) <= 300 else '["/opt/mcp/server *"]'
        raise CommandNotAllowed(
            f"{i.mcp_command[:200]} may not be run here with these arguments. The operator allows a program by its absolute path, "
            f"for these arguments INTEGRATIONS_MCP_STDIO_ALLOW='{entry}' (docs/mcp-upstreams.md)"
        )


def variable_faults(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """(name, fault) of what can't be in `mcp_env`. Values are never quoted: they may be secrets."""
    faults: list[tuple[str, str]] = []
    for name, value in environment.items():
        if not _NAME.fullmatch(name):
            faults.append((name, "isn't the name of an environment variable"))
        elif _LOADING.fullmatch(name):
            faults.append((name, f"{name} decides what code a program loads, so it can't be set here"))
        elif "\x00" in value:
            faults.append((name, "holds a NUL"))
    if len(environment) > MAX_VARIABLES:
        faults.append(("", f"at most {MAX_VARIABLES} variables; these are {len(environment)}"))
    return faults


def stdio_origin(command: str) -> str:
    """What a secret is bound to that goes into a process's environment, in place of a URL's origin (rules A1)."""
    return f"stdio:{command}"
