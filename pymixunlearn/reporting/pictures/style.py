"""Style of all pictures: colours that the colour-blind tell apart, and shapes for whoever prints in grey.

matplotlib is imported inside functions: it takes half a second, which a command that draws nothing should not wait for.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pymixunlearn.display import printable
from pymixunlearn.files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.0
"""Inches: one column of print, and the width of a phone at a readable size of letters."""

INK, SOFT, PAPER = "#1c2126", "#5b6670", "#ffffff"

# Okabe & Ito 2008, without yellow, which paper swallows.
BLUE, VERMILLION, GREEN = "#0072b2", "#d55e00", "#009e73"
ORANGE, SKY, PURPLE = "#e69f00", "#56b4e9", "#cc79a7"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, SOFT)
MARKERS = ("o", "s", "^", "D", "v", "P")


class Look(NamedTuple):
    """What stands for one thing in every picture: a colour, a line, a marker and a hatch."""

    colour: str
    line: str
    marker: str
    hatch: str


MODELS: Mapping[str, Look] = {
    "initial": Look(BLUE, "--", "o", ""),
    "unlearned": Look(VERMILLION, "-", "s", "////"),
    "Retrain": Look(GREEN, "-.", "^", "||||"),
    "second Retrain": Look(PURPLE, ":", "v", "...."),
}
FORGET = Look(VERMILLION, "-", "x", "")
UNSEEN = Look(BLUE, "--", "o", "")

_BACKGROUND = "background"
_RC: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": PAPER,
    "hatch.color": INK,
    "hatch.linewidth": 0.4,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",  # letters stay letters: small files, and text that can be searched and read aloud
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.family": ["DejaVu Sans"],
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Picture:
    """A drawing with the words that go with it.

    Attributes:
        name: Of its files, without a suffix.
        caption: What it shows, in a sentence or two.
        figure: The drawing.
    """

    name: str
    caption: str
    figure: Figure

    def save(self, folder: Path, *, png: bool = False) -> None:
        """Write ``NAME.svg`` into ``folder``, and ``NAME.png`` if ``png``."""
        write_atomically(folder / f"{self.name}.svg", self.svg().encode())
        if png:
            write_atomically(folder / f"{self.name}.png", self._rendered("png", 200, {"Software": None}))

    def svg(self) -> str:
        """Return the drawing as an SVG document, the same bytes for the same drawing."""
        metadata = {"Date": None, "Creator": None, "Description": self.caption}
        return self._rendered("svg", 150, metadata).decode()

    def _rendered(self, kind: str, dpi: int, metadata: Mapping[str, str | None]) -> bytes:
        with io.BytesIO() as stream, _style(self.name), warnings.catch_warnings():
            # The font lacks the signs of many scripts. It only measures the text, which whoever shows the SVG draws.
            warnings.filterwarnings("ignore", r"(?s)Glyph .* missing from", UserWarning)
            # The first format lays the drawing out; the others take that over, since it takes longer than drawing.
            self.figure.savefig(stream, format=kind, dpi=dpi, metadata=dict(metadata))
            self.figure.set_layout_engine("none")
            return stream.getvalue()


@contextmanager
def drawing(height: float, *, width: float = WIDTH) -> Iterator[Figure]:
    """Give an empty figure of ``width`` by ``height`` inches, in the style of this module while the block lasts."""
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(width, height))
        figure.patch.set_gid(_BACKGROUND)
        yield figure


def label(name: str, longest: int | None = None) -> str:
    """Return a name from outside as a label: without what cannot be shown, and cut to so many characters."""
    text = printable(name)
    if longest is not None and len(text) > longest:
        text = f"{text[: longest - 1]}…"
    # matplotlib leaves labels out of legends that start with an underscore.
    return f" {text}" if text.startswith("_") else text


@contextmanager
def _style(salt: str = "") -> Iterator[None]:
    import matplotlib

    # The salt makes names inside an SVG its own: several of them share one page.
    settings: Any = {**_RC, "svg.hashsalt": f"pymixunlearn {salt}"}
    with matplotlib.rc_context(settings):
        yield


def show_image(axes: Axes, image: np.ndarray) -> None:
    """Show an array ``[H, W, 4]`` in 0..1 (red, green, blue, opacity) pixel by pixel, without axes."""
    axes.imshow(image, interpolation="nearest")
    bare(axes)


def bare(axes: Axes) -> None:
    """Take ticks and frame off."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def caption_of(svg: str) -> str:
    """Return the caption that :meth:`Picture.svg` wrote into a document."""
    found = re.search(r"<dc:description>(.*?)</dc:description>", svg, re.DOTALL)
    return html.unescape(found.group(1)) if found else ""


def inline(svg: str) -> str:
    """Return an SVG document as an element of an HTML page: without a background, and in the page's ink.

    The ink becomes ``currentColor``, so that dark pages show it light.
    """
    body = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{html.escape(caption_of(svg))}"', 1)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(rf'<g id="{_BACKGROUND}">.*?</g>', "", body, count=1, flags=re.DOTALL)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    # Names of groups and images can repeat on a page; nothing refers to them.
    body = re.sub(r'(<g|<image[^>]*?) id="[^"]*"', r"\1", body)
    return body.replace(INK, "currentColor").replace(SOFT, "var(--soft)").strip()
