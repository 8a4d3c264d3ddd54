"""What runs in the process of an experiment, from its start to its end."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from catkit_devices._base.deferred import Watched, done
from catkit_devices._base.process_title import set_title
from catkit_devices.datalog import Run
from catkit_devices.datalog.directory import SETTINGS
from catkit_devices.errors import CatkitDevicesError, StopExperiment, in_one_line
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.multiprocessing.process.process import in_every_child
from catkit_devices.testbed.devices.devices import Devices
from catkit_devices.testbed.experiments.experiment import Context
from catkit_devices.testbed.experiments.progress import EXPERIMENTS, Progress, Reporter
from catkit_devices.testbed.experiments.settings import settings_of_all
from catkit_devices.testbed.experiments.snapshots import Snapshots
from catkit_devices.testbed.experiments.stop import StopGuard
from catkit_devices.testbed.experiments.watchdog import WARDEN
from catkit_devices.testbed.frames.view import FramesView
from catkit_devices.testbed.processes.finding import SILENT
from catkit_devices.testbed.trip import SAFETY_CHECKS, SAFETY_EVENT, SAFETY_TRIP, UNREACHABLE

if TYPE_CHECKING:
    from catkit_devices.testbed.experiments.experiment import Experiment
    from catkit_devices.testbed.layout import Layout

__all__ = ["FINISH", "INTERRUPT", "STOP", "ExperimentOutcome", "control_queue", "run_experiment"]

STOP = "stop"
"""Sent to an experiment: raise ``StopExperiment``."""
FINISH = "finish"
"""Sent to an experiment: end with the current step."""
INTERRUPT = "interrupt"
"""Sent to an experiment: somebody has pressed Ctrl-C."""

_SETTINGS_TIMEOUT = 2.0
"""Seconds for the settings of all devices at the start and at the end: so much longer takes a run, at most."""
_LATE_SETTINGS_TIMEOUT = 0.5
"""The same at the end of a run that failed or was stopped: somebody may be waiting for its end."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExperimentOutcome:
    """How an experiment ended that did not fail."""

    state: Literal["finished", "stopped"]
    result: Any = None
    message: str = ""


def control_queue(experiment: str) -> str:
    """Return the name of the queue on which an experiment is told to stop, to finish, or is interrupted."""
    return f"control.{experiment}"


def run_experiment(experiment: Experiment, name: str, layout: Layout, run_path: str) -> ExperimentOutcome:
    """Run an experiment in this process, from beginning to end.

    Args:
        experiment: what to run.
        name: what it is called on this testbed.
        layout: of the testbed.
        run_path: its run directory, which exists.

    Raises:
        Exception: what the experiment raised.
    """
    set_title(name)
    # A SharedMemoryManager that the experiment makes itself uses the server of its testbed.
    os.environ["CATKIT_DEVICES_SERVER"] = layout.server
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what it prints into a file or a pipe then appears at once
    with StopGuard() as guard:
        manager = SharedMemoryManager(layout.server)
        manager.connect()
        progress = manager.get_dict(EXPERIMENTS)
        start = Progress(name, pid=os.getpid(), run=run_path)
        reporter = Reporter(
            start,
            lambda report: progress.__setitem__(name, report),
            silent=lambda: manager.silence > SILENT,
        )
        manager.get_object(WARDEN).enlist(name)
        _listen(guard, manager, name)
        _heed_safety(guard, manager)
        with Run.open(run_path) as run:
            root = logging.getLogger()
            root.addHandler(run.handler)
            root.setLevel(logging.INFO)
            in_every_child(log_to_run, run_path)
            context = Context(
                name=name,
                testbed=layout.name,
                devices=Devices(layout),
                manager=manager,
                run=run,
                reporter=reporter,
                finishing=guard.finishing,
                frames=FramesView(layout),
                not_asked=layout.not_asked(),
            )
            snapshots = Snapshots(layout, context.devices, run)
            try:
                return _run(experiment, context, guard, snapshots)
            finally:
                root.removeHandler(run.handler)


def log_to_run(run_path: str) -> None:
    """Have this process, a child of an experiment's, log into the run of that experiment."""
    from catkit_devices.datalog.logfile import FILE_NAME, LogFileHandler

    root = logging.getLogger()
    root.addHandler(LogFileHandler(Path(run_path) / FILE_NAME))
    root.setLevel(logging.INFO)


def _run(experiment: Experiment, context: Context, guard: StopGuard, snapshots: Snapshots) -> ExperimentOutcome:
    experiment._run_in_(context)
    context.reporter.state("running")
    _log.info("%s started", context.name)
    _keep_settings(context, "start", _SETTINGS_TIMEOUT)
    snapshots.start()
    try:
        try:
            outcome = _work(experiment, guard)
        except BaseException as error:
            _tear_down_after(error, experiment, context, guard)
            raise
        guard.disarm()
        context.reporter.state("teardown")
        _do(experiment, "teardown")
        _end_recordings(context)
    except BaseException as error:
        snapshots.end()
        _log.exception("%s failed", context.name)
        # The first error is raised, even if reporting it to the testbed fails.
        with contextlib.suppress(CatkitDevicesError):
            _end(context, "failed", in_one_line(error))
        raise
    snapshots.end()
    _log.info("%s %s%s", context.name, outcome.state, f": {outcome.message}" if outcome.message else "")
    _end(context, outcome.state, outcome.message)
    return outcome


def _work(experiment: Experiment, guard: StopGuard) -> ExperimentOutcome:
    try:
        try:
            guard.arm()
            _do(experiment, "pre_experiment")
            result = _do(experiment, "experiment")
            while True:
                if not experiment.run_forever or guard.finishing.is_set():
                    break
                result = _do(experiment, "experiment")
            _do(experiment, "post_experiment")
        finally:
            guard.disarm()
    except (StopExperiment, KeyboardInterrupt) as request:
        return ExperimentOutcome("stopped", message=str(request))
    return ExperimentOutcome("finished", result)


def _do(experiment: Experiment, step: str) -> Any:
    what = f"{type(experiment).__qualname__}.{step}"
    with Watched(what):
        return done(getattr(experiment, step)(), what)


def _tear_down_after(error: BaseException, experiment: Experiment, context: Context, guard: StopGuard) -> None:
    guard.disarm()
    try:
        with contextlib.suppress(CatkitDevicesError):
            context.reporter.state("teardown")
        _do(experiment, "teardown")
    except BaseException as another:  # noqa: BLE001 - noted on the error that is raised
        _log.exception("%s: teardown failed as well", context.name)
        error.add_note(f"teardown failed as well: {in_one_line(another)}")
    try:
        _end_recordings(context)
    except CatkitDevicesError as another:
        error.add_note(f"recording frames failed as well: {in_one_line(another)}")


def _end_recordings(context: Context) -> None:
    """End what still records frames; raises the first error when all have ended."""
    failures: list[CatkitDevicesError] = []
    for recording in context.recordings:
        try:
            recording.stop()
        except CatkitDevicesError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _end(context: Context, state: Literal["finished", "failed", "stopped"], message: str) -> None:
    # Not before `teardown`, because that switches off what has to be off.
    _keep_settings(context, "end", _SETTINGS_TIMEOUT if state == "finished" else _LATE_SETTINGS_TIMEOUT)
    context.run.set_outcome(state, message)
    context.reporter.state(state, message)


def _keep_settings(context: Context, when: Literal["start", "end"], limit: float) -> None:
    """Keep the settings of all open devices in the run; what is missing is told in its log, and nothing fails."""
    try:
        settings = settings_of_all(context.devices, context.testbed, limit, context.not_asked)
        for name, device in settings["devices"].items():
            if device["problem"] is not None and name not in context.not_asked:
                _log.warning("not all settings of %r are in %s: %s", name, SETTINGS[when], device["problem"])
        context.run.keep_settings(when, settings)
    except Exception as error:  # noqa: BLE001 - whatever it is, the run is worth more than this
        _log.warning("the settings of the devices are not in %s: %s", SETTINGS[when], in_one_line(error))


def _listen(guard: StopGuard, manager: SharedMemoryManager, name: str) -> None:
    queue = manager.get_queue(control_queue(name))

    def listen() -> None:
        while True:
            try:
                word, reason = queue.get()
            except UNREACHABLE as error:
                guard.stop(f"the testbed's server is lost: {error}")
                return
            if word == FINISH:
                guard.finishing.set()
            elif word == INTERRUPT:
                guard.interrupt(reason)
            else:
                guard.stop(reason, told=True)

    threading.Thread(target=listen, name="control", daemon=True).start()


def _heed_safety(guard: StopGuard, manager: SharedMemoryManager) -> None:
    """Stop at a trip of the safety checks, also if the testbed's process has died and cannot tell it to stop."""
    event = manager.get_event(SAFETY_EVENT)

    def wait() -> None:
        try:
            event.wait()
            guard.stop(str(manager.get_dict(SAFETY_CHECKS).get(SAFETY_TRIP)))
        except UNREACHABLE:
            return  # the thread that listens to the control queue reports the loss

    threading.Thread(target=wait, name="safety", daemon=True).start()
