"""The run folder: nothing appears under a final name before the whole run is done.

While a run is under way everything lies in ``OUT/.partial``, with ``run.json`` saying which run it is; at the end
the files move up, ``metrics.json`` last, and ``.partial`` goes. So a folder either holds a finished run, or an
unfinished one that can go on, or none.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.frames import frame, run_row
from pymixunlearn.experiments.common.provenance import utc_now
from pymixunlearn.files import sweep, sync_folder, write_atomically
from pymixunlearn.training.process_pool import end_if_imported

LAST = "metrics.json"
"""The file that moves last: where it is, the run is finished."""
LOCK = ".lock"
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE)


class Busy(UserError):
    """Another process is at work in a folder: nothing is wrong with the run."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, the content of its ``metrics.json``, and whether it had been finished before."""

    folder: Path
    record: dict[str, Any]
    known: bool

    def to_frame(self) -> Any:
        """Return the run as a pandas data frame of one row, see :func:`~.frames.run_row` for its columns.

        Raises:
            UserError: pandas is not installed.
        """
        return frame([run_row(self.record)])


class RunFolder:
    """One run's output folder.

    Args:
        path: The folder; it need not exist.
        identity: Everything that determines the run's outcome, JSON-able. Another identity is another run.
        look_only: Leave the folder as it is, whatever a killed process has left in it.

    Raises:
        UserError: The folder holds another run, or something that is no run.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], *, look_only: bool = False) -> None:
        self.path = path
        self.partial = path / ".partial"
        # Through JSON once, so that tuples and the like compare equal to what is read back.
        self._identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._check()
        if not look_only:
            self._sweep()

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return (self.path / LAST).is_file()

    @property
    def started(self) -> bool:
        """Whether an unfinished run is here that can go on."""
        return not self.finished and (self.partial / "run.json").is_file()

    @property
    def start_time(self) -> str:
        """When the unfinished run was first begun, in UTC."""
        return str(read_json(self.partial / "run.json")["started"])

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Make the folder and say which run it holds; what the block writes goes to the unfinished run.

        A ``UserError`` in the block means that the run would fail again in the same way: nothing is left of it then.
        After anything else, as Ctrl-C or a full disk, the run can go on.

        Raises:
            UserError: The folder cannot be written, or another process is at work in it.
        """
        end_if_imported()
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.partial / LOCK)
            lock.acquire(blocking=False)
        except Timeout:
            raise Busy(
                f"another process is at work on the run in '{self.path}'; wait for it to end, or choose another folder"
            ) from None
        except OSError as error:
            raise UserError(f"output folder '{self.path}' cannot be written: {error.strerror}") from error
        try:
            if self.finished:
                raise Busy(f"another process has just finished the run in '{self.path}'; give the command again")
            if not self.started:
                self._clear()  # what a process left that was killed while it removed a run: it is nobody's
                self.write_json("run.json", {**self._identity, "started": utc_now()})
            yield
        except OSError as error:
            if _of_storage(error):
                raise self._kept(f"'{error.filename or self.path}' cannot be written: {error.strerror}") from error
            raise
        except UserError as error:
            if _of_storage(error):
                raise self._kept(str(error)) from error
            shutil.rmtree(self.partial, ignore_errors=True)
            if not any(self.path.iterdir()):
                self.path.rmdir()
            raise
        finally:
            lock.release()

    def write_text(self, name: str, text: str) -> None:
        """Write ``name`` into the unfinished run, whole or not at all."""
        write_atomically(self.partial / name, text.encode())

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write ``value`` as JSON into the unfinished run, whole or not at all."""
        write_json(self.partial / name, value)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a file of the finished run.

        Raises:
            UserError: The file is missing or is not JSON.
        """
        return read_json(self.path / name)

    def publish(self, names: tuple[str, ...]) -> None:
        """Move the files ``names`` to their final place, ``metrics.json`` last, and drop the rest."""
        for name in names:
            if name != LAST:
                self._move_up(name)
        # Before the run counts as finished, so that no finished folder holds an earlier state of the model.
        self._clear(keep=(LAST, "run.json"))
        sync_folder(self.path)  # so that not even a power cut can leave the last name without the others
        self._move_up(LAST)
        sync_folder(self.path)
        # Another process that finds the run finished removes it, too.
        shutil.rmtree(self.partial, ignore_errors=True)

    def _kept(self, message: str) -> UserError:
        where = f"{message}; what is done so far stays in '{self.path}' and the cache"
        return UserError(f"{where}: free some space or make it writable, and give the command again")

    def _move_up(self, name: str) -> None:
        if (self.path / name).is_dir():  # of an attempt that ended while it published
            shutil.rmtree(self.path / name)
        os.replace(self.partial / name, self.path / name)

    def _clear(self, keep: tuple[str, ...] = ()) -> None:
        """Remove what lies in the unfinished run, but for ``keep`` and the lock."""
        for path in self.partial.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in (*keep, LOCK):
                path.unlink()

    def _sweep(self) -> None:
        """Remove what a process that was killed while it published or wrote has left of a finished run."""
        if not self.finished:
            return
        shutil.rmtree(self.partial, ignore_errors=True)
        sweep(self.path)

    def _check(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"output folder '{self.path}' is a file; give the name of a folder")
        if self.started:
            held = read_json(self.partial / "run.json")
        elif (self.path / "config.json").is_file():
            held = read_json(self.path / "config.json")
        elif self.path.is_dir() and any(entry.name != ".partial" for entry in self.path.iterdir()):
            raise UserError(f"output folder '{self.path}' is not empty and holds no run; choose another with --out")
        else:
            return
        different = _difference(held, self._identity)
        if different is not None:
            kind = "another, unfinished run" if self.started else "another run"
            raise UserError(
                f"output folder '{self.path}' holds {kind} ({different}); choose another with --out, or delete it"
            )


class RecordFolder:
    """The folder of a command that makes many runs, with one JSON file that says what it is and how far it has come.

    Args:
        path: The folder; it need not exist.
        record: The name of that file.
        kind: What the file describes, for messages: "comparison".
    """

    def __init__(self, path: Path, record: str, kind: str) -> None:
        self.path, self.record, self.kind = path, record, kind

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and keep it to this process while the block lasts.

        Raises:
            UserError: It is a file, or another process is at work in it.
        """
        end_if_imported()
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"output folder '{self.path}' is a file; give the name of a folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK)
            lock.acquire(blocking=False)
        except Timeout:
            raise UserError(
                f"another process is at work in the output folder '{self.path}'; wait for it to end"
            ) from None
        except OSError as error:
            raise UserError(f"output folder '{self.path}' cannot be written: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    def read(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of the record, or nothing where the folder is new.

        Raises:
            UserError: The folder holds something of another identity, or something else altogether.
        """
        path = self.path / self.record
        if not path.is_file():
            if any(entry.name != LOCK for entry in self.path.iterdir()):
                raise UserError(
                    f"output folder '{self.path}' is not empty and holds no {self.kind}; choose another with --out"
                )
            return {}
        held = read_json(path)
        different = _difference(held, json.loads(json.dumps(identity)))
        if different is not None:
            raise UserError(
                f"output folder '{self.path}' holds another {self.kind} ({different}); choose another with --out"
            )
        return held

    def write(self, record: Mapping[str, Any], texts: Mapping[str, str]) -> None:
        """Write ``texts`` by file name, and then the record, each whole or not at all."""
        for name, text in {**texts, self.record: _as_json(record)}.items():
            write_atomically(self.path / name, text.encode())


def _of_storage(error: BaseException | None) -> bool:
    """Whether an error comes from a disk that is full, gone or read-only; another attempt may succeed then."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _STORAGE:
            return True
        error = error.__cause__ or error.__context__
    return False


def _difference(held: Any, wanted: Any, name: str = "") -> str | None:
    """Say where ``held`` first differs from ``wanted``, or return None; what ``held`` has besides does not count."""
    if isinstance(held, dict) and isinstance(wanted, dict):
        for key, value in wanted.items():
            found = _difference(held.get(key), value, f"{name}.{key}" if name else key)
            if found is not None:
                return found
        return None
    return None if held == wanted else f"its {name} is {_short(held)}, not {_short(wanted)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as JSON, whole or not at all."""
    write_atomically(path, _as_json(value).encode())


def _as_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: The file is missing or is not one.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"run file '{path}' cannot be read ({error}); choose another folder with --out") from error
    if not isinstance(value, dict):
        raise UserError(f"run file '{path}' is not a JSON object; choose another folder with --out")
    return value
