"""Inputs of ``tune``; nothing here imports PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymixunlearn.experiments.common.inputs import LABELS, Inputs, accuracy_option
from pymixunlearn.experiments.common.options import option
from pymixunlearn.experiments.common.placement import PlacedInputs


@dataclass(frozen=True)
class TuneInputs(Inputs, PlacedInputs):
    """Inputs of ``tune``.

    The split must be of a task that can be made of any part of the data, and the model a network's name. ``seed`` is
    not used.

    Attributes:
        method: The method's name.
        label_aware: Whether the method may use labels; None leaves it to the settings.
        seeds: Every combination is run with each; their mean counts.
        grid: Setting to the values to choose from, in place of the shipped grid's or besides.
        sampler: "tpe", "random" or "grid".
        trials: How many combinations to try; None means 20, and for the sampler "grid" all of them.
        validation: The share of the training data that is taken out to judge by.
        expect_accuracy: The accuracy of the network that is trained first, in percent, on that share.
    """

    method: str = "mixunlearn"
    label_aware: bool | None = option(
        LABELS, help="Whether the method may use the training labels.  [default: as for `unlearn`]"
    )
    seeds: tuple[int, ...] = option(
        "--seeds",
        kind="numbers",
        default=(0,),
        metavar="N,...",
        help="Run every combination with each; the mean counts.  [default: 0]",
    )
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    sampler: str = option("--sampler", default="tpe", show_default=True, metavar="NAME", help="tpe, random or grid.")
    trials: int | None = option(
        "--trials",
        kind=int,
        least=1,
        metavar="N",
        help="How many combinations to try, those of earlier calls included.  [default: 20; for grid all]",
    )
    validation: float = option(
        "--validation",
        kind=float,
        above=0,
        below=1,
        default=0.2,
        show_default=True,
        metavar="F",
        help="Which share of the training data to judge by.",
    )
    expect_accuracy: float | None = accuracy_option(
        "before it unlearns where it finds", "accuracy on that share that you know of the network trained without it"
    )
