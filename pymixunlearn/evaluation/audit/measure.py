"""Results of an audit from the margins of the model under audit and of the shadow models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pymixunlearn.evaluation.audit.klom import klom
from pymixunlearn.evaluation.audit.lira import half_of, lira_scores, u_lira_scores
from pymixunlearn.evaluation.audit.margins import Array
from pymixunlearn.evaluation.audit.plan import ShadowPlan
from pymixunlearn.evaluation.audit.rates import model_rates, sample_rates
from pymixunlearn.evaluation.audit.rmia import REFERENCES, rmia_scores, tune_rmia


@dataclass(frozen=True)
class AttackInfo:
    """One attack.

    Attributes:
        name: Its name on the command line, and its key in ``audit.json``.
        label: How tables call it.
        asks: What it tells apart.
        things: What these are.
        min_shadows: How many shadow models it needs at least.
        needs_method: Whether it compares a method with retraining, and so needs both kinds of shadow models.
    """

    name: str
    label: str
    asks: str
    things: str
    min_shadows: int
    needs_method: bool


ATTACKS = {
    info.name: info
    for info in (
        AttackInfo("lira", "LiRA", "seen from unseen", "samples", 4, False),
        AttackInfo("rmia", "RMIA", "seen from unseen", "samples", 4, False),
        AttackInfo("u-lira", "U-LiRA", "unlearned from retrained", "models", 8, True),
        AttackInfo("klom", "KLoM", "unlearned from retrained", "models", 4, True),
    )
}
"""Every attack by its name."""


@dataclass(frozen=True, eq=False)
class ShadowMargins:
    """Margins of the audited samples (:meth:`ShadowPlan.audited`) under the shadow models.

    Attributes:
        shadows: Under the models that stand for the one under audit, ``[N, S]``: trained, and unlearned if it was.
        retrained: Under models trained on D_r alone, ``[N, S]``; None where no attack needs them.
        initial: Under the shadow models before they unlearned, ``[N, S]``; None where nothing asks for them.
    """

    shadows: Array
    retrained: Array | None = None
    initial: Array | None = None


def measure(
    plan: ShadowPlan, target: Array, margins: ShadowMargins, attacks: Sequence[str], *, seed: int = 0
) -> dict[str, Any]:
    """Run attacks and return what they found, JSON-able.

    Args:
        plan: Which samples there are and who saw them.
        target: Margins under the model under audit, ``[S]``.
        margins: Margins under the shadow models.
        attacks: Keys of :data:`ATTACKS`.
        seed: Fixes the bootstrap.

    Returns:
        "attacks": by name "label", "asks" and the rates, "rmia" also its setting; "klom": None, or "forget", "retain",
        "unseen" and "floor", each with "mean", "median" and "p95"; "samples": how many of each kind were used.
    """
    count = plan.candidates
    population = slice(count, count + len(plan.population))
    shadows, retrained = margins.shadows, margins.retrained
    found: dict[str, Any] = {}
    if "lira" in attacks:
        scores = lira_scores(target[:count], shadows[:, :count], plan.seen)
        found["lira"] = sample_rates(*_sides(plan, scores), threshold=0.0, seed=seed).to_dict()
    if "rmia" in attacks:
        # Half of the models saw a sample, so these give every sample REFERENCES that did not.
        few = slice(2 * REFERENCES)
        seen, references, references_z = plan.seen[few], shadows[few, :count], shadows[few, population]
        setting = tune_rmia(references, seen, references_z)
        scores = rmia_scores(target[:count], references, ~seen, target[population], references_z, a=setting.a)
        found["rmia"] = {
            **sample_rates(*_sides(plan, scores), threshold=setting.threshold, seed=seed).to_dict(),
            "a": setting.a,
            "references": len(seen) // 2,
        }
    if "u-lira" in attacks:
        assert retrained is not None  # the attack needs the method's shadow models of both kinds
        scored = u_lira_scores(shadows[:, :count], retrained[:, :count], plan.seen)
        found["u-lira"] = model_rates(*scored, threshold=0.0, first=half_of(len(plan.seen))).to_dict()
    divergences = None
    if "klom" in attacks:
        assert retrained is not None
        divergences = _divergences(plan, shadows, retrained)
    return {
        "attacks": {
            name: {"label": ATTACKS[name].label, "asks": ATTACKS[name].asks, **rates} for name, rates in found.items()
        },
        "klom": divergences,
        "samples": {
            "members": len(plan.members),
            "unseen": len(plan.unseen),
            "population": len(plan.population),
            "retained": len(plan.retained),
        },
    }


def _sides(plan: ShadowPlan, scores: Array) -> tuple[Array, Array]:
    """Return the scores of members and of unseen samples."""
    return scores[: len(plan.members)], scores[len(plan.members) :]


def _divergences(plan: ShadowPlan, shadows: Array, retrained: Array) -> dict[str, dict[str, float]]:
    """Return KLoM of every kind of sample, N/2 against N/2 models throughout, so that the numbers compare.

    A candidate is compared under the unlearned models that had seen it. The floor is what its retrained models give
    when one half is compared with the other: they differ by chance alone.
    """
    count = plan.candidates
    # For samples that all models treat alike any half will do.
    halves = np.zeros((len(plan.seen), shadows.shape[1]), bool)
    halves[::2] = True
    halves[:, :count] = plan.seen
    first = klom(_of(shadows, halves), _of(retrained, halves))
    floor = klom(_of(retrained, halves), _of(retrained, ~halves))
    start = count + len(plan.population)
    return {
        "forget": _summary(first[: len(plan.members)]),
        "retain": _summary(first[start:]),
        "unseen": _summary(first[count:start]),
        "floor": _summary(floor[: len(plan.members)]),
    }


def _of(margins: Array, chosen: np.ndarray) -> Array:
    """Return for each sample the margins of its chosen models, ``[N / 2, S]``."""
    models, samples = margins.shape
    picked: Array = margins.T[chosen.T].reshape(samples, models // 2).T
    return picked


def _summary(values: Array) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "p95": float(np.percentile(values, 95)),
    }
