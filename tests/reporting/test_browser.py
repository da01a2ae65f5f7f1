"""Reports in a real browser: nothing on the console, and no page wider than the screen."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

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
      frame.contentDocument.body).backgroundColor, svgs: page.querySelectorAll("svg").length }});
}});
</script>"""


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
        request = CompareInputs(
            ("neggrad", "fine-tune"), (0,), device="cpu", settings={"initial.epochs": 1, "retrain.epochs": 1}
        )
        compared = run_comparison(resolve_comparison(request), tmp_path_factory.mktemp("compare") / "compare")
        exhibit = tmp_path_factory.mktemp("exhibit")
        (exhibit / "mine.yaml").write_text(yaml.safe_dump(EXHIBIT))
        plan = resolve_experiment(ExperimentInputs(str(exhibit / "mine.yaml"), "own", device="cpu"))
        shown = run_experiment(plan, exhibit / "out", cells=exhibit / "cells", command_line="the command")
    return {name: of.folder / "report.html" for name, of in (("run", made), ("compare", compared), ("exhibit", shown))}


def measured(page: Path, width: int, tmp_path: Path, *flags: str) -> dict[str, object]:
    browser = shutil.which("chromium")
    assert browser is not None, "these tests need chromium on the PATH"
    tmp_path.mkdir(exist_ok=True)
    wrapped = tmp_path / "page.html"
    wrapped.write_text(PAGE.format(width=width, content=html.escape(page.read_text("utf-8"))), "utf-8")
    command = [browser, *FLAGS, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,2000"]
    done = subprocess.run([*command, "--dump-dom", wrapped.as_uri()], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None, done.stdout[:500]
    found: dict[str, object] = json.loads(html.unescape(title.group(1)))
    return found


@pytest.mark.parametrize("name", ["run", "compare", "exhibit"])
@pytest.mark.parametrize("width", [360, 1000])
def test_the_page_fits_the_screen(pages: dict[str, Path], tmp_path: Path, name: str, width: int) -> None:
    found = measured(pages[name], width, tmp_path)
    assert found["width"] == found["needed"] == width and found["wide"] == []
    assert found["svgs"] == {"run": 11, "compare": 2, "exhibit": 1}[name]


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
