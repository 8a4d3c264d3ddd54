"""A device's connection: closed, open, lost, in FAULT; and how the device is made safe in each of these states."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from catkit_devices._base.standby import Standby
from catkit_devices._device import process_end
from catkit_devices.errors import (
    CatkitDevicesError,
    DeviceClosedError,
    DeviceDisconnectedError,
    DeviceError,
    DeviceFaultError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
)
from catkit_devices.multiprocessing.locks.owner import calling, current_call, emergency_call, forwarded_call
from catkit_devices.multiprocessing.protocol import running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from catkit_devices._base.standby import Errand
    from catkit_devices._device.access import Access
    from catkit_devices.multiprocessing.locks.owner import Call

__all__ = ["Lifecycle", "State"]

_log = logging.getLogger(__name__)


class State(StrEnum):
    """What a device's ``state`` says."""

    CLOSED = "closed"
    """It is not open."""
    OPEN = "open"
    """It is open, and its connection is not known to be lost."""
    LOST = "lost"
    """It is open, its connection is lost, and the next operation opens a new one."""
    FAULT = "fault"
    """It refuses every use until ``reset()``, whether its connection is open or not."""


_CLOSED, _OPEN, _LOST, _FAULT = State
"""Plain names, because every operation compares them, and Python 3.11 takes long to look up a member of an enum."""


class _Device(Protocol):
    """What a lifecycle needs of its device; ``catkit_devices.device.Device`` says what each does."""

    @property
    def name(self) -> str: ...
    def _connect_(self) -> None: ...
    def _learn_(self) -> None: ...
    def _only_connects_(self) -> bool: ...
    def _disconnect_(self) -> None: ...
    def _is_connected_(self) -> bool: ...
    def _can_be_made_safe_(self) -> bool: ...
    def _may_give_way_(self, chain: object) -> bool: ...
    def _make_safe_in_doubt_(self) -> None: ...
    def _says_how_safe_(self) -> bool: ...
    def _in_the_way_(self) -> str: ...
    def _facts_(self, command: str | bytes | None = None) -> dict[str, Any]: ...
    def _event_record_(self, kind: str, **facts: Any) -> dict[str, Any]: ...


class Lifecycle:
    """The state of one device. Nothing else has its driver open, close or make safe the instrument.

    The locks decide which thread may use it and when; only making safe may come at any time, without them.

    Args:
        device: the device.
        access: the device's locks and permission.
        safe_timeout: seconds that making safe may take.
        open_on_use: whether the first operation opens the device.

    Attributes:
        device: the device.
        safe_timeout: seconds that making safe may take.
        fault: why the device is in FAULT; None while it is not.
        unsafe: why the device could not be made safe; None since it was.
        of_parent: in a forked child, the pid of the process that had the device open at the fork; else None.
    """

    def __init__(self, device: _Device, access: Access, safe_timeout: float, *, open_on_use: bool) -> None:
        self.device = device
        self.safe_timeout = safe_timeout
        self.fault: str | None = None
        self.unsafe: str | None = None
        self.of_parent: int | None = None
        self._access = access
        self._open_on_use = open_on_use
        self._connection: State = _CLOSED
        """The state without FAULT: a device can be in FAULT in each of these states."""
        self._turning = threading.Lock()
        """Held while the state is changed."""
        self._to_be_closed = False
        """Whether the driver's ``_close`` must still be called for the last ``_open``."""
        self._cut_off: object = None
        """The section that was held when the connection was lost."""
        self._guard = threading.RLock()
        """Held while a connection is opened or closed."""
        self._connecting = False
        """Whether a connection is being made, by the thread that has the guard."""
        self._standby: Standby | None = None
        """The thread that makes the device safe: started before the device is opened, ended when it is closed."""
        self._standby_guard = threading.Lock()
        self._errand: Errand | None = None
        """The last request to make the device safe."""
        self._being_made_safe = threading.RLock()
        self._replaced_at: Callable[[], float | None] | None = None
        access.ask(refusal=self._refusal_to_enter, may_give_way=device._may_give_way_, settle=self._settle)

    # --- the state

    @property
    def state(self) -> State:
        """The state."""
        return self._connection if self.fault is None else _FAULT

    @property
    def is_open(self) -> bool:
        """Whether the device is open, whether or not its connection is lost."""
        return self._connection is not _CLOSED

    @property
    def connected(self) -> bool:
        """Whether the device is open, over a connection that is not known to be lost."""
        return self._connection is _OPEN

    @property
    def is_settled(self) -> bool:
        """Whether it has a connection that is not just being opened or closed."""
        return self._to_be_closed

    @property
    def opening(self) -> bool:
        """Whether somebody is opening it, if it is one of the devices that may be on."""
        return not self.is_open and self.unsafe is None

    def _turn(self, before: State, after: State) -> None:
        """Change the state of the connection from ``before`` to ``after``; do nothing in any other state."""
        with self._turning:
            if self._connection is before:
                self._connection = after

    # --- what an operation needs

    def share_connection(self, replaced_at: Callable[[], float | None]) -> None:
        """Say that other devices use the same connection.

        Args:
            replaced_at: returns when another one opened a new connection, on the monotonic clock; None if none did.
        """
        self._replaced_at = replaced_at

    def ready(self, operation: str, changes: bool) -> None:
        """Refuse an operation that the device's state does not allow; open or restore the connection for it.

        Args:
            operation: its name.
            changes: whether it changes the device.
        """
        if self._replaced_at is not None and (replaced := self._replaced_at()) is not None:
            self.lose(replaced)
        anew = self._connection is not _OPEN
        if changes and not running_server:  # a server handles the signals itself
            process_end.watch_signals_again()
        if changes or anew:
            self._access.require_permission(operation, changes)
        if (refusal := self.refusal()) is not None:
            raise refusal
        if anew and self._access.operation_lock.has_guest():
            # This is a shared read in the middle of an operation, which must not go on over another connection.
            raise DeviceDisconnectedError(
                f"{operation!r} needs a connection, and an operation waits", **self.device._facts_()
            )
        if anew or self._cut_off is not None:
            self._reconnect(operation)
        if self._connection is _CLOSED:
            if not self._open_on_use:
                raise DeviceClosedError(f"{operation!r} needs it open; it is closed", **self.device._facts_())
            self.open()
        if anew:
            self.make_safe_if_changes_are_refused(operation)
            if changes:
                self._access.require_permission(operation, changes)  # the permission may have ended while it was opened

    def open_if_allowed(self) -> None:
        """Open the device if it is not open and opening is permitted.

        Raises:
            DeviceFaultError: it is in FAULT.
        """
        if not self.is_open:
            self._access.require_permission("open", False)
            self.open()
            self.make_safe_if_changes_are_refused("open")
        elif (refusal := self.refusal()) is not None:
            raise refusal

    def make_safe_if_changes_are_refused(self, operation: str) -> None:
        """Make a device safe that was opened while nothing may be changed: many instruments start with output on."""
        # If nobody has said how, only FAULT could follow; a testbed that starts permits no changes yet, and reads it.
        if self._access.refusal(operation, True) is not None and self.device._says_how_safe_():
            self.make_safe()

    # --- open and close

    def open(self) -> None:
        """Open the device; harmless when it is open.

        Raises:
            DeviceFaultError: it is in FAULT, which only ``reset`` ends.
        """
        with self._guard:
            refusal = self.refusal()
            if refusal is not None:
                raise refusal
            if self.is_open:
                return
            self._stand_by()
            try:
                if (register := self._access.register) is not None:
                    register._opening_(self.device)
                self._connect()
                self._turn(_CLOSED, _OPEN)
                # Again, because opening may have registered a function with atexit that ends the connection.
                process_end.note(self)
            except BaseException:
                self._undo_opening()
                raise
            finally:
                self._stand_down()
        _log.info("device %r opened", self.device.name, extra=self.device._event_record_("device_opened"))

    def _undo_opening(self) -> None:
        """Make safe and close what the driver had opened when it failed or Ctrl-C came: it may have switched on."""
        if self.is_open or not self.device._is_connected_():
            return
        try:
            with process_end.without_ctrl_c(), calling(emergency_call()):
                try:
                    self._make_safe_in_spite_of_the_line()
                finally:
                    self._to_be_closed = False
                    self.device._disconnect_()
        except Exception as error:  # noqa: BLE001 - of the driver; what ended the opening is raised
            self._doubt("its opening failed, and it may be on", error)

    def close(self) -> None:
        """Make the device safe and close it; harmless when it is closed.

        Raises:
            DeviceFaultError: it could not be made safe, or is in FAULT for another reason; it is closed all the same.
        """
        try:
            if self.is_open or self.unsafe is not None:
                try:
                    if self.device._says_how_safe_():
                        # Not under the guard: making safe may have to restore the connection.
                        self.make_safe()
                except Exception:
                    self._shut_elsewhere()
                    raise
                # Not after Ctrl-C: the connection is needed for as long as it is being made safe.
                self._shut_elsewhere()
        finally:
            self._access.forget_changes()
        if (refusal := self.refusal()) is not None:
            raise refusal  # it is safe now, but the caller must learn that the device was in FAULT

    def reset(self) -> None:
        """Make the device safe, over a new connection if need be; then close it and forget a fault.

        Raises:
            DeviceFaultError: it could not be made safe; it stays in FAULT.
        """
        if self.device._says_how_safe_():
            try:
                self.make_safe()
            except DeviceFaultError:
                self._turn(_OPEN, _LOST)
                self.make_safe()
        else:
            self.unsafe = None  # the person who resets it has looked at it
        self._shut_elsewhere()
        self.fault = None

    def abandon(self) -> None:
        """Close the device without making it safe, for a test whose simulated instrument does not exist any more."""
        self.unsafe = None
        with contextlib.suppress(CatkitDevicesError):
            self._shut()
        self.fault = None

    def _shut_elsewhere(self) -> None:
        """Close it in the thread that makes it safe, as part of this call: Ctrl-C does not interrupt that thread."""
        call, errand = current_call(), None
        with self._standby_guard:
            if self._standby is not None and self._standby.alive and not self._standby.is_this_thread:
                errand = self._standby.do(lambda: self._shut_for(call))
        if errand is None:
            self._shut()
            return
        errand.wait(None)
        if errand.failure is not None:
            raise errand.failure

    def _shut_for(self, call: Call) -> None:
        with calling(call):
            self._shut()

    def _shut(self) -> None:
        with contextlib.ExitStack() as stack:
            # Another thread may be making it safe at the moment: wait for that, but not if it hangs.
            if self.unsafe is None and self._being_made_safe.acquire(timeout=self.safe_timeout):
                stack.callback(self._being_made_safe.release)
            stack.enter_context(self._guard)
            with self._turning:
                was_open, self._connection = self.is_open, _CLOSED
            try:
                self._disconnect()
            finally:
                self._cut_off = None
                self._stand_down()
                if was_open:
                    _log.info("device %r closed", self.device.name, extra=self.device._event_record_("device_closed"))

    def begin_to_shut(self) -> Errand | None:
        """Have it closed as it is, which may take long; return the task, or None if nothing can be done.

        Nothing can be done if it is closed already, or if making it safe hangs. If another thread is just closing it,
        the task that is returned ends when that is done.
        """
        with self._standby_guard:
            hangs = self.unsafe is not None
            return None if hangs or self._standby is None else self._standby.do(self._shut)

    def _connect(self) -> None:
        with self._guard:
            with contextlib.suppress(CatkitDevicesError):
                self._disconnect()
            self._connecting = True
            try:
                self.device._connect_()
                self._to_be_closed = True
                self._learn()
                self._turn(_LOST, _OPEN)
            finally:
                self._connecting = False

    def _connect_or_undo(self) -> None:
        try:
            self._connect()
        except BaseException:
            self._undo_opening()
            raise

    def _learn(self) -> None:
        try:
            self.device._learn_()
        except Exception as error:
            call = forwarded_call()
            if call is not None and call.emergency:
                # The components that were known before are made safe.
                _log.warning("device %r: what depends on the instrument could not be read: %s", self.device.name, error)
                return
            if self.device._only_connects_():
                # Opening has switched nothing on; outputs that were on before are made safe over the next connection.
                self._disconnect()
            if isinstance(error, DeviceError) and not isinstance(error, DeviceOpenError):
                problem = f"what depends on the instrument could not be read: {error.problem}"
                raise DeviceOpenError(problem, **self.device._facts_(error.command)) from error
            raise

    def _disconnect(self) -> None:
        if self._to_be_closed:
            self._to_be_closed = False
            self.device._disconnect_()

    def _stand_by(self) -> None:
        """Start the thread that makes it safe and closes it, before there is anything to be made safe."""
        with self._standby_guard:
            try:
                process_end.note(self)
                if self._standby is None or not self._standby.alive:
                    self._standby = Standby(f"make-safe-{self.device.name}")
            except RuntimeError as error:
                process_end.forget(self)
                raise DeviceOpenError(
                    f"is not opened: the thread that would have to make it safe cannot be started ({error})",
                    **self.device._facts_(),
                ) from error

    def _stand_down(self) -> None:
        with self._standby_guard:
            if self.is_open or self.unsafe is not None:
                return
            process_end.forget(self)
            if (register := self._access.register) is not None:
                register._closed_(self.device)
            if self._standby is not None:
                self._standby.end()
                self._standby = None

    # --- a connection that is lost

    def lose(self, when: float = math.inf) -> None:
        """Note that the connection is lost: the next operation opens a new one, but not in a section held at that time.

        Args:
            when: on the monotonic clock; by default now.
        """
        self._turn(_OPEN, _LOST)
        self._cut_off = self._access.mutex_lock.section(begun_before=when)

    def concerns(self, error: DeviceError) -> bool:
        """Whether an error is about this device, not about another one that it uses."""
        facts = self.device._facts_()
        return all(getattr(error, fact) in (None, facts[fact]) for fact in ("device", "driver", "address"))

    def loses_by(self, error: DeviceDisconnectedError) -> bool:
        """Note that the connection is lost if an error says so of this device; return whether it does."""
        if not self.concerns(error):
            return False
        if error.device is None:
            error.device = self.device.name  # else each device that uses this one would take the error for its own
        self.lose()
        return True

    def _reconnect(self, operation: str) -> None:
        """Open a new connection if the last one was lost; settings are not assumed to have survived.

        Args:
            operation: for which it is.

        Raises:
            DeviceDisconnectedError: the caller is in a section that it held when the connection was lost. Other owners,
                who use the device for a shared read, do not get this error.
            DeviceOpenError: the instrument does not answer yet.
        """
        if self._connection is not _LOST and self._cut_off is None:
            return
        lock = self._access.mutex_lock
        if lock.section() is not self._cut_off:
            self._cut_off = None
        elif self._cut_off is not None and lock.held_by(current_call()):
            raise DeviceDisconnectedError(
                "the connection was lost in this section, and with it perhaps what it has set: leave the section",
                **self.device._facts_(operation),
            )
        self.restore()

    def restore(self) -> bool:
        """Open a new connection if the last one is known to be lost, or if a closed device is to be made safe.

        Returns:
            Whether there is a connection that is complete. There is none yet if this is part of making one: a function
            that tells limits, or which components there are, reads a property over the new connection.
        """
        with self._guard:
            if self._connecting:
                return False
            if self.connected or (not self.is_open and (self._to_be_closed or self.unsafe is None)):
                return True
            self._connect_or_undo()
        _log.warning("device %r: connection restored", self.device.name)
        return True

    # --- safety

    def make_safe(self) -> None:
        """Have the driver make the device safe: twice if necessary, over a new connection if the old one is lost.

        A closed one is left alone, unless it was closed without being made safe: then it is opened for this.

        Raises:
            DeviceFaultError: it could not be made safe within ``safe_timeout``; it is in FAULT from then on.
        """
        errand = self.begin_to_make_safe()
        if errand is not None:
            self.finish_to_make_safe(errand)

    def secure(self) -> Errand | None:
        """Begin to make it safe while operations may still be running; each makes it safe again when it ends."""
        access = self._access
        running = access.mutex_lock.running() if self.connected else access.running()  # a read may have to open it
        access.unsettle(running)
        return self.begin_to_make_safe()

    def begin_to_make_safe(self) -> Errand | None:
        """Have it made safe; return what ``finish_to_make_safe`` waits for, or None if there is nothing to do."""
        self.require_own()
        with self._standby_guard:
            if not (self.is_open or self.unsafe is not None) or not self.device._can_be_made_safe_():
                return None
            if self._standby is None or not self._standby.alive:
                self._standby = Standby(f"make-safe-{self.device.name}")
            if self.makes_safe_here:
                raise TypeError(f"{type(self.device).__qualname__}._make_safe() calls make_safe(), which calls it")
            errand = self._errand
            if errand is None or errand.begun:  # a task that has not begun yet serves this request too
                errand = self._errand = self._standby.do(self._make_safe)
            return errand

    def finish_to_make_safe(self, errand: Errand) -> None:
        """Wait until it is made safe, for at most ``safe_timeout`` seconds since that was asked for.

        Raises:
            DeviceFaultError: it is not; it is in FAULT from then on.
        """
        ended = errand.wait(max(0.0, errand.asked + self.safe_timeout - time.monotonic()))
        failure = errand.failure
        if ended and failure is None:
            return
        why = f"not done in {self.safe_timeout:g} s{self.device._in_the_way_()}"
        if failure is not None:
            why = f"{type(failure).__name__}: {failure}"
        text = f"could not be made safe ({why})"
        self.unsafe = text
        if errand.wait(0.0) and errand.failure is None:
            self.unsafe = None  # late
        self.fail(text)
        raise DeviceFaultError(text, **self.device._facts_("make_safe")) from failure

    def cannot_secure(self, error: Exception) -> None:
        """Note that making it safe could not even begin: it is not known to be safe."""
        self.unsafe = f"{type(error).__name__}: {error}"

    @property
    def makes_safe_here(self) -> bool:
        """Whether this thread is the one that makes the device safe."""
        return self._standby is not None and self._standby.is_this_thread

    def doubt(self) -> str | None:
        """Return why it is not known to be safe, after somebody has asked to make it safe; None if it is safe."""
        if self.unsafe is not None:
            return self.unsafe
        if not self._access.unsettled():
            return None
        holder = self._access.mutex_lock.holder() or self._access.operation_lock.holder()
        whose = "" if holder is None else f" {holder.site or ''} of {holder.owner}"
        return (
            f"an operation that may change it again is still running:{whose}; it is made safe again when that has ended"
        )

    def interrupt(self, reason: str) -> None:
        """Take the device from its holder; an operation that is running ends at its next exchange."""
        self._access.mutex_lock.break_(reason)

    def _settle(self, _: Call) -> None:
        """Make it safe at the end of an operation that was running when it was made safe, or that put it into FAULT."""
        with contextlib.suppress(DeviceFaultError):  # logged, and known as unsafe
            self.make_safe()
            _log.warning(
                "device %r: made safe again, after the end of an operation that was running when it was made safe",
                self.device.name,
            )

    def _make_safe(self) -> None:
        # A call of its own: the one that is running may be cancelled, this one must get through.
        with calling(emergency_call()), self._being_made_safe:
            if not self.is_open and self.unsafe is None:
                return  # it was closed meanwhile, and made safe before that
            try:
                self.restore()
                self._make_safe_now()
            finally:
                with self._guard:
                    if not self.is_open:
                        self._disconnect()
                        self._stand_down()

    def _make_safe_now(self) -> None:
        self._make_safe_in_spite_of_the_line()
        if self.fault is not None and self.fault == self.unsafe:
            self.fault += "; it has been made safe since"
        self.unsafe = None

    @contextlib.contextmanager
    def reached(self) -> Iterator[None]:
        """Connect a closed device during a block, because another device needs it to be made safe.

        Opening it may switch something on, so it is made safe before the block. If that fails, the block is done all
        the same, and the device is in FAULT. For everybody else it stays closed: who opens it waits for the end.

        Raises:
            DeviceOpenError: it cannot be opened, or somebody opens it or makes it safe and does not come to an end.
        """
        with contextlib.ExitStack() as stack:
            for lock in (self._being_made_safe, self._guard):
                if not lock.acquire(timeout=self.safe_timeout):
                    problem = f"is just being opened, closed or made safe, for longer than {self.safe_timeout:g} s"
                    raise DeviceOpenError(problem, **self.device._facts_())
                stack.callback(lock.release)
            if self.is_open or self._to_be_closed or self._connecting or self.device._is_connected_():
                # It was opened meanwhile, or this is part of opening it, of making it safe, or of such a block.
                yield
                return
            # It is not recorded on the testbed's server: nothing that is not needed may delay making safe.
            process_end.note(self)
            try:
                self._connect_or_undo()
                if self.device._says_how_safe_():
                    try:
                        self._make_safe_now()
                    except Exception as error:  # noqa: BLE001 - of the driver; the other device is made safe all the same
                        self._doubt("could not be made safe", error)
                yield
            finally:
                try:
                    self._disconnect()
                finally:
                    self._stand_down()

    def _doubt(self, what: str, error: Exception) -> None:
        """Put it into FAULT because it is not known to be safe."""
        self.unsafe = f"{what} ({type(error).__name__}: {error})"
        self.fail(self.unsafe)

    def _make_safe_in_spite_of_the_line(self) -> None:
        try:
            self.device._make_safe_in_doubt_()
        except (DeviceDisconnectedError, DeviceTimeoutError, DeviceProtocolError) as error:
            # A laser must not stay on because one reply was lost or garbled.
            _log.warning("device %r: once more, to make it safe: %s", self.device.name, error)
            if isinstance(error, DeviceDisconnectedError) and self.loses_by(error):
                self.restore() if self.is_open else self._connect()
            self.device._make_safe_in_doubt_()
        except DeviceFaultError as error:
            if not self.concerns(error):
                raise
            # The line cannot be trusted; a new connection can, once the instrument has identified itself.
            _log.warning("device %r: over a new connection, to make it safe: %s", self.device.name, error)
            self._turn(_OPEN, _LOST)
            self.restore() if self.is_open else self._connect()
            self.device._make_safe_in_doubt_()

    def leave_to_parent(self) -> None:
        """In a forked child: note that the device belongs to the parent process."""
        self.of_parent = os.getppid()

    def require_own(self) -> None:
        """Raise DeviceClosedError if the device belongs to the parent process, which has forked this one."""
        if self.of_parent is not None and (refusal := self.refusal()) is not None:
            raise refusal

    def fail(self, reason: str) -> None:
        """Put the device into FAULT: it refuses every further use until ``reset()``."""
        self.fault = reason
        record = self.device._event_record_("device_fault", reason=reason)
        _log.error("device %r: %s", self.device.name, reason, extra=record)

    def fail_and_make_safe(self, reason: str) -> None:
        """Put the device into FAULT, and have it made safe when the operation that is running ends."""
        self.fail(reason)
        call = forwarded_call()
        if call is not None and not call.emergency:
            self._access.unsettle([call])

    def refusal(self) -> BaseException | None:
        """Return the error of every use of a device in FAULT, or of another process; None if it may be used."""
        if self.of_parent is not None:
            return DeviceClosedError(
                f"was open in the process that forked this one (pid {self.of_parent}), and belongs to that process: "
                "close it before the fork, or let a server have it: SharedMemoryManager.get_object(name, factory)",
                **self.device._facts_(),
            )
        if self.fault is None:
            return None
        return DeviceFaultError(f"is in FAULT: {self.fault}; reset() it after looking at it", **self.device._facts_())

    def _refusal_to_enter(self) -> BaseException | None:
        """Return why nobody may have the device; None if it may be used, or if the caller may close it in FAULT."""
        if self.of_parent is None and (self.fault is None or self._access.is_closing(forwarded_call())):
            return None
        return self.refusal()
