"""LiRA, U-LiRA, RMIA and KLoM against literal transcriptions, and on data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import entropy, norm

from pymixunlearn.evaluation.audit import (
    auc,
    klom,
    lira_scores,
    log_confidences,
    logit_margins,
    model_rates,
    rmia_scores,
    sample_rates,
    tune_rmia,
    u_lira_scores,
)
from pymixunlearn.evaluation.audit.lira import OWN_VARIANCE_FROM, half_of


def halves(models: int, samples: int, seed: int = 0) -> np.ndarray:
    """Which model saw which sample: complementary halves in pairs."""
    chance = np.random.default_rng(seed)
    seen = np.zeros((models, samples), bool)
    for pair in range(0, models, 2):
        seen[pair, chance.permutation(samples)[: samples // 2]] = True
        seen[pair + 1] = ~seen[pair]
    return seen


def world(models: int, samples: int, gain: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins of a target that saw the first half of the samples, of shadow models, and what those saw.

    Samples differ in difficulty far more than by having been seen, which adds ``gain``.
    """
    chance = np.random.default_rng(seed + 100)
    seen = halves(models + 2, samples, seed)
    seen[0] = np.arange(samples) < samples // 2
    margins = chance.normal(0, 5, samples) + gain * seen + chance.normal(0, 1, seen.shape)
    return margins[0], margins[2:], seen[2:]


def test_margins_are_the_logit_of_the_confidence() -> None:
    logits, targets = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 6
    confidence = logits.double().softmax(1)[torch.arange(50), targets].numpy()
    margins = logit_margins(logits, targets)
    np.testing.assert_allclose(margins, np.log(confidence / (1 - confidence)))
    np.testing.assert_allclose(log_confidences(margins), np.log(confidence))


def test_margins_are_exact_where_confidences_are_not() -> None:
    margins = logit_margins(torch.tensor([[900.0, 0.0], [0.0, 900.0]]), torch.tensor([0, 0]))
    assert margins.tolist() == [900.0, -900.0]
    np.testing.assert_allclose(log_confidences(margins), [0.0, -900.0])


@pytest.mark.parametrize("models", [8, 2 * OWN_VARIANCE_FROM])
def test_lira_is_the_ratio_of_two_normal_densities(models: int) -> None:
    target, shadows, seen = world(models, 20, 1.0)
    fits = []
    for side in (seen, ~seen):
        chosen = [shadows[side[:, sample], sample] for sample in range(20)]
        variances = np.array([values.var(ddof=1) for values in chosen])
        if models // 2 < OWN_VARIANCE_FROM:
            variances[:] = variances.mean()
        fits.append(norm([values.mean() for values in chosen], np.sqrt(variances)).logpdf(target))
    np.testing.assert_allclose(lira_scores(target, shadows, seen), fits[0] - fits[1])


def test_lira_sees_through_differences_in_difficulty() -> None:
    """Truth: the margins themselves hardly tell members; the ratio has the AUC of two unit normals, gain apart."""
    target, shadows, seen = world(64, 4000, 1.5)
    assert auc(target[:2000], target[2000:]) < 0.6
    scores = lira_scores(target, shadows, seen)
    assert auc(scores[:2000], scores[2000:]) == pytest.approx(norm.cdf(1.5 / np.sqrt(2)), abs=0.03)


def test_rmia_sees_through_differences_in_difficulty() -> None:
    target, shadows, seen = world(10, 2000, 2.0)
    chance = np.random.default_rng(5)
    population = chance.normal(0, 5, 500) + chance.normal(0, 1, (9, 500))
    setting = tune_rmia(shadows[:8], seen[:8], population[1:])
    scores = rmia_scores(target, shadows[:8], ~seen[:8], population[0], population[1:], a=setting.a)
    assert auc(scores[:1000], scores[1000:]) > 0.75 > auc(target[:1000], target[1000:]) + 0.1
    rates = sample_rates(scores[:1000], scores[1000:], threshold=setting.threshold)
    assert rates.accuracy.value > 65


def test_attacks_find_nothing_where_nothing_is() -> None:
    """The models' members score as everybody else: the intervals of the AUC include 0.5 (19 of 20 would)."""
    covered = {"lira": 0, "rmia": 0}
    for seed in range(20):
        target, shadows, seen = world(8, 200, 0.0, seed)
        chance = np.random.default_rng(seed)
        population = chance.normal(0, 5, 100) + chance.normal(0, 1, (9, 100))
        setting = tune_rmia(shadows, seen, population[1:])
        found = {
            "lira": lira_scores(target, shadows, seen),
            "rmia": rmia_scores(target, shadows, ~seen, population[0], population[1:], a=setting.a),
        }
        for name, scores in found.items():
            estimate = sample_rates(scores[:100], scores[100:], threshold=0.0, seed=seed).auc
            covered[name] += estimate.low <= 0.5 <= estimate.high
    assert min(covered.values()) >= 15


@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
def test_rmia_is_the_share_of_dominated_population_samples(a: float) -> None:
    target, shadows, seen = world(4, 12, 1.0)
    chance = np.random.default_rng(1)
    target_z, references_z = chance.normal(0, 3, 30), chance.normal(0, 3, (4, 30))

    def marginal(confidences: np.ndarray) -> float:
        return 0.5 * ((1 + a) * float(confidences.mean()) + (1 - a))

    expected = []
    for x in range(12):
        ratio_x = expit(target[x]) / marginal(expit(shadows[~seen[:, x], x]))
        ratios = [ratio_x / (expit(target_z[z]) / marginal(expit(references_z[:, z]))) for z in range(30)]
        expected.append(np.mean([ratio >= 1 for ratio in ratios]))
    np.testing.assert_allclose(rmia_scores(target, shadows, ~seen, target_z, references_z, a=a), expected)


def test_rmia_works_where_confidences_underflow() -> None:
    target, shadows, seen = world(8, 400, 3.0)
    chance = np.random.default_rng(5)
    population = chance.normal(0, 5, 200) + chance.normal(0, 1, (9, 200))
    forgotten = tuple(margins - 1000 for margins in (target, shadows))
    setting = tune_rmia(forgotten[1], seen, population[1:] - 1000)
    scores = rmia_scores(forgotten[0], forgotten[1], ~seen, population[0] - 1000, population[1:] - 1000, a=setting.a)
    assert setting.a == 1.0
    assert auc(scores[:200], scores[200:]) > 0.9


def test_u_lira_judges_each_half_by_the_other() -> None:
    chance = np.random.default_rng(0)
    seen = halves(10, 12)
    unlearned, retrained = chance.normal(0, 1, (2, 10, 12))
    positives, negatives = u_lira_scores(unlearned, retrained, seen)
    assert positives.shape == negatives.shape == (10, 6)
    for pair in range(10):
        others = [4, 5, 6, 7, 8, 9] if pair < 4 else [0, 1, 2, 3]
        inside = [unlearned[[k for k in others if seen[k, column]], column] for column in range(12)]
        outside = [retrained[others, column] for column in range(12)]
        spread = [np.sqrt(np.mean([values.var(ddof=1) for values in side])) for side in (inside, outside)]
        for scores, margins in ((positives, unlearned), (negatives, retrained)):
            ratio = norm([v.mean() for v in inside], spread[0]).logpdf(margins[pair]) - norm(
                [v.mean() for v in outside], spread[1]
            ).logpdf(margins[pair])
            np.testing.assert_allclose(scores[pair], ratio[seen[pair]])


def test_u_lira_finds_what_differs_from_retraining_and_only_that() -> None:
    """At the null the mean over worlds has to be 0.5, too: leaving out single pairs would give less."""
    estimates = []
    for seed in range(60):
        chance = np.random.default_rng(seed)
        seen = halves(12, 40, seed)
        hard = chance.normal(0, 5, 40)
        unlearned, retrained = hard + chance.normal(0, 0.3, (2, 12, 1)) + chance.normal(0, 1, (2, 12, 40))
        first = half_of(12)
        estimates.append(model_rates(*u_lira_scores(unlearned, retrained, seen), threshold=0.0, first=first))
        shifted = u_lira_scores(unlearned - 4, retrained, seen)
        assert model_rates(*shifted, threshold=0.0, first=first).auc.low > 0.9
    for name, chance_value in (("auc", 0.5), ("accuracy", 50.0)):
        found = [getattr(rates, name) for rates in estimates]
        values = np.array([estimate.value for estimate in found])
        assert abs(values.mean() - chance_value) < 3 * values.std() / np.sqrt(60), name
        assert sum(estimate.low <= chance_value <= estimate.high for estimate in found) >= 52, name


def test_klom_is_the_divergence_of_two_histograms() -> None:
    chance = np.random.default_rng(0)
    unlearned, retrained = chance.normal(0, 1, (50, 7)), chance.normal(0.5, 2, (40, 7))
    expected = []
    for sample in range(7):
        sides = unlearned[:, sample], retrained[:, sample]
        edges = np.linspace(np.concatenate(sides).min(), np.concatenate(sides).max(), 21)
        p, q = (np.histogram(side, edges)[0] / len(side) for side in sides)
        expected.append(sum(p[b] * np.log(p[b] / max(q[b], 1e-5)) for b in range(20) if p[b] > 0))
    np.testing.assert_allclose(klom(unlearned, retrained), expected)


def test_klom_of_gaussians_nears_the_known_value() -> None:
    chance = np.random.default_rng(0)
    unlearned, retrained = chance.normal(1, 1, (20000, 3)), chance.normal(0, 1, (20000, 3))
    np.testing.assert_allclose(klom(unlearned, retrained), 0.5, atol=0.06)
    assert klom(retrained[:10000], retrained[10000:]).max() < 0.01


def test_klom_is_bounded_and_clips() -> None:
    assert klom(np.full((5, 1), 7.0), np.full((5, 1), 7.0)) == 0
    apart = klom(np.full((5, 1), 1e6), np.full((5, 1), -1e6))
    assert apart == pytest.approx(entropy([1.0]) - np.log(1e-5))
    assert klom(np.full((5, 1), 1e6), np.full((5, 1), 150.0)) == 0
