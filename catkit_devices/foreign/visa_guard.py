"""The VISA library that a driver of another framework is given: it reaches one address, under the rules of its device.

The foreign driver uses ordinary resources of pyvisa on it. Before each call that reaches the instrument, the operation
must not be cancelled, the wire must be free, and the line must be one that can be trusted. Below it is the library of
the device: a real library, a simulation, a recorder.
"""

from __future__ import annotations

import contextlib
import math
import threading
from typing import TYPE_CHECKING, Any

import pyvisa
from pyvisa import constants, highlevel
from pyvisa.constants import ResourceAttribute, StatusCode

from catkit_devices._wire.address import normalise
from catkit_devices._wire.passing_library import PassingVisaLibrary
from catkit_devices.errors import DeviceOpenError, DeviceValueError, OperationCancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyvisa.constants import AccessModes
    from pyvisa.typing import VISARMSession, VISASession

    from catkit_devices._wire.exchange import Exchanges

__all__ = ["GuardedVisaLibrary", "settings_of"]

_DEFAULTS = {
    ResourceAttribute.timeout_value: 2000,
    ResourceAttribute.termchar: ord("\n"),
    ResourceAttribute.termchar_enabled: constants.VI_FALSE,
    ResourceAttribute.asrl_end_in: constants.SerialTermination.termination_char,
}
"""What every new session of VISA has until the foreign driver says otherwise (VPP-4.3, 3.3); the timeout is in
milliseconds. The device sets other values, for itself."""

_TALKING = (
    "assert_interrupt_signal",
    "assert_trigger",
    "assert_utility_signal",
    "buffer_read",
    "buffer_write",
    "clear",
    "flush",
    "gpib_command",
    "gpib_control_atn",
    "gpib_control_ren",
    "gpib_pass_control",
    "gpib_send_ifc",
    "read_asynchronously",
    "read_stb",
    "read_to_file",
    "usb_control_in",
    "usb_control_out",
    "vxi_command_query",
    "write_asynchronously",
    "write_from_file",
    *(f"{what}_{bits}" for what in ("in", "out", "move_in", "move_out", "peek", "poke") for bits in (8, 16, 32, 64)),
)
"""Calls beside read and write that reach the instrument."""


class Operation:
    """What the code of one operation has sent to the instrument.

    Attributes:
        owed: what was written last and has not been answered yet; None since something was read.
        turn: the number of the turn on the wire in which that was.
        error: what the last call of the library has raised; None if none did.
        before: the operation of which this one is a part.
        whole: whether the wire is held until its end.
    """

    __slots__ = ("before", "error", "owed", "turn", "whole")

    def __init__(self, before: Operation | None = None, *, whole: bool = False) -> None:
        self.before = before
        self.whole = whole
        self.owed: bytes | None = None
        self.turn = 0
        self.error: BaseException | None = None


def settings_of(resource: Any) -> dict[ResourceAttribute, Any]:
    """Return what a driver has set of a resource of pyvisa that a device sets, too, for itself."""
    found = {}
    for attribute in _DEFAULTS:
        with contextlib.suppress(pyvisa.VisaIOError, NotImplementedError):
            found[attribute], _status = resource.visalib.get_attribute(resource.session, attribute)
    return found


class GuardedVisaLibrary(PassingVisaLibrary):
    """Passes on what a foreign driver asks of its VISA library, between the locks and checks of its device.

    It opens the device's address only, on the connection that the device has. Closing a resource on it closes nothing:
    the connection is the device's.

    Args:
        library: the device's own.
        exchanges: those of the device.
        name: of the device.

    Attributes:
        has_written: whether anything was sent since the library was made.
    """

    has_written: bool
    _exchanges: Exchanges
    _name: str
    _given: VISASession | None
    """The session of the device's connection, since it was asked for."""
    _operations: dict[int, Operation]
    """The operation that each thread is in."""

    def __init__(self, library: highlevel.VisaLibraryBase, exchanges: Exchanges, name: str) -> None:
        self._exchanges = exchanges
        self._name = name
        self._operations = {}
        self._given = None
        self.has_written = False
        super().__init__(library)

    def begin(self, *, whole: bool) -> Operation:
        """Begin the work of one operation of the device; what it sends is not mixed up with what others send.

        Args:
            whole: whether this thread holds the wire until the operation ends.
        """
        thread = threading.get_ident()
        before = self._operations.get(thread)
        if len(self._operations) > (before is not None):
            for other, running in list(self._operations.items()):
                if (
                    other != thread and running.owed is not None
                ):  # this operation makes the device safe, and does not wait
                    self._doubt(f"{running.owed!r} had not been answered when the device was made safe")
        self._operations[thread] = operation = Operation(before, whole=whole)
        return operation

    def end(self, operation: Operation, error: BaseException | None) -> None:
        """End it; if it ends in an error, and a reply may still come, the line is not trusted any more."""
        thread = threading.get_ident()
        del self._operations[thread]
        if operation.before is not None:
            self._operations[thread] = operation.before
        if error is None or isinstance(error, DeviceValueError):
            return
        if operation.owed is not None or operation.error is not None:
            what = "an operation" if operation.owed is None else repr(operation.owed)
            self._doubt(f"{what} was interrupted by {type(error).__name__}: {error}")

    def _doubt(self, reason: str) -> None:
        transport = self._exchanges.transport
        if transport is not None:
            transport.doubt(reason)

    # --- what pyvisa calls

    def open(
        self,
        session: VISARMSession,  # noqa: ARG002 - pyvisa calls so
        resource_name: str,
        access_mode: AccessModes = constants.AccessModes.no_lock,  # noqa: ARG002 - pyvisa calls so
        open_timeout: int = constants.VI_TMO_IMMEDIATE,  # noqa: ARG002 - pyvisa calls so
    ) -> tuple[VISASession, StatusCode]:
        """Give the session of the device's connection (viOpen); another address is a DeviceOpenError."""
        try:
            wanted = normalise(resource_name)
        except ValueError:
            wanted = resource_name
        if wanted != normalise(self._exchanges.address):
            raise DeviceOpenError(
                f"its driver opens {resource_name}, and may open the address of the device only",
                device=self._name,
                address=self._exchanges.address,
            )
        opened: VISASession = self._exchanges.opened().line.resource.session
        self._set(opened, _DEFAULTS)
        self._given = opened
        return opened, StatusCode.success

    def adopt(self, resource: Any, settings: Mapping[ResourceAttribute, Any]) -> None:
        """Have a resource use this library, which its driver has opened before there was a device.

        Args:
            resource: of pyvisa; closing it closes nothing from now on, because the connection is the device's.
            settings: what :func:`settings_of` has told of it; the device has set other values, for itself.
        """
        self._set(resource.session, settings)
        self._given = resource.session
        resource.visalib = self

    def _set(self, session: VISASession, settings: Mapping[ResourceAttribute, Any]) -> None:
        for attribute, value in settings.items():
            with contextlib.suppress(pyvisa.VisaIOError, NotImplementedError):
                self._inner.set_attribute(session, attribute, value)

    def close(self, session: Any) -> StatusCode:
        """Close the session of a resource manager (viClose); that of the connection stays open."""
        return StatusCode.success if session == self._given else self._inner.close(session)

    def write(self, session: VISASession, data: bytes) -> tuple[int, StatusCode]:
        """Write ``data`` (viWrite)."""
        written: tuple[int, StatusCode] = self._call(self._inner.write, data, session, data, writes=True)
        return written

    def read(self, session: VISASession, count: int) -> tuple[bytes, StatusCode]:
        """Read up to ``count`` bytes (viRead)."""
        read: tuple[bytes, StatusCode] = self._call(self._read, "a reply", session, count, reads=True)
        return read

    def _read(self, session: VISASession, count: int) -> tuple[bytes, StatusCode]:
        """Wait in short steps until the reply begins, where the interface can tell: the operation may be cancelled."""
        line = self._exchanges.opened().line
        if line.stream:
            timeout, _status = self._inner.get_attribute(session, ResourceAttribute.timeout_value)
            seconds = math.inf if timeout == constants.VI_TMO_INFINITE else timeout / 1000
            if not line.wait_until_readable(seconds, self._exchanges.checkpoint):
                self._inner.handle_return_value(session, StatusCode.error_timeout)  # raises VisaIOError
        return self._inner.read(session, count)

    # --- the rules

    def _call(
        self,
        function: Callable[..., Any],
        what: str | bytes,
        *args: Any,
        reads: bool = False,
        writes: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Call a function of the library that reaches the instrument.

        Args:
            function: of the library.
            what: is asked.
            *args: of the function.
            reads: whether it reads a reply.
            writes: whether it writes what may have a reply.
            **kwargs: of the function.
        """
        # A thread of the foreign driver's own is in no operation.
        operation = self._operations.get(threading.get_ident()) or Operation()
        try:
            if operation.whole:
                self._exchanges.ready(what, sends=not reads)
                return self._called(operation, function, what, args, kwargs, reads, writes)
            with self._exchanges.lend(what, sends=not reads):
                self._take_turn(operation, sends=not reads)
                return self._called(operation, function, what, args, kwargs, reads, writes)
        except BaseException as error:
            operation.error = error
            raise

    def _called(
        self,
        operation: Operation,
        function: Callable[..., Any],
        what: str | bytes,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        reads: bool,
        writes: bool,
    ) -> Any:
        if writes:
            operation.owed = bytes(what[:80]) if not isinstance(what, str) else what.encode()
        if not reads:
            self.has_written = True
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            self._note(operation, error)
            raise
        if reads and result[0]:
            operation.owed = None
        return result

    def _take_turn(self, operation: Operation, *, sends: bool) -> None:
        """Refuse to read a reply if others have used the wire since it was asked for: it may be theirs."""
        turn = self._exchanges.opened().turns
        if not sends and operation.owed is not None and turn > operation.turn + 1:
            raise OperationCancelled(
                f"device {self._name!r}: the wire of {self._exchanges.address} was used by others before the reply to"
                f" {operation.owed!r} was read"
            )
        operation.turn = turn

    def _note(self, operation: Operation, error: Exception) -> None:
        """Note what an error of the library says of the line."""
        timed_out = isinstance(error, pyvisa.VisaIOError) and error.error_code == StatusCode.error_timeout
        if timed_out:
            if operation.owed is not None:  # else the driver looks whether there is more to be read
                self._doubt(f"{operation.owed!r} was not answered in time")
        elif not isinstance(error, NotImplementedError):
            self._exchanges.failed(error, operation.owed)


def _talking(name: str) -> Callable[..., Any]:
    def call(self: GuardedVisaLibrary, *args: Any, **kwargs: Any) -> Any:
        return self._call(getattr(self._inner, name), name, *args, **kwargs)

    call.__name__ = name
    call.__doc__ = f"Pass {name} on, as write and read are."
    return call


for _name in _TALKING:
    setattr(GuardedVisaLibrary, _name, _talking(_name))
