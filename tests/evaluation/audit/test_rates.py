from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, t
from sklearn.metrics import roc_auc_score, roc_curve

from pymixunlearn.evaluation.audit import auc, model_rates, sample_rates, tpr_at_fpr
from pymixunlearn.evaluation.audit.rates import accuracy, best_threshold, clopper_pearson


def gaussians(members: int, others: int, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    return chance.normal(shift, 1, members), chance.normal(0, 1, others)


def test_auc_is_scikit_learns_also_with_ties() -> None:
    members, others = gaussians(70, 50, 0.5)
    for scores in ((members, others), (members.round(), others.round())):
        labels = np.repeat([1, 0], [70, 50])
        assert auc(*scores) == pytest.approx(roc_auc_score(labels, np.concatenate(scores)))


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.05, 0.5])
def test_tpr_is_read_off_the_roc_curve(fpr: float) -> None:
    members, others = (scores.round(1) for scores in gaussians(300, 200, 1.0))
    false, true, _ = roc_curve(
        np.repeat([1, 0], [300, 200]), np.concatenate([members, others]), drop_intermediate=False
    )
    assert tpr_at_fpr(members, others, fpr) == pytest.approx(100 * true[false <= fpr + 1e-9].max())


def test_tpr_with_few_others_is_that_without_any_false_alarm() -> None:
    members, others = np.array([1.0, 3.0, 4.0, 5.0]), np.array([0.0, 2.0, 3.0])
    assert tpr_at_fpr(members, others, 0.01) == 50.0


def test_accuracy_weighs_both_sides_alike() -> None:
    assert accuracy(np.array([1.0, -1.0]), np.array([-1.0] * 9 + [1.0]), 0.0) == pytest.approx(70.0)


def test_best_threshold_separates_what_can_be_separated() -> None:
    threshold = best_threshold(np.array([3.0, 4.0]), np.array([1.0, 2.0]))
    assert threshold == 2.5
    # Where members score lowest, calling nobody a member (or everybody) is the best that a threshold can do.
    assert best_threshold(np.array([1.0]), np.array([2.0])) in (-np.inf, np.inf)


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better_than_the_best(seed: int) -> None:
    members, others = (scores.round(1) for scores in gaussians(17, 11, 0.7, seed))
    values = np.concatenate([members, others])
    best = max(accuracy(members, others, threshold) for threshold in [-np.inf, *values, np.inf])
    assert accuracy(members, others, best_threshold(members, others)) == pytest.approx(best)


def test_of_equally_good_thresholds_the_lowest_is_taken() -> None:
    assert best_threshold(np.array([1.0, 1.0]), np.array([1.0])) == -np.inf
    assert best_threshold(np.array([2.0, 5.0]), np.array([1.0, 3.0])) == 1.5


def test_rates_of_gaussians_are_the_known_ones() -> None:
    rates = sample_rates(*gaussians(4000, 4000, 1.0), threshold=0.5)
    expected = {
        "accuracy": 100 * norm.cdf(0.5),
        "auc": norm.cdf(1 / np.sqrt(2)),
        "tpr_at_1_fpr": 100 * norm.sf(norm.isf(0.01) - 1),
        "tpr_at_01_fpr": 100 * norm.sf(norm.isf(0.001) - 1),
    }
    for name, value in expected.items():
        estimate = getattr(rates, name)
        assert estimate.low <= estimate.value <= estimate.high
        assert abs(estimate.value - value) < estimate.high - estimate.low, name  # four standard errors
    assert rates.auc.high - rates.auc.low < 0.03


def test_intervals_cover_chance_when_there_is_no_signal() -> None:
    """19 of 20 intervals should; fewer than 33 of 40 would have a probability below 0.004."""
    covered = [sample_rates(*gaussians(60, 60, 0.0, seed), threshold=0.0, seed=seed).auc for seed in range(40)]
    assert sum(estimate.low <= 0.5 <= estimate.high for estimate in covered) >= 33


def test_none_found_is_not_certainty() -> None:
    rates = sample_rates(np.zeros(30), np.ones(30), threshold=0.5)
    assert rates.tpr_at_1_fpr.value == rates.tpr_at_1_fpr.low == 0.0
    assert rates.tpr_at_1_fpr.high == pytest.approx(100 * (1 - 0.025 ** (1 / 30)))


def test_the_seed_fixes_the_resamples() -> None:
    scores = gaussians(30, 30, 0.5)
    assert sample_rates(*scores, threshold=0.0, seed=3) == sample_rates(*scores, threshold=0.0, seed=3)


def test_clopper_pearson_at_known_values() -> None:
    assert clopper_pearson(50.0, 10) == pytest.approx((18.709, 81.291), abs=1e-3)
    assert clopper_pearson(100.0, 20)[1] == 100.0


def test_models_that_shift_as_a_whole_widen_the_interval() -> None:
    """Every sample of a model moves with it: 8 models of 200 samples are 8 observations rather than 1600."""
    chance = np.random.default_rng(0)
    positives, negatives = chance.normal(0, 1, (2, 8, 1)) + chance.normal(0, 1, (2, 8, 200))
    by_model = model_rates(positives, negatives, threshold=0.0, first=np.arange(8) < 4).auc
    by_sample = sample_rates(positives.ravel(), negatives.ravel(), threshold=0.0).auc
    assert by_model.value == pytest.approx(np.mean([auc(*pair) for pair in zip(positives, negatives, strict=True)]))
    assert by_model.high - by_model.low > 3 * (by_sample.high - by_sample.low)


def test_intervals_over_models_cover_chance_when_there_is_no_signal() -> None:
    covered = 0
    for seed in range(40):
        chance = np.random.default_rng(seed)
        scores = chance.normal(0, 1, (2, 8, 1)) + chance.normal(0, 1, (2, 8, 40))
        estimate = model_rates(*scores, threshold=0.0, first=np.arange(8) < 4).auc
        covered += estimate.low <= 0.5 <= estimate.high
    assert covered >= 36


def test_the_interval_over_models_is_student_s_t_over_the_pairs_of_a_half() -> None:
    chance = np.random.default_rng(1)
    positives, negatives = chance.normal(0.3, 1, (7, 30)), chance.normal(0, 1, (7, 30))
    first = np.array([True, True, True, False, False, False, False])
    found = model_rates(positives, negatives, threshold=0.1, first=first)
    areas = np.array([auc(*pair) for pair in zip(positives, negatives, strict=True)])
    hits = np.array([accuracy(*pair, 0.1) for pair in zip(positives, negatives, strict=True)])
    for estimate, within in ((found.auc, areas), (found.accuracy, hits)):
        halves = (within[first], within[~first])
        value = (halves[0].mean() + halves[1].mean()) / 2
        margins = [t.ppf(0.975, len(half) - 1) * half.std(ddof=1) / len(half) ** 0.5 for half in halves]
        assert estimate == pytest.approx((value, value - sum(margins) / 2, value + sum(margins) / 2))


def test_intervals_over_models_end_where_the_numbers_do() -> None:
    chance = np.random.default_rng(0)
    positives, negatives = chance.normal(4, 1, (8, 5)), chance.normal(0, 1, (8, 5))
    found = model_rates(positives, negatives, threshold=2.0, first=np.arange(8) < 4)
    assert found.auc.high == 1.0 and found.accuracy.value < found.accuracy.high == 100.0
    turned = model_rates(negatives, positives, threshold=2.0, first=np.arange(8) < 4)
    assert turned.auc.low == 0.0 and turned.accuracy.value > turned.accuracy.low == 0.0


def test_the_exact_interval_widens_that_of_percentages() -> None:
    members, others = gaussians(20, 20, 0.3)
    found = sample_rates(members, others, threshold=0.1, seed=2)
    low, high = clopper_pearson(found.accuracy.value, 40)
    assert found.accuracy.low <= low and high <= found.accuracy.high
    low, high = clopper_pearson(found.tpr_at_1_fpr.value, 20)
    assert found.tpr_at_1_fpr.low <= low and high <= found.tpr_at_1_fpr.high
    assert found.to_dict()["auc"] == found.auc._asdict()
