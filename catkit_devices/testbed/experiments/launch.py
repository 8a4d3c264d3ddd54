"""Starting experiments on a testbed, each in a process of its own, and waiting for them."""

from __future__ import annotations

import contextlib
import inspect
import logging
import queue
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from catkit_devices.errors import CatkitDevicesError, ConfigurationError, StopExperiment, in_one_line
from catkit_devices.testbed.experiments.batch import Batch
from catkit_devices.testbed.experiments.child import RunningExperiment, time_to_stop
from catkit_devices.testbed.experiments.main import control_queue
from catkit_devices.testbed.experiments.progress import ENDED, EXPERIMENTS, Progress
from catkit_devices.testbed.experiments.watchdog import WARDEN
from catkit_devices.testbed.processes.finding import LAYOUT, SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from catkit_devices.errors import SafetyError
    from catkit_devices.multiprocessing import SharedMemoryManager
    from catkit_devices.testbed.experiments.experiment import Experiment
    from catkit_devices.testbed.layout import Layout

__all__ = ["Launcher"]

_REMEMBERED = 100
"""How many experiments that have ended are still shown."""

_log = logging.getLogger(__name__)


class Launcher:
    """Runs experiments as children of this process.

    Args:
        layout: of the testbed.
        manager: of the testbed's server.
        tell: called with the kind and the facts of what plugins are told: beginning and end of each.
        reason_to_stop: called about ten times a second while some run; the error that it returns stops them all, and is
            raised.
        trip_behind: called when one has not ended well; returns the trip, if there is one, also if this process did not
            know of it yet.
        reason_behind: called when some have not ended well; see :class:`.Batch`.
    """

    def __init__(
        self,
        layout: Layout,
        manager: SharedMemoryManager,
        *,
        tell: Callable[[str, str, dict[str, Any]], None],
        reason_to_stop: Callable[[], BaseException | None],
        trip_behind: Callable[[], SafetyError | None],
        reason_behind: Callable[[], BaseException | None],
    ) -> None:
        self._layout = layout
        self._manager = manager
        self._tell = tell
        self._reason_to_stop = reason_to_stop
        self._trip_behind = trip_behind
        self._reason_behind = reason_behind
        self._running: list[RunningExperiment] = []
        self._guard = threading.Lock()

    def run(
        self, experiments: tuple[Experiment, ...], stop_all_on_exception: bool, on_tick: Callable[[], None] | None
    ) -> list[Any]:
        """Run experiments at the same time; see ``TestbedClient.run``."""
        reason = self._reason_to_stop()
        if reason is not None:
            raise reason
        started: list[RunningExperiment] = []
        batch = Batch(
            started,
            stop_all_on_exception=stop_all_on_exception,
            on_tick=on_tick,
            reason_to_stop=self._reason_to_stop,
            reason_behind=self._reason_behind,
            time_to_stop=time_to_stop(self._layout.stop_timeout),
        )
        try:
            for experiment in experiments:
                self._launch(experiment, started)
            batch.wait()
        except BaseException as error:
            batch.end(error)
            raise
        finally:
            with ExitStack() as ends:
                for running in started:
                    ends.callback(running.kill)
            with self._guard:
                self._running = [running for running in self._running if running not in started]
        return batch.results()

    def running(self) -> list[RunningExperiment]:
        """Return those that run."""
        with self._guard:
            return [running for running in self._running if running.alive]

    def _launch(self, experiment: Experiment, started: list[RunningExperiment]) -> None:
        kind = type(experiment).__name__
        wanted = experiment.name or kind
        reserved: list[str] = []
        path: Path | None = None
        running: RunningExperiment | None = None
        try:
            name = self._reserve(wanted, reserved)
            # Its runs are found under the name that was asked for; the number is added for this testbed only.
            path = experiment.run_path = self._make_run(experiment, wanted)
            experiments = self._manager.get_dict(EXPERIMENTS)
            experiments[name] = replace(experiments[name], run=str(path))
            control = self._manager.get_queue(control_queue(name))
            with contextlib.suppress(queue.Empty):
                while True:  # requests that an earlier experiment of that name did not receive
                    control.get_nowait()
            running = RunningExperiment(
                experiment,
                name,
                self._layout,
                path,
                control,
                on_end=self._ended,
                silent=lambda: self._manager.silence > SILENT,
            )
            with self._guard:
                self._running.append(running)
            started.append(running)
            running.start()
        except BaseException as error:
            if reserved and (running is None or not running.alive):
                self._not_started(reserved[0], path, error)
            raise
        self._tell("experiment_started", f"{name} started", {"experiment": kind, "run": path})

    def _make_run(self, experiment: Experiment, name: str) -> Path:
        from catkit_devices.datalog import Run

        with Run.create(
            Path(self._layout.runs),
            name,
            configuration=self._manager.get_dict(LAYOUT)["configuration"],
            parameters={parameter: getattr(experiment, parameter) for parameter in experiment.parameters()},
            source=_source(experiment),
        ) as run:
            return run.path

    def _not_started(self, name: str, path: Path | None, error: BaseException) -> None:
        """Record that an experiment failed before its process ran, for example if its parameters cannot be pickled."""
        error.add_note(f"experiment {name!r} was not started")
        try:
            self._conclude(name, path, "failed", f"not started: {in_one_line(error)}")
        except CatkitDevicesError as another:
            _log.warning("that %s was not started could not be recorded: %s", name, another)

    def _reserve(self, wanted: str, reserved: list[str]) -> str:
        """Return a name that no other experiment of this testbed has, and enter it among them.

        Args:
            wanted: which name, if it is free; else it gets a number.
            reserved: receives the name before it is entered: Ctrl-C may come before this has returned.
        """
        experiments = self._manager.get_dict(EXPERIMENTS)
        with experiments:
            taken = experiments.copy()
            for name in _forgotten(taken.values()):
                del experiments[name], taken[name]
                with contextlib.suppress(ConfigurationError):  # its process still exists: try again next time
                    self._manager.forget(self._manager.get_queue(control_queue(name)))
            names = (wanted, *(f"{wanted}-{number}" for number in range(2, len(taken) + 3)))
            name = next(name for name in names if name not in taken)
            reserved.append(name)
            # First, because then the testbed's server marks the experiment as failed if this process dies.
            self._manager.get_object(WARDEN).expect(name)
            experiments[name] = Progress(name, started=time.time())
        return name

    def _ended(self, running: RunningExperiment) -> None:
        """Report that an experiment has ended; record how, if its process could not record it itself."""
        facts = {"experiment": running.kind, "run": running.run_path, "error": self._why(running)}
        try:
            self._tell("experiment_finished", f"{running.name} ended", facts)
            if self._manager.get_dict(EXPERIMENTS)[running.name].state in ENDED:
                return
            state: Literal["failed", "stopped"] = "failed" if running.error is not None else "stopped"
            message = str(running.error or (running.outcome.message if running.outcome else ""))
            self._conclude(running.name, running.run_path, state, message)
        except CatkitDevicesError as error:
            _log.warning("the end of %s could not be recorded: %s", running.name, error)

    def _why(self, running: RunningExperiment) -> BaseException | None:
        """Return why an experiment has not run to its end, if it has not; a trip is known and told by then."""
        if running.finished:
            return None
        trip = self._trip_behind()
        message = "" if running.outcome is None else running.outcome.message
        return trip or running.error or StopExperiment(message)  # the same error as `run` raises

    def _conclude(self, name: str, path: Path | None, state: Literal["failed", "stopped"], message: str) -> None:
        """Write down how an experiment ended, for everybody and in its run directory, if it has one."""
        from catkit_devices.datalog import Run

        experiments = self._manager.get_dict(EXPERIMENTS)
        known = experiments.get(name, Progress(name, started=time.time()))
        experiments[name] = replace(known, state=state, message=message, updated=time.time())
        if path is not None:
            with Run.open(path) as run:
                run.set_outcome(state, message)


def _source(experiment: Experiment) -> str | None:
    try:
        return inspect.getfile(type(experiment))
    except (OSError, TypeError):  # defined at a prompt or in a notebook
        return None


def _forgotten(known: Iterable[Progress]) -> list[str]:
    """Return the names of experiments that ended so long ago that nobody asks for them; their names are free again."""
    ended = sorted((one for one in known if one.state in ENDED), key=lambda one: one.updated)
    return [one.name for one in ended[:-_REMEMBERED]]
