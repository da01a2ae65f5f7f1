"""Fused operators of Adversarial Mixup Unlearning.

The functions here run compiled C++/CUDA kernels where they are available and their plain-PyTorch twins in
:mod:`pymixunlearn.ops.reference` elsewhere; :func:`status` says which. The dispatcher's operators, for use from
``torch.compile`` graphs or C++, are ``torch.ops.pymixunlearn.*``.
"""

from pymixunlearn.ops import _attention, _losses, _mask_mix, reference
from pymixunlearn.ops._attention import mixblock_attention
from pymixunlearn.ops._losses import mix_contrastive_loss, real_contrastive_loss, sharpen, sim_loss
from pymixunlearn.ops._mask_mix import mask_mix
from pymixunlearn.ops._torch import library as _library
from pymixunlearn.ops._torch.library import LibraryStatus, Status

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
    """Whether the compiled operators are in use in this process, why not, and facts about their build.

    Example:
        >>> from pymixunlearn import ops
        >>> ops.status().available or ops.status().reason is not None
        True
    """
    return _library.STATUS


_OPERATORS = (_losses, _mask_mix, _attention)
_library.check_fit([fake for operator in _OPERATORS for fake in operator.FAKES])
if status().available:
    for _operator in _OPERATORS:
        _operator.register()
