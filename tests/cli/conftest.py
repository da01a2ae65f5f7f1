from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mixunlearn_cli.main import main

from tests.attacking import all_trees, few_trees  # noqa: F401  # fixtures of this folder
from tests.drawing import no_pictures, pictures  # noqa: F401  # fixtures of this folder

Invoke = Callable[..., Result]
Interrupt = Callable[[list[str], Callable[[str], bool]], str]


@pytest.fixture(scope="session")
def model_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_folders(model_cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own; trained models are shared among the tests only."""
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(model_cache_folder))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session", autouse=True)
def heed_ctrl_c() -> Iterator[None]:
    """What a shell starts in the background is deaf to Ctrl-C, and so would be the programs that the tests start."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def invoke() -> Invoke:
    """Runs the command in this process."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, list(arguments), prog_name="mixunlearn-cli")

    return run


@pytest.fixture
def program() -> tuple[list[str], dict[str, str]]:
    """The command and environment that run the program in a process of its own."""
    # The tests may run from the sources, which a new working directory must not hide.
    paths = [str(Path(path or ".").resolve()) for path in sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return [sys.executable, "-m", "mixunlearn_cli"], environment


@pytest.fixture
def interrupt(program: tuple[list[str], dict[str, str]]) -> Interrupt:
    """Runs the program, sends it Ctrl-C at the first line that is meant, and returns what it complains of."""
    command, environment = program

    def run(arguments: list[str], meant: Callable[[str], bool]) -> str:
        process = subprocess.Popen(
            [*command, *arguments],
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if meant(line):
                    process.send_signal(signal.SIGINT)
                    break
            _, complaint = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode == 130, complaint
        return complaint

    return run


@pytest.fixture
def refused(invoke: Invoke) -> Callable[..., None]:
    """Runs a command that is wrong usage: exit code 2, one line with every part of a message, no folder."""

    def run(arguments: list[str], message: str) -> None:
        result = invoke(*arguments)
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        for part in message.split(" * "):
            assert part in line
        assert not Path("runs").exists()

    return run
