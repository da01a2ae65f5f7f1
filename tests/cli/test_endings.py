"""Complaints on standard error, and how Ctrl-C ends a command."""

from __future__ import annotations

import io
import signal
import sys
import time

import click
import pytest
from mixunlearn_cli.endings import Interrupted, complain, resumable
from mixunlearn_cli.main import main

from tests.losing import lose_signal

TEXT = "Error: the extra is missing, which this needs: pip install 'pymixunlearn[requests]' installs it, nothing else"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_complaint_is_one_line_for_other_programs(capsys: pytest.CaptureFixture[str]) -> None:
    complain(TEXT)
    complain("Interrupted; the state is saved. To go on:", "mixunlearn-cli unlearn --out run")
    assert capsys.readouterr().err.splitlines() == [
        TEXT,
        "Interrupted; the state is saved. To go on: mixunlearn-cli unlearn --out run",
    ]


def test_on_a_terminal_it_is_wrapped_and_commands_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    command = f"mixunlearn-cli unlearn --out {'long/' * 20}"
    complain(TEXT)
    complain("Interrupted; the state is saved. To go on:", command)
    *lines, last = terminal.getvalue().splitlines()
    assert last == f"  {command}" and max(map(len, lines)) <= 60
    assert any("pip install 'pymixunlearn[requests]'" in line for line in lines)
    assert " ".join(" ".join(lines[:-1]).split()) == TEXT


def test_a_password_in_a_url_is_in_no_command_line() -> None:
    words = ["request", "run", "--ledger", "postgresql://ann:secret@host/x", "--ledger=postgresql://ann:s@cret@host/x"]
    with resumable(click.Context(click.Command("request"), obj=words), "nothing") as command_line:
        assert "secret" not in command_line and "cret" not in command_line.replace("secret", "")
        assert command_line.count("postgresql://ann:***@host/x") == 2


def test_ctrl_c_says_what_is_saved_once_the_bars_are_gone() -> None:
    context = click.Context(click.Command("unlearn"), obj=["unlearn", "--out", "my run"])
    with pytest.raises(Interrupted) as caught, resumable(context, "the state is saved in 'my run'"):
        raise KeyboardInterrupt
    assert caught.value.message == "Interrupted; the state is saved in 'my run'. To go on:"
    assert caught.value.command == "mixunlearn-cli unlearn --out 'my run'" and caught.value.exit_code == 130


def test_ctrl_c_is_not_lost_where_python_drops_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    @click.pass_context
    def work(ctx: click.Context) -> None:
        with resumable(ctx, "the state is saved"):
            lose_signal(signal.SIGINT)
            time.sleep(30)

    monkeypatch.setitem(main.commands, "work", work)
    with pytest.raises(SystemExit) as ended:
        main(["work"])
    assert ended.value.code == 130
    assert capfd.readouterr().err == "Interrupted; the state is saved. To go on: mixunlearn-cli work\n"
