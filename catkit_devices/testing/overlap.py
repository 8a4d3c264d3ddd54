"""Tests whether operations of a device overlap.

There are two tests. In the first, another thread runs an operation when the operation under test begins. The operation
under test must neither end nor use the wire before the other operation has ended. In the second, another thread wants
the device as soon as the operation under test has used the wire. This thread must not get the device before the
operation under test has ended.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from catkit_devices._base.ctrl_c import InterruptSafeEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.testing.members import Member
    from catkit_devices.testing.rig import Rig

__all__ = ["gets_in", "is_entered", "while_held"]

_TIMEOUT = 20.0
"""Seconds until a step of a test fails; it normally takes milliseconds."""
_PAUSE = 0.0005
"""Seconds between two checks who waits."""


class _Attempt:
    """A function that runs in its own thread; its result does not matter."""

    def __init__(self, do: Callable[[], object]) -> None:
        self._do = do
        self.ended = InterruptSafeEvent()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._do()
        except Exception:  # noqa: BLE001, S110 - whether it succeeds is tested by other rules
            pass
        finally:
            self.ended.set()


def gets_in(rig: Rig, member: Member) -> str | None:
    """Begin an operation while another one is running; return how the two overlapped, None if they did not."""
    device: Any = rig.device
    begun, may_end = InterruptSafeEvent(), InterruptSafeEvent()

    def occupy(_device: Any) -> None:
        begun.set()
        may_end.wait(_TIMEOUT)

    occupant = _Attempt(lambda: device._perform_(occupy, "occupied", (), {}, shared=False, changes=False))
    begun.wait(_TIMEOUT)
    before = rig.written
    try:
        attempt = _Attempt(lambda: member.run(device))
        _until(lambda: attempt.ended.is_set() or _queued(device) or rig.written > before)
        if rig.written > before:
            return f"{member} used the wire while another operation was running"
        if attempt.ended.is_set():
            return f"{member} ended while another operation was running"
    finally:
        may_end.set()
        occupant.ended.wait(_TIMEOUT)
    if not attempt.ended.wait(_TIMEOUT):
        return f"{member} did not end within {_TIMEOUT:g} s"
    return None


def is_entered(rig: Rig, member: Member) -> str | None:
    """Try to use the device in the middle of an operation; return how that was possible, None if it was not."""
    device: Any = rig.device
    tap = rig.tap
    if tap is None:
        return None
    entered_at: list[int] = []
    intruders: list[_Attempt] = []

    def intrude(_device: Any) -> None:
        entered_at.append(len(tap))

    def after_first_write() -> None:
        tap.on_write = None
        intruders.append(_Attempt(lambda: device._perform_(intrude, "intruder", (), {}, shared=False, changes=False)))
        _until(lambda: intruders[0].ended.is_set() or _queued(device))

    before = len(tap)
    tap.on_write = after_first_write
    attempt = _Attempt(lambda: member.run(device))
    attempt.ended.wait(_TIMEOUT)
    tap.on_write = None
    for intruder in intruders:
        intruder.ended.wait(_TIMEOUT)
    own = tap.by(attempt.thread.ident or 0, since=before)
    if entered_at and own and own[-1] >= entered_at[0]:
        return f"another operation ran between two exchanges of {member}"
    return None


def while_held(device: Any, do: Callable[[], object]) -> bool:
    """Call ``do`` while another thread holds the device; return whether the call had to wait for that thread."""
    held, may_end = InterruptSafeEvent(), InterruptSafeEvent()

    def hold() -> None:
        with device.lock():
            held.set()
            may_end.wait(_TIMEOUT)

    holder = _Attempt(hold)
    held.wait(_TIMEOUT)
    attempt = _Attempt(do)
    try:
        _until(lambda: attempt.ended.is_set() or _queued(device))
        return not attempt.ended.is_set()
    finally:
        may_end.set()
        holder.ended.wait(_TIMEOUT)
        attempt.ended.wait(_TIMEOUT)


def _queued(device: Any) -> bool:
    return bool(device.mutex.waiters or device._access_.operation_lock.waiters())


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while not condition() and time.monotonic() < deadline:
        time.sleep(_PAUSE)
