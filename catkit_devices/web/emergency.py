"""What never waits for a mutex: STOP, making a device safe, breaking a lock, resetting the safety."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from catkit_devices._base.standby import all_at_once
from catkit_devices.errors import CatkitDevicesError
from catkit_devices.testbed.experiments.progress import ENDED
from catkit_devices.testbed.trip import UNREACHABLE
from catkit_devices.web.problems import Problem

if TYPE_CHECKING:
    from catkit_devices._base.standby import Errand
    from catkit_devices.testbed.layout import DeviceEntry
    from catkit_devices.web.access import Visitor
    from catkit_devices.web.sessions import VisitorSessions

__all__ = ["CLOSED", "SAFE", "Emergency"]

SAFE = "safe"
"""What STOP tells of a device that was open, and was made safe."""
CLOSED = "closed: nothing was sent to it"
"""What STOP tells of a device that was closed: how its instrument is, is not known here."""
_SAFE_IN_TIME = 2.0
"""Seconds for which STOP waits for devices to be safe before it answers; making them safe goes on after that."""
_LOOK = 0.1
"""Seconds between two looks whether the experiments have ended after STOP."""
_UNTIL_ENDED = 15.0
"""Seconds, beside the ``stop_timeout`` of the testbed, until STOP no longer waits for the experiments to end."""


@dataclass
class _Stopping:
    """What came of a STOP."""

    experiments: list[str] = field(default_factory=list)
    devices: dict[str, str] = field(default_factory=dict)


class Emergency:
    """Carries out what never waits for a mutex. For one event loop.

    Args:
        sessions: in which that is done.
    """

    def __init__(self, sessions: VisitorSessions) -> None:
        self._sessions = sessions
        self._client = sessions.client
        self._resetting = threading.Lock()

    async def stop(self, visitor: Visitor) -> dict[str, Any]:
        """Stop every experiment and make every device safe, whoever has it.

        When the experiments have ended, the devices are made safe once more: an experiment may have switched one on
        before it heard of the STOP.
        """
        reason = f"STOP by {visitor}"
        self._sessions.say(f"{reason}: all experiments are stopped, all devices are made safe")
        self._sessions.note(visitor, "stopped", "everything")
        came_to: _Stopping = await self._sessions.urgently(partial(self._stop, reason))
        return {"experiments": came_to.experiments, "devices": came_to.devices}

    def _stop(self, reason: str) -> _Stopping:
        done: dict[str, str] = {}
        safe = self._make_all_safe(done)
        stopping = _Stopping()
        told = all_at_once({"stop": partial(self._stop_experiments, reason, stopping)}, "STOP")["stop"]
        deadline = time.monotonic() + _SAFE_IN_TIME
        for name, errand in safe.items():
            if not errand.wait(max(0.0, deadline - time.monotonic())):
                stopping.devices[name] = "not known: it is still being made safe"
            elif errand.failure is not None:
                stopping.devices[name] = f"not known to be safe: {errand.failure}"
            else:
                stopping.devices[name] = done[name]
        if not told.wait(max(0.0, deadline - time.monotonic())) or told.failure is not None:
            stopping.devices["experiments"] = f"not known to have been told to stop: {told.failure or 'no answer'}"
        if stopping.experiments or "experiments" in stopping.devices:
            threading.Thread(target=self._stop_again, name="STOP, once more", daemon=True).start()
        return stopping

    def _stop_experiments(self, reason: str, stopping: _Stopping) -> None:
        for name in self._running():
            stopping.experiments.append(name)
            try:
                self._client.stop(name, reason=reason)
            except CatkitDevicesError:
                if name in self._running():  # else it has ended by itself meanwhile
                    raise

    def _stop_again(self) -> None:
        deadline = time.monotonic() + self._client.layout.stop_timeout + _UNTIL_ENDED
        with contextlib.suppress(*UNREACHABLE):
            while True:
                if not self._running() or time.monotonic() > deadline:
                    break
                time.sleep(_LOOK)
        self._make_all_safe({})

    def _running(self) -> list[str]:
        return [one.name for one in self._client.progress() if one.state not in ENDED]

    def _make_all_safe(self, done: dict[str, str]) -> dict[str, Errand]:
        """Begin to make all devices safe; what was done for each is put into ``done``."""

        def make_safe(entry: DeviceEntry) -> None:
            done[entry.name] = self._make_safe(entry)

        return all_at_once({one.name: partial(make_safe, one) for one in self._client.layout.devices}, "make safe")

    def _make_safe(self, entry: DeviceEntry) -> str:
        """Make a device safe; return what that came to, in words."""
        device = self._client.devices.made(entry.name)
        if device is None or device.state == "closed":
            if device is not None:
                device.make_safe()  # it may have been closed without being made safe
            return CLOSED
        device.make_safe()
        return SAFE if entry.says_how_safe else "not known: neither its driver nor the configuration says how"

    async def make_safe(self, visitor: Visitor, name: str) -> dict[str, Any]:
        """Make one device safe, whoever has it."""
        entry = self._sessions.device(name)
        self._sessions.say(f"{visitor} makes {entry.name} safe")
        self._sessions.note(visitor, "made safe", entry.name)
        return {"device": entry.name, "is": await self._sessions.urgently(partial(self._make_safe, entry))}

    async def break_lock(self, visitor: Visitor, name: str, reason: str) -> dict[str, Any]:
        """Take a mutex from whoever has it."""
        said = f"{reason} ({visitor})"
        holder = await self._sessions.urgently(
            self._sessions.as_visitor(visitor, partial(self._client.break_lock, name, said))
        )
        return {"mutex": name, "holder": holder}

    async def reset_safety(self, visitor: Visitor, reason: str) -> dict[str, Any]:
        """Allow changes again after a trip."""
        if not self._resetting.acquire(blocking=False):
            raise Problem(409, "the safety is being reset already: every check is read once more")

        def reset() -> None:
            try:
                self._client.reset_safety(f"{reason} ({visitor})")
            finally:
                self._resetting.release()

        await self._sessions.urgently(self._sessions.as_visitor(visitor, reset))
        return {"reset": True}
