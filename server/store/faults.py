"""Database errors in words that help: what is wrong and what to do, without SQL, values, folders, hosts or passwords."""

import sqlite3

from sqlalchemy import exc

from tools.errors import StorageUnavailable

_SQLITE = {
    "BUSY": "is locked by another process and didn't come free in time; try again, or end what holds it",
    "LOCKED": "is locked by another process and didn't come free in time; try again, or end what holds it",
    "READONLY": "is read-only: the user that runs the gateway must be allowed to write the file and its folder",
    "FULL": "can't be written: the disk is full",
    "CANTOPEN": "can't be opened: its folder must exist and the user that runs the gateway must be allowed to write there",
    "PERM": "can't be opened: the user that runs the gateway isn't allowed to",
    "AUTH": "can't be opened: the user that runs the gateway isn't allowed to",
    "CORRUPT": "is damaged; restore it from a backup",
    "ERROR": "holds other tables than this version reads: it is another program's, or of a version before the first release; name another one (database_url), or restore a backup",
    "NOTADB": "isn't an SQLite database, or is damaged",
    "IOERR_SHMSIZE": "can't be opened: the disk is full",
    "IOERR": "can't be read or written: the disk answers with an error",
}

# By SQLSTATE, or by its class (the first two characters).
_POSTGRES = {
    "28": "refuses the user or the password of the database URL",
    "3D000": "has no database of the name in the database URL",
    "25006": "is read-only (a standby?)",
    "53100": "can't write: its disk is full",
    "53300": "has no connection left: raise max_connections or run fewer replicas",
    "53": "is out of resources",
    "57P": "is starting up or shutting down",
    "57014": "took too long to answer",
    "42501": "doesn't allow the user of the database URL what the gateway needs",
    "08": "broke the connection",
    "40": "was changed by somebody else at the same time; try again",
}


def explained(error: BaseException, name: str) -> StorageUnavailable:
    """The error to raise for whatever a driver, SQLAlchemy or the socket raised. `name` is how the database is called."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.Error):
        code: str = getattr(cause, "sqlite_errorname", "")
        whole = code.removeprefix("SQLITE_")
        words = _SQLITE.get(whole) or _SQLITE.get(whole.partition("_")[0])
        return _said(name, words or "can't be used", code)
    state: str | None = getattr(cause, "sqlstate", None)
    if state:
        words = next((_POSTGRES[state[:n]] for n in (5, 3, 2) if state[:n] in _POSTGRES), "refuses the request")
        return _said(name, words, state)
    if isinstance(cause, TimeoutError):
        return _said(name, "doesn't answer in time", "")
    if isinstance(cause, ConnectionRefusedError):
        return _said(name, "can't be reached: the connection was refused", "")
    if isinstance(cause, OSError):
        return _said(name, "can't be reached: no connection to it", "")
    if isinstance(cause, exc.TimeoutError):
        return _said(name, "is too busy: no connection to it came free in time", "")
    return _said(name, "can't be used just now", type(cause).__name__)


def unopened(error: OSError, name: str) -> StorageUnavailable:
    """The file or its folder can't be made or opened."""
    return _said(name, f"can't be opened: {(error.strerror or 'it is not there').lower()}", "")


def without_wal(name: str) -> StorageUnavailable:
    """SQLite answers that the mode stays what it was: no shared memory there, as on network shares."""
    return _said(name, "is where SQLite can't keep a write-ahead log (a network share?); move it to a local disk", "")


def _said(name: str, words: str, code: str) -> StorageUnavailable:
    return StorageUnavailable(f"The registry ({name}) {words}{f' [{code}]' if code else ''}.")
