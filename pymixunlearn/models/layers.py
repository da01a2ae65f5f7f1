"""The last layers of a network: the embedding that the classifier sees, and the linear head that gives the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pymixunlearn.errors import UserError
from pymixunlearn.models.autocast import computing_as_usual
from pymixunlearn.models.ensemble import Ensemble
from pymixunlearn.models.features import FeatureExtractor, first_tensor
from pymixunlearn.models.modes import evaluating


class EmbeddingExtractor(FeatureExtractor):
    """Runs a model and returns its logits together with the embedding of one layer.

    Like :class:`FeatureExtractor`, but the layer's output [N, ...] is returned flat, as [N, D].

    Args:
        model: Maps images [N, C, H, W] to logits [N, classes].
        layer: The layer's name as in ``model.named_modules()``, for example from :func:`find_embedding_layer`.

    Raises:
        UserError: The layer does not exist.
    """

    setting = "embedding_layer"

    def __init__(self, model: nn.Module, layer: str) -> None:
        """Put the hook on the layer."""
        super().__init__(model, layer)

    def shaped(self, output: Tensor) -> Tensor:
        """Return a layer's output [N, ...] as [N, D]."""
        return output.flatten(1)


def find_embedding_layer(model: nn.Module, example: Tensor) -> str:
    """Name the layer whose output is the embedding.

    It is the layer that ``model.embedding_layer`` names, or else the last that in a trial run returned a vector for the
    image ([1, D] or [1, D, 1, 1]) other than the logits.

    Args:
        model: Maps images to logits; neither its modes nor its statistics are changed.
        example: One image [1, C, H, W] for the trial run, on the model's device.

    Raises:
        UserError: No layer qualifies, so the caller has to name one; or the model is an ensemble, which has many.
    """
    if isinstance(model, Ensemble):
        raise UserError("an ensemble has an embedding in every member; expected a single network")
    declared = getattr(model, "embedding_layer", None)
    if isinstance(declared, str):
        return declared
    logits, outputs = _trial_run(model, example)
    vectors = [
        name
        for name, output in outputs
        if output.numel() == output.shape[0] * output.shape[-1 if output.dim() == 2 else 1]
        and output.data_ptr() != logits.data_ptr()
    ]
    if not vectors:
        raise UserError(
            f"no layer of {type(model).__name__} returns an embedding [N, D]; pass embedding_layer with the name of a "
            "layer to use"
        )
    return vectors[-1]


def find_head(model: nn.Module, example: Tensor) -> nn.Linear:
    """Return the linear layer whose output is the logits.

    Args:
        model: Maps images to logits; neither its modes nor its statistics are changed.
        example: One image [1, C, H, W] for a trial run, on the model's device.

    Raises:
        UserError: The logits come from something else.
    """
    logits, outputs = _trial_run(model, example)
    modules = dict(model.named_modules())
    for name, output in reversed(outputs):
        module = modules[name]
        if isinstance(module, nn.Linear) and output is logits:
            return module
    raise UserError(f"the logits of {type(model).__name__} do not come from a linear layer; expected nn.Linear")


def _trial_run(model: nn.Module, example: Tensor) -> tuple[Tensor, list[tuple[str, Tensor]]]:
    """Return the logits and every layer's output, in the order of the run."""
    outputs: list[tuple[str, Tensor]] = []
    handles = []

    def listen(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is not None and tensor.dim() >= 2:
                outputs.append((name, tensor))

        return hook

    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_hook(listen(name)))
        with evaluating(model), computing_as_usual(model):
            logits = model(example)
    finally:
        for handle in handles:
            handle.remove()
    assert isinstance(logits, torch.Tensor)
    return logits, outputs
