from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from pymixunlearn.evaluation import METRICS
from pymixunlearn.experiments import DataRequest, SplitRequest, UnlearnInputs, resolve_unlearning, run_unlearning
from pymixunlearn.experiments.unlearn.report import write_report
from pymixunlearn.reporting import Row, format_cell
from pymixunlearn.reporting.html import environment

_VOID = {"meta", "br", "hr", "img", "input", "link"}


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
        self.references += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

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
        plan = resolve_unlearning(UnlearnInputs(device="cpu", split=split, settings=settings, retrain=retrain))
        command = "mixunlearn-cli unlearn --set 'feature_layer=<b>&'"
        outcome = run_unlearning(plan, tmp_path_factory.mktemp("runs") / name, command_line=command)
        made[name] = ((Path(outcome.folder) / "report.html").read_text("utf-8"), outcome.record)
    patch.undo()
    return made


@pytest.mark.parametrize("task", ["class", "data"])
def test_the_report_is_one_well_formed_file(reports: dict[str, tuple[str, dict[str, Any]]], task: str) -> None:
    html, record = reports[task]
    page = checked(html)
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in page.references)
    assert "script" not in page.elements
    # Names of XML formats look like addresses, and nothing fetches them.
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", html)
    for key, value in record["metrics"]["unlearned"].items():
        assert format_cell(key, Row("unlearned", record["metrics"]["unlearned"])) in page.text
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


def test_every_picture_is_on_the_page(reports: dict[str, tuple[str, dict[str, Any]]]) -> None:
    page = checked(reports["class"][0])
    # Thumbnails, losses, classes, predictions, mixes, and the curves of three phases.
    assert page.elements.count("svg") == page.elements.count("figure") == 8
    for text in ("Epoch by epoch: unlearning.", "What samples were taken for", "What the trained generator mixes"):
        assert text in page.text
    assert "Retrain" in page.text and "cross entropy" in page.text


def test_the_verdict_says_what_is_known_and_what_is_not(reports: dict[str, tuple[str, dict[str, Any]]]) -> None:
    beside = " ".join(checked(reports["class"][0]).text.split())
    assert "Retrain's" in beside and "95 % interval" in beside and "This is one run (seed 0)" in beside
    alone = " ".join(checked(reports["data"][0]).text.split())
    assert "cannot be known, since the run was made without Retrain: Train_r went from" in alone


def test_what_cannot_be_shown_is_escaped_on_every_page() -> None:
    page = environment().from_string("{{ name }}|{{ html }}")
    name = "<\x1b[0m\udcff\n\u202e猫$"
    assert page.render(name=name, html=Markup("<b>\x1b</b>")) == "&lt;\\x1b[0m\\xff\n\\u202e猫$|<b>\x1b</b>"


def test_reports_are_small(reports: dict[str, tuple[str, dict[str, Any]]]) -> None:
    assert all(len(html.encode()) < 1_000_000 for html, _ in reports.values())


def test_without_thumbnails_no_image_of_the_data_is_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "cache"))
    settings = {"epochs": 1, "initial.epochs": 1}
    plan = resolve_unlearning(UnlearnInputs(device="cpu", settings=settings, retrain=False, thumbnails=False, png=True))
    folder = run_unlearning(plan, tmp_path / "run").folder
    names = {path.stem for path in (folder / "pictures").iterdir()}
    assert names == {"losses", "classes", "confusion", "curves-initial", "curves-unlearned"}
    assert {path.suffix for path in (folder / "pictures").iterdir()} == {".svg", ".png"}
    # What is left of rasters is the bar of colours beside the answers.
    assert (folder / "report.html").read_text("utf-8").count("data:image/png") <= 1


def test_the_audit_is_on_the_page_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "cache"))
    plan = resolve_unlearning(
        UnlearnInputs(device="cpu", settings={"epochs": 1, "initial.epochs": 1}, retrain=False, tsne=True)
    )
    folder = run_unlearning(plan, tmp_path / "run").folder
    assert "t-SNE of the representations that the unlearned model" in (folder / "report.html").read_text("utf-8")
    estimate = {"value": 61.25, "low": 50.5, "high": 71.75}
    attack = dict.fromkeys(("accuracy", "auc", "tpr_at_1_fpr", "tpr_at_01_fpr"), estimate)
    content = {
        "attacks": {"u-lira": {"label": "U-LiRA <x>", "asks": "unlearned from retrained", **attack}},
        "klom": {"floor": {"median": 0.1, "mean": 0.2, "p95": 0.3}},
        "shadow_models": 16,
        "findings": "Nothing was found.",
        "limits": "Sixteen models show little.\nNor do they cost much.",
    }
    (folder / "audit.json").write_text(json.dumps(content))
    write_report(folder)
    page = checked((folder / "report.html").read_text("utf-8"))
    for text in (
        "U-LiRA <x>",
        "16 shadow models",
        "61.2",
        "50.500–71.750",
        "median 0.10",
        "Nothing was found.",
        "Nor do they cost much.",
    ):
        assert text in page.text


def test_a_search_that_ends_with_fresh_weights_says_what_they_learnt_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path / "cache"))
    settings, request = {"epochs": 1, "initial.epochs": 1}, DataRequest("digits@600")
    plan = resolve_unlearning(UnlearnInputs(device="cpu", retrain=False, settings=settings, data=request))
    run = run_unlearning(plan, tmp_path / "run").folder
    metrics = json.loads((run / "metrics.json").read_text())
    for kept in ("Retrain", "fresh weights on the initial model's outputs"):
        metrics["search"] = {"kept": kept, "tested": False, "untested": None, "attempts": []}
        (run / "metrics.json").write_text(json.dumps(metrics))
        write_report(run)
        text = " ".join(checked((run / "report.html").read_text("utf-8")).text.split())
        assert "the network was trained from scratch on the remaining data" in text
        assert ("on the initial model's outputs in place of labels" in text) is (kept != "Retrain")
        assert "are the validation set, on which no model of this run is trained." in text
