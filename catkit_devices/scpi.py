"""The base class for SCPI instruments: commands, replies, errors and status of IEEE 488.2 and SCPI-99.

It reads every reply that IEEE 488.2 allows: numbers in all forms, truth values, strings, binary blocks. If a driver
must detect replies that were disturbed on the wire, it accepts only exact forms, with ``strict = True``.

Sources: IEEE 488.2-1992, clauses 8.7 (replies), 10 (common commands) and 11 (status); SCPI-99 volume 1, 7 (numbers and
truth values), and volume 2, 21.8 (the error queue).
"""

from __future__ import annotations

import enum
import logging
import re
import reprlib
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, final

from catkit_devices._device.arrays import Array
from catkit_devices._device.members import hook
from catkit_devices._device.settings import AsciiText
from catkit_devices._device.values import Rule, decimal
from catkit_devices.errors import DeviceProtocolError, DeviceTimeoutError
from catkit_devices.visa import EventStatus, VisaDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

__all__ = ["EventStatus", "ScpiDevice", "StatusByte", "boolean", "elements", "number", "text", "whole"]

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_EXACT: dict[Any, tuple[re.Pattern[str], str]] = {
    float: (re.compile(r"[+-]?\d\.\d+E[+-]\d{2,3}"), "a number such as 1.23456789E-06"),
    int: (re.compile(r"[+-]?\d+"), "a whole number"),
    bool: (re.compile(r"[01]"), "0 or 1"),
}
"""The only form that a strict driver accepts for each type, and its name in messages: NR3 and NR1 of IEEE 488.2 (8.7.4
and 8.7.2), as instruments send them, and SCPI-99 volume 1, 7.3."""
_MOST_ERRORS = 100
"""Number of errors after which the queue is not read further: instruments keep 2 to about 30."""

_REGISTER = "*ESR?"
"""The standard event status register, for instruments without an error queue (IEEE 488.2, 11.5.1)."""
_REFUSED = {
    EventStatus.COMMAND_ERROR: "command error (there is no such command)",
    EventStatus.EXECUTION_ERROR: "execution error (its value is not allowed, or not now)",
    EventStatus.DEVICE_DEPENDENT_ERROR: "error of the instrument itself",
    EventStatus.QUERY_ERROR: "query error (a reply was not read)",
}
"""The bits that mean an error, as SCPI-99 has errors of these four classes in its queue (volume 2, 21.8.8)."""

_FLOAT, _INT, _BOOL, _STR = (Rule(kind, None, None) for kind in (float, int, bool, str))
"""How replies of these types are read; made once for all devices."""


class StatusByte(enum.IntFlag):
    """The bits of ``*STB?`` (IEEE 488.2, 11.2; SCPI-99 volume 1, 9): ``Measurement("*STB?", type=StatusByte, ...)``."""

    ERROR_QUEUE = 4
    """There are errors in the queue."""
    QUESTIONABLE = 8
    """An enabled bit of the questionable status register."""
    MESSAGE_AVAILABLE = 16
    """A reply waits to be read."""
    EVENT = 32
    """An enabled bit of the standard event status register."""
    SERVICE_REQUEST = 64
    """An enabled bit of this byte (master summary status)."""
    OPERATION = 128
    """An enabled bit of the operation status register."""


def number(reply: str) -> float:
    """Return the number in a reply, in any form of IEEE 488.2: ``5``, ``5.0``, ``+5.00E+00``, ``#H5``.

    9.9E37 is infinity, -9.9E37 negative infinity, and 9.91E37 NaN.
    """
    return float(_FLOAT.parse(decimal(reply.strip())))


def whole(reply: str) -> int:
    """Return the whole number in a reply: ``5``, ``+5.00E+00``, ``#HFF``, ``#Q17``, ``#B1011``."""
    return int(_INT.parse(decimal(reply.strip())))


def boolean(reply: str) -> bool:
    """Return the truth value in a reply: ``1``, ``+0``, ``ON``, ``off``, ``TRUE``, ``1.00000E+00``."""
    return bool(_BOOL.parse(reply.strip()))


def text(reply: str) -> str:
    """Return the text in a reply: of a string in quotes, the part inside, with ``""`` as one quote (IEEE 488.2, 8.7.8).

    Any other reply is returned unchanged.
    """
    reply = reply.strip()
    quote = reply[:1]
    if quote not in ('"', "'") or len(elements(reply)) != 1:
        return reply
    inside = reply[1:-1]
    return inside.replace(2 * quote, quote) if quote not in inside.replace(2 * quote, "") else reply


def elements(reply: str) -> list[str]:
    """Return the parts of a reply between commas; a comma inside of a string does not count (IEEE 488.2, 8.4.2)."""
    parts, quote = [""], ""
    for letter in reply.strip():
        if letter == "," and not quote:
            parts.append("")
            continue
        if letter == quote:
            quote = ""
        elif not quote and letter in "\"'" and not parts[-1].strip(" \"'"):
            quote = letter
        parts[-1] += letter
    if quote:
        raise ValueError(f"a string that ends with {quote} was expected, got {reply!r}")
    return [part.strip() for part in parts]


class ScpiDevice(VisaDevice):
    """A VisaDevice for a SCPI instrument.

    Quantities that are declared with commands (``Control("VOLT?", "VOLT {}", ...)``) are read in every form that IEEE
    488.2 allows; :meth:`_ask_value` does the same inside of a method. After each command the error queue is read; if
    the instrument has refused the command, the errors in the queue are in the text of the exception.
    """

    errors: ClassVar[Literal["always", "on_request", "never"]] = "always"
    """When the error queue is read: ``"always"`` after each command; ``"on_request"`` by :meth:`check_errors` only,
    for an instrument that must be fast; ``"never"`` for an instrument that has no such queue."""
    error_query: ClassVar[AsciiText] = "SYST:ERR?"
    """The query that reads and removes the oldest error (SCPI-99 volume 2, 21.8). For an instrument without an error
    queue: ``"*ESR?"``, the register that tells whether a command was refused (IEEE 488.2, 11.5.1)."""
    strict: ClassVar[bool] = False
    """Whether replies must have an exact form, so that disturbed replies are detected: numbers as ``1.23456789E-06``,
    truth values as 0 or 1. For whole numbers, texts and choices, where one character more or less gives another valid
    value, the instrument is asked twice and must answer the same. IEEE 488.2 allows more forms, so use it only if the
    instrument is known to send these."""

    @final
    def check_errors(self) -> None:
        """Read the error queue until it is empty.

        Raises:
            DeviceProtocolError: there were errors; the text has all of them.
        """
        if self.errors == "never":
            raise DeviceProtocolError("has no error queue (errors = 'never' in its driver)", **self._facts_())
        self._raise_errors_(None)

    # --- for drivers, inside an operation

    def _ask_value(
        self,
        command: str,
        type: Any = float,  # noqa: A002 - its public name
        *,
        count: int | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Send ``command`` and return the value in the reply, which may have any form of IEEE 488.2.

        Args:
            command: a query.
            type: ``float``, ``int``, ``bool`` or ``str``.
            count: the number of values in the reply, with commas between them, which are returned as a list. None for
                a reply with one value.
            timeout: seconds for the reply; the driver's ``io_timeout`` when None.
        """
        rule = Rule(type, None, None)

        def parse(reply: str) -> list[Any]:
            parts = [reply] if count is None else elements(reply)
            if count is not None and len(parts) != count:
                raise ValueError(f"{count} values, with commas between them, were expected, got {reply!r}")
            return [rule.parse(self._plain_(part, rule)) for part in parts]

        with self._transaction_():
            values = self._ask_(command, parse, timeout)
            if self.strict and type not in (float, bool):
                self._require_same_(command, values, self._ask_(command, parse, timeout))
        return values[0] if count is None else values

    _ask_value_ = _ask_value

    def _ask_twice(self, command: str, parse: Callable[[str], _T]) -> _T:
        """Ask twice, and raise if the answers differ, for values that a wrong character turns into valid others."""
        with self._transaction_():
            one, other = self._ask_(command, parse), self._ask_(command, parse)
            self._require_same_(command, one, other)
        return one

    def _query_array(
        self,
        command: str,
        dtype: str,
        *,
        shape: int | Sequence[int] | None = None,
        scale: float = 1.0,
        offset: float = 0.0,
        timeout: float | None = None,
    ) -> npt.NDArray[Any]:
        """Send ``command`` and return the numbers of the reply as an array: a waveform, a spectrum, a frame.

        Args:
            command: a query.
            dtype: how the numbers are sent; this and the next three as for :class:`~catkit_devices.properties.Array`.
            shape: the number of elements in each dimension; None for one dimension of any length.
            scale: the factor by which each number is multiplied.
            offset: the number that is added after that.
            timeout: seconds for the reply; the driver's ``io_timeout`` when None.
        """
        kind = Array(dtype, shape=shape, scale=scale, offset=offset)
        reply = self._query_binary_(command, timeout) if kind.binary else self._query(command, timeout)
        try:
            return kind.scaled(kind(reply), self)
        except ValueError as error:
            self._distrust_(f"{command!r} was answered with {reprlib.repr(reply)}")
            raise DeviceProtocolError(str(error), **self._facts_(command)) from error

    _query_array_ = _query_array

    # --- errors

    def _raise_errors_(self, command: str | None) -> None:
        found = self._read_errors_()
        if found:
            raise DeviceProtocolError(f"refused: {'; '.join(found)}", **self._facts_(command))

    def _read_errors_(self) -> list[str]:
        """Read the error queue until it is empty (SCPI-99 volume 2, 21.8.1), and return what it says."""
        found: list[str] = []
        whole: Any = self._device_  # of a component: there is one queue for the whole instrument
        if self.error_query == _REGISTER:
            status: EventStatus = whole._event_status_()
            return [meaning for bit, meaning in _REFUSED.items() if status & bit]
        with self._transaction_():
            for _ in range(_MOST_ERRORS):
                answer = whole._ask_(self.error_query, self._error_entry_).strip()
                if re.match(r"[+-]?0+(?!\d)", answer):
                    return found
                found.append(answer)
        return [*found[:3], f"and so on: the queue was not empty after {_MOST_ERRORS} errors"]

    def _error_entry_(self, reply: str) -> str:
        # A number and a text: -113,"Undefined header" (SCPI-99 volume 2, 21.8.1). Some send the number only.
        if not re.match(r'[+-]?\d+,".*"$' if self.strict else r"\s*[+-]?\d+\s*(,|$)", reply):
            raise ValueError(f'an error such as -113,"Undefined header" was expected, got {reply!r}')
        return reply

    @hook
    def _identify(self) -> None:
        super()._identify()
        if self.errors != "never":
            try:
                found = self._read_errors_()
            except DeviceTimeoutError as error:
                hint = "; a driver whose instrument has no error queue needs errors = 'never'"
                raise DeviceTimeoutError(error.problem + hint, **self._facts_(error.command)) from error
            if found:  # errors of earlier programs, or of an identity query that the instrument does not know
                _log.warning("device %r: in the error queue: %s", self.name, "; ".join(found))
        super()._write("*CLS")  # also cancels an earlier *OPC for which nobody waits any more (IEEE 488.2, 10.3)

    @hook
    def _write(self, command: str) -> None:
        if self.errors != "always":
            super()._write(command)
            return
        with self._transaction_():
            super()._write(command)
            self._raise_errors_(command)

    def _wait_for_completion(
        self, command: str, timeout: float, done: Callable[[], bool] | None = None, *, interval: float = 0.1
    ) -> None:
        """As that of VisaDevice; if the instrument reports an error, the text has the errors of its queue."""
        try:
            super()._wait_for_completion_(command, timeout, done, interval=interval)
        except DeviceProtocolError:
            if self.errors != "never":
                self._raise_errors_(command)
            raise
        if self.errors == "always":
            self._raise_errors_(command)

    _wait_for_completion_ = _wait_for_completion

    # --- replies

    def _ask_for_(self, query: Callable[[str], str], command: str, rule: Rule) -> str:
        """Return the reply to the query of a declared quantity; a strict driver asks twice if its form proves nothing.

        Args:
            query: the function that sends a command and returns the reply; a component may have its own.
            command: of the quantity.
            rule: of the quantity.
        """
        if not self.strict or (rule.choices is None and rule.flags is None and rule.type not in (int, str)):
            return query(command)
        with self._transaction_():
            one, other = query(command), query(command)
            self._require_same_(command, one, other)
        return one

    def _plain_(self, reply: str, rule: Rule) -> str:
        """Return a reply in the form that the rule reads.

        Raises:
            ValueError: it is not a form of IEEE 488.2, or not the exact one that a strict driver needs.
        """
        reply = reply.strip()
        if rule.choices is not None:
            return reply if reply in map(str, rule.choices.values()) else text(reply)
        if self.strict and rule.type in _EXACT:
            form, name = _EXACT[rule.type]
            if not form.fullmatch(reply):
                raise ValueError(f"{name} was expected, in exactly this form (strict = True), got {reply!r}")
        if rule.type is str:
            return text(reply)
        return decimal(reply) if rule.type in (float, int) or rule.flags is not None else reply

    def _require_same_(self, command: str, one: object, other: object) -> None:
        if one != other:
            self._distrust_(f"{command!r} was answered with {one!r} and {other!r}")
            raise DeviceProtocolError(
                f"the same answer twice was expected, got {one!r} and {other!r}", **self._facts_(command)
            )
