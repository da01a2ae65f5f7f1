"""Settings of a ledger: the inputs of its runs of ``unlearn``, saved as JSON and read back."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pymixunlearn.data.registry import specification
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.data_request import DataRequest
from pymixunlearn.experiments.common.history_request import HistoryRequest
from pymixunlearn.experiments.common.initial_model import model_path
from pymixunlearn.experiments.common.inputs import ModelRequest
from pymixunlearn.experiments.common.options import option_of
from pymixunlearn.experiments.common.split_request import SplitRequest
from pymixunlearn.experiments.unlearn.inputs import UnlearnInputs
from pymixunlearn.files import canonical_json

T = TypeVar("T")
_PARTS = {"data": DataRequest, "model": ModelRequest, "history": HistoryRequest}


def settings_text(inputs: UnlearnInputs) -> str:
    """Return the inputs of a ledger's runs as JSON; paths are absolute, so that they mean the same in every folder."""
    data = dataclasses.replace(
        inputs.data, dataset=str(specification(inputs.data.dataset, inputs.data.data_dir).absolute())
    )
    model = inputs.model
    path = model_path(model)
    if path is not None:
        model = dataclasses.replace(model, model=os.path.abspath(path))
    content = _fields(dataclasses.replace(inputs, data=data, model=model))
    content["settings"] = dict(inputs.settings)
    return canonical_json(content)


def settings_inputs(
    text: str, *, split: SplitRequest, model: Path | None, key: Path, overrides: Mapping[str, Any] | None = None
) -> UnlearnInputs:
    """Return the inputs of one run.

    Args:
        text: What :func:`settings_text` returned.
        split: What is to be forgotten.
        model: The run folder of the newest model; None for the ledger's first one.
        key: The file of the ledger's key.
        overrides: Other values of "method", "seed" and "settings".
    """
    try:
        content = json.loads(text)
        parts: dict[str, Any] = {name: _made(of, content[name]) for name, of in _PARTS.items()}
        own = {**content, **(overrides or {})}
        if model is not None:
            parts["model"] = ModelRequest(model=str(model), allow_code=parts["model"].allow_code)
        parts["history"] = dataclasses.replace(parts["history"], forget_key=key)
        rest = {name: value for name, value in own.items() if name not in (*_PARTS, "settings")}
        settings = {**content["settings"], **own["settings"]}
        return _made(UnlearnInputs, rest, split=split, settings=settings, **parts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the settings of the ledger cannot be read ({type(error).__name__}: {error})") from error


def _fields(part: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for of in dataclasses.fields(part):
        value = getattr(part, of.name)
        if of.name in _PARTS and dataclasses.is_dataclass(value):
            found[of.name] = _fields(value)
        elif option_of(of) is not None:
            found[of.name] = os.path.abspath(value.expanduser()) if isinstance(value, Path) else value
    return found


def _made(of: type[T], content: Mapping[str, Any], **given: Any) -> T:
    for field in dataclasses.fields(of):  # type: ignore[arg-type]
        option = option_of(field)
        if option is not None and field.name in content:
            value = content[field.name]
            if isinstance(value, list):
                value = tuple(value)
            given[field.name] = Path(value) if option.kind is Path and value is not None else value
    return of(**given)
