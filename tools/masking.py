"""Replaces every known secret by `[secret]` in whatever is shown (rules A6). Mask first, cut after."""

import re
from collections.abc import Iterable
from typing import Any

from tools.secrets import MASK

_SECRET_HEADER = re.compile(r"authorization|cookie|token|secret|password|key", re.IGNORECASE)


def is_secret_header(name: str) -> bool:
    """Whether a header's value is masked in answers (rules A7)."""
    return bool(_SECRET_HEADER.search(name))


class Masker:
    """The spellings to hide, longest first; see `credentials.authorization.masks_of`."""

    __slots__ = ("_bytes", "_texts")

    def __init__(self, spellings: Iterable[str] = ()) -> None:
        self._texts = tuple(sorted(set(spellings), key=lambda s: (-len(s), s)))
        self._bytes = tuple(s.encode() for s in self._texts)

    def body(self, body: bytes) -> bytes:
        for spelling in self._bytes:
            if spelling in body:
                body = body.replace(spelling, MASK.encode())
        return body

    def text(self, text: str) -> str:
        for spelling in self._texts:
            if spelling in text:
                text = text.replace(spelling, MASK)
        return text

    def value(self, value: Any) -> Any:
        """A JSON value with every string (keys too) masked; the same object where nothing is hidden."""
        if not self._texts:
            return value
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self.text(str(k)): self.value(v) for k, v in value.items()}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - any JSON
            case list() | tuple():
                return [self.value(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
            case _:
                return value


NOTHING_TO_HIDE = Masker()
