"""Unlearning methods by name.

A method of the user's own is one class in the user's own file, registered by :func:`method`; see
``examples/add_a_method.py``. One that comes with the package is one file, two lines here that import it, and a run
of ``python -m benchmarks.report settings``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymixunlearn.methods.base import Method, Recipe, UnlearnResult
from pymixunlearn.methods.boundary_expand import BoundaryExpandConfig
from pymixunlearn.methods.boundary_shrink import BoundaryShrinkConfig
from pymixunlearn.methods.config import MethodConfig, setting
from pymixunlearn.methods.ending import EndingConfig
from pymixunlearn.methods.eu_k import EuKConfig
from pymixunlearn.methods.fine_tune import FineTuneConfig
from pymixunlearn.methods.gli import GliConfig
from pymixunlearn.methods.gradient_ascent import GradientAscentConfig
from pymixunlearn.methods.l_mix import LMixConfig
from pymixunlearn.methods.laf import LafConfig
from pymixunlearn.methods.laf_repair import LafRepairConfig
from pymixunlearn.methods.loop import Loop, LoopConfig, cross_entropy, descend
from pymixunlearn.methods.mixunlearn import MixUnlearnConfig, MixUnlearnResetConfig
from pymixunlearn.methods.neggrad import NegGradConfig
from pymixunlearn.methods.prune_reset import PruneResetConfig
from pymixunlearn.methods.randlabel import RandLabelConfig
from pymixunlearn.methods.registry import available, method, register
from pymixunlearn.methods.retrain import RetrainConfig
from pymixunlearn.methods.salun import SalUnConfig
from pymixunlearn.methods.scrub import ScrubConfig
from pymixunlearn.methods.sisa import DsMixupConfig, SisaConfig
from pymixunlearn.methods.ssd import SsdConfig
from pymixunlearn.methods.teachers import TeachersConfig
from pymixunlearn.methods.unroll import UnrollConfig

if TYPE_CHECKING:
    from pymixunlearn.methods._typed import (
        BoundaryExpand,
        BoundaryShrink,
        DsMixup,
        EuK,
        FineTune,
        Gli,
        GradientAscent,
        Laf,
        LafRepair,
        LMix,
        MixUnlearn,
        MixUnlearnReset,
        NegGrad,
        PruneReset,
        RandLabel,
        Retrain,
        SalUn,
        Scrub,
        Sisa,
        Ssd,
        Teachers,
        Unroll,
        get,
    )
else:
    from pymixunlearn.methods.boundary_expand import BoundaryExpand
    from pymixunlearn.methods.boundary_shrink import BoundaryShrink
    from pymixunlearn.methods.eu_k import EuK
    from pymixunlearn.methods.fine_tune import FineTune
    from pymixunlearn.methods.gli import Gli
    from pymixunlearn.methods.gradient_ascent import GradientAscent
    from pymixunlearn.methods.l_mix import LMix
    from pymixunlearn.methods.laf import Laf
    from pymixunlearn.methods.laf_repair import LafRepair
    from pymixunlearn.methods.mixunlearn import MixUnlearn, MixUnlearnReset
    from pymixunlearn.methods.neggrad import NegGrad
    from pymixunlearn.methods.prune_reset import PruneReset
    from pymixunlearn.methods.randlabel import RandLabel
    from pymixunlearn.methods.registry import get
    from pymixunlearn.methods.retrain import Retrain
    from pymixunlearn.methods.salun import SalUn
    from pymixunlearn.methods.scrub import Scrub
    from pymixunlearn.methods.sisa import DsMixup, Sisa
    from pymixunlearn.methods.ssd import Ssd
    from pymixunlearn.methods.teachers import Teachers
    from pymixunlearn.methods.unroll import Unroll

__all__ = [
    "BoundaryExpand",
    "BoundaryExpandConfig",
    "BoundaryShrink",
    "BoundaryShrinkConfig",
    "DsMixup",
    "DsMixupConfig",
    "EndingConfig",
    "EuK",
    "EuKConfig",
    "FineTune",
    "FineTuneConfig",
    "Gli",
    "GliConfig",
    "GradientAscent",
    "GradientAscentConfig",
    "LMix",
    "LMixConfig",
    "Laf",
    "LafConfig",
    "LafRepair",
    "LafRepairConfig",
    "Loop",
    "LoopConfig",
    "Method",
    "MethodConfig",
    "MixUnlearn",
    "MixUnlearnConfig",
    "MixUnlearnReset",
    "MixUnlearnResetConfig",
    "NegGrad",
    "NegGradConfig",
    "PruneReset",
    "PruneResetConfig",
    "RandLabel",
    "RandLabelConfig",
    "Recipe",
    "Retrain",
    "RetrainConfig",
    "SalUn",
    "SalUnConfig",
    "Scrub",
    "ScrubConfig",
    "Sisa",
    "SisaConfig",
    "Ssd",
    "SsdConfig",
    "Teachers",
    "TeachersConfig",
    "UnlearnResult",
    "Unroll",
    "UnrollConfig",
    "available",
    "cross_entropy",
    "descend",
    "get",
    "method",
    "register",
    "setting",
]
