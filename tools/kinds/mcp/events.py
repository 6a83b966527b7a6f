"""Server-sent events as they come in pieces (WHATWG HTML 9.2.6): bytes in, events out, one event bounded."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from tools.errors import ResponseTooLarge


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `id` and `retry_ms` are what the stream last said."""

    name: str
    data: str
    id: str | None
    retry_ms: int | None


class EventReader:
    """Feed it pieces of the body. Raises ResponseTooLarge when one event grows over `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._rest = b""
        self._parts: list[bytes] = []
        self._size = 0
        self._ended_in_cr = False
        self._name, self._data = "", list[str]()
        self.id: str | None = None
        self.retry_ms: int | None = None

    def feed(self, piece: bytes) -> list[Event]:
        """The events that this piece completes."""
        if self._ended_in_cr and piece.startswith(b"\n"):
            piece = piece[1:]  # the second half of a line end that was cut in two
        self._ended_in_cr = piece.endswith(b"\r")
        self._size += len(piece)
        if b"\n" not in piece and b"\r" not in piece:
            self._parts.append(piece)  # joined once a line ends: a line of 10 MB must not be copied for each piece
            self._check()
            return []
        text = b"".join([self._rest, *self._parts, piece])
        self._parts = []
        lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text
        *whole, self._rest = lines.split(b"\n")
        events: list[Event] = []
        for line in whole:
            if (event := self._line(line.decode("utf-8", "replace"))) is not None:
                events.append(event)
        if events:
            self._size = len(self._rest)
        self._check()
        return events

    def _check(self) -> None:
        if self._size > self._max:
            raise ResponseTooLarge(f"the answer is longer than {self._max:,} bytes")

    def _line(self, line: str) -> Event | None:
        if not line:
            name, data = self._name or "message", "\n".join(self._data)
            had = bool(self._data)
            self._name, self._data = "", []
            return Event(name, data, self.id, self.retry_ms) if had else None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "data":
                self._data.append(value)
            case "event":
                self._name = value
            case "id" if "\x00" not in value:
                self.id = value
            case "retry" if value.isascii() and value.isdigit() and len(value) < 9:
                self.retry_ms = int(value)
            case _:
                pass
        return None


async def events(pieces: AsyncIterator[bytes], reader: EventReader) -> AsyncIterator[Event]:
    """Every event of a body; what is left when it ends was never finished and is dropped."""
    async for piece in pieces:
        for event in reader.feed(piece):
            yield event
