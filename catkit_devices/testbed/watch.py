"""The testbed's watch over its safety monitor: a trip is acted on, and so is a monitor that is no more."""

from __future__ import annotations

import logging
import threading
import time
from multiprocessing import connection
from typing import TYPE_CHECKING

from catkit_devices.errors import CatkitDevicesError, ProcessDiedError, SafetyError
from catkit_devices.multiprocessing import Process
from catkit_devices.testbed.monitor import (
    MONITOR_STOP,
    OPEN_TIMEOUT,
    SAFETY_CHECKS,
    SAFETY_EVENT,
    SAFETY_READY,
    SAFETY_TRIP,
    announce,
    make_all_safe,
    monitor,
)
from catkit_devices.testbed.signals import kept_from_children

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from catkit_devices.multiprocessing import SharedMemoryManager
    from catkit_devices.testbed.caching import Devices
    from catkit_devices.testbed.layout import Layout
    from catkit_devices.testbed.safety import SafetyTest

__all__ = ["SafetyWatch"]

_INTERVAL = 0.1
"""Seconds between two looks at the monitor."""
_START_TIMEOUT = OPEN_TIMEOUT + 30.0
_STOP_TIMEOUT = 15.0

_log = logging.getLogger(__name__)


class SafetyWatch:
    """Runs the safety monitor and watches it.

    Args:
        layout: of the testbed.
        manager: of the testbed's server.
        devices: of the testbed.
        tests: what to check.
        on_trip: called once, in a thread of its own, as soon as a trip is known.
    """

    def __init__(
        self,
        layout: Layout,
        manager: SharedMemoryManager,
        devices: Devices,
        tests: Sequence[SafetyTest],
        *,
        on_trip: Callable[[SafetyError], None],
    ) -> None:
        self.trip: SafetyError | None = None
        """What tripped, or None while all is well."""
        self._manager = manager
        self._devices = devices
        self._on_trip = on_trip
        self._ending = threading.Event()
        self._process = Process(target=monitor, args=(layout, tests), name="safety monitor")
        self._thread = threading.Thread(target=self._watch, name="safety watch", daemon=True)

    def start(self) -> None:
        """Start the monitor; return when every check has passed once.

        Raises:
            SafetyError: a check failed, or the monitor did not come so far in time.
        """
        with kept_from_children():
            self._process.start()
            self._thread.start()
        ready = self._manager.get_event(SAFETY_READY)
        deadline = time.monotonic() + _START_TIMEOUT
        while not ready.wait(_INTERVAL):
            if self.trip is not None:
                break
            if time.monotonic() > deadline:
                self._process.kill()
                raise SafetyError("monitor", f"the checks did not all pass once in {_START_TIMEOUT:g} s")
        if self.trip is not None:
            self._thread.join(_START_TIMEOUT)
            raise self.trip

    def end(self) -> None:
        """End the monitor, in good order where that is possible; bounded. Ending it twice is harmless."""
        if self._ending.is_set() or self._thread.ident is None:
            return
        self._ending.set()
        try:
            self._manager.get_event(MONITOR_STOP).set()
        except CatkitDevicesError as error:
            _log.warning("the safety monitor could not be told to end: %s", error)
        self._thread.join(_STOP_TIMEOUT)
        if self._process.is_alive():
            self._process.kill()
            self._thread.join(_STOP_TIMEOUT)

    def _watch(self) -> None:
        event = None
        while not connection.wait([self._process.sentinel], _INTERVAL):
            try:
                event = event or self._manager.get_event(SAFETY_EVENT)
                if self.trip is None and event.is_set():
                    self._tripped(self._manager.get_dict(SAFETY_CHECKS)[SAFETY_TRIP])
            except (CatkitDevicesError, KeyError) as error:
                self._tripped(SafetyError("monitor", f"the testbed's server is lost: {error}"))
        self._ended()

    def _ended(self) -> None:
        """The monitor's process has ended: anything but having been told to is a trip."""
        try:
            self._process.join()
        except SafetyError as trip:
            self._tripped(trip)
            if self.trip is not None:
                self.trip.__notes__ = getattr(trip, "__notes__", [])
            return
        except ProcessDiedError as died:
            problem = f"the safety monitor died: {died}"
        except BaseException as error:  # noqa: BLE001 - whatever ended it, nobody checks any more
            problem = f"the safety monitor failed: {type(error).__name__}: {error}"
        else:
            problem = "the safety monitor ended"
        if not self._ending.is_set():
            self._take_over(SafetyError("monitor", problem))

    def _take_over(self, trip: SafetyError) -> None:
        """Do what the monitor would have done."""
        self._tripped(trip)
        try:
            announce(trip, self._manager)
        except CatkitDevicesError as error:
            _log.warning("the trip could not be announced: %s", error)
        for name, failure in make_all_safe(self._devices).items():
            trip.add_note(f"device {name!r} could not be made safe: {failure}")

    def _tripped(self, trip: SafetyError) -> None:
        if self.trip is None:
            self.trip = trip
            _log.critical("%s", trip)
            self._on_trip(trip)
