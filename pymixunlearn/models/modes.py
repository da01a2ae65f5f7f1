"""Evaluation mode for a block, with every module's own mode given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put ``model`` in evaluation mode, without gradients, for the block; then restore every submodule's own mode."""
    # One by one, not `model.train(flag)`: a user may keep single layers in evaluation mode inside a model that trains.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        for module, training in modes:
            module.training = training
