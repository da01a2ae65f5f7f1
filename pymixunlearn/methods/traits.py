"""What each method asks for: labels, the retain set, the forget set. The table of ``list methods`` is made of it."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Traits(NamedTuple):
    """What a method asks for.

    Attributes:
        labels: Whose labels it trains on: "D_r", "D_f", "both", "none"; "D_r or none" and "both or none" where a
            setting decides. Choosing a setting by the acceptance test reads labels of D_f besides.
        retain: Whether it needs the retain set.
        forget: Whether it is given D_f: "trains on" it, only "reads" it, "no", or "no or reads" where a setting
            decides.
    """

    labels: Literal["D_r", "D_f", "both", "none", "D_r or none", "both or none"]
    retain: bool
    forget: Literal["trains on", "reads", "no", "no or reads"]


TRAITS: dict[str, Traits] = {
    "boundary-expand": Traits("none", False, "trains on"),
    "boundary-shrink": Traits("D_f", False, "trains on"),
    "dsmixup": Traits("both", True, "no"),
    "eu-k": Traits("D_r or none", True, "no"),
    "fine-tune": Traits("D_r", True, "no"),
    "gli": Traits("D_r", True, "reads"),
    "gradient-ascent": Traits("D_f", False, "trains on"),
    "l-mix": Traits("none", True, "trains on"),
    "laf": Traits("none", True, "trains on"),
    "laf+r": Traits("D_r", True, "trains on"),
    "mixunlearn": Traits("both or none", True, "trains on"),
    "mixunlearn-reset": Traits("D_r or none", True, "trains on"),
    "neggrad": Traits("both", True, "trains on"),
    "prune-reset": Traits("D_r or none", True, "no or reads"),
    "randlabel": Traits("none", True, "trains on"),
    "retrain": Traits("D_r", True, "no"),
    "salun": Traits("both", True, "trains on"),
    "scrub": Traits("both", True, "trains on"),
    "sisa": Traits("both", True, "no"),
    "ssd": Traits("both", True, "reads"),
    "ts": Traits("both", True, "trains on"),
    "unroll": Traits("D_f", True, "reads"),
}
"""By the method's name; of a method of the user's own nothing is known."""
