"""Inputs of ``audit``; nothing here imports PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymixunlearn.experiments.common.inputs import Inputs
from pymixunlearn.experiments.common.options import option
from pymixunlearn.experiments.common.placement import PlacedInputs
from pymixunlearn.experiments.unlearn.inputs import SIGN

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class AuditInputs(Inputs, PlacedInputs):
    """Inputs of ``audit``: a run of ``unlearn``, or a model that never unlearned, or that another tool unlearned.

    Attributes:
        run: The run folder; it says everything about data, split, model and method. Of ``data`` only where the files
            are is read then, and ``split``, ``model`` and ``settings`` must be empty. Without it, ``settings`` say how
            the model was trained, in plain names of ``TrainConfig``'s fields.
        attacks: Names of attacks; () for all that apply.
        shadow_models: How many, even; None for 16, or 8 for RMIA alone.
        epochs: Epochs of every training of a shadow model, instead of the audited model's.
        jobs: How many shadow models to train at a time; None for one on each CPU core, or four on a GPU, and for
            ``method`` one.
        before: The model before unlearning, a file, a run folder or one in memory, which is attacked likewise.
        method: A function ``(model, forget, retain)`` by which the audited model unlearned, and the shadow models do:
            it changes the model in place or returns another; the others are
            :class:`pymixunlearn.methods.function.LabelledInputs`. ``settings`` say how the models are trained first.
        sign_key: A private key that the renewed ``report.json`` of a run is signed with.
    """

    run: Path | None = None
    method: Callable[..., Any] | None = None
    before: Path | nn.Module | None = option(
        "--before",
        kind=Path,
        metavar="CHECKPOINT",
        first=True,
        help="The model before unlearning, to attack it likewise: what does unlearning change?",
    )
    attacks: tuple[str, ...] = option(
        "--attacks",
        kind="words",
        default=(),
        metavar="NAMES",
        first=True,
        help="Which attacks, with commas between: lira, rmia, u-lira, klom.  [default: all; for --model lira,rmia]",
    )
    shadow_models: int | None = option(
        "--shadow-models",
        kind=int,
        least=4,
        metavar="N",
        first=True,
        help="How many shadow models, an even number; more find weaker traces, but with rmia, which uses 8.  "
        "[default: 16; for rmia alone 8]",
    )
    epochs: int | None = option(
        "--epochs",
        kind=int,
        least=1,
        metavar="E",
        first=True,
        help="Epochs of the shadow models' trainings.  [default: as the model under audit was trained]",
    )
    jobs: int | None = option(
        "--jobs",
        kind=int,
        least=1,
        metavar="N",
        first=True,
        help="How many shadow models to train at a time, each in a process of its own with one CPU thread. It does not "
        "change the result.  [default: one per CPU core; on a GPU 4; with --on ray as many as there is room for]",
    )
    sign_key: Path | None = option("--sign-key", kind=Path, metavar="FILE", help=SIGN)
