"""An experiment as its testbed sees it: a process that is started, watched, and ended in bounded steps."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices._base.standby import all_at_once
from catkit_devices.errors import ProcessDiedError
from catkit_devices.multiprocessing import Process
from catkit_devices.testbed.experiments.main import FINISH, INTERRUPT, STOP, ExperimentOutcome, run_experiment
from catkit_devices.testbed.processes.environment import children_of
from catkit_devices.testbed.processes.finding import suspended

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from catkit_devices.testbed.experiments.experiment import Experiment
    from catkit_devices.testbed.layout import Layout

__all__ = ["RunningExperiment", "time_to_stop"]

_INTERRUPT_TIMEOUT = 5.0
"""Seconds to end after SIGINT, at most ``stop_timeout``."""
_TERMINATE_TIMEOUT = 3.0
"""Seconds to end after SIGTERM, at most ``stop_timeout``."""
_KILL_TIMEOUT = 5.0
"""Seconds to end after SIGKILL: the operating system needs milliseconds."""
_MARGIN = 2.0
"""Additional seconds for carrying out the steps on a busy computer."""
_HEARING = 2.0
"""Seconds for the testbed's server to pass a request to an experiment."""
_END_TIMEOUT, _SILENT_END = 20.0, 0.3
"""Seconds for recording and reporting the end of an experiment; the second value applies if the testbed's server does
not answer."""
_LOOK = 0.05
"""Seconds between two looks whether a request has arrived."""

_STEPS = 4
"""How many steps there are from the request to stop to SIGKILL."""

_log = logging.getLogger(__name__)


def time_to_stop(stop_timeout: float) -> float:
    """Return the seconds in which every experiment that was told to stop has ended or was killed by who started it."""
    return stop_timeout + min(_INTERRUPT_TIMEOUT, stop_timeout) + min(_TERMINATE_TIMEOUT, stop_timeout) + _MARGIN


class _Word:
    """A request that is sent in a thread of its own, since its receiver may hang."""

    def __init__(self, text: str, say: Callable[[], object]) -> None:
        self.text = text
        self._errand = all_at_once({text: say}, "say")[text]

    @property
    def failure(self) -> BaseException | None:
        """What sending raised."""
        return self._errand.failure

    @property
    def done(self) -> bool:
        """Whether it was sent, or sending failed."""
        return self._errand.wait(0.0)

    @property
    def said(self) -> bool:
        """Whether it was sent."""
        return self.done and self.failure is None

    @property
    def age(self) -> float:
        """For how many seconds it has been tried."""
        return time.monotonic() - self._errand.asked

    def wait(self, timeout: float) -> None:
        """Return when it is done, after at most ``timeout`` seconds."""
        self._errand.wait(timeout)


class RunningExperiment:
    """One experiment in its process.

    Args:
        experiment: what runs.
        name: what it is called on this testbed.
        layout: of the testbed.
        run_path: its run directory.
        control: the queue on which it listens.
        on_end: called, in a thread of its own, when its process has ended, before :attr:`alive` tells so.
        silent: returns whether the testbed's server does not answer, so that it is no use to wait for it.
    """

    def __init__(
        self,
        experiment: Experiment,
        name: str,
        layout: Layout,
        run_path: Path,
        control: Any,
        *,
        on_end: Callable[[RunningExperiment], None],
        silent: Callable[[], bool],
    ) -> None:
        self.name = name
        self.kind = type(experiment).__name__
        self.run_path = run_path
        self.daemon = experiment.daemon
        self.outcome: ExperimentOutcome | None = None
        self.error: BaseException | None = None
        self.stopping: str | None = None
        """Why it was told to stop, once it was."""
        self._control = control
        self._layout = layout
        self._stop_timeout = layout.stop_timeout
        self._on_end = on_end
        self._silent = silent
        self._word: _Word | None = None
        """The last request to it, until it was received or the next step was taken."""
        self._deaf = False
        """Whether a request to it was not received."""
        self._steps = self._ways_to_end()
        self._deadline = float("inf")
        self._forced = False
        self._ended = InterruptSafeEvent()
        self._process = Process(target=run_experiment, args=(experiment, name, layout, str(run_path)), name=name)
        self._process.grace = layout.stop_timeout  # it runs its teardown if this process dies
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start its process, which Ctrl-C never reaches."""
        with children_of(self._layout):
            self._process.start()
            # A thread waits for each: the result of a child may be large, and must be read while the child still runs.
            threading.Thread(target=self._collect, name=f"join {self.name}", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Of its process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether its process was started and has not ended."""
        return self._process.pid is not None and not self._ended.is_set()

    @property
    def finished(self) -> bool:
        """Whether it has ended by itself and without an error."""
        return self.outcome is not None and self.outcome.state == "finished"

    def wait(self, timeout: float) -> bool:
        """Return whether it has ended, after at most ``timeout`` seconds."""
        return self._ended.wait(timeout)

    def finish(self) -> None:
        """Tell it to end with its current step; stop it when it has not done so in the time that stopping may take."""
        self._tell(FINISH, "")
        with self._lock:
            if self.stopping is None:
                self.stopping = f"it did not finish in {self._stop_timeout:g} s"
                self._deadline = time.monotonic() + self._stop_timeout

    def stop(self, reason: str) -> None:
        """Begin to end it: it is told to stop, then interrupted, then terminated, then killed, each after its time."""
        with self._lock:
            if len(self._steps) == _STEPS:
                self.stopping = reason
                self._deadline = 0.0
        self.advance()

    def hurry(self) -> None:
        """Take the next step at once; if it cannot even be told to stop, kill it."""
        word = self._word
        deaf = self._deaf or self._silent() or (word is not None and not word.said)
        pid = self._process.pid
        if self.stopping is not None and (deaf or (pid is not None and self.alive and suspended(pid))):
            self._deaf = self._forced = True
            self._process.kill()
            return
        with self._lock:
            if self.stopping is not None:
                self._deadline = 0.0
        self.advance()

    def advance(self) -> None:
        """Take the next step of ending it, when that is due; to be called regularly."""
        self._see_to_word()
        with self._lock:
            if self.stopping is None or not self.alive or time.monotonic() < self._deadline:
                return
            step, time_to_stop = self._steps.pop(0) if self._steps else (self._process.kill, _KILL_TIMEOUT)
            self._deadline = time.monotonic() + time_to_stop
        step()

    def kill(self) -> None:
        """End its process at once; bounded."""
        if self.alive:
            self._forced = True
            self._process.kill()
            self.wait(_KILL_TIMEOUT)

    def _ways_to_end(self) -> list[tuple[Callable[[], None], float]]:
        def interrupt() -> None:
            _log.warning("%s did not stop in %g s: interrupted", self.name, self._stop_timeout)
            self._tell(INTERRUPT, self.stopping or "")

        def terminate() -> None:
            _log.warning("%s (pid %s) did not end when it was interrupted: terminated", self.name, self.pid)
            self._forced = True
            self._process.terminate()

        def kill() -> None:
            _log.warning("%s (pid %s) did not end when it was terminated: killed", self.name, self.pid)
            self._process.kill()

        return [
            (lambda: self._tell(STOP, self.stopping or ""), self._stop_timeout),
            (interrupt, min(_INTERRUPT_TIMEOUT, self._stop_timeout)),
            (terminate, min(_TERMINATE_TIMEOUT, self._stop_timeout)),
            (kill, _KILL_TIMEOUT),
        ]

    def _tell(self, word: str, reason: str) -> None:
        self._word = _Word(word, lambda: self._control.put((word, reason)))

    def _see_to_word(self) -> None:
        """Take the next step if a request could not be sent."""
        word = self._word
        if word is None:
            return
        if word.said:
            self._word = None
        elif word.failure is not None or self._silent() or word.age > _HEARING:
            self._word, self._deaf = None, True
            _log.warning("%s could not be told to %s: %s", self.name, word.text, word.failure or "no answer")
            if word.text == INTERRUPT:
                with self._lock:
                    self._deadline = 0.0
            elif word.text == STOP and os.name == "posix" and self.alive:
                self._process.terminate()  # the first SIGTERM is a request to stop

    def _collect(self) -> None:
        try:
            self._process.join()
            self.outcome = self._process.result
        except ProcessDiedError as error:
            if self._forced:
                self.outcome = ExperimentOutcome("stopped", message=f"{self.stopping}; it had to be ended by force")
            else:
                self.error = error
        except BaseException as error:  # noqa: BLE001 - raised in the program that asks for the results
            self.error = error
        finally:
            told = _Word("end", lambda: self._on_end(self))
            while True:
                if told.done or told.age > (_SILENT_END if self._silent() or self._deaf else _END_TIMEOUT):
                    break
                told.wait(_LOOK)
            self._ended.set()
