"""What a credential hands to a call: the header, how it was come by, and what must be masked because of it."""

import base64
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, quote_plus

from tools.models import AuthConfig

_HEX = re.compile(r"%[0-9A-F]{2}")
Source = Literal["secret", "cached_token", "minted_token"]


@dataclass(frozen=True, slots=True)
class AuthFault:
    """What is wrong with an auth config: `field` is a field of AuthConfig, `message` a sentence that says what to change."""

    field: str
    message: str


@dataclass(frozen=True, slots=True, repr=False)
class Authorization:
    """One ready header. `version` tells two values of the same credential apart; `masks` are all values that may not be shown.

    `more` are further headers that belong to it and aren't secret (Google's x-goog-user-project). `may_go_to` judges an origin
    ("https://host:443"); None: where the secrets that it was made of may go.
    """

    header: str
    value: str
    version: str
    source: Source
    masks: tuple[str, ...]
    explain: dict[str, object] = field(default_factory=dict[str, object])
    more: tuple[tuple[str, str], ...] = ()
    may_go_to: Callable[[str], bool] | None = None

    def __repr__(self) -> str:
        return f"Authorization(header={self.header!r}, source={self.source!r}, version={self.version!r})"


def masks_of(values: Iterable[str]) -> tuple[str, ...]:
    """The spellings of secrets that must be replaced in whatever is shown (rules A6): 8 characters or more, longest first."""
    spellings: set[str] = set()
    for value in values:
        if len(value) < 8:
            continue
        spellings |= {value, value.replace("\n", "\\n")}
        for encoded in (quote(value, safe=""), quote(value, safe="~"), quote_plus(value)):
            # Several servers answer with lower-case hex digits.
            spellings |= {encoded, _HEX.sub(lambda match: match[0].lower(), encoded)}
        spellings.add(value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("/", "\\/"))
        spellings.add(value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        spellings |= _base64_cores(value)
    return tuple(sorted(spellings, key=lambda s: (-len(s), s)))


def _base64_cores(value: str) -> set[str]:
    """What of `value` shows in base64 at any of the three alignments (so also inside base64 of "id:secret")."""
    raw = value.encode()
    cores: set[str] = set()
    for lead in range(3):
        text = base64.b64encode(b"\0" * lead + raw).decode()
        # The first group mixes in what stands before, the last one what comes after: both depend on the neighbours.
        begin = 4 if lead else 0
        whole = (lead + len(raw)) // 3 * 4
        core = text[begin:whole]
        if len(core) >= 8:
            cores |= {core, core.replace("+", "-").replace("/", "_"), quote(core, safe="")}
    return cores


def secret_fields(auth: AuthConfig) -> list[tuple[str, str]]:
    """(field, path) of every secret that the config names."""
    fields = ("ssm_param_path", "token_ssm_param_path", "client_secret_ssm_param_path", "private_key_ssm_param_path")
    return [(name, path) for name in fields if (path := getattr(auth, name)) is not None]
