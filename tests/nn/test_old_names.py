"""The modules' places of 0.1.0, which go on working for one release."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

from pymixunlearn import nn


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("losses", "losses", ["GeneratorLoss", "MixContrastiveLoss", "RealContrastiveLoss"]),
        ("mixblock", "mixblock", ["MixBlock", "mixup"]),
    ],
)
def test_an_old_module_is_the_new_one(monkeypatch: pytest.MonkeyPatch, old: str, new: str, names: list[str]) -> None:
    monkeypatch.delitem(sys.modules, f"pymixunlearn.{old}", raising=False)
    with pytest.warns(DeprecationWarning, match=rf"pymixunlearn\.{old} is now pymixunlearn\.nn\.{new};"):
        module = import_module(f"pymixunlearn.{old}")
    for name in names:
        assert getattr(module, name) is getattr(nn, name)
