"""A PostgreSQL server for tests: from Debian's package, in a folder that goes away, never as root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

OWNER, PASSWORD = "owner", "s3cret-w@rd/%"
QUOTED = "s3cret-w%40rd%2F%25"
"""The password as it stands in a URL."""


class Server:
    """A running server; passwords are checked, on the loopback address too."""

    def __init__(self) -> None:
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        found = str(programs[-1] / "postgres") if programs else shutil.which("postgres")
        assert found is not None, "these tests need PostgreSQL: on Debian, apt-get install postgresql"
        self._programs = Path(found).parent
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._as: dict[str, Any] = {"cwd": self.folder}
        if os.geteuid() == 0:  # which initdb and postgres refuse
            user = pwd.getpwnam("postgres")
            self._as |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        (self.folder / "password").write_text(PASSWORD)
        (self.folder / "password").chmod(0o644)
        initdb = [str(self._programs / "initdb"), "-D", "data", "-U", OWNER, "--pwfile=password", "-A", "scram-sha-256"]
        subprocess.run(
            [*initdb, "--no-sync", "-E", "UTF8", "--locale=C"], check=True, capture_output=True, timeout=120, **self._as
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._databases = 0
        self.start()

    def start(self) -> None:
        """Start it, again where it was killed, and wait until it answers."""
        import psycopg

        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}"]
        # What was written stays where processes are killed, as long as the system goes on.
        words = [word for setting in (*settings, "fsync=off") for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", "data", *words], stdout=log, stderr=log, **self._as
            )
        for _ in range(600):
            try:
                self.sql("SELECT 1")
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        """Kill all of its processes, as a machine that fails."""
        pids = [row[0] for row in self.sql("SELECT pid FROM pg_stat_activity")]
        for pid in (self._process.pid, *pids):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # that of the question
        self._process.wait(60)

    def cut(self) -> None:
        """Cut all connections but its own."""
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def sql(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Carry out a statement as the owner, and return its rows."""
        import psycopg

        about = {"host": str(self.folder), "port": self.port, "user": OWNER, "password": PASSWORD, "dbname": database}
        with psycopg.connect(**about, autocommit=True) as connection:  # type: ignore[arg-type]
            found = connection.execute(statement)  # type: ignore[call-overload]
            return found.fetchall() if found.description is not None else []

    def database(self) -> str:
        """Make a database, and return its name."""
        self._databases += 1
        name = f"ledger{self._databases}"
        self.sql(f"CREATE DATABASE {name}")
        return name

    def url(self, database: str, login: str = f"{OWNER}:{QUOTED}") -> str:
        """Return the URL of a database."""
        return f"postgresql+psycopg://{login}@127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        """End it, and delete its folder."""
        self._process.send_signal(signal.SIGQUIT)  # at once: nobody reads its files again
        self._process.wait(60)
        shutil.rmtree(self.folder)
