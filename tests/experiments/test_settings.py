from __future__ import annotations

import pytest

from pymixunlearn.errors import UserError
from pymixunlearn.experiments import BadRequest
from pymixunlearn.experiments.common.settings import parse_assignments, parse_settings, split_by_target


def test_nested_trainings_are_flattened() -> None:
    text = "epochs: 3\ninitial:\n  epochs: 1\n  lr: 0.01\nretrain.epochs: 2\n"
    assert parse_settings(text, "x") == {"epochs": 3, "initial.epochs": 1, "initial.lr": 0.01, "retrain.epochs": 2}
    assert parse_settings("", "x") == {}


@pytest.mark.parametrize(("text", "reason"), [("a: [", "is not valid YAML"), ("- a\n- b", "holds a list")])
def test_what_is_no_mapping_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"'f.yaml' {reason}"):
        parse_settings(text, "'f.yaml'")


def test_assignments_keep_everything_after_the_first_equals_sign() -> None:
    assert parse_assignments(["a=1", "b = x=y", "a=2"]) == {"a": "2", "b": "x=y"}


@pytest.mark.parametrize("item", ["epochs", "=3", " =3"])
def test_an_assignment_needs_name_and_equals(item: str) -> None:
    with pytest.raises(BadRequest, match="expected name=value"):
        parse_assignments([item])


def test_settings_go_to_what_they_address() -> None:
    targets = split_by_target({"lr": 1, "initial.lr": 2, "retrain.lr": 3}, ["lr"])
    assert targets == {"method": {"lr": 1}, "initial": {"lr": 2}, "retrain": {"lr": 3}}


def test_an_unknown_setting_suggests_the_nearest() -> None:
    with pytest.raises(BadRequest, match="unknown setting 'tau_rael'.*Did you mean 'tau_real'"):
        split_by_target({"tau_rael": 5}, ["tau_real", "tau_mix"])
