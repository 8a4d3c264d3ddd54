"""The permit of a device server: without it, nothing on that server changes its state any more.

A dead-man's switch. It is given for a short time only, and lasts for as long as everybody who must watch renews it: the
safety monitor after it has found every check in order, and the testbed's process. When it runs out, when a check trips,
or when the testbed's process is gone, the server itself takes every mutex of its devices from its holder, makes the
devices safe and refuses to change them. All of that happens in the device server's own process and needs no other.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from multiprocessing import connection, parent_process
from typing import TYPE_CHECKING, Any

from catkit_devices.device import Device
from catkit_devices.errors import CatkitDevicesError, SafetyError
from catkit_devices.multiprocessing.interface import running_server
from catkit_devices.multiprocessing.server import break_lock
from catkit_devices.testbed.alarm import PERMIT, at_once, new_trip, spread
from catkit_devices.testbed.own_time import OwnTime
from catkit_devices.testbed.server_object import ServerObject

if TYPE_CHECKING:
    from catkit_devices.testbed.layout import Layout

__all__ = ["Permit", "permit_of_this_server"]

_LOOK = 0.1
"""Seconds between two looks at the time."""
_LONGEST = 0.25
_SAFE_TIMEOUT = 60.0
"""Seconds; what a device may take is bounded by its own ``safe_timeout``."""
_SAY_TIMEOUT = 1.0
"""Seconds for the last word, which a terminal that nobody reads may hold up."""
_BUSY_TIMEOUT = 10.0
"""Seconds that an operation which was running at the trip is waited for."""

_log = logging.getLogger(__name__)


class Permit(ServerObject):
    """Whether the devices of this server may be changed; an object of the server, which must be one.

    Before the first renewal by everybody in ``watchers`` it is not given; without watchers it is given at once.

    Args:
        layout: of the testbed.
        server: the full name of this server.
        watchers: who must renew it.
        timeout: seconds for which a renewal lasts.
    """

    def __init__(self, layout: Layout, server: str, watchers: tuple[str, ...], timeout: float) -> None:
        self._layout = layout
        self._server = server
        self._watchers = watchers
        self._timeout = timeout
        self._time = OwnTime(_LONGEST)
        self._guard = threading.Lock()
        self._renewed: dict[str, float] = {}
        """When each watcher has renewed it, in this process's own time."""
        self._sent: dict[str, float] = {}
        """When each watcher has said so, on the clock that all processes of this computer share."""
        self._expires = math.inf
        """Until when changes are allowed, on that clock: a server that was stopped may have missed a trip."""
        self._trip: SafetyError | None = None
        self._ended: str | None = None
        self._safe = threading.Event()
        self._failures: dict[str, BaseException] = {}
        self._given = threading.Event()
        self._saying: threading.Thread | None = None
        """Says, once, that the testbed's process has died."""
        self._give_if_due()
        threading.Thread(target=self._watch, name="permit", daemon=True).start()

    # --- what devices ask

    def refusal(self, device: str, operation: str, changes: bool) -> BaseException | None:
        """Return why an operation may not be done now, or None.

        Args:
            device: name of the device.
            operation: name of the operation.
            changes: whether it may change the device's state; else it would have to open it.
        """
        if self._ended is not None:
            return CatkitDevicesError(f"device {device!r}: {operation!r} is refused: {self._ended}")
        if not changes or (self._given.is_set() and time.monotonic() < self._expires):
            return None
        trip = self._trip
        if trip is None:
            state = "has run out" if self._given.is_set() else "not given yet"
            return SafetyError("permit", f"{state}: {operation!r} of device {device!r} is refused")
        return SafetyError(
            trip.check, f"{trip.problem}; {operation!r} of device {device!r} is refused until the safety is reset"
        )

    # --- what the safety monitor and the testbed say

    def renew(self, watcher: str, sent: float) -> None:
        """Let the permit last for another ``timeout`` seconds, as far as ``watcher`` is concerned.

        Args:
            watcher: who says so.
            sent: when, on the monotonic clock, which all processes of a computer share.
        """
        with self._guard:
            self._renewed[watcher] = self._time()
            self._sent[watcher] = sent
            self._give_if_due()

    def trip(self, trip: SafetyError) -> None:
        """Take the permit away, and make every device safe; returns before they are. The first trip counts."""
        with self._guard:
            if self._trip is not None or self._ended is not None:
                return
            self._trip = trip
            self._given.clear()
        threading.Thread(target=self._make_safe, args=(str(trip),), name="make safe", daemon=True).start()

    def wait_until_safe(self, timeout: float) -> dict[str, str]:
        """Wait until every device was made safe after a trip; return what went wrong, by device.

        Raises:
            TimeoutError: it takes longer than ``timeout`` seconds.
        """
        if not self._safe.wait(timeout):
            raise TimeoutError(f"the devices of server {self._server!r} were not made safe in {timeout:g} s")
        return {device: f"{type(error).__name__}: {error}" for device, error in self._failures.items()}

    def reset(self) -> None:
        """Forget the trip; the permit is given again when everybody has renewed it."""
        with self._guard:
            self._trip = None
            self._renewed, self._sent = {}, {}
            self._safe.clear()
            self._give_if_due()

    def wait_until_given(self, timeout: float) -> bool:
        """Return whether it is given, after at most ``timeout`` seconds."""
        return self._given.wait(timeout)

    def end(self, reason: str) -> None:
        """Refuse to change or open devices from now on, without a trip: the testbed ends."""
        with self._guard:
            self._ended = self._ended or reason

    def tripped(self) -> SafetyError | None:
        """Return the trip that took it away, or None."""
        return self._trip

    def status(self) -> dict[str, Any]:
        """Return whether the permit is given, for how many seconds it lasts, and what tripped."""
        with self._guard:
            given = self._given.is_set() and self._ended is None
            return {
                "given": given,
                "remaining": max(0.0, self._expires - time.monotonic()) if given and self._watchers else None,
                "tripped": None if self._trip is None else str(self._trip),
            }

    # --- life on a server

    def _server_stops(self) -> None:
        """Close what somebody has opened again since the server closed it; have said why it ends."""
        if self._orphaned(0.0) and self._saying is not None:
            self._saying.join(_SAY_TIMEOUT)  # the server ends for the same reason, and could be quicker than the watch
        self.end("its server is ending")
        at_once({device.name: device._server_stops for device in _devices() if device.is_open}, _SAFE_TIMEOUT)

    def _give_if_due(self) -> None:
        if self._trip is not None or not all(name in self._renewed for name in self._watchers):
            return
        self._expires = min((sent + self._timeout for sent in self._sent.values()), default=math.inf)
        self._given.set()

    def _watch(self) -> None:
        while self._ended is None and not self._orphaned(_LOOK):
            self._check_time()

    def _orphaned(self, timeout: float) -> bool:
        """Return whether the testbed's process has died, after at most ``timeout`` seconds; act on it, once."""
        parent = parent_process()
        sentinels = [] if parent is None else [parent.sentinel]
        if not connection.wait(sentinels, timeout) and (parent is None or not _another_parent(parent.pid)):
            return False
        trip = new_trip("testbed", f"the testbed's process {parent.pid if parent else ''} has died")
        with self._guard:
            first = self._saying is None
            if first:
                self._saying = threading.Thread(target=self._say, args=(trip,), name="last word", daemon=True)
                self._saying.start()
        if first:
            self._trip_here(trip)
        return True

    def _say(self, trip: SafetyError) -> None:
        if self._layout.device_servers[:1] == [self._server]:
            sys.stderr.write(f"{trip}\n")  # nobody is left who would show it

    def _check_time(self) -> None:
        with self._guard:
            now = self._time()
            late = [name for name, renewed in self._renewed.items() if renewed + self._timeout < now]
            if not self._given.is_set() or not late:
                return
        problem = f"the {late[0]} has not renewed it for {self._timeout:g} s: killed, stopped, hung or cut off"
        self._trip_here(new_trip("permit", problem))

    def _trip_here(self, trip: SafetyError) -> None:
        """Act on what this server was the first to notice; then tell the others."""
        self.trip(trip)
        _log.critical("%s", trip)
        threading.Thread(
            target=spread, args=(trip, self._layout), kwargs={"except_for": [self._server]}, name="spread", daemon=True
        ).start()

    def _make_safe(self, reason: str) -> None:
        devices = _devices()
        busy = [device for device in devices if device._operation_lock.holder() is not None]
        for device in devices:
            break_lock(device._mutex_lock, reason)
        failures = self._failures = at_once({device.name: device.make_safe for device in devices}, _SAFE_TIMEOUT)
        self._safe.set()
        _tell(devices, failures)
        for device in busy:
            _make_safe_again(device)


def _make_safe_again(device: Device) -> None:
    """Make a device safe for good: an operation that was running may have had its last word after the first time."""
    deadline = time.monotonic() + _BUSY_TIMEOUT
    while device._operation_lock.holder() is not None and time.monotonic() < deadline:
        time.sleep(_LOOK)
    _tell([device], at_once({device.name: device.make_safe}, _SAFE_TIMEOUT))


def _tell(devices: list[Device], failures: dict[str, BaseException]) -> None:
    for name, error in failures.items():
        _log.error("device %r could not be made safe: %s", name, error)
    safe = [device.name for device in devices if device.is_open and device.name not in failures]
    if safe:
        _log.warning("made safe: %s", ", ".join(safe), extra={"event": "made_safe", "facts": {"devices": safe}})


def permit_of_this_server() -> Permit | None:
    """Return the permit of the server that this process is, if it has one."""
    hosted = running_server[0].host.find("object", PERMIT) if running_server else None
    permit: Permit | None = None if hosted is None else hosted.object
    return permit


def _devices() -> list[Device]:
    everything = running_server[0].host.everything() if running_server else []
    return [hosted.object for hosted in everything if isinstance(hosted.object, Device)]


def _another_parent(pid: int | None) -> bool:
    # A process that the parent has forked may keep the parent's end of the sentinel open.
    return os.name == "posix" and os.getppid() != pid
