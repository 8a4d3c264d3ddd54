"""The testbed: servers, devices, safety monitor and experiments, started together and ended together."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices._base.deferred import refuse_deferred
from catkit_devices.errors import CatkitDevicesError, SafetyError, ServerUnresponsiveError, in_one_line
from catkit_devices.testbed.alerts import Alerts
from catkit_devices.testbed.client import TestbedClient
from catkit_devices.testbed.closing import close_devices, end_other_experiments
from catkit_devices.testbed.configuration.layout_factory import lay_out
from catkit_devices.testbed.experiments.child import time_to_stop
from catkit_devices.testbed.experiments.experiment_queue import QUEUE, ExperimentQueue
from catkit_devices.testbed.experiments.progress import ENDED
from catkit_devices.testbed.experiments.watchdog import WARDEN, Warden
from catkit_devices.testbed.frames.publisher import end_frames
from catkit_devices.testbed.notifications import Notifier
from catkit_devices.testbed.processes.finding import LAYOUT, SILENT, find_testbed, suspended
from catkit_devices.testbed.processes.log_files import LogFiles
from catkit_devices.testbed.processes.logs import LogCollector
from catkit_devices.testbed.processes.signals import deferred, ended_by_signals
from catkit_devices.testbed.requests import RESET, SHUTDOWN, Requests
from catkit_devices.testbed.safety.check import safety_tests
from catkit_devices.testbed.safety.monitor import MONITOR
from catkit_devices.testbed.servers import Servers
from catkit_devices.testbed.telemetry.historian import Historian
from catkit_devices.testbed.telemetry.history import TRIP
from catkit_devices.testbed.trip import UNREACHABLE, at_once, connected, permit_of
from catkit_devices.testbed.watch import TESTBED, SafetyWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from catkit_devices.testbed.configuration.model import Configuration
    from catkit_devices.testbed.experiments.experiment import Experiment
    from catkit_devices.testbed.layout import Layout

__all__ = ["Testbed"]

_log = logging.getLogger(__name__)

_TICK = 0.1
"""Seconds between two looks whether the testbed is to end, so that Ctrl-C is noticed."""
_END_TIMEOUT = 5.0
"""Seconds for telling every server that the testbed ends."""
_HURRY = 1.5
"""Seconds for the testbed's own server to answer after Ctrl-C."""
_DEAF = (TimeoutError, ServerUnresponsiveError)
"""Errors that mean that a server does not answer."""
_TOLD_TO_END = (KeyboardInterrupt, SystemExit)
"""Errors with which a block ends because the program was told to end: Ctrl-C, SIGTERM, the end of the terminal."""


class Testbed(TestbedClient):
    """A testbed that this program starts, for the duration of a ``with`` block.

    ::

        with Testbed(load_configuration(["bench.toml"])) as testbed:
            scan, loop = testbed.run(FilterScan(repeats=5), ClosedLoop())

    Entering starts the device servers and the safety monitor; every safety check has passed once when it returns.
    Leaving, however that comes about, ends what runs, makes every device safe and closes it, in the reverse order of
    their making, each within a bounded time, and ends every process that was started. Only this process handles Ctrl-C
    and SIGTERM: its children never see the terminal's signals.

    Args:
        configuration: what the testbed consists of.
        simulate: whether its instruments are simulated; None for what the configuration says.
        runs: directory that receives one directory per run; None for what the configuration says.

    Raises:
        SafetyError: (entering) a safety check failed at the start; (``run`` and leaving) one tripped.
        DeviceOpenError: (entering) a device that is to be open from the start cannot be opened.
        ConfigurationError: (entering) something cannot be made from the configuration.
    """

    def __init__(
        self, configuration: Configuration, *, simulate: bool | None = None, runs: Path | str | None = None
    ) -> None:
        wanted = configuration.testbed.simulate if simulate is None else simulate
        directory = str(runs if runs is not None else configuration.testbed.runs)
        self.configuration = configuration.model_copy(
            update={"testbed": configuration.testbed.model_copy(update={"simulate": wanted})}
        )
        self.runs = Path(directory)
        self._cleanup = contextlib.ExitStack()
        self._servers = Servers()
        self._watch: SafetyWatch | None = None
        self._historian: Historian | None = None
        self._queue: ExperimentQueue | None = None
        self._told: SafetyError | None = None
        """The trip that the caller knows of."""
        self._end_request: CatkitDevicesError | None = None
        self._end_requested = InterruptSafeEvent()

    @staticmethod
    def attach(name: str) -> TestbedClient:
        """Join the running testbed of that name, from any process of the same user.

        Raises:
            ServerNotFoundError: none is running, or several are; names those that are.
        """
        return TestbedClient(*find_testbed(name))

    def __getattr__(self, name: str) -> Any:
        if name in {"layout", "devices", "manager", "_launcher"}:
            what = "experiments" if name == "_launcher" else name
            raise AttributeError(f"this testbed does not run, so it has no {what}: use it in a `with` block")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # --- beginning and end ------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException as error:
            with deferred(self._leave_at_once, asked=isinstance(error, _TOLD_TO_END)):
                self._end(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with deferred(self._leave_at_once, asked=isinstance(error, _TOLD_TO_END)):
            self._end(error)

    def _start(self) -> None:
        self._cleanup.enter_context(ended_by_signals())
        self._notifier = Notifier(self.configuration.plugins(), self.configuration.testbed.name)
        self._cleanup.callback(self._notifier.end)
        self._alerts: Alerts | None = None
        self._cleanup.callback(self._servers.shut_down)
        layout = self._servers.start_own(self._lay_out, self.configuration.testbed.name)
        manager = self._servers.managers[layout.server]
        super().__init__(layout, manager)
        files = LogFiles(Path(layout.logs), in_this_process=True)
        self._cleanup.callback(files.close)
        self._collector = LogCollector(manager, self._runs_at, self._tell_of, files)
        self._cleanup.callback(self._end_alerts)
        self._alerts = Alerts(self.configuration.notifications, layout.name, self._collector.say)
        self._cleanup.callback(self._collector.end)
        manager.get_object(WARDEN, Warden, time_to_stop(layout.stop_timeout))
        self._cleanup.callback(self._servers.shut_down_others)
        watchers = () if layout.permit_timeout is None else (MONITOR, TESTBED) if layout.checked else (TESTBED,)
        self._servers.start_others(layout, watchers)
        if layout.has_telemetry:
            self._historian = Historian(layout)
            self._cleanup.callback(self._historian.end)
        self._queue = ExperimentQueue(
            self.runs / f"{layout.name}.queue.json",
            layout.server,
            layout.name,
            reason_to_wait=self._reason_to_wait,
            publish=self._publish_queue,
            say=self._collector.say,
        )
        handlers = {SHUTDOWN: self._prepare_to_end, RESET: self._reset_safety, QUEUE: self._queue.do}
        Requests(manager, handlers, self._collector.audit)
        self._publish(layout)
        self._watch = SafetyWatch(
            layout,
            manager,
            self._servers,
            safety_tests(self.configuration),
            say=self._collector.say,
            on_trip=self._stop_everything,
        )
        self._watch.start()
        for entry in layout.devices:
            if entry.eager:
                self.devices[entry.name].open()

    def _lay_out(self, server: str) -> Layout:
        simulate = self.configuration.testbed.simulate
        return lay_out(self.configuration, server, simulate=simulate, runs=str(self.runs))

    def _publish(self, layout: Layout) -> None:
        about = self.manager.get_dict(LAYOUT)
        about["configuration"] = self.configuration.model_dump(mode="json")
        about["pid"], about["host"], about["started"] = os.getpid(), socket.gethostname(), time.time()
        about["layout"] = layout  # last, because a program that finds the testbed may attach to it

    def _publish_queue(self, queue: dict[str, Any]) -> None:
        with contextlib.suppress(*UNREACHABLE):
            self.manager.get_dict(LAYOUT)[QUEUE] = queue

    def _reason_to_wait(self) -> str | None:
        """Return why the queue must not start an experiment now."""
        reason = self._reason_to_stop()
        return None if reason is None else str(reason)

    def _end(self, error: BaseException | None) -> None:
        """End everything that was started; if one step fails, the others are done all the same."""
        failures: list[BaseException] = []
        known = hasattr(self, "layout")
        if known:
            failures += self._end_silent_server(in_a_hurry=isinstance(error, _TOLD_TO_END))
        trip = self.trip
        if known:
            failures += self._end_work()
        try:
            self._cleanup.close()
        except Exception as unexpected:  # noqa: BLE001 - raised below
            failures.append(unexpected)
        if trip is not None and trip is not error and trip is not self._told:
            failures.insert(0, trip)
        if error is not None:
            for failure in failures:
                error.add_note(f"while the testbed ended: {in_one_line(failure)}")
        elif len(failures) == 1:
            raise failures[0]
        elif failures:
            raise BaseExceptionGroup(f"testbed {self.configuration.testbed.name!r} had errors while it ended", failures)

    def _end_silent_server(self, *, in_a_hurry: bool) -> list[BaseException]:
        """Check the testbed's own server once more; kill it if it does not answer: every step would wait for it.

        No device is lost with it, because there are no devices on this server.
        """
        server = self.layout.server
        looks: dict[str, Callable[[], object]] = {"server": lambda: connected(server).status()}
        if self._watch is not None:
            looks["watch"] = self._watch.look
        timeout = _HURRY if in_a_hurry else _END_TIMEOUT
        deaf = self.manager.silence > SILENT or isinstance(at_once(looks, timeout).get("server"), _DEAF)
        if not deaf or not self._servers.kill(server):
            return []
        text = f"the testbed's server {server!r} (pid {self.manager.server.pid}) did not answer, and was killed"
        _log.error("%s", text)
        return [ServerUnresponsiveError(text, server=server, pid=self.manager.server.pid)]

    def _leave_at_once(self, number: int) -> None:
        """End this process although the testbed has not ended, because it was asked to end a second time."""
        managers = self._servers.managers.values()
        silent = [one for one in managers if one.silence > SILENT or suspended(one.server.pid)]
        text = f"testbed {self.configuration.testbed.name!r} had not ended when its process ended: "
        text += "its servers make their devices safe, and end"
        for manager in silent:
            text += f"; server {manager.name!r} (pid {manager.server.pid}) does not answer, its devices may be on"
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
        os._exit(128 + number)

    def _end_work(self) -> list[BaseException]:
        """End the experiments, then whatever could still change a device; close the devices."""
        trip = self.trip  # its error says which server is lost and which device is not safe
        before = set() if self._watch is None else set(self._watch.lost)
        with contextlib.suppress(*UNREACHABLE):
            self.manager.get_dict(LAYOUT)["ending"] = True
        for running in self._launcher.running():
            running.kill()
        if self._queue is not None:
            self._queue.hold()
        end_other_experiments(self.manager, time_to_stop(self.layout.stop_timeout))
        if self._queue is not None:
            self._queue.end(time_to_stop(self.layout.stop_timeout))
        servers = [server for server in self.layout.device_servers if server in self._servers.managers]
        reason = f"testbed {self.name!r} is ending"
        deaf = at_once(
            {server: partial(_end_permit, self.layout, server, reason, self._servers.token) for server in servers},
            _END_TIMEOUT,
        )
        if self._watch is not None:
            for server, failure in deaf.items():
                if isinstance(failure, _DEAF):
                    self._watch.give_up(server)
            self._watch.end()
        lost = () if self._watch is None else self._watch.lost
        entries = [entry for entry in self.layout.devices if entry.server in servers and entry.server not in lost]
        failures = close_devices(self.devices, entries, self.configuration.testbed.close_timeout)
        if self._watch is not None:
            # Closing a device may have been the end of its server.
            gone = {failure.pid for failure in failures if isinstance(failure, ServerUnresponsiveError)}
            self._watch.rescue(len(gone))
            died = [text for server, text in self._watch.lost.items() if server in servers and server not in before]
            failures += [CatkitDevicesError(text) for text in (*died, *self._watch.unsafe) if trip is None]
        return failures

    def serve(self, on_tick: Callable[[], None] | None = None) -> None:
        """Serve programs that attach, until one of them calls ``shutdown``, or Ctrl-C or SIGTERM comes.

        A trip of the safety checks does not end it: devices can be looked at, not changed, until the safety is reset.

        Args:
            on_tick: called about ten times a second meanwhile, in this thread.

        Raises:
            SafetyError: it was told to end while a trip had not been reset.
        """
        refuse_deferred(on_tick, "on_tick")
        while not self._end_requested.wait(_TICK):
            if on_tick is not None:
                on_tick()
        if self.trip is not None:
            self._told = self.trip
            raise self._told

    def _prepare_to_end(self, reason: str) -> None:
        text = f"testbed {self.name!r} was told to end" + (f": {reason}" if reason else "")
        self._collector.say(logging.WARNING, text)
        self._end_request = CatkitDevicesError(text)
        self._end_requested.set()

    # --- safety -----------------------------------------------------------------------------------------------------

    @property
    def trip(self) -> SafetyError | None:
        """The safety check that tripped, or None while none has tripped."""
        return None if self._watch is None else self._watch.trip

    def known_trip(self) -> SafetyError | None:
        """Return the trip, which this process knows without asking anybody."""
        return self.trip

    def reset_safety(self, reason: str = "") -> None:
        """Allow changes again after a trip, once every check has passed.

        Args:
            reason: why, for the logs.

        Raises:
            SafetyError: a check fails again, or a server of the testbed is gone; it stays tripped.
            CatkitDevicesError: nothing has tripped.
        """
        try:
            self._reset_safety(reason)
        except BaseException as error:
            self.note_in_audit_trail("reset", "safety", reason, error)
            raise
        self.note_in_audit_trail("reset", "safety", reason)

    def _reset_safety(self, reason: str) -> None:
        if self._watch is None or self._watch.trip is None:
            raise CatkitDevicesError(f"testbed {self.name!r} has not tripped: there is nothing to reset")
        trip = self._watch.trip
        self._watch.reset()
        text = f"safety was reset{f' ({reason})' if reason else ''} after: {trip}"
        self._collector.say(logging.WARNING, text, "safety_reset", {"reason": reason, "trip": str(trip)})

    def _stop_everything(self, trip: SafetyError) -> None:
        for running in self._launcher.running():
            running.stop(str(trip))
        if self._historian is not None:
            self._historian.note(TRIP, str(trip))

    # --- experiments ------------------------------------------------------------------------------------------------

    def _reason_to_stop(self) -> BaseException | None:
        return self.trip or self._end_request

    def _trip_behind(self) -> SafetyError | None:
        if self._watch is not None:
            self._watch.catch_up()
        return self.trip

    def _reason_behind(self) -> BaseException | None:
        return self._trip_behind() or self._end_request

    def _tell_of(self, event: str, facts: dict[str, Any]) -> None:
        """Tell plugins of an event; of a trip before they are told of the experiments that it ended."""
        if event == "experiment_finished" and facts.get("error") is not None:
            self._trip_behind()
        self._notifier.tell_if_it_is_one(event, facts)
        if self._alerts is not None:
            self._alerts.tell(event, facts)

    def _end_alerts(self) -> None:
        if self._alerts is not None:
            self._alerts.end()

    def _tell_plugins(self, event: str, text: str, facts: dict[str, Any]) -> None:
        self._collector.say(logging.INFO, text, event, facts)

    def run(
        self,
        *experiments: Experiment,
        stop_all_on_exception: bool = True,
        on_tick: Callable[[], None] | None = None,
    ) -> list[Any]:
        """Run experiments at the same time; see :meth:`TestbedClient.run`.

        After a trip it returns when the devices were made safe (within a bounded time); failures are notes of the
        ``SafetyError``.
        """
        try:
            return super().run(*experiments, stop_all_on_exception=stop_all_on_exception, on_tick=on_tick)
        except SafetyError as error:
            self._told = error
            raise
        finally:
            if self._watch is not None and self._watch.trip is not None:
                self._watch.wait_until_safe()

    def _runs_at(self, moment: float) -> list[Path]:
        """Return the directories of the runs that went on at a time: what happened then belongs to them."""
        with contextlib.suppress(*UNREACHABLE):
            known = [one for one in self.progress() if one.run is not None]
            return [Path(str(one.run)) for one in known if one.state not in ENDED or one.updated > moment]
        return [running.run_path for running in self._launcher.running()]


def _end_permit(layout: Layout, server: str, reason: str, token: str) -> None:
    end_frames(layout, server)
    permit_of(server).end(reason, token)
