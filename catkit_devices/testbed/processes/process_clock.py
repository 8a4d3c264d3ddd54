"""A clock that counts only the time in which this process runs.

So a process that was suspended does not report others as silent because it missed their messages.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OwnTime"]


class OwnTime:
    """Seconds during which this process ran: a clock that stops while the process is stopped or gets no processor time.

    It must be looked at regularly; between two looks at most ``longest`` seconds pass. Threads may share it.

    Args:
        longest: seconds.
        clock: what it looks at itself.
    """

    def __init__(self, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest = longest
        self._clock = clock
        self._lock = threading.Lock()
        self._looked = clock()
        self._now = 0.0

    def __call__(self) -> float:
        """Return the seconds since it was made."""
        with self._lock:
            now = self._clock()
            self._now += min(now - self._looked, self._longest)
            self._looked = now
            return self._now
