"""ResNet-18 for small and for full-size images."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from pymixunlearn.data.optional import require
from pymixunlearn.errors import UserError
from pymixunlearn.models.origins.torchvision_models import pretrained_state, start_from

_LARGEST_NATIVE = 64


def resnet18(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Build torchvision's ResNet-18 with random weights and the head 512 -> 256 -> num_classes.

    Images up to 64 x 64 get a 3 x 3 first convolution of stride 1 and no max pooling: the 7 x 7 stem would leave a
    32 x 32 image a single pixel at the end. Larger ones get torchvision's own stem (14 x 14 after ``layer3`` at 224).

    Args:
        num_classes: C, the number of logits.
        in_channels: Channels of the images.
        image_size: Height and width of the images.

    Raises:
        UserError: torchvision cannot be imported.
    """
    torchvision = require(
        "torchvision.models",
        purpose="model 'resnet18'",
        remedy="install the torchvision that belongs to the installed torch, or use model 'cnn'",
    )
    model: nn.Module = torchvision.resnet18(weights=None)
    native = image_size <= _LARGEST_NATIVE
    if native:
        model.conv1 = _stem(in_channels, kernel=3, stride=1)
        model.maxpool = nn.Identity()
    elif in_channels != 3:
        model.conv1 = _stem(in_channels, kernel=7, stride=2)
    model.fc = nn.Sequential(OrderedDict(embedding=nn.Linear(512, 256), head=nn.Linear(256, num_classes)))
    return model


def start_from_pretrained(model: nn.Module, name: str) -> None:
    """Fill a :func:`resnet18` with torchvision's pretrained weights, in place; its head stays as it is.

    Raises:
        UserError: The network is another one or has the stem for small images, or the weights cannot be fetched.
    """
    if name != "resnet18" or not isinstance(model.get_submodule("maxpool"), nn.MaxPool2d):
        raise UserError(
            f"model '{name}' has no pretrained weights here; expected resnet18 for colour images above "
            f"{_LARGEST_NATIVE} pixels, torchvision:NAME, timm:NAME or hf:NAME"
        )
    state = pretrained_state("resnet18")
    own = model.state_dict()
    start_from(model, {**state, **{key: own[key] for key in own if key.startswith("fc.")}}, "torchvision:resnet18")


def _stem(in_channels: int, *, kernel: int, stride: int) -> nn.Conv2d:
    """Make a first convolution, initialised as torchvision initialises its convolutions."""
    conv = nn.Conv2d(in_channels, 64, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
