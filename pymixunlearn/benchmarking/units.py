"""Times, sizes and shares as text, with three digits and a suitable unit."""

from __future__ import annotations

_BYTE_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"), (1, "B"))


def duration(milliseconds: float | None) -> str:
    """Write a time with three digits and the unit that suits it."""
    if milliseconds is None:
        return "-"
    factor, unit = (1e3, "µs") if milliseconds < 1 else (1.0, "ms") if milliseconds < 1e3 else (1e-3, "s")
    value = milliseconds * factor
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def size_of(count: int | None) -> str:
    """Write bytes with three digits and the unit that suits them."""
    if not count:
        return "-" if count is None else "0 B"
    factor, unit = next((size, unit) for size, unit in _BYTE_UNITS if count >= size)
    value = count / factor
    return f"{value:.{2 if value < 10 and factor > 1 else 1 if value < 100 and factor > 1 else 0}f} {unit}"


def share(value: float | None) -> str:
    """Write a share in percent."""
    return "-" if value is None else f"{100 * value:.0f} %" if value >= 0.095 else f"{100 * value:.1f} %"
