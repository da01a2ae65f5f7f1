from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pymixunlearn.evaluation import METRICS
from pymixunlearn.experiments import RunRequest, SplitRequest, resolve, run
from pymixunlearn.reporting import Row, format_cell
from pymixunlearn.reporting.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, charts

_VOID = {"meta", "line", "polyline", "circle", "br", "hr", "img", "input", "link"}


class Checker(HTMLParser):
    """Checks that every element is closed, and collects text and what refers to other files."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.references: list[str] = []
        self.elements: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.references += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def checked(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    assert not checker.open
    return checker


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, dict[str, Any]]]:
    """The reports of a class run with Retrain and of a data run without, with their metrics."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path_factory.mktemp("cache")))
    settings = {"epochs": 2, "initial.epochs": 1, "retrain.epochs": 1}
    made = {}
    for name, split, retrain in (("class", SplitRequest(), True), ("data", SplitRequest("data"), False)):
        plan = resolve(RunRequest(device="cpu", split=split, settings=settings, retrain=retrain))
        command = "mixunlearn-cli unlearn --set 'feature_layer=<b>&'"
        outcome = run(plan, tmp_path_factory.mktemp("runs") / name, command_line=command)
        made[name] = ((Path(outcome.folder) / "report.html").read_text("utf-8"), outcome.record)
    patch.undo()
    return made


@pytest.mark.parametrize("task", ["class", "data"])
def test_the_report_is_one_well_formed_file(reports: dict[str, tuple[str, dict[str, Any]]], task: str) -> None:
    html, record = reports[task]
    page = checked(html)
    assert page.references == [] and "script" not in page.elements
    assert not re.search(r"url\(|@import|https?://", html)
    for key, value in record["metrics"].items():
        assert format_cell(key, Row("unlearned", record["metrics"])) in page.text
        assert METRICS[key].label in page.text or value is None
    for sha256 in record["hashes"].values():
        assert sha256 in page.text
    assert record["versions"]["torch"] in page.text


def test_what_was_forgotten_and_how_to_repeat_it(reports: dict[str, tuple[str, dict[str, Any]]]) -> None:
    page = checked(reports["class"][0])
    assert "142 of 1438 training samples" in page.text and "Class: 0." in " ".join(page.text.split())
    # The command is shown as it was typed, escaped in the source.
    assert "feature_layer=<b>&" in page.text and "feature_layer=<b>" not in reports["class"][0]
    assert "gap |unlearned - Retrain|" in page.text
    text = " ".join(checked(reports["data"][0]).text.split())
    assert "Classes: 5, 6, 7, 8, 9." in text and "Fraction: 40 %." in text
    assert "without Retrain" in text


def test_every_measured_quantity_has_its_curve(reports: dict[str, tuple[str, dict[str, Any]]]) -> None:
    page = checked(reports["class"][0])
    assert "initial: loss" in page.text and "Retrain: accuracy" in page.text
    assert page.elements.count("svg") == page.elements.count("figure") >= 5
    # Both epochs of unlearning make a line; the single epochs of the trainings are points.
    assert page.elements.count("polyline") >= 1 and page.elements.count("circle") >= 4


@pytest.mark.parametrize("values", [[1.0, 0.5, 0.25], [-95.0, -97.5], [3.0, 3.0], [0.0], [1e-9, 2e-9], [1e6, -1e6]])
def test_curves_stay_inside_their_frame(values: list[float]) -> None:
    (chart,) = charts([{"phase": "p", "epoch": epoch, "loss": value} for epoch, value in enumerate(values, 1)])
    assert chart.title == "p: loss"
    for x, y in chart.points:
        assert LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM
    assert 2 <= len(chart.y_ticks) <= 7
    assert all(TOP <= tick.at <= HEIGHT - BOTTOM for tick in chart.y_ticks)
    assert 1 <= len(chart.x_ticks) <= 7


def test_higher_values_are_higher_up_and_what_is_not_finite_is_left_out() -> None:
    values = [1.0, 2.0, float("nan"), 4.0]
    (chart,) = charts([{"phase": "p", "epoch": epoch, "loss": value} for epoch, value in enumerate(values, 1)])
    heights = [y for _, y in chart.points]
    assert len(heights) == 3 and heights == sorted(heights, reverse=True)
