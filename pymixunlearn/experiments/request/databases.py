"""What differs between the databases that can hold a ledger: SQLite in its folder, and PostgreSQL by a URL.

The tables, what is read from them and what is written into them are the same, in :mod:`.store`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymixunlearn.data.optional import require
from pymixunlearn.experiments.common.bad_request import BadRequest

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, Table

FILE = "ledger.sqlite"
FORM = "postgresql+psycopg://USER@HOST:PORT/DATABASE"
SECONDS = 30
"""So long a writer waits for another one."""


def is_url(place: Path | str) -> bool:
    """Tell whether a ledger is given by the URL of a database, and not by its folder."""
    return isinstance(place, str) and "://" in place


def sqlalchemy() -> Any:
    """Import SQLAlchemy.

    Raises:
        UserError: It is missing.
    """
    return require("sqlalchemy", purpose="'request'", remedy="install it: pip install 'pymixunlearn[requests]'")


def database(place: Path | str, folder: Path) -> Database:
    """Return the database of a ledger.

    Args:
        place: Its URL, or the ledger's folder.
        folder: The ledger's folder.

    Raises:
        BadRequest: It is a URL, and none of PostgreSQL.
        UserError: A library is missing.
    """
    return PostgresServer(str(place)) if is_url(place) else SqliteFile(folder)


class Database(ABC):
    """A database, as far as it is not like the other.

    Attributes:
        name: How messages call it; without a password.
        place: How they call where a ledger is looked for.
        refused: What triggers refuse on tables that can only be added to.
        engine: SQLAlchemy's; transactions of a connection with the option ``writes`` keep all other writers out.
    """

    name: str
    place: str
    refused: tuple[str, ...]
    engine: Engine

    @abstractmethod
    def missing(self) -> bool:
        """Tell whether it is known, without asking a server, that there is none."""

    @abstractmethod
    def prepare(self) -> None:
        """Do what has to be done before somebody writes.

        Raises:
            OSError: That is not possible.
        """

    @abstractmethod
    def trigger(self, table: str, what: str) -> tuple[str, ...]:
        """Return the statements that make the trigger ``TABLE_no_WHAT``."""

    @abstractmethod
    def triggers(self, connection: Connection) -> list[str]:
        """Return the names of the triggers that refuse changes."""

    @abstractmethod
    def rewrite(self, table: Table) -> None:
        """Write a table anew, so that no file of it holds what was deleted."""

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Give True where nobody else is in such a block for the same ledger, as far as the database can tell."""
        yield True

    def setup(self, clear: Table) -> tuple[str, ...]:
        """Return the statements that stand between the tables and their triggers.

        Args:
            clear: The table that can be emptied.
        """
        return ()

    def reason(self, error: Any) -> str:
        """Return what went wrong in one line."""
        return str(error.orig)

    def has_no_ledger(self, error: Any) -> bool:
        """Tell whether an error means that the tables are not there."""
        return False


class SqliteFile(Database):
    """The file ``ledger.sqlite`` in a ledger's folder."""

    refused = ("UPDATE", "DELETE")

    def __init__(self, folder: Path) -> None:
        sa = sqlalchemy()
        self.file = folder / FILE
        self.name, self.place = str(self.file), str(folder)
        url = sa.URL.create("sqlite", database=str(self.file.absolute()))
        self.engine = sa.create_engine(url, connect_args={"timeout": float(SECONDS)}, poolclass=sa.NullPool)
        sa.event.listen(self.engine, "connect", _prepare_sqlite)
        sa.event.listen(self.engine, "begin", _begin_sqlite)

    def missing(self) -> bool:
        """Tell whether there is no file."""
        return not self.file.is_file()

    def prepare(self) -> None:
        """Make the file: clear ids of people stand in it, and its owner alone may read it."""
        os.close(os.open(self.file, os.O_CREAT | os.O_RDWR, 0o600))

    def trigger(self, table: str, what: str) -> tuple[str, ...]:
        """Return the statement for one."""
        message = f"{table} is append-only"
        return (
            f"CREATE TRIGGER {table}_no_{what} BEFORE {what} ON {table} BEGIN SELECT RAISE(ABORT, '{message}'); END",
        )

    def triggers(self, connection: Connection) -> list[str]:
        """Return their names."""
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND sql LIKE '%RAISE(ABORT%'"
        return [row[0] for row in connection.exec_driver_sql(query)]

    def rewrite(self, table: Table) -> None:
        """Write the whole file anew, outside a transaction, which VACUUM refuses."""
        connection = self.engine.raw_connection()
        try:
            connection.cursor().execute("VACUUM")
        finally:
            connection.close()


class PostgresServer(Database):
    """A schema of a database of a PostgreSQL server: the one in which the server makes new tables for this user.

    Args:
        place: The URL.

    Raises:
        BadRequest: It is none of PostgreSQL.
        UserError: The driver is missing.
    """

    refused = ("UPDATE", "DELETE", "TRUNCATE")

    def __init__(self, place: str) -> None:
        sa = sqlalchemy()
        url = _postgresql_url(sa, place)
        require(
            "psycopg", purpose="a ledger in PostgreSQL", remedy="install it: pip install 'pymixunlearn[postgresql]'"
        )
        # A password can stand in the query too.
        shown = sa.URL.create(url.drivername, url.username, None, url.host, url.port, url.database)
        self.name = self.place = shown.render_as_string()
        given: dict[str, Any] = {"client_encoding": "utf8"}
        if "connect_timeout" not in url.query:
            given["connect_timeout"] = 10
        # After the wait for another writer, a statement has to see what that one wrote: not so in stricter levels.
        self.engine = sa.create_engine(
            url, connect_args=given, poolclass=sa.NullPool, isolation_level="READ COMMITTED", hide_parameters=True
        )
        sa.event.listen(self.engine, "begin", _begin_postgresql)

    def missing(self) -> bool:
        """Return False: the server knows."""
        return False

    def prepare(self) -> None:
        """Do nothing: the database is there, or the server says that it is not."""

    def setup(self, clear: Table) -> tuple[str, ...]:
        """Return the statement for the function that triggers call, and those that keep clear ids out of statistics.

        ANALYZE, which a server runs by itself, copies common values of a column to where no DELETE reaches.
        """
        texts = [column.name for column in clear.columns if not column.primary_key]
        return (
            f"CREATE OR REPLACE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $${_REFUSE}$$",
            *(f"ALTER TABLE {clear.name} ALTER COLUMN {name} SET STATISTICS 0" for name in texts),
        )

    def trigger(self, table: str, what: str) -> tuple[str, ...]:
        """Return the statements for one that holds in every session, those of replication too."""
        name = f'"{table}_no_{what}"'
        return (
            f"CREATE TRIGGER {name} BEFORE {what} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION append_only()",
            f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}",
        )

    def triggers(self, connection: Connection) -> list[str]:
        """Return the names of those that are switched on and call the function as it was made."""
        query = (
            "SELECT tgname FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid "
            f"WHERE tgenabled = 'A' AND tgqual IS NULL AND prosrc = $${_REFUSE}$$ "
            "AND tgrelid = to_regclass(split_part(tgname::text, '_no_', 1))"
        )
        return [row[0] for row in connection.exec_driver_sql(query)]

    def rewrite(self, table: Table) -> None:
        """Empty a table with TRUNCATE and put its rows back in the same transaction, which gives it new files.

        VACUUM FULL would copy deleted rows that an older transaction, such as that of a backup, can still see.
        """
        with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            rows = [dict(row) for row in connection.execute(table.select().order_by(*table.primary_key)).mappings()]
            connection.exec_driver_sql(f"TRUNCATE {table.name}")
            if rows:
                connection.execute(table.insert(), rows)

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold a lock of the server: processes on several machines can serve one ledger.

        Where the connection is cut, the lock is gone; what is written is compared with the entries all the same.
        """
        connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            yield bool(connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_SERVING}, {_LEDGER})").scalar())
        finally:
            connection.invalidate()  # the server lets go with the connection, which may be broken
            connection.close()

    def reason(self, error: Any) -> str:
        """Return what the server or the driver says, in one line."""
        if getattr(error.orig, "sqlstate", None) == "55P03":
            return "another process holds it"
        said = getattr(getattr(error.orig, "diag", None), "message_primary", None)
        return " ".join((said or str(error.orig)).split())

    def has_no_ledger(self, error: Any) -> bool:
        """Tell whether the table of the entries is not there."""
        return getattr(error.orig, "sqlstate", None) == "42P01" and '"entries"' in str(error.orig)


_REFUSE = "BEGIN RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only'; END"
_WRITING, _SERVING = 0x4C454401, 0x4C454402
"""Kinds of locks, any two numbers that other programs are not likely to use in the same database."""
_LEDGER = (
    "coalesce(to_regclass('entries')::oid, (SELECT oid FROM pg_namespace WHERE nspname = current_schema()))::integer"
)
"""Which ledger a lock is about; before there are tables, the schema that they will be in."""


def _postgresql_url(sa: Any, place: str) -> URL:
    # What was given may hold a password, so that no message repeats it.
    try:
        url: URL = sa.make_url(place)
    except (sa.exc.ArgumentError, ValueError):
        raise BadRequest(f"the URL of --ledger cannot be read; expected {FORM}") from None
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        kind = place.partition("://")[0]
        raise BadRequest(f"--ledger names a database of the kind '{kind}'; expected a folder, or {FORM}")
    if "@" in (url.host or "") + (url.database or ""):
        raise BadRequest("the URL of --ledger has an '@' too many; expected %40 for each one in a password")
    return url.set(drivername="postgresql+psycopg")


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # so that the driver begins no transaction of its own
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: Any) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_postgresql(connection: Any) -> None:
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{SECONDS}s'")
        # An entry that was written is on the disk, however the server is set.
        connection.exec_driver_sql(
            "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
        )
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITING}, {_LEDGER})")
