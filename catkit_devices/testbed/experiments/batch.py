"""Experiments that were started together: waiting for them, and what happens to the others when one fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from catkit_devices._base.deferred import refuse_deferred
from catkit_devices.errors import in_one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.testbed.experiments.child import RunningExperiment

__all__ = ["Batch"]

_TICK = 0.1
"""Seconds between two looks at the experiments, so that Ctrl-C is noticed."""


class Batch:
    """Waits for experiments in the calling thread.

    Args:
        experiments: those that were started; may grow until :meth:`wait` is called.
        stop_all_on_exception: whether the failure of one stops the others.
        on_tick: called about ten times a second while waiting.
        reason_to_stop: called as often; the error that it returns stops all of them, and is raised in the end.
        reason_behind: called when all have ended and at least one was stopped or has failed: like ``reason_to_stop``,
            but it first finds out what has happened and is not known here yet.
        time_to_stop: seconds in which all of them end once they were told to.
    """

    def __init__(
        self,
        experiments: list[RunningExperiment],
        *,
        stop_all_on_exception: bool,
        on_tick: Callable[[], None] | None,
        reason_to_stop: Callable[[], BaseException | None],
        reason_behind: Callable[[], BaseException | None],
        time_to_stop: float,
    ) -> None:
        self.reason: BaseException | None = None
        """Why all of them were stopped."""
        self._reason_to_stop = reason_to_stop
        self._reason_behind = reason_behind
        self._time_to_stop = time_to_stop
        self._experiments = experiments
        self._stop_all_on_exception = stop_all_on_exception
        refuse_deferred(on_tick, "on_tick")
        self._on_tick = on_tick

    def wait(self) -> None:
        """Return when all have ended."""
        finishing = False
        while alive := self._alive():
            alive[0].wait(_TICK)
            for running in alive:
                running.advance()
            self._stop_for_a_reason(alive)
            failed = next((running for running in self._experiments if running.error is not None), None)
            if failed is not None and self._stop_all_on_exception:
                for running in alive:
                    if running.stopping is None:
                        running.stop(f"{failed.name} failed")
            if not finishing and all(running.daemon for running in alive):
                finishing = True
                for running in alive:
                    running.finish()
            if self._on_tick is not None:
                self._on_tick()
        # They may have learnt of a trip earlier than this process. If all of them have ended normally, the trip is not
        # reported as the reason.
        if self.reason is None and not all(running.finished for running in self._experiments):
            self.reason = self._reason_behind()

    def _stop_for_a_reason(self, alive: list[RunningExperiment]) -> None:
        if self.reason is None:
            self.reason = self._reason_to_stop()
        if self.reason is not None:
            for running in alive:
                running.stop(str(self.reason))

    def end(self, error: BaseException) -> None:
        """End all that still run, in bounded steps; Ctrl-C meanwhile makes the steps quicker."""
        reason = "Ctrl-C" if isinstance(error, KeyboardInterrupt) else in_one_line(error)
        deadline = time.monotonic() + self._time_to_stop
        told = False
        while (alive := self._alive()) and time.monotonic() < deadline:
            try:
                for running in alive:
                    if not told:
                        running.stop(reason)
                    running.advance()
                told = True
                alive[0].wait(_TICK)
                if self._on_tick is not None and isinstance(error, KeyboardInterrupt):
                    self._on_tick()
            except KeyboardInterrupt:
                for running in alive:
                    running.hurry()

    def results(self) -> list[Any]:
        """Return what each returned, in order; raise why all were stopped, or what failed."""
        failures = [running.error for running in self._experiments if running.error is not None]
        if self.reason is not None:
            for failure in failures:
                self.reason.add_note(f"meanwhile: {in_one_line(failure)}")
            raise self.reason
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise BaseExceptionGroup(f"{len(failures)} experiments failed", failures)
        return [None if running.outcome is None else running.outcome.result for running in self._experiments]

    def _alive(self) -> list[RunningExperiment]:
        return [running for running in self._experiments if running.alive]
