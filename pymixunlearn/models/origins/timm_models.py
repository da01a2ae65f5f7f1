"""Networks of timm by name."""

from __future__ import annotations

from typing import Any

from pymixunlearn.data.optional import require
from pymixunlearn.errors import UserError, unknown_name
from pymixunlearn.models.origins import Asked, Built, check_arguments, network_error, unknown_in_library
from pymixunlearn.models.origins.torchvision_models import call

REMEDY = "pip install 'pymixunlearn[timm]'"
_REFUSED = ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "features_only")


def build_timm(asked: Asked) -> Built:
    """Build a network with timm's own initialisation, or start it from its pretrained weights.

    A network for images of one size alone (ViT, Swin) is built for those of ``asked.image_size``.

    Raises:
        UserError: timm is not installed, there is no such network, an argument does not fit, or weights cannot be
            fetched.
    """
    timm: Any = require("timm", purpose=f"model 'timm:{asked.source}'", remedy=REMEDY)
    check_name(timm, asked.source)
    check_arguments("timm", asked, _REFUSED)
    own = input_side(timm, asked.source)
    size = {}
    if asked.image_size is not None and asked.image_size != own and "img_size" not in asked.arguments:
        size = {"img_size": asked.image_size}
    fixed = {"num_classes": asked.outputs, "in_chans": asked.in_channels, **asked.arguments}
    try:
        model = call(timm.create_model, asked, pretrained=asked.pretrained, **fixed, **size)
    except UserError as error:
        if size and isinstance(error.__cause__, TypeError):  # a network that takes images of any size
            model = call(timm.create_model, asked, pretrained=asked.pretrained, **fixed)
        elif asked.pretrained and not isinstance(error.__cause__, (TypeError, ValueError, AssertionError)):
            what = f"the pretrained weights of timm:{asked.source}"
            raise UserError(network_error(what, error.__cause__ or error)) from error
        else:
            raise
    return Built(model, asked.image_size or own)


def check_name(timm: Any, name: str) -> None:
    """Check that timm has a network of this name, and weights with its tag where it has one.

    Raises:
        UserError: It has not.
    """
    network, _, tag = name.partition(".")
    if not timm.is_model(network):
        raise unknown_in_library("timm", network, timm.list_models())
    tags = {found.partition(".")[2] for found in timm.list_pretrained(f"{network}.*")}
    if tag and tag not in tags:
        raise unknown_name(f"weights of timm:{network}", tag, tags)


def input_side(timm: Any, name: str) -> int | None:
    """Return the side of the images that a network of timm is made for."""
    config = timm.get_pretrained_cfg(name)
    return None if config is None else int(config.input_size[-1])
