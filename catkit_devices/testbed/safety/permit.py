"""The permit of a device server: without it, nothing on that server is opened or changes its state any more.

A dead-man's switch. It is given for a short time only, and lasts for as long as everybody who must watch renews it: the
safety monitor after it has found every check in order, and the testbed's process. When it runs out, when a check trips,
or when the testbed's process is gone, the server itself takes every mutex of its devices from its holder, makes the
devices safe and refuses to open or change them. All of that happens in the device server's own process and needs no
other; the threads that do it are started with the permit, and with each device before it is opened.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import sys
import threading
import time
from functools import partial
from multiprocessing import connection, parent_process
from typing import TYPE_CHECKING, Any

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices._base.standby import Standby
from catkit_devices._device.process_end import open_devices
from catkit_devices.device import Device
from catkit_devices.errors import CatkitDevicesError, DeviceFaultError, SafetyError, WaitTimeoutError
from catkit_devices.multiprocessing.hosted import HostedObject
from catkit_devices.multiprocessing.locks.owner import current_call, forwarded_call
from catkit_devices.multiprocessing.protocol import emergency_token, running_server
from catkit_devices.multiprocessing.server.server import break_lock
from catkit_devices.testbed.processes.process_clock import OwnTime
from catkit_devices.testbed.trip import at_once, new_trip, spread

if TYPE_CHECKING:
    from catkit_devices._base.standby import Errand
    from catkit_devices.testbed.layout import Layout

__all__ = ["Permit"]

_LOOK = 0.1
"""Seconds between two looks at the clock."""
_LONGEST = 0.25
"""Seconds by which the clock advances between two looks, at most: it stops while this process is stopped."""
_SAFE_TIMEOUT = 60.0
"""Seconds; what a device may take is bounded by its own ``safe_timeout``."""
_SAY_TIMEOUT = 1.0
"""Seconds for the last message, which a terminal that nobody reads may delay."""
_RETRY, _LONGEST_RETRY = 1.0, 30.0
"""Seconds until making safe is tried again after a failure: each pause is twice the last one, up to the second
value."""

_log = logging.getLogger(__name__)


class Permit(HostedObject):
    """Whether the devices of this server may be opened and changed; an object of the device server.

    It is given when all ``watchers`` have renewed it once; without watchers it is given at once.

    Args:
        layout: of the testbed.
        server: the full name of this server.
        watchers: who must renew it.
        timeout: seconds for which a renewal lasts.
        token: proves that the caller may renew it, reset it or end it.

    Raises:
        RuntimeError: the threads that it needs cannot be started.
    """

    def __init__(self, layout: Layout, server: str, watchers: tuple[str, ...], timeout: float, token: str) -> None:
        self._layout = layout
        self._server = server
        self._watchers = watchers
        self._timeout = timeout
        self._token = token
        self._time = OwnTime(_LONGEST)
        self._guard = threading.RLock()
        self._changed = threading.Condition(self._guard)
        self._renewed: dict[str, float] = {}
        """When each watcher has renewed it, in this process's own time."""
        self._sent: dict[str, float] = {}
        """When each watcher has sent its renewal, on the clock that all processes of this computer share."""
        self._trip: SafetyError | None = None
        self._ended: str | None = None
        self._reader: str | None = None
        """The process that may open devices to read them while it is not given."""
        self._stopped = False
        self._due = False
        """Whether there is a trip for which the devices have not been made safe yet."""
        self._safe = InterruptSafeEvent()
        self._given = InterruptSafeEvent()
        self._speaker = Standby("last word")
        self._messenger = Standby("spread")
        self._said: Errand | None = None
        """The task that logs, once, that the testbed's process has died."""
        self._host = running_server[0].host
        self._host.gate, self._host.emergency_token = self.refusal, token
        self._give_if_due()
        emergency_token[:] = [token]
        for target, name in ((self._act, "make safe"), (self._watch, "permit")):
            threading.Thread(target=target, name=name, daemon=True).start()

    # --- what devices ask

    def refusal(self, device: str, operation: str, changes: bool) -> BaseException | None:
        """Return why an operation may not be done now, or None.

        Args:
            device: name of the device.
            operation: name of the operation.
            changes: whether it may change the device's state; else it would have to open it, which changes it, too,
                and is allowed to the safety monitor only, whose checks must be read before the permit is given.
        """
        if self._ended is not None:
            return CatkitDevicesError(f"device {device!r}: {operation!r} is refused: {self._ended}")
        if time.monotonic() < self._host.changes_until:
            return None
        call = forwarded_call()
        if not changes and call is not None and call.owner.key[0] == self._reader:
            return None
        which = "" if changes else ", which is not open,"
        refused = f"{operation!r} of device {device!r}{which} is refused"
        trip = self._trip
        if trip is None:
            return SafetyError("permit", f"{'has run out' if self._given.is_set() else 'not given yet'}: {refused}")
        reset = f"until the safety is reset (`catkit-devices reset-safety {self._layout.name}`)"
        return SafetyError(trip.check, f"{trip.problem}; {refused} {reset}")

    # --- what the safety monitor and the testbed say, and nobody else

    def renew(self, watcher: str, sent: float, token: str = "") -> None:
        """Let the permit last for another ``timeout`` seconds, as far as ``watcher`` is concerned.

        Args:
            watcher: who says so.
            sent: when, on the monotonic clock, which all processes of a computer share.
            token: the secret that only the safety monitor and the testbed have.

        Raises:
            SafetyError: it is not the right token.
        """
        self._require(token, "renewing it")
        with self._guard:
            self._renewed[watcher] = self._time()
            self._sent[watcher] = min(sent, time.monotonic())
            self._give_if_due()

    def admit(self, token: str = "") -> None:
        """Let the calling process open devices to read them, even while the permit is not given.

        What it opens then is made safe at once.

        Raises:
            SafetyError: it is not the right token.
        """
        self._require(token, "opening devices while it is not given")
        self._reader = current_call().owner.key[0]

    def reset(self, token: str = "") -> None:
        """Forget the trip; the permit is given again when all watchers have renewed it.

        Raises:
            SafetyError: it is not the right token.
        """
        self._require(token, "resetting it")
        if self._trip is not None:
            self._safe.wait(_SAFE_TIMEOUT)
            _log.warning("the permit of server %r was reset by %s", self._server, current_call().owner)
            for name, doubt in _in_doubt().items():
                _log.error("... though device %r is not known to be safe: %s", name, doubt)
        with self._guard:
            self._trip, self._due = None, False
            self._renewed, self._sent = {}, {}
            self._safe.clear()
            self._give_if_due()

    def end(self, reason: str, token: str = "") -> None:
        """Refuse to change or open devices from now on, without a trip: the testbed ends.

        Raises:
            SafetyError: it is not the right token.
        """
        self._require(token, "ending it")
        self._end(reason)

    # --- what everybody may do

    def trip(self, trip: SafetyError) -> None:
        """Take the permit away, and make every device safe; returns before they are. The first trip counts."""
        with self._guard:
            if self._trip is not None:
                return
            self._trip = trip
            self._take()
            self._due = True
            self._changed.notify_all()

    def wait_until_safe(self, timeout: float) -> dict[str, str]:
        """Wait until every device was made safe after a trip; return why one is not known to be, by device.

        Raises:
            WaitTimeoutError: it takes longer than ``timeout`` seconds.
        """
        if not self._safe.wait(timeout):
            raise WaitTimeoutError(f"the devices of server {self._server!r} were not made safe in {timeout:g} s")
        return _in_doubt()

    def wait_until_given(self, timeout: float) -> bool:
        """Return whether it is given, after at most ``timeout`` seconds."""
        return self._given.wait(timeout)

    def tripped(self) -> SafetyError | None:
        """Return the trip that took it away, or None."""
        return self._trip

    def status(self) -> dict[str, Any]:
        """Return whether it is given, for how many seconds it lasts, what tripped, and which devices may be on."""
        with self._guard:
            given = self._given.is_set() and self._ended is None
            remaining = self._host.changes_until - time.monotonic()
            return {
                "given": given,
                "remaining": max(0.0, remaining) if given and self._watchers else None,
                "tripped": None if self._trip is None else str(self._trip),
                "not_safe": _in_doubt(),
            }

    # --- called by the server

    def _server_stops_(self) -> None:
        """Close what was opened again since the server closed it; log why it ends."""
        if self._orphaned(0.0) and self._said is not None:
            # The server ends because the testbed's process has died too, and may notice it earlier than this thread.
            self._said.wait(_SAY_TIMEOUT)
        self._end("its server is ending")
        at_once({device.name: device._server_stops_ for device in open_devices()}, _SAFE_TIMEOUT)
        with self._guard:
            self._stopped = True
            self._changed.notify_all()

    def _require(self, token: str, what: str) -> None:
        if not secrets.compare_digest(token, self._token):
            who = current_call().owner
            _log.warning("the permit of server %r: %s was refused to %s", self._server, what, who)
            raise SafetyError(
                "permit", f"{what} is refused to {who}: only the safety monitor and the testbed's process may"
            )

    def _end(self, reason: str) -> None:
        with self._guard:
            self._ended = self._ended or reason
            self._host.changes_until = -math.inf

    def _give_if_due(self) -> None:
        taken = self._trip is not None or self._ended is not None
        if taken or not all(name in self._renewed for name in self._watchers):
            return
        # On the clock of all processes: a server that was stopped meanwhile may have missed a trip.
        self._host.changes_until = min((sent + self._timeout for sent in self._sent.values()), default=math.inf)
        self._given.set()

    def _take(self) -> None:
        self._host.changes_until = -math.inf
        self._given.clear()

    # --- what takes it away

    def _watch(self) -> None:
        while not self._stopped:
            try:
                if self._orphaned(_LOOK):
                    return
            except Exception:  # noqa: BLE001 - an error here must not prevent that the expiry of the permit is checked
                _log.exception("watching the testbed's process failed; trying again")
                time.sleep(_LOOK)
            self._check_time()

    def _orphaned(self, timeout: float) -> bool:
        """Return whether the testbed's process has died, after at most ``timeout`` seconds; act on it, once."""
        parent = parent_process()
        sentinels = [] if parent is None else [parent.sentinel]
        if not connection.wait(sentinels, timeout) and (parent is None or not _another_parent(parent.pid)):
            return False
        trip = new_trip("testbed", f"the testbed's process {parent.pid if parent else ''} has died")
        with self._guard:
            first = self._said is None
            if first:
                self._said = self._speaker.do(partial(self._say, trip))
        if first:
            self._trip_here(trip)
        return True

    def _say(self, trip: SafetyError) -> None:
        if self._layout.device_servers[:1] == [self._server]:
            sys.stderr.write(f"{trip}\n")  # no other process is left that could show this message

    def _check_time(self) -> None:
        with self._guard:
            now = self._time()
            late = [name for name, renewed in self._renewed.items() if renewed + self._timeout < now]
            if not self._given.is_set() or not late or self._ended is not None:
                return
        problem = f"the {late[0]} has not renewed it for {self._timeout:g} s: killed, stopped, hung or cut off"
        self._trip_here(new_trip("permit", problem))

    def _trip_here(self, trip: SafetyError) -> None:
        """Trip because of something that this server noticed first; then tell the other servers."""
        self.trip(trip)
        _log.critical("%s", trip)
        self._messenger.do(partial(self._spread, trip))

    def _spread(self, trip: SafetyError) -> None:
        """Tell the other servers, again if it fails; one that is only stopped gets the message when it continues."""
        everybody = {self._layout.server, *self._layout.device_servers}
        left, pause = everybody - {self._server}, _RETRY
        while left and not self._stopped:
            failures = spread(trip, self._layout, except_for=everybody - left)
            left = {server for server, failure in failures.items() if not isinstance(failure, TimeoutError)}
            with self._changed:
                self._changed.wait_for(lambda: self._stopped, pause)
            pause = min(2 * pause, _LONGEST_RETRY)

    # --- making safe

    def _act(self) -> None:
        """Make all devices safe at every trip, and try again if that failed, as long as the server runs."""
        pause = _RETRY
        while not self._stopped:
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._stopped, pause)
                due, reason = self._due, str(self._trip)
            try:
                if due:
                    self._take_away(reason)
                    pause = _RETRY
                elif left := [device for device in _devices() if device._life_.unsafe is not None]:
                    _make_safe(left)
                    pause = min(2 * pause, _LONGEST_RETRY)
                else:
                    pause = _RETRY
            except Exception:  # noqa: BLE001 - this thread must continue after any error
                _log.exception("making the devices of server %r safe failed; trying again", self._server)
                time.sleep(_LOOK)

    def _take_away(self, reason: str) -> None:
        devices = _devices()
        for device in devices:
            try:
                break_lock(device._access_.mutex_lock, reason)
            except Exception:  # noqa: BLE001 - an error with one device must not prevent that the others are made safe
                _log.exception("the mutex of device %r could not be taken from its holder", device.name)
        _make_safe(devices)
        with self._guard:
            self._due = False
            if self._trip is not None:
                self._safe.set()


def _make_safe(devices: list[Device]) -> None:
    """Make devices safe, all at once, each in a thread of its own, started before the device was opened."""
    errands: dict[Device, Errand] = {}
    for device in devices:
        try:
            errand = device._life_.secure()
        except Exception as error:  # noqa: BLE001 - as above
            device._life_.cannot_secure(error)
        else:
            if errand is not None:
                errands[device] = errand
    for device, errand in errands.items():
        with contextlib.suppress(DeviceFaultError):  # it is unsafe then
            device._life_.finish_to_make_safe(errand)
    doubts = _in_doubt()
    for name, doubt in doubts.items():
        _log.error("device %r is not known to be safe: %s", name, doubt)
    safe = [device.name for device in errands if device.name not in doubts]
    if safe:
        _log.warning("made safe: %s", ", ".join(safe), extra={"event": "made_safe", "facts": {"devices": safe}})


def _in_doubt() -> dict[str, str]:
    """Return, by name, why a device that was to be made safe is not known to be safe."""
    doubts = {device.name: device._life_.doubt() for device in _devices()}
    return {name: doubt for name, doubt in doubts.items() if doubt is not None}


def _devices() -> list[Device]:
    """Return every device of this process that a client could reach, or that is open."""
    everything = running_server[0].host.everything() if running_server else []
    hosted = [one.object for one in everything if isinstance(one.object, Device)]
    return list(dict.fromkeys([*hosted, *open_devices()]))


def _another_parent(pid: int | None) -> bool:
    # A process that the parent has forked may keep the parent's end of the sentinel open.
    return os.name == "posix" and os.getppid() != pid
