"""The ratios to the rivals as a drawing that needs no plotting library: an SVG that pages can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from pymixunlearn.benchmarking.ops.comparison import RIVALS, Comparison
from pymixunlearn.benchmarking.ops.measure import PROVIDERS
from pymixunlearn.benchmarking.ops.results import MEASURED

# From the palette of Okabe and Ito, which every kind of colour vision tells apart; the shapes differ as well.
_COLOURS = {"pytorch": "#0072b2", "compile": "#d55e00", "sdpa": "#009e73", "sdpa-padded": "#cc79a7"}
_LABELS, _PANEL, _GAP, _ROW, _TOP, _BOTTOM, _RIGHT = 250, 270, 24, 17, 58, 44, 16
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_STYLE = "font-family:sans-serif;font-size:11px"


def ratio_plot(comparisons: Sequence[Comparison], title: str) -> str:
    """Draw one line per operator, pairing and size, one panel per dtype, the ratios on a logarithmic axis.

    Args:
        comparisons: Of one mode and way of launching.
        title: What was measured where.

    Returns:
        An SVG document.
    """
    measured = [entry for entry in comparisons if entry.fused.status == MEASURED]
    names = list(dict.fromkeys(_name(entry) for entry in measured))
    dtypes = list(dict.fromkeys(entry.fused.dtype for entry in measured))
    ratios = [row.ratio for entry in measured for row in entry.rivals.values() if row.ratio is not None]
    axis = _Axis([*ratios, 1.0])
    width = _LABELS + len(dtypes) * (_PANEL + _GAP) - _GAP + _RIGHT
    height = _TOP + len(names) * _ROW + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" style="{_STYLE}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="18" font-weight="bold">{escape(title)}</text>',
        *_legend(),
    ]
    for index, name in enumerate(names):
        parts.append(f'<text x="{_LABELS - 8}" y="{_middle(index) + 4}" text-anchor="end">{escape(name)}</text>')
    for index, dtype in enumerate(dtypes):
        left = _LABELS + index * (_PANEL + _GAP)
        entries = [entry for entry in measured if entry.fused.dtype == dtype]
        parts += _panel(axis, left, dtype, len(names), [(names.index(_name(entry)), entry) for entry in entries])
    return "\n".join([*parts, "</svg>", ""])


def _name(entry: Comparison) -> str:
    fused = entry.fused
    return " ".join(filter(None, (fused.op, fused.pairing, fused.size)))


def _middle(index: int) -> int:
    return _TOP + index * _ROW + _ROW // 2


class _Axis:
    """A logarithmic axis that spans the values, from one tick to another."""

    def __init__(self, values: Sequence[float]) -> None:
        low = max((tick for tick in _TICKS if tick <= min(values)), default=_TICKS[0])
        high = min((tick for tick in _TICKS if tick >= max(values)), default=_TICKS[-1])
        self._low, self._high = (low / 2, high * 2) if low == high else (low, high)
        self.ticks = [tick for tick in _TICKS if self._low <= tick <= self._high]

    def at(self, value: float) -> float:
        """Return the place of a value, beyond the ends that of the end."""
        inside = min(max(value, self._low), self._high)
        return round(_PANEL * math.log(inside / self._low) / math.log(self._high / self._low), 1)


def _panel(axis: _Axis, left: int, dtype: str, rows: int, entries: Sequence[tuple[int, Comparison]]) -> list[str]:
    bottom = _TOP + rows * _ROW
    parts = [f'<text x="{left + _PANEL / 2}" y="{_TOP - 8}" text-anchor="middle">{dtype}</text>']
    # Left of 1 the fused operator lost.
    parts.append(f'<rect x="{left}" y="{_TOP}" width="{axis.at(1)}" height="{rows * _ROW}" fill="#f3e9e4"/>')
    for tick in axis.ticks:
        x, colour = left + axis.at(tick), "#555555" if tick == 1 else "#dddddd"
        parts.append(f'<line x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}" stroke="{colour}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 14}" text-anchor="middle">{tick:g}</text>')
    parts.append(
        f'<text x="{left + _PANEL / 2}" y="{bottom + 32}" text-anchor="middle">'
        "rival's time / fused operator's time</text>"
    )
    for index, entry in entries:
        for rival, row in entry.rivals.items():
            if row.ratio is not None:
                parts.append(_marker(rival, left + axis.at(row.ratio), _middle(index)))
    return parts


def _marker(rival: str, x: float, y: float) -> str:
    fill = f'fill="{_COLOURS[rival]}" fill-opacity="0.85"'
    if rival == "pytorch":
        return f'<circle cx="{x}" cy="{y}" r="4.5" {fill}/>'
    if rival == "compile":
        return f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z" {fill}/>'
    return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" {fill}/>'


def _legend() -> list[str]:
    parts = []
    for index, rival in enumerate(RIVALS):
        x = 16 + index * 90
        parts += [_marker(rival, x, 38), f'<text x="{x + 9}" y="42">{PROVIDERS[rival]}</text>']
    return parts
