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
# Variables that make a program load code of the caller's choosing, or find other programs: of loaders and interpreters, and of the
# runners that fetch a package by its name (uvx takes it from whatever UV_INDEX_URL says).
_LOADING = re.compile(
    "|".join(
        (
            r"LD_.*|DYLD_.*|GLIBC_TUNABLES|GCONV_PATH|LOCPATH|NLSPATH|HOSTALIASES|PATH|HOME|XDG_.*|SHELL|ENV|BASH_.*|IFS|PS4",
            r"PROMPT_COMMAND|EDITOR|VISUAL|PAGER|BROWSER|COMSPEC|PATHEXT|SSL_CERT_.*|SSLKEYLOGFILE|OPENSSL_.*|GTK_.*|GIO_.*|QT_.*",
            r"NODE_(OPTIONS|PATH|EXTRA_CA_CERTS|TLS_.*|REPL_.*)|ELECTRON_.*|NPM_.*|YARN_.*|PNPM_.*|BUN_.*|DENO_.*|COREPACK_.*",
            r"PYTHON.*|VIRTUAL_ENV|CONDA_.*|PIPX?_.*|UVX?_.*|POETRY_.*|HATCH_.*|PERL.*|RUBY.*|GEM_.*|BUNDLE_.*|PHP.*|COMPOSER_.*|LUA_.*",
            r"R_(HOME|LIBS|PROFILE|ENVIRON).*|GO(PROXY|FLAGS|PATH|ROOT|BIN|ENV|NO.*|SUMDB|PRIVATE|INSECURE|TOOLCHAIN)|CARGO_.*|RUST(C|UP|DOC|FLAGS).*",
            r"CLASSPATH|_?JAVA_.*|JDK_.*|MAVEN_.*|GRADLE_.*|DOTNET_.*|COR(ECLR)?_.*|COMPLUS_.*|NUGET_.*",
            r"GIT_.*|SSH_ASKPASS.*|DOCKER_.*|PODMAN_.*|CONTAINER_.*|KUBECONFIG|PUPPETEER_.*|PLAYWRIGHT_.*(PATH|HOST|EXECUTABLE).*|CHROME_.*",
        )
    ),
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


def variable_faults(environment: Mapping[str, str], *, builtin: bool) -> list[tuple[str, str]]:
    """(name, fault) of what can't be in `mcp_env`; the operator's own file may load what it says. Values are never quoted: they may be
    secrets."""
    faults: list[tuple[str, str]] = []
    for name, value in environment.items():
        if not _NAME.fullmatch(name):
            faults.append((name, "isn't the name of an environment variable"))
        elif not builtin and _LOADING.fullmatch(name):
            faults.append((name, f"{name} decides what code a program loads, so it can't be set here"))
        elif "\x00" in value:
            faults.append((name, "holds a NUL"))
    if len(environment) > MAX_VARIABLES:
        faults.append(("", f"at most {MAX_VARIABLES} variables; these are {len(environment)}"))
    return faults


def stdio_origin(integration: Integration) -> str:
    """What a secret is bound to that goes into a process's environment, in place of a URL's origin (rules A1).

    The whole line: of a program that takes a URL, or a script, the arguments say where a secret ends up.
    """
    return f"stdio:{join([integration.mcp_command or '', *(integration.mcp_args or ())])}"
