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

from catkit_devices._base.deferred import finished
from catkit_devices._device.members import hook
from catkit_devices._device.settings import Seconds
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
from catkit_devices.multiprocessing.locks.mutex import default_timeout
from catkit_devices.multiprocessing.locks.owner import forwarded_call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from catkit_devices._wire.byte_stream import Line
    from catkit_devices._wire.transport import Transport
    from catkit_devices.multiprocessing.locks.owner import Call

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
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self._where_ = address
        self._late_window_ = default_timeout(late_window, f"device {name!r}, a late reply")
        self._transport_: Transport | None = None
        self._joined_at_ = 0.0
        """When the transport was opened whose settings this device knows of."""
        self._depth_ = 0
        self._recovering_ = False
        self._hasty_ = False
        """Whether it is made safe on a line that need not be trusted ..."""
        self._doubted_ = False
        """... and whether it could not be."""

    # --- what a subclass implements

    def _join_line_(self) -> Transport:
        """Return the transport of the address, opened."""
        raise NotImplementedError(f"{type(self).__qualname__} must implement _join_line_()")

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
        with self._held_(self._opened_transport_(), "a transaction"):
            yield

    _transaction_ = _transaction

    @contextlib.contextmanager
    def _exchange(self, command: str | bytes | None, *, fresh: bool = True) -> Iterator[Line]:
        """Hold the wire for one dialogue, which may write and read several times.

        Errors from below become DeviceErrors; so does a ValueError of the driver's own, for a reply that makes no
        sense. Whatever ends it early leaves the line suspect.

        Args:
            command: what errors name.
            fresh: whether nothing may be waiting to be read when it begins.
        """
        transport = self._opened_transport_()
        with self._held_(transport, repr(command) if command is not None else "a reply"):
            if self._depth_:  # part of a dialogue that has begun already
                yield transport.line
                return
            self._checkpoint_()
            if transport.lost is not None:
                raise DeviceDisconnectedError(transport.lost, **self._facts_(command))
            if transport.opened_at != self._joined_at_:
                raise DeviceDisconnectedError("the connection was lost and made anew", **self._facts_(command))
            self._depth_ += 1
            try:
                self._trust_(transport, fresh=fresh)
                yield transport.line
            except DeviceError as error:
                if not self._life_.concerns(error):  # another device that is used meanwhile: its line, not this one
                    transport.suspect = f"{command!r} was interrupted"
                elif isinstance(error, DeviceProtocolError):
                    transport.suspect = error.problem
                raise
            except BaseException as error:
                translated = self._translated_(transport, error, command)
                if translated is None:  # cancelled, or a mistake of the driver: a reply may have been left behind
                    transport.suspect = f"{command!r} was interrupted"
                    raise
                raise translated from error
            finally:
                self._depth_ -= 1

    _exchange_ = _exchange

    def _distrust(self, reason: str) -> None:
        """Have the line recovered before the next exchange."""
        if self._transport_ is not None:
            self._transport_.suspect = reason

    _distrust_ = _distrust

    # --- opening and closing

    @property
    def _address_(self) -> str | None:
        return self._where_

    def _open(self) -> Transport:
        try:
            self._transport_ = self._join_line_()
            self._joined_at_ = self._transport_.opened_at
        except DeviceOpenError as error:  # somebody else has it
            raise type(error)(error.problem, **self._facts_()) from None
        except Exception as error:  # pyvisa-py raises whatever its layers do, bare Exception among it
            raise DeviceOpenError(f"cannot be opened: {error}", **self._facts_()) from error
        try:
            self._greet_(self._transport_)
        except DeviceOpenError:
            self._close()
            raise
        except DeviceError as error:
            self._close()
            silent = isinstance(error, DeviceTimeoutError | DeviceDisconnectedError)
            what = "nothing answers" if silent else "no instrument of this kind answers"
            raise DeviceOpenError(f"{what}: {error.problem}", **self._facts_(error.command)) from error
        except BaseException:
            self._close()
            raise
        return self._transport_

    def _close(self) -> None:
        transport, self._transport_ = self._transport_, None
        if transport is not None:
            transport.release()

    def _greet_(self, transport: Transport) -> None:
        with self._held_(transport, "the greeting"):
            if transport.suspect is not None:
                self._settle_(transport)
            # What an instrument says when it is switched on, or had left to say to somebody else.
            with self._exchange_(None, fresh=False) as line:
                line.discard()
            try:
                self._require_identity_()
            except (DeviceProtocolError, DeviceOpenError) as error:
                # The answer to somebody else's last question, perhaps: once the line has been silent, that is over.
                _log.info("%s at %s: %s; asking once more", self.name, self._address_, error.problem)
                self._settle_(transport)
                self._require_identity_()

    # --- below

    def _require_identity_(self) -> None:
        what = f"{type(self).__qualname__}._identify"
        finished(self._identify(), what)

    def _connection_replaced_at_(self) -> float | None:
        transport = self._transport_
        return None if transport is None or transport.opened_at == self._joined_at_ else transport.opened_at

    def _line_is_lost_(self) -> bool:
        transport = self._transport_
        return transport is not None and (transport.lost is not None or transport.opened_at != self._joined_at_)

    def _opened_transport_(self) -> Transport:
        if self._transport_ is None:
            raise DeviceClosedError("is not open", **self._facts_())
        return self._transport_

    @contextlib.contextmanager
    def _held_(self, transport: Transport, what: str) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(transport.hold(f"{self.name!r}: {what}"))
            except TimeoutError as error:
                raise DeviceTimeoutError(str(error), **self._facts_()) from error
            yield

    def _settle_(self, transport: Transport) -> None:
        _log.warning("%s at %s: waiting for silence: %s", self.name, self._address_, transport.suspect)
        transport.suspect = None
        with self._exchange_(None, fresh=False) as line:
            line.settle(self._late_window_, self.io_timeout, self._checkpoint_)

    def _checkpoint(self) -> None:
        super()._checkpoint_()
        transport = self._transport_
        if transport is not None and transport.is_needed():
            raise OperationCancelled(f"device {self.name!r}: a device at {self._address_} is made safe first")

    _checkpoint_ = _checkpoint

    def _may_give_way_(self, chain: object) -> bool:
        transport = self._transport_
        return super()._may_give_way_(chain) and not (transport is not None and transport.held_by(chain))

    def _sleep_(self, call: Call, seconds: float) -> None:
        transport = self._transport_
        if transport is None or not transport.held_by(call.chain):
            super()._sleep_(call, seconds)
            return
        # With the wire held: whoever makes a device safe must not wait for the end of it.
        left = seconds
        while left > 0:
            super()._sleep_(call, min(left, _SLICE))
            self._checkpoint_()
            left -= _SLICE

    def _in_the_way_(self) -> str:
        transport = self._transport_
        return "" if transport is None else transport.in_use()

    def _make_safe_in_doubt_(self) -> None:
        """Make it safe at once, though a late reply may be taken for another's; then again on a line to be trusted."""
        self._hasty_, self._doubted_ = True, False
        try:
            super()._make_safe_in_doubt_()
        except DeviceError as error:
            if not self._doubted_:
                raise
            _log.info("%s at %s was made safe in doubt: %s", self.name, self._address_, error.problem)
        finally:
            self._hasty_ = False
        if self._doubted_:
            super()._make_safe_in_doubt_()

    def _trust_(self, transport: Transport, *, fresh: bool) -> None:
        if self._recovering_:
            transport.line.discard()  # late beyond the window; what is asked next is who is there
            return
        if transport.suspect is None and fresh and (unread := transport.line.unread()):
            transport.suspect = f"{unread!r} came without being asked for"
        if transport.suspect is None:
            return
        call = forwarded_call() if self._hasty_ else None
        if call is not None and call.emergency:
            self._doubted_ = True
            transport.line.discard()
        else:
            self._recover_(transport, transport.suspect)

    def _recover_(self, transport: Transport, reason: str) -> None:
        depth, self._depth_, self._recovering_ = self._depth_, 0, True
        try:
            self._settle_(transport)
            self._require_identity_()
        except DeviceDisconnectedError:
            raise
        except DeviceError as error:
            transport.suspect = reason
            self._life_.fail(f"the line could not be trusted any more ({reason}): {error}")
            raise DeviceFaultError(f"could not be recovered after this: {reason}", **self._facts_()) from error
        except BaseException:
            transport.suspect = reason
            raise
        finally:
            self._depth_, self._recovering_ = depth, False

    def _translated_(
        self, transport: Transport, error: BaseException, command: str | bytes | None
    ) -> DeviceError | None:
        import pyvisa
        from pyvisa.constants import StatusCode

        if isinstance(error, CatkitDevicesError):  # of what else was used meanwhile; some are OSErrors too
            return None
        facts = self._facts_(command)
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
