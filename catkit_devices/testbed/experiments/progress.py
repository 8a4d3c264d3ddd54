"""How far an experiment has come, as everybody can see it."""

from __future__ import annotations

import contextlib
import threading
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
"""The states after which nothing follows."""

_SHORTEST_INTERVAL = 0.05
"""Seconds between two reports of steps: nobody reads faster, and each costs a round trip."""
_STATE_TIMEOUT = 5.0
"""Seconds for a new state to be seen by everybody."""
_LOOK = 0.1
"""Seconds between two looks at what changed."""


@dataclass(frozen=True)
class Progress:
    """One experiment, at one moment."""

    name: str
    state: State = "starting"
    pid: int | None = None
    run: str | None = None
    """Its run directory."""
    description: str = ""
    """What the steps are: the description that ``track`` was given."""
    done: int = 0
    total: int | None = None
    started: float = 0.0
    """Seconds since 1970 UTC."""
    updated: float = 0.0
    """Seconds since 1970 UTC."""
    message: str = ""
    """How it ended, if that needs words."""


class Reporter:
    """Publishes an experiment's progress, no faster than anybody could read it; a thread of its own does so.

    An experiment does not wait for a silent server just to report its progress.

    Args:
        progress: where it starts.
        publish: called with each progress that is to be seen; an error that it raises is ignored; another part reports
            that the testbed is lost.
        silent: returns whether the server does not answer, so that waiting for it makes no sense.
    """

    def __init__(self, progress: Progress, publish: Callable[[Progress], None], silent: Callable[[], bool]) -> None:
        self._progress = replace(progress, started=time.time())
        self._publish = publish
        self._silent = silent
        self._reported = float("-inf")
        self._guard = threading.RLock()
        self._changed = threading.Condition(self._guard)
        self._newest = self._published = 0
        threading.Thread(target=self._go_on_publishing, name="progress", daemon=True).start()

    def state(self, state: State, message: str = "") -> None:
        """Report that it entered another state; return when everybody can see that, within a bounded time."""
        self._report(state=state, message=message)
        deadline = time.monotonic() + _STATE_TIMEOUT
        with self._guard:
            number = self._newest
            while True:
                if self._published >= number or time.monotonic() > deadline or self._silent():
                    break
                self._changed.wait(_LOOK)

    def begin(self, description: str, total: int | None) -> None:
        """Report the beginning of a sequence of steps."""
        self._report(description=description, done=0, total=total)

    def step(self, done: int, *, last: bool = False) -> None:
        """Report that ``done`` steps are done; left out when the previous report was just now."""
        if last or time.monotonic() - self._reported >= _SHORTEST_INTERVAL:
            self._report(done=done)

    def _report(self, **changes: Any) -> None:
        with self._guard:
            self._progress = replace(self._progress, updated=time.time(), **changes)
            self._newest += 1
            self._changed.notify_all()
        self._reported = time.monotonic()

    def _go_on_publishing(self) -> None:
        while True:
            with self._guard:
                self._changed.wait_for(lambda: self._published < self._newest)
                number, progress = self._newest, self._progress
            with contextlib.suppress(Exception):  # the experiment is told on another way that its testbed is lost
                self._publish(progress)
            with self._guard:
                self._published = number
                self._changed.notify_all()
