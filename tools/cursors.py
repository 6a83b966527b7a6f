"""Cursors: where a search goes on, or a call that an upstream asked something for; sealed so that who carries one can neither read
it, nor change it, nor use another's (rules G2).
"""

import base64
import binascii
import hashlib
import json
import os
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tools.errors import ArgumentFault, InvalidArguments

LIVES_S = 3600
_NONCE = 12


class Cursors:
    """`key` is 32 bytes; `now` is Unix time. A cursor is of one workspace, integration, endpoint, caller and set of arguments."""

    def __init__(self, key: bytes, *, now: Callable[[], float] = time.time) -> None:
        self._cipher, self._now = AESGCM(key), now

    def seal(self, target: str, of: tuple[str, ...], arguments: Mapping[str, Any]) -> str:
        """`target` is path and query only."""
        nonce = os.urandom(_NONCE)
        told = struct.pack(">d", self._now() + LIVES_S) + target.encode()
        sealed = nonce + self._cipher.encrypt(nonce, told, _bound(of, arguments))
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def open(self, cursor: str, of: tuple[str, ...], arguments: Mapping[str, Any]) -> str:
        """Raises InvalidArguments for what isn't such a cursor, or is too old."""
        try:
            sealed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            told = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(of, arguments))
        except (InvalidTag, binascii.Error, ValueError):
            raise _refused("isn't one that this search gave for these arguments") from None
        if struct.unpack(">d", told[:8])[0] < self._now():
            raise _refused("is older than an hour")
        return told[8:].decode()


def _bound(of: tuple[str, ...], arguments: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256(json.dumps(dict(arguments), sort_keys=True).encode()).hexdigest()
    return json.dumps([*of, digest]).encode()


def _refused(why: str) -> InvalidArguments:
    told = f"{why}: repeat the call with all its other arguments as they were, or leave cursor out to begin again."
    return InvalidArguments([ArgumentFault("cursor", told)], ())
