"""Ctrl-C that Python could not pass on is sent once more."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_SECONDS = 0.02  # by then, what cannot pass it on is over


@contextmanager
def never_lost(number: int = signal.SIGINT, lost: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Send a signal again, in the block, whose KeyboardInterrupt was raised where Python cannot pass it on.

    The handler of a signal runs between any two steps of a program, so also in ``__del__`` and in the callbacks of weak
    references. An exception there is printed and dropped, after which the program would go on as if nothing had been.

    Args:
        number: The signal whose handler raises it, in the main thread.
        lost: Called before it is sent again.

    Example:
        >>> with never_lost():
        ...     pass  # a long computation
    """
    before, over = sys.unraisablehook, False

    def again() -> None:
        time.sleep(_SECONDS)
        if not over:
            lost()
            signal.pthread_kill(threading.main_thread().ident or 0, number)

    def hook(dropped: Any) -> None:
        if dropped.exc_type is KeyboardInterrupt:
            # Not by a Thread: whatever was interrupted may hold the locks of its class.
            _thread.start_new_thread(again, ())
        else:
            before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        over = True
        sys.unraisablehook = before
