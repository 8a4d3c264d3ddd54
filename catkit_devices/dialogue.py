"""Question and answer with an instrument: one exchange at a time, on a line that can be trusted.

A reply that did not come in time may still come. So after a timeout, an unreadable reply, or bytes that nobody asked
for, the line is *suspect*: before the next exchange it must fall silent, is cleared, and the instrument must identify
itself again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from typing import TYPE_CHECKING, Any, ClassVar

from catkit_devices.deferred import finished
from catkit_devices.device import Device
from catkit_devices.errors import (
    CatkitDevicesError,
    DeviceClosedError,
    DeviceDisconnectedError,
    DeviceError,
    DeviceFaultError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
    OperationCancelled,
)
from catkit_devices.multiprocessing.mutex import default_timeout
from catkit_devices.multiprocessing.owner import forwarded_call
from catkit_devices.operations import hook
from catkit_devices.properties import Quantity, narrow
from catkit_devices.settings import Seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from catkit_devices.line import Line
    from catkit_devices.multiprocessing.owner import Call
    from catkit_devices.transport import Transport

__all__ = ["DialogueDevice"]

_log = logging.getLogger(__name__)

_SLICE = 0.1
"""Seconds for which one who waits with the wire held looks whether somebody else needs it more."""


class DialogueDevice(Device):
    """A device that is asked and answers over a line. What is said, and how a line is opened, is left to subclasses.

    Args:
        name: the device's name.
        address: where the line is.
        late_window: seconds by which a reply may be late: one that is late by no more is never taken for the answer
            to a later question.
        limits: limits narrowed for this device, by property; they may be quantities or text with units.
        **options: of :class:`~catkit_devices.device.Device`.
    """

    io_timeout: ClassVar[Seconds] = 2.0
    """Seconds for one exchange."""

    def __init__(
        self,
        name: str,
        *,
        address: str,
        late_window: float = 1.0,
        limits: Mapping[str, Sequence[Any]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self._where = address
        self._late_window = default_timeout(late_window, f"device {name!r}, a late reply")
        self._narrowed = narrow(type(self), name, limits or {})
        self._transport: Transport | None = None
        self._joined_at = 0.0
        """When the transport was opened whose settings this device knows of."""
        self._depth = 0
        self._recovering = False
        self._hasty = False
        """Whether it is made safe on a line that need not be trusted ..."""
        self._doubted = False
        """... and whether it could not be."""

    # --- what a subclass implements

    def _connect(self) -> Transport:
        """Return the transport of the address, opened."""
        raise NotImplementedError(f"{type(self).__qualname__} must implement _connect()")

    @hook
    def _identify(self) -> None:
        """Make sure that the right instrument answers; called after opening and whenever the line was suspect.

        Raises:
            DeviceOpenError: something else answers.
            DeviceError: nothing does.
        """
        raise NotImplementedError(f"{type(self).__qualname__} must implement _identify()")

    # --- for drivers

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Hold the wire for several exchanges that belong together, against every device at the same address."""
        with self._held(self._opened_transport(), "a transaction"):
            yield

    @contextlib.contextmanager
    def _exchange(self, command: str | bytes | None, *, fresh: bool = True) -> Iterator[Line]:
        """Hold the wire for one dialogue, which may write and read several times.

        Errors from below become DeviceErrors; so does a ValueError of the driver's own, for a reply that makes no
        sense. Whatever ends it early leaves the line suspect.

        Args:
            command: what errors name.
            fresh: whether nothing may be waiting to be read when it begins.
        """
        transport = self._opened_transport()
        with self._held(transport, repr(command) if command is not None else "a reply"):
            if self._depth:  # part of a dialogue that has begun already
                yield transport.line
                return
            self._checkpoint()
            if transport.lost is not None:
                raise DeviceDisconnectedError(transport.lost, **self._facts(command))
            if transport.opened_at != self._joined_at:
                raise DeviceDisconnectedError("the connection was lost and made anew", **self._facts(command))
            self._depth += 1
            try:
                self._trust(transport, fresh=fresh)
                yield transport.line
            except DeviceError as error:
                if not self._life.concerns(error):  # another device that is used meanwhile: its line, not this one
                    transport.suspect = f"{command!r} was interrupted"
                elif isinstance(error, DeviceProtocolError):
                    transport.suspect = error.problem
                raise
            except BaseException as error:
                translated = self._translated(transport, error, command)
                if translated is None:  # cancelled, or a mistake of the driver: a reply may have been left behind
                    transport.suspect = f"{command!r} was interrupted"
                    raise
                raise translated from error
            finally:
                self._depth -= 1

    def _distrust(self, reason: str) -> None:
        """Have the line recovered before the next exchange."""
        if self._transport is not None:
            self._transport.suspect = reason

    # --- opening and closing

    @property
    def _address(self) -> str | None:
        return self._where

    def _open(self) -> Transport:
        try:
            self._transport = self._connect()
            self._joined_at = self._transport.opened_at
        except DeviceOpenError as error:  # somebody else has it
            raise type(error)(error.problem, **self._facts()) from None
        except Exception as error:  # pyvisa-py raises whatever its layers do, bare Exception among it
            raise DeviceOpenError(f"cannot be opened: {error}", **self._facts()) from error
        try:
            self._greet(self._transport)
        except DeviceOpenError:
            self._close()
            raise
        except DeviceError as error:
            self._close()
            silent = isinstance(error, DeviceTimeoutError | DeviceDisconnectedError)
            what = "nothing answers" if silent else "no instrument of this kind answers"
            raise DeviceOpenError(f"{what}: {error.problem}", **self._facts(error.command)) from error
        except BaseException:
            self._close()
            raise
        return self._transport

    def _close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.release()

    def _greet(self, transport: Transport) -> None:
        with self._held(transport, "the greeting"):
            if transport.suspect is not None:
                self._settle(transport)
            # What an instrument says when it is switched on, or had left to say to somebody else.
            with self._exchange(None, fresh=False) as line:
                line.discard()
            try:
                self._require_identity()
            except (DeviceProtocolError, DeviceOpenError) as error:
                # The answer to somebody else's last question, perhaps: once the line has been silent, that is over.
                _log.info("%s at %s: %s; asking once more", self.name, self._address, error.problem)
                self._settle(transport)
                self._require_identity()

    # --- below

    def _require_identity(self) -> None:
        what = f"{type(self).__qualname__}._identify"
        finished(self._identify(), what)

    def _connection_replaced_at(self) -> float | None:
        transport = self._transport
        return None if transport is None or transport.opened_at == self._joined_at else transport.opened_at

    def _describe_property(self, name: str) -> dict[str, Any]:
        declared = getattr(type(self), name)
        return declared.describe(self) if isinstance(declared, Quantity) else {}

    def _opened_transport(self) -> Transport:
        if self._transport is None:
            raise DeviceClosedError("is not open", **self._facts())
        return self._transport

    @contextlib.contextmanager
    def _held(self, transport: Transport, what: str) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(transport.hold(f"{self.name!r}: {what}"))
            except TimeoutError as error:
                raise DeviceTimeoutError(str(error), **self._facts()) from error
            yield

    def _settle(self, transport: Transport) -> None:
        _log.warning("%s at %s: waiting for silence: %s", self.name, self._address, transport.suspect)
        transport.suspect = None
        with self._exchange(None, fresh=False) as line:
            line.settle(self._late_window, self.io_timeout, self._checkpoint)

    def _checkpoint(self) -> None:
        super()._checkpoint()
        transport = self._transport
        if transport is not None and transport.is_needed():
            raise OperationCancelled(f"device {self.name!r}: a device at {self._address} is made safe first")

    def _may_give_way(self, chain: object) -> bool:
        transport = self._transport
        return super()._may_give_way(chain) and not (transport is not None and transport.held_by(chain))

    def _sleep(self, call: Call, seconds: float) -> None:
        transport = self._transport
        if transport is None or not transport.held_by(call.chain):
            super()._sleep(call, seconds)
            return
        # With the wire held: whoever makes a device safe must not wait for the end of it.
        left = seconds
        while left > 0:
            super()._sleep(call, min(left, _SLICE))
            self._checkpoint()
            left -= _SLICE

    def _in_the_way(self) -> str:
        transport = self._transport
        return "" if transport is None else transport.in_use()

    def _make_safe_in_doubt(self) -> None:
        """Make it safe at once, though a late reply may be taken for another's; then again on a line to be trusted."""
        self._hasty, self._doubted = True, False
        try:
            super()._make_safe_in_doubt()
        except DeviceError as error:
            if not self._doubted:
                raise
            _log.info("%s at %s was made safe in doubt: %s", self.name, self._address, error.problem)
        finally:
            self._hasty = False
        if self._doubted:
            super()._make_safe_in_doubt()

    def _trust(self, transport: Transport, *, fresh: bool) -> None:
        if self._recovering:
            transport.line.discard()  # late beyond the window; what is asked next is who is there
            return
        if transport.suspect is None and fresh and (unread := transport.line.unread()):
            transport.suspect = f"{unread!r} came without being asked for"
        if transport.suspect is None:
            return
        call = forwarded_call() if self._hasty else None
        if call is not None and call.emergency:
            self._doubted = True
            transport.line.discard()
        else:
            self._recover(transport, transport.suspect)

    def _recover(self, transport: Transport, reason: str) -> None:
        depth, self._depth, self._recovering = self._depth, 0, True
        try:
            self._settle(transport)
            self._require_identity()
        except DeviceDisconnectedError:
            raise
        except DeviceError as error:
            transport.suspect = reason
            self._life.fail(f"the line could not be trusted any more ({reason}): {error}")
            raise DeviceFaultError(f"could not be recovered after this: {reason}", **self._facts()) from error
        except BaseException:
            transport.suspect = reason
            raise
        finally:
            self._depth, self._recovering = depth, False

    def _translated(
        self, transport: Transport, error: BaseException, command: str | bytes | None
    ) -> DeviceError | None:
        import pyvisa
        from pyvisa.constants import StatusCode

        if isinstance(error, CatkitDevicesError):  # of what else was used meanwhile; some are OSErrors too
            return None
        facts = self._facts(command)
        code = error.error_code if isinstance(error, pyvisa.VisaIOError) else None
        number = error.errno if isinstance(error, OSError) else None
        if code == StatusCode.error_timeout or isinstance(error, TimeoutError) or number == errno.ETIMEDOUT:
            text = str(error) if isinstance(error, TimeoutError) else f"not sent in {self.io_timeout:g} s"
            transport.suspect = text
            return DeviceTimeoutError(text, **facts)
        if isinstance(error, OSError | pyvisa.InvalidSession) or code in _gone():
            transport.lost = f"the connection is gone: {error}"
            return DeviceDisconnectedError(transport.lost, **facts)
        if isinstance(error, ValueError | pyvisa.Error):
            transport.suspect = str(error)
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
