"""The noun "secret" and the Protocol that every store implements (`server/secret_stores`).

A secret is addressed by a path (rules A3) and a version that the store gives out. Nothing outside `tools/credentials`
unwraps a `Secret`; its repr and str are masked.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

MASK = "[secret]"
MAX_VALUE_BYTES = 8192
_PATH = re.compile(r"(/[A-Za-z0-9_.-]{1,128}){2,10}", re.ASCII)


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A secret's value with the version it was read at."""

    value: str
    version: str

    def __repr__(self) -> str:
        return f"Secret({MASK}, version={self.version!r})"

    __str__ = __repr__


class ReadableSecrets(Protocol):
    """What reading needs of a store."""

    async def read(self, path: str, version: str | None = None) -> Secret:
        """The value at `path`: `version`, or the newest. Raises SecretNotFound, SecretStoreUnavailable."""
        ...


class SecretStore(Protocol):
    """Where secrets are kept. Paths are compared by whole segments, case-sensitively, as written (rules A3)."""

    async def read(self, path: str, version: str | None = None) -> Secret:
        """The value at `path`: `version`, or the newest. Raises SecretNotFound, SecretStoreUnavailable."""
        ...

    async def write(self, path: str, value: str) -> str:
        """Keeps a new version and returns its name; older versions stay until they are removed."""
        ...

    async def versions(self, path: str) -> dict[str, datetime]:
        """Each kept version of `path` and when it was written (UTC), oldest first; empty for an unknown path."""
        ...

    async def remove(self, path: str, versions: Collection[str]) -> None:
        """Removes these versions; unknown ones are fine."""
        ...

    async def paths(self, prefix: str) -> list[str]:
        """The paths at or under `prefix` (whole segments), sorted; never values."""
        ...


def path_fault(path: str) -> str | None:
    """Why `path` is not a secret path, in words; None when it is one (rules A3)."""
    if len(path) > 900:
        return "a secret path has at most 900 characters"
    if not _PATH.fullmatch(path):
        return "a secret path is 2 to 10 segments like /team/system/key, each of A-Z a-z 0-9 _ . - (nothing else, no trailing /)"
    segments = path.split("/")[1:]
    if "." in segments or ".." in segments:
        return "a secret path has no . or .. segment"
    if segments[0].lower().startswith(("aws", "ssm")):
        return "a secret path doesn't begin with aws or ssm: those names belong to the cloud's own store"
    return None


def value_fault(value: str) -> str | None:
    """Why `value` can't be stored; None when it can: 1..8192 bytes of UTF-8 (rules A10)."""
    size = len(value.encode("utf-8", "surrogatepass"))
    if size < 1 or size > MAX_VALUE_BYTES:
        return f"a secret has 1 to {MAX_VALUE_BYTES} bytes; this one has {size}"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "a secret is valid Unicode text"
    return None


def is_under(path: str, prefix: str) -> bool:
    """Whether `path` lies under `prefix` by whole segments: /p/acme is not under /p/ac."""
    return path.startswith(prefix if prefix.endswith("/") else prefix + "/")
