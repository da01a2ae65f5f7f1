from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pymixunlearn.experiments import Plan, UnlearnInputs, resolve_unlearning
from tests.attacking import all_trees, few_trees  # noqa: F401  # fixtures of this folder
from tests.drawing import no_pictures, pictures  # noqa: F401  # fixtures of this folder

SMALL = {"epochs": 2, "initial.epochs": 1, "retrain.epochs": 1}


@pytest.fixture(scope="session")
def model_cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(model_cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained models are shared among these tests, and not with the user's."""
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(model_cache_folder))


@pytest.fixture
def small_plan() -> Callable[..., Plan]:
    """Resolves a request on the digits with a few epochs; keyword arguments are the request's."""

    def make(settings: dict[str, Any] | None = None, **fields: Any) -> Plan:
        return resolve_unlearning(UnlearnInputs(device="cpu", settings={**SMALL, **(settings or {})}, **fields))

    return make
