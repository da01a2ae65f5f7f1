"""Optimisers by name, in their fused form where PyTorch has one."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from pymixunlearn.errors import UserError

OptimizerName = Literal["adam", "sgd"]

_EXECUTION = ("fused", "capturable", "foreach")


def make_optimizer(
    model: nn.Module, name: OptimizerName, lr: float, *, weight_decay: float = 0.0, momentum: float = 0.0
) -> torch.optim.Optimizer:
    """Return an optimiser of the parameters of ``model`` that require gradients.

    Args:
        model: On the device where it is going to be trained.
        name: "adam" or "sgd".
        lr: Learning rate.
        weight_decay: Coefficient of the squared norm's gradient.
        momentum: Momentum of SGD; Adam does not use it.

    Raises:
        UserError: No parameter requires gradients.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise UserError("model has no trainable parameters: all of them have requires_grad=False")
    fused = parameters[0].device.type in ("cpu", "cuda")  # one pass over the weights instead of ten
    if name == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=fused)
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, fused=fused)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put back an optimiser's state, which may come from another device, but keep the way in which it runs.

    The state says how steps were taken where it was made, fused or recorded in a graph, which may not be possible here.
    """
    groups = [
        {**saved, **{name: own[name] for name in _EXECUTION if name in own}}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})
