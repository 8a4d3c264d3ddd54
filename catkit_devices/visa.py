"""Devices that are reached through VISA.

The caller who gives ``visa_library`` decides whether the backend is real or simulated, never the driver.
"""

from __future__ import annotations

import contextlib
import enum
import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, final

from catkit_devices._base.deferred import finished
from catkit_devices._base.timeouts import LONGEST_TIMEOUT, default_timeout, seconds
from catkit_devices._device.members import hook
from catkit_devices._device.settings import AsciiText, Encoding, Pattern, PositiveWhole, Requirement, Seconds
from catkit_devices._wire.address import is_expression, matching
from catkit_devices._wire.byte_stream import simulated_clock
from catkit_devices._wire.exchange import Exchanges, Transport
from catkit_devices.device import Device
from catkit_devices.errors import (
    DeviceError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
    DeviceValueError,
    OperationCancelled,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pyvisa.highlevel import VisaLibraryBase

    from catkit_devices._wire.byte_stream import Line
    from catkit_devices.multiprocessing.locks.owner import Call

__all__ = ["EventStatus", "VisaDevice"]

_T = TypeVar("_T")


class EventStatus(enum.IntFlag):
    """The bits of ``*ESR?``, the standard event status register (IEEE 488.2, 11.5.1). Reading it clears it."""

    OPERATION_COMPLETE = 1
    """What was pending at the last ``*OPC`` is complete."""
    REQUEST_CONTROL = 2
    """It wants to control the bus."""
    QUERY_ERROR = 4
    """A reply was asked for that is not there, or was lost."""
    DEVICE_DEPENDENT_ERROR = 8
    """Something failed in the instrument."""
    EXECUTION_ERROR = 16
    """A command could not be carried out: a value out of range, for example."""
    COMMAND_ERROR = 32
    """A command was not understood."""
    USER_REQUEST = 64
    """A key or knob of the front panel was used."""
    POWER_ON = 128
    """The instrument was switched on after this register was last read."""


_ERRORS = (
    EventStatus.QUERY_ERROR
    | EventStatus.DEVICE_DEPENDENT_ERROR
    | EventStatus.EXECUTION_ERROR
    | EventStatus.COMMAND_ERROR
)

_SLICE = 0.1
"""Seconds after which a wait that holds the wire looks again whether somebody needs the wire to make a device safe."""


class VisaDevice(Device):
    """A device at a VISA address.

    A driver sets the class attributes below, declares its quantities, and overrides :meth:`_identify` where ``*IDN?``
    is not understood. :meth:`query`, :meth:`write` and their relatives are operations, for users; inside a driver the
    same without the operation are :meth:`_query`, :meth:`_write` and so on, and ``with self._exchange(command):`` makes
    one exchange of several of them. Each such exchange has the wire to itself, begins only on a line that can be
    trusted, and fails with a DeviceError that names device, address and command.

    After a timeout, an unreadable reply, or bytes that nobody asked for, the line must fall silent for ``late_window``
    seconds, is cleared, and the instrument must identify itself again before the next exchange; failing that the
    device goes to FAULT. A reply that is late by no more than ``late_window`` is therefore never taken for the answer
    to a later question.

    Args:
        name: the device's name.
        address: a VISA address, such as ``"ASRL/dev/ttyUSB0::INSTR"`` or ``"TCPIP0::10.0.0.7::2000::SOCKET"``; or a
            VISA resource expression, such as ``"USB::0x1313::?*::P0001::INSTR"``, that applies to one instrument only.
            That is looked for whenever the device is opened.
        visa_library: ``"@py"`` (pyvisa-py), ``"@ivi"`` (the vendor's), or a pyvisa library object: a simulation.
        late_window: seconds by which a reply may be late.
        serial_number: a regular expression that the reply to ``*IDN?`` must contain, too. Where ``address`` is an
            expression that applies to several instruments, they are asked.
        **options: of :class:`~catkit_devices.device.Device`.
    """

    io_timeout: ClassVar[Seconds] = 2.0
    """Seconds for one exchange."""

    read_termination: ClassVar[AsciiText] = "\n"
    """What ends a reply."""
    write_termination: ClassVar[AsciiText] = "\n"
    """What ends a command."""
    encoding: ClassVar[Encoding] = "ascii"
    """The encoding of text on the wire, by Python's name for it: ``"latin-1"`` for an instrument that sends µ or ° as
    one byte, ``"utf-8"`` for one that sends them as two. With ``"ascii"`` a disturbed byte above 127 is an error; in
    other encodings most such bytes are letters, so less is found."""
    identity: ClassVar[Pattern] = "."
    """A regular expression that is searched for, whatever the case, in the reply to ``*IDN?``."""
    baud_rate: ClassVar[PositiveWhole] = 9600
    """Bits per second of a serial port. This and the next four are for serial ports only."""
    data_bits: ClassVar[Literal[5, 6, 7, 8]] = 8
    """5 to 8."""
    parity: ClassVar[Literal["none", "odd", "even", "mark", "space"]] = "none"
    """``"none"``, ``"odd"``, ``"even"``, ``"mark"`` or ``"space"``."""
    stop_bits: ClassVar[Annotated[float, Requirement("1, 1.5 or 2", {1, 1.5, 2}.__contains__)]] = 1
    """1, 1.5 or 2."""
    flow_control: ClassVar[Literal["none", "xon_xoff", "rts_cts", "dtr_dsr"]] = "none"
    """``"none"``, ``"xon_xoff"``, ``"rts_cts"`` or ``"dtr_dsr"``."""

    def __init__(
        self,
        name: str,
        *,
        address: str,
        visa_library: str | VisaLibraryBase = "@py",
        late_window: float = 1.0,
        serial_number: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self._wanted_ = address
        self._serial_number_ = _checked_pattern(serial_number)
        self._checked_ = False
        """Whether the driver has passed on the instrument's identity to be checked."""
        late_window = default_timeout(late_window, f"device {name!r}, a late reply")
        self._exchanges_ = Exchanges(self, self._life_, address, late_window)
        self._visa_library_ = visa_library
        self._clock_ = simulated_clock(visa_library)

    # --- exchanges

    @final
    def query(self, command: str, timeout: float | None = None) -> str:
        """Send ``command`` and return the reply, without their terminations.

        Args:
            command: text.
            timeout: seconds for the reply; the driver's ``io_timeout`` when None.
        """
        return self._query(command, timeout)

    @final
    def write(self, command: str) -> None:
        """Send ``command``, which has no reply."""
        self._write(command)

    @final
    def read(self, timeout: float | None = None) -> str:
        """Return the next reply, without its termination."""
        return self._read_(timeout)

    @final
    def read_until(self, end: bytes, timeout: float | None = None) -> bytes:
        """Return what comes before ``end``, which may be several bytes and is matched as a whole."""
        return self._read_until_(end, timeout)

    @final
    def read_bytes(self, count: int, timeout: float | None = None) -> bytes:
        """Return exactly ``count`` bytes, whatever they are."""
        return self._read_bytes_(count, timeout)

    @final
    def write_bytes(self, data: bytes) -> None:
        """Send ``data`` as it is."""
        self._write_bytes_(data)

    @final
    def query_binary(self, command: str, timeout: float | None = None) -> bytes:
        """Send ``command`` and return the content of the IEEE 488.2 block that is the reply.

        A block of definite length is read by its count, so it may contain any byte (IEEE 488.2, 8.7.9). Behind it
        comes the termination; nothing need come where the interface marks the message's end at the last byte. One of
        indefinite length (``#0``, 8.7.10) ends with its message; serial ports and sockets do not mark that end, so
        there it is a DeviceProtocolError.
        """
        return self._query_binary_(command, timeout)

    @final
    def wait_for_completion(self, command: str, timeout: float) -> None:
        """Send ``command`` and return when the instrument has completed what it began (IEEE 488.2, ``*OPC``).

        It is asked again and again, in short exchanges, so that the device can be watched and made safe meanwhile;
        ``query("*OPC?", timeout=60)`` would keep the wire for all of that time.

        Args:
            command: text; without a reply.
            timeout: seconds.

        Raises:
            DeviceTimeoutError: it was not complete in time; the instrument works on.
            DeviceProtocolError: the instrument refused the command, or failed.
            OperationCancelled, MutexBrokenError, MutexTimeoutError: as for :meth:`~catkit_devices.device.Device.wait`.
        """
        self._wait_for_completion_(command, timeout)

    # --- for drivers: the same, inside an operation

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Hold the wire for several exchanges that belong together, against every device at the same address.

        ``with self._transaction(): ...``; each exchange in the block is one of its own, with its own errors. Nothing
        else reaches the instrument in between, so keep it short.
        """
        with self._exchanges_.hold(self._exchanges_.opened(), "a transaction"):
            yield

    _transaction_ = _transaction

    def _exchange(self, command: str | bytes | None, *, fresh: bool = True) -> AbstractContextManager[Line]:
        """Hold the wire for one question and its answer, which may be written and read in several parts.

        ``with self._exchange(command): ...``. When the block begins, nothing from before is left that could be taken
        for the answer: if something is, or if the last exchange went wrong, the line is recovered first, and
        :meth:`_identify` must succeed. In the block, errors of VISA become DeviceErrors, and so does a ValueError that
        the driver raises for a reply that makes no sense: a DeviceProtocolError. Any error that ends the block has the
        line recovered before the next exchange. An exchange within an exchange is a part of it.

        Args:
            command: what errors name; it is not sent.
            fresh: whether the line is recovered if bytes are waiting to be read when it begins.

        Returns:
            A context manager that gives the line, which drivers rarely need: in the block, use ``_write_bytes``,
            ``_read_bytes``, ``_read_until``, ``_write`` and ``_read``.
        """
        if self._limit_reads_ is not None:
            self._limit_reads_.append((self, ""))
        return self._exchanges_.exchange(command, fresh=fresh)

    _exchange_ = _exchange

    def _distrust(self, reason: str) -> None:
        """Have the line recovered before the next exchange."""
        if self._exchanges_.transport is not None:
            self._exchanges_.transport.doubt(reason)

    _distrust_ = _distrust

    def _ask(self, command: str, parse: Callable[[str], _T], timeout: float | None = None) -> _T:
        """Send ``command`` and return what ``parse`` makes of the reply; its ValueError is a DeviceProtocolError."""
        reply = self._query(command, timeout)
        try:
            return parse(reply)
        except ValueError as error:
            self._distrust_(f"{command!r} was answered with {reply!r}")
            raise DeviceProtocolError(str(error), **self._facts_(command)) from error

    _ask_ = _ask

    @hook
    def _query(self, command: str, timeout: float | None = None) -> str:
        """As :meth:`query`; a driver whose instrument echoes or prompts overrides this and :meth:`_write`."""
        timeout = self._seconds_(timeout)
        with self._exchange_(command):
            self._send_(command)
            return self._read_(timeout)

    def _ask_aside(self, command: str, parse: Callable[[str], _T], timeout: float, *, interval: float = 0.05) -> _T:
        """As ``_ask``, over a connection of its own, and waiting for the reply with ``self.wait``.

        For an instrument that answers some commands only when it has carried them out, and answers each of several
        connections by itself. While it waits, shared reads run, and making the device safe gets the wire at once.
        The connection is closed at the end, also of a wait that is cancelled; that does not stop the instrument, which
        is the business of ``_make_safe``.

        Args:
            command: text.
            parse: makes the result of the reply; its ValueError is a DeviceProtocolError.
            timeout: seconds until the reply begins.
            interval: seconds between two looks whether it has come.

        Raises:
            DeviceTimeoutError: no reply came in time; the instrument works on.
            DeviceDisconnectedError: the connection cannot be opened, or was lost.
            DeviceProtocolError: the address is not that of a network socket (``TCPIP::...::SOCKET``).
            OperationCancelled, MutexBrokenError, MutexTimeoutError: as for :meth:`~catkit_devices.device.Device.wait`.
        """
        timeout = self._seconds_(timeout)
        data = self._bytes_of_(command)
        with self._exchanges_.aside(command) as line:
            line.write(data, self.io_timeout)
            if not self.wait(lambda: bool(line.unread()), timeout, interval):
                raise DeviceTimeoutError(f"no reply in {timeout:g} s", **self._facts_(command))
            end = self.read_termination.encode("ascii")
            return parse(self._decode_(line.read_message(end, self.io_timeout, self._checkpoint_)))

    @hook
    def _write(self, command: str) -> None:
        """As :meth:`write`: send ``command`` with its termination; it has no reply."""
        with self._exchange_(command, fresh=False):
            self._send_(command)

    def _read(self, timeout: float | None = None) -> str:
        """As :meth:`read`: return the next message as text, without its termination."""
        end, timeout = self.read_termination.encode("ascii"), self._seconds_(timeout)
        with self._exchange_(None, fresh=False) as line:
            return self._decode_(line.read_message(end, timeout, self._checkpoint_))

    _read_ = _read

    def _decode(self, data: bytes) -> str:
        """Return bytes of the wire as text, by :attr:`encoding`.

        Raises:
            ValueError: the bytes are no text in the encoding; in an exchange this becomes a DeviceProtocolError.
        """
        try:
            return data.decode(self.encoding)
        except UnicodeDecodeError as error:
            found = data[max(0, error.start - 20) : error.end + 20]
            raise ValueError(
                f"text in {self.encoding!r} was expected, got {found!r}; where nothing disturbs the line, the driver's "
                "class attribute 'encoding' must say how the instrument sends such characters, for example "
                "encoding = 'latin-1'"
            ) from error

    _decode_ = _decode

    def _read_until(self, end: bytes, timeout: float | None = None) -> bytes:
        """As :meth:`read_until`: return the bytes before ``end``; ``end`` is taken off the line, too.

        Args:
            end: one or several bytes, found as a whole.
            timeout: seconds; the driver's ``io_timeout`` when None.

        Raises:
            DeviceTimeoutError: ``end`` did not come in time.
        """
        timeout = self._seconds_(timeout)
        with self._exchange_(None, fresh=False) as line:
            return line.read_until(end, timeout, self._checkpoint_)

    _read_until_ = _read_until

    def _read_bytes(self, count: int, timeout: float | None = None) -> bytes:
        """As :meth:`read_bytes`: return exactly ``count`` bytes, whatever they are; never fewer.

        Args:
            count: how many.
            timeout: seconds for each 256 KiB of them; the driver's ``io_timeout`` when None.

        Raises:
            DeviceTimeoutError: not all of them came in time.
        """
        timeout = self._seconds_(timeout)
        with self._exchange_(None, fresh=False) as line:
            return line.read_bytes(count, timeout, self._checkpoint_)

    _read_bytes_ = _read_bytes

    def _write_bytes(self, data: bytes) -> None:
        """As :meth:`write_bytes`: send these bytes and no others; no termination is added."""
        with self._exchange_(data, fresh=False) as line:
            line.write(data, self.io_timeout)

    _write_bytes_ = _write_bytes

    def _query_binary(self, command: str, timeout: float | None = None) -> bytes:
        """As :meth:`query_binary`: return the content of the block that answers ``command``."""
        timeout = self._seconds_(timeout)
        with self._exchange_(command) as line:
            self._send_(command)
            head = self._read_bytes_(2, timeout)
            if head == b"#0" and not line.stream:  # of indefinite length: up to the end of the message (8.7.10)
                end = self.read_termination.encode("ascii")
                return line.read_message(end, timeout, self._checkpoint_)
            if head[:1] != b"#" or head[1:] not in {b"%d" % digit for digit in range(1, 10)}:
                raise ValueError(f"a definite-length block was expected, got {head!r}")
            digits = self._read_bytes_(int(head[1:]), timeout)
            if not digits.isdigit():
                raise ValueError(f"the length of a block was expected, got {digits!r}")
            block = self._read_bytes_(int(digits), timeout)
            line.read_end(self.read_termination.encode("ascii"), timeout, self._checkpoint_)
            return block

    _query_binary_ = _query_binary

    def _wait_for_completion(
        self, command: str, timeout: float, done: Callable[[], bool] | None = None, *, interval: float = 0.1
    ) -> None:
        """As :meth:`wait_for_completion`.

        Args:
            command: text; without a reply.
            timeout: seconds.
            done: asks whether it is complete, in one short exchange, where the instrument does not know ``*OPC`` or
                has a better way: ``lambda: self._query("MOVE:STATE?") == "IDLE"``.
            interval: seconds between two questions.
        """
        timeout = self._seconds_(timeout)
        if done is None:
            whole: Any = self._device_  # of a component: common commands are about the whole instrument
            whole._ask_("*ESR?", str)  # reading forgets the events of the past (10.12)
            self._write(command)
            # It sets bit 0 when no operation is pending any more (10.18).
            whole._write("*OPC")  # noqa: SLF001 - of this class
            done = self._is_complete_
        else:
            self._write(command)
        if not self.wait(done, timeout, interval):
            raise DeviceTimeoutError(f"not complete in {timeout:g} s", **self._facts_(command))

    _wait_for_completion_ = _wait_for_completion

    def _complete_(self, command: str, seconds: float, how: str) -> None:
        """Send ``command``, which sets a quantity, and return when the instrument says that it is complete.

        Args:
            command: text; without a reply.
            seconds: that it may take.
            how: it is asked: ``"*OPC"``, in short exchanges; ``"*OPC?"`` or ``"*WAI"``, in one long exchange.
        """
        if how == "*OPC":
            self._wait_for_completion_(command, seconds)
            return
        self._write(command)
        whole: Any = self._device_
        if how == "*OPC?":
            whole._ask_("*OPC?", str, seconds)  # replies when nothing is pending any more (IEEE 488.2, 10.19)
            return
        # What follows *WAI is carried out when nothing is pending any more (10.39).
        self._refuse_failed_(whole._ask_("*WAI;*ESR?", _as_event_status, seconds))

    def _event_status(self) -> EventStatus:
        """Read, and so clear, the standard event status register (IEEE 488.2, 10.12)."""
        whole: Any = self._device_
        status: EventStatus = whole._ask_("*ESR?", _as_event_status)
        return status

    _event_status_ = _event_status

    def _is_complete_(self) -> bool:
        """Return whether nothing is pending any more; an error that the instrument tells is a DeviceProtocolError."""
        status = self._event_status_()
        self._refuse_failed_(status)
        return EventStatus.OPERATION_COMPLETE in status

    def _refuse_failed_(self, status: EventStatus) -> None:
        failed = [str(bit.name).lower().replace("_", " ") for bit in status & _ERRORS]
        if failed:
            raise DeviceProtocolError(f"refused, or failed: {', '.join(failed)}", **self._facts_("*ESR?"))

    @hook
    def _identify(self) -> None:
        """Make sure that the right instrument answers; called after opening and whenever the line was suspect.

        Raises:
            DeviceOpenError: something else answers.
            DeviceError: nothing does.
        """
        self._check_identity_(self._query("*IDN?"))

    def _check_identity(self, reply: str) -> None:
        """Raise DeviceOpenError unless ``reply`` matches :attr:`identity`, and the serial number that was given."""
        self._checked_ = True
        if not re.search(self.identity, reply, re.IGNORECASE):
            raise DeviceOpenError(
                f"an instrument that calls itself {self.identity!r} was expected, found {reply!r}", **self._facts_()
            )
        if self._serial_number_ is not None and not re.search(self._serial_number_, reply):
            raise DeviceOpenError(
                f"an instrument with {self._serial_number_!r} in its identity was expected, found {reply!r}",
                **self._facts_(),
            )

    _check_identity_ = _check_identity

    # --- what every device has, over a line

    @property
    def _address_(self) -> str | None:
        return self._exchanges_.address

    def _open(self) -> Transport:
        if is_expression(self._wanted_):
            self._exchanges_.address = self._wanted_
            self._exchanges_.address = self._found_()
        return self._exchanges_.open(self._join_line_)

    def _found_(self) -> str:
        """Return the address of the one instrument to which the expression applies.

        Raises:
            DeviceOpenError: there is none, or more than one; says what was found.
        """
        try:
            listed = Transport.listed(self._visa_library_)
            found = matching(listed, self._wanted_)
        except Exception as error:  # whatever layers of pyvisa raise
            raise DeviceOpenError(f"instruments cannot be looked for: {error}", **self._facts_()) from error
        if len(found) == 1:
            return found[0]
        if not found:
            there = ", ".join(listed) or "none at all"
            raise DeviceOpenError(
                f"found no instrument to which {self._wanted_!r} applies; this VISA library finds {there} (it cannot "
                "find those that are reached through a plain socket)",
                **self._facts_(),
            )
        answers = {address: self._answer_at_(address) for address in found}
        right = [address for address, problem in answers.items() if problem is None]
        if len(right) == 1:
            return right[0]
        self._exchanges_.address = self._wanted_
        told = "; ".join(f"{address}: {problem or 'the right kind'}" for address, problem in answers.items())
        raise DeviceOpenError(
            f"found {len(right) or 'no'} right instruments to which {self._wanted_!r} applies, expected one: say more "
            f"in the address, or give serial_number ({told})",
            **self._facts_(),
        )

    def _answer_at_(self, address: str) -> str | None:
        """Open an address; return why the instrument there is not the right one, None if it is."""
        self._exchanges_.address = address
        try:
            self._exchanges_.open(self._join_line_)
        except DeviceError as error:
            return error.problem
        self._exchanges_.close()
        return None

    def _close(self) -> None:
        self._exchanges_.close()

    def _connection_replaced_at_(self) -> float | None:
        return self._exchanges_.replaced_at()

    def _is_connected_(self) -> bool:
        return self._exchanges_.transport is not None

    def _line_is_lost_(self) -> bool:
        return self._exchanges_.is_lost()

    def _require_identity_(self) -> None:
        self._checked_ = False
        finished(self._identify(), f"{type(self).__qualname__}._identify")
        if self._serial_number_ is not None and not self._checked_:
            raise DeviceOpenError(
                "serial_number cannot be used: the driver does not ask the instrument for its identity",
                **self._facts_(),
            )

    def _checkpoint(self) -> None:
        super()._checkpoint_()
        transport = self._exchanges_.transport
        if transport is not None and transport.is_needed():
            raise OperationCancelled(f"device {self.name!r}: a device at {self._address_} is made safe first")

    _checkpoint_ = _checkpoint

    def _may_give_way_(self, chain: object) -> bool:
        transport = self._exchanges_.transport
        return super()._may_give_way_(chain) and not (transport is not None and transport.held_by(chain))

    def _sleep_(self, call: Call, seconds: float) -> None:
        transport = self._exchanges_.transport
        if transport is None or not transport.held_by(call.chain):
            super()._sleep_(call, seconds)
            return
        # The wire is held here, so this wait must end at once if the wire is needed to make a device safe.
        left = seconds
        while left > 0:
            super()._sleep_(call, min(left, _SLICE))
            self._checkpoint_()
            left -= _SLICE

    def _in_the_way_(self) -> str:
        transport = self._exchanges_.transport
        return "" if transport is None else transport.in_use()

    def _make_safe_in_doubt_(self) -> None:
        self._exchanges_.hurried(super()._make_safe_in_doubt_)

    def _join_line_(self) -> Transport:
        from pyvisa import constants

        settings = {
            "baud_rate": self.baud_rate,
            "data_bits": self.data_bits,
            "parity": constants.Parity[self.parity],
            "stop_bits": constants.StopBits(round(self.stop_bits * 10)),
            "flow_control": constants.ControlFlow[self.flow_control],
        }
        return Transport.acquire(self._visa_library_, self._exchanges_.address, settings)

    def _send(self, command: str) -> None:
        data = self._bytes_of_(command)
        self._exchanges_.opened().line.write(data, self.io_timeout)

    _send_ = _send

    def _bytes_of_(self, command: str) -> bytes:
        """Return a command as it is sent; DeviceValueError if it is not exactly one command, or cannot be sent."""
        ends = {self.write_termination, "\r", "\n"} if self.write_termination else set()
        if any(end in command for end in ends):
            raise DeviceValueError("must be one command, without what ends it", **self._facts_(command))
        try:
            return (command + self.write_termination).encode(self.encoding)
        except UnicodeEncodeError as error:
            raise DeviceValueError(
                f"must be text in {self.encoding!r} (the driver's class attribute 'encoding'), "
                f"which has no {command[error.start : error.end]!r}",
                **self._facts_(command),
            ) from error

    def _seconds_(self, timeout: float | None) -> float:
        """Return the seconds that a reply may take; asked before anything is sent."""
        if timeout is None:
            return self.io_timeout
        return min(seconds(timeout, f"device {self.name!r}, a reply"), LONGEST_TIMEOUT)


def _checked_pattern(pattern: str | None) -> str | None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"serial_number must be a regular expression, got {pattern!r}: {error}") from None
    return pattern


def _as_event_status(reply: str) -> EventStatus:
    if not re.fullmatch(r"\+?\d{1,3}", reply.strip()) or int(reply) > 255:
        raise ValueError(f"the standard event status register, 0 to 255, was expected, got {reply!r}")
    return EventStatus(int(reply))
