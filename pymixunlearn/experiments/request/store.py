"""Store of a ledger: tables in SQLite through SQLAlchemy, which can be added to and neither changed nor deleted from.

Only the table of the clear ids can be emptied. Every write begins with BEGIN IMMEDIATE, before the last hash is read,
so that two writers cannot follow the same entry.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymixunlearn.data.optional import require
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.provenance import utc_now
from pymixunlearn.experiments.common.signing import ENTRY, Signer
from pymixunlearn.experiments.request.entries import Entry, make_entry

if TYPE_CHECKING:
    from sqlalchemy import Connection

FILE = "ledger.sqlite"
APPEND_ONLY = ("entries", "samples", "persons", "settings")
_SECONDS = 30.0
_TRIGGER = (
    "CREATE TRIGGER {table}_no_{what} BEFORE {what} ON {table} BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
)


class Store:
    """The database of a ledger.

    Args:
        folder: The ledger's folder; it must exist.

    Raises:
        UserError: SQLAlchemy is missing.
    """

    def __init__(self, folder: Path) -> None:
        require("sqlalchemy", purpose="'request'", remedy="install it: pip install 'pymixunlearn[requests]'")
        import sqlalchemy as sa

        self.file = folder / FILE
        self._sa = sa
        url = sa.URL.create("sqlite", database=str(self.file.absolute()))
        self._engine = sa.create_engine(url, connect_args={"timeout": _SECONDS}, poolclass=sa.NullPool)
        sa.event.listen(self._engine, "connect", _prepare)
        sa.event.listen(self._engine, "begin", _begin)
        self._metadata = sa.MetaData()
        integer, text = sa.Integer, sa.Text

        def table(name: str, *columns: sa.Column[Any]) -> sa.Table:
            return sa.Table(name, self._metadata, *columns)

        self._entries = table(
            "entries",
            sa.Column("seq", integer, primary_key=True, autoincrement=False),
            sa.Column("content", text, nullable=False),
            sa.Column("sha256", text, nullable=False, unique=True),
            sa.Column("signature", text),
        )
        self._samples = table(
            "samples",
            sa.Column("seq", integer, primary_key=True, autoincrement=False),
            sa.Column("id_hash", sa.LargeBinary, primary_key=True),
            sa.Column("pixel_hash", sa.LargeBinary),
        )
        self._persons = table(
            "persons",
            sa.Column("seq", integer, primary_key=True, autoincrement=False),
            sa.Column("id_hash", text, primary_key=True),
        )
        self._settings = table(
            "settings",
            sa.Column("sha256", text, primary_key=True),
            sa.Column("content", text, nullable=False),
        )
        self._clear = table(
            "clear_ids",
            sa.Column("row", integer, primary_key=True),
            sa.Column("seq", integer, nullable=False),
            sa.Column("person", text),
            sa.Column("sample", text),
        )

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Give a writer; all that it writes is there when the block ends, or nothing where it ends in an error.

        Raises:
            UserError: The database cannot be written, or another process holds it for too long.
        """
        try:
            # Clear ids of people stand in it: its owner alone may read it.
            os.close(os.open(self.file, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise UserError(f"the ledger '{self.file}' cannot be written: {error.strerror}") from error
        try:
            with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
                yield Writer(self, connection)
        except self._sa.exc.DatabaseError as error:
            raise UserError(f"the ledger '{self.file}' cannot be written: {error.orig}") from error

    def create(self, connection: Connection) -> None:
        """Make the tables and the triggers that refuse changes, as far as they are not there."""
        self._metadata.create_all(connection)
        known = set(self.triggers(connection))
        for name in APPEND_ONLY:
            for what in ("UPDATE", "DELETE"):
                if f"{name}_no_{what}" not in known:
                    connection.exec_driver_sql(_TRIGGER.format(table=name, what=what))

    def triggers(self, connection: Connection | None = None) -> list[str]:
        """Return the names of the triggers that refuse changes."""
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND sql LIKE '%RAISE(ABORT%'"
        if connection is not None:
            return [row[0] for row in connection.exec_driver_sql(query)]
        return [row[0] for row in self._read(self._sa.text(query))]

    def entries(self) -> list[Entry]:
        """Return all entries in their order.

        Raises:
            UserError: There is no database, or it cannot be read.
        """
        rows = self._read(self._sa.select(self._entries).order_by(self._entries.c.seq))
        return [_entry(row) for row in rows]

    def samples(self) -> dict[int, dict[bytes, bytes | None]]:
        """Return for each entry the keyed hashes of its samples' ids, with those of their pixels."""
        found: dict[int, dict[bytes, bytes | None]] = {}
        for seq, id_hash, pixel_hash in self._read(self._sa.select(self._samples)):
            found.setdefault(seq, {})[id_hash] = pixel_hash
        return found

    def persons(self) -> dict[int, set[str]]:
        """Return for each entry the keyed hashes of the user ids that it names."""
        found: dict[int, set[str]] = {}
        for seq, id_hash in self._read(self._sa.select(self._persons)):
            found.setdefault(seq, set()).add(id_hash)
        return found

    def clear_ids(self) -> list[tuple[int, str | None, str | None]]:
        """Return the clear ids that are still there: entry, user id, sample."""
        columns = self._clear.c
        rows = self._read(self._sa.select(columns.seq, columns.person, columns.sample).order_by(columns.row))
        return [(row[0], row[1], row[2]) for row in rows]

    def settings(self, sha256: str) -> str:
        """Return saved settings by their hash.

        Raises:
            UserError: They are not there.
        """
        rows = self._read(self._sa.select(self._settings.c.content).where(self._settings.c.sha256 == sha256))
        if not rows:
            raise UserError(f"the ledger '{self.file}' lacks the settings {sha256[:12]}… that an entry names")
        return str(rows[0][0])

    def vacuum(self) -> None:
        """Rewrite the file, so that no page of it holds what was deleted."""
        connection = self._engine.raw_connection()
        try:
            connection.cursor().execute("VACUUM")
        finally:
            connection.close()

    def _read(self, query: Any) -> list[Any]:
        if not self.file.is_file():
            raise UserError(f"'{self.file.parent}' holds no ledger; expected one of 'request init', by --ledger DIR")
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(query).all())
        except self._sa.exc.DatabaseError as error:
            raise UserError(f"the ledger '{self.file}' cannot be read: {error.orig}") from error


class Writer:
    """Access to the tables within one transaction of :meth:`Store.writing`."""

    def __init__(self, store: Store, connection: Connection) -> None:
        self._store, self._connection, self._sa = store, connection, store._sa

    def create(self) -> None:
        """Make the tables, as far as they are not there."""
        self._store.create(self._connection)

    def entries(self) -> list[Entry]:
        """Return all entries as they are within the transaction."""
        table = self._store._entries
        return [_entry(row) for row in self._connection.execute(self._sa.select(table).order_by(table.c.seq))]

    def append(self, kind: str, body: Mapping[str, Any], signer: Signer | None = None) -> dict[str, Any]:
        """Add an entry after the last one, and return its content."""
        table = self._store._entries
        query = self._sa.select(table.c.seq, table.c.sha256).order_by(table.c.seq.desc()).limit(1)
        seq, previous = self._connection.execute(query).one_or_none() or (0, None)
        entry = make_entry(kind, seq + 1, previous, utc_now(), body)
        signature = None
        if signer is not None:
            about = {"seq": seq + 1, "kind": kind}
            signature = json.dumps(signer.sign(ENTRY, f"ledger entry {seq + 1}", entry.sha256, about))
        row = {"seq": seq + 1, "content": entry.text, "sha256": entry.sha256, "signature": signature}
        self._connection.execute(self._store._entries.insert(), row)
        return entry.content

    def add_samples(self, seq: int, samples: Mapping[bytes, bytes | None]) -> None:
        """Add the hashes of an entry's samples."""
        rows = [{"seq": seq, "id_hash": key, "pixel_hash": value} for key, value in samples.items()]
        self._insert(self._store._samples, rows)

    def add_persons(self, seq: int, persons: Iterable[str]) -> None:
        """Add the hashes of the user ids of an entry."""
        self._insert(self._store._persons, [{"seq": seq, "id_hash": key} for key in persons])

    def add_settings(self, sha256: str, content: str) -> None:
        """Add settings, if they are not there."""
        table = self._store._settings
        if not self._connection.execute(self._sa.select(table.c.sha256).where(table.c.sha256 == sha256)).all():
            self._insert(table, [{"sha256": sha256, "content": content}])

    def add_clear_ids(self, seq: int, rows: Iterable[tuple[str | None, str | None]]) -> None:
        """Add the clear ids of an entry: user id and sample."""
        self._insert(self._store._clear, [{"seq": seq, "person": one, "sample": other} for one, other in rows])

    def purge(self, entries: Iterable[int]) -> int:
        """Delete the clear ids of entries, and return how many rows that were."""
        table = self._store._clear
        return int(self._connection.execute(table.delete().where(table.c.seq.in_(list(entries)))).rowcount)

    def _insert(self, table: Any, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._connection.execute(table.insert(), rows)


def _entry(row: Any) -> Entry:
    signature = None if row.signature is None else json.loads(row.signature)
    return Entry(row.content, row.sha256, signature)


def _prepare(connection: Any, record: object) -> None:
    connection.isolation_level = None  # so that the driver begins no transaction of its own
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA synchronous = FULL")


def _begin(connection: Any) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
