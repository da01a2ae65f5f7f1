"""Origin of a run: where its data and its model are, as its config.json says it."""

from __future__ import annotations

from typing import Any

from pymixunlearn.experiments.common.data_origin import data_origin, in_memory_parts
from pymixunlearn.experiments.common.data_request import DataRequest
from pymixunlearn.experiments.common.initial_model import InitialModel, model_options
from pymixunlearn.experiments.common.inputs import ModelRequest
from pymixunlearn.experiments.common.split_request import SplitRequest


def run_origin(model: ModelRequest, initial: InitialModel, data: DataRequest, forget: SplitRequest) -> dict[str, Any]:
    """Return what a config.json needs to name the same model and data again, JSON-able; paths are absolute.

    Args:
        model: What was asked for.
        initial: The model that this gave.
        data: The data.
        forget: What was forgotten, which may say the column of the data's ids.
    """
    return {
        **model_options(model, initial),
        "architecture_name": model.architecture,
        **data_origin(data, forget),
        **in_memory_parts(data, model),
    }
