"""What the drivers of SCPI instruments share (SCPI-99 volume 1; IEEE 488.2)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from catkit_devices.errors import DeviceProtocolError
from catkit_devices.readings import without_stand_ins
from catkit_devices.visa import VisaDevice

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ScpiDevice", "number", "whole"]

_T = TypeVar("_T")

# Numeric response data NR3 of IEEE 488.2, 8.7.4, as instruments send it: one digit, fraction, exponent. Being strict
# finds replies to which a byte was added or from which one was lost.
_NR3 = re.compile(r"[+-]?\d\.\d+E[+-]\d{2,3}")


def number(reply: str) -> float:
    """Return the number that a reply in form NR3 stands for; 9.9E37 is infinity and 9.91E37 NaN."""
    if not _NR3.fullmatch(reply):
        raise ValueError(f"a number such as 1.23456789E-06 was expected, got {reply!r}")
    return without_stand_ins(float(reply))


def whole(reply: str) -> int:
    """Return the whole number that a reply in form NR1 stands for (IEEE 488.2, 8.7.2)."""
    if not re.fullmatch(r"[+-]?\d+", reply):
        raise ValueError(f"a whole number was expected, got {reply!r}")
    return int(reply)


class ScpiDevice(VisaDevice):
    """A VisaDevice that asks after each command whether it was accepted."""

    def _identify(self) -> None:
        super()._identify()
        super()._write("*CLS")  # errors of the past are nobody's

    def _write(self, command: str) -> None:
        with self._transaction():
            super()._write(command)
            answer = self._query("SYST:ERR?")
        if not re.match(r"[+-]?0,", answer):
            raise DeviceProtocolError(f"refused: {answer}", **self._facts(command))

    def _ask_twice(self, command: str, parse: Callable[[str], _T]) -> _T:
        """Ask for what a stray character would turn into something else that makes sense: two answers must agree."""
        with self._transaction():
            one, other = self._ask(command, parse), self._ask(command, parse)
        if one != other:
            self._distrust(f"{command!r} was answered with {one!r} and {other!r}")
            raise DeviceProtocolError(f"the same answer twice was expected, got {one!r} and {other!r}",
                                      **self._facts(command))  # fmt: skip
        return one
