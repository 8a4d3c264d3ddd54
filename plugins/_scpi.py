"""What the drivers of SCPI instruments share (SCPI-99 volume 1; IEEE 488.2)."""

from __future__ import annotations

import math
import re

from catkit_devices.errors import DeviceProtocolError
from catkit_devices.visa import VisaDevice

__all__ = ["ScpiDevice", "number"]

# Numeric response data NR3 of IEEE 488.2, 8.7.4, as instruments send it: one digit, fraction, exponent. Being strict
# finds replies to which a byte was added or from which one was lost.
_NR3 = re.compile(r"[+-]?\d\.\d+E[+-]\d{2,3}")

_INFINITY = 9.9e37
_NOT_A_NUMBER = 9.91e37


def number(reply: str) -> float:
    """Return the number that a reply in form NR3 stands for; 9.9E37 is infinity and 9.91E37 NaN (SCPI-99 7.2.1.4)."""
    if not _NR3.fullmatch(reply):
        raise ValueError(f"a number such as 1.23456789E-06 was expected, got {reply!r}")
    value = float(reply)
    if abs(value) == _NOT_A_NUMBER:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) == _INFINITY else value


class ScpiDevice(VisaDevice):
    """A VisaDevice that asks after each command whether it was accepted."""

    def _identify(self) -> None:
        super()._identify()
        VisaDevice._write(self, "*CLS")  # errors of the past are nobody's

    def _write(self, command: str) -> None:
        with self._transaction():
            super()._write(command)
            answer = self._query("SYST:ERR?")
        if not re.match(r"[+-]?0,", answer):
            raise DeviceProtocolError(f"refused: {answer}", **self._facts(command))
