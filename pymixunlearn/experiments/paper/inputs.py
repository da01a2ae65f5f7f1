"""Inputs of ``experiment run``; nothing here imports PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pymixunlearn.experiments.common.options import device_option, option, plugin_option
from pymixunlearn.experiments.common.placement import PlacedInputs

SCALES = ("paper", "small", "tiny")
"""The scales of the shipped exhibits."""


@dataclass(frozen=True)
class ExperimentInputs(PlacedInputs):
    """Inputs of ``experiment run``.

    Attributes:
        exhibit: Name of a shipped exhibit, or a file of the same form.
        scale: One of the scales of the exhibit.
        only: Patterns of the cells to run, "DATA/ROW/seedN" or one part of that; () runs all.
        seeds: Seeds in place of those of the scale; () leaves them.
        folders: "NAME=FOLDER": the files of the data set NAME, or images that stand for it.
        data_dir: Where the files of the other data sets are.
        download: Whether missing files may be downloaded.
        device: Where to compute.
        plugin: Python files with plug-ins.
    """

    exhibit: str
    scale: str = option(
        "--scale",
        default="small",
        show_default=True,
        metavar="|".join(SCALES),
        first=True,
        help="paper: the paper's protocol, which needs a GPU or days. small: sized for two CPU cores. tiny: the "
        "embedded digits, about a minute; it shows that the exhibit works, and nothing about the method.",
    )
    only: tuple[str, ...] = option(
        "--only",
        default=(),
        several=True,
        metavar="PATTERN",
        first=True,
        help="Only cells whose name DATA/ROW/seedN, or one part of it, matches: mnist, 'laf*', 'cifar10/*/seed0'; "
        "repeat for several.",
    )
    seeds: tuple[int, ...] = option(
        "--seeds", kind="numbers", default=(), metavar="N,...", first=True, help="Other seeds than the scale's."
    )
    folders: tuple[str, ...] = option(
        "--data",
        default=(),
        several=True,
        metavar="NAME=FOLDER",
        first=True,
        help="A folder that serves a data set of the exhibit, its original files or a folder of images (train and "
        "test, or train.tar.gz and test.tar.gz); tables then say so. Repeat for several.",
    )
    data_dir: Path | None = option(
        "--data-dir", kind=Path, metavar="DIR", help="Where the other data sets are or go.  [default: a cache folder]"
    )
    download: bool = option("--no-download", default=True, help="Leave out what is missing rather than download it.")
    device: str | None = device_option()
    plugin: tuple[str, ...] = plugin_option()
