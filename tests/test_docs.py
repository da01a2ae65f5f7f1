"""Commands and Python in README and docs run as they are printed; links, options and the list of pages are whole.

A fence whose first line ends with ``run``, as in ```` ```bash run ````, is run here. Fences marked ``run slow`` take
longer and run with ``-m slow``. The fences of one page run in order, in one folder that holds what a user is supposed
to have.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import torch
import yaml
from mixunlearn_cli.main import main
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(bash|python) run( slow)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINKED = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "csrc" / "README.md"]
_LINK = re.compile(r"\]\(([^)#:\s]*)(?:#([\w-]+))?\)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^```.*?^```$|`[^`]*`", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"mixunlearn-cli ([^\n`]*)")
_OPTION = re.compile(r"(?<!\S)(--[a-z][\w-]*)")

OTHERS = {"--bed", "--bound", "--counts", "--dependencies", "--libraries", "--num-cpus", "--num-gpus"}
"""Options in the pages that are those of scripts and of Ray."""

# What a page's Python takes from the user.
PRELUDE = """
import torch
from pymixunlearn import models
torch.manual_seed(0)
train_images = torch.randint(256, (256, 1, 8, 8), dtype=torch.uint8)
train_targets = torch.arange(256) % 10
test_images, test_targets = train_images[:128], train_targets[:128]
model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
logits = torch.randn(32, 10, requires_grad=True)
target_forget, target_retain = torch.randint(10, (2, 32))
"""


class Fence(NamedTuple):
    language: str
    slow: bool
    text: str


def fences(page: Path) -> list[Fence]:
    return [Fence(found[1], bool(found[2]), found[3]) for found in _FENCE.finditer(page.read_text(encoding="utf-8"))]


def runs() -> list[object]:
    """A quick run of every page, and one of all its fences where some are slow."""
    made: list[object] = []
    for page in PAGES:
        found = fences(page)
        quick = [fence for fence in found if not fence.slow]
        if quick:
            made.append(pytest.param(quick, id=page.stem))
        if len(quick) < len(found):
            made.append(pytest.param(found, id=f"{page.stem}-slow", marks=pytest.mark.slow))
    return made


@pytest.fixture
def user_folder(tmp_path: Path) -> Path:
    """A folder with photos of three classes, and lists of what is to be forgotten."""
    stream = torch.Generator().manual_seed(0)
    for part, count in (("train", 24), ("test", 12)):
        for index, name in enumerate(("cat", "dog", "owl")):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                # Grey and small, for which the small network is the default.
                pixels = torch.randint(0, 80, (16, 16), generator=stream, dtype=torch.uint8)
                pixels[4 * index : 4 * index + 6] += 150
                Image.fromarray(pixels.numpy()).save(folder / f"{number:03}.png")
    (tmp_path / "ids.txt").write_text("3\n14\n41\n")
    return tmp_path


@pytest.mark.parametrize("page", runs())
def test_what_a_page_marks_runs(page: list[Fence], user_folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYMIXUNLEARN_CACHE": str(user_folder / "cache")}
    for fence in page:
        if fence.language == "bash":
            command = ["bash", "-euo", "pipefail", "-c", fence.text]
        else:
            command = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", PRELUDE + fence.text]
        done = subprocess.run(command, cwd=user_folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{fence.text}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr and "Warning" not in done.stderr, done.stderr


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT).with_suffix("")))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    links = _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8")))
    targets = [(page.parent / target if target else page, anchor) for target, anchor in links]
    assert [str(target) for target, _ in targets if not target.exists()] == []
    assert [(str(target), anchor) for target, anchor in targets if anchor and anchor not in anchors(target)] == []
    # The site of the docs holds nothing else.
    assert page.parent != ROOT / "docs" or [target for target, _ in links if target.startswith("..")] == []


def anchors(page: Path) -> set[str]:
    """What links can name of a page: its headings, in lower case, without marks, with a hyphen for each space."""
    headings = re.findall(r"^#+ (.*)$", _FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def options_of(
    command: click.Command, context: click.Context, path: tuple[str, ...] = ()
) -> dict[tuple[str, ...], set[str]]:
    """Every command below ``command`` with its options."""
    found = {path: {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}}
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found |= options_of(below, click.Context(below, parent=context), (*path, name))
    return found


@pytest.fixture(scope="module")
def options() -> dict[tuple[str, ...], set[str]]:
    return options_of(main, click.Context(main))


# The page of old names has commands that are no more.
@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "migration"], ids=lambda page: page.stem)
def test_commands_and_options_that_a_page_names_exist(page: Path, options: dict[tuple[str, ...], set[str]]) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in _COMMAND.findall(text):
        words = line.partition("#")[0].split()
        path: tuple[str, ...] = ()
        while words and (*path, words[0]) in options:
            path = (*path, words.pop(0))
        if any(below[:-1] == path for below in options if below):
            assert not words or not re.fullmatch("[a-z-]+", words[0]), f"'{line}' names no command"
        assert {*_OPTION.findall(" ".join(words))} <= options[path] | {"--help"}, line
    named = set(re.findall(r"`(--[a-z][\w-]*)", text))
    assert named <= set().union(*options.values(), OTHERS, {"--help"})


def test_the_paths_that_contributing_names_exist() -> None:
    _, _, rest = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where things live")
    paths = [path for row in re.findall(r"^\| (`.*?) \|", rest, re.MULTILINE) for path in re.findall("`(.*?)`", row)]
    assert len(paths) > 10 and [path for path in paths if not (ROOT / path).is_dir()] == []


def test_the_site_lists_every_page() -> None:
    entries = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=yaml.BaseLoader)["nav"]
    listed = [page for entry in entries for value in entry.values() for page in _pages(value)]
    assert sorted(listed) == sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md"))


def _pages(value: str | list[object]) -> list[str]:
    return [value] if isinstance(value, str) else [str(page) for page in value]
