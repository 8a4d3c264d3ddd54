"""The testbed's watch over its safety monitor and its servers: it reacts to trips, and to the death of any of them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from functools import partial
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices._base.standby import Standby, begin
from catkit_devices.errors import SafetyError
from catkit_devices.testbed.safety.monitor import MONITOR_STOP, OPEN_TIMEOUT, SAFETY_READY, Duty
from catkit_devices.testbed.safety.monitor_run import MonitorRun
from catkit_devices.testbed.safety.other_devices import other_devices
from catkit_devices.testbed.safety.renewal import Renewal
from catkit_devices.testbed.safety.rescue import RESCUED, rescue, rescue_other
from catkit_devices.testbed.trip import (
    SAFETY_CHECKS,
    SAFETY_EVENT,
    SAFETY_TRIP,
    UNREACHABLE,
    announce,
    new_trip,
    permit_of,
    spread,
    trip_of_servers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from catkit_devices._base.standby import Errand
    from catkit_devices.multiprocessing import SharedMemoryManager
    from catkit_devices.testbed.layout import Layout
    from catkit_devices.testbed.processes.logs import Say
    from catkit_devices.testbed.safety.check import Check
    from catkit_devices.testbed.safety.other_devices import OtherDevice
    from catkit_devices.testbed.servers import Servers

__all__ = ["TESTBED", "SafetyWatch"]

TESTBED = "testbed's process"
"""The name of this process as one of those that renew permits."""

_INTERVAL = 0.1
"""Seconds between two looks at the safety event."""
_START_TIMEOUT = OPEN_TIMEOUT + 30.0
"""Seconds until every check has passed once: devices are opened for it."""
_STOP_TIMEOUT = 5.0
"""Seconds for the monitor and for each thread to end."""
_SPREADING = 3.0
"""Seconds for a monitor to tell everybody of what it has found, and to end."""
_TELLING = 5.0
"""Seconds until the runs and the plugins are told of a trip."""
_SAFE_TIMEOUT = 15.0
"""Seconds for the servers to tell that their devices are safe; they go on after that."""
_AT_ONCE = 4
"""How many devices that programs have made are rescued at the same time, each in a process of its own: starting very
many processes at once would delay the rescue of the others."""
_LOOK_AGAIN = 1.0
"""Seconds until a server that did not answer is asked again which devices programs had made."""
_DEATH_TIMEOUT = 5.0
"""Seconds from the loss of a server's connections to the end of its process, also on a busy computer."""
_CATCH_UP_TIMEOUT = 15.0
"""Seconds until every server was looked at twice: a trip that happened before is known by then."""

_log = logging.getLogger(__name__)


class SafetyWatch:
    """Runs the safety monitor if there are checks, renews the permits, and watches all processes of the testbed.

    Args:
        layout: of the testbed.
        manager: of the testbed's server.
        servers: of the testbed.
        tests: what to check.
        say: writes down what happened: level, text, kind of event, facts.
        on_trip: called once for each trip, as soon as it is known; the devices are being made safe by then.
    """

    def __init__(
        self,
        layout: Layout,
        manager: SharedMemoryManager,
        servers: Servers,
        tests: Sequence[Check],
        *,
        say: Say,
        on_trip: Callable[[SafetyError], None],
    ) -> None:
        self.trip: SafetyError | None = None
        """What tripped, or None while all is well."""
        self._layout = layout
        self._manager = manager
        self._servers = servers
        self._sentinels = {sentinel: name for name, sentinel in servers.sentinels().items()}
        self.lost: dict[str, str] = {}
        """Servers that have died, each with a message."""
        self.unsafe: list[str] = []
        """The messages about devices of these servers that could not be made safe."""
        self._tests = tests
        self._say = say
        self._on_trip = on_trip
        self._ending = InterruptSafeEvent()
        self._event: Any = None
        self._guard = threading.Lock()
        self._monitor: MonitorRun | None = None
        self._standby = Standby("make safe")
        self._rescuing = threading.Semaphore(_AT_ONCE)
        self._working: list[tuple[str, Errand]] = []
        """The tasks that make devices safe, each with the names of its devices."""
        self._started = False
        """Whether it has begun; before that, a trip prevents the start of the testbed."""
        self._resetting = False
        self._changing = threading.Lock()
        """Held while one monitor takes the place of another."""
        self._told = InterruptSafeEvent()
        """Set when all servers, runs and plugins have been told of the trip."""
        self._rounds = {"servers": 0, "safety event": 0}
        """How many rounds each watching thread has completed."""
        self._rounds_guard = threading.RLock()
        self._round_ended = threading.Condition(self._rounds_guard)
        self._threads = [
            threading.Thread(target=self._go_on, args=(name, look), name=name, daemon=True)
            for name, look in zip(self._rounds, (self._look_after_servers, self._look_after_event), strict=True)
        ]
        self._renewal = Renewal(
            TESTBED,
            layout.device_servers,
            layout.permit_timeout or OPEN_TIMEOUT,
            servers.token,
            allowed=lambda: True,
            on_lost=lambda problem: self._trip_here(new_trip("server", problem)),
        )

    def start(self) -> None:
        """Begin; return when every check has passed once and the permits are given.

        Raises:
            SafetyError: a check failed, or the monitor did not come so far in time.
        """
        for thread in self._threads:
            thread.start()
        if self._layout.permit_timeout is not None:
            self._renewal.start()
        if self._tests:
            self._run_monitor(Duty.WATCH)
        else:
            for server in self._layout.device_servers:
                permit_of(server).wait_until_given(_START_TIMEOUT)
        with self._guard:
            self._started = True
            trip = self.trip
        if trip is not None:
            self._show_on()

    def reset(self) -> None:
        """Forget the trip, after every check has passed again.

        Raises:
            SafetyError: a check fails, or a server of the testbed is gone; it stays tripped then.
        """
        if self.lost:
            raise SafetyError("server", f"{'; '.join(self.lost.values())}: end this testbed and start another")
        if not self._tests:
            raise SafetyError("permit", "this testbed has no safety checks that could pass")
        with self._changing:
            if self._monitor is not None:
                self._monitor.end()
            self._resetting = True
            self._renewal.tell(None)
            try:
                self._run_monitor(Duty.RESET)
            except SafetyError as trip:
                raise SafetyError(trip.check, f"{trip.problem}; the safety is not reset") from None
            finally:
                self._resetting = False
                if self._monitor is None or not self._monitor.ready:
                    self._show_on()

    def give_up(self, server: str) -> None:
        """End a server that does not answer, and have its devices made safe by another process."""
        self._servers.kill(server)
        self._server_died(server)

    def wait_until_safe(self) -> None:
        """Wait until the devices were made safe after a trip, within a bounded time; what went wrong is noted on it."""
        deadline = time.monotonic() + _SAFE_TIMEOUT
        while (left := deadline - time.monotonic()) > 0:
            working = self._still_working()
            if not working:
                return
            working[0][1].wait(left)  # while it was waited for, this task may have started another one
        if self.trip is not None:
            for devices, _ in self._still_working():
                self.trip.add_note(f"{devices}: not known to be safe after {_SAFE_TIMEOUT:g} s")

    def end(self) -> None:
        """End the monitor, in good order if that is possible; bounded. Ending it twice is harmless."""
        if self._ending.is_set():
            return
        self._ending.set()
        self._renewal.end()
        with self._changing:
            monitor = self._monitor
        if monitor is not None:
            try:
                self._manager.get_event(MONITOR_STOP).set()
            except UNREACHABLE as error:
                _log.warning("the safety monitor could not be told to end: %s", error)
            monitor.end(0.0 if self.trip is not None else _STOP_TIMEOUT)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_STOP_TIMEOUT)
        self.wait_until_safe()
        self._standby.end()

    # --- the monitor

    def _run_monitor(self, duty: Duty) -> None:
        """Start a monitor; return when every check has passed once and the permits are given."""
        ready = self._manager.get_event(SAFETY_READY)
        ready.clear()
        run = self._new_monitor(duty)
        run.start()
        deadline = time.monotonic() + _START_TIMEOUT
        while not ready.wait(_INTERVAL):
            if run.ended.is_set():
                break
            if self._ending.is_set() or (self.trip is not None and duty is Duty.WATCH):
                run.end()
            if time.monotonic() > deadline:
                run.end()
                raise SafetyError("monitor", f"the checks did not all pass once in {_START_TIMEOUT:g} s")
        failure = run.failure or (self.trip if duty is Duty.WATCH else None)
        if failure is not None:
            raise failure
        with self._guard:
            run.ready = True
            if duty is Duty.RESET:
                self.trip = None
                self._told.clear()
        # A server that was lost while the old trip was in force trips the testbed again.
        for problem in list(self.lost.values()):
            self._trip_here(new_trip("server", problem))
        if run.ended.is_set():
            self._monitor_ended(run)

    def _new_monitor(self, duty: Duty) -> MonitorRun:
        run = self._monitor = MonitorRun(
            self._layout, self._tests, self._servers.token, duty=duty, on_end=self._monitor_ended
        )
        return run

    def _monitor_ended(self, run: MonitorRun) -> None:
        """Act when a monitor ends: unless it was told to end, the checks are not read any more."""
        if run.duty is Duty.SHOW:
            if not run.told:
                self._say(logging.ERROR, f"the checks are not read any more: {run.failure}", None, {}, None)
        elif run.failure is not None and not run.told and (run.ready or run.duty is Duty.WATCH):
            self._trip_here(run.failure)

    def _show_on(self) -> None:
        """Start a monitor that only reads the checks, so that people see the values."""
        if self._tests and self._layout.server not in self.lost:
            thread = threading.Thread(target=self._replace_monitor, name="checks after a trip", daemon=True)
            # No process can be started for it; the status shows that the checks are not read.
            with contextlib.suppress(RuntimeError):
                thread.start()

    def _replace_monitor(self) -> None:
        with self._changing:
            if self.trip is None or self._ending.is_set():
                return  # the safety was reset meanwhile, and another monitor is running
            if self._monitor is not None:
                self._monitor.end(_SPREADING)
            try:
                self._new_monitor(Duty.SHOW).start()
            except (OSError, RuntimeError) as error:  # no other process can be started
                self._say(logging.ERROR, f"the checks are not read any more: {error}", None, {}, None)

    # --- everybody

    def _go_on(self, name: str, look: Callable[[], None]) -> None:
        while not self._ending.is_set():
            try:
                look()
            except Exception:  # noqa: BLE001 - the watch must go on after any error
                _log.exception("the safety watch could not look at the %s; trying again", name)
                self._ending.wait(_INTERVAL)
            with self._rounds_guard:
                self._rounds[name] += 1
                self._round_ended.notify_all()

    def _look_after_servers(self, timeout: float = _INTERVAL) -> None:
        for sentinel in connection.wait(list(self._sentinels), timeout):
            self._server_died(self._sentinels.pop(int(sentinel)))  # type: ignore[arg-type]  # they are numbers

    def rescue(self, expected: int) -> None:
        """Make safe what was on servers that have died since this watch was ended; bounded.

        Args:
            expected: how many servers are known to be lost; the system says that a process has ended a little after
                its connections were closed.
        """
        before, deadline = len(self.lost), time.monotonic() + _DEATH_TIMEOUT
        self._look_after_servers(0.0)
        while len(self.lost) < before + expected and (left := deadline - time.monotonic()) > 0:
            self._look_after_servers(left)
        self.wait_until_safe()

    def _look_after_event(self) -> None:
        self.look()
        self._ending.wait(_INTERVAL)

    def catch_up(self) -> None:
        """Wait, for a limited time, until every trip or death of a server that has happened by now is known here."""
        trip = trip_of_servers(self._layout)
        if trip is not None:
            self._trip_here(trip)
        deadline = time.monotonic() + _CATCH_UP_TIMEOUT
        with self._rounds_guard:
            before = dict(self._rounds)  # the rounds that are running now may have passed this point already
            while True:
                if self.trip is not None or self._ending.is_set() or time.monotonic() > deadline:
                    break
                if all(count >= before[name] + 2 for name, count in self._rounds.items()):
                    return
                self._round_ended.wait(_INTERVAL)
        if self.trip is not None:
            self._told.wait(_TELLING)

    def look(self) -> None:
        """Look whether anybody has set the safety event; set it again if the testbed's server missed it."""
        try:
            event = self._event = self._event or self._manager.get_event(SAFETY_EVENT)
            trip = self.trip
            if event.is_set():
                if trip is None:
                    self._trip_here(self._manager.get_dict(SAFETY_CHECKS)[SAFETY_TRIP])
            elif trip is not None and not self._resetting and self.trip is trip:
                announce(trip, self._layout.server)  # the testbed's server did not answer when it was told of the trip
        except (*UNREACHABLE, KeyError) as error:
            if not self._ending.is_set() and not self._resetting:
                self._trip_here(new_trip("server", f"the testbed's server is lost: {error}"))

    def _server_died(self, name: str) -> None:
        what = "the testbed's server" if name == self._layout.server else f"device server {name!r}"
        with self._guard:
            if name in self.lost:
                return
            self.lost[name] = f"{what} died"
        if name in self._layout.device_servers:
            self._work(f"devices of server {name!r}", self._rescue, name)
            self._work(f"devices that programs have made on server {name!r}", self._rescue_others, name)
        if self._layout.permit_timeout is not None:
            self._trip_here(new_trip("server", self.lost[name]))
        else:
            self._say(logging.CRITICAL, self.lost[name], "server_died", {"server": name}, None)

    def _rescue(self, server: str) -> None:
        """Have the devices of the configuration made safe that were on a server that died."""
        devices = [entry.name for entry in self._layout.devices if entry.server == server]
        failures = rescue(self._layout, devices, self._servers.token)
        for device in devices:
            self._rescued((server, device), device, failures.get(device))

    def _rescue_others(self, server: str) -> None:
        """The same for those that programs have made there, each in a process of its own."""
        others: dict[tuple[str, int], OtherDevice] | None = None
        told = False
        while others is None:
            try:
                others = other_devices(self._manager, server)
            except UNREACHABLE as error:
                if not told:
                    what = f"whether devices were open on server {server!r} that programs had made"
                    self._not_safe(f"{what} is not known: {error}", {"server": server})
                told = True
                if self._layout.server in self.lost or self._ending.wait(_LOOK_AGAIN):
                    return
        for key, other in others.items():
            self._work(f"device {other.name!r}", self._rescue_other, key, other)

    def _rescue_other(self, key: tuple[str, int], other: OtherDevice) -> None:
        with self._rescuing:
            failure = rescue_other(self._layout, other, self._servers.token)
        self._rescued(key, other.name, failure)

    def _rescued(self, key: tuple[str, str | int], device: str, failure: BaseException | None) -> None:
        """Record for everybody whether the devices were made safe."""
        text = ""
        if failure is None:
            self._say(logging.WARNING, f"device {device!r}, whose server is gone, was made safe", None, {}, None)
        else:
            why = f"{type(failure).__name__}: {failure}"
            text = f"device {device!r}, whose server is gone, could not be made safe: {why}"
            self._not_safe(text, {"device": device})
        with contextlib.suppress(*UNREACHABLE):  # the server has ended, so no program can read it either
            self._manager.get_dict(RESCUED)[key] = text

    def _not_safe(self, text: str, facts: dict[str, Any]) -> None:
        with self._guard:
            self.unsafe.append(text)
            if self.trip is not None:
                self.trip.add_note(text)
        self._say(logging.CRITICAL, text, "device_fault", {**facts, "problem": text}, None)

    def _trip_here(self, trip: SafetyError) -> None:
        """Make a trip known, and have it acted on; only the first one counts."""
        with self._guard:
            if self.trip is not None or self._ending.is_set():
                return
            self.trip = trip
            for text in self.unsafe:
                trip.add_note(text)
            self._renewal.tell(trip)
            self._work("all devices", self._tell, trip)
            started = self._started
        try:
            self._on_trip(trip)
        except Exception:  # noqa: BLE001 - the trip must be told whatever else goes wrong
            _log.exception("not everything that had to stop at the trip was told so")
        facts = {"check": trip.check, "problem": trip.problem}
        self._say(logging.CRITICAL, str(trip), "safety_tripped", facts, getattr(trip, "detected", None))
        self._told.set()
        if started:
            self._show_on()

    def _work(self, devices: str, target: Callable[..., None], *args: Any) -> None:
        self._working.append((devices, begin(partial(target, *args), "make safe", self._standby)))

    def _still_working(self) -> list[tuple[str, Errand]]:
        return [work for work in list(self._working) if not work[1].wait(0.0)]

    def _tell(self, trip: SafetyError) -> None:
        deaf = spread(trip, self._layout, except_for=self.lost)
        if deaf:
            self._work(f"devices of server {', '.join(map(repr, deaf))}", self._tell_again, trip, set(deaf))
        for server in self._layout.device_servers:
            if server in self.lost or server in deaf:
                continue
            try:
                failures = permit_of(server).wait_until_safe(_SAFE_TIMEOUT)
            except UNREACHABLE as error:
                trip.add_note(f"devices of server {server!r}: {error}")
            else:
                for device, failure in failures.items():
                    trip.add_note(f"device {device!r} is not known to be safe: {failure}")

    def _tell_again(self, trip: SafetyError, deaf: set[str]) -> None:
        """Tell the servers that did not answer once more; kill a device server that is still silent; rescue devices."""
        others = {self._layout.server, *self._layout.device_servers} - deaf
        still = spread(trip, self._layout, except_for={*others, *self.lost})
        for server in set(still).intersection(self._layout.device_servers).difference(self.lost):
            if self.trip is trip:
                self._say(logging.CRITICAL, f"server {server!r} does not answer: killed", None, {}, None)
                self.give_up(server)
