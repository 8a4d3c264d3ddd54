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
"""Seconds of real time that a wait on a virtual clock gives to other threads, where the wait can be interrupted."""


class RealClock(Clock):
    """Real time, or a multiple of it.

    Args:
        speed: how many seconds pass on this clock in one second of real time.
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
        """Return the pause until the next look: half a millisecond at first, up to 10 ms in long waits (real time)."""
        return min(0.0005 * self._speed + 0.05 * waited, 0.01 * self._speed)


class VirtualClock(Clock):
    """A clock that advances only while a program waits, so that a move of ten seconds costs a test nothing.

    A wait for a reply advances it until the reply comes or the timeout is over, in steps of 1 ms or 1 % of the time
    waited so far, in all reads since the last write or reply, whichever is more. If several threads wait, each of them
    advances it. With one thread, everything that depends on it is reproducible.

    Args:
        tick: seconds by which every write advances it, so that time passes also for a program that polls an instrument.
    """

    def __init__(self, tick: float = 0.001) -> None:
        if not tick >= 0:
            raise ConfigurationError(f"a clock's tick must not be negative, got {tick!r}")
        self._tick = float(tick)
        self._now = 0.0
        self._lock = threading.Lock()

    def time(self) -> float:
        """Return the seconds that were waited for."""
        return self._now  # one attribute is read whole, also without the lock that adding to it needs

    def wait(self, seconds: float, sleep: Callable[[float], object] | None = None) -> None:
        """Advance the clock at once; where the wait can be interrupted, first let other threads run for a moment."""
        if sleep is not None:
            sleep(_TURN)
        with self._lock:
            self._now += max(seconds, 0.0)

    def step(self, waited: float) -> float:
        """Return the step to the next look: 1 ms, or 1 % of what was waited, whichever is more."""
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
