"""Decisions of the acceptance test made again, and how far their numbers may be from a run's record."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.stages import judge_forgetting
from pymixunlearn.experiments.common.threads import suited_threads
from pymixunlearn.experiments.verify_metrics import PERCENT_TOLERANCE, Check
from pymixunlearn.reporting import row_name
from pymixunlearn.tasks import Split

DISTANCE_TOLERANCE = 0.01
"""How far a distance or an AUC may be from the record; two samples of the smaller side, where these are more.

On one machine a repetition is exact. On another, part (b) trains for some steps, in which rounding spreads.
"""

_NUMBER = re.compile(r"\d+\.\d+")
_DISTANCES = ("ks", "ks_resurfaced", "bound", "initial_ks", "smallest_ks", "auc")
_PERCENTAGES = ("eps", "accuracy_unseen", "accuracy_others")
_BESIDE = {
    **dict.fromkeys(("probe_auc", "auc_interval", "probe_interval"), 1.0),
    **dict.fromkeys(("eps_interval",), 100.0),
    **dict.fromkeys(("shown_again", "shown_again_unseen"), 200.0),
}
"""What decides nothing and is told beside the decision, with the size of the distance tolerance in its unit; the
accuracies after half of D_f was shown again are counted on half of the samples."""
_COUNTS = ("forget_samples", "unseen_samples")


def check_acceptance(
    networks: Mapping[str, nn.Module],
    split: Split,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    device: torch.device,
    watcher: Observer,
    missing: list[str],
    *,
    same_machine: bool,
) -> Iterator[Check]:
    """Make the test again for every model that is at hand.

    Args:
        networks: The models by name; without "initial" nothing is tested.
        split: The run's.
        config: The run's ``config.json``.
        metrics: The run's ``metrics.json``.
        device: Where to compute.
        watcher: Receives the progress.
        missing: Gets a sentence for what is not tested.
        same_machine: Whether the run's versions and processor are those at hand. If not, a decision may be another one
            where a distance lies at the bound.
    """
    stated = metrics.get("acceptance")
    if not stated:
        return
    rate = (config.get("initial") or {}).get("lr", config.get("resurfacing_lr"))
    if split.dataset.validation is None:
        yield Check("acceptance", False, "the data have no validation set that the test could have been made with")
        return
    if rate is None or "initial" not in networks:
        why = "its second part's learning rate is not recorded" if rate is None else "it needs the initial model"
        missing.append(f"decisions of the acceptance test: {why}")
        return
    tested = {name: network for name, network in networks.items() if name in stated}
    with suited_threads(split.dataset, device):
        found = judge_forgetting(tested, split, lr=rate, device=device, seed=metrics["seed"], observer=watcher)
    assert found is not None  # there is a validation set
    for name, test in found.items():
        wrong = _differences(test.to_dict(), stated[name], same_machine=same_machine)
        detail = "; ".join(wrong) or f"{test.decision}, as recorded"
        yield Check(f"acceptance of {row_name(name)}", not wrong, detail)


def _differences(found: Mapping[str, Any], stated: Mapping[str, Any], *, same_machine: bool) -> list[str]:
    """Return what is not as recorded."""
    fewest = max(1, min(found[name] for name in _COUNTS))
    allowed = {
        **dict.fromkeys(_DISTANCES, max(DISTANCE_TOLERANCE, 2 / fewest)),
        **dict.fromkeys(_PERCENTAGES, max(PERCENT_TOLERANCE, 200 / fewest)),
        **dict.fromkeys((*_COUNTS, "shown_samples"), 0),
    }
    wrong = []
    for name, tolerance in allowed.items():
        value, recorded = found.get(name), stated.get(name)
        if (value is None) is not (recorded is None) or (
            value is not None and recorded is not None and abs(value - recorded) > tolerance
        ):
            wrong.append(f"{name} is {value}, recorded {recorded}")
    for name, unit in _BESIDE.items():
        if name in stated and not _near(found.get(name), stated[name], allowed["auc"] * unit):
            wrong.append(f"{name} is {found.get(name)}, recorded {stated[name]}")
    bound, distances = found["bound"], [found[name] for name in ("ks", "ks_resurfaced", "initial_ks")]
    near = bound is not None and any(
        distance is not None and abs(distance - bound) <= allowed["ks"] for distance in distances
    )
    if found["decision"] != stated["decision"]:
        if same_machine or not near:
            wrong.append(f"the decision is '{found['decision']}', recorded '{stated['decision']}'")
        return wrong
    exact = all(found[name] == stated[name] for name in ("ks", "ks_resurfaced"))
    reasons = [test["reason"] if exact else _NUMBER.sub("", test["reason"]) for test in (found, stated)]
    if (exact or not near) and reasons[0] != reasons[1]:
        wrong.append("its reason is another one")
    return wrong


def _near(found: Any, stated: Any, tolerance: float) -> bool:
    """Whether a number, or both ends of an interval, are as recorded; None is near to None alone."""
    if found is None or stated is None:
        return found is stated
    ends, others = (value if isinstance(value, list) else [value] for value in (found, stated))
    return len(ends) == len(others) and all(
        abs(one - other) <= tolerance for one, other in zip(ends, others, strict=True)
    )
