"""Ways of mixing a forget image with a retain image: the learnable MixBlock, and plain mixup for comparison.

MixBlock is Eq. 2 of "Adversarial Mixup Unlearning" (ICLR 2025) and Section 3.2 of Qin et al., "Adversarial
AutoMixup" (ICLR 2024): cross-attention between the two feature maps decides for each position whose pixels are shown.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn import ops
from pymixunlearn.errors import UserError, unknown_name
from pymixunlearn.nn.share import hold_share
from pymixunlearn.seeding import generator

WEIGHT_STD = 0.01


class Projection(NamedTuple):
    """Queries and keys [N, d, h, w] and scalar values [N, h, w] of one feature map."""

    query: Tensor
    key: Tensor
    value: Tensor


class MixBlock(nn.Module):
    """Cross-attention mask generator: it learns where a mix shows the forget image, and where the retain image.

    A constant channel is appended to both feature maps (lam to forget, 1 - lam to retain) and 1x1 convolutions, shared
    by the two, give queries, keys and values. The three convolutions are one stacked matrix, so an image needs
    one matrix product; it has ``2 ((C' + 1) d + d) + (C' + 1) + 1`` entries, 66 306 for 256 channels.

    As the paper describes it, the block looks at the features as they are, and the mask's mean is free: small features
    leave the attention uniform and the mask flat, and a mask that learns drifts to 1. ``normalize="layer"`` with
    ``share="lam"`` is the form that has to decide where.

    Args:
        in_channels: Channels C' of the feature maps.
        reduction: Queries and keys have d = C' // reduction channels.
        normalize: "layer" brings the features of every image to mean 0 and standard deviation 1, over channels and
            positions together, so that their scale does not matter; None takes them as they are.
        share: "lam" holds the mean of every mask, at feature resolution, to the mixing ratio (:func:`hold_share`);
            "free" leaves it to the block.
        seed: Fixes the initial weights, drawn from N(0, 0.01²); biases start at 0.

    Raises:
        UserError: The feature maps have too few channels to be reduced, or ``normalize`` or ``share`` is unknown.

    Example:
        >>> import torch
        >>> from pymixunlearn.nn import MixBlock
        >>> mixblock = MixBlock(in_channels=16)
        >>> features_f, features_r = torch.randn(2, 16, 4, 4), torch.randn(2, 16, 4, 4)
        >>> images_f, images_r = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
        >>> mixblock(features_f, features_r, 0.3, images_f, images_r).shape
        torch.Size([2, 3, 32, 32])
        >>> held = MixBlock(in_channels=16, normalize="layer", share="lam")
        >>> round(held.mask_logits(features_f, features_r, 0.3).sigmoid().mean().item(), 4)
        0.3
    """

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        *,
        normalize: Literal["layer"] | None = None,
        share: Literal["free", "lam"] = "free",
        seed: int = 0,
    ) -> None:
        """Draw the weights."""
        super().__init__()
        if normalize not in (None, "layer"):
            raise unknown_name("normalize", str(normalize), ("layer", "None"))
        if share not in ("free", "lam"):
            raise unknown_name("share", str(share), ("free", "lam"))
        self.normalize, self.share = normalize, share
        if reduction < 1 or in_channels < reduction:
            raise UserError(
                f"in_channels is {in_channels} with reduction {reduction}; expected 1 <= reduction <= in_channels"
            )
        self.in_channels = in_channels
        self.dim = in_channels // reduction
        # Rows: d queries, d keys, one value. Columns: C' features and, last, the mixing ratio.
        self.weight = nn.Parameter(torch.empty(2 * self.dim + 1, in_channels + 1))
        self.bias = nn.Parameter(torch.zeros(2 * self.dim + 1))
        with torch.no_grad():
            self.weight.normal_(0.0, WEIGHT_STD, generator=generator(seed, "mixblock"))

    def project(self, features: Tensor, ratio: float | Tensor) -> Projection:
        """Return queries, keys and values of ``features`` with the constant channel ``ratio`` appended.

        The constant channel enters linearly, W [F; r] + b = W_F F + (b + r w_r), so it is never materialised.

        Args:
            features: [N, C', h, w].
            ratio: A number, a 0-d tensor, or one value per image [N].
        """
        n, _, h, w = features.shape
        if isinstance(ratio, Tensor):
            ratio = ratio.to(self.weight.dtype).unsqueeze(-1)  # [1] or [N, 1], against rows [2d + 1]
        offset = self.bias + ratio * self.weight[:, -1]
        matrix = self.weight[:, :-1].expand(n, -1, -1)
        stacked = torch.baddbmm(offset.unsqueeze(-1), matrix, features.flatten(2)).view(n, -1, h, w)
        # One split, whose gradient is one concatenation; that of three slices would be three maps full of zeros.
        query, key, value = torch.split(stacked, [self.dim, self.dim, 1], dim=1)
        return Projection(query, key, value.squeeze(1))

    def mask_logits(self, feat_f: Tensor, feat_r: Tensor, lam: float | Tensor, pairing: str = "zip") -> Tensor:
        """Return ``l_f - l_r`` [P, h, w], whose sigmoid is the forget image's share at feature resolution.

        Args:
            feat_f: Feature maps of the forget images, [N_f, C', h, w], taken from the initial model.
            feat_r: Feature maps of the retain images, [N_r, C', h, w].
            lam: Mixing ratio in [0, 1]: a number or 0-d tensor; in zip pairing also one value per pair [N].
            pairing: "zip" (P = N_f = N_r) or "grid" (P = N_f N_r, pair (i, j) in row i N_r + j).

        Raises:
            UserError: The pairing is unknown, or a feature map or ``lam`` has a shape other than the above.
        """
        self._check(feat_f, feat_r, lam, pairing)
        if self.normalize == "layer":
            feat_f, feat_r = (F.layer_norm(features, features.shape[1:], eps=1e-12) for features in (feat_f, feat_r))
        forget = self.project(feat_f, lam)
        retain = self.project(feat_r, 1 - lam)
        logits = ops.mixblock_attention(*forget, *retain, pairing=pairing)
        return logits if self.share == "free" else hold_share(logits, lam)

    def forward(
        self, feat_f: Tensor, feat_r: Tensor, lam: float | Tensor, x_f: Tensor, x_r: Tensor, pairing: str = "zip"
    ) -> Tensor:
        """Return the mixed images [P, C, H, W] of ``x_f`` [N_f, C, H, W] and ``x_r`` [N_r, C, H, W].

        The other arguments are those of :meth:`mask_logits`.
        """
        return ops.mask_mix(x_f, x_r, self.mask_logits(feat_f, feat_r, lam, pairing), pairing=pairing)

    def extra_repr(self) -> str:
        """Show the sizes when the module is printed."""
        return f"in_channels={self.in_channels}, dim={self.dim}, normalize={self.normalize!r}, share={self.share!r}"

    def _check(self, feat_f: Tensor, feat_r: Tensor, lam: float | Tensor, pairing: str) -> None:
        for name, features in (("feat_f", feat_f), ("feat_r", feat_r)):
            if features.ndim != 4 or features.shape[1] != self.in_channels:
                raise UserError(
                    f"{name} has shape {list(features.shape)}; expected feature maps [N, {self.in_channels}, h, w]"
                )
        _check_ratio(lam, pairing, feat_f.shape[0])


def mixup(x_f: Tensor, x_r: Tensor, lam: float | Tensor, pairing: str = "zip") -> Tensor:
    """Vanilla mixup ``lam x_f + (1 - lam) x_r`` (Zhang et al. 2018), the "w/o MixBlock" ablation.

    Args:
        x_f: Forget images [N_f, C, H, W].
        x_r: Retain images [N_r, C, H, W].
        lam: Mixing ratio in [0, 1]: a number or 0-d tensor; in zip pairing also one value per pair [N].
        pairing: "zip" or "grid".

    Returns:
        Mixed images [P, C, H, W], in the order of :class:`MixBlock`.

    Raises:
        UserError: The pairing is unknown or ``lam`` has another shape.

    Example:
        >>> import torch
        >>> from pymixunlearn.nn import mixup
        >>> mixup(torch.ones(2, 1, 1, 1), torch.zeros(3, 1, 1, 1), 0.25, pairing="grid").flatten()
        tensor([0.2500, 0.2500, 0.2500, 0.2500, 0.2500, 0.2500])
    """
    _check_ratio(lam, pairing, x_f.shape[0])
    if isinstance(lam, Tensor):
        lam = lam.to(x_f.dtype).reshape(-1, 1, 1, 1)
    if pairing == "zip":
        return lam * x_f + (1 - lam) * x_r
    return (lam * x_f.unsqueeze(1) + (1 - lam) * x_r.unsqueeze(0)).flatten(0, 1)


def _check_ratio(lam: float | Tensor, pairing: str, pairs: int) -> None:
    if pairing not in ("zip", "grid"):
        raise unknown_name("pairing", pairing, ("zip", "grid"))
    if not isinstance(lam, Tensor):
        if not 0 <= lam <= 1:
            raise UserError(f"lam is {lam}; expected a mixing ratio from 0 to 1")
        return
    # In grid pairing q, k and v are computed once per image, which one ratio per pair would make impossible.
    allowed = ([],) if pairing == "grid" else ([], [pairs])
    if list(lam.shape) not in allowed:
        expected = "a number or a 0-d tensor" if pairing == "grid" else f"a number, a 0-d tensor or shape [{pairs}]"
        raise UserError(f"lam has shape {list(lam.shape)}; expected {expected} in {pairing} pairing")
