"""Inputs of ``unlearn``; nothing here imports PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pymixunlearn.experiments.common.bad_request import check_name
from pymixunlearn.experiments.common.inputs import LABELS, SeededInputs, accuracy_option
from pymixunlearn.experiments.common.options import option

SIGN = "Sign with this private key (of 'request keygen'); 'verify --public-key' checks it."
RECOMMENDED = "eu-k"
"""The method for deletion requests; ``docs/choosing.md`` says why."""
RETRAINS = ("none", "one", "two")
"""How many models can be retrained for comparison."""


@dataclass(frozen=True)
class UnlearnInputs(SeededInputs):
    """Inputs of ``unlearn``: forget something, retrain for comparison, evaluate.

    Attributes:
        method: The unlearning method's name.
        label_aware: Whether the method may use labels; None leaves it to the settings.
        stop: When to end, "epochs", "auto" or "accepted"; None leaves it to the settings.
        retrain: How many models are retrained for comparison: "none", "one" or "two" (True and False are "one" and
            "none"). The distance between two is the noise floor of every gap.
        relearn: Whether to measure how soon each model learns the forgotten samples again.
        tsne: Whether to draw the t-SNE of representations.
        thumbnails: Whether images of the data may be in the report; None allows them where whole classes are forgotten.
        png: Whether every picture is written as PNG too.
        max_drop: How many points of accuracy unlearning may cost; None makes no release check.
        sign_key: A private key that ``report.json`` is signed with.
        expect_accuracy: The initial model's test accuracy in percent, as its owner knows it.
    """

    method: str = option(
        "--method",
        default="mixunlearn",
        show_default=True,
        metavar="NAME",
        first=True,
        help="How to unlearn; the methods are listed below. The settings of one: --method NAME --help. The default is "
        f"the paper's; for deletion requests {RECOMMENDED} is recommended (docs/choosing.md).",
    )
    label_aware: bool | None = option(
        LABELS,
        help="Whether the method may use the training labels; mixunlearn, eu-k, prune-reset and mixunlearn-reset can "
        "do either.  [default: whatever the method needs; label-agnostic for mixunlearn, label-aware for the other "
        "three]",
    )
    stop: str | None = option(
        "--stop",
        metavar="WHEN",
        help="When to end: epochs (after all of them), auto (when forgetting is done, judged from the forgotten data "
        "and a held-out part of the remaining), or accepted (when the acceptance test accepts the model, on the half "
        "of the validation set that nothing is judged by); both at the latest after all epochs.  [default: epochs]",
    )
    retrain: str | bool = option(
        "--retrain",
        default="one",
        show_default=True,
        metavar="none|one|two",
        help="How many models to retrain for comparison. With none the table shows no gaps; with two it shows how far "
        "two Retrains are from each other, the noise floor of every gap.",
    )
    relearn: bool = option(
        "--relearn",
        default=False,
        help="Also measure after how many training steps each model has learnt the forgotten samples again.",
    )
    tsne: bool = option(
        "--tsne", default=False, help="Draw where samples lie in each model's last layer but one (takes a minute)."
    )
    thumbnails: bool | None = option(
        "--thumbnails/--no-thumbnails",
        help="Whether the report may show images of the data, forgotten ones among them.  [default: "
        "thumbnails for task class, no-thumbnails where single samples are forgotten]",
    )
    png: bool = option("--png", default=False, help="Write every picture as PNG too, beside the SVG.")
    expect_accuracy: float | None = accuracy_option("before it unlearns where it finds")

    max_drop: float | None = option(
        "--max-drop",
        kind=float,
        least=0,
        most=100,
        metavar="POINTS",
        help="Release check: the command ends with 3 where unlearning cost more points of test accuracy on the classes "
        "that remain, or where the acceptance test refuses the model.",
    )

    sign_key: Path | None = option("--sign-key", kind=Path, metavar="FILE", help=SIGN)

    def __post_init__(self) -> None:
        """Settle how many models are retrained.

        Raises:
            BadRequest: ``retrain`` is none of the choices.
        """
        super().__post_init__()
        if isinstance(self.retrain, bool):
            object.__setattr__(self, "retrain", "one" if self.retrain else "none")
        check_name("retrain", str(self.retrain), RETRAINS)
