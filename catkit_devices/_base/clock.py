"""What a clock is, to a device and to a simulated instrument."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clock"]


class Clock(abc.ABC):
    """Seconds since the bench was built. Every simulated instrument takes its time from here, never from ``time``."""

    @abc.abstractmethod
    def time(self) -> float:
        """Return the seconds that have passed on this clock; it never goes back."""

    @abc.abstractmethod
    def wait(self, seconds: float, sleep: Callable[[float], object] | None = None) -> None:
        """Return when at least ``seconds`` more have passed on this clock.

        Args:
            seconds: on this clock.
            sleep: called to wait for seconds of the wall's, by one who wants to be interrupted: what it raises ends
                the wait.
        """

    @abc.abstractmethod
    def step(self, waited: float) -> float:
        """Return for how long to wait before looking again, for one who has waited ``waited`` seconds already."""

    def exchanged(self) -> None:  # noqa: B027 - most clocks have nothing to do here
        """Note that something was sent to an instrument; called by the backend for every write."""
