"""The safety monitor: a process of its own that reads what must stay in range, and renews the devices' permits.

If this process ends or stops without having been told to, this counts as a trip: the testbed watches it, and without
it the permits of the device servers run out. After a trip another one goes on reading, so that people see what the
values are; it renews nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
import time
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices._base.process_title import set_title
from catkit_devices.errors import SafetyError
from catkit_devices.testbed.devices.devices import Devices
from catkit_devices.testbed.processes.logs import forward_logs
from catkit_devices.testbed.processes.process_clock import OwnTime
from catkit_devices.testbed.processes.signals import ignore_terminal
from catkit_devices.testbed.safety.check import CheckState, Freshness
from catkit_devices.testbed.safety.renewal import Renewal
from catkit_devices.testbed.trip import (
    SAFETY_CHECKS,
    SAFETY_EVENT,
    SAFETY_TRIP,
    UNREACHABLE,
    at_once,
    connected,
    new_trip,
    permit_of,
    spread,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from catkit_devices.testbed.layout import Layout
    from catkit_devices.testbed.safety.check import Check

__all__ = ["MONITOR", "MONITOR_STOP", "OPEN_TIMEOUT", "SAFETY_READY", "Duty", "monitor"]

MONITOR = "safety monitor"
"""Its name, as a process and as one of those that renew permits."""
SAFETY_READY = "safety.ready"
"""Name of the event that is set when every check has passed for the first time and the permits are given."""
MONITOR_STOP = "safety.stop"
"""Name of the event that ends the monitor in good order."""

OPEN_TIMEOUT = 30.0
"""Seconds for the first reading of a check, which may have to load a driver and open a device."""

_LOOK = 0.05
"""Seconds between two looks at the clock."""
_GIVING = 10.0
"""Seconds to wait until the permits have been given, if a check trips while they are being given."""
_STEP = 0.5
"""Seconds between two looks at the clock; when more have passed, this process itself was not running."""

_log = logging.getLogger(__name__)


class Duty(Enum):
    """The purpose of a monitor."""

    WATCH = "watch"
    """Give the permits when every check has passed once, and trip when one fails."""
    RESET = "reset"
    """The same after a trip, which is forgotten when every check has passed."""
    SHOW = "show"
    """After a trip: only read, so that people see the values."""


def monitor(layout: Layout, tests: Sequence[Check], token: str, duty: Duty = Duty.WATCH) -> None:
    """Check until told to stop; runs as the target of a process.

    Args:
        layout: of the testbed.
        tests: what to check.
        token: shows to the permits that this is the safety monitor.
        duty: its purpose.

    Raises:
        SafetyError: a check tripped; by then every server has been told.
    """
    set_title(MONITOR)
    ignore_terminal()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with its testbed, or as a trip
    os.environ["CATKIT_DEVICES_SERVER"] = layout.server
    forward_logs(layout.server)
    begun: _Monitor | None = None
    try:
        begun = _Monitor(layout, tests, token, duty)
        trip = begun.run()
    except UNREACHABLE as error:
        trip = new_trip("monitor", f"the testbed's server is lost: {error}")
    if trip is None:
        return
    giving = None if begun is None else begun.giving()
    if duty is not Duty.SHOW:
        spread(trip, layout)
    if giving is not None:
        giving.wait(_GIVING)
        # The permits may have been reset meanwhile, and have then forgotten this trip together with the old one; so
        # tell them again.
        spread(trip, layout)
    raise trip


class _Monitor:
    """One thread per check reads; this one judges, so that a reading that hangs is noticed."""

    def __init__(self, layout: Layout, tests: Sequence[Check], token: str, duty: Duty) -> None:
        self._layout = layout
        self._token = token
        self._tests = {test.name: test for test in tests}
        self._duty = duty
        self._devices = Devices(layout)
        self._manager = connected(layout.server)
        self._states = {test.name: CheckState(test) for test in tests}
        self._freshness = {test.name: Freshness(test) for test in tests}
        self._checks = self._manager.get_dict(SAFETY_CHECKS)
        self._messages: queue.SimpleQueue[tuple[str, str, Any]] = queue.SimpleQueue()
        self._time = OwnTime(_STEP)
        self._due: dict[str, float] = {}
        """By when each check must have reported something."""
        self._reading: set[str] = set()
        self._looked = 0.0
        self._ready = False
        self._gave: InterruptSafeEvent | None = None
        """Set when the permits have been given, or could not be; None before that has begun."""
        self._ending = InterruptSafeEvent()
        self._renewal = Renewal(
            MONITOR,
            layout.device_servers,
            layout.permit_timeout or OPEN_TIMEOUT,
            token,
            allowed=lambda: self._time() - self._looked < 2 * _STEP,
            on_lost=lambda problem: self._messages.put(("lost", "", problem)),
        )

    def run(self) -> SafetyError | None:
        """Check until told to stop (None), or until something trips."""
        # A monitor that only shows values opens no device after a trip; for a closed device it shows that it cannot be
        # read.
        servers = [] if self._duty is Duty.SHOW else self._layout.device_servers
        deaf = at_once({server: partial(self._be_admitted, server) for server in servers}, OPEN_TIMEOUT)
        for server, failure in deaf.items():
            return new_trip("monitor", f"device server {server!r} is lost: {failure}")
        for test in self._tests.values():
            self._due[test.name] = self._time() + OPEN_TIMEOUT
            self._in_thread(partial(self._read, test), f"check {test.name}")
        self._in_thread(self._wait_for_stop, "stop")
        try:
            trip = self._judge()
            if trip is not None:
                self._renewal.tell(trip)
            return trip
        finally:
            self._ending.set()
            self._renewal.end()

    def giving(self) -> InterruptSafeEvent | None:
        """Return the event that is set when the permits have been given; None if none is being given now."""
        return None if self._gave is None or self._gave.is_set() else self._gave

    def _be_admitted(self, server: str) -> None:
        permit_of(server).admit(self._token)

    # --- this thread

    def _judge(self) -> SafetyError | None:
        while True:
            self._looked = self._time()
            for kind, name, content in self._heard():
                if kind == "stop":
                    return None
                trip = self._hear(kind, name, content)
                if trip is not None:
                    return trip
            # All messages have been handled. So if a reading is missing, the device has really not answered: it is not
            # that this thread was too busy to notice the answer.
            problem = self._renewal.silent()
            trip = self._hung() or (None if problem is None else new_trip("permit", problem))
            if trip is not None and self._duty is not Duty.SHOW:
                return trip

    def _heard(self) -> Iterator[tuple[str, str, Any]]:
        """Wait briefly for messages; return all that have arrived."""
        with contextlib.suppress(queue.Empty):
            yield self._messages.get(timeout=_LOOK)
            while True:
                yield self._messages.get_nowait()

    def _hear(self, kind: str, name: str, content: Any) -> SafetyError | None:
        if kind == "begin":
            self._reading.add(name)
            self._due[name] = self._time() + self._timeout_of(name)
        elif kind == "end":
            self._reading.discard(name)
            self._due[name] = self._time() + self._tests[name].interval + self._timeout_of(name)
            return self._record(name, *content)
        elif kind == "tripped":
            trip: SafetyError = content
            return trip
        elif kind == "lost":
            return new_trip("monitor", content)
        return None

    def _timeout_of(self, name: str) -> float:
        return self._tests[name].timeout if self._states[name].time else OPEN_TIMEOUT

    def _hung(self) -> SafetyError | None:
        now = self._time()
        for name, due in self._due.items():
            if now >= due:
                hung = self._tests[name].hung(self._timeout_of(name))
                problem = hung if name in self._reading else f"{self._tests[name].what()} is not being read any more"
                self._states[name] = self._checks[name] = self._states[name].after(None, problem, time.time())
                self._due[name] = now + self._timeout_of(name)
                return new_trip(name, problem)
        return None

    def _record(self, name: str, value: Any, problem: str | None, stamp: Any) -> SafetyError | None:
        freshness = self._freshness[name]
        stale = freshness.problem(stamp, self._time())
        problem = stale if problem is None else problem
        state = self._states[name] = self._states[name].after(value, problem, time.time())
        self._checks[name] = state
        if self._duty is Duty.SHOW:
            return None
        if problem is not None:
            first = {"event": "safety_failure", "facts": {"check": name, "problem": problem}}
            _log.warning("safety check %r: %s", name, problem, extra=first if state.failures == 1 else None)
        if not self._ready and problem is not None:
            return new_trip(name, problem)  # a check that fails at the start trips at once
        passed = all(known.passed and self._freshness[one].confirmed for one, known in self._states.items())
        if passed and not self._ready:
            self._ready = True
            self._gave = InterruptSafeEvent()
            self._in_thread(self._begin, "begin")
        return state.tripped

    # --- other threads

    def _in_thread(self, target: Callable[[], None], name: str) -> None:
        def run() -> None:
            try:
                target()
            except UNREACHABLE as error:
                self._messages.put(("lost", "", f"a server of the testbed is lost: {error}"))

        threading.Thread(target=run, name=name, daemon=True).start()

    def _begin(self) -> None:
        """Give the permits, now that every check has passed; from then on, act on what the servers report."""
        try:
            self._give()
        finally:
            if self._gave is not None:
                self._gave.set()
        self._manager.get_event(SAFETY_EVENT).wait()
        self._messages.put(("tripped", "", self._checks[SAFETY_TRIP]))

    def _give(self) -> None:
        if self._duty is Duty.RESET:
            for server in self._layout.device_servers:
                if self._ending.is_set():
                    return
                permit_of(server).reset(self._token)
            self._checks.pop(SAFETY_TRIP, None)
            self._manager.get_event(SAFETY_EVENT).clear()
        self._renewal.start()
        if all(permit_of(server).wait_until_given(OPEN_TIMEOUT) for server in self._layout.device_servers):
            self._manager.get_event(SAFETY_READY).set()

    def _read(self, test: Check) -> None:
        started: Check | None = None
        while not self._ending.is_set():
            self._messages.put(("begin", test.name, None))
            value: Any = None
            stamp: Any = None
            try:
                started = started or test.started(self._layout)
                stamp = started.read_timestamp(self._devices)
                value = started.read(self._devices)
                problem = started.problem(value)
            except Exception as error:  # noqa: BLE001 - any error is a failure of the check
                problem = test.failed_reading(error)
            self._messages.put(("end", test.name, (value, problem, stamp)))
            self._ending.wait(test.interval)

    def _wait_for_stop(self) -> None:
        try:
            self._manager.get_event(MONITOR_STOP).wait()
        except UNREACHABLE as error:
            self._messages.put(("lost", "", f"the testbed's server is lost: {error}"))
        else:
            self._messages.put(("stop", "", None))
