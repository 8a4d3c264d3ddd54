"""The command interpreter that several Thorlabs instruments with a serial line share.

A command is a line that ends with CR: ``key?`` asks and ``key=value`` sets. The unit echoes the line, then sends the
answer and CR if there is one, then the prompt ``> ``. Sources: Thorlabs FW102C/FW212C manual Rev H (October 2014)
section 5.2.3; pylablib ``devices/Thorlabs/serial.py``; github delmic/odemis ``src/odemis/driver/tlfw.py``; for the
MCLS1 github epics-containers/ibek-runtime-streamdevice ``thorlabsMcls1/thorlabsMcls1.proto``.

Assumed, because no source says it: a line that comes while the unit is busy is kept, and echoed when its turn comes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from catkit_devices.simulation import Outbox

if TYPE_CHECKING:
    from catkit_devices.simulation import Bench

__all__ = ["ArgumentError", "PromptInstrument", "UnknownCommandError"]


class UnknownCommandError(Exception):
    """The unit does not know the keyword."""


class ArgumentError(Exception):
    """The unit knows the keyword and does not accept the value."""


class PromptInstrument:
    """Base of the simulated units; a subclass implements :meth:`get` and :meth:`set`.

    Args:
        bench: the simulated bench that it is part of.
    """

    IDENTIFY = "*idn"

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._outbox = Outbox(bench.clock)
        self._line = bytearray()
        self._lines: deque[tuple[float, bytes]] = deque()
        self._free_at = 0.0

    def get(self, key: str) -> str:
        """Return the answer to ``key?``.

        Raises:
            UnknownCommandError: the unit does not know ``key``.
        """
        raise UnknownCommandError(key)

    def set(self, key: str, value: str, start: float) -> float:
        """Carry out ``key=value``; return for how many seconds, from the time ``start`` on, the unit is busy.

        Raises:
            UnknownCommandError: the unit does not know ``key``.
            ArgumentError: the unit does not accept ``value``.
        """
        raise UnknownCommandError(f"{key}={value} at {start}")

    def call(self, key: str) -> None:
        """Carry out a command that has neither ``?`` nor ``=``.

        Raises:
            UnknownCommandError: the unit does not know ``key``.
        """
        if key != "save":
            raise UnknownCommandError(key)

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the echoes, answers and prompts that the unit has sent by now."""
        now = self.bench.clock.time()
        self._line += data
        *lines, rest = bytes(self._line).split(b"\r")
        self._line = bytearray(rest)
        self._lines.extend((now, line) for line in lines)
        while self._lines and self._free_at <= now:
            self._execute(*self._lines.popleft())
        return self._outbox.take()

    def _execute(self, arrival: float, line: bytes) -> None:
        start = max(arrival, self._free_at)
        self._outbox.put(line + b"\r", at=start)
        key, is_set, value = line.decode("latin-1").partition("=")
        answer, busy = "", 0.0
        try:
            if is_set:
                busy = self.set(key, value, start)
            elif key.endswith("?"):
                answer = self.get(key[:-1]) + "\r"
            else:
                self.call(key)
        except UnknownCommandError:
            answer = "Command error CMD_NOT_DEFINED\n\r"
        except ArgumentError:
            answer = "Command error CMD_ARG_INVALID\n\r"
        self._free_at = start + busy
        self._outbox.put(answer.encode("latin-1") + b"> ", at=self._free_at)


def choose(value: str, choices: range | tuple[int, ...]) -> int:
    """Return ``value`` as one of the whole numbers that a unit accepts."""
    try:
        number = int(value)
    except ValueError:
        raise ArgumentError(value) from None
    if number not in choices:
        raise ArgumentError(value)
    return number


def measure(value: str, low: float, high: float) -> float:
    """Return ``value`` as a number between the limits that a unit accepts."""
    try:
        number = float(value)
    except ValueError:
        raise ArgumentError(value) from None
    if not low <= number <= high:
        raise ArgumentError(value)
    return number
