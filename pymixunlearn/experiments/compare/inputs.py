"""Inputs of ``compare``; nothing here imports PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from pymixunlearn.experiments.common.bad_request import check_name
from pymixunlearn.experiments.common.inputs import SeededInputs, accuracy_option
from pymixunlearn.experiments.common.options import option
from pymixunlearn.experiments.common.placement import PlacedInputs
from pymixunlearn.experiments.unlearn.inputs import RETRAINS


@dataclass(frozen=True)
class CompareInputs(SeededInputs, PlacedInputs):
    """Inputs of ``compare``.

    Attributes:
        methods: Names of rows, names of methods (for one that runs with and without labels: both), or "all".
        seeds: One run per method and seed; a seed fixes the split, the initial model, Retrain and the method, but what
            ``split_seed`` and ``training_seed`` fix for all of them.
            ``settings`` are ``METHOD.NAME``, ``initial.NAME`` and ``retrain.NAME`` to values, or mappings of names
            under METHOD, ``initial`` and ``retrain``. ``seed`` is not used.
        retrain: How many models are retrained for each seed: "one" or "two".
        expect_accuracy: The initial model's test accuracy in percent, as its owner knows it.
    """

    methods: tuple[str, ...] = option(
        "--methods",
        kind="words",
        default=("all",),
        metavar="NAME,...",
        first=True,
        help="all, or some of the methods listed below. One that can do with and without labels is two rows: "
        "mixunlearn means mixunlearn-aware and mixunlearn-agnostic.  [default: all]",
    )
    seeds: tuple[int, ...] = option(
        "--seeds",
        kind="numbers",
        default=(0, 1, 2),
        metavar="N,...",
        first=True,
        help="One run of every method per seed; a seed fixes the split, the initial model and Retrain too.  "
        "[default: 0,1,2]",
    )
    retrain: str = option(
        "--retrain",
        default="two",
        show_default=True,
        metavar="one|two",
        help="How many models to retrain for each seed; with two, methods that are no further from Retrain than the "
        "second is are marked and not ranked.",
    )

    expect_accuracy: float | None = accuracy_option("before it unlearns where it finds")

    def __post_init__(self) -> None:
        """Check how many models are retrained.

        Raises:
            BadRequest: ``retrain`` is none of the choices.
        """
        super().__post_init__()
        check_name("retrain", self.retrain, RETRAINS[1:])
