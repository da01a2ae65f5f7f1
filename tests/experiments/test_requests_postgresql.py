"""A ledger in PostgreSQL, on a real server: as in SQLite, with several writers, and where connections are cut."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mixunlearn_cli.main import main

from pymixunlearn.errors import UserError
from pymixunlearn.experiments.request.export import run_export
from pymixunlearn.experiments.request.inputs import ExportInputs, PurgeInputs
from pymixunlearn.experiments.request.ledger import Ledger
from pymixunlearn.experiments.request.purge import run_purge
from tests.experiments.postgres_server import PASSWORD, QUOTED, Server
from tests.experiments.postgres_writer import write
from tests.experiments.test_requests_ledger import asked, begun, failed, trained  # noqa: F401  # a fixture

pytestmark = pytest.mark.extras


@dataclass(frozen=True)
class Place:
    """A ledger in a database of a server."""

    server: Server
    database: str
    folder: Path

    @property
    def where(self) -> dict[str, Any]:
        """The fields of inputs that name it."""
        return {"ledger": self.server.url(self.database), "ledger_dir": self.folder}

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        return Ledger(self.server.url(self.database), self.folder)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Carry out a statement as the owner of the database."""
        return self.server.sql(statement, self.database)

    def failed(self, **fields: Any) -> list[str]:
        """Verify it, and return what does not hold."""
        return failed(**self.where, **fields)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def place(postgres: Server, tmp_path: Path) -> Place:
    return Place(postgres, postgres.database(), tmp_path / "beside")


@pytest.fixture
def made(place: Place, trained: Path) -> Place:  # noqa: F811
    """A ledger without requests."""
    begun(trained, **place.where)
    return place


def test_requests_are_served_purged_and_exported(made: Place, trained: Path, tmp_path: Path) -> None:  # noqa: F811
    folder = made.folder
    people = [f"person-{number}@example.org" for number in range(3)]
    rows = [f"train/dark/{number:02d}.png,{name}" for number, name in enumerate(people)]
    asked(made.where["ledger"], "R-1", *rows, ledger_dir=folder)
    made.sql("ANALYZE")
    assert people[0] not in str(made.sql("SELECT * FROM pg_stats WHERE tablename = 'clear_ids'"))
    assert run_purge(PurgeInputs(**made.where)) == (0, 3)
    assert "Served: R-1." in said(made, "run")
    assert "0 pending, 1 served" in said(made, "status") and "served 20" in said(made, "list")
    assert "holds  append-only         12 triggers" in said(made, "verify")
    asked(made.where["ledger"], "R-2", "train/light/05.png,zoe@example.org", ledger_dir=folder)
    for path in folder.glob("*.csv"):
        path.unlink()
    older = threading.Event(), threading.Event()
    backup = threading.Thread(target=looking, args=(made, *older))
    backup.start()  # a transaction that can still see the deleted rows
    assert older[0].wait(60)
    try:
        assert run_purge(PurgeInputs(**made.where)) == (3, 1)
    finally:
        older[1].set()
        backup.join()
    made.sql("CHECKPOINT")
    for path in (path for path in (made.server.folder / "data" / "base").rglob("*") if path.is_file()):
        assert not [name for name in people if name.encode() in path.read_bytes()], path
    assert made.ledger.store.clear_ids() == [(5, "zoe@example.org", "train/light/05.png")]
    assert made.failed(metrics=True) == []
    assert failed(made.where["ledger"], ledger_dir=tmp_path / "nowhere") == []  # entries and tables alone
    for path in (path for path in folder.rglob("*") if path.is_file()):
        assert not [word for word in (PASSWORD, QUOTED) if word.encode() in path.read_bytes()], path
    config = json.loads((folder / "runs" / "00003" / "config.json").read_text())
    assert f"postgresql+psycopg://owner:***@127.0.0.1:{made.server.port}/{made.database}" in config["command_line"]

    text = run_export(ExportInputs(**made.where, out=tmp_path / "audit.jsonl"))
    assert failed(tmp_path, export=tmp_path / "audit.jsonl") == []
    begun(trained, tmp_path / "sqlite")
    asked(tmp_path / "sqlite", "R-1", *rows)
    other = run_export(ExportInputs(tmp_path / "sqlite"))
    for one, two in zip(text.splitlines()[:3], other.splitlines(), strict=True):
        first, second = json.loads(one), json.loads(two)
        assert first.keys() == second.keys()
        if "content" in first:
            contents = [json.loads(line["content"]) for line in (first, second)]
            assert contents[0].keys() == contents[1].keys()
            same = ("kind", "seq", "data_sha256", "model_sha256", "settings_sha256", "request_id", "missing")
            assert [contents[0].get(name) for name in same] == [contents[1].get(name) for name in same]
    assert "@" not in text
    with made.ledger.held():
        made.server.cut()  # the end of the block does not fail of it


def said(place: Place, command: str) -> str:
    """Run a command on a ledger, and return what it printed."""
    words = ["request", command, "--ledger", place.where["ledger"], "--ledger-dir", str(place.folder)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert PASSWORD not in result.output and QUOTED not in result.output
    return result.output


def looking(place: Place, begun_: threading.Event, end: threading.Event) -> None:
    """Hold a transaction that looks at the state of now until it is told to end."""
    import psycopg

    with psycopg.connect(place.server.url(place.database).replace("+psycopg", "")) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM entries")
        begun_.set()
        end.wait(60)


def test_nothing_of_an_entry_can_be_changed_and_forgeries_are_found(made: Place) -> None:
    import psycopg

    write(made.ledger, "R-1")
    columns = {"entries": "seq", "samples": "seq", "persons": "seq", "settings": "content"}
    for table, column in columns.items():
        for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            for mode in ("origin", "replica"):
                with pytest.raises(psycopg.errors.RaiseException, match=f"{table} is append-only"):
                    made.sql(f"SET session_replication_role = {mode}; {statement}")
    assert made.failed() == []
    forged = {
        "UPDATE entries SET content = replace(content, 'R-1', 'R-2') WHERE seq = 2": ["chain"],
        "DELETE FROM samples": ["samples and people"],
        "ALTER TABLE entries DISABLE TRIGGER USER": ["append-only"],
        "CREATE OR REPLACE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'": [
            "append-only"
        ],
    }
    for number, (statement, found) in enumerate(forged.items()):
        # Each on a copy of the database, as the owner of the tables can.
        copy = Place(made.server, f"{made.database}_{number}", made.folder)
        made.server.sql(f"CREATE DATABASE {copy.database} TEMPLATE {made.database}")
        if "TRIGGER USER" in statement or "FUNCTION" in statement:
            copy.sql(statement)
        else:
            table = "entries" if "entries" in statement else "samples"
            copy.sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            copy.sql(statement)
            for what in ("UPDATE", "DELETE", "TRUNCATE"):
                copy.sql(f'ALTER TABLE {table} ENABLE ALWAYS TRIGGER "{table}_no_{what}"')
        assert copy.failed() == found, statement


def test_a_role_that_can_only_add_serves_a_ledger(made: Place) -> None:
    import psycopg

    made.server.sql("CREATE ROLE clerk LOGIN PASSWORD 'clerk'")
    made.sql("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO clerk")
    made.sql("GRANT DELETE, TRUNCATE ON clear_ids TO clerk")
    url = made.server.url(made.database, "clerk:clerk")
    assert write(Ledger(url, made.folder), "R-1") == 2
    Ledger(url, made.folder).store.rewrite_clear_ids()
    assert len(made.ledger.store.clear_ids()) == 1
    with (
        psycopg.connect(url.replace("+psycopg", "")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("ALTER TABLE entries DISABLE TRIGGER USER")
    assert failed(url, ledger_dir=made.folder) == []


def test_only_one_process_serves_requests_on_whichever_machine(made: Place, tmp_path: Path) -> None:
    other = tmp_path / "another machine"
    other.mkdir()
    elsewhere = Ledger(made.where["ledger"], other)
    with made.ledger.held():
        with (
            pytest.raises(UserError, match="another process serves requests of the ledger") as caught,
            elsewhere.held(),
        ):
            pass
        assert write(made.ledger, "R-1") == 2  # requests can be added meanwhile
    assert PASSWORD not in str(caught.value) and QUOTED not in str(caught.value)
    with elsewhere.held():
        pass


@pytest.mark.parametrize("harm", ["cut", "kill"])
def test_what_a_broken_connection_leaves_is_nothing(made: Place, harm: str) -> None:
    """Between any two statements of a transaction."""
    write(made.ledger, "R-0")
    before = made.ledger.store.entries()
    steps: list[Callable[[Any], object]] = [
        lambda writer: writer.append("add", {**before[1].content, "request_id": "R-1"}),
        lambda writer: writer.add_samples(3, {b"1" * 16: None}),
        lambda writer: writer.add_clear_ids(3, [("ann", "x")]),
        lambda writer: None,
    ]
    for place in range(len(steps)) if harm == "cut" else (1, 3):
        with (
            pytest.raises(
                UserError, match=r"^the ledger 'postgresql\+psycopg://owner@.*' cannot be written: .*"
            ) as caught,
            made.ledger.store.writing() as writer,
        ):
            for number, step in enumerate(steps):
                if number == place:
                    made.server.cut() if harm == "cut" else made.server.kill()
                step(writer)
        assert "\n" not in str(caught.value) and PASSWORD not in str(caught.value)
        if harm == "kill":
            with pytest.raises(UserError, match="cannot be read: .*refused"):
                made.ledger.state()
            made.server.start()
        assert made.ledger.store.entries() == before and made.failed() == []
        assert set(made.ledger.store.samples()) == {2} and len(made.ledger.store.clear_ids()) == 1
    assert write(made.ledger, "R-1") == 3


def test_a_writer_waits_for_another_and_follows_it(made: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    later: list[int] = []
    with made.ledger.store.writing() as writer:
        with monkeypatch.context() as patch:
            patch.setattr("pymixunlearn.experiments.request.databases.SECONDS", 1)
            with pytest.raises(UserError, match="cannot be written: another process holds it$"):
                write(made.ledger, "R-1")
        thread = threading.Thread(target=lambda: later.append(write(made.ledger, "R-2")))
        thread.start()
        while made.sql("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]:
            assert thread.is_alive()
            time.sleep(0.05)
        assert writer.append("purge", {"requests": [], "rows": 0})["seq"] == 2
    thread.join()
    assert later == [3] and made.failed() == []


def test_two_writers_at_once_and_a_server_that_fails(made: Place) -> None:
    """Every request is there once and whole, though connections are cut and the server is killed all the time."""
    count, random_ = 40, random.Random(0)
    program = [sys.executable, str(Path(__file__).with_name("postgres_writer.py")), *map(str, made.where.values())]
    writers = [
        subprocess.Popen([*program, name, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in ("A", "B")
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdin is not None
        assert writer.stdout.readline() == "ready\n"
    said: dict[int, list[str]] = {}

    def listen(number: int) -> None:
        said[number] = list(writers[number].stdout or ())

    listeners = [threading.Thread(target=listen, args=(number,)) for number in range(2)]
    for number, listener in enumerate(listeners):
        listener.start()
        stream = writers[number].stdin
        assert stream is not None
        stream.write("\n")
        stream.flush()
    cuts = 0
    while any(writer.poll() is None for writer in writers):
        time.sleep(random_.uniform(0.05, 0.3))
        cuts += 1
        if cuts in (4, 9):
            made.server.kill()
            made.server.start()
        elif cuts < 40:
            made.server.cut()
    for listener in listeners:
        listener.join()
    assert [writer.returncode for writer in writers] == [0, 0]
    lines = [line.strip() for part in said.values() for line in part]
    numbers = [int(line) for line in lines if line.isdigit()]
    assert sorted(numbers) == list(range(2, 2 + 2 * count)), lines
    assert any(line.startswith("not now: the ledger 'postgresql+psycopg://owner@") for line in lines)
    assert not [line for line in lines if PASSWORD in line or QUOTED in line]
    state = made.ledger.state()
    assert set(state.requests) == {f"{name}-{number}" for name in "AB" for number in range(count)}
    assert made.failed() == []
    assert len(made.ledger.store.clear_ids()) == 2 * count


def test_what_is_wrong_with_a_server_is_said_in_one_sentence(
    place: Place,
    trained: Path,  # noqa: F811
    tmp_path: Path,
    postgres: Server,
) -> None:
    def refusal(url: str, folder: Path = place.folder) -> str:
        with pytest.raises(UserError) as caught:
            begun(trained, url, ledger_dir=folder)
        assert PASSWORD not in str(caught.value) and QUOTED not in str(caught.value) and "\n" not in str(caught.value)
        assert not folder.exists() or folder != place.folder
        return str(caught.value)

    there = postgres.url(place.database)
    assert "Connection refused" in refusal(there.replace(f":{postgres.port}/", ":1/"))
    text = refusal(postgres.url(place.database, "owner:wrong-word"))
    assert 'password authentication failed for user "owner"' in text and "wrong-word" not in text
    assert 'database "nowhere" does not exist' in refusal(postgres.url("nowhere"))
    with pytest.raises(UserError, match=r"holds no ledger; expected one of 'request init', by --ledger$"):
        place.ledger.state()
    place.sql("CREATE TABLE customers (id integer); CREATE TABLE settings (name text)")
    assert "holds other tables ('customers', 'settings'); expected a database, or a schema of one" in refusal(there)
    assert place.sql("SELECT count(*) FROM pg_class WHERE relname = 'entries'") == [(0,)]
    place.sql("CREATE SCHEMA own")
    own = f"{there}?options=-csearch_path%3Down&sslpassword={QUOTED}"
    assert begun(trained, own, ledger_dir=tmp_path / "own") and failed(own, ledger_dir=tmp_path / "own") == []
    assert "holds a ledger already" in refusal(own, tmp_path / "own")
    second = postgres.url(postgres.database())
    assert "is the folder of another ledger; choose another one by --ledger-dir" in refusal(second, tmp_path / "own")
    with pytest.raises(UserError, match="is the key of another ledger"):
        begun(trained, second, ledger_dir=tmp_path / "second")
        Ledger(second, tmp_path / "own").state()
    newer = Place(postgres, second.rpartition("/")[2], tmp_path / "second")
    newer.sql("ALTER TABLE entries DISABLE TRIGGER USER")
    newer.sql("UPDATE entries SET content = replace(content, 'ledger/1', 'ledger/2')")
    for look in (newer.ledger.state, newer.failed):
        with pytest.raises(UserError, match=r"has the format 'pymixunlearn-ledger/2', and this version .* reads"):
            look()
