"""The life of a device's connection: closed, open, lost and restored, in FAULT; and how it is made safe in each."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from typing import TYPE_CHECKING

from catkit_devices.errors import (
    CatkitDevicesError,
    DeviceDisconnectedError,
    DeviceFaultError,
    DeviceProtocolError,
    DeviceTimeoutError,
)
from catkit_devices.multiprocessing.owner import calling, current_call, emergency_call

if TYPE_CHECKING:
    from catkit_devices.device import Device
    from catkit_devices.errors import DeviceError

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
    """

    def __init__(self, device: Device, safe_timeout: float) -> None:
        self.is_open = False
        self.fault: str | None = None
        self.safe_timeout = safe_timeout
        self._device = device
        self._connected = False
        """Whether ``_open`` has returned since ``_close`` was called last."""
        self._lost = False
        """Whether it is open without a connection, until that is restored."""
        self._cut_off: object = None
        """The section that was held when the connection was lost."""
        self._guard = threading.RLock()

    # --- open and close

    def open(self) -> None:
        """Open the device; harmless when it is open."""
        with self._guard:
            if self.is_open:
                return
            self._connect()
            self.is_open = True
            self.fault = None
        name = self._device.name
        _log.info("device %r opened", name, extra=self._device._event_record("device_opened"))

    def close(self) -> None:
        """Make the device safe and close it; harmless when it is closed.

        Raises:
            DeviceFaultError: it could not be made safe; it is closed all the same.
        """
        if not self.is_open:
            return
        try:
            # Not under the guard: what makes safe may have to restore the connection.
            self.make_safe()
        finally:
            with self._guard:
                was_open, self.is_open = self.is_open, False
                try:
                    self._disconnect()
                finally:
                    self._lost, self._cut_off = False, None
                    if was_open:
                        name = self._device.name
                        _log.info("device %r closed", name, extra=self._device._event_record("device_closed"))

    def reset(self) -> None:
        """Forget a fault, and close the device without a word to it."""
        with self._guard:
            self.is_open = False
            with contextlib.suppress(CatkitDevicesError):
                self._disconnect()
            self._lost, self._cut_off, self.fault = False, None, None

    def _connect(self) -> None:
        with self._guard:
            with contextlib.suppress(CatkitDevicesError):
                self._disconnect()
            self._device._connection = self._device._open()
            self._connected, self._lost = True, False

    def _disconnect(self) -> None:
        if self._connected:
            self._connected = False
            try:
                self._device._close()
            finally:
                self._device._connection = None

    # --- a connection that is lost

    def lose(self, when: float = math.inf) -> None:
        """Note that the connection is gone: the next operation opens it anew, but for a section that was held then.

        Args:
            when: on the monotonic clock; by default now.
        """
        self._lost = True
        self._cut_off = self._device._mutex_lock.section(begun_before=when)

    def concerns(self, error: DeviceError) -> bool:
        """Whether an error is about this device, not about another one that it uses."""
        facts = self._device._facts()
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
        lock = self._device._mutex_lock
        if lock.section() is not self._cut_off:
            self._cut_off = None
        elif self._cut_off is not None and lock.held_by(current_call()):
            raise DeviceDisconnectedError(
                "the connection was lost in this section, and with it perhaps what it has set: leave the section",
                **self._device._facts(operation),
            )
        self._restore()

    def _restore(self) -> None:
        with self._guard:
            if not (self.is_open and self._lost):
                return  # or somebody has done it meanwhile
            self._connect()
        _log.warning("device %r: connection restored", self._device.name)

    # --- safety

    def make_safe(self) -> None:
        """Have the driver make the device safe: twice if need be, over a new connection where the old one is gone.

        Raises:
            DeviceFaultError: it could not be made safe within ``safe_timeout``; it is in FAULT from then on.
        """
        failure: list[BaseException] = []

        def make_safe() -> None:
            try:
                # A call of its own: the one that is running may be cancelled, this one must get through.
                with calling(emergency_call()):
                    self._make_safe()
            except BaseException as error:  # noqa: BLE001 - told to the caller below
                failure.append(error)

        device = self._device
        if not device._can_be_made_safe():
            return
        runner = threading.Thread(target=make_safe, name=f"make-safe-{device.name}", daemon=True)
        runner.start()
        runner.join(self.safe_timeout)
        if runner.is_alive() or failure:
            why = f"{type(failure[0]).__name__}: {failure[0]}" if failure else f"not done in {self.safe_timeout:g} s"
            self.fail(f"could not be made safe ({why})")
            raise DeviceFaultError(self.fault or why, **device._facts("make_safe")) from (
                failure[0] if failure else None
            )

    def _make_safe(self) -> None:
        self._restore()
        try:
            self._device._make_safe_in_doubt()
        except (DeviceDisconnectedError, DeviceTimeoutError, DeviceProtocolError) as error:
            # One reply that is lost or garbled must not be why a laser stays on.
            _log.warning("device %r: once more, to make it safe: %s", self._device.name, error)
            if isinstance(error, DeviceDisconnectedError) and self.loses_by(error):
                self._restore()
            self._device._make_safe_in_doubt()

    def fail(self, reason: str) -> None:
        """Put the device into FAULT: it refuses every further use until ``reset()``."""
        self.fault = reason
        record = self._device._event_record("device_fault", reason=reason)
        _log.error("device %r: %s", self._device.name, reason, extra=record)

    def refusal(self) -> BaseException | None:
        """Return what every use of a device in FAULT raises; None while it is not."""
        if self.fault is None:
            return None
        return DeviceFaultError(f"is in FAULT: {self.fault}; reset() it after looking at it", **self._device._facts())
