"""Fresh weights for a network: the same architecture, knowing nothing."""

from __future__ import annotations

import torch
from torch import nn

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.models.adapter import carry_over
from pymixunlearn.models.normalisation import carry_norms
from pymixunlearn.training.device import seeded_layers


def fresh_weights(model: nn.Module, seed: int) -> nn.Module:
    """Return a network of the same architecture, on the CPU, with weights that know nothing of ``model``'s.

    Networks of :mod:`pymixunlearn.models` are built anew; ``model`` itself is kept as it is. Any other network is
    reset in place, layer by layer, by the ``reset_parameters`` that PyTorch's layers have.

    Args:
        model: The network to take after.
        seed: Fixes the weights.

    Raises:
        UserError: A layer holds parameters but cannot reset them, so that old knowledge would remain.
    """
    architecture = models.architecture_of(model)
    if architecture is not None:
        fresh = models.build(**architecture, seed=seed)
        # What is frozen, and the type of every tensor, belong to the network too.
        for mine, theirs in zip(fresh.parameters(), model.parameters(), strict=True):
            mine.data = mine.data.to(theirs.dtype)
            mine.requires_grad_(theirs.requires_grad)
        for own, other in zip(fresh.buffers(), model.buffers(), strict=True):
            own.data = own.data.to(other.dtype)
        carry_norms(model, fresh)
        carry_over(model, fresh)
        return fresh
    resets = []
    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is None:
            continue
        # PyTorch's attention spells it with an underscore.
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if reset is None:
            raise UserError(
                f"'{name or type(model).__name__}' has parameters but no reset_parameters(); expected one, "
                "to retrain from fresh weights"
            )
        resets.append(reset)
    cpu = torch.device("cpu")
    model.to(cpu)
    with seeded_layers(cpu, seed, "weights"):
        for reset in resets:
            reset()
    return model
