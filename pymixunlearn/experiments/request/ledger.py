"""Ledger: a database, and a folder with the key that its hashes are made with and the runs that served requests.

The database is a file in the folder, or stands on a server.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timezone
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest
from pymixunlearn.experiments.common.forget_chain import KEY_FILE, key_id, keyed_sha256, new_key, read_key, write_key
from pymixunlearn.experiments.request.databases import FILE, is_url
from pymixunlearn.experiments.request.entries import State, state_of
from pymixunlearn.experiments.request.store import Store

FOLDER, RUNS = Path("ledger"), "runs"
MAX_DROP = 2.0
"""So many points of accuracy a served request may cost, unless the ledger says otherwise."""


class Ledger:
    """A ledger; :func:`pymixunlearn.experiments.request.init.run_init` makes one.

    Args:
        place: Its folder, or the URL of its database.
        folder: The folder beside a database; None is ``ledger``.

    Raises:
        BadRequest: The URL is none of PostgreSQL, or two folders are given.
        UserError: SQLAlchemy or the driver is missing, or the folder is none.
    """

    def __init__(self, place: Path | str, folder: Path | None = None) -> None:
        remote = is_url(place)
        if folder is not None and not remote:
            raise BadRequest("--ledger-dir goes with a database as --ledger; expected the folder by --ledger alone")
        self.folder = (FOLDER if folder is None else folder) if remote else Path(place)
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"ledger '{self.folder}' is a file; expected a folder")
        self.store = Store(self.folder, str(place) if remote else None)
        self._remote = remote

    @property
    def name(self) -> str:
        """How messages call it; without a password."""
        return self.store.name if self._remote else str(self.folder)

    @property
    def key_file(self) -> Path:
        """The file of the key."""
        return self.folder / KEY_FILE

    @cached_property
    def key(self) -> bytes:
        """The key that hashes of samples and user ids are made with.

        Raises:
            UserError: It is missing or another ledger's.
        """
        return read_key(self.key_file)

    def first_key(self, known: bytes | None) -> bytes:
        """Return the key to begin with: ``known``, which an earlier model's chain was made with, or a new one.

        Raises:
            UserError: The folder is another ledger's, so that their runs would be mixed.
        """
        there, file = self.key_file.is_file(), (self.folder / FILE).is_file()
        if (there or file) if self._remote else (there and not file and known is None):
            option = "--ledger-dir" if self._remote else "--ledger"
            raise UserError(f"'{self.folder}' is the folder of another ledger; choose another one by {option}")
        if known is not None and there and self.key != known:
            raise UserError(f"'{self.key_file}' is not the key of the given model; choose another folder by --ledger")
        return self.key if there else new_key() if known is None else known

    def keep_key(self, key: bytes) -> None:
        """Write the key, if it is not there."""
        if not self.key_file.is_file():
            write_key(self.key_file, key)

    def state(self) -> State:
        """Return what the entries say.

        Raises:
            UserError: There is no ledger, or it is damaged, or its key is another's.
        """
        entries = self.store.entries()
        if not entries:
            raise UserError(f"'{self.name}' holds no ledger; expected one of 'request init', by --ledger")
        state = state_of(entries)
        if self.key_file.is_file() and key_id(self.key) != state.init["key_id"]:
            raise UserError(f"'{self.key_file}' is the key of another ledger")
        return state

    def person_hash(self, name: str) -> str:
        """Return the keyed hash of a user id."""
        return keyed_sha256(self.key, "person", name)

    def run_folder(self, name: str) -> Path:
        """Return the folder of a run of this ledger."""
        return self.folder / RUNS / name

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs of this ledger from beginning while the block lasts; requests can be added meanwhile.

        Raises:
            UserError: Another process is at work.
        """
        busy = f"another process serves requests of the ledger '{self.name}'; wait for it"
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise UserError(busy) from None
        except OSError as error:
            raise UserError(f"ledger '{self.folder}' cannot be written: {error.strerror}") from error
        try:
            with self.store.held() as free:
                if not free:
                    raise UserError(busy)
                yield
        finally:
            lock.release()


def today() -> date:
    """Return the date in UTC."""
    return datetime.now(timezone.utc).date()


def parse_date(text: str | None) -> date:
    """Read a date as YYYY-MM-DD; None is today.

    Raises:
        BadRequest: It is none, or lies in the future.
    """
    if text is None:
        return today()
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"'{text}' does not read as a date; expected YYYY-MM-DD, for example 2026-05-31") from None
    if found > today():
        raise BadRequest(f"{text} lies in the future; expected the date on which the request was received")
    return found


def month_after(day: date) -> date:
    """Return the same day of the next month, or its last day where it is shorter.

    Example:
        >>> month_after(date(2027, 1, 31)).isoformat()
        '2027-02-28'
    """
    year, month = (day.year + 1, 1) if day.month == 12 else (day.year, day.month + 1)
    return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))
