"""A signal that comes where Python cannot pass on what its handler raises."""

from __future__ import annotations

import signal


class _Unpassable:
    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


def lose_signal(number: int) -> None:
    """Send a signal to this process in the end of an object, where exceptions are dropped."""
    _Unpassable(number)
