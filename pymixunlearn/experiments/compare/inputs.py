"""Inputs of ``compare``; nothing here imports PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from pymixunlearn.experiments.common.inputs import Inputs
from pymixunlearn.experiments.common.options import option


@dataclass(frozen=True)
class CompareInputs(Inputs):
    """Inputs of ``compare``.

    Attributes:
        methods: Names of rows, names of methods (for one that runs with and without labels: both), or "all".
        seeds: One run per method and seed; a seed fixes the split, the initial model, Retrain and the method.
            ``settings`` are ``METHOD.NAME``, ``initial.NAME`` and ``retrain.NAME`` to values, or mappings of names
            under METHOD, ``initial`` and ``retrain``. ``seed`` is not used.
    """

    methods: tuple[str, ...] = option(
        "--methods",
        kind="words",
        default=("all",),
        metavar="NAME,...",
        first=True,
        help="all, or some of the methods listed below; mixunlearn means mixunlearn-aware and mixunlearn-agnostic.  "
        "[default: all]",
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
