"""The table of names that help reads instead of the registries."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from mixunlearn_cli import names

from pymixunlearn import methods
from pymixunlearn.experiments.request.inputs import InitInputs
from pymixunlearn.experiments.unlearn.inputs import RECOMMENDED, UnlearnInputs

Invoke = Callable[..., Result]

_WRITER = Path(__file__).with_name("write_names.py")


def test_the_table_is_that_of_the_registries() -> None:
    spec = importlib.util.spec_from_file_location("write_names", _WRITER)
    assert spec is not None and spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    for name, value in writer.names().items():
        assert getattr(names, name) == value, f"{name} is out of date; run python tests/cli/write_names.py"
    assert Path(names.__file__).read_text("utf-8") == writer.render(), "run python tests/cli/write_names.py"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("methods", names.METHODS),
        ("models", names.MODELS),
        ("datasets", names.DATASETS),
        ("metrics", names.METRICS),
    ],
)
def test_lists_hold_every_name(invoke: Invoke, kind: str, expected: tuple[str, ...]) -> None:
    result = invoke("list", kind)
    assert result.exit_code == 0
    shown = {line.split()[0] for line in result.stdout.splitlines() if line and not line.startswith(" ")}
    assert shown == set(expected)


def test_settings_are_listed_with_their_defaults(invoke: Invoke) -> None:
    text = " ".join(invoke("list", "settings", "mixunlearn").stdout.split())
    for name, default in methods.MixUnlearnConfig().to_dict().items():
        assert f"{name}=" in text, f"{name} ({default})"
    assert "lr=0.0003 learning rate (SGD)" in " ".join(invoke("list", "settings", "neggrad").stdout.split())


def test_an_unknown_method_has_no_settings(invoke: Invoke) -> None:
    result = invoke("list", "settings", "negrad")
    assert result.exit_code == 2
    assert "unknown method 'negrad'" in result.stderr and "Did you mean 'neggrad'?" in result.stderr


def test_the_table_of_methods_says_what_each_asks_for_in_80_columns(invoke: Invoke) -> None:
    lines = invoke("list", "methods").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    (heading,) = (number for number, line in enumerate(lines) if line.split()[:1] == ["method"])
    (end,) = (number for number, line in enumerate(lines) if line.strip().startswith("For deletion requests"))
    rows = {line.split()[0]: line for line in lines[heading + 1 : end]}
    assert list(rows) == list(names.METHODS)
    assert rows["retrain"].split()[1:4] == ["D_r", "yes", "no"]
    assert rows["boundary-expand"].split()[1:] == ["none", "no", "trains", "on", "-", "-"]


def test_what_is_recommended_was_accepted_in_all_runs_but_two_and_serves_requests(invoke: Invoke) -> None:
    *_, accepted, _ = names.ADVICE[RECOMMENDED]
    count, runs = map(int, accepted.split(" of "))
    assert count >= runs - 2 > 0
    told = f"{RECOMMENDED} is recommended: the acceptance test accepted it in {accepted} runs"
    assert told in " ".join(invoke("list", "methods").stdout.split())
    text = " ".join(invoke("request", "init", "--help").stdout.split())
    assert f"docs/choosing.md. [default: {RECOMMENDED}]" in text
    assert InitInputs().unlearn.method == RECOMMENDED and UnlearnInputs().method == "mixunlearn"
