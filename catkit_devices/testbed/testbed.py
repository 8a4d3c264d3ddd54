"""The testbed: servers, devices, safety monitor and experiments, started together and ended together."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from catkit_devices.errors import CatkitDevicesError, SafetyError, ServerRunningError
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.testbed.batch import Batch
from catkit_devices.testbed.client import LAYOUT, TestbedClient, find_testbed
from catkit_devices.testbed.closing import close_devices
from catkit_devices.testbed.layout import lay_out
from catkit_devices.testbed.logs import LogCollector, forward_logs, write_to_runs
from catkit_devices.testbed.notifications import Notifier
from catkit_devices.testbed.progress import ENDED, EXPERIMENTS, Progress, State
from catkit_devices.testbed.running import control_queue
from catkit_devices.testbed.safety import safety_tests
from catkit_devices.testbed.signals import deferred, kept_from_children
from catkit_devices.testbed.supervision import RunningExperiment
from catkit_devices.testbed.watch import SafetyWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from catkit_devices.testbed.configuration import Configuration
    from catkit_devices.testbed.experiment import Experiment

__all__ = ["Testbed"]

_log = logging.getLogger(__name__)


class Testbed(TestbedClient):
    """A testbed of one's own, for the duration of a ``with`` block.

    ::

        with Testbed(load_configuration(["bench.toml"])) as testbed:
            scan, loop = testbed.run(FilterScan(repeats=5), ClosedLoop())

    Entering starts the device servers and the safety monitor; every safety check has passed once when it returns.
    Leaving, however that comes about, ends what runs, makes every device safe and closes it, last made first, each
    within a bounded time, and ends every process that was started. Ctrl-C is this process's business alone: its
    children never see it.

    Args:
        configuration: what the testbed consists of.
        simulate: whether its instruments are simulated; None for what the configuration says.
        runs: directory that receives one directory per run; None for what the configuration says.

    Raises:
        SafetyError: (entering) a safety check failed at the start; (``run`` and leaving) one tripped.
        ConfigurationError: (entering) something cannot be made from the configuration.
    """

    def __init__(
        self, configuration: Configuration, *, simulate: bool | None = None, runs: Path | str | None = None
    ) -> None:
        wanted = configuration.testbed.simulate if simulate is None else simulate
        self.configuration = configuration.model_copy(
            update={"testbed": configuration.testbed.model_copy(update={"simulate": wanted})}
        )
        self.runs = Path(runs if runs is not None else configuration.testbed.runs)
        self._cleanup = contextlib.ExitStack()
        self._managers: list[SharedMemoryManager] = []
        self._running: list[RunningExperiment] = []
        self._running_lock = threading.Lock()
        self._watch: SafetyWatch | None = None
        self._trip_raised = False
        self._notifier: Notifier | None = None

    @staticmethod
    def attach(name: str) -> TestbedClient:
        """Join the running testbed of that name, from any process of the same user.

        Raises:
            ServerNotFoundError: none is running, or several are; names those that are.
        """
        return TestbedClient(*find_testbed(name))

    def __getattr__(self, name: str) -> Any:
        if name in {"layout", "devices", "manager"}:
            raise AttributeError(f"this testbed does not run, so it has no {name}: use it in a `with` block")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # --- beginning and end ------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException as error:
            with deferred():
                self._end(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with deferred():
            self._end(error)

    def _start(self) -> None:
        self._notifier = Notifier(self.configuration.plugins(), self.configuration.testbed.name)
        self._cleanup.callback(self._notifier.end)
        manager = self._start_server()
        collector = LogCollector(manager, lambda: [running.run_path for running in self._still_running()])
        self._cleanup.callback(collector.end)
        layout = lay_out(self.configuration, manager.name, simulate=self.configuration.testbed.simulate)
        super().__init__(layout, manager)
        for server in layout.device_servers:
            self._start_manager(SharedMemoryManager(server), manager.name)
        manager.get_dict(LAYOUT)["layout"] = layout
        tests = safety_tests(self.configuration)
        if tests:
            self._watch = SafetyWatch(layout, manager, self.devices, tests, on_trip=self._act_on_trip)
            self._cleanup.callback(self._watch.end)
            self._watch.start()

    def _start_server(self) -> SharedMemoryManager:
        base = f"{self.configuration.testbed.name}-{os.getpid()}"
        for number in range(1, 1000):
            # Several testbeds of one name may run at once, also in one process.
            manager = SharedMemoryManager(base if number == 1 else f"{base}_{number}")
            try:
                return self._start_manager(manager, manager.name)
            except ServerRunningError:
                continue
        raise ServerRunningError(f"no free name for a server like {base!r}", server=base)

    def _start_manager(self, manager: SharedMemoryManager, server: str) -> SharedMemoryManager:
        with kept_from_children():
            manager.start(forward_logs, (server,))
            self._managers.append(manager)  # a manager that nobody keeps ends its server
            self._cleanup.callback(manager.shutdown)
        return manager

    def _end(self, error: BaseException | None) -> None:
        """End everything that was started; what fails on the way does not keep the rest from being ended."""
        failures: list[BaseException] = []
        for running in self._still_running():
            running.kill()
        if self._watch is not None:
            self._watch.end()
        if hasattr(self, "layout"):
            started = {manager.name for manager in self._managers}
            entries = [entry for entry in self.layout.devices if entry.server in started]
            failures += close_devices(self.devices, entries, self.configuration.testbed.close_timeout)
        try:
            self._cleanup.close()
        except Exception as unexpected:  # noqa: BLE001 - raised below
            failures.append(unexpected)
        trip = None if self._watch is None else self._watch.trip
        if trip is not None and not self._trip_raised and trip is not error:
            failures.insert(0, trip)
        if error is not None:
            for failure in failures:
                error.add_note(f"on the way out: {type(failure).__name__}: {failure}")
        elif len(failures) == 1:
            raise failures[0]
        elif failures:
            raise BaseExceptionGroup(f"testbed {self.configuration.testbed.name!r} did not end well", failures)

    # --- experiments ------------------------------------------------------------------------------------------------

    def run(
        self,
        *experiments: Experiment,
        stop_all_on_exception: bool = True,
        on_tick: Callable[[], None] | None = None,
    ) -> list[Any]:
        """Run experiments at the same time, each in a process and with a run directory of its own.

        Ctrl-C tells them all to stop and waits for them; a second one makes that quicker. One that does not stop in
        ``stop_timeout`` seconds is interrupted, then terminated, then killed.

        Args:
            *experiments: what to run.
            stop_all_on_exception: whether the failure of one stops the others.
            on_tick: called about ten times a second meanwhile, in this thread, to draw what ``progress()`` tells.

        Returns:
            What each experiment returned, in order; None for one that was stopped.

        Raises:
            SafetyError: a safety check tripped, before or meanwhile.
            BaseException: what the only one that failed has raised.
            ExceptionGroup: of what several have raised.
            KeyboardInterrupt: Ctrl-C, when everything has stopped.
        """
        self._raise_trip()
        started: list[RunningExperiment] = []
        batch = Batch(started, stop_all_on_exception=stop_all_on_exception, on_tick=on_tick)
        try:
            for experiment in experiments:
                self._launch(experiment, started)
            batch.wait()
        except BaseException as error:
            batch.end(error)
            raise
        finally:
            for running in started:
                running.kill()
            with self._running_lock:
                self._running = [running for running in self._running if running not in started]
        self._raise_trip([running.error for running in started if running.error is not None])
        return batch.results()

    def stop(self, *names: str, reason: str = "stopped by request") -> None:
        """Tell experiments to stop now; without names, all that run.

        One that does not end in ``stop_timeout`` seconds is interrupted, then terminated, then killed.
        """
        own = self._still_running()
        for running in own:
            if not names or running.name in names:
                running.stop(reason)
        others = [name for name in names if all(name != running.name for running in own)]
        if others:
            super().stop(*others, reason=reason)

    def _launch(self, experiment: Experiment, started: list[RunningExperiment]) -> None:
        from catkit_devices.datalog import Run

        progress = self.manager.get_dict(EXPERIMENTS)
        name = _free_name(experiment.name or type(experiment).__name__, self._dict(EXPERIMENTS))
        with Run.create(
            self.runs,
            name,
            configuration=self.configuration.model_dump(mode="json"),
            parameters={parameter: getattr(experiment, parameter) for parameter in experiment.parameters()},
            source=_source(experiment),
        ) as run:
            path = run.path
        progress[name] = Progress(name, run=str(path), started=time.time())
        running = RunningExperiment(
            experiment,
            name,
            self.layout,
            path,
            self.manager.get_queue(control_queue(name)),
            stop_timeout=self.configuration.testbed.stop_timeout,
            on_end=self._record_end,
        )
        with self._running_lock:
            self._running.append(running)
        started.append(running)
        running.start()
        self._notify("experiment_started", experiment=type(experiment).__name__, run=path)

    def _record_end(self, running: RunningExperiment) -> None:
        """Tell that an experiment has ended, and write down how where its process could not do that itself."""
        from catkit_devices.datalog import Run

        self._notify("experiment_finished", experiment=running.kind, run=running.run_path, error=running.error)
        try:
            experiments = self.manager.get_dict(EXPERIMENTS)
            progress: Progress = experiments[running.name]
            if progress.state in ENDED:
                return
            state: State = "failed" if running.error is not None else "stopped"
            message = str(running.error or (running.outcome.message if running.outcome else ""))
            experiments[running.name] = replace(progress, state=state, message=message, updated=time.time())
            with Run.open(running.run_path) as run:
                run.set_outcome(state, message)
        except CatkitDevicesError as error:
            _log.warning("the end of %s could not be recorded: %s", running.name, error)

    def _still_running(self) -> list[RunningExperiment]:
        with self._running_lock:
            return [running for running in self._running if running.alive]

    def _act_on_trip(self, trip: SafetyError) -> None:
        for running in self._still_running():
            running.stop(str(trip))
        record = _log.makeRecord(_log.name, logging.CRITICAL, __file__, 0, str(trip), (), None)
        write_to_runs(record, [running.run_path for running in self._still_running()])
        self._notify("safety_tripped", check=trip.check, problem=trip.problem)

    def _notify(self, hook: str, **facts: Any) -> None:
        if self._notifier is not None:
            self._notifier.tell(hook, **facts)

    def _raise_trip(self, failures: list[BaseException] | None = None) -> None:
        trip = None if self._watch is None else self._watch.trip
        if trip is None:
            return
        self._trip_raised = True
        for failure in failures or ():
            trip.add_note(f"meanwhile: {type(failure).__name__}: {failure}")
        raise trip


def _source(experiment: Experiment) -> str | None:
    try:
        return inspect.getfile(type(experiment))
    except (OSError, TypeError):  # defined at a prompt or in a notebook
        return None


def _free_name(wanted: str, taken: dict[str, Any]) -> str:
    if wanted not in taken:
        return wanted
    return next(name for number in range(2, len(taken) + 3) if (name := f"{wanted}-{number}") not in taken)
