"""Predictions of a model over a whole image set, and their accuracy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pymixunlearn.data.batches import batches
from pymixunlearn.data.image_set import ImageSet, UnlabelledImages
from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.models.adapter import adapted
from pymixunlearn.models.autocast import computing_as_usual
from pymixunlearn.models.modes import evaluating


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    images: ImageSet | UnlabelledImages,
    preprocess: Preprocess,
    *,
    device: torch.device | str,
    batch_size: int = 512,
    augment_seed: int | None = None,
) -> Tensor:
    """Return the logits of ``model`` in eval mode for every image, in the set's order.

    Args:
        model: Maps images ``[N, C, H, W]`` to logits ``[N, classes]``, or to an object, tuple or dict with them, in any
            floating-point type; it must be on ``device``.
        images: The images to classify.
        preprocess: What turns stored images into network inputs.
        device: Where to compute.
        batch_size: Images per forward pass.
        augment_seed: If given, the training augmentation is applied, drawn from this seed.

    Returns:
        Logits ``[len(images), classes]`` in float32 on the CPU; ``[0, 0]`` for an empty set.

    Example:
        >>> from pymixunlearn import data, models
        >>> digits = data.load("digits")
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> predict_logits(model, digits.test, digits.preprocess, device="cpu").shape
        torch.Size([359, 10])
    """
    parts: list[Tensor] = []
    order: list[Tensor] = []
    loader = batches(
        images.to(torch.device(device)),
        preprocess,
        batch_size=batch_size,
        device=torch.device(device),
        seed=augment_seed,
        augment=augment_seed is not None,
        labels=False,
    )
    with evaluating(model), adapted(model), computing_as_usual(model):
        for batch in loader:
            parts.append(model(batch.images).float())
            order.append(batch.indices)
    if not parts:
        return torch.zeros(0, 0)
    logits = torch.cat(parts).cpu()
    # A seeded loader also shuffles: put the rows back where the images are.
    restored = torch.empty_like(logits)
    restored[torch.cat(order).cpu()] = logits
    return restored


def accuracy(logits: Tensor, targets: Tensor) -> float | None:
    """Return the share of rows whose largest logit is the target's, in percent.

    Args:
        logits: ``[N, classes]``.
        targets: Class indices ``[N]``.

    Returns:
        A percentage, or None when there is no row to count.

    Example:
        >>> import torch
        >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
        50.0
    """
    if len(targets) == 0:
        return None
    hits = logits.argmax(dim=1).cpu() == targets.cpu()
    return 100.0 * int(hits.sum()) / len(targets)
