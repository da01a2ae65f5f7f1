"""Masks held to a share: one shift per mask makes its mean what the losses assume.

Nothing in Eq. 3 ties MixBlock's mask to the mixing ratio: the lowest loss is that of a mask of 1, the forget image
itself, and every generator that learns drifts there. Held to the ratio, it can only decide *where* the forget image
shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 16
"""Steps of the search: Newton's method in the logit of the mean, where the function is nearly a straight line, or the
middle of the bracket where that would leave it. Logits of up to 200 are done within them, to the last digits."""

SMALLEST = 1e-4
"""Shares are held within [SMALLEST, 1 - SMALLEST]: at 0 and 1 themselves the shift would be infinite."""


def hold_share(mask_logits: Tensor, lam: float | Tensor) -> Tensor:
    """Return mask logits shifted, each mask by one number, so that the mean of its sigmoid is ``lam``.

    Gradients are those of the shifted logits, the shift's own dependence on them included. Nothing is read back from
    the device, and the number of operations is fixed.

    Args:
        mask_logits: [P, h, w] floats; computed in float32 at least.
        lam: Share in [0, 1]: a number, a 0-d tensor or one per mask [P]; held 1e-4 away from 0 and 1.

    Returns:
        [P, h, w] in the type of ``mask_logits``.

    Example:
        >>> logits = torch.tensor([[[-3.0, 0.0], [2.0, 9.0]]])
        >>> round(hold_share(logits, 0.25).sigmoid().mean().item(), 6)
        0.25
    """
    logits = mask_logits.to(torch.promote_types(mask_logits.dtype, torch.float32))
    share = torch.as_tensor(lam, dtype=logits.dtype, device=logits.device).clamp(SMALLEST, 1 - SMALLEST)
    share = share.reshape(-1, 1, 1)  # [P or 1, 1, 1]
    wanted = torch.logit(share)
    with torch.no_grad():
        # With every logit at or below the wanted one the mean is too small, with every one at or above it too large.
        low, high = wanted - logits.amax((1, 2), keepdim=True), wanted - logits.amin((1, 2), keepdim=True)
        shift = (low + high) / 2
        for _ in range(STEPS):
            shown = torch.sigmoid(logits + shift)
            mean = shown.mean((1, 2), keepdim=True)
            below = mean < share
            low, high = torch.where(below, shift, low), torch.where(below, high, shift)
            slope = (shown * (1 - shown)).mean((1, 2), keepdim=True) / (mean * (1 - mean))
            step = shift + (wanted - torch.logit(mean)) / slope
            # Not a number where a mask is 0 or 1 everywhere up to rounding: that is outside of the bracket too.
            inside = (step >= low) & (step <= high)
            shift = torch.where(inside, step, (low + high) / 2)
        shown = torch.sigmoid(logits + shift)
        weight = shown * (1 - shown)
        weight = weight / weight.sum((1, 2), keepdim=True).clamp_min(torch.finfo(logits.dtype).tiny)
    # The shift falls by its mean, weighted by how far each place's share still moves, as the logits rise. The value of
    # the difference is zero.
    held = logits + shift - (weight * (logits - logits.detach())).sum((1, 2), keepdim=True)
    return held.to(mask_logits.dtype)
