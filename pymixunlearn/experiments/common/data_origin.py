"""Origin of a run's data, as its config.json says it, and the same data found again."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.data.registry import available, specification
from pymixunlearn.data.specification import HUB, parse_specification
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.data_request import DataRequest
from pymixunlearn.experiments.common.given import GivenData, GivenModel
from pymixunlearn.experiments.common.inputs import ModelRequest
from pymixunlearn.experiments.common.split_request import SplitRequest

_PART = re.compile(r"@\d+$")

IN_MEMORY = "objects"
"""The key of config.json that names what a caller handed over in memory."""


def data_origin(data: DataRequest, forget: SplitRequest) -> dict[str, Any]:
    """Return what :func:`data_of_run` needs to load the data again, JSON-able; paths are absolute.

    Args:
        data: The data.
        forget: What was forgotten, which may say the column of the data's ids.
    """
    if isinstance(data, GivenData):
        return dict.fromkeys(("dataset_spec", "data_dir", "image_size", "validation"))
    return {
        "dataset_spec": specification(data.dataset, data.data_dir).absolute(),
        "data_dir": None if data.data_dir is None else os.path.abspath(data.data_dir),
        "image_size": data.image_size,
        "validation": data.validation_share,
        "follow_links": data.follow_links,
        "skip_unreadable": data.skip_unreadable,
        "class_list": None if data.class_list is None else os.path.abspath(data.class_list),
        "id_column": forget.of_data(data).id_column,
    }


def in_memory_parts(data: DataRequest, model: ModelRequest) -> dict[str, list[str]]:
    """Return the entry of config.json that says what the caller had in memory; nothing where all has a name."""
    given = {"data": isinstance(data, GivenData), "model": isinstance(model, GivenModel)}
    parts = [name for name, in_memory in given.items() if in_memory]
    return {IN_MEMORY: parts} if parts else {}


def runs_code(config: Mapping[str, Any]) -> bool:
    """Return whether loading a run's data again would run a user's file or module, which its config.json names."""
    return parse_specification(specified(config), available(), missing=True).kind == "factory"


def specified(config: Mapping[str, Any]) -> str:
    """Return the specification of a run's data; records of 0.1.0 have the name alone."""
    return str(config.get("dataset_spec") or config["dataset"])


def data_of_run(
    config: Mapping[str, Any], *, data_dir: Path | None = None, download: bool = True, stream: bool | None = None
) -> DataRequest:
    """Return the data that a run read.

    Args:
        config: The content of its config.json.
        data_dir: Where they are now; None takes the place that the run read.
        download: Whether missing files may be downloaded.
        stream: As of :func:`pymixunlearn.data.load`.

    Raises:
        UserError: The run was made from a data set in memory.
    """
    if "data" in config.get(IN_MEMORY, ()):
        raise UserError(
            f"the run was made from a data set in memory ('{config['dataset']}'), which cannot be rebuilt from names; "
            "expected data=… in Python (pymixunlearn.verify)"
        )
    text = specified(config)
    folder: Path | None = None if config["data_dir"] is None else Path(config["data_dir"])
    if data_dir is not None:
        base, _, count = text.rpartition("@") if _PART.search(text) else (text, "", "")
        if base in available() or folder is not None:
            folder = data_dir
        else:
            # The place itself is the specification.
            prefix = HUB if base.startswith(HUB) else ""
            text = f"{prefix}{os.path.abspath(data_dir)}{'@' if count else ''}{count}"
    return DataRequest(
        dataset=text,
        data_dir=folder,
        download=download,
        image_size=config["image_size"],
        stream=stream,
        follow_links=config.get("follow_links", False),
        skip_unreadable=config.get("skip_unreadable", False),
        preprocess=Preprocess.from_dict(config["preprocess"]) if "preprocess" in config else None,
        validation_share=config.get("validation"),
        class_list=None if config.get("class_list") is None else Path(config["class_list"]),
        id_column=config.get("id_column"),
    )
