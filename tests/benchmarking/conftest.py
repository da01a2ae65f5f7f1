from __future__ import annotations

import pytest
import torch

from pymixunlearn.benchmarking import Machine
from pymixunlearn.benchmarking.ops import Settings, cases
from pymixunlearn.benchmarking.ops.cases import Size

MACHINE = Machine("Test processor", 1, "torch 0.0")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes, made so small that a case takes no time."""
    monkeypatch.setitem(cases.SIZES, "small", Size(samples=3, classes=5, image=8, side=4, dim=2))
    monkeypatch.setitem(cases.SIZES, "large", Size(samples=2, classes=7, image=8, side=2, dim=3))


@pytest.fixture
def machine() -> Machine:
    return MACHINE


@pytest.fixture
def settings() -> Settings:
    return Settings(torch.device("cpu"), seconds=0.001, compile=False, bandwidth=1e9)
