from __future__ import annotations

from pathlib import Path

import pytest

from pymixunlearn.data import optional
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.frames import run_row
from pymixunlearn.experiments.common.run_folder import Run

RECORD = {
    "method": "neggrad",
    "dataset": "digits",
    "task": "class",
    "seed": 3,
    "metrics": {"initial": {"test_r": 97.0}, "unlearned": {"test_r": 95.0}, "retrain": None},
    "gap": {"unlearned": {"test_r": 1.0, "mean": 1.0}},
    "seconds": {"unlearned": 0.5},
}


def test_the_row_of_a_run() -> None:
    assert run_row(RECORD) == {
        **{"method": "neggrad", "dataset": "digits", "task": "class", "seed": 3},
        **{"initial.test_r": 97.0, "unlearned.test_r": 95.0, "gap.unlearned.test_r": 1.0, "gap.unlearned.mean": 1.0},
        "seconds.unlearned": 0.5,
    }


@pytest.mark.extras
def test_a_run_as_a_frame() -> None:
    frame = Run(Path("r"), RECORD, known=True).to_frame()
    assert frame.shape == (1, 9) and frame.loc[0, "unlearned.test_r"] == 95.0 and frame.loc[0, "seed"] == 3


def test_without_pandas_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError("No module named 'pandas'")

    monkeypatch.setattr(optional, "import_module", missing)
    with pytest.raises(UserError, match=r"needs pandas, .*; pip install 'pymixunlearn\[pandas\]'"):
        Run(Path("r"), RECORD, known=True).to_frame()
