"""Modules over the operators: the mask generator MixBlock, plain mixup, and the contrastive losses."""

from pymixunlearn.nn.losses import GeneratorLoss, MixContrastiveLoss, RealContrastiveLoss
from pymixunlearn.nn.mixblock import MixBlock, mixup

__all__ = ["GeneratorLoss", "MixBlock", "MixContrastiveLoss", "RealContrastiveLoss", "mixup"]
