"""Fused operators of Adversarial Mixup Unlearning.

The functions here run compiled C++/CUDA kernels where they are available and their plain-PyTorch twins in
:mod:`pymixunlearn.ops.reference` elsewhere; :func:`status` says which. The dispatcher's operators, for use from
``torch.compile`` graphs or C++, are ``torch.ops.pymixunlearn.*``.
"""

from pymixunlearn.ops import (
    _attention_autograd,
    _attention_fake,
    _contrastive_autograd,
    _contrastive_fake,
    _mixing_autograd,
    _mixing_fake,
    reference,
)
from pymixunlearn.ops._library import STATUS, LibraryStatus, Status
from pymixunlearn.ops.attention import mixblock_attention
from pymixunlearn.ops.contrastive import mix_contrastive_loss, real_contrastive_loss, sharpen, sim_loss
from pymixunlearn.ops.mixing import mask_mix

__all__ = [
    "LibraryStatus",
    "Status",
    "mask_mix",
    "mix_contrastive_loss",
    "mixblock_attention",
    "real_contrastive_loss",
    "reference",
    "sharpen",
    "sim_loss",
    "status",
]


def status() -> Status:
    """Whether the compiled operators are in use in this process, why not, and facts about their build."""
    return STATUS


if STATUS.available:
    _contrastive_fake.register()
    _contrastive_autograd.register()
    _mixing_fake.register()
    _mixing_autograd.register()
    _attention_fake.register()
    _attention_autograd.register()
