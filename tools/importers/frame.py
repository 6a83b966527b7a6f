"""What every importer makes and what is chosen from it: candidates, what is left out and why, and the choice. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tools.models import AuthConfig, EndpointConfig, Protocol

MAX_BYTES = 50 * 1024 * 1024
"""Of one document."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint that could be made. `key` says which operation of the source it is, also after it was renamed ("GET /pets").

    `notes` are what was loosened or left out of it; `tokens` what its tool costs in a list.
    """

    key: str
    endpoint: EndpointConfig
    tags: tuple[str, ...] = ()
    operation_id: str = ""
    deprecated: bool = False
    notes: tuple[str, ...] = ()
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What can't become a tool, and why."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Source:
    """A source that was read. `auth` is how it says that calls are signed, without any secret (None: not at all, or by nothing
    that we can do: then `left_out` says so)."""

    title: str
    base_url: str
    auth: AuthConfig | None
    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()
    protocol: Protocol = "rest"
    default: "Choice | None" = None
    """What a new integration takes where nothing is chosen; None is everything."""


class SourceFault(ValueError):
    """The source can't be read at all; the message says why."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is wanted of a source: patterns of `*`, `?` and `[...]`, ignoring case; one that begins with `!` takes away.

    Of each kind that says something one pattern must fit; a kind that only takes away leaves everything else.
    """

    tags: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def is_everything(self) -> bool:
        return not (self.tags or self.paths or self.methods or self.operations or self.names)

    def takes(self, candidate: Candidate) -> bool:
        endpoint = candidate.endpoint
        method, _, path = candidate.key.partition(" ")
        return (
            _fits(self.tags, candidate.tags)
            and _fits(self.paths, (path, endpoint.path))
            and _fits(self.methods, (method,))
            and _fits(self.operations, (candidate.operation_id,))
            and _fits(self.names, (endpoint.name,))
        )


def _fits(patterns: tuple[str, ...], values: Iterable[str]) -> bool:
    low = [v.lower() for v in values]
    wanted = [p.lower() for p in patterns if not p.startswith("!")]
    unwanted = [p[1:].lower() for p in patterns if p.startswith("!")]
    if any(fnmatchcase(v, p) for v in low for p in unwanted):
        return False
    return not wanted or any(fnmatchcase(v, p) for v in low for p in wanted)
