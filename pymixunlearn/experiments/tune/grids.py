"""The values that tuning chooses from: a shipped grid per method, and the user's own on top."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import product
from typing import Any, TypeAlias

import yaml

from pymixunlearn import methods
from pymixunlearn.experiments.common.bad_request import BadRequest, check_name
from pymixunlearn.experiments.common.settings import build_config

Grid: TypeAlias = dict[str, tuple[Any, ...]]
"""A method's setting to the values that it may take."""


def shipped_grids() -> dict[str, dict[str, list[Any]]]:
    """Return every shipped grid, by method."""
    text = (files("pymixunlearn.experiments") / "tune" / "grids.yaml").read_text("utf-8")
    grids: dict[str, dict[str, list[Any]]] = yaml.safe_load(text)
    return grids


def make_grid(method: str, own: Mapping[str, Sequence[Any]], fixed: Iterable[str]) -> Grid:
    """Return what to search: the shipped grid of ``method`` with ``own`` dimensions in place, less those ``fixed``.

    Args:
        method: The method's name.
        own: Setting to values (possibly strings).
        fixed: Settings that are given a value anyway.

    Raises:
        BadRequest: A setting is unknown or both searched and fixed, a value does not fit, or nothing is left to search.
    """
    config_class = methods.get(method).config_class
    taken = set(fixed)
    for name in own:
        check_name("setting", name, config_class.kinds())
        if name in taken:
            raise BadRequest(f"setting '{name}' has both a value and a grid; give one of them")
    shipped = {name: values for name, values in shipped_grids().get(method, {}).items() if name not in taken}
    grid: Grid = {}
    for name, values in {**shipped, **own}.items():
        read = (getattr(build_config(config_class, {name: value}), name) for value in values)
        grid[name] = tuple(dict.fromkeys(read))
        if not grid[name]:
            raise BadRequest(f"the grid of '{name}' has no values; expected {name}=VALUE,VALUE")
    if not grid:
        raise BadRequest(f"there is nothing to search for method '{method}'; give a grid such as epochs=5,10,20")
    return grid


def size(grid: Grid) -> int:
    """Return how many combinations a grid has."""
    return math.prod(map(len, grid.values()))


def grid_text(grid: Mapping[str, Sequence[Any]]) -> str:
    """Return a grid on one line: "alpha 0.3, 0.5; T 1, 2"."""
    return "; ".join(f"{name} {', '.join(map(str, values))}" for name, values in grid.items())


def combinations(grid: Grid) -> Iterator[dict[str, Any]]:
    """Go through all combinations, the last setting changing fastest."""
    return (dict(zip(grid, values, strict=True)) for values in product(*grid.values()))
