"""Who keeps a device open, and the opening and closing that follows from it."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from typing import TYPE_CHECKING

from catkit_devices.errors import CatkitDevicesError
from catkit_devices.multiprocessing.locks.entries import Entries, OwnEntries, new_entry
from catkit_devices.multiprocessing.locks.owner import calling, current_call, emergency_call

if TYPE_CHECKING:
    from catkit_devices._device.access import Access
    from catkit_devices._device.connection import Lifecycle
    from catkit_devices.multiprocessing.locks.entries import OpenEntry
    from catkit_devices.multiprocessing.locks.owner import Session

__all__ = ["Openings"]

_log = logging.getLogger(__name__)


class Openings:
    """Opens a device when the first user enters, and closes it when the last one leaves.

    Args:
        life: of the device.
        access: to the device.
        kept: whether it stays open when the last one has left, until it is closed by force (devices of a testbed).
    """

    def __init__(self, life: Lifecycle, access: Access, *, kept: bool) -> None:
        self._life = life
        self._access = access
        self._kept = kept
        self._entries = Entries()
        self._here = OwnEntries()
        """The entries of this process; each client of a server keeps its own."""

    def enter_here(self, *, block: bool) -> None:
        """Enter from this process: by ``with``, or by ``open()``; raises as ``enter``, and then nothing is counted."""
        entry = new_entry(block=block)
        try:
            self.enter(entry)
            self._here.add(entry, current_call().session)
        except BaseException:
            self._here.discard(entry)
            self.withdraw(entry)
            raise

    def leave_here(self, *, block: bool, force: bool = False) -> None:
        """End the newest entry of this process, one of the calling thread's if it has one; raises as ``leave``.

        A forked child that leaves a block of its parent ends nothing.
        """
        if self._life.of_parent is not None and not force:
            return
        self._life.require_own()
        found = self._here.newest(block=block, session=current_call().session)
        entry = None if found is None else found.entry
        try:
            self.leave(entry, force)
        finally:
            if entry is not None:
                self._here.discard(entry)

    def enter(self, entry: OpenEntry) -> None:
        """Open the device if it is not open, and keep it open for the caller's session; may be done twice.

        Raises:
            DeviceOpenError: it cannot be opened.
            DeviceFaultError: it is in FAULT.
            SafetyError: on a testbed whose safety checks have tripped.
            BaseException: why the call was cancelled; nothing is counted then.
        """
        self._life.require_own()
        with calling(current_call()) as call:
            if call.emergency:
                return  # each operation that is part of making a device safe opens what it needs
            if not self._life.is_open:
                self._access.require_permission("open", False)  # refuse before waiting for the holder of the device
            self._access.enter(call, "open")
            try:
                try:
                    self._life.open_if_allowed()
                    self._entries.add(call, entry)
                except BaseException:
                    self._entries.remove(entry)
                    with contextlib.suppress(CatkitDevicesError):  # logged
                        self.close_if_unused()
                    raise
            finally:
                self._access.leave(call)

    def leave(self, entry: OpenEntry | None, force: bool = False) -> None:
        """End what ``enter`` began, and close the device after the last one; may be done twice.

        Args:
            entry: None if there is none to end.
            force: end the entries of all sessions.

        Raises:
            MutexTimeoutError: somebody has it; it is closed when it is free.
            DeviceFaultError: it could not be made safe, or is in FAULT for another reason; it is closed all the same.
        """
        with calling(current_call()) as call:
            try:
                if entry is not None:
                    self._entries.remove(entry)
                if not force and (self._in_use or call.emergency):
                    return
                with self._access.to_close(call):
                    if force:
                        self._entries.clear()
                    self.close_if_unused(force)
            except BaseException:
                self._close_when_free()
                raise

    def withdraw(self, entry: OpenEntry) -> None:
        """Remove an entry of an interrupted call, whether or not it was counted; returns at once."""
        if self._entries.remove(entry):
            self._close_when_free()

    def end_session(self, session: Session) -> bool:
        """Remove all entries of a session; return whether the device must be closed because of that."""
        return self._entries.end_session(session) and not self._in_use and self._life.is_open

    def close_if_unused(self, force: bool = False) -> None:
        """Close the device if nobody keeps it open, or if ``force``; the caller holds its mutex."""
        if force or not self._in_use:
            self._life.close()

    @property
    def _in_use(self) -> bool:
        return self._kept or bool(self._entries)

    def _close_when_free(self) -> None:
        """Have a device that nobody keeps open closed by another thread, as soon as it is free."""
        if not self._in_use and self._life.is_open:
            name = self._life.device.name
            threading.Thread(target=self._wait_and_close, name=f"close-{name}", daemon=True).start()

    def _wait_and_close(self) -> None:
        with calling(emergency_call()) as call:
            try:
                with self._access.to_close(call, timeout=math.inf):
                    self.close_if_unused()
            except CatkitDevicesError as error:
                _log.error("device %r was not closed: %s", self._life.device.name, error)
