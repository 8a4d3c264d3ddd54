"""A simulated Keysight E36312A supply with a resistor at each of its three outputs.

Sources: Keysight E36300 Series Programming Guide; pymeasure ``keysightE36312A.py``. A channel list after the parameter
selects the output, ``VOLT 5,(@1)``; without a list it is output 1. Assumed: readings have no noise.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim import scpi

if TYPE_CHECKING:
    from catkit_devices.simulation import Bench

__all__ = ["KeysightE36312A"]

_RANGES = {1: (6.18, 5.15), 2: (25.75, 1.03), 3: (25.75, 1.03)}
"""Highest V and A that can be set, by output: 3 % above the rating of the output."""


def _settings(number: int) -> dict[str, scpi.Number | scpi.Choice]:
    volts, amperes = _RANGES[number]
    return {
        f"VOLT@{number}": scpi.Number(0.0, 0.0, volts),
        f"CURR@{number}": scpi.Number(amperes / 1.03 / 10, 0.0, amperes),
        f"OUTP@{number}": scpi.Choice("0", scpi.SWITCH),
    }


class KeysightE36312A(scpi.ScpiSimulator):
    """The simulator ``keysight_e36312a``.

    Args:
        bench: the simulated bench that it is part of.
        load: ohms at each output.
    """

    identity = "Keysight Technologies,E36312A,MY57000001,2.1.3-1.0.4-1.12"
    settings = _settings(1) | _settings(2) | _settings(3)
    commands = scpi.Commands(
        f"""{scpi.Status.COMMON} *IDN *RST {scpi.Status.STATUS} SYSTem:ERRor[:NEXT]
        [SOURce:]VOLTage[:LEVel][:IMMediate][:AMPLitude] [SOURce:]CURRent[:LEVel][:IMMediate][:AMPLitude] OUTPut[:STATe]
        MEASure[:SCALar][:VOLTage][:DC] MEASure[:SCALar]:VOLTage[:DC] MEASure[:SCALar]:CURRent[:DC]"""
    )

    def __init__(self, bench: Bench, *, load: float = 10.0) -> None:
        self._load = load
        super().__init__(bench)

    @property
    def outputs(self) -> list[bool]:
        """Whether each output is on."""
        return [self.values[f"OUTP@{number}"] == "1" for number in _RANGES]

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
        current = min(self.number(f"VOLT@{number}") / self._load, self.number(f"CURR@{number}")) if on else 0.0
        return f"{current if quantity == 'MEAS:CURR' else current * self._load:+.8E}"


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"keysight_e36312a": KeysightE36312A}
