"""The life of a device's connection: closed, open, lost and restored, in FAULT; and how it is made safe in each."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Any

from catkit_devices._base.deferred import finished
from catkit_devices._base.standby import Standby
from catkit_devices._device import process_end
from catkit_devices.errors import (
    CatkitDevicesError,
    DeviceDisconnectedError,
    DeviceFaultError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
)
from catkit_devices.multiprocessing.locks.owner import calling, current_call, emergency_call

if TYPE_CHECKING:
    from catkit_devices._base.standby import Errand
    from catkit_devices.device import Device
    from catkit_devices.errors import DeviceError
    from catkit_devices.multiprocessing.locks.owner import Call

__all__ = ["Lifecycle"]

_log = logging.getLogger(__name__)


class Lifecycle:
    """The only place where a driver's ``_open``, ``_close`` and ``_make_safe`` are called.

    Which threads may use it when is the device's business, but for making safe, which may come at any time.

    Args:
        device: whose it is.
        safe_timeout: seconds that making safe may take.

    Attributes:
        is_open: whether the device is open, over whatever connection.
        fault: why it is in FAULT; None while it is not.
        unsafe: why it could not be made safe; None since it was.
        unsettled: operations that ran when it was made safe as an emergency: each makes it safe again as it ends.
    """

    def __init__(self, device: Device, safe_timeout: float) -> None:
        self.is_open = False
        self.fault: str | None = None
        self.unsafe: str | None = None
        self.unsettled: set[Call] = set()
        self.safe_timeout = safe_timeout
        self._device = device
        self._standby: Standby | None = None
        """What makes it safe: there before it is opened, until it is closed."""
        self._errand: Errand | None = None
        self._standby_guard = threading.Lock()
        self._being_made_safe = threading.RLock()
        self._connected = False
        """Whether ``_open`` has returned since ``_close`` was called last."""
        self._lost = False
        """Whether it is open without a connection, until that is restored."""
        self._cut_off: object = None
        """The section that was held when the connection was lost."""
        self._guard = threading.RLock()

    @property
    def is_settled(self) -> bool:
        """Whether it has a connection that is not just being opened or closed."""
        return self._connected

    # --- open and close

    @property
    def connected(self) -> bool:
        """Whether it is open, over a connection that is not known to be lost."""
        return self.is_open and not self._lost

    @property
    def opening(self) -> bool:
        """Whether somebody is opening it, if it is one of the devices that may be on."""
        return not self.is_open and self.unsafe is None

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
                self._connect()
                self.is_open = True
                process_end.note(self, self._device)  # once more: before the end of what opening has made
            finally:
                self._stand_down()
        name = self._device.name
        _log.info("device %r opened", name, extra=self._device._event_record_("device_opened"))

    def close(self) -> None:
        """Make the device safe and close it; harmless when it is closed.

        Raises:
            DeviceFaultError: it could not be made safe; it is closed all the same.
        """
        if not self.is_open and self.unsafe is None:
            return
        try:
            # Not under the guard: what makes safe may have to restore the connection.
            self.make_safe()
        except Exception:
            self._shut_elsewhere()
            raise
        # Not after Ctrl-C: the connection is needed for as long as it is being made safe.
        self._shut_elsewhere()

    def reset(self) -> None:
        """Make the device safe, over a new connection if need be; then close it and forget a fault.

        Raises:
            DeviceFaultError: it could not be made safe; it stays in FAULT.
        """
        try:
            self.make_safe()
        except DeviceFaultError:
            self._lost = True
            self.make_safe()
        self._shut_elsewhere()
        self.fault = None

    def abandon(self) -> None:
        """Close the device as it is, for whoever knows that nothing is on any more: a test, after its instrument."""
        self.unsafe = None
        with contextlib.suppress(CatkitDevicesError):
            self._shut()
        self.fault = None

    def _shut_elsewhere(self) -> None:
        """Have it closed by the thread that makes it safe, as part of this call: Ctrl-C cannot strike there."""
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
            # Somebody else may have asked for it to be made safe, too; one that hangs is not waited for.
            if self.unsafe is None and self._being_made_safe.acquire(timeout=self.safe_timeout):
                stack.callback(self._being_made_safe.release)
            stack.enter_context(self._guard)
            was_open, self.is_open = self.is_open, False
            try:
                self._disconnect()
            finally:
                self._lost, self._cut_off = False, None
                self._stand_down()
                if was_open:
                    name = self._device.name
                    _log.info("device %r closed", name, extra=self._device._event_record_("device_closed"))

    def begin_to_shut(self) -> Errand | None:
        """Have it closed as it is, which may take its time; return what ends then, or None where nothing can be done.

        That is where it is closed, and where the attempt to make it safe hangs. Where somebody else is just closing it,
        what is returned ends when that is done.
        """
        with self._standby_guard:
            hangs = self.unsafe is not None
            return None if hangs or self._standby is None else self._standby.do(self._shut)

    def _connect(self) -> None:
        with self._guard:
            with contextlib.suppress(CatkitDevicesError):
                self._disconnect()
            stand_in = self._device._stand_in_
            opened = self._run("_open") if stand_in is None else stand_in()
            if opened is not None:  # or the driver keeps it by itself
                self._device._connection = opened
            self._connected, self._lost = True, False

    def _disconnect(self) -> None:
        if self._connected:
            self._connected = False
            try:
                self._run("_close")
            finally:
                self._device._connection = None

    def _run(self, method: str) -> Any:
        return finished(getattr(self._device, method)(), f"{type(self._device).__qualname__}.{method}")

    def _stand_by(self) -> None:
        """Have a thread that can make it safe and close it, before there is anything to be made safe."""
        with self._standby_guard:
            try:
                process_end.note(self, self._device)
                if self._standby is None or not self._standby.alive:
                    self._standby = Standby(f"make-safe-{self._device.name}")
            except RuntimeError as error:
                process_end.forget(self)
                raise DeviceOpenError(
                    f"is not opened: the thread that would have to make it safe cannot be started ({error})",
                    **self._device._facts_(),
                ) from error

    def _stand_down(self) -> None:
        with self._standby_guard:
            if self.is_open or self.unsafe is not None:
                return
            process_end.forget(self)
            if self._standby is not None:
                self._standby.end()
                self._standby = None

    # --- a connection that is lost

    def lose(self, when: float = math.inf) -> None:
        """Note that the connection is gone: the next operation opens it anew, but for a section that was held then.

        Args:
            when: on the monotonic clock; by default now.
        """
        self._lost = True
        self._cut_off = self._device._mutex_lock_.section(begun_before=when)

    def concerns(self, error: DeviceError) -> bool:
        """Whether an error is about this device, not about another one that it uses."""
        facts = self._device._facts_()
        return all(getattr(error, fact) in (None, facts[fact]) for fact in ("device", "driver", "address"))

    def loses_by(self, error: DeviceDisconnectedError) -> bool:
        """Note that the connection is gone where an error says so of this device's own; return whether it does."""
        if not self.concerns(error):
            return False
        if error.device is None:
            error.device = self._device.name  # or each device that uses this one would take it for its own
        self.lose()
        return True

    def reconnect(self, operation: str) -> None:
        """Open anew if the connection was lost; settings are not assumed to have survived.

        Args:
            operation: for which it is.

        Raises:
            DeviceDisconnectedError: the caller is in a section that it held when the connection was lost. Whoever
                else may use the device meanwhile, for a shared read, is not told of it.
            DeviceOpenError: the instrument does not answer yet.
        """
        if not self._lost and self._cut_off is None:
            return
        lock = self._device._mutex_lock_
        if lock.section() is not self._cut_off:
            self._cut_off = None
        elif self._cut_off is not None and lock.held_by(current_call()):
            raise DeviceDisconnectedError(
                "the connection was lost in this section, and with it perhaps what it has set: leave the section",
                **self._device._facts_(operation),
            )
        self.restore()

    def restore(self) -> None:
        """Open the connection anew where it is known to be lost."""
        with self._guard:
            if self._connected and not self._lost:
                return  # or somebody has done it meanwhile
            if not self.is_open and self.unsafe is None:
                return
            self._connect()
        _log.warning("device %r: connection restored", self._device.name)

    # --- safety

    def make_safe(self) -> None:
        """Have the driver make the device safe: twice if need be, over a new connection where the old one is gone.

        A closed one is left alone, unless it was closed without being made safe: then it is opened for this.

        Raises:
            DeviceFaultError: it could not be made safe within ``safe_timeout``; it is in FAULT from then on.
        """
        errand = self.begin_to_make_safe()
        if errand is not None:
            self.finish_to_make_safe(errand)

    def secure(self) -> Errand | None:
        """Begin to make it safe though operations may be running, each of which makes it safe again as it ends."""
        running = self._device._mutex_lock_.running()
        if not self.connected:  # then a read may have to open it
            running += self._device._operation_lock_.running()
        self.unsettled = {*running, *self._still_running()}
        return self.begin_to_make_safe()

    def _still_running(self) -> list[Call]:
        """Return those of the unsettled operations that have not ended."""
        running = [*self._device._mutex_lock_.running(), *self._device._operation_lock_.running()]
        return [call for call in running if call in self.unsettled]

    def begin_to_make_safe(self) -> Errand | None:
        """Have it made safe; return what ``finish_to_make_safe`` waits for, or None where there is nothing to do."""
        with self._standby_guard:
            if not (self.is_open or self.unsafe is not None) or not self._device._can_be_made_safe_():
                return None
            if self._standby is None or not self._standby.alive:
                self._standby = Standby(f"make-safe-{self._device.name}")
            if self.makes_safe_here:
                raise TypeError(f"{type(self._device).__qualname__}._make_safe() calls make_safe(), which calls it")
            errand = self._errand
            if errand is None or errand.begun:  # one that has not begun will do for whoever asks now, too
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
        why = f"not done in {self.safe_timeout:g} s{self._device._in_the_way_()}"
        if failure is not None:
            why = f"{type(failure).__name__}: {failure}"
        text = f"could not be made safe ({why})"
        self.unsafe = text
        if errand.wait(0.0) and errand.failure is None:
            self.unsafe = None  # late
        self.fail(text)
        raise DeviceFaultError(text, **self._device._facts_("make_safe")) from failure

    @property
    def makes_safe_here(self) -> bool:
        """Whether this thread is the one that makes the device safe."""
        return self._standby is not None and self._standby.is_this_thread

    def doubt(self) -> str | None:
        """Return why it is not known to be safe after it was to be made safe; None where it is."""
        if self.unsafe is not None:
            return self.unsafe
        if not self._still_running():
            return None
        holder = self._device._mutex_lock_.holder() or self._device._operation_lock_.holder()
        whose = "" if holder is None else f" {holder.site or ''} of {holder.owner}"
        return f"an operation has not ended that may change it again:{whose}; it is made safe again then"

    def settle(self, call: Call) -> None:
        """Make it safe again, now that an operation ends which ran when it was made safe."""
        if call not in self.unsettled:
            return
        try:
            with contextlib.suppress(DeviceFaultError):  # logged, and known as unsafe
                self.make_safe()
                _log.warning("device %r: made safe again, after an operation that was running", self._device.name)
        finally:
            self.unsettled.discard(call)

    def _make_safe(self) -> None:
        # A call of its own: the one that is running may be cancelled, this one must get through.
        with calling(emergency_call()), self._being_made_safe:
            if not self.is_open and self.unsafe is None:
                return  # it was closed meanwhile, and made safe before that
            try:
                self.restore()
                self._make_safe_in_spite_of_the_line()
                self.unsafe = None
            finally:
                with self._guard:
                    if not self.is_open:
                        self._disconnect()
                        self._stand_down()

    def _make_safe_in_spite_of_the_line(self) -> None:
        try:
            self._run("_make_safe_in_doubt_")
        except (DeviceDisconnectedError, DeviceTimeoutError, DeviceProtocolError) as error:
            # One reply that is lost or garbled must not be why a laser stays on.
            _log.warning("device %r: once more, to make it safe: %s", self._device.name, error)
            if isinstance(error, DeviceDisconnectedError) and self.loses_by(error):
                self.restore()
            self._run("_make_safe_in_doubt_")

    def fail(self, reason: str) -> None:
        """Put the device into FAULT: it refuses every further use until ``reset()``."""
        self.fault = reason
        record = self._device._event_record_("device_fault", reason=reason)
        _log.error("device %r: %s", self._device.name, reason, extra=record)

    def refusal(self) -> BaseException | None:
        """Return what every use of a device in FAULT raises; None while it is not."""
        if self.fault is None:
            return None
        return DeviceFaultError(f"is in FAULT: {self.fault}; reset() it after looking at it", **self._device._facts_())
