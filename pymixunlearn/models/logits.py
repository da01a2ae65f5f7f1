"""Logits in whatever a classifier returns: a tensor, an object with ``.logits``, a tuple or a dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pymixunlearn.display import a_type
from pymixunlearn.errors import UserError

_TOLERANCE = 1e-3
"""By how much the probabilities of one image may miss a sum of 1; float16 rounds them by less."""


class OutputHook:
    """Hook of a network that returns its logits, picked by its class map, in place of what it returns itself."""


class Found(NamedTuple):
    """Logits [N, classes], and the names of the other tensors that came with them."""

    logits: Tensor
    ignored: tuple[str, ...]


def find_logits(output: Any, count: int, num_classes: int | None = None) -> Found:
    """Return the logits in a model's output.

    A tensor is taken as it is, of an object with the attribute or the key ``logits`` (Hugging Face's outputs, those of
    torchvision's GoogLeNet and Inception) that one, and of any other tuple or dict the first tensor of the right shape.

    Args:
        output: What the model returned for a batch.
        count: N, the number of images in it.
        num_classes: The number of classes; None takes any.

    Raises:
        UserError: No tensor [N, num_classes] is in it; what there is instead is named.

    Example:
        >>> import torch
        >>> from pymixunlearn.models.logits import find_logits
        >>> find_logits({"features": torch.zeros(2, 7), "scores": torch.ones(2, 3)}, 2, 3).ignored
        ('features',)
    """
    if isinstance(output, Tensor):
        if not _fits(output, count, num_classes):
            raise UserError(f"model maps one image to {_kind(output, count)}; expected {_expected(num_classes)}")
        return Found(output, ())
    parts = _parts(output)
    named = "logits" if _fits(parts.get("logits"), count, num_classes) else None
    chosen = named or next((name for name, value in parts.items() if _fits(value, count, num_classes)), None)
    if chosen is None:
        content = ", ".join(f"{name} ({_kind(value, count)})" for name, value in parts.items())
        raise UserError(
            f"model maps one image to {a_type(output)}{f' with {content}' if content else ''}; "
            f"expected {_expected(num_classes)}, alone or in a tuple or dict"
        )
    others = tuple(name for name, value in parts.items() if name != chosen and isinstance(value, Tensor))
    return Found(parts[chosen], others)


def member_logits(member: nn.Module, images: Tensor) -> Tensor:
    """Return the logits of a network for images [N, C, H, W], whatever it returns, picked by its ``class_map``."""
    output = member(images)
    if any(isinstance(getattr(hook, "__self__", None), OutputHook) for hook in member._forward_hooks.values()):
        assert isinstance(output, Tensor)
        return output
    logits = output if isinstance(output, Tensor) else find_logits(output, len(images)).logits
    class_map = getattr(member, "class_map", None)
    return logits if class_map is None else logits[:, torch.tensor(class_map, device=logits.device)]


def are_probabilities(logits: Tensor) -> bool:
    """Tell whether every row [N, classes] lies in [0, 1] and sums to 1, as the output of a softmax does.

    Example:
        >>> import torch
        >>> from pymixunlearn.models.logits import are_probabilities
        >>> z = torch.tensor([[1.0, 2.0, 3.0]])
        >>> are_probabilities(z), are_probabilities(z.softmax(1))
        (False, True)
    """
    if logits.shape[1] < 2:
        return False
    logits = logits.detach().float()
    return bool(((logits >= 0) & (logits <= 1)).all() and ((logits.sum(1) - 1).abs() <= _TOLERANCE).all())


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Return logits [N, classes] whose softmax are the given probabilities; 0 becomes the smallest finite logarithm."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()


def _parts(output: Any) -> dict[str, Any]:
    """Return the parts of an output by name or position."""
    if isinstance(output, Mapping):
        return {str(key): value for key, value in output.items()}
    if isinstance(output, Sequence) and not isinstance(output, str):
        names = getattr(output, "_fields", range(len(output)))
        return dict(zip(map(str, names), output, strict=True))
    logits = getattr(output, "logits", None)
    return {} if logits is None else {"logits": logits}


def _fits(value: Any, count: int, num_classes: int | None) -> bool:
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() != 2 or len(value) != count:
        return False
    return num_classes is None or value.shape[1] == num_classes


def _kind(value: Any, count: int) -> str:
    """Say what a value is, with the shape that it would have for one image."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    shape = list(value.shape)
    if len(shape) > 1 and shape[0] == count:
        shape[0] = 1
    return f"{shape}" + ("" if value.is_floating_point() else f" of {value.dtype}")


def _expected(num_classes: int | None) -> str:
    return "logits [1, classes]" if num_classes is None else f"logits [1, {num_classes}] for this split's classes"
