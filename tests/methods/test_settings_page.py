"""The reference of the settings is that of the code."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.report import settings
from pymixunlearn import methods

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_made_from_the_code() -> None:
    assert PAGE.read_text("utf-8") == settings.page(), "run: python -m benchmarks.report settings"


@pytest.mark.parametrize("name", methods.available())
def test_every_setting_has_a_row(name: str) -> None:
    fields = dataclasses.fields(methods.get(name).config_class)
    lines = settings.section(name).splitlines()
    assert [line.split("`")[1] for line in lines if line.startswith("| `")] == [field.name for field in fields]
    assert all(line.count(" | ") == 4 for line in lines if line.startswith("| `"))


def test_a_row_says_default_range_meaning_and_source() -> None:
    lines = settings.section("mixunlearn").splitlines()
    assert (
        "| `tau_gen` | `0.5` | number > 0 | temperature of the generator's loss (Eq. 3) | within the range searched by "
        "MixUnlearn's authors |"
    ) in lines
    assert any(line.startswith("| `precision` | `none` | `float32`, `bfloat16`, or `none` |") for line in lines)
    assert any("whole number ≥ 1" in line for line in lines)
