"""Secrets from environment variables, for local use (rules A8): read-only, and only variables named INTEGRATIONS_SECRET_*.

The variable of a path is `INTEGRATIONS_SECRET_` and the path without its leading slash, where `/` is written `__` and each
of `_`, `-` and `.` as an underscore and its two hexadecimal digits (`_5F`, `_2D`, `_2E`). No two paths share a variable:

    /clinic/api-key      INTEGRATIONS_SECRET_clinic__api_2Dkey
    /clinic/live/token   INTEGRATIONS_SECRET_clinic__live__token
"""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from tools.errors import Forbidden, SecretNotFound
from tools.secrets import Secret, is_under, path_fault

PREFIX = "INTEGRATIONS_SECRET_"
VERSION = "environment"
"""The only version there is: a process's environment doesn't change."""

_ESCAPED = re.compile(r"__|_([0-9A-F]{2})")
_SPECIAL = re.compile(r"[_.-]")

_WRITTEN = datetime.fromtimestamp(0, UTC)
"""When a variable was written can't be known: before anything else."""


def variable_of(path: str) -> str:
    """The name of the variable that holds the secret at `path`."""
    escaped = _SPECIAL.sub(lambda match: f"_{ord(match[0]):02X}", path.removeprefix("/"))
    return PREFIX + escaped.replace("/", "__")


def path_of(variable: str) -> str | None:
    """The path whose variable this is; None when it is no path's."""
    if not variable.startswith(PREFIX):
        return None
    body = variable.removeprefix(PREFIX)
    path = "/" + _ESCAPED.sub(lambda match: chr(int(match[1], 16)) if match[1] else "/", body)
    # Only the one spelling that `variable_of` gives is read: _61 for "a" would be a second name for one path.
    return path if path_fault(path) is None and variable_of(path) == variable else None


class EnvironmentSecretStore:
    """`tools.secrets.SecretStore` over variables given at start (what the process was started with)."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        found = {path_of(name): value for name, value in variables.items() if value}
        self._values = {path: value for path, value in found.items() if path is not None}

    def __repr__(self) -> str:
        return f"EnvironmentSecretStore({len(self._values)} secrets)"

    async def read(self, path: str, version: str | None = None) -> Secret:
        if path not in self._values or version not in (None, VERSION):
            raise SecretNotFound(f"No secret is stored at {path}: {variable_of(path)} isn't set.")
        return Secret(value=self._values[path], version=VERSION)

    async def write(self, path: str, value: str) -> str:
        raise Forbidden(_read_only(path))

    async def versions(self, path: str) -> dict[str, datetime]:
        return {VERSION: _WRITTEN} if path in self._values else {}

    async def remove(self, path: str, versions: Collection[str]) -> None:
        if path in self._values and VERSION in versions:
            raise Forbidden(_read_only(path))

    async def paths(self, prefix: str) -> list[str]:
        top = prefix.rstrip("/")
        return sorted(path for path in self._values if path == top or is_under(path, top))


def _read_only(path: str) -> str:
    return f"Secrets come from environment variables here and can't be written: change {variable_of(path)} and restart."
