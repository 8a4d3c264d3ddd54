"""What every program that is attached to a running testbed can do."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, Self

from catkit_devices._base.html_table import html_table
from catkit_devices._base.plugin_path import make_importable
from catkit_devices._base.timeouts import seconds
from catkit_devices.errors import (
    CatkitDevicesError,
    ConfigurationError,
    RemoteError,
    SafetyError,
    ServerNotFoundError,
    StopExperiment,
    WaitTimeoutError,
)
from catkit_devices.multiprocessing.locks.owner import current_call
from catkit_devices.testbed.devices.devices import Devices
from catkit_devices.testbed.devices.factory import SIMULATION, make_simulation
from catkit_devices.testbed.experiments.experiment_queue import QUEUE
from catkit_devices.testbed.experiments.launch import Launcher
from catkit_devices.testbed.experiments.main import FINISH, STOP, control_queue
from catkit_devices.testbed.experiments.progress import ENDED, EXPERIMENTS, Progress
from catkit_devices.testbed.frames.view import FramesView
from catkit_devices.testbed.processes.audit import entry
from catkit_devices.testbed.processes.finding import LAYOUT
from catkit_devices.testbed.processes.logs import report, send_entries
from catkit_devices.testbed.requests import RESET, SHUTDOWN, ask_testbed
from catkit_devices.testbed.status import ANSWER_TIMEOUT, Looking, states
from catkit_devices.testbed.telemetry.view import TelemetryView
from catkit_devices.testbed.trip import (
    SAFETY_CHECKS,
    SAFETY_EVENT,
    SAFETY_TRIP,
    UNREACHABLE,
    connected,
    trip_of_servers,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from catkit_devices.multiprocessing import SharedMemoryManager, lock_all
    from catkit_devices.testbed.experiments.experiment import Experiment
    from catkit_devices.testbed.layout import Layout
    from catkit_devices.testbed.safety.check import CheckState

__all__ = ["TestbedClient"]

_RESET_TIMEOUT = 100.0
"""Seconds for a reset: every check has to pass once more, and every permit has to be given again."""
_QUEUE_TIMEOUT = 110.0
"""Seconds for a change of the queue: the testbed's process may be busy with a reset."""
_POLL = 0.05
"""Seconds between two looks whether the testbed has ended."""


class TestbedClient:
    """A running testbed, as seen from any process; used as a context manager or not.

    Args:
        layout: of the testbed.
        manager: connected to the testbed's server.
    """

    __test__ = False  # pytest must not take this class for a test because of its name

    def __init__(self, layout: Layout, manager: SharedMemoryManager) -> None:
        self.layout = layout
        make_importable(layout.plugins)  # a device may return an object of a class that its driver defines
        self.devices = Devices(layout)
        """The devices: by attribute, by name or alias in brackets, by what they can do with ``one`` and ``all``."""
        self.manager = manager
        """The testbed's server: mutexes, events, queues and dicts by name."""
        self.telemetry = TelemetryView(layout)
        """The last reading of each quantity that the configuration marks as telemetry: ``telemetry["meter.power"]``."""
        self.frames = FramesView(layout)
        """The frames of each camera that the configuration marks so: ``for frame in testbed.frames["camera"]``."""
        self._looking = Looking(layout, self.devices, self.telemetry, self.frames)
        self._launcher = Launcher(
            layout,
            manager,
            tell=self._tell_plugins,
            reason_to_stop=self._reason_to_stop,
            trip_behind=self._trip_behind,
            reason_behind=self._reason_behind,
        )

    @property
    def name(self) -> str:
        """What the testbed is called."""
        return self.layout.name

    def lock(self, *names: str, timeout: float | None = None) -> lock_all:
        """Lock devices for exclusive use during a block: all of them or none, in an order that never deadlocks.

        ``with`` or ``async with``.

        Args:
            *names: names or aliases of devices.
            timeout: seconds for all of them together; None for the longest of their own.
        """
        return self.devices.lock(*names, timeout=timeout)

    @property
    def simulation(self) -> Any:
        """The simulated instruments, to inject faults, pull cables, or query the model of the bench.

        See :class:`~catkit_devices.simulation.SharedSimulation`.

        Raises:
            ConfigurationError: the instruments of this testbed are real.
        """
        if self.layout.simulation is None:
            raise ConfigurationError(f"the instruments of testbed {self.name!r} are not simulated")
        server = connected(self.layout.simulation.server)
        return server.get_object(SIMULATION, make_simulation, self.layout)

    # --- experiments ------------------------------------------------------------------------------------------------

    def run(
        self,
        *experiments: Experiment,
        stop_all_on_exception: bool = True,
        on_tick: Callable[[], None] | None = None,
    ) -> list[Any]:
        """Run experiments at the same time, each in a process and with a run directory of its own.

        They are children of the calling process. Other programs can run experiments on the testbed at the same time.
        Ctrl-C tells them all to stop and waits for them; a second one makes that quicker. One that does not stop in
        ``stop_timeout`` seconds is interrupted, then terminated, then killed. Afterwards each has its directory as
        ``run_path``.

        Args:
            *experiments: what to run.
            stop_all_on_exception: whether the failure of one stops the others.
            on_tick: called about ten times a second in this thread while it waits, for example to draw ``progress()``.

        Returns:
            What each experiment returned, in order; None for one that was stopped.

        Raises:
            SafetyError: a safety check tripped, before or meanwhile.
            CatkitDevicesError: the testbed was told to end.
            BaseException: what the only one that failed has raised.
            ExceptionGroup: of what several have raised.
            KeyboardInterrupt: Ctrl-C, when everything has stopped.
        """
        return self._launcher.run(experiments, stop_all_on_exception, on_tick)

    def progress(self) -> list[Progress]:
        """Return the progress of every experiment of this testbed, in the order of their starts."""
        return sorted(self._dict(EXPERIMENTS).values(), key=lambda progress: progress.started)

    def stop(self, *names: str, reason: str = "stopped by request") -> None:
        """Tell experiments to stop now; without names, all that run.

        One that was started here and does not end in ``stop_timeout`` seconds is interrupted, then terminated, then
        killed; what others have started is ended by them.
        """
        own = {running.name: running for running in self._launcher.running()}
        for running in own.values():
            if not names or running.name in names:
                running.stop(reason)
                self.note_in_audit_trail("stopped", running.name, reason)
        others = tuple(name for name in names or self._names_running() if name not in own)
        if others:
            self._tell(others, STOP, reason)

    def finish(self, *names: str) -> None:
        """Tell experiments to end with their current step; without names, all that run."""
        self._tell(names or self._names_running(), FINISH, "")

    def queue(self) -> dict[str, Any]:
        """Return the queue of experiments: why it is ``paused`` (None: it is not), and its ``entries``, as plain data.

        ``state`` of an entry is ``waiting``, ``running``, ``finished``, ``failed``, ``stopped``, ``cancelled`` or
        ``cut off`` (the testbed ended while it ran).
        """
        queue: dict[str, Any] = self.manager.get_dict(LAYOUT).get(QUEUE) or {"paused": None, "entries": []}
        return queue

    def change_queue(self, do: str, **what: Any) -> dict[str, Any]:
        """Change the queue of experiments, and return it.

        Args:
            do: ``add`` (``entry``: the fields of a ``QueueEntry``), ``move`` (``numbers``, ``to``: the place among
                those that wait, from 1), ``cancel`` (``numbers``), ``pause`` (``reason``) or ``resume``.
            **what: what it concerns.

        Raises:
            ConfigurationError: it makes no sense, such as a number that is not in the queue.
        """
        queue: dict[str, Any] = ask_testbed(self.manager, QUEUE, json.dumps({"do": do, **what}), _QUEUE_TIMEOUT)
        return queue

    # --- safety -----------------------------------------------------------------------------------------------------

    def checks(self) -> dict[str, CheckState]:
        """Return the state of every safety check."""
        return states(self.safety_facts())

    @property
    def trip(self) -> SafetyError | None:
        """The safety check that tripped, or None while none has tripped."""
        trip: SafetyError | None = self.safety_facts().get(SAFETY_TRIP)
        return trip

    @property
    def safety_event(self) -> Any:
        """The event that a trip of the safety checks sets."""
        return self.manager.get_event(SAFETY_EVENT)

    def safety_facts(self) -> dict[str, Any]:
        """Return what the testbed's server knows: the state of every check, and the trip."""
        return self._dict(SAFETY_CHECKS)

    def reset_safety(self, reason: str = "") -> None:
        """Allow changes again after a trip, once every check has passed.

        Args:
            reason: why, for the logs.

        Raises:
            SafetyError: a check fails again, or a server of the testbed is gone; it stays tripped.
            CatkitDevicesError: nothing has tripped.
        """
        ask_testbed(self.manager, RESET, reason, _RESET_TIMEOUT)

    # --- looking and intervening ------------------------------------------------------------------------------------

    def status(self, timeout: float = ANSWER_TIMEOUT) -> dict[str, Any]:
        """Return devices, experiments, safety checks and messages as plain data.

        What cannot be known says so: a device whose server does not answer, a check that is not read any more.
        ``silent`` lists the processes that do not answer, each with pid and seconds (None: it is gone); ``state`` is
        ``silent`` then, unless it is ``tripped`` or ``ending``.

        Args:
            timeout: seconds for the answers of all servers together.

        Raises:
            ServerUnresponsiveError: the testbed's own server does not answer; names its processes.
        """
        return self._looking.status(timeout)

    def _repr_html_(self) -> str:
        """Return what a notebook shows of a testbed: its state, its devices and who has them."""
        try:
            status = self.status()
        except UNREACHABLE as error:
            return html_table(f"testbed {self.layout.name}: not known: {error}", [], [])
        tripped = status["safety"]["tripped"]
        rows = [
            (name, one["driver"], one["state"], (one["holder"] or {}).get("process"))
            for name, one in status["devices"].items()
        ]
        title = f"testbed {status['name']}: {status['state']}{f', SAFETY TRIPPED: {tripped}' if tripped else ''}"
        return html_table(title, ["device", "driver", "state", "held by"], rows)

    def locks(self) -> list[dict[str, Any]]:
        """Return every mutex, devices' and plain named ones, with who has it and who waits for it.

        If the server of a device does not answer, ``unknown`` says so; else it is None.

        Raises:
            ServerUnresponsiveError: the testbed's own server does not answer; names its processes.
        """
        return self._looking.locks()

    def break_lock(self, name: str, reason: str) -> dict[str, Any] | None:
        """Release a device's mutex, or a plain named one, by force; see ``MutexBrokenError``.

        Args:
            name: of a device (or an alias), else of a mutex on the testbed's server.
            reason: why, for its holder and for the logs.

        Returns:
            Who had it; None when nobody did.

        Raises:
            ConfigurationError: there is neither.
        """
        mutexes = [lock["name"] for lock in self.locks() if lock["server"] == self.layout.server]
        if name in mutexes and name not in self.devices:
            mutex = self.manager.get_mutex(name)
        else:
            device = self.devices.made(name)  # raises if there is no such device
            if device is None:
                return None
            mutex = device.mutex
        holder = mutex.holder
        return holder._asdict() if mutex.break_(reason) is not None and holder is not None else None

    def shutdown(self, reason: str = "", timeout: float = 60.0) -> None:
        """Tell the testbed to end, and wait until it has; it does so in ``run`` and ``serve``.

        Args:
            reason: why, for the logs and for those whose experiments end.
            timeout: seconds.

        Raises:
            WaitTimeoutError: it has not ended.
        """
        from catkit_devices.multiprocessing.wire.endpoint import endpoint

        deadline = time.monotonic() + seconds(timeout, f"the end of testbed {self.name!r}")
        ask_testbed(self.manager, SHUTDOWN, reason, timeout)
        while time.monotonic() < deadline:
            try:
                endpoint(self.layout.server)
            except ServerNotFoundError:
                return
            time.sleep(_POLL)
        raise WaitTimeoutError(f"testbed {self.name!r} has not ended in {timeout:g} s")

    # --- inside -----------------------------------------------------------------------------------------------------

    def known_trip(self) -> SafetyError | None:
        """Return the trip as far as this process knows without asking anybody: in the testbed's own process only."""
        return None

    def _reason_to_stop(self) -> BaseException | None:
        if self.manager.get_dict(LAYOUT).get("ending"):
            return CatkitDevicesError(f"testbed {self.name!r} is ending")
        return self.trip

    def _trip_behind(self) -> SafetyError | None:
        trip = trip_of_servers(self.layout)
        if trip is None:
            with contextlib.suppress(*UNREACHABLE):
                trip = self.trip
        return trip

    def _reason_behind(self) -> BaseException | None:
        return self._reason_to_stop() or trip_of_servers(self.layout)

    def note_in_audit_trail(self, what: str, target: str, reason: str = "", error: BaseException | None = None) -> None:
        """Write down in the audit trail what this process does, or what it does for somebody else.

        Args:
            what: was done: a participle.
            target: a device, an experiment, ``safety``, ``the testbed``.
            reason: that was given for it.
            error: why it failed.
        """
        with contextlib.suppress(*UNREACHABLE):  # what is done does not depend on it
            send_entries(self.layout.server, [entry(current_call(), what, target, reason=reason, error=error)])

    def _tell_plugins(self, event: str, text: str, facts: dict[str, Any]) -> None:
        """Have the testbed's process tell its plugins what happened here."""
        error = facts.get("error")
        if error is not None and not isinstance(error, (SafetyError, StopExperiment)):
            facts = {**facts, "error": RemoteError(type(error).__qualname__, str(error))}
        report(self.manager, text, event, facts)

    def _tell(self, names: tuple[str, ...], word: str, reason: str) -> None:
        running = self._names_running()
        for name in names:
            if name not in running:
                raise CatkitDevicesError(
                    f"testbed {self.name!r} runs no experiment {name!r}, it runs {', '.join(running) or 'none'}"
                )
            self.manager.get_queue(control_queue(name)).put((word, reason))
            self.note_in_audit_trail("stopped", name, reason or "after its current step")

    def _names_running(self) -> tuple[str, ...]:
        return tuple(progress.name for progress in self.progress() if progress.state not in ENDED)

    def _dict(self, name: str) -> dict[Any, Any]:
        copy: dict[Any, Any] = self.manager.get_dict(name).copy()
        return copy

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the testbed as it is: it belongs to the process that started it."""
