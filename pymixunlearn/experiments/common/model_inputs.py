"""Preprocessing of a command's data: that which its model expects, before the data are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pymixunlearn.data import Preprocess
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.data_request import DataRequest
from pymixunlearn.experiments.common.given import GivenData, GivenModel
from pymixunlearn.experiments.common.initial_model import CHECKPOINT, config_of, is_hugging_face, model_path
from pymixunlearn.experiments.common.inputs import ModelRequest
from pymixunlearn.models.origins.expected_inputs import expected_preprocess
from pymixunlearn.training import read_metadata


def fed(data: DataRequest, model: ModelRequest, checkpoint: Path | None = None) -> DataRequest:
    """Return a data request with the preprocessing that the model expects, where something says it.

    In this order: the model config; the run that trained the model, as its folder or file says; the library that the
    model is from. Otherwise the data's own.

    Args:
        data: The request; data in memory say themselves how they are fed.
        model: The model.
        checkpoint: A file or run folder of a model beside ``model``.

    Raises:
        UserError: A file cannot be read, or a library is missing.
    """
    if isinstance(data, GivenData) or isinstance(model, GivenModel):
        return data
    config, size = config_of(model), data.image_size
    path = checkpoint or model_path(model)
    text = model.model or config.model
    if config.preprocessing is not None:
        found = config.preprocessing
    elif path is not None and not (path.is_dir() and is_hugging_face(path)):
        recorded = None if size is not None else _recorded(path)
        return data if recorded is None else replace(data, preprocess=recorded)
    elif text is not None:
        text = text if path is None else f"hf:{path}"
        expected = expected_preprocess(text, pretrained=config.pretrained is True, image_size=size)
        return data if expected is None else replace(data, preprocess=expected)
    else:
        return data
    if size is not None and size != found.size:
        found = replace(found, size=size, resize=None)
    return replace(data, preprocess=found)


def _recorded(path: Path) -> Preprocess | None:
    """Return the preprocessing in a model file of ours, or of a run folder."""
    file = path / CHECKPOINT if path.is_dir() else path
    try:
        content: Any = read_metadata(file).get("preprocess")
    except UserError:  # told where the model is loaded
        return None
    return Preprocess.from_dict(content) if isinstance(content, dict) else None
