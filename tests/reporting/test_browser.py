"""Reports in a real browser: nothing on the console, no page wider than the screen, and tables that can be explored."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pymixunlearn.experiments import (
    CompareInputs,
    ExperimentInputs,
    UnlearnInputs,
    resolve_comparison,
    resolve_experiment,
    resolve_unlearning,
    run_comparison,
    run_experiment,
    run_unlearning,
)

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--run-all-compositor-stages-before-draw",
    "--virtual-time-budget=5000",
)

# A window cannot be as narrow as a phone; a frame in it can. What the frame measured is read from the page's title.
PAGE = """<!doctype html><title>waiting</title><body style="margin:0">
<iframe style="border:0;width:{width}px;height:2000px" srcdoc="{content}"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {{
  const page = frame.contentDocument.documentElement, wide = [];
  for (const element of page.querySelectorAll("body *"))
    if (!element.closest(".scroll, svg") && element.getBoundingClientRect().right > {width} + 0.5)
      wide.push(element.tagName);
  document.title = JSON.stringify({{
    width: page.clientWidth, needed: page.scrollWidth, wide, paper: frame.contentWindow.getComputedStyle(
      frame.contentDocument.body).backgroundColor, svgs: page.querySelectorAll("figure svg").length,
      loaded: frame.contentWindow.performance.getEntriesByType("resource").length, said: (() => {{ {script} }})() }});
}});
</script>"""

# What a reader does, in the words of a browser: the page is `page`, and what is returned is in "said".
READER = """
const all = (selector) => [...page.querySelectorAll(selector)];
const one = (selector) => page.querySelector(selector);
const rows = () => all("table.explore")[0].querySelectorAll("tr[data-row]:not([hidden])");
const names = () => [...rows()].map((row) => row.cells[0].textContent);
const type = (text) => {
  one("input[type=search]").value = text;
  one("input[type=search]").dispatchEvent(new Event("input"));
};
const press = (key) => one(".tip").ownerDocument.dispatchEvent(new KeyboardEvent("keydown", { key }));
const point = (id, key) => {
  const cell = one(`tr[data-row="${id}"] td[data-key="${key}"]`);
  cell.dispatchEvent(new PointerEvent("pointerenter"));
  const text = one(".tip").hidden ? "" : [...one(".tip").children].map((line) => line.textContent).join("\\n");
  cell.dispatchEvent(new PointerEvent("pointerleave"));
  return text;
};
"""


# Data sets side by side, a figure, and one that is not there.
EXHIBIT = {
    "title": "A table with a figure",
    "form": "times",
    "tasks": [{"task": "class"}],
    "rows": {"ssd": {"method": "ssd"}, "long": {"label": "A method with a long name", "method": "neggrad"}},
    "scales": {
        "own": {
            "data": {
                "first": {"label": "Digits", "dataset": "digits"},
                "second": {"label": "Digits of 12 pixels", "dataset": "digits", "image_size": 12},
                "third": {"label": "Nothing", "dataset": "nowhere"},
            },
            "seeds": [0],
            "settings": {"initial.epochs": 1, "retrain.epochs": 1, "neggrad.epochs": 1},
        }
    },
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    settings = {"epochs": 2, "initial.epochs": 1, "retrain.epochs": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYMIXUNLEARN_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = run_unlearning(
            resolve_unlearning(UnlearnInputs(device="cpu", settings=settings, tsne=True)),
            tmp_path_factory.mktemp("run") / "run",
            command_line=f"mixunlearn-cli unlearn --out {'a-very-long-name-of-a-folder' * 4}",
        )
        epochs = {"initial.epochs": 1, "retrain.epochs": 1, "fine-tune.epochs": 1}
        request = CompareInputs(("ssd", "fine-tune"), (0, 1), device="cpu", settings=epochs)
        compared = run_comparison(
            resolve_comparison(request),
            tmp_path_factory.mktemp("compare") / "compare",
            command_line="mixunlearn-cli compare --methods ssd,fine-tune --set initial.epochs=1",
        )
        exhibit = tmp_path_factory.mktemp("exhibit")
        (exhibit / "mine.yaml").write_text(yaml.safe_dump(EXHIBIT))
        plan = resolve_experiment(ExperimentInputs(str(exhibit / "mine.yaml"), "own", device="cpu"))
        shown = run_experiment(plan, exhibit / "out", cells=exhibit / "cells", command_line="the command")
    return {name: of.folder / "report.html" for name, of in (("run", made), ("compare", compared), ("exhibit", shown))}


def measured(page: Path, width: int, tmp_path: Path, *flags: str, script: str = "") -> dict[str, Any]:
    browser = shutil.which("chromium")
    assert browser is not None, "these tests need chromium on the PATH"
    tmp_path.mkdir(exist_ok=True)
    wrapped = tmp_path / "page.html"
    wrapped.write_text(PAGE.format(width=width, script=script, content=html.escape(page.read_text("utf-8"))), "utf-8")
    command = [browser, *FLAGS, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,2000"]
    done = subprocess.run([*command, "--dump-dom", wrapped.as_uri()], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None, done.stdout[:500]
    found: dict[str, Any] = json.loads(html.unescape(title.group(1)))
    return found


@pytest.mark.parametrize("name", ["run", "compare", "exhibit"])
@pytest.mark.parametrize("width", [360, 1000])
def test_the_page_fits_the_screen(pages: dict[str, Path], tmp_path: Path, name: str, width: int) -> None:
    found = measured(pages[name], width, tmp_path)
    assert found["width"] == found["needed"] == width and found["wide"] == []
    assert found["svgs"] == {"run": 11, "compare": 2, "exhibit": 1}[name] and found["loaded"] == 0


def test_a_page_that_is_too_wide_is_found(tmp_path: Path) -> None:
    page = tmp_path / "wide.html"
    page.write_text('<!doctype html><p style="width:500px">wide</p>', "utf-8")
    found = measured(page, 360, tmp_path)
    assert found["wide"] == ["P"] and found["needed"] != found["width"]


def test_errors_on_the_console_are_found(tmp_path: Path) -> None:
    page = tmp_path / "broken.html"
    page.write_text("<!doctype html><script>missing()</script>", "utf-8")
    with pytest.raises(AssertionError, match="missing is not defined"):
        measured(page, 360, tmp_path)


def test_the_page_follows_the_reader_s_light_or_dark(pages: dict[str, Path], tmp_path: Path) -> None:
    light = measured(pages["run"], 360, tmp_path / "light", "--blink-settings=preferredColorScheme=1")
    dark = measured(pages["run"], 360, tmp_path / "dark", "--blink-settings=preferredColorScheme=0")
    assert (light["paper"], dark["paper"]) == ("rgb(255, 255, 255)", "rgb(20, 24, 28)")


def test_a_comparison_sorts_filters_hides_and_says_what_its_csv_has(pages: dict[str, Path], tmp_path: Path) -> None:
    with (pages["compare"].parent / "table.csv").open(newline="", encoding="utf-8") as file:
        table = {row["method"]: row for row in csv.DictReader(file)}
    steps = """
    const found = { before: names() };
    const head = one("th[data-key=test_f]");
    head.firstChild.click(); found.up = names(); found.sorted = head.getAttribute("aria-sort");
    head.firstChild.click(); found.down = names();
    head.firstChild.click(); found.after = names();
    found.tip = point("aware/ssd", "asr");
    one("tr[data-row='aware/ssd'] td[data-key=mean]").focus(); found.focused = one(".tip b").textContent;
    press("Escape"); found.closed = one(".tip").hidden;
    all("input[name=numbers]")[1].click();
    found.gap = one("tr[data-row='aware/ssd'] td[data-key=test_f]").firstChild.textContent;
    all("input[name=numbers]")[0].click();
    type("FINE"); found.filtered = names(); found.points = all(".scatter g.point").length;
    type(""); all(".chips button")[0].click(); found.hidden = names(); all(".chips button")[0].click();
    found.count = one("#explore-count").textContent;
    found.marks = all(".scatter g.point").map((mark) => mark.getAttribute("aria-label"));
    found.still = one("#still-times").hidden;
    return found;"""
    found = measured(pages["compare"], 1000, tmp_path, script=READER + steps)
    assert found["loaded"] == 0
    said = found["said"]
    references = ["Retrain", "second Retrain", "initial"]
    ranked = sorted(("ssd", "fine-tune"), key=lambda name: float(table[name]["test_f_mean"]))
    assert said["up"] == [*references, *ranked] and said["down"] == [*references, *reversed(ranked)]
    assert said["sorted"] == "ascending" and said["before"] == said["after"]
    asr = table["ssd"]
    mean, std = float(asr["asr_mean"]), float(asr["asr_std"])
    assert f"Mean {mean:.4f}, standard deviation {std:.4f}" in said["tip"]
    assert "seed 0: " in said["tip"] and "seed 1: " in said["tip"]
    assert "--set initial.epochs=1 --methods ssd --seeds 0,1 --threads" in said["tip"]
    assert said["focused"] == "ssd, Mean gap" and said["closed"]
    record = json.loads((pages["compare"].parent / "compare.json").read_text("utf-8"))
    gaps = [record["cells"][f"ssd-seed{seed}"]["gap"]["unlearned"]["test_f"] for seed in (0, 1)]
    assert said["gap"] == f"{sum(gaps) / 2:.2f}"
    assert said["filtered"] == [*references, "fine-tune"] and said["points"] == 1
    first, other = said["before"][-2:]
    assert said["hidden"] == [*references, other] and first != other
    assert said["count"] == "2 of 2 methods shown" and len(said["marks"]) == 2 and said["still"]


def test_an_exhibit_is_explored_case_by_case(pages: dict[str, Path], tmp_path: Path) -> None:
    with (pages["exhibit"].parent / "table.csv").open(newline="", encoding="utf-8") as file:
        table = {(row["case"], row["row"], row["model"]): row for row in csv.DictReader(file)}
    steps = """
    const cells = all("table.explore")[0].querySelectorAll("tr[data-row='aware/ssd'] td[data-key=test_r]");
    const found = { tips: [...cells].map((cell) => { cell.focus(); return one(".tip").textContent; }) };
    found.heats = all("table.heat").length; found.scatters = all(".scatter select").length;
    type("long"); found.filtered = names();
    return found;"""
    said = measured(pages["exhibit"], 1000, tmp_path, script=READER + steps)["said"]
    for case, tip in zip(("first", "second"), said["tips"], strict=True):
        assert f"Mean {float(table[case, 'ssd', 'unlearned']['test_r']):.4f}" in tip
    assert (said["heats"], said["scatters"]) == (2, 2)
    assert said["filtered"][-1] == "A method with a long name" and "ssd" not in said["filtered"]
