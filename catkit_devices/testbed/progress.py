"""How far an experiment has come, as everybody can see it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ENDED", "EXPERIMENTS", "Progress", "Reporter", "State"]

EXPERIMENTS = "experiments"
"""Name of the shared dictionary of progress, by experiment name."""

State = Literal["starting", "running", "teardown", "finished", "failed", "stopped"]
ENDED: frozenset[State] = frozenset({"finished", "failed", "stopped"})

_SHORTEST_INTERVAL = 0.05
"""Seconds between two reports of steps: nobody reads faster, and each costs a round trip."""


@dataclass(frozen=True)
class Progress:
    """One experiment, at one moment."""

    name: str
    state: State = "starting"
    pid: int | None = None
    run: str | None = None
    """Its run directory."""
    description: str = ""
    """What the steps are, as ``track`` was told."""
    done: int = 0
    total: int | None = None
    started: float = 0.0
    """Seconds since 1970 UTC."""
    updated: float = 0.0
    """Seconds since 1970 UTC."""
    message: str = ""
    """How it ended, where that needs saying."""


class Reporter:
    """Publishes an experiment's progress, no faster than anybody could read it.

    Args:
        progress: where it starts.
        publish: called with each progress that is to be seen.
    """

    def __init__(self, progress: Progress, publish: Callable[[Progress], None]) -> None:
        self._progress = replace(progress, started=time.time())
        self._publish = publish
        self._published = float("-inf")

    def state(self, state: State, message: str = "") -> None:
        """Report that it entered another state."""
        self._report(state=state, message=message)

    def begin(self, description: str, total: int | None) -> None:
        """Report the beginning of a sequence of steps."""
        self._report(description=description, done=0, total=total)

    def step(self, done: int, *, last: bool = False) -> None:
        """Report that ``done`` steps are done; may be left unsaid when the previous report was just now."""
        if last or time.monotonic() - self._published >= _SHORTEST_INTERVAL:
            self._report(done=done)

    def _report(self, **changes: Any) -> None:
        self._progress = replace(self._progress, updated=time.time(), **changes)
        self._publish(self._progress)
        self._published = time.monotonic()
