"""The page on plug-ins holds code that runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pymixunlearn import data, methods, models, tasks

PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"


def test_the_callback_for_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            assert folder == "logs"

        def add_scalar(self, name: str, number: float, step: int) -> None:
            written.append((name, float(number), step))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S) if "Board" in block
    )
    found: dict[str, type] = {}
    exec(code, found)
    split = tasks.index_split(data.load("digits@100"), [3, 4, 5])
    model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
    methods.get("neggrad")(epochs=2).unlearn(model, split, device="cpu", callbacks=[found["Board"]("logs")])
    assert {step for _, _, step in written} == {0, 1} and {name for name, _, _ in written} >= {"seconds"}
