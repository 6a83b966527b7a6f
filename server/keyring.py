"""The key that everything at rest is encrypted with: a file made on first start, or given by whoever starts the gateway."""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tools.errors import SecretStoreUnavailable

KEY_FILE = "secret.key"
OLD_KEY_FILE = "secret.key.old"
"""The key before, while `secrets rekey` is under way."""
_BYTES = 32


@dataclass(frozen=True, slots=True)
class Keyring:
    """`key` is 32 random bytes; `source` says where it came from, in the words of an error message."""

    key: bytes = field(repr=False)
    source: str

    @property
    def key_id(self) -> str:
        """Names the key without telling it; kept beside what was sealed with it, so that keys can be changed."""
        return self.derive("key-id").hex()[:16]

    def derive(self, purpose: str) -> bytes:
        """A key of 32 bytes for one purpose (HKDF-Expand, RFC 5869 section 2.3, one block): no two purposes share one."""
        return hmac.digest(self.key, b"integrations-mcp/" + purpose.encode() + b"\x01", hashlib.sha256)


def given(text: str) -> Keyring:
    """From base64 (either alphabet, padded or not). Raises SecretStoreUnavailable when it isn't 32 bytes."""
    source = "the key given by the environment"
    with suppress(binascii.Error, ValueError):
        raw = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
        key = base64.b64decode(raw + "=" * (-len(raw) % 4), validate=True)
        if len(key) == _BYTES:
            return Keyring(key=key, source=source)
    raise SecretStoreUnavailable(
        f"{source} isn't {_BYTES} bytes in base64; make one with: openssl rand -base64 {_BYTES}"
    )


def kept_in(home: Path) -> Keyring:
    """From `secret.key` in `home` (made with mode 0700), which is made once, also when several processes start at once.

    Raises SecretStoreUnavailable when the file can't be made or read, is damaged, or can be read by others.
    """
    path = home / KEY_FILE
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make(path, secrets.token_bytes(_BYTES))
        return Keyring(key=_read(path), source=KEY_FILE)
    except OSError as error:
        raise SecretStoreUnavailable(f"The key file {path} can't be used: {error.strerror}.") from None


def old_kept_in(home: Path) -> Keyring | None:
    """The key before, if a change of keys was begun and hasn't ended. Raises SecretStoreUnavailable."""
    path = home / OLD_KEY_FILE
    try:
        return Keyring(key=_read(path), source=OLD_KEY_FILE) if path.exists() else None
    except OSError as error:
        raise SecretStoreUnavailable(f"The key file {path} can't be used: {error.strerror}.") from None


def put(home: Path, key: bytes) -> bool:
    """Makes the key file with this key; False where there is one with another key, which stays. Raises SecretStoreUnavailable."""
    path = home / KEY_FILE
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make(path, key)
        return _read(path) == key
    except OSError as error:
        raise SecretStoreUnavailable(f"The key file {path} can't be made: {error.strerror}.") from None


def replace(home: Path, key: bytes, before: str) -> None:
    """Puts another key in the place of `secret.key`, which becomes the file `before` (unless there is one): at every moment
    there is a whole key file. Raises SecretStoreUnavailable.
    """
    path = home / KEY_FILE
    try:
        with _draft(path, key) as draft:
            with suppress(FileExistsError):
                os.link(path, home / before)
            draft.replace(path)
        _synced(home)
    except OSError as error:
        raise SecretStoreUnavailable(f"The key file {path} can't be replaced: {error.strerror}.") from None


def _make(path: Path, key: bytes) -> None:
    # Written whole beside it, then linked: whoever looks sees no file or all of it, and the first one to link wins.
    with _draft(path, key) as draft, suppress(FileExistsError):
        os.link(draft, path)
    _synced(path.parent)


@contextmanager
def _draft(path: Path, key: bytes) -> Generator[Path]:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(base64.b64encode(key) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _synced(home: Path) -> None:
    folder = os.open(home, os.O_RDONLY)
    try:
        os.fsync(folder)  # a key that is lost in a power cut loses everything sealed with it
    finally:
        os.close(folder)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise SecretStoreUnavailable(f"Others can read the key file: run chmod 600 {path}")
        text = file.read(1024)
    with suppress(binascii.Error):
        key = base64.b64decode(text.strip(), validate=True)
        if len(key) == _BYTES:
            return key
    raise SecretStoreUnavailable(
        f"The key file {path} is damaged: it holds {_BYTES} bytes in base64. Restore it from a backup; without it no "
        "stored secret can be read."
    )
