"""What a command imports before it works: whoever asks for help, or mistypes, does not wait for PyTorch."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from mixunlearn_cli.endings import any_encoding

HEAVY = ("torch", "numpy", "scipy", "sklearn", "matplotlib", "PIL", "jinja2", "rich", "torchvision")
COMMANDS = (
    *("unlearn", "compare", "tune", "train", "retrain", "evaluate", "audit", "verify"),
    *("bench", "info", "list", "cache"),
)
QUICK = (
    [],
    ["--version"],
    ["--help"],
    *([command, "--help"] for command in COMMANDS),
    *(["bench", part, "--help"] for part in ("ops", "step", "end-to-end")),
    *(["list", kind] for kind in ("methods", "models", "datasets", "metrics")),
    *(["cache", command, "--help"] for command in ("list", "purge", "verify")),
    ["unlaern"],
    ["unlearn", "--methodd", "mixunlearn"],
    ["unlearn", "--seed", "one"],
    ["unlearn", "--method", "mixunlern"],
    ["unlearn", "--task", "clas"],
    ["unlearn", "--dataset", "digit"],
    ["unlearn", "--model", "resnet81"],
    ["unlearn", "--set", "tau_rael=5"],
    ["unlearn", "--set", "retrain.epoch=5"],
    ["unlearn", "--set", "epochs"],
    ["train", "--set", "epoch=5"],
    ["list", "settings", "negrad"],
)
PROGRAM = """
import json, sys
from click.testing import CliRunner
from mixunlearn_cli.main import main
found = []
for arguments in json.loads(sys.argv[1]):
    result = CliRunner().invoke(main, arguments)
    found.append([result.exit_code, sorted(set(json.loads(sys.argv[2])) & set(sys.modules))])
print(json.dumps(found))
"""


def test_help_lists_and_mistakes_import_nothing_heavy() -> None:
    arguments = [json.dumps(QUICK), json.dumps(HEAVY)]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    imported: list[str] = []
    for command, (code, modules) in zip(QUICK, json.loads(done.stdout), strict=True):
        assert modules == imported, f"{command} imports {set(modules) - set(imported)}"
        assert code in (0, 2), command


def test_cycles_are_looked_for_less_often_in_a_command_and_not_at_the_end() -> None:
    program = """
import atexit, click, gc
atexit.register(lambda: print(gc.get_freeze_count() > 0))  # what is registered first is called last
before = gc.get_threshold()
from mixunlearn_cli.main import main
main.add_command(click.Command("probe", callback=lambda: print(gc.get_threshold()[0] > before[0])))
main(["probe"], standalone_mode=False)
print(gc.get_threshold() == before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True"]


@pytest.mark.parametrize(
    ("encoding", "written"), [("latin-1", b"\\u732b \xfc"), ("ascii", b"\\u732b \\xfc"), ("utf-8", "猫 ü".encode())]
)
def test_what_an_output_cannot_encode_is_escaped(
    monkeypatch: pytest.MonkeyPatch, encoding: str, written: bytes
) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    with any_encoding():
        print("猫 ü", end="")
    assert raw.getvalue() == written and stream.errors == "strict"


def test_without_an_output_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with any_encoding():
        print("to nobody")
    assert sys.stdout is None


def test_other_streams_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with any_encoding():
        print("猫", end="")
    assert stream.getvalue() == "猫"
