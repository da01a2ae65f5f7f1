"""Representations of images: the input of a network's last linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pymixunlearn.data.batches import batches
from pymixunlearn.data.image_set import ImageSet, UnlabelledImages
from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.models.modes import evaluating


@torch.no_grad()
def representations(
    model: nn.Module,
    images: ImageSet | UnlabelledImages,
    preprocess: Preprocess,
    *,
    device: torch.device | str,
    batch_size: int = 512,
) -> Tensor:
    """Return what the last ``nn.Linear`` of ``model`` is given, or the logits of a network that has none.

    Args:
        model: Maps images ``[N, C, H, W]`` to logits ``[N, classes]``; it must be on ``device``.
        images: The images.
        preprocess: What turns stored images into network inputs.
        device: Where to compute.
        batch_size: Images per forward pass.

    Returns:
        float32 ``[len(images), D]`` on the CPU.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    seen: list[Tensor] = []
    handle = linear[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) if linear else None
    parts: list[Tensor] = []
    try:
        with evaluating(model):
            for batch in batches(images, preprocess, batch_size=batch_size, device=torch.device(device), labels=False):
                logits = model(batch.images)
                output = seen.pop() if seen else logits
                # Of a layer that returns a row for each token the first is taken, which is the class token's.
                parts.append((output if output.dim() == 2 else output.flatten(1, -2)[:, 0]).float().cpu())
                seen.clear()
    finally:
        if handle is not None:
            handle.remove()
    return torch.cat(parts)
