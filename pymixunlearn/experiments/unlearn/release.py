"""Release check: whether a model that was unlearned may take the place of the one before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from pymixunlearn.evaluation import Acceptance, Metrics
from pymixunlearn.methods.collapse import Collapse
from pymixunlearn.tasks import Split

_Z = 1.959964
_TRY = "try a smaller lr, fewer epochs, or another method"
_TRY_OTHER = "try another lr, or another method"


def release_check(
    metrics: Mapping[str, Metrics],
    acceptance: Mapping[str, Acceptance] | None,
    split: Split,
    max_drop: float,
    collapse: Collapse | None,
    unchanged: bool,
) -> dict[str, Any]:
    """Compare the unlearned model with the one before it on the test images of the classes that remain.

    Both models see the same images, so the interval of the drop is that of a paired difference. The drop breaches the
    limit where it is larger and the images show that there is one: its interval leaves 0 out. Where there is a
    validation set, a model that the acceptance test refuses breaches it, too. So do a run that a collapse cut short and
    a model that is still the one before, unless that test accepts them.

    Args:
        metrics: Of the models "initial" and "unlearned", with their predictions.
        acceptance: What the acceptance test found, where it was made.
        split: What was forgotten.
        max_drop: How many points of accuracy unlearning may cost.
        collapse: What ended the run where the model collapsed.
        unchanged: Whether both models have the same weights.

    Returns:
        "holds", "reason" (a sentence), "max_drop", "drop" with "low" and "high" (points), "samples", and "acceptance".
    """
    targets = split.test.targets.cpu()
    known = torch.bincount(split.train.targets[split.retain_indices], minlength=split.num_classes) > 0
    kept = known[targets]
    right = {}
    for name in ("initial", "unlearned"):
        predictions = metrics[name].predictions
        assert predictions is not None  # they were just measured
        right[name] = (predictions.test.argmax(dim=1) == targets)[kept]
    lost = int((right["initial"] & ~right["unlearned"]).sum())
    won = int((~right["initial"] & right["unlearned"]).sum())
    count = int(kept.sum())
    drop, low, high = paired_difference(lost, won, count)
    decision = None if acceptance is None else acceptance["unlearned"].decision
    said = f"{drop:+.1f} points of test accuracy on the classes that remain (95 % interval {low:+.1f} to {high:+.1f})"
    breach = None
    if drop > max_drop and low > 0:
        breach = f"it lost {said}, and {max_drop:g} are allowed; {_TRY}"
    elif collapse is not None and decision != "accepted":
        breach = f"it {collapse.sentence()}"
    elif unchanged and decision != "accepted":
        breach = f"it has the weights of the model before, so that nothing was unlearned; {_TRY_OTHER}"
    elif decision == "refused":
        breach = "the acceptance test refuses it, since D_f is not like unseen images to it; try more epochs"
    return {
        "holds": breach is None,
        "reason": f"It lost {said}." if breach is None else f"The model is not released: {breach}.",
        "max_drop": max_drop,
        "drop": drop,
        "low": low,
        "high": high,
        "samples": count,
        "acceptance": decision,
    }


def paired_difference(lost: int, won: int, count: int) -> tuple[float, float, float]:
    """Return by how many points accuracy fell, with the 95 % interval of Agresti and Min (2005) for paired samples.

    Args:
        lost: Images that only the first model has right.
        won: Images that only the second has right.
        count: All images.

    Example:
        >>> [round(value, 1) for value in paired_difference(12, 2, 359)]
        [2.8, 0.7, 4.9]
    """
    if not count:
        return 0.0, 0.0, 0.0
    total, fell, rose = count + 2, lost + 0.5, won + 0.5
    centre = (fell - rose) / total
    margin = _Z * math.sqrt(max(0.0, fell + rose - (fell - rose) ** 2 / total)) / total
    return 100 * (lost - won) / count, 100 * (centre - margin), 100 * (centre + margin)
