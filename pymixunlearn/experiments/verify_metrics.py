"""Metrics of a run measured again, and how far they may be from its record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pymixunlearn.data import Dataset
from pymixunlearn.evaluation import ATTACKERS, METRICS, Metrics, accuracy, most_changed, predict_logits
from pymixunlearn.evaluation.catalogue import metric_info, plugged_keys
from pymixunlearn.evaluation.changes import PARTS, changes_of
from pymixunlearn.evaluation.intervals import sample_counts
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.experiments.common.provenance import versions
from pymixunlearn.experiments.common.stages import evaluate_models
from pymixunlearn.experiments.common.threads import suited_threads
from pymixunlearn.reporting import row_name
from pymixunlearn.tasks import Split

PERCENT_TOLERANCE = 0.1
ATTACK_TOLERANCE = 1.0
PLAIN_TOLERANCE = 1e-3
CHANGE_TOLERANCE = 0.5
"""How far a number measured again may be from the record: accuracies, successes of attackers, plain numbers, points of
probability.

On one machine, with as many threads, a repetition is exact. Another processor adds up in another order; logits then
differ in their last bits, and a sample may cross a boundary. An accuracy may be off by two samples where these are more
than the tolerance.
"""


@dataclass(frozen=True)
class Check:
    """One check: its subject, whether it holds, and what was found."""

    subject: str
    holds: bool
    detail: str


def changed_from(stated: object) -> str:
    """Return the part of a sentence for a hash that is not the recorded one."""
    return f", recorded {str(stated)[:12]}…: it was changed"


def check_test_accuracy(
    model: nn.Module,
    dataset: Dataset,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    split: Mapping[str, Any],
    device: torch.device,
) -> Iterator[Check]:
    """Measure on the test set what needs no forgotten sample."""
    logits = predict_logits(model.to(device), dataset.test, dataset.preprocess, device=device)
    # The deletion of a whole class has shifted the others: by name they are what they were.
    names = {name: index for index, name in enumerate(config["class_names"])}
    targets = torch.tensor([names[dataset.train.classes[label]] for label in dataset.test.targets.tolist()])
    forgotten = torch.isin(targets, torch.tensor(split["params"].get("classes", [])))
    lost = torch.isin(targets, torch.tensor(split.get("history", {}).get("classes", [])))
    parts = {"test": torch.ones_like(forgotten), "test_r": ~(forgotten | lost), "test_f": forgotten}
    recorded, wrong, known = metrics["metrics"]["unlearned"], [], 0
    for key, part in parts.items():
        value = accuracy(logits[part], targets[part])
        if value is None or recorded.get(key) is None:
            continue
        known += 1
        if abs(value - recorded[key]) > max(PERCENT_TOLERANCE, 200 / int(part.sum())):
            wrong.append(f"{METRICS[key].label} is {value:.3f}, recorded {recorded[key]}")
    yield Check("metrics of unlearned", not wrong, "; ".join(wrong) or f"{known} measured again, on the test images")


def check_metrics(
    networks: Mapping[str, nn.Module],
    split: Split,
    metrics: Mapping[str, Any],
    device: torch.device,
    watcher: Observer,
    missing: list[str],
    *,
    attacker: str = ATTACKERS[0],
) -> Iterator[Check]:
    """Measure models; ``missing`` gets a sentence for what the record states and no model tells without a training."""
    # A run of an earlier version has one attack, and no list of them.
    draws = len(metrics["details"]["unlearned"].get("attacks", [None]))
    with suited_threads(split.dataset, device):
        measured = evaluate_models(
            networks,
            split,
            device=device,
            seed=metrics["seed"],
            observer=watcher,
            attacker=attacker,
            draws=draws,
            asr=metrics.get("asr", "default"),
        )
    earlier = metrics["versions"].get("pymixunlearn") != versions()["pymixunlearn"]
    plugins = set(plugged_keys(metrics["metrics"]["unlearned"]))  # said already
    for name in networks:
        wrong, known, recorded = [], 0, metrics["metrics"][name] or {}
        for key, value in measured[name].items():
            if earlier and key not in recorded:
                continue  # that version did not know the metric
            stated = recorded.get(key)
            # Without Retrain's model, what compares with its predictions cannot be measured.
            if (value is None and stated is None) or (metric_info(key).needs_retrain and "retrain" not in networks):
                continue
            known += 1
            if value is None:
                wrong.append(f"{metric_info(key).label} cannot be measured, recorded {stated}")
            elif stated is None or abs(value - stated) > tolerance(key, split):
                wrong.append(f"{metric_info(key).label} is {value:.3f}, recorded {stated}")
        for key in sorted(recorded.keys() - measured[name].keys() - plugins):
            if recorded[key] is not None:
                missing.append(f"{key} of {row_name(name)}: it is not measured again")
        detail = "; ".join(wrong) if wrong else f"{known} measured again"
        yield Check(f"metrics of {row_name(name)}", not wrong, detail)
    if "most_changed" in metrics:
        if "initial" in measured:
            yield _check_most_changed(measured, metrics["most_changed"])
        else:
            missing.append("samples that changed most: they take the initial model")


def _check_most_changed(measured: Mapping[str, Metrics], recorded: Mapping[str, Any]) -> Check:
    """Look at the samples again that a run names as those whose predictions changed most."""
    found = {name: metrics.predictions for name, metrics in measured.items()}
    before, after, retrain = found["initial"], found["unlearned"], found.get("retrain")
    assert before is not None and after is not None
    known, wrong = 0, []
    largest = most_changed(before, after, retrain)
    for part in PARTS:
        stated = recorded[part]
        again = changes_of(part, [entry["index"] for entry in stated], before, after, retrain)
        known += len(stated)
        wrong += [
            f"{part} {theirs['index']}" for theirs, ours in zip(stated, again, strict=True) if _differs(theirs, ours)
        ]
        # Of samples that changed alike, another processor may name another.
        least = [min((entry["change"] for entry in entries), default=0.0) for entries in (stated, largest[part])]
        if len(stated) != len(largest[part]) or abs(least[0] - least[1]) > CHANGE_TOLERANCE:
            wrong.append(f"{part}: others changed more")
    detail = "; ".join(wrong) if wrong else f"{known} looked at again"
    return Check("samples that changed most", not wrong, detail)


def _differs(stated: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether a sample's label, change, or the probability of a prediction is not what the record says."""
    if stated["label"] != found["label"] or abs(stated["change"] - found["change"]) > CHANGE_TOLERANCE:
        return True
    models = found.keys() - {"index", "label", "change"}
    return any(abs(stated[model][1] - found[model][1]) > CHANGE_TOLERANCE for model in models)


def tolerance(key: str, split: Split) -> float:
    """Return how far a metric that is measured again may be from the recorded one."""
    if metric_info(key).unit != "%":
        return PLAIN_TOLERANCE
    if key.startswith("asr") or key.startswith("mia_"):
        return ATTACK_TOLERANCE
    return max(PERCENT_TOLERANCE, 200 / sample_counts(split)[key])
