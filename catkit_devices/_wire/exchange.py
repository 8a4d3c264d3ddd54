"""Question and answer with an instrument: one exchange at a time, on a line that can be trusted.

A reply that did not come in time may still come. So after a timeout, an unreadable reply, or bytes that nobody asked
for, the line is *suspect*: before the next exchange it must fall silent, is cleared, and the instrument must identify
itself again.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from catkit_devices._wire.transport import TRUSTED, LineState
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
from catkit_devices.multiprocessing.locks.owner import forwarded_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from catkit_devices._device.connection import Lifecycle
    from catkit_devices._wire.byte_stream import Line
    from catkit_devices._wire.transport import Transport

__all__ = ["Dialogue"]

_log = logging.getLogger(__name__)


class _Stage(enum.Enum):
    """Where a dialogue is."""

    IDLE = enum.auto()
    TALKING = enum.auto()
    """In an exchange: what begins now is part of that."""
    RECOVERING = enum.auto()
    """The line was suspect: it has to fall silent, and the instrument to identify itself."""


class _Haste(enum.Enum):
    """Whether the device is made safe in a hurry: on a line that is suspect, at the first try."""

    NONE = enum.auto()
    ALLOWED = enum.auto()
    """Where the line is suspect, it is used as it is."""
    TAKEN = enum.auto()
    """It was suspect, and was used as it is."""


class _Device(Protocol):
    """What a dialogue needs of its device; ``catkit_devices.visa.VisaDevice`` says what each does."""

    io_timeout: ClassVar[float]

    @property
    def name(self) -> str: ...
    def _facts_(self, command: str | bytes | None = None) -> dict[str, Any]: ...
    def _checkpoint_(self) -> None: ...
    def _require_identity_(self) -> None: ...


class Dialogue:
    """The exchanges of one device with its instrument.

    Args:
        device: whose they are.
        life: of the device.
        address: of the instrument.
        late_window: seconds by which a reply may be late.

    Attributes:
        address: of the instrument.
        late_window: seconds by which a reply may be late.
        transport: what the address is opened as; None while the device is closed.
    """

    def __init__(self, device: _Device, life: Lifecycle, address: str, late_window: float) -> None:
        self.address = address
        self.late_window = late_window
        self.transport: Transport | None = None
        self._device = device
        self._life = life
        self._joined_at = 0.0
        """When the connection was opened that this device knows of."""
        self._stage = _Stage.IDLE
        self._haste = _Haste.NONE

    # --- exchanges

    @contextlib.contextmanager
    def exchange(self, command: str | bytes | None, *, fresh: bool) -> Iterator[Line]:
        """Hold the wire for one exchange; errors from below become DeviceErrors.

        Args:
            command: what errors name.
            fresh: whether nothing may be waiting to be read when it begins.
        """
        transport = self.opened()
        with self.hold(transport, repr(command) if command is not None else "a reply"):
            before = self._stage
            if before is _Stage.TALKING:
                yield transport.line
                return
            device = self._device
            device._checkpoint_()
            if transport.trust.state is LineState.LOST:
                raise DeviceDisconnectedError(transport.trust.reason, **device._facts_(command))
            if transport.opened_at != self._joined_at:
                raise DeviceDisconnectedError("the connection was lost and made anew", **device._facts_(command))
            self._stage = _Stage.TALKING
            try:
                if before is _Stage.RECOVERING:
                    transport.line.discard()  # later than late_window; the next question is which instrument this is
                else:
                    self.require_trust(transport, fresh=fresh)
                yield transport.line
            except DeviceError as error:
                if not self._life.concerns(error):  # an error of another device that was used meanwhile
                    transport.doubt(f"{command!r} was interrupted")
                elif isinstance(error, DeviceProtocolError):
                    transport.doubt(error.problem)
                raise
            except BaseException as error:
                translated = self._translated(transport, error, command)
                if translated is None:  # cancelled, or a mistake of the driver: a reply may have been left behind
                    transport.doubt(f"{command!r} was interrupted")
                    raise
                raise translated from error
            finally:
                self._stage = before

    @contextlib.contextmanager
    def hold(self, transport: Transport, what: str) -> Iterator[None]:
        """Hold the wire.

        Raises:
            DeviceTimeoutError: it did not come free in time; says who has it.
        """
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(transport.hold(f"{self._device.name!r}: {what}"))
            except TimeoutError as error:
                raise DeviceTimeoutError(str(error), **self._device._facts_()) from error
            yield

    def opened(self) -> Transport:
        """Return the transport; DeviceClosedError where the device is closed."""
        if self.transport is None:
            raise DeviceClosedError("is not open", **self._device._facts_())
        return self.transport

    # --- opening and closing

    def open(self, join: Callable[[], Transport]) -> Transport:
        """Open the line and have the instrument identify itself.

        Args:
            join: returns the transport of the address, opened.

        Raises:
            DeviceOpenError: it cannot be opened, nothing answers, or not the right instrument.
        """
        facts = self._device._facts_
        try:
            self.transport = transport = join()
            self._joined_at = transport.opened_at
        except DeviceOpenError as error:  # somebody else has it
            raise type(error)(error.problem, **facts()) from None
        except Exception as error:  # pyvisa-py raises whatever its layers do, bare Exception among it
            raise DeviceOpenError(f"cannot be opened: {error}", **facts()) from error
        try:
            self._greet(transport)
        except DeviceOpenError:
            self.close()
            raise
        except DeviceError as error:
            self.close()
            silent = isinstance(error, DeviceTimeoutError | DeviceDisconnectedError)
            what = "nothing answers" if silent else "no instrument of this kind answers"
            raise DeviceOpenError(f"{what}: {error.problem}", **facts(error.command)) from error
        except BaseException:
            self.close()
            raise
        return transport

    def close(self) -> None:
        """Give the line back."""
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.release()

    def replaced_at(self) -> float | None:
        """Return when another device at the address has opened a new connection; None where none has."""
        transport = self.transport
        return None if transport is None or transport.opened_at == self._joined_at else transport.opened_at

    def is_lost(self) -> bool:
        """Return whether the connection of this device is known to be lost, by whatever device at the address."""
        transport = self.transport
        return transport is not None and (
            transport.trust.state is LineState.LOST or transport.opened_at != self._joined_at
        )

    def _greet(self, transport: Transport) -> None:
        device = self._device
        with self.hold(transport, "the greeting"):
            if transport.trust.state is LineState.SUSPECT:
                self._await_silence(transport)
            # An instrument may have sent something when it was switched on, or a reply to another program.
            with self.exchange(None, fresh=False) as line:
                line.discard()
            try:
                device._require_identity_()
            except (DeviceProtocolError, DeviceOpenError) as error:
                # This may have been a late reply to another program: after a silence there are no more of them.
                _log.info("%s at %s: %s; asking once more", device.name, self.address, error.problem)
                self._await_silence(transport)
                device._require_identity_()

    # --- trust

    def require_trust(self, transport: Transport, *, fresh: bool) -> None:
        """Make sure that what comes next is the answer to what is asked next; recover a suspect line.

        Args:
            transport: of the line.
            fresh: whether bytes that wait to be read make the line suspect.
        """
        suspect = transport.trust.state is LineState.SUSPECT
        if not suspect and fresh and (unread := transport.line.unread()):
            transport.doubt(f"{unread!r} came without being asked for")
            suspect = True
        if not suspect:
            return
        call = forwarded_call() if self._haste is not _Haste.NONE else None
        if call is not None and call.emergency:
            self._haste = _Haste.TAKEN
            transport.line.discard()
        else:
            self._recover(transport, transport.trust.reason)

    def hurried(self, make_safe: Callable[[], None]) -> None:
        """Make the device safe at once, also on a suspect line; in that case again, on a line that can be trusted.

        Args:
            make_safe: does it.
        """
        self._haste = _Haste.ALLOWED
        try:
            make_safe()
        except DeviceError as error:
            if self._haste is not _Haste.TAKEN:
                raise
            _log.info("%s at %s, made safe on a suspect line: %s", self._device.name, self.address, error.problem)
        finally:
            taken, self._haste = self._haste is _Haste.TAKEN, _Haste.NONE
        if taken:
            make_safe()

    def _recover(self, transport: Transport, reason: str) -> None:
        self._stage = _Stage.RECOVERING
        try:
            self._await_silence(transport)
            self._device._require_identity_()
        except DeviceDisconnectedError:
            raise
        except DeviceError as error:
            transport.doubt(reason)
            self._life.fail_and_make_safe(f"the line could not be trusted any more ({reason}): {error}")
            raise DeviceFaultError(f"could not be recovered after this: {reason}", **self._device._facts_()) from error
        except BaseException:
            transport.doubt(reason)
            raise
        finally:
            self._stage = _Stage.TALKING

    def _await_silence(self, transport: Transport) -> None:
        device = self._device
        _log.warning("%s at %s: waiting for silence: %s", device.name, self.address, transport.trust.reason)
        transport.trust = TRUSTED
        with self.exchange(None, fresh=False) as line:
            line.settle(self.late_window, device.io_timeout, device._checkpoint_)

    def _translated(
        self, transport: Transport, error: BaseException, command: str | bytes | None
    ) -> DeviceError | None:
        """Return the DeviceError for an error from below, and note what it says of the line; None for other errors."""
        import pyvisa
        from pyvisa.constants import StatusCode

        if isinstance(error, CatkitDevicesError):  # of what else was used meanwhile; some are OSErrors too
            return None
        facts = self._device._facts_(command)
        code = error.error_code if isinstance(error, pyvisa.VisaIOError) else None
        number = error.errno if isinstance(error, OSError) else None
        if code == StatusCode.error_timeout or isinstance(error, TimeoutError) or number == errno.ETIMEDOUT:
            text = str(error) if isinstance(error, TimeoutError) else f"not sent in {self._device.io_timeout:g} s"
            transport.doubt(text)
            return DeviceTimeoutError(text, **facts)
        if isinstance(error, OSError | pyvisa.InvalidSession) or code in _gone():
            text = f"the connection is gone: {error}"
            transport.lose(text)
            return DeviceDisconnectedError(text, **facts)
        if isinstance(error, ValueError | pyvisa.Error):
            transport.doubt(str(error))
            return DeviceProtocolError(str(error), **facts)
        return None


def _gone() -> frozenset[Any]:
    from pyvisa.constants import StatusCode

    return frozenset(
        {
            StatusCode.error_connection_lost,
            StatusCode.error_io,
            StatusCode.error_invalid_object,
            StatusCode.error_system_error,
            StatusCode.error_resource_not_found,
        }
    )
