"""What an audit's functions refuse, and masks of numbers that they take as what they mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pymixunlearn.errors import UserError
from pymixunlearn.evaluation.audit import (
    auc,
    klom,
    lira_scores,
    model_rates,
    rmia_scores,
    sample_rates,
    tpr_at_fpr,
    tune_rmia,
    u_lira_scores,
)
from pymixunlearn.evaluation.audit.checks import finite, mask
from pymixunlearn.evaluation.audit.rates import accuracy, best_threshold

CHANCE = np.random.default_rng(0)
SCORES = {"members": CHANCE.normal(1, 1, 20), "others": CHANCE.normal(0, 1, 30)}
PAIRS = {"positives": CHANCE.normal(1, 1, (8, 5)), "negatives": CHANCE.normal(0, 1, (8, 5))}
SEEN = np.tile([[True, False], [False, True]], (4, 3))
LIRA = {"target": CHANCE.normal(size=6), "shadows": CHANCE.normal(size=(8, 6)), "seen": SEEN}
U_LIRA = {"unlearned": CHANCE.normal(size=(8, 6)), "retrained": CHANCE.normal(size=(8, 6)), "seen": SEEN}
KLOM = {key: U_LIRA[key] for key in ("unlearned", "retrained")}
RMIA = {
    "target": CHANCE.normal(size=6),
    "references": CHANCE.normal(size=(8, 6)),
    "out": SEEN,
    "target_z": CHANCE.normal(size=9),
    "references_z": CHANCE.normal(size=(8, 9)),
}
TUNE = {"shadows": CHANCE.normal(size=(8, 6)), "seen": SEEN, "shadows_z": CHANCE.normal(size=(8, 9))}
CALLS: list[tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = [
    (auc, SCORES, {}),
    (tpr_at_fpr, SCORES, {"fpr": 0.1}),
    (accuracy, SCORES, {"threshold": 0.0}),
    (best_threshold, SCORES, {}),
    (sample_rates, SCORES, {"threshold": 0.0}),
    (model_rates, PAIRS, {"threshold": 0.0, "first": np.arange(8) < 4}),
    (klom, KLOM, {}),
    (lira_scores, LIRA, {}),
    (u_lira_scores, U_LIRA, {}),
    (rmia_scores, RMIA, {"a": 0.3}),
    (tune_rmia, TUNE, {}),
]
NUMBERS = [
    pytest.param(call, arrays, options, name, id=f"{call.__name__}-{name}")
    for call, arrays, options in CALLS
    for name, array in arrays.items()
    if array.dtype != bool
]
MASKS = [
    pytest.param(call, {**arrays, **options}, name, id=f"{call.__name__}-{name}")
    for call, arrays, options in CALLS
    for name, value in {**arrays, **options}.items()
    if isinstance(value, np.ndarray) and value.dtype == bool
]
Call = Callable[..., Any]


def with_one(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[-1] = value
    return changed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("call", "arrays", "options", "name"), NUMBERS)
def test_numbers_must_be_finite(
    call: Call, arrays: dict[str, Any], options: dict[str, Any], name: str, value: float
) -> None:
    # RMIA is tuned by attacks on its own, whose arguments are named.
    with pytest.raises(UserError, match=f"^{name} has 1 of .* NaN or infinite; expected finite numbers"):
        call(**{**arrays, name: with_one(arrays[name], value)}, **options)


@pytest.mark.parametrize(("call", "arrays", "options", "name"), NUMBERS)
def test_numbers_must_be_there_and_real(call: Call, arrays: dict[str, Any], options: dict[str, Any], name: str) -> None:
    for wrong in (arrays[name][:0], arrays[name][None], arrays[name] + 1j, arrays[name].astype(str)):
        with pytest.raises(UserError, match=f"^{name} "):
            call(**{**arrays, name: wrong}, **options)


@pytest.mark.parametrize(("call", "arguments", "name"), MASKS)
def test_masks_of_zeros_and_ones_are_masks(call: Call, arguments: dict[str, Any], name: str) -> None:
    expected = call(**arguments)
    for dtype in (np.int64, np.uint8, np.float32):
        np.testing.assert_equal(call(**{**arguments, name: arguments[name].astype(dtype)}), expected)


@pytest.mark.parametrize(("call", "arguments", "name"), MASKS)
def test_other_masks_are_refused(call: Call, arguments: dict[str, Any], name: str) -> None:
    right = arguments[name]
    for wrong in (
        right.astype(int) * 2,
        right.astype(int) - 1,
        right.astype(str),
        right[:-1],
        with_one(right * 1.0, np.nan),
    ):
        with pytest.raises(UserError, match=f"^{name} "):
            call(**{**arguments, name: wrong})


@pytest.mark.parametrize(("call", "arguments", "name"), MASKS)
def test_a_mask_leaves_models_on_every_side(call: Call, arguments: dict[str, Any], name: str) -> None:
    expected = "members has the shape 0" if call is tune_rmia else f"{name} chooses 0 models"
    with pytest.raises(UserError, match=expected):
        call(**{**arguments, name: np.zeros_like(arguments[name])})


def test_two_models_on_a_side_are_enough_and_one_is_not() -> None:
    seen = SEEN.copy()
    seen[:, 0] = [True, True, *[False] * 6]
    assert np.isfinite(lira_scores(**{**LIRA, "seen": seen})).all()
    seen[1, 0] = False
    with pytest.raises(UserError, match="seen chooses 1 models for a sample; expected at least 2"):
        lira_scores(**{**LIRA, "seen": seen})
    with pytest.raises(UserError, match="at least 2"):
        lira_scores(**{**LIRA, "seen": ~seen})


def test_pairs_of_models_need_two_in_either_half() -> None:
    model_rates(**PAIRS, threshold=0.0, first=np.arange(8) < 2)
    for first in (np.arange(8) < 1, np.arange(8) > 0):
        with pytest.raises(UserError, match="first chooses 1 models"):
            model_rates(**PAIRS, threshold=0.0, first=first)


@pytest.mark.parametrize("fpr", [-0.01, 1.01, np.nan])
def test_the_false_positive_rate_is_a_share(fpr: float) -> None:
    with pytest.raises(UserError, match="fpr is .*; expected a number from 0 to 1"):
        tpr_at_fpr(**SCORES, fpr=fpr)


def test_every_member_is_found_where_every_false_alarm_is_allowed() -> None:
    assert tpr_at_fpr(**SCORES, fpr=1.0) == 100.0
    assert tpr_at_fpr(np.zeros(5), np.ones(3), 1.0) == 100.0
    # One false alarm less, and the threshold is the lowest of the others.
    assert tpr_at_fpr(np.array([0.5, 1.0, 2.0]), np.array([1.0, 3.0, 4.0]), 2 / 3) == pytest.approx(100 / 3)


@pytest.mark.parametrize("a", [-0.1, 1.1, np.nan])
def test_the_offline_parameter_is_a_share(a: float) -> None:
    with pytest.raises(UserError, match="a is .*; expected a number from 0 to 1"):
        rmia_scores(**RMIA, a=a)


@pytest.mark.parametrize(("call", "arguments"), [(accuracy, SCORES), (sample_rates, SCORES), (model_rates, PAIRS)])
def test_a_threshold_may_be_infinite_but_not_nan(call: Call, arguments: dict[str, Any]) -> None:
    options = {"first": np.arange(8) < 4} if call is model_rates else {}
    call(**arguments, **options, threshold=-np.inf)
    with pytest.raises(UserError, match="threshold is NaN"):
        call(**arguments, **options, threshold=np.nan)


def test_both_sides_are_about_the_same_samples() -> None:
    with pytest.raises(UserError, match="margins of 6 samples and retrained of 5"):
        klom(KLOM["unlearned"], KLOM["retrained"][:, :5])
    with pytest.raises(UserError, match=r"retrained has the shape \[8, 5\]; expected \[8, 6\]"):
        u_lira_scores(U_LIRA["unlearned"], U_LIRA["retrained"][:, :5], SEEN)


def test_lists_and_single_precision_are_numbers_too() -> None:
    assert auc([2, 3], [1, 2]) == auc(np.float32([2, 3]), np.float32([1, 2])) == 0.875  # type: ignore[arg-type]
    assert finite("x", np.float16([1])).dtype == np.float64
    assert mask("x", [1, 0], (2,)).tolist() == [True, False]
    with pytest.raises(UserError, match="x has 2 of 3 numbers that are NaN or infinite"):
        finite("x", [np.nan, 1, np.inf])
    with pytest.raises(UserError, match=r"x has the shape a single number; expected 1 dimension\(s\)"):
        finite("x", 1.0)
