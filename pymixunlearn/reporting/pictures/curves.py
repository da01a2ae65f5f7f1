"""Curves over the epochs of training, unlearning and retraining: Figure 5 of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

from pymixunlearn.reporting.metrics_record import SECOND
from pymixunlearn.reporting.pictures.style import MARKERS, PALETTE, Picture, drawing, label

_TITLES = {
    "initial": "training of the initial model",
    "original": "what the method trained on everything, before it unlearned",
    "unlearned": "unlearning",
    "stopping": "the checks of the stopping rule",
    "rollback": "held-out images while the method trained, in points lost since the best look",
    "retrain": "training of Retrain",
    SECOND: "training of the second Retrain",
}
_UNMEASURED = ("phase", "epoch", "seconds")


def draw_curves(history: Sequence[Mapping[str, object]]) -> list[Picture]:
    """Draw one picture for every phase of a run, with a panel for every quantity that it measured.

    Args:
        history: Records with "phase", "epoch" (or "step") and the phase's own quantities, in order.
    """
    series: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for record in history:
        across = record["epoch"]
        assert isinstance(across, (int, float))
        for name, value in record.items():
            if name in _UNMEASURED or not isinstance(value, (int, float)) or not math.isfinite(value):
                continue
            series.setdefault(str(record["phase"]), {}).setdefault(name, []).append((float(across), float(value)))
    return [_draw_phase(phase, quantities) for phase, quantities in series.items()]


def _draw_phase(phase: str, quantities: Mapping[str, Sequence[tuple[float, float]]]) -> Picture:
    from matplotlib.ticker import MaxNLocator

    with drawing(0.4 + 0.95 * len(quantities)) as figure:
        panels = figure.subplots(len(quantities), 1, sharex=True, squeeze=False)[:, 0]
        looks = zip(cycle(PALETTE), cycle(MARKERS), strict=False)
        for axes, (name, points), (colour, marker) in zip(panels, quantities.items(), looks, strict=False):
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3.5)
            axes.set_title(label(name))
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.grid(axis="y", linewidth=0.4, alpha=0.5)
        panels[-1].set_xlabel("epoch")
        panels[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return Picture(f"curves-{phase}", f"Epoch by epoch: {_TITLES.get(phase, phase)}.", figure)
