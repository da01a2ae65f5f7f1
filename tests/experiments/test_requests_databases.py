"""Databases of a ledger, without a server: which URLs are taken, what is said and hidden, what refuses changes."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

from pymixunlearn.display import without_password
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest
from pymixunlearn.experiments.request.databases import PostgresServer, is_url
from pymixunlearn.experiments.request.ledger import Ledger
from pymixunlearn.experiments.request.store import APPEND_ONLY

URL = "postgresql+psycopg://ann:secret@host/requests"


def test_a_ledger_is_named_by_its_folder_or_by_a_url() -> None:
    assert is_url(URL) and not is_url("ledger") and not is_url(Path("ledger")) and not is_url("a:b/c")
    with pytest.raises(BadRequest, match="--ledger-dir goes with a database as --ledger; expected the folder by"):
        Ledger("ledger", Path("other"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://ann:secret@host/requests", "names a database of the kind 'mysql'; expected a folder, or postgresql"),
        ("postgresql+asyncpg://ann:secret@host/x", r"of the kind 'postgresql\+asyncpg'; expected a folder, or"),
        ("sqlite:///secret.db", "names a database of the kind 'sqlite'"),
        ("postgresql://ann:secret@host:port/x", r"the URL of --ledger cannot be read; expected postgresql\+psycopg://"),
        ("postgresql://ann:my@secret@host/x", "has an '@' too many; expected %40 for each one in a password"),
        ("postgresql://ann:my@secret/word@host/x", "has an '@' too many"),
    ],
)
def test_a_url_that_is_none_of_postgresql(url: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        Ledger(url)
    assert "secret" not in str(caught.value) and caught.value.__cause__ is None


@pytest.mark.parametrize("url", [URL, URL.replace("+psycopg", "")])
def test_a_driver_that_is_missing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"needs psycopg, .*; install it: pip install 'pymixunlearn\[postgresql\]'$"):
        Ledger(url)


def test_passwords_in_urls_are_hidden() -> None:
    hidden = "postgresql+psycopg://ann:***@host/requests"
    assert without_password(URL) == hidden
    assert without_password(f"--ledger={URL}") == f"--ledger={hidden}"
    assert without_password("postgresql://ann:se@cr/et@host/x?sslmode=a") == "postgresql://ann:***@host/x?sslmode=a"
    assert without_password("postgresql:///x?user=a&password=secret") == "postgresql:///x?user=a&password=***"
    for text in ("ray://host:10001", "postgresql://ann@host:5432/x", "ann:b@c", "C:/a@b"):
        assert without_password(text) == text


def test_the_triggers_of_postgresql() -> None:
    server = PostgresServer.__new__(PostgresServer)  # without a driver
    assert server.refused == ("UPDATE", "DELETE", "TRUNCATE")
    assert server.trigger("entries", "TRUNCATE") == (
        'CREATE TRIGGER "entries_no_TRUNCATE" BEFORE TRUNCATE ON entries FOR EACH STATEMENT '
        "EXECUTE FUNCTION append_only()",
        'ALTER TABLE entries ENABLE ALWAYS TRIGGER "entries_no_TRUNCATE"',
    )


def test_a_file_that_holds_something_else_is_no_ledger(tmp_path: Path) -> None:
    store = Ledger(tmp_path).store
    store.check_new()  # there is no file
    with store.writing() as writer:
        writer.create()
    assert store.lacking_triggers() == []
    assert store.triggers() == sorted(f"{table}_no_{what}" for table in APPEND_ONLY for what in ("UPDATE", "DELETE"))
    store.check_new()  # without entries
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("DROP TRIGGER entries_no_DELETE")
        assert store.lacking_triggers() == ["entries_no_DELETE"]
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        connection.execute("CREATE TABLE customers (id INTEGER)")
    with pytest.raises(UserError, match=r"holds other tables \('customers'\); expected a database, or a schema of one"):
        store.check_new()


def test_the_folder_of_a_ledger_on_a_server_is_not_taken_by_another(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.keep_key(ledger.first_key(None))
    with pytest.raises(UserError, match="is the folder of another ledger; choose another one by --ledger$"):
        ledger.first_key(None)
    assert ledger.first_key(ledger.key) == ledger.key  # a model's own
    with pytest.raises(UserError, match="is not the key of the given model"):
        ledger.first_key(b"x" * 32)
