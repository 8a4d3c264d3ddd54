"""A simulated Keysight 33500B waveform generator.

Sources: 33500 Series Operating and Service Guide, SCPI programming reference; pymeasure ``agilent33500.py`` and qcodes
``KeysightAgilent_33XXX.py``. An amplitude with an offset beyond 5 V is a settings conflict.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from catkit_devices.errors import ConfigurationError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim import scpi

if TYPE_CHECKING:
    from catkit_devices.simulation import Bench

__all__ = ["Keysight33500B"]

_CONFLICT = (-221, "Settings conflict")
"""SCPI-99 volume 2, 21.8.10."""
_FORMS = {"SIN": "SIN", "SINUSOID": "SIN", "SQU": "SQU", "SQUARE": "SQU", "TRI": "TRI", "RAMP": "RAMP", "PULS": "PULS",
          "PULSE": "PULS", "PRBS": "PRBS", "NOIS": "NOIS", "NOISE": "NOIS", "ARB": "ARB", "DC": "DC"}  # fmt: skip
_UNITS = {"VPP": "VPP", "VRMS": "VRMS", "DBM": "DBM"}
"""Units of the amplitude."""
_INFINITE = 9.9e37
"""The load of an open output, as SCPI-99 volume 1, 7.2.1.4 writes it."""


def _settings(channel: int) -> dict[str, scpi.Number | scpi.Choice]:
    form = "{:+.15E}"
    return {
        f"SOUR{channel}:FUNC": scpi.Choice("SIN", _FORMS),
        f"SOUR{channel}:FREQ": scpi.Number(1000.0, 1e-6, 30e6, form),
        f"SOUR{channel}:VOLT": scpi.Number(0.1, 0.001, 10.0, form),
        f"SOUR{channel}:VOLT:UNIT": scpi.Choice("VPP", _UNITS),
        f"SOUR{channel}:VOLT:OFFS": scpi.Number(0.0, -4.9995, 4.9995, form),
        f"SOUR{channel}:PHAS": scpi.Number(0.0, -360.0, 360.0, form),
        f"SOUR{channel}:FUNC:ARB:SRAT": scpi.Number(40e3, 1e-6, 250e6, form),
        f"SOUR{channel}:FUNC:SQU:DCYC": scpi.Number(50.0, 0.01, 99.99, form),
        f"OUTP{channel}": scpi.Choice("0", scpi.SWITCH),
        f"OUTP{channel}:LOAD": scpi.Number(50.0, 1.0, _INFINITE, form),
    }


class Keysight33500B(scpi.ScpiSimulator):
    """The simulator ``keysight_33500b``.

    Args:
        bench: the simulated bench that it is part of.
        model: ``"33511B"``, ``"33512B"``, ``"33521B"`` or ``"33522B"``.

    Attributes:
        waveforms: numbers of the arbitrary waveforms in memory, by channel and name.
    """

    settings = _settings(1) | _settings(2)
    commands = scpi.Commands(
        f"""{scpi.Status.COMMON} *IDN *RST *TRG {scpi.Status.STATUS} SYSTem:ERRor[:NEXT] SYSTem:BEEPer
        [SOURce#:]FUNCtion [SOURce#:]FREQuency [SOURce#:]VOLTage [SOURce#:]VOLTage:UNIT [SOURce#:]VOLTage:OFFSet
        [SOURce#:]PHASe [SOURce#:]FUNCtion:ARBitrary:SRATe [SOURce#:]FUNCtion:ARBitrary [SOURce#:]DATA:VOLatile:CLEar
        [SOURce#:]FUNCtion:SQUare:DCYCle [SOURce#:]DATA:ARBitrary OUTPut#[:STATe] OUTPut#:LOAD"""
    )

    def __init__(self, bench: Bench, *, model: str = "33522B") -> None:
        if not re.fullmatch("335[12][12]B", model):
            raise ConfigurationError(f"model must be 33511B, 33512B, 33521B or 33522B, got {model!r}")
        self.identity = f"Agilent Technologies,{model},MY50000001,2.09-1.19-2.00-52-00"
        self._channels = int(model[4])
        self.waveforms: dict[tuple[str, str], list[float]] = {}
        self._selected: dict[str, str] = {}
        super().__init__(bench)

    def _answer(self, header: str | None, argument: str) -> str | bytes | None:
        found = re.match(r"(?:SOUR|OUTP)(\d+)", header or "")
        if found is not None and not 1 <= int(found[1]) <= self._channels:
            raise scpi.RefusedError(-114, "Header suffix out of range")
        if found is not None and header is not None and header.endswith(":LOAD") and argument.upper() == "INF":
            argument = f"{_INFINITE}"
        before = dict(self.values)
        answer = super()._answer(header, argument)
        for channel in (1, 2):
            if abs(self.number(f"SOUR{channel}:VOLT:OFFS")) + self.number(f"SOUR{channel}:VOLT") / 2 > 5.0:
                self.values = before
                raise scpi.RefusedError(*_CONFLICT)
        return answer

    def execute(self, header: str, argument: str) -> str | bytes | None:
        """Handle the commands for arbitrary waveforms."""
        channel, _colon, command = header.partition(":")
        match command:
            case "DATA:VOL:CLE":
                self.waveforms = {key: data for key, data in self.waveforms.items() if key[0] != channel}
            case "DATA:ARB":
                name, *numbers = (part.strip() for part in argument.split(","))
                samples = [scpi.Number(0, -1, 1).parse(number) for number in numbers]
                if not 8 <= len(samples) <= 65536:
                    raise scpi.RefusedError(*scpi.OUT_OF_RANGE)
                self.waveforms[channel, name.upper()] = samples
            case "FUNC:ARB?":
                return f'"{self._selected.get(channel, "")}"'
            case "FUNC:ARB":
                if (channel, argument.upper()) not in self.waveforms:
                    raise scpi.RefusedError(*scpi.ILLEGAL_VALUE)
                self._selected[channel] = argument.upper()
            case _:
                raise KeyError(header)
        return None


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"keysight_33500b": Keysight33500B}
