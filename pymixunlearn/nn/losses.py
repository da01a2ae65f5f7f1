"""The three contrastive losses as modules: temperatures and pairing are fixed once, tensors come with every call.

They hold no parameters and add nothing to :mod:`pymixunlearn.ops` but a place for the settings.
Equation numbers are those of "Adversarial Mixup Unlearning" (ICLR 2025).
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from pymixunlearn import ops
from pymixunlearn.errors import UserError, unknown_name

PAIRINGS = ("zip", "grid")
REDUCTIONS = ("sum", "mean")


def _check_positive(name: str, value: float) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise UserError(f"{name} is {value!r}; expected a finite number above 0")
    return float(value)


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise unknown_name(name, value, known)
    return value


class MixContrastiveLoss(nn.Module):
    """``L_mix`` on mixed samples (Eq. 5): agree with the retain sample's target, part from the forget sample's.

    Args:
        tau: Temperature of the forget term, above 0.
        pairing: "zip" (row n mixes forget n with retain n) or "grid" (every forget with every retain sample).
        reduction: "sum", or "mean" over the retain samples.
        sharpen_T: When given, float targets are a teacher's logits, sharpened here at this temperature (Eq. 8);
            otherwise they are probabilities.

    Raises:
        UserError: A temperature is not above 0, or the pairing or reduction is unknown.

    Example:
        >>> import torch
        >>> from pymixunlearn.nn import MixContrastiveLoss
        >>> loss = MixContrastiveLoss(tau=10.0, pairing="grid")
        >>> logits = torch.randn(2, 3, 10)  # all pairs of 2 forget and 3 retain samples
        >>> loss(logits, torch.tensor([0, 0]), torch.tensor([1, 2, 3]), lam=0.3).shape
        torch.Size([])
    """

    def __init__(
        self, tau: float = 10.0, pairing: str = "zip", reduction: str = "sum", *, sharpen_T: float | None = None
    ) -> None:
        """Check and store the settings."""
        super().__init__()
        self.tau = _check_positive("tau", tau)
        self.pairing = _check_choice("pairing", pairing, PAIRINGS)
        self.reduction = _check_choice("reduction", reduction, REDUCTIONS)
        self.sharpen_T = None if sharpen_T is None else _check_positive("sharpen_T", sharpen_T)

    def forward(self, logits: Tensor, target_forget: Tensor, target_retain: Tensor, lam: float | Tensor) -> Tensor:
        """Return the scalar loss.

        Args:
            logits: The network's logits of the mixes, [N, C] in zip and [N_f, N_r, C] in grid pairing.
            target_forget: [N_f, C] floats or [N_f] int64 labels; in zip row n belongs to mix n.
            target_retain: The same for the retain samples, [N_r, C] or [N_r].
            lam: Share of the forget sample, in [0, 1]: a number, a 0-d tensor, or one value per row or pair.
        """
        return ops.mix_contrastive_loss(
            logits,
            target_forget,
            target_retain,
            lam,
            self.tau,
            pairing=self.pairing,
            reduction=self.reduction,
            sharpen_T=self.sharpen_T,
        )

    def extra_repr(self) -> str:
        """Show the settings when the module is printed."""
        return f"tau={self.tau}, pairing={self.pairing!r}, reduction={self.reduction!r}, sharpen_T={self.sharpen_T}"


class GeneratorLoss(MixContrastiveLoss):
    """``L_gen = -L_mix`` at its own temperature (Eq. 3): the generator seeks the mixes that unlearning gets wrong.

    Arguments and shapes are those of :class:`MixContrastiveLoss`.

    Example:
        >>> import torch
        >>> from pymixunlearn.nn import GeneratorLoss, MixContrastiveLoss
        >>> arguments = torch.randn(4, 10), torch.zeros(4, dtype=torch.int64), torch.arange(4), 0.3
        >>> bool(GeneratorLoss(tau=0.5)(*arguments) == -MixContrastiveLoss(tau=0.5)(*arguments))
        True
    """

    def __init__(
        self, tau: float = 0.5, pairing: str = "zip", reduction: str = "sum", *, sharpen_T: float | None = None
    ) -> None:
        """Check and store the settings."""
        super().__init__(tau, pairing, reduction, sharpen_T=sharpen_T)

    def forward(self, logits: Tensor, target_forget: Tensor, target_retain: Tensor, lam: float | Tensor) -> Tensor:
        """Return the scalar ``-L_mix``; see :meth:`MixContrastiveLoss.forward`."""
        return -super().forward(logits, target_forget, target_retain, lam)


class RealContrastiveLoss(nn.Module):
    """``L_real`` on the samples themselves (Eq. 6): agree with the targets on retain, part from them on forget samples.

    Args:
        tau: Temperature of the forget term, above 0.
        reduction: "sum", or "mean" over the retain samples.
        sharpen_T: As in :class:`MixContrastiveLoss`.

    Raises:
        UserError: A temperature is not above 0, or the reduction is unknown.

    Example:
        >>> import torch
        >>> from pymixunlearn.nn import RealContrastiveLoss
        >>> loss = RealContrastiveLoss(tau=5.0, reduction="mean")
        >>> loss(torch.randn(2, 10), torch.randn(3, 10), torch.tensor([0, 0]), torch.tensor([1, 2, 3])).shape
        torch.Size([])
    """

    def __init__(self, tau: float = 5.0, reduction: str = "sum", *, sharpen_T: float | None = None) -> None:
        """Check and store the settings."""
        super().__init__()
        self.tau = _check_positive("tau", tau)
        self.reduction = _check_choice("reduction", reduction, REDUCTIONS)
        self.sharpen_T = None if sharpen_T is None else _check_positive("sharpen_T", sharpen_T)

    def forward(
        self, logits_forget: Tensor, logits_retain: Tensor, target_forget: Tensor, target_retain: Tensor
    ) -> Tensor:
        """Return the scalar loss; logits are [N_f, C] and [N_r, C], targets [·, C] floats or [·] int64 labels."""
        return ops.real_contrastive_loss(
            logits_forget,
            logits_retain,
            target_forget,
            target_retain,
            self.tau,
            reduction=self.reduction,
            sharpen_T=self.sharpen_T,
        )

    def extra_repr(self) -> str:
        """Show the settings when the module is printed."""
        return f"tau={self.tau}, reduction={self.reduction!r}, sharpen_T={self.sharpen_T}"
