from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from pymixunlearn.reporting.pictures import (
    Compared,
    Picture,
    caption_of,
    draw_accuracies,
    draw_confusion_change,
    draw_curves,
    draw_densities,
    draw_margins,
    draw_mixes,
    draw_representations,
    draw_thumbnails,
    inline,
)
from pymixunlearn.reporting.pictures.comparison import MethodResult, draw_gaps, draw_times
from pymixunlearn.reporting.pictures.samples import displayable
from pymixunlearn.reporting.pictures.style import MODELS, label

NAMES = ("zero", "one", "a rather long name", "<b>&")
HISTORY = [
    *({"phase": "initial", "epoch": epoch, "seconds": 1.0, "loss": 1 / epoch} for epoch in (1.0, 2.0)),
    *({"phase": "unlearned", "epoch": epoch, "mix": -epoch, "real": float("nan")} for epoch in (1.0, 2.0, 3.0)),
]


def densities() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    grid = np.linspace(0, 4, 512)
    return grid, np.exp(-grid), np.exp(-((grid - 1) ** 2))


def margins(shift: float) -> Compared:
    chance = np.random.default_rng(0)
    return Compared(chance.normal(shift, 1, 50), chance.normal(0, 1, 200), 0.1 + shift / 2, 0.2)


def images(count: int, channels: int = 1) -> torch.Tensor:
    return (torch.arange(count * channels * 64) % 256).to(torch.uint8).view(count, channels, 8, 8)


def result(name: str, gap: float, labels: str = "aware", std: float | None = 0.5) -> MethodResult:
    return MethodResult(name, labels, gap, std, {"test_r": gap, "asr": gap / 2}, 1 + gap)


def every_picture() -> list[Picture]:
    counts = torch.eye(4, dtype=torch.int64) * 10
    accuracies = {"initial": [90.0, 80.0, None, 100.0], "unlearned": [0.0, 80.0, None, 99.0], "Retrain": [0.0] * 4}
    features = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    half = images(3) / 255.0
    return [
        draw_densities({"initial": densities(), "unlearned": None}),
        draw_margins({"unlearned": (margins(1.5), margins(0.0)), "Retrain": (margins(0.0), margins(0.0))}),
        *draw_curves(HISTORY),
        draw_accuracies(accuracies, NAMES, (0,)),
        draw_confusion_change(counts.tolist(), counts.roll(1, 1).tolist(), NAMES),
        draw_representations("initial", features, torch.arange(40) % 4, torch.arange(40) < 10, NAMES),
        draw_thumbnails(images(11, 3)),
        draw_mixes(half, half.flip(0), half[:, 0], half),
        draw_gaps([result("a", 3.0), result("b", 0.1, "agnostic", None)]),
        draw_times([result("a", 3.0), result("b", 0.0, "agnostic")], 5.0),
    ]


def test_what_the_acceptance_test_says_has_a_shape_of_its_own() -> None:
    answers = ("accepted", "refused", "cannot tell", "seeds differ", "")
    made = [replace(result(answer or "none", 1.0 + place), answer=answer) for place, answer in enumerate(answers)]
    svg = draw_times([*made, replace(result("hollow", 9.0, "agnostic"), answer="accepted")]).svg()
    for meaning in (
        "accepted, with labels",
        "accepted, without labels",
        "refused, with labels",
        "not tested, with labels",
    ):
        assert svg.count(f">{meaning}<") == 1
    assert "Shape and colour say" in svg and "Shape and colour" not in draw_times([result("a", 3.0)]).svg()


def test_flat_masks_are_said_to_be_flat_and_not_stretched_to_structure() -> None:
    half = images(3) / 255.0
    noise = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    flat = draw_mixes(half, half.flip(0), 0.5 + 1e-3 * noise, half)
    assert "The masks are flat: inside an image their standard deviation is 0.0003" in flat.caption
    shown = flat.figure.axes[1].images[0].get_array()[..., :3]
    assert shown[shown.any(-1)].std(0).max() < 0.01  # one colour, but for the margins
    structured = draw_mixes(half, half.flip(0), noise, half)
    assert "flat" not in structured.caption and "standard deviation of 0.29" in structured.caption


@pytest.mark.parametrize("place", [0, None])
@pytest.mark.filterwarnings("error")
def test_a_density_narrower_than_the_grid_is_drawn_without_a_warning(place: int | None, tmp_path: Path) -> None:
    grid, spike = np.linspace(0, 4, 512), np.zeros(512)
    if place is not None:
        spike[place] = 7.0
    draw_densities({"initial": (grid, spike, spike)}).save(tmp_path)
    assert ElementTree.fromstring((tmp_path / "losses.svg").read_text("utf-8")) is not None


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return every_picture()


def test_every_picture_is_saved_as_svg(pictures: list[Picture], tmp_path: Path) -> None:
    for picture in pictures:
        picture.save(tmp_path)
        svg = (tmp_path / f"{picture.name}.svg").read_text("utf-8")
        ElementTree.fromstring(svg)
        assert caption_of(svg) == picture.caption
        assert len(svg) < 120_000
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{picture.name}.svg" for picture in pictures)


def test_png_is_written_where_asked_for(pictures: list[Picture], tmp_path: Path) -> None:
    pictures[0].save(tmp_path, png=True)
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "losses.svg").is_file()


@pytest.mark.parametrize(
    "name", ["$x", "$a_$b", "_x", "\x1b[31mred", "a\nb", "\udcff", "</text>", "犬", r"\frac{", "a\u202eb", ""]
)
def test_names_of_any_characters_are_drawn_and_change_nothing(name: str) -> None:
    features = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    names = (name, "other")
    for picture in (
        draw_accuracies({"initial": [90.0, 80.0], "unlearned": [10.0, 20.0]}, names, (0,)),
        draw_confusion_change([[10, 0], [0, 4]], [[5, 5], [0, 4]], names),
        draw_representations("initial", features, torch.arange(12) % 2, torch.arange(12) > 9, names),
        draw_gaps([result(name, 3.0), result("other", 1.0)]),
        draw_times([result(name, 3.0), result("other", 1.0)]),
        *draw_curves([{"phase": "unlearn", "epoch": 1.0, name or "loss": 1.0}]),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            svg = picture.svg()
        root = ElementTree.fromstring(svg.encode())
        text = [element.text for element in root.iter() if element.tag.endswith("text")]
        assert not name or any(part and part.startswith(label(name)) for part in text), (picture.name, text)


def test_labels_are_cut_after_they_are_escaped() -> None:
    assert label("\x1b" * 4, 14) == r"\x1b\x1b\x1b\…"
    assert label("a" * 14, 14) == "a" * 14 and label("a" * 15, 14) == "a" * 13 + "…"


def test_the_same_numbers_give_the_same_bytes(pictures: list[Picture]) -> None:
    for first, second in zip(pictures, every_picture(), strict=True):
        assert first.svg() == second.svg(), first.name


def test_inlined_pictures_take_the_page_s_ink_and_refer_to_nothing_outside(pictures: list[Picture]) -> None:
    identifiers: list[str] = []
    for picture in pictures:
        element = inline(picture.svg())
        root = ElementTree.fromstring(element)
        assert root.attrib["role"] == "img" and root.attrib["aria-label"] == picture.caption
        assert "width" not in root.attrib and "viewBox" in root.attrib
        assert "#1c2126" not in element and "metadata" not in element
        references = re.findall(r'href="([^"]*)"', element)
        assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in references)
        own = re.findall(r' id="([^"]*)"', element)
        assert set(re.findall(r"url\(#([^)]*)\)", element)) <= set(own)
        identifiers += own
    assert len(identifiers) == len(set(identifiers))  # they share one page


def test_models_differ_in_more_than_colour() -> None:
    for part in ("colour", "line", "marker", "hatch"):
        assert len({getattr(look, part) for look in MODELS.values()}) == len(MODELS)


def test_curves_have_a_picture_per_phase_and_leave_out_what_is_not_finite() -> None:
    first, second = draw_curves(HISTORY)
    assert (first.name, second.name) == ("curves-initial", "curves-unlearned")
    (panel,) = second.figure.axes
    assert panel.get_title("left") == "mix"
    assert panel.lines[0].get_xydata().tolist() == [[1, -1], [2, -2], [3, -3]]


def test_of_many_classes_those_are_shown_that_changed_most() -> None:
    before, after = [90.0] * 50, [90.0 - label for label in range(50)]
    picture = draw_accuracies({"initial": before, "unlearned": after}, [f"class {label}" for label in range(50)])
    shown = [label.get_text() for label in picture.figure.axes[0].get_yticklabels()]
    assert shown == [f"class {label}" for label in range(30, 50)]
    assert "20 of 50 classes" in picture.caption


def test_bars_are_as_long_as_the_accuracies_and_the_forgotten_are_marked() -> None:
    picture = draw_accuracies({"initial": [90.0, 80.0], "unlearned": [10.0, None]}, ["x", "y"], (1,))
    axes = picture.figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [90.0, 80.0, 10.0, 0.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y *"]


def test_the_change_of_answers_is_in_points_of_each_class() -> None:
    picture = draw_confusion_change([[10, 0], [0, 4]], [[5, 5], [0, 4]], ["x", "y"])
    axes = picture.figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["-50", "+50"]


def test_methods_are_ranked_by_their_gap() -> None:
    picture = draw_gaps([result("worst", 40.0), result("best", 0.2), result("middle", 3.0)])
    assert [label.get_text() for label in picture.figure.axes[0].get_yticklabels()] == ["best", "middle", "worst"]


def test_images_are_brought_to_what_can_be_shown() -> None:
    assert displayable(images(1)[0]).shape == (8, 8) and displayable(images(1, 3)[0]).shape == (8, 8, 3)
    assert displayable(torch.full((1, 2, 2), 255, dtype=torch.uint8)).max() == 1.0
    stretched = displayable(torch.tensor([[[-2.0, 2.0]]]))
    assert stretched.tolist() == [[0.0, 1.0]]
    assert displayable(images(1, 4)[0]).shape == (8, 8)
