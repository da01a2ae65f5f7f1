"""The result of a run in two sentences: did it forget, and how sure is that?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pymixunlearn.evaluation.catalogue import PAPER_METRICS

_TOO_FEW = "There are too few samples for an attack on the loss, so nothing is known of membership"


def verdict(record: Mapping[str, Any]) -> tuple[str, str]:
    """Return two sentences about the content of a ``metrics.json``.

    The first judges by the paper's metrics: whether each differs from Retrain's by more than the draw of the samples
    explains (95 %), and whether the mean gap is smaller than that of the untouched model. The second says what a
    membership attack sees, with its interval, and what stays unknown.
    """
    if record["retrain"] is None:
        return _alone(record), _attack_alone(record)
    return _beside_retrain(record), _attack_beside_retrain(record)


def _beside_retrain(record: Mapping[str, Any]) -> str:
    gap, before = record["gap"]["mean"], record["initial_gap"]["mean"]
    apart, known = [], 0
    for info in PAPER_METRICS:
        mine, theirs = record["metrics"].get(info.key), record["retrain"].get(info.key)
        if mine is None or theirs is None:
            continue
        known += 1
        if _differs(record, info.key):
            apart.append(f"{info.label} {mine:.1f} against {theirs:.1f} %")
    distance = f"the mean gap to Retrain is {gap:.2f} points, that of the untouched model {before:.2f}"
    if not apart:
        judged = "It behaves like a model retrained without the data"
        return (
            f"{judged}: none of the {known} metrics differs by more than the draw of the samples explains; {distance}."
        )
    measured = f"{len(apart)} of {known} metrics differ measurably ({'; '.join(apart)})"
    if gap >= before:
        return f"It is no closer to a retrained model than before: {measured}, and {distance}."
    return f"It came closer to a model retrained without the data, but not all the way: {measured}; {distance}."


def _differs(record: Mapping[str, Any], key: str) -> bool:
    """Whether a metric's gap to Retrain is larger than both intervals together allow."""
    gap = record["gap"][key]
    slack = []
    # Each interval reaches from its value towards the other's by another length.
    mine, theirs = record["metrics"][key], record["retrain"][key]
    for name, value, other in (("unlearned", mine, theirs), ("Retrain", theirs, mine)):
        low, high = record["details"][name]["intervals"][key]
        slack.append(high - value if other > value else value - low)
    return bool(gap > math.hypot(*slack))


def _alone(record: Mapping[str, Any]) -> str:
    """Say what changed, where there is nothing to compare with."""
    changes = []
    for info in PAPER_METRICS:
        mine, before = record["metrics"].get(info.key), record["initial"].get(info.key)
        if mine is not None and before is not None:
            changes.append(f"{info.label} went from {before:.1f} to {mine:.1f} %")
    return (
        f"Whether it behaves like a model retrained without the data cannot be known, since the run was made without "
        f"Retrain: {', '.join(changes)}, but what they should be is not known."
    )


def _attack_alone(record: Mapping[str, Any]) -> str:
    attack = _attack(record, "unlearned", record["metrics"])
    if attack is None:
        return f"{_TOO_FEW}; {_one_run(record)}."
    return (
        f"An attack on the loss tells forgotten samples from unseen ones in {attack} of the cases, where guessing "
        f"gives 50 % but a retrained model need not; {_one_run(record)}."
    )


def _attack_beside_retrain(record: Mapping[str, Any]) -> str:
    mine = _attack(record, "unlearned", record["metrics"])
    theirs = _attack(record, "Retrain", record["retrain"])
    if mine is None or theirs is None:
        return f"{_TOO_FEW}; {_one_run(record)}."
    seen = "a difference that the samples can show" if _differs(record, "mia_loss") else "no measurable difference"
    return (
        f"An attack on the loss tells forgotten samples from unseen ones in {mine} of the cases, with Retrain in "
        f"{theirs}: {seen}; {_one_run(record)}."
    )


def _attack(record: Mapping[str, Any], name: str, values: Mapping[str, float | None]) -> str | None:
    value = values.get("mia_loss")
    if value is None:
        return None
    low, high = record["details"][name]["intervals"]["mia_loss"]
    return f"{value:.0f} % (95 % interval {low:.0f} to {high:.0f} %)"


def _one_run(record: Mapping[str, Any]) -> str:
    return f"this is one run (seed {record['seed']}), and no metric proves that nothing is left"
