"""What a command takes of the requests that its model has served before; nothing here imports PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pymixunlearn.experiments.common.options import option

HISTORIES = ("keep", "none")


@dataclass(frozen=True)
class HistoryRequest:
    """How a command treats what its models have forgotten before.

    Attributes:
        forget_key: The key of a model's chain of requests, where it is not found beside the model.
        forget_history: "keep", or "none": earlier requests are not taken into account.
    """

    forget_key: Path | None = option(
        "--forget-key",
        kind=Path,
        metavar="FILE",
        help="The forget.key of a model that has forgotten samples before; with it those are found in the data and "
        "left out.  [default: forget.key in the model's folder, or up to two above]",
    )
    forget_history: str = option(
        "--forget-history",
        default="keep",
        show_default=True,
        metavar="keep|none",
        help="keep: what the model has forgotten before stays out of all training and measuring. none: it counts as "
        "remaining again, which the run records.",
    )
