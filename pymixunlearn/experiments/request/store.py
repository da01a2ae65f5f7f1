"""Store of a ledger: tables in a database through SQLAlchemy, which can be added to, not changed or deleted from.

Only the table of the clear ids can be emptied. Every write keeps other writers out before the last hash is read, so
that two of them cannot follow the same entry. What differs between databases is in :mod:`.databases`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymixunlearn.display import printable
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.provenance import utc_now
from pymixunlearn.experiments.common.signing import ENTRY, Signer
from pymixunlearn.experiments.request.databases import database, sqlalchemy
from pymixunlearn.experiments.request.entries import Entry, make_entry

if TYPE_CHECKING:
    from sqlalchemy import Connection

APPEND_ONLY = ("entries", "samples", "persons", "settings")
_SHOWN = 8


class Store:
    """The database of a ledger.

    Args:
        folder: The ledger's folder; it must exist where somebody writes.
        url: The database, where it is not a file in the folder.

    Raises:
        BadRequest: The URL is none of PostgreSQL.
        UserError: SQLAlchemy or the driver is missing.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        sa: Any = sqlalchemy()
        self._sa = sa
        self._database = database(folder if url is None else url, folder)
        self._engine = self._database.engine
        self.name = self._database.name
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
            sa.Column("row", integer, sa.Identity(), primary_key=True),
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
            self._database.prepare()
        except OSError as error:
            raise UserError(f"the ledger '{self.name}' cannot be written: {error.strerror}") from error
        with (
            self._failing("written"),
            self._engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            yield Writer(self, connection)

    def create(self, connection: Connection) -> None:
        """Make the tables and the triggers that refuse changes, as far as they are not there."""
        self._metadata.create_all(connection)
        known = set(self._database.triggers(connection))
        for statement in self._database.setup(self._clear):
            connection.exec_driver_sql(statement)
        for table, what in self._refusals():
            if f"{table}_no_{what}" not in known:
                for statement in self._database.trigger(table, what):
                    connection.exec_driver_sql(statement)

    def lacking_triggers(self) -> list[str]:
        """Return the names of the triggers that should refuse changes and do not."""
        self._check_there()
        with self._failing("read"), self._engine.connect() as connection:
            known = set(self._database.triggers(connection))
        return [name for name in self.triggers() if name not in known]

    def triggers(self) -> list[str]:
        """Return the names of the triggers that a ledger has."""
        return sorted(f"{table}_no_{what}" for table, what in self._refusals())

    def check_new(self) -> None:
        """Check that a ledger can be begun.

        Raises:
            UserError: There is one already, or the database holds something else, or cannot be read.
        """
        if not self._database.missing():
            with self._failing("read"), self._engine.connect() as connection:
                self.check_empty(connection)

    def check_empty(self, connection: Connection) -> None:
        """Check likewise within a transaction."""
        look = self._sa.inspect(connection)
        own = self._metadata.tables
        there = look.get_table_names()
        others = [
            name
            for name in there
            if name not in own or {column["name"] for column in look.get_columns(name)} != {*own[name].c.keys()}
        ]
        ours = "entries" in there and "entries" not in others
        if ours and connection.execute(self._sa.select(self._entries.c.seq).limit(1)).all():
            raise UserError(f"'{self.name}' holds a ledger already; choose another one by --ledger")
        if others:
            shown = ", ".join(f"'{printable(name)}'" for name in sorted(others)[:_SHOWN])
            raise UserError(
                f"'{self.name}' holds other tables ({shown}{', …' if len(others) > _SHOWN else ''}); expected a "
                "database, or a schema of one, for the ledger alone"
            )

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Give True where no other process is in such a block for the same ledger, as far as the database can tell."""
        with ExitStack() as stack:
            with self._failing("read"):
                free = stack.enter_context(self._database.held())
            yield free

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
            raise UserError(f"the ledger '{self.name}' lacks the settings {sha256[:12]}… that an entry names")
        return str(rows[0][0])

    def rewrite_clear_ids(self) -> None:
        """Write the clear ids that are left anew, so that no file of theirs holds what was deleted."""
        with self._failing("written"):
            self._database.rewrite(self._clear)

    def _refusals(self) -> Iterator[tuple[str, str]]:
        return ((table, what) for table in APPEND_ONLY for what in self._database.refused)

    def _read(self, query: Any) -> list[Any]:
        self._check_there()
        with self._failing("read"), self._engine.connect() as connection:
            return list(connection.execute(query).all())

    def _check_there(self) -> None:
        if self._database.missing():
            raise self._no_ledger()

    def _no_ledger(self) -> UserError:
        return UserError(f"'{self._database.place}' holds no ledger; expected one of 'request init', by --ledger")

    @contextmanager
    def _failing(self, how: str) -> Iterator[None]:
        """Say an error of the database in one sentence."""
        try:
            yield
        except self._sa.exc.DBAPIError as error:
            if self._database.has_no_ledger(error):
                raise self._no_ledger() from error
            reason = self._database.reason(error)
            raise UserError(f"the ledger '{self.name}' cannot be {how}: {reason}") from error


class Writer:
    """Access to the tables within one transaction of :meth:`Store.writing`."""

    def __init__(self, store: Store, connection: Connection) -> None:
        self._store, self._connection, self._sa = store, connection, store._sa

    def create(self) -> None:
        """Make the tables.

        Raises:
            UserError: There is a ledger already, or something else.
        """
        self._store.check_empty(self._connection)
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
