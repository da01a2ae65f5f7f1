"""Unlearning methods by name.

A method of the user's own is one class in the user's own file, registered by :func:`method`; see
``examples/add_a_method.py``. One that comes with the package is one file, and one line here that imports it.
"""

from __future__ import annotations

from pymixunlearn.methods.base import Method, UnlearnResult
from pymixunlearn.methods.boundary_expand import BoundaryExpand, BoundaryExpandConfig
from pymixunlearn.methods.boundary_shrink import BoundaryShrink, BoundaryShrinkConfig
from pymixunlearn.methods.config import MethodConfig, setting
from pymixunlearn.methods.fine_tune import FineTune, FineTuneConfig
from pymixunlearn.methods.gli import Gli, GliConfig
from pymixunlearn.methods.gradient_ascent import GradientAscent, GradientAscentConfig
from pymixunlearn.methods.l_mix import LMix, LMixConfig
from pymixunlearn.methods.laf import Laf, LafConfig
from pymixunlearn.methods.laf_repair import LafRepair, LafRepairConfig
from pymixunlearn.methods.loop import Loop, LoopConfig, cross_entropy, descend
from pymixunlearn.methods.mixunlearn import MixUnlearn, MixUnlearnConfig
from pymixunlearn.methods.neggrad import NegGrad, NegGradConfig
from pymixunlearn.methods.prune_reset import PruneReset, PruneResetConfig
from pymixunlearn.methods.randlabel import RandLabel, RandLabelConfig
from pymixunlearn.methods.registry import available, get, method, register
from pymixunlearn.methods.retrain import Retrain, RetrainConfig
from pymixunlearn.methods.salun import SalUn, SalUnConfig
from pymixunlearn.methods.scrub import Scrub, ScrubConfig
from pymixunlearn.methods.sisa import DsMixup, DsMixupConfig, Sisa, SisaConfig
from pymixunlearn.methods.ssd import Ssd, SsdConfig
from pymixunlearn.methods.teachers import Teachers, TeachersConfig
from pymixunlearn.methods.unroll import Unroll, UnrollConfig

__all__ = [
    "BoundaryExpand",
    "BoundaryExpandConfig",
    "BoundaryShrink",
    "BoundaryShrinkConfig",
    "DsMixup",
    "DsMixupConfig",
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
    "NegGrad",
    "NegGradConfig",
    "PruneReset",
    "PruneResetConfig",
    "RandLabel",
    "RandLabelConfig",
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
