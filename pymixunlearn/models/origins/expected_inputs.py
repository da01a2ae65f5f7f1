"""Preprocessing that a library's model expects, as the library says it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pymixunlearn.data.geometry import INTERPOLATIONS
from pymixunlearn.data.optional import require
from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.errors import UserError
from pymixunlearn.models.origins import network_error
from pymixunlearn.models.origins.hugging_face import load_library
from pymixunlearn.models.origins.timm_models import REMEDY, check_name
from pymixunlearn.models.specification import parse_specification

_FROM_NUMBER = {number: name for name, number in INTERPOLATIONS.items()}
_CONVNEXT_SQUASHES = 384
"""Hugging Face's ConvNeXT processor cuts a middle out below this size, and squashes from it on."""


def expected_preprocess(text: str, *, pretrained: bool = False, image_size: int | None = None) -> Preprocess | None:
    """Return how the images of a specification's model become its inputs, None where nothing says it.

    timm's data config; the image processor of a Hugging Face model; the transforms of torchvision's weights where the
    model starts from these. In training, images are cropped and mirrored at random as photographs are.

    Args:
        text: The specification.
        pretrained: Whether the model starts from the library's weights.
        image_size: Side of the inputs, to which images are then brought straight; None takes the model's own.

    Raises:
        UserError: The library is missing, or what it says cannot be fetched or is not supported.

    Example:
        >>> expected_preprocess("torchvision:resnet50", pretrained=True).resize
        232
        >>> expected_preprocess("torchvision:resnet50") is None
        True
    """
    specification = parse_specification(text)
    kind, name = specification.kind, specification.source
    found: dict[str, Any] | None = None
    if kind == "timm":
        found = _of_timm(name)
    elif kind == "hf":
        try:
            found = _of_hugging_face(name)
        except UserError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise UserError(
                f"the image processor of hf:{name} has not the form of an image classifier's "
                f"({type(error).__name__}: {error}); say the preprocessing in --model-config"
            ) from error
    elif pretrained and (kind == "torchvision" or text == "resnet18"):
        found = _of_torchvision("resnet18" if text == "resnet18" else name)
    if found is None:
        return None
    if image_size is not None and image_size != found["size"]:
        found |= {"size": image_size, "resize": None}
    return Preprocess(**found, random_crop=True, flip=True)


def _of_timm(name: str) -> dict[str, Any]:
    data: Any = require("timm.data", purpose=f"model 'timm:{name}'", remedy=REMEDY)
    models: Any = require("timm.models", purpose=f"model 'timm:{name}'", remedy=REMEDY)
    check_name(models, name)
    config = models.get_pretrained_cfg(name)
    known = data.resolve_data_config({}, pretrained_cfg={} if config is None else config.to_dict())
    size = int(known["input_size"][-1])
    return {
        "size": size,
        "resize": math.floor(size / known["crop_pct"]),
        "interpolation": _named(known["interpolation"], f"timm:{name}"),
        "squash": known["crop_mode"] == "squash",
        "mean": tuple(known["mean"]),
        "std": tuple(known["std"]),
    }


def _of_torchvision(name: str) -> dict[str, Any]:
    library: Any = require("torchvision.models", purpose=f"model 'torchvision:{name}'", remedy="install torchvision")
    preset = library.get_model_weights(name).DEFAULT.transforms()
    return {
        "size": preset.crop_size[0],
        "resize": preset.resize_size[0],
        "interpolation": preset.interpolation.value,
        "mean": tuple(preset.mean),
        "std": tuple(preset.std),
    }


def _of_hugging_face(name: str) -> dict[str, Any] | None:
    known = _processor(name)
    if known is None or not known.get("do_resize", True):
        return None
    size, crop = known.get("size"), known.get("crop_size")
    side, squash = _side(size, name)
    resize = side
    if "crop_pct" in known and not squash:  # ConvNeXT's, whose size is that of the input
        squash = side >= _CONVNEXT_SQUASHES
        resize = side if squash else int(side / known["crop_pct"])
    elif known.get("do_center_crop") and crop is not None:
        side = _side(crop, name)[0]
    elif not squash:
        return None  # images keep their shape, and the batch its own
    normalised = known.get("do_normalize", True)
    return {
        "size": side,
        "resize": resize,
        "interpolation": _named(known.get("resample", INTERPOLATIONS["bilinear"]), f"hf:{name}"),
        "squash": squash,
        "mean": tuple(known["image_mean"]) if normalised else None,
        "std": tuple(known["image_std"]) if normalised else None,
    }


def _processor(name: str) -> dict[str, Any] | None:
    """Return the content of a model's image processor, None for a folder without one."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        file = folder / "preprocessor_config.json"
        if not file.is_file():
            return None
        try:
            content: dict[str, Any] = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"'{file}' cannot be read ({error})") from error
        return content
    library = load_library(name)
    try:
        found: dict[str, Any] = library.AutoImageProcessor.from_pretrained(name, trust_remote_code=False).to_dict()
    except Exception as error:
        raise UserError(network_error(f"the image processor of hf:{name}", error)) from error
    return found


def _side(size: Any, name: str) -> tuple[int, bool]:
    """Return a side, and whether it is that of both sides."""
    if isinstance(size, int):
        return size, True
    if isinstance(size, dict):
        given = {key: value for key, value in size.items() if value is not None}
        if given.get("height") == given.get("width") and "height" in given:
            return int(given["height"]), True
        if "shortest_edge" in given:
            return int(given["shortest_edge"]), False
    raise UserError(
        f"the image processor of hf:{name} makes images of size {size}; expected square ones: say the preprocessing in "
        "--model-config"
    )


def _named(interpolation: Any, what: str) -> str:
    name = _FROM_NUMBER.get(interpolation, str(interpolation).lower())
    if name == "random":  # timm's, in training alone
        name = "bilinear"
    if name not in INTERPOLATIONS:
        raise UserError(f"{what} resizes by '{name}'; expected one of {', '.join(INTERPOLATIONS)}")
    return name
