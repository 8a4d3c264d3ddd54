"""A simulated Keysight E36311A, E36312A or E36313A supply with a resistor at each of its three outputs.

Sources: Keysight E36300 Series Programming Guide; pymeasure ``keysightE36312A.py``, ``keysightE36311A.py``. A channel
list after the parameter selects the output, ``VOLT 5,(@1)``; without a list it is output 1. Assumed: readings have no
noise; MAX is the end of a range that is farther from zero, as it is in the E3631A's manual.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim import scpi

if TYPE_CHECKING:
    from catkit_devices.simulation import Bench

__all__ = ["KeysightE36312A"]

_RATINGS = {
    "E36311A": ((6, 5), (25, 1), (-25, 1)),
    "E36312A": ((6, 5), (25, 1), (25, 1)),
    "E36313A": ((6, 10), (25, 2), (25, 2)),
}
"""V and A of outputs 1 to 3, by model."""
_ABOVE = 1.03
"""What can be set is 3 % above the rating."""


class _FromZero(scpi.Number):
    """A setting from 0 to ``end``, which is its MAX even where it is negative."""

    def __init__(self, default: float, end: float) -> None:
        super().__init__(default, min(end, 0.0), max(end, 0.0))
        self.nearest, self.farthest = 0.0, end

    def parse(self, argument: str) -> float:
        """Return what an argument stands for."""
        named = {"MIN": self.nearest, "MAX": self.farthest}
        return named[argument.upper()] if argument.upper() in named else super().parse(argument)


def _settings(model: str) -> dict[str, scpi.Number | scpi.Choice]:
    settings: dict[str, scpi.Number | scpi.Choice] = {}
    for number, (volts, amperes) in enumerate(_RATINGS[model], 1):
        settings[f"VOLT@{number}"] = _FromZero(0.0, _ABOVE * volts)
        settings[f"CURR@{number}"] = _FromZero(amperes / 10, _ABOVE * amperes)
        settings[f"OUTP@{number}"] = scpi.Choice("0", scpi.SWITCH)
    return settings


class KeysightE36312A(scpi.ScpiSimulator):
    """The simulator ``keysight_e36312a``.

    Args:
        bench: the simulated bench that it is part of.
        load: ohms at each output.
        model: ``"E36311A"``, ``"E36312A"`` or ``"E36313A"``.
    """

    commands = scpi.Commands(
        f"""{scpi.Status.COMMON} *IDN *RST {scpi.Status.STATUS} SYSTem:ERRor[:NEXT]
        [SOURce:]VOLTage[:LEVel][:IMMediate][:AMPLitude] [SOURce:]CURRent[:LEVel][:IMMediate][:AMPLitude] OUTPut[:STATe]
        MEASure[:SCALar][:VOLTage][:DC] MEASure[:SCALar]:VOLTage[:DC] MEASure[:SCALar]:CURRent[:DC]"""
    )

    def __init__(self, bench: Bench, *, load: float = 10.0, model: str = "E36312A") -> None:
        if model not in _RATINGS:
            raise ValueError(f"model must be one of {', '.join(_RATINGS)}, got {model!r}")
        self._load = load
        self.identity = f"Keysight Technologies,{model},MY57000001,2.1.3-1.0.4-1.12"
        self.settings = _settings(model)
        super().__init__(bench)

    @property
    def outputs(self) -> list[bool]:
        """Whether each output is on."""
        return [self.values[f"OUTP@{number}"] == "1" for number in (1, 2, 3)]

    def _answer(self, header: str | None, argument: str) -> str | bytes | None:
        if header is None or header.startswith(("*", "STAT", "SYST")):
            return super()._answer(header, argument)
        value, _at, channel = argument.partition("(@")
        found = re.fullmatch(r"([123])\)", channel or "1)")
        if found is None:
            raise scpi.RefusedError(*scpi.OUT_OF_RANGE)
        query = "?" if header.endswith("?") else ""
        return super()._answer(f"{header.removesuffix('?')}@{found[1]}{query}", value.strip().rstrip(",").strip())

    def execute(self, header: str, argument: str) -> str | bytes | None:
        """Measure."""
        quantity, _at, number = header.removesuffix("?").partition("@")
        if not quantity.startswith("MEAS"):
            raise KeyError(header)
        if argument:
            raise scpi.RefusedError(*scpi.PARAMETER_NOT_ALLOWED)
        on = self.values[f"OUTP@{number}"] == "1"
        wanted, limit = self.number(f"VOLT@{number}") / self._load, self.number(f"CURR@{number}")
        current = max(-limit, min(wanted, limit)) if on else 0.0
        return f"{current if quantity == 'MEAS:CURR' else current * self._load:+.8E}"


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"keysight_e36312a": KeysightE36312A}
