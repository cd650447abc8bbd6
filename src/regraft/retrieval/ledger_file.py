"""The SQLite file that a ledger is kept in."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from regraft.errors import RunError

FORMAT = 2
BUSY_S = 30.0

SCHEMA = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE batches (
        number INTEGER PRIMARY KEY, stage TEXT NOT NULL, ids TEXT NOT NULL, items INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'taken', 'done')), run INTEGER, done_at REAL,
        rows INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
        compute_s REAL NOT NULL DEFAULT 0, store_s REAL NOT NULL DEFAULT 0, uncertainty BLOB
    )""",
    "CREATE INDEX unfinished ON batches (stage, number) WHERE state != 'done'",
    # Sums are asked for after every batch, of which there may be a hundred thousand: they are kept, not made.
    """CREATE TABLE totals (
        stage TEXT PRIMARY KEY, items_done INTEGER NOT NULL DEFAULT 0, items INTEGER NOT NULL DEFAULT 0,
        batches_done INTEGER NOT NULL DEFAULT 0, batches INTEGER NOT NULL DEFAULT 0,
        rows INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
        compute_s REAL NOT NULL DEFAULT 0, store_s REAL NOT NULL DEFAULT 0
    ) WITHOUT ROWID""",
    """CREATE TABLE paces (
        stage TEXT NOT NULL, run INTEGER NOT NULL, items INTEGER NOT NULL, done_at REAL NOT NULL,
        PRIMARY KEY (stage, run)
    ) WITHOUT ROWID""",
    """CREATE TRIGGER laid_out AFTER INSERT ON batches BEGIN
        INSERT INTO totals (stage, items, batches) VALUES (new.stage, new.items, 1)
        ON CONFLICT (stage) DO UPDATE SET items = items + new.items, batches = batches + 1;
    END""",
    """CREATE TRIGGER done AFTER UPDATE OF state ON batches
    WHEN old.state != 'done' AND new.state = 'done' BEGIN
        UPDATE totals SET items_done = items_done + new.items, batches_done = batches_done + 1,
            rows = rows + new.rows, bytes = bytes + new.bytes,
            compute_s = compute_s + new.compute_s, store_s = store_s + new.store_s
        WHERE stage = new.stage;
        INSERT INTO paces VALUES (new.stage, new.run, new.items, new.done_at)
        ON CONFLICT (stage, run) DO UPDATE SET items = items + new.items, done_at = new.done_at;
    END""",
    "CREATE TABLE gone (id TEXT PRIMARY KEY, reason TEXT NOT NULL, run INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE metrics (
        number INTEGER PRIMARY KEY, name TEXT NOT NULL, value REAL NOT NULL, items_done INTEGER NOT NULL,
        at TEXT NOT NULL
    )""",
    """CREATE TABLE runs (
        number INTEGER PRIMARY KEY, process INTEGER NOT NULL, host TEXT NOT NULL, since TEXT NOT NULL,
        began REAL NOT NULL, seen TEXT NOT NULL
    )""",
)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, or make an empty one.

    Raises:
        RunError: It is no SQLite file, or cannot be opened.
    """
    try:
        # No isolation level: transactions begin where `transaction` says so, and at once for writing.
        database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error as error:
        raise RunError(f"{path} cannot be opened as a ledger: {error}.") from error
    return database


@contextmanager
def transaction(database: sqlite3.Connection) -> Generator[None]:
    """Commit all that the block writes, or nothing.

    Raises:
        RunError: The file cannot be written, or another process kept it for half a minute.
    """
    try:
        database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise RunError(f"The ledger cannot be written: {error}.") from error


def initialise(database: sqlite3.Connection, facts: dict[str, str]) -> None:
    """Make the tables of a ledger with its first facts, unless it has them."""
    with transaction(database):
        if format_of(database) != 0:
            return
        for statement in SCHEMA:
            database.execute(statement)
        database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
        database.execute(f"PRAGMA user_version = {FORMAT}")


def check_format(database: sqlite3.Connection, path: Path) -> None:
    """Raise RunError unless the file is a ledger that this release reads."""
    written = format_of(database)
    if written == 0:
        raise RunError(f"{path} holds no upgrade; expected the ledger of one.", hint="Plan one.")
    if written != FORMAT:
        raise RunError(
            f"{path} is a ledger of format {written}; this release reads format {FORMAT}.",
            hint="pip install --upgrade regraft",
        )


def format_of(database: sqlite3.Connection) -> int:
    """The format that a file was written in; 0 if it is empty."""
    return cast(int, database.execute("PRAGMA user_version").fetchone()[0])
