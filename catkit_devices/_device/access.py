"""Who may use a device, and when: its mutex, the lock of its operations, and the permission that changes need."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from catkit_devices._device import process_end
from catkit_devices.multiprocessing.locks.lock import OwnedLock
from catkit_devices.multiprocessing.locks.mutex import Mutex, default_timeout
from catkit_devices.multiprocessing.protocol import running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from catkit_devices.multiprocessing.locks.owner import Call, Session

    Gate = Callable[[str, str, bool], BaseException | None]
    """Asked with device, operation, and whether that changes its state (else it would have to open the device);
    returns why it may not be done now."""

__all__ = ["Access"]


class Access:
    """The locks of one device, and the permission to change it.

    Args:
        name: of the device.
        timeout: seconds that an operation waits for the mutex.

    Attributes:
        mutex: says which owner may use the device, over as many operations as it likes.
        mutex_lock: the lock that the mutex is.
        operation_lock: held by each operation; a read marked ``shared`` takes only this one.
        changed_by: the session that has changed the device last; None where none has since it was opened or made safe.
        closing: calls that close the device; they may have it in FAULT too, to make it safe.
        unsettled: operations that ran when the device was made safe in an emergency, or that put it into FAULT.
        settle: called for each of the unsettled operations, before it gives its locks back.
    """

    settle: Callable[[Call], None]

    def __init__(self, name: str, timeout: float) -> None:
        self._name = name
        self.mutex_lock = OwnedLock(name)
        self.mutex = Mutex.over(self.mutex_lock, default_timeout(timeout, f"mutex {name!r}"))
        self.operation_lock = OwnedLock(f"{name} (operation)", by_chain=True, timeout=self.mutex.timeout)
        self.changed_by: Session | None = None
        self.closing: set[Call] = set()
        self.unsettled: set[Call] = set()

    # --- locks

    def enter(self, call: Call, operation: str, *, shared: bool = False, timeout: float | None = None) -> None:
        """Begin an operation: under both locks, or where it is shared under the operation lock only.

        Args:
            call: on whose behalf.
            operation: its name.
            shared: whether it skips the mutex.
            timeout: seconds to wait; None for those of the mutex.
        """
        site = f"{self._name}.{operation}"
        wait = self.mutex.timeout if timeout is None else timeout
        if shared:
            self.operation_lock.enter(call, wait, site, shared=True)
        else:
            self.mutex_lock.enter_both(self.operation_lock, call, wait, site)

    def leave(self, call: Call, *, shared: bool = False) -> None:
        """Give the locks back; before that, have the device made safe if the operation is unsettled."""
        try:
            if self.unsettled:
                self.settle(call)
        finally:
            if shared:
                self.operation_lock.leave(call)
            else:
                self.mutex_lock.leave_both(self.operation_lock, call)

    @contextlib.contextmanager
    def to_close(self, call: Call, timeout: float | None = None) -> Iterator[None]:
        """Have both locks to close the device, which may be in FAULT.

        Args:
            call: on whose behalf.
            timeout: seconds to wait; None for those of the mutex.
        """
        self.closing.add(call)
        try:
            self.enter(call, "close", timeout=timeout)
            try:
                yield
            finally:
                self.leave(call)
        finally:
            self.closing.discard(call)

    def end(self, call: Call) -> None:
        """Give back whatever a call still has, where Ctrl-C has interrupted ``leave``."""
        self.operation_lock.end(call)
        self.mutex_lock.end(call)

    def begin_nested(self, call: Call, operation: str, changes: bool) -> None:
        """Begin an operation that is part of another operation of this device, under the locks of that one."""
        self.operation_lock.take_back(call)  # where another device that it uses waits, this one lets reads in
        if not changes:
            return
        if not self.mutex_lock.held_by(call):
            raise TypeError(
                f"{self._name}.{operation} changes the device, and is used by an operation marked shared, which runs "
                "without the mutex: take the mark from that one"
            )
        self.require_permission(operation, True)
        self.changed_by = call.session

    def running(self) -> list[Call]:
        """Return the operations that run now."""
        return [*self.mutex_lock.running(), *self.operation_lock.running()]

    # --- permission

    def refusal(self, operation: str, changes: bool) -> BaseException | None:
        """Return why an operation may not be done now: on a testbed whose safety checks have tripped, for example."""
        if (ending := process_end.refusal(self._name, operation)) is not None:
            return ending
        gate: Gate | None = running_server[0].host.gate if running_server else None
        return None if gate is None else gate(self._name, operation, changes)

    def require_permission(self, operation: str, changes: bool) -> None:
        """Raise why an operation may not be done now, if it may not."""
        refusal = self.refusal(operation, changes)
        if refusal is not None:
            raise refusal
