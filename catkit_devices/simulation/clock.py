"""The time of a simulated bench: real time, or a virtual one that advances only while a program waits."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from catkit_devices._base.clock import Clock
from catkit_devices.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clock", "RealClock", "VirtualClock", "make_clock"]

_TURN = 0.001
"""Seconds of real time that a wait on a virtual clock leaves to other threads, where it can be interrupted."""


class RealClock(Clock):
    """Real time, or a multiple of it.

    Args:
        speed: how many seconds pass here in one of the wall's.
    """

    def __init__(self, speed: float = 1.0) -> None:
        if not speed > 0:
            raise ConfigurationError(f"a clock's speed must be above 0, got {speed!r}")
        self._speed = float(speed)
        self._start = time.monotonic()

    def time(self) -> float:
        """Return the seconds since this clock was made, times its speed."""
        return (time.monotonic() - self._start) * self._speed

    def wait(self, seconds: float, sleep: Callable[[float], object] | None = None) -> None:
        """Sleep."""
        (sleep or time.sleep)(max(seconds, 0.0) / self._speed)

    def step(self, waited: float) -> float:
        """Half a millisecond at first, up to 10 ms in long waits (of real time)."""
        return min(0.0005 * self._speed + 0.05 * waited, 0.01 * self._speed)


class VirtualClock(Clock):
    """A clock that advances only while a program waits, so that a move of ten seconds costs a test nothing.

    Waiting for a reply advances it, by the time until the reply or the timeout, with a resolution of 1 ms or 1 % of
    what was waited, whichever is more. Several threads that wait advance it together. With one thread, everything
    that depends on it is reproducible.

    Args:
        tick: seconds that pass with every write, so that time also passes for a program that polls an instrument.
    """

    def __init__(self, tick: float = 0.001) -> None:
        if not tick >= 0:
            raise ConfigurationError(f"a clock's tick must not be negative, got {tick!r}")
        self._tick = float(tick)
        self._now = 0.0
        self._lock = threading.Lock()

    def time(self) -> float:
        """Return the seconds that were waited for."""
        with self._lock:
            return self._now

    def wait(self, seconds: float, sleep: Callable[[float], object] | None = None) -> None:
        """Advance the clock, at once; one who can be interrupted lets other threads have a turn before."""
        if sleep is not None:
            sleep(_TURN)
        with self._lock:
            self._now += max(seconds, 0.0)

    def step(self, waited: float) -> float:
        """One millisecond, or 1 % of what was waited, whichever is more."""
        return max(0.001, 0.01 * waited)

    def exchanged(self) -> None:
        """Advance the clock by its tick."""
        self.wait(self._tick)


def make_clock(clock: Clock | str | None) -> Clock:
    """Return a clock: the one given, or a new one by its name, ``"real"`` (which None means) or ``"virtual"``."""
    if isinstance(clock, Clock):
        return clock
    kinds: dict[str, type[Clock]] = {"real": RealClock, "virtual": VirtualClock}
    if clock is None:
        return RealClock()
    if clock not in kinds:
        raise ConfigurationError(
            f"there is no clock {clock!r}; there are {', '.join(kinds)}", suggestion=nearest(str(clock), kinds)
        )
    return kinds[clock]()
