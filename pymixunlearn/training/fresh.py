"""Fresh weights for a network: the same architecture, untrained."""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.weight_norm import WeightNorm

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.models.adapter import carry_over
from pymixunlearn.models.autocast import carry_precision
from pymixunlearn.models.normalisation import carry_norms, frozen_norms
from pymixunlearn.training.device import seeded_layers

_LIBRARIES = ("timm", "torchvision", "transformers")
"""Their networks draw tokens, positions and scales from a narrow normal distribution, without a reset_parameters()."""


def fresh_weights(model: nn.Module, seed: int, *, keep_frozen: bool = False) -> nn.Module:
    """Return a network of the same architecture, on the CPU, with weights that know nothing of ``model``'s.

    Networks of :mod:`pymixunlearn.models` are built anew; ``model`` itself is kept as it is. Any other network is
    reset in place, layer by layer, by the ``reset_parameters`` that PyTorch's layers have.

    Args:
        model: The network to take after.
        seed: Fixes the weights.
        keep_frozen: Whether what is frozen keeps its values, as where a training of the other weights is repeated: the
            parameters without ``requires_grad``, where others have it, and the statistics of frozen normalisations.

    Raises:
        UserError: A layer holds parameters but cannot reset them, so that old knowledge would remain.

    Example:
        >>> import torch
        >>> from pymixunlearn import models, training
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> fresh = training.fresh_weights(model, seed=1)
        >>> fresh.architecture == model.architecture, training.model_hash(fresh) == training.model_hash(model)
        (True, False)
    """
    kept = frozen_tensors(model) if keep_frozen else {}
    architecture = models.architecture_of(model)
    fresh = _reset(model, seed, set(kept)) if architecture is None else models.build(**architecture, seed=seed)
    if architecture is not None:
        # What is frozen, and the type of every tensor, belong to the network too.
        for mine, theirs in zip(fresh.parameters(), model.parameters(), strict=True):
            mine.data = mine.data.to(theirs.dtype)
            mine.requires_grad_(theirs.requires_grad)
        for own, other in zip(fresh.buffers(), model.buffers(), strict=True):
            own.data = own.data.to(other.dtype)
        carry_norms(model, fresh)
        carry_over(model, fresh)
        carry_precision(model, fresh)
    tensors = fresh.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, value in kept.items():
            tensors[name].copy_(value)
    return fresh


def frozen_parameters(model: nn.Module) -> list[str]:
    """Return the names of the parameters that cannot be trained; none where no parameter can.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 3).requires_grad_(False), nn.Linear(3, 2))
        >>> frozen_parameters(model)
        ['0.weight', '0.bias']
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return []
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def frozen_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of what a training of the model leaves as it is, by name."""
    names = set(frozen_parameters(model))
    layers = set(frozen_norms(model))
    for name, module in model.named_modules():
        own = [f"{name}.{key}" if name else key for key, _ in module.named_parameters(recurse=False)]
        if isinstance(module, _NormBase) and own and names.issuperset(own):
            layers.add(name)
    for name in layers:
        names.update(f"{name}.{key}" if name else key for key, _ in model.get_submodule(name).named_buffers())
    return {name: value.detach().clone() for name, value in model.state_dict().items() if name in names}


def _reset(model: nn.Module, seed: int, kept: Container[str]) -> nn.Module:
    """Reset a network in place; layers whose tensors are all ``kept`` need not be able to."""
    resets: list[Callable[[], object]] = []
    known: set[nn.Module] = set()
    for name, module in model.named_modules():
        tensors = [f"{name}.{key}" if name else key for key in module.state_dict()]
        if all(tensor in kept for tensor in tensors):
            continue
        if is_parametrized(module):
            known.update(module.parametrizations.modules())
            resets.append(partial(_reset_parametrized, module))
            continue
        has_own = next(module.parameters(recurse=False), None) is not None
        if module in known or not (has_own or isinstance(module, _NormBase)):
            continue
        reset = _reset_of(module)
        if reset is None:
            raise UserError(
                f"'{name or type(model).__name__}' has parameters but no reset_parameters(); expected one, "
                "to retrain from fresh weights"
            )
        resets.append(reset)
        resets.append(partial(_renew_norms, module))
    cpu = torch.device("cpu")
    model.to(cpu)
    with seeded_layers(cpu, seed, "weights"):
        for reset in resets:
            reset()
    return model


def _reset_of(module: nn.Module) -> Callable[[], object] | None:
    # PyTorch's attention spells it with an underscore.
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if reset is None and type(module).__module__.partition(".")[0] in _LIBRARIES:
        reset = partial(_reset_own, module)
    return reset


def _reset_own(module: nn.Module) -> None:
    """Reset what belongs to no layer in libraries' networks: tokens, positions, scales, norms of their own."""
    with torch.no_grad():
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias":
                parameter.zero_()
            elif name == "weight" and parameter.dim() == 1:
                parameter.fill_(1)
            else:
                parameter.copy_(torch.randn(parameter.shape) * 0.02)


def _reset_parametrized(module: nn.Module) -> None:
    """Reset a layer whose weights are computed, as by weight_norm: what they are computed from is set anew."""
    kind: type[nn.Module] = type(module).__bases__[0]
    plain = kind.__new__(kind)
    nn.Module.__init__(plain)
    internal = vars(nn.Module())
    vars(plain).update({name: value for name, value in vars(module).items() if name not in internal})
    names = list(module.parametrizations)  # type: ignore[arg-type]
    for name in names:
        plain.register_parameter(name, nn.Parameter(getattr(module, name).detach().clone()))
    for name, own in module._parameters.items():
        plain.register_parameter(name, None if own is None else nn.Parameter(own.detach().clone()))
    reset = _reset_of(plain)
    if reset is None:
        raise UserError(f"{kind.__name__} has no reset_parameters(); expected one, to retrain from fresh weights")
    reset()
    with torch.no_grad():
        for name, value in plain.named_parameters(recurse=False):
            if name in names:
                setattr(module, name, value.detach())
            else:
                getattr(module, name).copy_(value)


def _renew_norms(module: nn.Module) -> None:
    """Take a reset weight over into what the old form of weight_norm computes it from."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            weight = getattr(module, hook.name).detach()
            getattr(module, f"{hook.name}_v").data.copy_(weight)
            getattr(module, f"{hook.name}_g").data.copy_(torch.norm_except_dim(weight, 2, hook.dim))
