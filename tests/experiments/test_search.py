from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pymixunlearn import methods
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import BadRequest
from pymixunlearn.experiments.tune.grids import combinations, make_grid, shipped_grids, size
from pymixunlearn.experiments.tune.search import Search

GRID: dict[str, tuple[Any, ...]] = {"a": (0.1, 1.0, 10.0), "b": (1, 2), "c": (True, None, "word")}


def loss(settings: dict[str, Any]) -> float:
    return float(settings["a"]) + (settings["b"] == 2) + (settings["c"] is None)


def walk(search: Search, count: int) -> list[dict[str, Any]]:
    asked = []
    for _ in range(count):
        asked.append(search.ask())
        search.tell(asked[-1], loss(asked[-1]))
    return asked


# Grids


def test_every_shipped_grid_is_for_a_method_and_its_values_fit() -> None:
    for method, grid in shipped_grids().items():
        assert make_grid(method, {}, ()) and all(len(values) > 1 for values in grid.values())
        # More than one value is left when they are read as the setting's type.
        assert {name: len(values) for name, values in make_grid(method, {}, ()).items()} == {
            name: len(values) for name, values in grid.items()
        }
    assert set(shipped_grids()) <= set(methods.available()) - {"retrain"}


def test_the_papers_ranges_ship() -> None:
    grids = shipped_grids()
    assert grids["mixunlearn"]["omega"] == [0.5, 1, 10, 20, 30] and size(make_grid("mixunlearn", {}, ())) == 2500
    assert grids["neggrad"]["retain_weight"] == [0.001, 0.01, 0.1, 1, 10, 100]
    assert grids["ts"]["T"] == grids["scrub"]["T"] == [0.5, 1, 2, 3]


def test_own_dimensions_replace_and_extend_and_fixed_settings_drop_out() -> None:
    grid = make_grid("scrub", {"T": ["4", "8"], "epochs": ["2"]}, ("alpha",))
    assert grid == {"T": (4.0, 8.0), "epochs": (2,)}
    assert list(combinations(grid)) == [{"T": 4.0, "epochs": 2}, {"T": 8.0, "epochs": 2}]


@pytest.mark.parametrize(
    ("method", "own", "fixed", "message"),
    [
        ("scrub", {"t": ["1"]}, (), "unknown setting 't'"),
        ("scrub", {"T": ["1"]}, ("T",), "'T' has both a value and a grid"),
        ("scrub", {"T": ["warm"]}, (), "T is 'warm'"),
        ("scrub", {"T": []}, (), "the grid of 'T' has no values"),
        ("gli", {}, ("perturb_steps",), "nothing to search for method 'gli'"),
    ],
)
def test_grids_that_make_no_sense_are_refused(
    method: str, own: dict[str, list[str]], fixed: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        make_grid(method, own, fixed)


# Searches


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_every_combination_is_tried_once_and_then_the_search_ends(tmp_path: Path, sampler: str) -> None:
    search = Search(tmp_path / "study.log", GRID, sampler, seed=0)
    asked = walk(search, 18)
    assert search.exhausted
    assert sorted(map(repr, asked)) == sorted(map(repr, combinations(GRID)))
    assert [one.settings for one in search.tried] == asked
    assert [one.value for one in search.tried] == [loss(settings) for settings in asked]


def test_the_grid_is_gone_through_in_order(tmp_path: Path) -> None:
    assert walk(Search(tmp_path / "s", GRID, "grid", 0), 5) == list(combinations(GRID))[:5]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_what_comes_next_does_not_depend_on_interruptions(tmp_path: Path, sampler: str) -> None:
    straight = walk(Search(tmp_path / "straight", GRID, sampler, seed=3), 8)
    broken = []
    for _ in range(8):
        broken += walk(Search(tmp_path / "broken", GRID, sampler, seed=3), 1)
    assert broken == straight
    assert walk(Search(tmp_path / "other", GRID, sampler, seed=4), 8) != straight


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
@pytest.mark.parametrize("seed", [0, 5])
def test_a_search_that_tries_several_at_once_tries_the_same(tmp_path: Path, sampler: str, seed: int) -> None:
    straight = Search(tmp_path / "straight", GRID, sampler, seed)
    walk(straight, 18)
    several = Search(tmp_path / "several", GRID, sampler, seed)
    most = 0
    while len(several.tried) < 18:
        batch = []
        while not several.exhausted and (settings := several.ask_ahead()) is not None:
            batch.append(settings)
        most = max(most, several.under_way)
        for settings in reversed(batch):  # they end in any order
            several.tell(settings, loss(settings))
    assert several.tried == straight.tried
    assert most == 18 if sampler == "grid" else most >= 5


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_a_killed_trial_comes_next(tmp_path: Path, sampler: str) -> None:
    first = Search(tmp_path / "s", GRID, sampler, seed=1)
    walk(first, 2)
    lost = first.ask()
    again = Search(tmp_path / "s", GRID, sampler, seed=1)
    assert len(again.tried) == 2
    assert again.ask() == lost
    again.tell(lost, 1.0)
    assert [one.settings for one in again.tried].count(lost) == 1
    assert again.ask() != lost


def test_a_failure_counts_and_keeps_its_reason(tmp_path: Path) -> None:
    search = Search(tmp_path / "s", GRID, "tpe", seed=0)
    settings = search.ask()
    search.tell(settings, None, "unlearning diverged")
    (tried,) = Search(tmp_path / "s", GRID, "tpe", seed=0).tried
    assert (tried.settings, tried.value, tried.reason) == (settings, None, "unlearning diverged")
    assert search.ask() != settings


def test_tpe_looks_where_it_was_good(tmp_path: Path) -> None:
    wide = {name: tuple(range(12)) for name in ("x", "y")}

    def best(sampler: str, seed: int) -> float:
        search = Search(tmp_path / f"{sampler}{seed}", wide, sampler, seed)
        for _ in range(40):
            settings = search.ask()
            search.tell(settings, float((settings["x"] - 7) ** 2 + (settings["y"] - 2) ** 2))
        return sum(sorted(one.value for one in search.tried if one.value is not None)[:10])

    assert sum(best("tpe", seed) for seed in range(3)) < sum(best("random", seed) for seed in range(3))


def test_without_optuna_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"tuning needs optuna, .* install it with: pip install 'pymixunlearn\[tune\]'"):
        Search(tmp_path / "s", GRID, "tpe", 0)


def test_the_grid_file_is_plain_yaml() -> None:
    from importlib.resources import files

    text = (files("pymixunlearn.experiments") / "tune" / "grids.yaml").read_text("utf-8")
    assert yaml.safe_load(text) == shipped_grids() and "Appendix A" in text


@pytest.mark.parametrize(
    "end", [b"", b'{"op_code":5,"wor', b"\0\0\0\0", b'{"op_code":5\0\0\n\0'], ids=["whole", "cut", "zeros", "both"]
)
def test_a_search_takes_over_the_log_of_a_killed_process(tmp_path: Path, end: bytes) -> None:
    file = tmp_path / "study.log"
    walk(Search(file, GRID, "grid", 0), 2)
    whole = file.read_bytes()
    file.write_bytes(whole + end)
    lock = tmp_path / "study.log.lock"
    lock.symlink_to(file)  # as Optuna leaves it behind
    assert len(Search(file, GRID, "grid", 0).tried) == 2
    assert not lock.is_symlink() and file.read_bytes().startswith(whole)


def test_a_log_that_is_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    file = tmp_path / "study.log"
    walk(Search(file, GRID, "grid", 0), 2)
    first, *others = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([first, b"{broken\n", *others]))
    with pytest.raises(UserError, match=r"line 2 of '.*study\.log' cannot be read; delete the file"):
        Search(file, GRID, "grid", 0)
