"""The file of a backup: gzip over JSON lines. The first line says what it is, the last proves that it is whole.

Between them, for each table, one line {"table", "columns": [[name, kind], ...]} and then an array of values for each row. A kind
is "plain" (JSON as it is), "instant" (ISO 8601 in UTC) or "bytes" (base64), so that the file alone tells how it is read.
"""

import base64
import gzip
import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

FORMAT = 1
PASSPHRASE_MIN = 12
_MAGIC = "integrations-mcp backup"
_SCRYPT = {"n": 2**17, "r": 8, "p": 1}
"""OWASP's parameters: 128 MB and about half a second for each guess."""
_SCRYPT_MOST = {"n": 2**20, "r": 16, "p": 4}
_LINE = 256 * 2**20
_NONCE = 12

Row = Sequence[Any]


class BackupError(ValueError):
    """What is wrong with a backup's file or passphrase, in a sentence for its operator."""


@dataclass(frozen=True, slots=True)
class Header:
    """`schema` is the revision of the tables; `key_ids` name the keys that something in it is sealed with; `store` is the setting
    secret_store; `key` is the key itself, sealed with a passphrase, and its id, where it was asked for."""

    made_at: str
    version: str
    schema: str
    store: str
    key_ids: tuple[str, ...]
    key: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TableHead:
    """What the rows that follow are of."""

    name: str
    columns: tuple[tuple[str, str], ...]


# ---------------------------------------------------------------------- writing


class BackupWriter:
    """Writes the lines, one after the other."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file, self._sum = file, hashlib.sha256()

    def header(self, header: Header) -> None:
        self._line({_MAGIC: FORMAT, **asdict(header)})

    def table(self, head: TableHead) -> None:
        self._line({"table": head.name, "columns": head.columns})

    def rows(self, head: TableHead, rows: Sequence[Row]) -> None:
        for row in rows:
            self._line([_written(value, kind) for value, (_, kind) in zip(row, head.columns, strict=True)])

    def end(self) -> None:
        self._file.write(json.dumps({"end": self._sum.hexdigest()}).encode() + b"\n")

    def _line(self, value: Any) -> None:
        line = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        self._sum.update(line)
        self._file.write(line)


@contextmanager
def writing(path: Path) -> Generator[BackupWriter]:
    """A new file of mode 0600 that is there when the block has ended well, whole, and else not at all.

    Raises BackupError when there is a file of that name or it can't be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as raw:
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6) as file:
                writer = BackupWriter(file)
                yield writer
                writer.end()
            raw.flush()
            os.fsync(raw.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            raise BackupError(f"{path} is there already: name another file.") from None
    except OSError as e:
        raise BackupError(
            f"{path} can't be written: {(e.strerror or str(e)).lower()}. Nothing was left there."
        ) from None
    finally:
        draft.unlink(missing_ok=True)


# ---------------------------------------------------------------------- reading


class BackupReader:
    """A file that was found whole. `tables` can be read once more at any time."""

    def __init__(self, path: Path) -> None:
        """Raises BackupError for a file that is damaged, newer, or no backup; OSError where it can't be read."""
        self._path = path
        with _told(path):
            self.header = self._verify()

    def tables(self) -> Iterator[TableHead | Row]:
        """Each table's head, and after it its rows. Raises BackupError."""
        head: TableHead | None = None
        with _told(self._path), gzip.open(self._path) as file:
            _line(file)
            while True:
                value: Any = json.loads(_line(file))
                if isinstance(value, list) and head is not None:
                    row = cast("list[Any]", value)
                    yield [_read(item, kind) for item, (_, kind) in zip(row, head.columns, strict=True)]
                    continue
                told = cast("dict[str, Any]", value)
                if "end" in told:
                    return
                head = TableHead(str(told["table"]), tuple((str(n), str(k)) for n, k in told["columns"]))
                yield head

    def _verify(self) -> Header:
        total = hashlib.sha256()
        with gzip.open(self._path) as file:
            line = _line(file)
            first: Any = json.loads(line)
            if not isinstance(first, dict) or _MAGIC not in first:
                raise BackupError(f"{self._path} isn't a backup of integrations-mcp.")
            told = cast("dict[str, Any]", first)
            if told[_MAGIC] != FORMAT:
                raise BackupError(
                    f"{self._path} was written by a newer version of integrations-mcp ({str(told.get('version'))[:40]}): "
                    "restore it with that version."
                )
            header = Header(
                str(told["made_at"]),
                str(told["version"]),
                str(told["schema"]),
                str(told["store"]),
                tuple(str(id) for id in told["key_ids"]),
                told.get("key"),
            )
            while True:
                total.update(line)
                line = _line(file)
                if line.startswith(b'{"end"'):
                    break
            if json.loads(line)["end"] != total.hexdigest() or file.read(1):
                raise ValueError("checksum")
        return header


@contextmanager
def _told(path: Path) -> Generator[None]:
    try:
        yield
    except BackupError:
        raise
    except gzip.BadGzipFile:
        raise BackupError(f"{path} isn't a backup of integrations-mcp, or is damaged.") from None
    except (EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError):
        raise BackupError(f"{path} is damaged (its checksum doesn't agree, or its end is missing).") from None


def _line(file: gzip.GzipFile) -> bytes:
    line = file.readline(_LINE)
    if not line.endswith(b"\n"):
        raise EOFError
    return line


# ---------------------------------------------------------------------- values and the key


def _written(value: Any, kind: str) -> Any:
    if value is None or kind == "plain":
        return value
    return value.isoformat() if kind == "instant" else base64.b64encode(value).decode()


def _read(value: Any, kind: str) -> Any:
    if value is None or kind == "plain":
        return value
    return datetime.fromisoformat(value) if kind == "instant" else base64.b64decode(value, validate=True)


def sealed_key(key: bytes, passphrase: str) -> dict[str, Any]:
    """The key under a passphrase: scrypt (RFC 7914), then AES-256-GCM. Raises BackupError for a short passphrase."""
    if len(passphrase) < PASSPHRASE_MIN:
        raise BackupError(f"The passphrase is too short: give at least {PASSPHRASE_MIN} characters.")
    salt, nonce = os.urandom(16), os.urandom(_NONCE)
    cipher = AESGCM(Scrypt(salt=salt, length=32, **_SCRYPT).derive(passphrase.encode()))
    sealed = nonce + cipher.encrypt(nonce, key, _MAGIC.encode())
    return {
        "kdf": "scrypt",
        **_SCRYPT,
        "salt": base64.b64encode(salt).decode(),
        "sealed": base64.b64encode(sealed).decode(),
    }


def opened_key(kept: Mapping[str, Any], passphrase: str) -> bytes:
    """Raises BackupError for another passphrase than the key was sealed with."""
    try:
        parameters = {name: int(kept[name]) for name in _SCRYPT}
        salt, sealed = base64.b64decode(kept["salt"]), base64.b64decode(kept["sealed"])
        known = kept["kdf"] == "scrypt" and all(1 <= parameters[name] <= most for name, most in _SCRYPT_MOST.items())
        cipher = AESGCM(Scrypt(salt=salt, length=32, **parameters).derive(passphrase.encode())) if known else None
    except (KeyError, TypeError, ValueError):
        cipher, sealed = None, b""
    if cipher is None:
        raise BackupError("The key in this backup is damaged, or sealed in a way that this version doesn't know.")
    try:
        return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], _MAGIC.encode())
    except (InvalidTag, ValueError):
        raise BackupError("This isn't the passphrase that the backup's key was sealed with.") from None
