"""Content codings that we ask for (gzip, deflate), undone piece by piece and never further than allowed."""

import zlib


class Inflate:
    """gzip or deflate, never more than asked for at once; `complete` says whether what was fed so far ends where it should."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._stream: zlib._Decompress | None = None  # pyright: ignore[reportPrivateUsage] - zlib has no public name for it
        self.complete = True

    def feed(self, data: bytes, at_most: int) -> bytes:
        """What `data` inflates to, cut off at `at_most` bytes; gzip may hold several members. Raises zlib.error."""
        parts: list[bytes] = []
        while data and at_most > 0:
            if self._stream is None:
                self._stream = zlib.decompressobj(self._window(data[0]))
                self.complete = False
            part = self._stream.decompress(data, at_most)
            at_most -= len(part)
            parts.append(part)
            data = self._stream.unconsumed_tail
            if self._stream.eof:
                data, self._stream, self.complete = self._stream.unused_data, None, True
        return b"".join(parts)

    def _window(self, first: int) -> int:
        # "deflate" is zlib's format (RFC 9110 8.4.1.2), but some servers send it bare: zlib's first byte ends in 8.
        if self._encoding == "gzip":
            return 16 + zlib.MAX_WBITS
        return zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS
