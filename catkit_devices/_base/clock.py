"""The interface of a clock, for devices and simulated instruments."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clock"]


class Clock(abc.ABC):
    """Seconds since the bench was built. Simulated instruments use this clock, and never the module ``time``."""

    @abc.abstractmethod
    def time(self) -> float:
        """Return the seconds that have passed on this clock; it never goes back."""

    @abc.abstractmethod
    def wait(self, seconds: float, sleep: Callable[[float], object] | None = None) -> None:
        """Wait until ``seconds`` have passed on this clock.

        Args:
            seconds: on this clock.
            sleep: a function that waits for seconds of real time, for a wait that can be interrupted: an error that it
                raises ends the wait.
        """

    @abc.abstractmethod
    def step(self, waited: float) -> float:
        """Return the seconds until the next look, in a wait that has lasted ``waited`` seconds already."""

    def exchanged(self) -> None:  # noqa: B027 - most clocks have nothing to do here
        """Called by the simulation for every write to an instrument."""
