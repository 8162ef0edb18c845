"""The ledger's database: entries, the index of statement ids, and the head, in one SQLite file.

Decides what is durable together; not what may be said, nor what a checkpoint says. WAL with
synchronous=FULL: COMMIT returns after one fdatasync of the log file.

Rule 1: entries, their statement ids and the signed head change in one transaction, and the head only from
the size and root that the caller believes it has (`UPDATE … WHERE size AND root`).
Rule 2: a missing database is an error; `create` makes one, and only where none is.
Rule 3: every failure to write is DiskFailed, after which this object is not to be used.
The tree's edge is not stored: it is recomputed from the entries at every start, and the root commits to it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from .settings import DiskFailed, LedgerRefused

_APPLICATION: Final = 0x49524E42  # "IRNB"
_VERSION: Final = 1
_SCHEMA: Final = (
    "CREATE TABLE entry (idx INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    "CREATE TABLE statement (key BLOB PRIMARY KEY, idx INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, root BLOB NOT NULL,"
    " note BLOB NOT NULL)",
)
_ROWS: Final = 256  # of one INSERT
_FULL: Final = frozenset({sqlite3.SQLITE_FULL})
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@dataclass(frozen=True, slots=True)
class Head:
    """The tree's size, its root (32 bytes) and the checkpoint that the log's key signed over both."""

    size: int
    root: bytes
    note: bytes


def _failure(error: sqlite3.Error) -> DiskFailed | LedgerRefused:
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if primary in _DAMAGED:
        return LedgerRefused("damaged", f"the database: {error}")
    return DiskFailed("disk-full" if primary in _FULL else "disk-error", f"the database: {error}")


def _connect(path: str, *, mode: str) -> sqlite3.Connection:
    if not os.path.exists(path) and mode != "rwc":
        raise LedgerRefused("missing", f"{path} is missing; a ledger is created once, by init, and never by starting")
    connection = sqlite3.connect(
        f"file:{path}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=5.0
    )
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cache_size=-65536")
    return connection


class Transaction:
    """An open write transaction; made by `Store.transaction`."""

    __slots__ = ("_execute",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute

    def find(self, keys: Sequence[bytes]) -> dict[bytes, tuple[int, bytes]]:
        """Index and bytes of those entries that are there, by statement key (submitter's key id ‖ statement id)."""
        # One statement for many keys: each one executed costs a hand-over of Python's global lock.
        rows = self._execute(
            "SELECT s.key, s.idx, e.body FROM statement s JOIN entry e ON e.idx = s.idx WHERE s.key IN"
            f" ({','.join('?' * len(keys))})",
            keys,
        ).fetchall()
        return {key: (index, body) for key, index, body in rows}

    def insert(self, first: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Adds (statement key, entry) pairs, the first of them under the index `first`."""
        for at in range(0, len(entries), _ROWS):
            rows = entries[at : at + _ROWS]
            marks = ",".join(["(?,?)"] * len(rows))
            bodies = [value for index, (_, body) in enumerate(rows, first + at) for value in (index, body)]
            keys = [value for index, (key, _) in enumerate(rows, first + at) for value in (key, index)]
            self._execute(f"INSERT INTO entry (idx, body) VALUES {marks}", bodies)
            self._execute(f"INSERT INTO statement (key, idx) VALUES {marks}", keys)

    def advance(self, old: Head, new: Head) -> None:
        """Moves the head; LedgerRefused if it is not where the caller believes it to be."""
        changed = self._execute(
            "UPDATE head SET size = ?, root = ?, note = ? WHERE one = 1 AND size = ? AND root = ?",
            (new.size, new.root, new.note, old.size, old.root),
        ).rowcount
        if changed != 1:
            raise LedgerRefused("fork", f"another writer moved the head from size {old.size}")


class Store:
    """The open database. The methods block; one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    def create(cls, path: str, entry: bytes, head: Head) -> None:
        """A new database whose entry 0 is `entry`; FileExistsError if there is one, or the rest of one."""
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            connection = _connect(path, mode="rw")
            with contextlib.closing(connection):
                connection.execute("PRAGMA page_size=4096")
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"PRAGMA application_id={_APPLICATION}")
                connection.execute(f"PRAGMA user_version={_VERSION}")
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute("INSERT INTO entry VALUES (0, ?)", (entry,))
                connection.execute("INSERT INTO head VALUES (1, ?, ?, ?)", (head.size, head.root, head.note))
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise _failure(error) from error

    @classmethod
    def open(cls, path: str) -> Self:
        """Opens an existing database for writing; LedgerRefused if it is missing, foreign or damaged."""
        try:
            connection = _connect(path, mode="rw")
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if (application, version) != (_APPLICATION, _VERSION):
                raise LedgerRefused("damaged", f"{path} is not a ledger database of version {_VERSION}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA wal_autocheckpoint=0")  # `tidy` does it, beside the commits
        except sqlite3.Error as error:
            raise _failure(error) from error
        return cls(connection, path)

    def head(self) -> Head:
        """The current head."""
        try:
            row = self._connection.execute("SELECT size, root, note FROM head WHERE one = 1").fetchone()
        except sqlite3.Error as error:
            raise _failure(error) from error
        if row is None:
            raise LedgerRefused("damaged", "the database has no head")
        return Head(*row)

    def scan(self) -> Iterator[bytes]:
        """Every entry in order; LedgerRefused at the first gap, or if a statement id is missing."""
        try:
            expected = 0
            for index, body in self._connection.execute("SELECT idx, body FROM entry ORDER BY idx"):
                if index != expected:
                    raise LedgerRefused("damaged", f"entry {expected} is missing from the database")
                expected += 1
                yield body
            (statements,) = self._connection.execute("SELECT count(*) FROM statement").fetchone()
        except sqlite3.Error as error:
            raise _failure(error) from error
        if statements != expected - 1:
            raise LedgerRefused("damaged", f"{expected} entries need {expected - 1} statement ids, found {statements}")

    def read(self, first: int, limit: int) -> list[bytes]:
        """At most `limit` entries from index `first`."""
        try:
            rows = self._connection.execute(
                "SELECT body FROM entry WHERE idx >= ? ORDER BY idx LIMIT ?", (first, limit)
            ).fetchall()
        except sqlite3.Error as error:
            raise _failure(error) from error
        return [row[0] for row in rows]

    @contextlib.contextmanager
    def transaction(self) -> Generator[Transaction, None, None]:
        """A write transaction: committed and durable when the block ends, rolled back if it raises."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise _failure(error) from error

    def beside(self) -> Store:
        """A second connection to the same database, for another thread."""
        return Store(_connect(self._path, mode="rw"), self._path)

    def tidy(self) -> None:
        """Copies the WAL into the database as far as readers allow; meant for a connection of its own."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            raise _failure(error) from error

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()
