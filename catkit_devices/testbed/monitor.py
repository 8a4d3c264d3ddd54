"""The safety monitor: a process of its own that reads what must stay in range, and says so when it does not.

Whatever ends this process without having been told to counts as a trip: the testbed watches it.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import CatkitDevicesError, SafetyError
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.testbed.caching import Devices
from catkit_devices.testbed.logs import forward_logs
from catkit_devices.testbed.safety import CheckState
from catkit_devices.testbed.signals import deliver_again

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from catkit_devices.testbed.layout import Layout
    from catkit_devices.testbed.safety import SafetyTest

__all__ = ["MONITOR_STOP", "SAFETY_CHECKS", "SAFETY_EVENT", "SAFETY_READY", "SAFETY_TRIP", "make_all_safe", "monitor"]

SAFETY_EVENT = "safety"
"""Name of the event that is set by a trip."""
SAFETY_READY = "safety.ready"
"""Name of the event that is set when every check has passed for the first time."""
SAFETY_CHECKS = "safety.checks"
"""Name of the shared dictionary with the state of every check, and of the trip under the key ``SAFETY_TRIP``."""
SAFETY_TRIP = "trip"
MONITOR_STOP = "safety.stop"
"""Name of the event that ends the monitor in good order."""

OPEN_TIMEOUT = 30.0
"""Seconds for the first reading of a check, which may have to load a driver and open a device."""

_SAFE_TIMEOUT = 12.0
"""Seconds for making every device safe: a device's own bound is 10 s unless it is told otherwise."""

_log = logging.getLogger(__name__)


def monitor(layout: Layout, tests: Sequence[SafetyTest]) -> None:
    """Check until told to stop; runs as the target of a process.

    Raises:
        SafetyError: a check tripped; by then the safety event is set and every device was made safe.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    deliver_again(signal.SIGINT)
    os.environ["CATKIT_DEVICES_SERVER"] = layout.server
    forward_logs(layout.server)
    devices = Devices(layout)
    manager = SharedMemoryManager(layout.server)
    manager.connect()
    trip = _Monitor(tests, devices, manager).run()
    if trip is not None:
        announce(trip, manager)
        for name, failure in make_all_safe(devices).items():
            trip.add_note(f"device {name!r} could not be made safe: {failure}")
        raise trip


def announce(trip: SafetyError, manager: SharedMemoryManager) -> None:
    """Set the safety event, with the reason beside it for whoever looks."""
    manager.get_dict(SAFETY_CHECKS).setdefault(SAFETY_TRIP, trip)
    manager.get_event(SAFETY_EVENT).set()


def make_all_safe(devices: Devices, timeout: float = _SAFE_TIMEOUT) -> dict[str, BaseException]:
    """Make every device safe that anybody has used, all at once, each bounded in time.

    Returns:
        What went wrong, by device; ``TimeoutError`` for one that did not answer.
    """
    failures: dict[str, BaseException] = {name: TimeoutError(f"not made safe in {timeout:g} s") for name in devices}

    def make_safe(name: str) -> None:
        try:
            device = devices.made(name)
            if device is not None:
                device.make_safe()
        except Exception as error:  # noqa: BLE001 - told to the caller, after the others were made safe
            failures[name] = error
        else:
            del failures[name]

    threads = [threading.Thread(target=make_safe, args=(name,), name=f"make {name} safe", daemon=True)
               for name in list(failures)]  # fmt: skip
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    failures = dict(failures)
    for name, error in failures.items():
        _log.error("device %r could not be made safe: %s", name, error)
    return failures


class _Monitor:
    """One thread per check reads; this one judges, so that a reading that hangs is noticed."""

    def __init__(self, tests: Sequence[SafetyTest], devices: Devices, manager: SharedMemoryManager) -> None:
        self._tests = {test.name: test for test in tests}
        self._devices = devices
        self._manager = manager
        self._states = {test.name: CheckState(test) for test in tests}
        self._checks = manager.get_dict(SAFETY_CHECKS)
        self._messages: queue.SimpleQueue[tuple[str, str, Any]] = queue.SimpleQueue()
        self._reading: dict[str, float] = {}
        """When each reading that has not returned began."""
        self._ready = False
        self._ending = threading.Event()

    def run(self) -> SafetyError | None:
        """Check until told to stop (None), or until a check trips."""
        self._reading = dict.fromkeys(self._tests, time.monotonic())
        for test in self._tests.values():
            threading.Thread(target=self._read, args=(test,), name=f"check {test.name}", daemon=True).start()
        threading.Thread(target=self._wait_for_stop, name="stop", daemon=True).start()
        try:
            return self._judge()
        finally:
            self._ending.set()

    def _judge(self) -> SafetyError | None:
        while True:
            try:
                kind, name, content = self._messages.get(timeout=self._patience())
            except queue.Empty:
                pass
            else:
                if kind == "stop":
                    return None
                if kind == "lost":
                    return SafetyError("monitor", content)
                if kind == "begin":
                    self._reading[name] = content
                    continue
                trip = self._record(name, *content)
                if trip is not None:
                    return trip
            trip = self._hung()
            if trip is not None:
                return trip

    def _patience(self) -> float:
        """Return the seconds until the next reading will have taken too long."""
        deadlines = [began + self._limit(name) for name, began in self._reading.items()]
        return max(0.0, min(deadlines, default=time.monotonic() + 60.0) - time.monotonic())

    def _limit(self, name: str) -> float:
        return self._tests[name].timeout if self._states[name].time else OPEN_TIMEOUT

    def _hung(self) -> SafetyError | None:
        now = time.monotonic()
        for name, began in self._reading.items():
            if now - began >= self._limit(name):
                problem = self._tests[name].hung(self._limit(name))
                self._checks[name] = self._states[name].after(None, problem, time.time())
                return SafetyError(name, problem)
        return None

    def _record(self, name: str, value: Any, problem: str | None) -> SafetyError | None:
        self._reading.pop(name, None)
        state = self._states[name] = self._states[name].after(value, problem, time.time())
        self._checks[name] = state
        if problem is not None:
            _log.warning("safety check %r: %s", name, problem)
        if not self._ready and problem is not None:
            return SafetyError(name, problem)  # nothing starts in a state that is not safe
        if not self._ready and all(known.time for known in self._states.values()):
            self._ready = True
            self._manager.get_event(SAFETY_READY).set()
        return state.tripped

    def _read(self, test: SafetyTest) -> None:
        while not self._ending.is_set():
            self._messages.put(("begin", test.name, time.monotonic()))
            value: Any = None
            try:
                value = getattr(self._devices[test.device], test.property)
                problem = test.problem(value)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure of the check
                problem = test.failed_reading(error)
            self._messages.put(("end", test.name, (value, problem)))
            self._ending.wait(test.interval)

    def _wait_for_stop(self) -> None:
        try:
            self._manager.get_event(MONITOR_STOP).wait()
        except (CatkitDevicesError, EOFError, OSError) as error:
            self._messages.put(("lost", "", f"the testbed's server is lost: {error}"))
        else:
            self._messages.put(("stop", "", None))


def states(checks: Mapping[str, Any]) -> dict[str, CheckState]:
    """Return the state of every check from the shared dictionary."""
    return {name: state for name, state in dict(checks).items() if isinstance(state, CheckState)}
