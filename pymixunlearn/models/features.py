"""Feature map inside any network, taken by a hook on a named layer.

MixBlock (Section 3.2) looks at the feature maps of the initial model. No model has to return them: a
forward hook listens at one layer while the extractor runs the model, and stays silent otherwise.
"""

from __future__ import annotations

import math
import sys
import weakref
from types import TracebackType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pymixunlearn.divided import whole_batch
from pymixunlearn.errors import UserError, unknown_name
from pymixunlearn.models.modes import evaluating

_REDUCTION = 16
"""The feature map of the paper's ResNet-18 and ViT-B/16 is a sixteenth as high and wide as the image."""
_EXTRA_TOKENS = (0, 1, 2, 5)
"""Tokens before those of the patches: none, a class token, DeiT's distillation token too, four registers too."""
_LISTED = 5


class FeatureExtractor:
    """Runs a model and returns its logits together with the feature map of one layer.

    Use it as a context manager, or call :meth:`close`; both take the hook off the model again. Outside of the
    extractor's own calls the hook stores nothing, so the model (and copies of it) can be used freely meanwhile.

    Args:
        model: Maps images [N, C, H, W] to logits [N, classes].
        layer: The layer's name as in ``model.named_modules()``. Its output must be a map [N, C', h, w] or tokens
            [N, T, D], where T is a square number, beside one, two or five others in front (class, distillation,
            registers), or a map [N, h, w, C']; None takes ``model.feature_layer`` or, for torchvision's ResNet and
            VisionTransformer, the layer :func:`find_feature_layer` names.

    Raises:
        UserError: The layer does not exist, or none was given and none can be found without a trial run.

    Example:
        >>> import torch
        >>> from pymixunlearn import models
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> with models.FeatureExtractor(model) as extract:
        ...     logits, features = extract(torch.rand(2, 1, 8, 8))
        >>> features.shape
        torch.Size([2, 32, 2, 2])
    """

    setting: ClassVar[str] = "feature_layer"
    """What users call the layer, for error messages."""
    layer: str

    def __init__(self, model: nn.Module, layer: str | None = None) -> None:
        """Put the hook on the layer."""
        name = layer if layer is not None else _declared_layer(model)
        if name is None:
            raise UserError(
                f"feature_layer is not given and {type(model).__name__} does not declare one; expected a layer's name "
                "(find_feature_layer finds one by a trial run)"
            )
        modules = dict(model.named_modules())
        if name not in modules:
            raise unknown_name(self.setting, name, (known for known in modules if known))
        self.layer = name
        self._model = model
        self._tap = _Tap()
        handle = modules[name].register_forward_hook(self._tap)
        # Also when the extractor is simply dropped: the hook refers to the tap, never to the extractor.
        self._finalizer = weakref.finalize(self, handle.remove)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Run the model once.

        Args:
            images: [N, C, H, W], on the model's device.

        Returns:
            The logits [N, classes] and the feature map [N, C', h, w]; gradients flow as the caller's mode says.

        Raises:
            UserError: The layer did not run, or its output is not a feature map.
            RuntimeError: The extractor was closed.
        """
        if not self._finalizer.alive:
            raise RuntimeError("this FeatureExtractor is closed")
        self._tap.listening = True
        try:
            logits = self._model(images)
            output = self._tap.output
        finally:
            # A stored output would hold a whole batch's graph alive, also after an exception.
            self._tap.listening = False
            self._tap.output = None
        if output is None:
            raise UserError(
                f"{self.setting} '{self.layer}' did not run in the forward pass of {type(self._model).__name__}"
            )
        # Of a network in float64, or that computes in bfloat16: what looks at features computes in the images' type.
        if output.dtype in (torch.float64, torch.bfloat16):
            output = output.to(images.dtype)
        output = whole_batch(self._model, output)
        return logits, self.shaped(output)

    def shaped(self, output: Tensor) -> Tensor:
        """Return the layer's output as a feature map [N, C', h, w]."""
        return _as_map(output, self.layer)

    def channels(self, example: Tensor) -> int:
        """Return the number of channels C' of the feature map, by a run of ``example`` that changes nothing."""
        with evaluating(self._model):
            return self(example)[1].shape[1]

    def close(self) -> None:
        """Take the hook off the model; closing twice is harmless."""
        self._finalizer()

    def __enter__(self) -> FeatureExtractor:
        """Return the extractor itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the extractor, whatever happened in the block."""
        self.close()


def find_feature_layer(model: nn.Module, example: Tensor) -> str:
    """Name the layer whose output serves as the feature map.

    In this order: the layer that ``model.feature_layer`` names; ``layer3`` of a torchvision ResNet (14 x 14 at 224);
    the last block of a torchvision VisionTransformer; else, by a trial run in evaluation mode, the last block whose
    output is a map at least a sixteenth as high and wide as the image (14 x 14 at 224), which is the last stage but one
    of convolutional networks (ConvNeXt, EfficientNet) and Swin, and the last block of most vision transformers; else
    the last block, or layer, whose output is a map of more than one pixel. A block is a module of two or more layers
    with weights. A map is [N, C', h, w], [N, h, w, C'] or square tokens [N, T, D].

    Args:
        model: Maps images to logits; neither its modes nor its statistics are changed.
        example: Images [N, C, H, W] for the trial run, on the model's device.

    Raises:
        UserError: No layer qualifies, so the caller has to name one; those with outputs of three or four dimensions are
            listed.

    Example:
        >>> import torch
        >>> from pymixunlearn import models
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 2))
        >>> models.find_feature_layer(network, torch.rand(1, 1, 8, 8))
        '0'
    """
    declared = _declared_layer(model)
    if declared is not None:
        return declared
    outputs = _layer_outputs(model, example)
    sides = {name: side for name, tensor in outputs if (side := _side(tensor)) > 1}
    blocks = {name for name, module in model.named_modules() if _is_block(module)}
    enough = max(2, example.shape[-1] // _REDUCTION)
    wanted = (
        [name for name, _ in outputs if name in blocks and sides.get(name, 0) >= enough],
        [name for name, _ in outputs if name in blocks and name in sides],
        [name for name, _ in outputs if name in sides],
    )
    for names in wanted:
        if names:
            return names[-1]
    shapes = [f"'{name}' {list(tensor.shape)}" for name, tensor in outputs if tensor.dim() in (3, 4)]
    candidates = f" ({', '.join(shapes[-_LISTED:])} have other shapes)" if shapes else ""
    raise UserError(
        f"no layer of {type(model).__name__} returns a feature map [N, channels, height, width] of more than one "
        f"pixel, or as many tokens as a square has{candidates}; pass feature_layer with the name of a layer to use"
    )


def _layer_outputs(model: nn.Module, example: Tensor) -> list[tuple[str, Tensor]]:
    """Return the output of every inner layer in the order in which they end, by a trial run that changes nothing."""
    found: list[tuple[str, Tensor]] = []
    handles = []

    def listen(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is not None:
                found.append((name, tensor))

        return hook

    try:
        for name, module in model.named_modules():
            if name:
                handles.append(module.register_forward_hook(listen(name)))
        with evaluating(model):
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _side(output: Tensor) -> int:
    """Return the height of the feature map in a layer's output, 0 where it is none."""
    if output.dim() not in (3, 4) or output.shape[0] == 0 or output.numel() == 0:
        return 0
    try:
        shaped = _as_map(output, "")
    except UserError:
        return 0
    return 0 if shaped.shape[1] == 1 else min(shaped.shape[2:]) if shaped[0, 0].numel() > 1 else 1


def _is_block(module: nn.Module) -> bool:
    """Tell whether a module is made of two or more layers with weights."""
    weighted = (inner for inner in module.modules() if any(p.dim() > 1 for p in inner.parameters(recurse=False)))
    return next(weighted, None) is not None and next(weighted, None) is not None


class _Tap:
    """Hook that stores a layer's output, and only while its extractor runs the model.

    Being an object, it is copied along when the model is deep-copied: the copy's tap is nobody's and never listens.
    """

    def __init__(self) -> None:
        self.listening = False
        self.output: Tensor | None = None

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.listening:
            self.output = first_tensor(output)


def _declared_layer(model: nn.Module) -> str | None:
    """Return the layer that the model's own attribute or its torchvision class settles, if any."""
    name = getattr(model, "feature_layer", None)
    if isinstance(name, str):
        return name
    # A torchvision model can only exist once its module was imported, so there is no need to import it here.
    resnet = sys.modules.get("torchvision.models.resnet")
    if resnet is not None and isinstance(model, resnet.ResNet):
        return "layer3"
    vision_transformer = sys.modules.get("torchvision.models.vision_transformer")
    if vision_transformer is not None and isinstance(model, vision_transformer.VisionTransformer):
        blocks = [name for name, _ in model.encoder.layers.named_children()]
        return f"encoder.layers.{blocks[-1]}"
    return None


def first_tensor(output: Any) -> Tensor | None:
    """Return a layer's output, or the first of several, which by convention is the hidden state."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def _as_map(output: Tensor, layer: str) -> Tensor:
    """Return a layer's output as [N, C', h, w], laying tokens out as the square grid they came from."""
    if output.dim() == 4:
        _, first, second, third = output.shape
        # Swin keeps the channels last; a square of the first two dimensions tells.
        return output.permute(0, 3, 1, 2) if first == second != third else output
    if output.dim() == 3:
        tokens = output.shape[1]
        for extra in _EXTRA_TOKENS:
            side = math.isqrt(max(0, tokens - extra))
            if side > 0 and side * side == tokens - extra:
                return output[:, extra:].transpose(1, 2).reshape(len(output), -1, side, side)
    raise UserError(
        f"feature_layer '{layer}' returns shape {list(output.shape)}; expected [N, channels, height, width], or tokens "
        f"[N, T, D], a square number of them and {' or '.join(map(str, _EXTRA_TOKENS))} others"
    )
