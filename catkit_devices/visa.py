"""Devices that are reached through VISA.

The caller who gives ``visa_library`` decides whether the backend is real or simulated, never the driver.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, final

from catkit_devices._base.timeouts import LONGEST_TIMEOUT, seconds
from catkit_devices._device.members import hook, operation, properties_of, unlocked
from catkit_devices._device.parts import components_of
from catkit_devices._device.settings import AsciiText, Encoding, PositiveWhole, Requirement
from catkit_devices._wire.program_message import is_question, same_form, several_lines
from catkit_devices._wire.wire_device import WireDevice
from catkit_devices.errors import (
    DeviceProtocolError,
    DeviceTimeoutError,
    DeviceValueError,
)
from catkit_devices.properties import Quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from catkit_devices._wire.byte_stream import Line

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
"""The bits that mean that something went wrong."""


class VisaDevice(WireDevice):
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

    read_termination: ClassVar[AsciiText] = "\n"
    """What ends a reply."""
    write_termination: ClassVar[AsciiText] = "\n"
    """What ends a command."""
    encoding: ClassVar[Encoding] = "ascii"
    """The encoding of text on the wire, by Python's name for it: ``"latin-1"`` for an instrument that sends µ or ° as
    one byte, ``"utf-8"`` for one that sends them as two. With ``"ascii"`` a disturbed byte above 127 is an error; in
    other encodings most such bytes are letters, so less is found."""
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

    _reads_: frozenset[str] = frozenset()
    """The messages with which properties are read, as far as that is known."""

    # --- exchanges

    @final
    def query(self, command: str, timeout: float | None = None) -> str:
        """Send ``command`` and return the reply, without their terminations.

        Args:
            command: one line, sent as it is; of its content only line ends are refused. Texts from elsewhere are put
                into it with :func:`~catkit_devices.properties.command_text`.
            timeout: seconds for the reply, as :attr:`io_timeout` counts them, which it is when None.
        """
        return self._query(command, timeout)

    @final
    def write(self, command: str) -> None:
        """Send ``command``, which has no reply; as for :meth:`query`, it is one line, sent as it is."""
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

    # --- for programs that know the instrument and not this project

    @final
    @unlocked
    def relay(self, message: bytes, *, read_only: bool = True) -> bytes:
        """Send what another program says to the instrument, and return what that replies; b"" if nothing is to come.

        One operation, under the mutex. A question that the driver declares as what reads a property, and ``*IDN?``,
        are reads; everything else counts as a change, for permits and for making safe.

        Args:
            message: with or without what ends it.
            read_only: whether everything else is refused.

        Returns:
            The reply, ended as the instrument ends it. Where the driver reads replies in a way of its own, it is what
            that makes of them, and a newline.

        Raises:
            DeviceValueError: it is refused; nothing was sent.
        """
        message = message.rstrip(b"\r\n")
        reads = self._is_read_(message)
        if read_only and not reads:
            raise DeviceValueError(
                f"{message[:80]!r} is refused: no property of the driver is read with it, and other programs may only "
                'read. With gateway = "write" in the device\'s table of the configuration, they may send anything',
                **self._facts_(),
            )
        if several_lines(message):
            raise DeviceValueError(
                f"{message[:80]!r} is refused: there is a line end inside, so the instrument would take it for several "
                "messages, and the replies could go to others. Send them one at a time",
                **self._facts_(),
            )
        body = VisaDevice._relay_
        found: bytes = self._perform_(body, "relay", (message,), {}, shared=False, changes=not reads)
        return found

    @final
    @operation(shared=True)
    def serial_poll(self) -> int:
        """Return the status byte (IEEE 488.2, 11.2), which comes beside messages; 0 if the interface cannot do that."""
        with self._exchange_("serial poll", fresh=False) as line:
            return line.status_byte()

    def _is_read_(self, message: bytes) -> bool:
        """Return whether a property of the driver is read with a message."""
        if several_lines(message):
            return False
        try:
            asked = same_form(message.decode("ascii"))
        except UnicodeDecodeError:
            return False
        if asked not in self._reads_:  # components are known when it is open
            questions = (
                one.question(owner)
                for owner in (self, *components_of(self))
                for one in properties_of(type(owner))
                if isinstance(one, Quantity)
            )
            self._reads_ = frozenset(["*IDN?", *(same_form(one) for one in questions if one is not None)])
        return asked in self._reads_

    def _relay_(self, message: bytes) -> bytes:
        """Do what ``relay`` does, under the locks."""
        asks = is_question(message)
        own: Any = type(self)
        if own._query is not VisaDevice._query:  # noqa: SLF001 - of this class; the instrument echoes or prompts
            text = self._decode_(message)
            return self._query(text).encode(self.encoding) + b"\n" if asks else self._write(text) or b""
        if not asks and not {*message} & {*b"\r\n#"}:
            self._write(self._decode_(message))  # the driver may ask afterwards whether it was an error
            return b""
        with self._exchange_(message, fresh=asks) as line:
            line.write(message + self.write_termination.encode("ascii"), self.io_timeout)
            return self._whole_reply_(line) if asks else b""

    def _whole_reply_(self, line: Line) -> bytes:
        """Return a reply with its termination, whether it is text or a block of data."""
        end, timeout, check = self.read_termination.encode("ascii"), self.io_timeout, self._checkpoint_
        if not line.stream:
            return line.read_message(b"", timeout, check)
        first = line.read_bytes(1, timeout, check)
        if first == end[:1]:
            return first + line.read_bytes(len(end) - 1, timeout, check)
        if first != b"#":
            return first + line.read_until(end, timeout, check) + end
        head = first + line.read_bytes(1, timeout, check)
        if not head[1:].isdigit() or head == b"#0":
            return head + line.read_until(end, timeout, check) + end
        head += line.read_bytes(int(head[1:]), timeout, check)
        if not head[2:].isdigit():
            return head + line.read_until(end, timeout, check) + end
        block = line.read_bytes(int(head[2:]), timeout, check)
        return head + block + line.read_until(end, timeout, check) + end

    # --- for drivers: the same, inside an operation

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
        with self._exchanges_.exchange(command, fresh=True):
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
            return parse(self._decode_(line.read_message(end, self.io_timeout, self._exchanges_.checkpoint)))

    @hook
    def _write(self, command: str) -> None:
        """As :meth:`write`: send ``command`` with its termination; it has no reply."""
        with self._exchanges_.exchange(command, fresh=False):
            self._send_(command)

    def _read(self, timeout: float | None = None) -> str:
        """As :meth:`read`: return the next message as text, without its termination."""
        end, timeout = self.read_termination.encode("ascii"), self._seconds_(timeout)
        with self._exchanges_.exchange(None, fresh=False) as line:
            return self._decode_(line.read_message(end, timeout, self._exchanges_.checkpoint))

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
        with self._exchanges_.exchange(None, fresh=False) as line:
            return line.read_until(end, timeout, self._exchanges_.checkpoint)

    _read_until_ = _read_until

    def _read_bytes(self, count: int, timeout: float | None = None) -> bytes:
        """As :meth:`read_bytes`: return exactly ``count`` bytes, whatever they are; never fewer.

        Args:
            count: how many.
            timeout: seconds; the driver's ``io_timeout`` when None.

        Raises:
            DeviceTimeoutError: not all of them came in time.
        """
        timeout = self._seconds_(timeout)
        with self._exchanges_.exchange(None, fresh=False) as line:
            return line.read_bytes(count, timeout, self._exchanges_.checkpoint)

    _read_bytes_ = _read_bytes

    def _write_bytes(self, data: bytes) -> None:
        """As :meth:`write_bytes`: send these bytes and no others; no termination is added."""
        with self._exchanges_.exchange(data, fresh=False) as line:
            line.write(data, self.io_timeout)

    _write_bytes_ = _write_bytes

    def _query_binary(self, command: str, timeout: float | None = None) -> bytes:
        """As :meth:`query_binary`: return the content of the block that answers ``command``."""
        timeout = self._seconds_(timeout)
        with self._exchanges_.exchange(command, fresh=True) as line:
            self._send_(command)
            head = self._read_bytes_(2, timeout)
            if head == b"#0" and not line.stream:  # of indefinite length: up to the end of the message (8.7.10)
                end = self.read_termination.encode("ascii")
                return line.read_message(end, timeout, self._exchanges_.checkpoint)
            if head[:1] != b"#" or head[1:] not in {b"%d" % digit for digit in range(1, 10)}:
                raise ValueError(f"a definite-length block was expected, got {head!r}")
            digits = self._read_bytes_(int(head[1:]), timeout)
            if not digits.isdigit():
                raise ValueError(f"the length of a block was expected, got {digits!r}")
            block = self._read_bytes_(int(digits), timeout)
            line.read_end(self.read_termination.encode("ascii"), timeout, self._exchanges_.checkpoint)
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

    # --- the serial port

    def _settings_(self) -> Mapping[str, Any]:
        from pyvisa import constants

        return {
            "baud_rate": self.baud_rate,
            "data_bits": self.data_bits,
            "parity": constants.Parity[self.parity],
            "stop_bits": constants.StopBits(round(self.stop_bits * 10)),
            "flow_control": constants.ControlFlow[self.flow_control],
        }

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


def _as_event_status(reply: str) -> EventStatus:
    if not re.fullmatch(r"\+?\d{1,3}", reply.strip()) or int(reply) > 255:
        raise ValueError(f"the standard event status register, 0 to 255, was expected, got {reply!r}")
    return EventStatus(int(reply))
