"""The noun "finding": what `doctor` says of one thing."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`do` is empty where there is nothing to do."""

    what: str
    verdict: Verdict
    said: str
    do: str = ""
