"""Inputs and the options of the command line that are made from them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from mixunlearn_cli.options import inputs_options, make_inputs

from pymixunlearn.experiments import CompareInputs, Inputs, ModelRequest, SplitRequest, UnlearnInputs
from pymixunlearn.experiments.common.options import option


def parsed(inputs: type, *arguments: str, **about: Any) -> Any:
    """Return what a command with the options of ``inputs`` makes of ``arguments``."""
    found = []

    @click.command()
    @inputs_options(inputs, **about)
    def command(**values: Any) -> None:
        found.append(make_inputs(inputs, values))

    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == 0, result.output
    return found[0]


def test_without_options_inputs_are_the_defaults() -> None:
    assert parsed(UnlearnInputs) == UnlearnInputs()
    assert parsed(CompareInputs) == CompareInputs()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--retrain", "none", "--no-thumbnails", "--tsne"), UnlearnInputs(retrain=False, thumbnails=False, tsne=True)),
        (("--label-agnostic", "--stop", "auto"), UnlearnInputs(label_aware=False, stop="auto")),
        (("--forget-class", "3", "--forget-class", "a"), UnlearnInputs(split=SplitRequest(classes=("3", "a")))),
        (("--forget", "x.csv", "--seed", "4"), UnlearnInputs(split=SplitRequest(indices=Path("x.csv")), seed=4)),
        (("--model", "m.pt", "--architecture", "cnn"), UnlearnInputs(model=ModelRequest("m.pt", "cnn"))),
    ],
)
def test_options_fill_the_fields_that_state_them(arguments: tuple[str, ...], expected: UnlearnInputs) -> None:
    assert parsed(UnlearnInputs, *arguments) == expected


def test_lists_are_read_between_commas() -> None:
    made = parsed(CompareInputs, "--methods", "laf, neggrad", "--methods", "ssd", "--seeds", "1,2")
    assert made.methods == ("laf", "neggrad", "ssd") and made.seeds == (1, 2)


def test_a_command_can_leave_fields_out_and_say_others_in_its_own_words() -> None:
    @click.command()
    @inputs_options(Inputs, without=("seed",), about={"model": {"help": "Only a name."}})
    def command(**values: Any) -> None:
        assert make_inputs(Inputs, values).seed == 0

    text = CliRunner().invoke(command, ["--help"]).output
    assert "--seed" not in text and "Only a name." in text
    assert CliRunner().invoke(command, []).exit_code == 0


def test_a_field_of_a_new_class_of_inputs_is_an_option_by_itself() -> None:
    @dataclasses.dataclass(frozen=True)
    class More(Inputs):
        speed: int = option("--speed", kind=int, least=1, default=2, help="How fast.")

    assert parsed(More, "--speed", "3").speed == 3 and parsed(More).speed == 2


def test_inputs_import_no_pytorch() -> None:
    code = "import sys, pymixunlearn.experiments.unlearn.inputs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
