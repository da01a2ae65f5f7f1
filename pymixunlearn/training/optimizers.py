"""Optimisers by name, in their fused form where PyTorch has one."""

from __future__ import annotations

import inspect
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from pymixunlearn.divided import average_gradients
from pymixunlearn.errors import UserError

OptimizerName = Literal["adam", "adamw", "sgd"]

_EXECUTION = ("fused", "capturable", "foreach")

OptimizerT = TypeVar("OptimizerT", bound=torch.optim.Optimizer)


def _without_compiler(base: type[OptimizerT], name: str) -> type[OptimizerT]:
    """Return the class ``base`` without what PyTorch wraps around its methods for torch.compile.

    Where several processes train together, a step begins with the mean of their gradients.

    The wrappers keep a compiled program from tracing into them. Nothing here compiles an optimiser, and each run would
    pay for it: the first step imports torch._dynamo, which takes more than a second. What they wrap stays as it is.
    """
    wrapped = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    body: dict[str, Any] = {method: inspect.unwrap(getattr(base, method)) for method in wrapped}
    # As PyTorch's own wrapper does it for an optimiser whose steps are not differentiated.
    plain = torch.no_grad()(inspect.unwrap(base.step))

    def step(self: Any, closure: Any = None) -> Any:
        average_gradients(self.param_groups)
        return plain(self, closure)

    body["step"] = step
    return type(name, (base,), {"__module__": __name__, "__doc__": base.__doc__, **body})


Adam = _without_compiler(torch.optim.Adam, "Adam")
AdamW = _without_compiler(torch.optim.AdamW, "AdamW")
SGD = _without_compiler(torch.optim.SGD, "SGD")


def make_optimizer(
    model: nn.Module, name: OptimizerName, lr: float, *, weight_decay: float = 0.0, momentum: float = 0.0
) -> torch.optim.Optimizer:
    """Return an optimiser of the parameters of ``model`` that require gradients.

    Args:
        model: On the device where it is going to be trained.
        name: "adam", "adamw" or "sgd".
        lr: Learning rate.
        weight_decay: Coefficient of the squared norm's gradient; of AdamW of the weights themselves.
        momentum: Momentum of SGD; the others do not use it.

    Raises:
        UserError: No parameter requires gradients.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise UserError("model has no trainable parameters: all of them have requires_grad=False")
    fused = parameters[0].device.type in ("cpu", "cuda")  # one pass over the weights instead of ten
    if name != "sgd":
        adam = Adam if name == "adam" else AdamW
        return adam(parameters, lr=lr, weight_decay=weight_decay, fused=fused)
    return SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, fused=fused)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put back an optimiser's state, which may come from another device, but keep the way in which it runs.

    The state says how steps were taken where it was made, fused or recorded in a graph, which may not be possible here.
    """
    groups = [
        {**saved, **{name: own[name] for name in _EXECUTION if name in own}}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})
