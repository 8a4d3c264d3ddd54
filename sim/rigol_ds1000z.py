"""A simulated Rigol DS1054Z oscilloscope.

Source: Rigol MSO1000Z/DS1000Z Series Digital Oscilloscope Programming Guide (December 2015). Input 1 has a sine; the
others have no signal. Settings are sent as ``1.000000e+00``. The screen has 1200 points and eight divisions of 25
steps; a byte of 127 is the offset.

Assumed: a trigger comes within 0.1 s of a single acquisition; every state but STOP is TD.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim import scpi

if TYPE_CHECKING:
    from catkit_devices.simulation import Bench

__all__ = ["DS1000Z"]

_POINTS = 1200
"""Points on the screen; 100 in each division."""
_STEPS, _ZERO = 25, 127
"""Values of a byte in each division, and the value in the middle of the screen."""
_ACQUISITION = 0.1  # s
_FORM = "{:.6e}"
"""Numbers in replies."""
_SOURCES = {f"{word}{number}": f"CHAN{number}" for word in ("CHAN", "CHANNEL") for number in (1, 2, 3, 4)}
"""Sources of the trigger and of the waveform, in the form that replies have."""
_OTHER_TRIGGERS = {word: word for word in ("AC", *(f"D{number}" for number in range(16)))}
"""The mains, and the inputs of a logic probe."""


def _channel(number: int) -> dict[str, scpi.Number | scpi.Choice]:
    return {
        f"CHAN{number}:DISP": scpi.Choice("1" if number == 1 else "0", scpi.SWITCH),
        f"CHAN{number}:SCAL": scpi.Number(1.0, 1e-5, 1e4, _FORM),
        f"CHAN{number}:OFFS": scpi.Number(0.0, -1000.0, 1000.0, _FORM),
        f"CHAN{number}:COUP": scpi.Choice("DC", {"AC": "AC", "DC": "DC", "GND": "GND"}),
        f"CHAN{number}:PROB": scpi.Number(10.0, 0.01, 1000.0, _FORM),
    }


class DS1000Z(scpi.ScpiSimulator):
    """The simulator ``rigol_ds1000z``.

    Args:
        bench: the simulated bench that it is part of.
        amplitude: V of the sine at input 1.
        frequency: Hz of the sine.
    """

    identity = "RIGOL TECHNOLOGIES,DS1054Z,DS1ZA000000001,00.04.04.SP3"
    settings = {  # noqa: RUF012 - nothing changes it
        **_channel(1), **_channel(2), **_channel(3), **_channel(4),
        "TIM:SCAL": scpi.Number(1e-3, 5e-9, 50.0, _FORM),
        "TRIG:EDG:LEV": scpi.Number(0.0, -500.0, 500.0, _FORM),
        "TRIG:EDG:SOUR": scpi.Choice("CHAN1", _SOURCES | _OTHER_TRIGGERS),
        "WAV:SOUR": scpi.Choice("CHAN1", _SOURCES),
        "WAV:MODE": scpi.Choice("NORM", {"NORM": "NORM", "NORMAL": "NORM"}),
        "WAV:FORM": scpi.Choice("BYTE", {"BYTE": "BYTE", "WORD": "WORD", "ASC": "ASC", "ASCII": "ASC"}),
    }  # fmt: skip
    commands = scpi.Commands(
        f"""{scpi.Status.COMMON} *IDN *RST {scpi.Status.STATUS} SYSTem:ERRor[:NEXT] RUN STOP SINGle TRIGger:STATus
        CHANnel#:DISPlay CHANnel#:SCALe CHANnel#:OFFSet CHANnel#:COUPling CHANnel#:PROBe TIMebase[:MAIN]:SCALe
        TRIGger:EDGe:LEVel TRIGger:EDGe:SOURce WAVeform:SOURce WAVeform:MODE WAVeform:FORMat WAVeform:PREamble
        WAVeform:DATA WAVeform:XINCrement WAVeform:XORigin WAVeform:XREFerence WAVeform:YINCrement WAVeform:YORigin
        WAVeform:YREFerence"""
    )

    def __init__(self, bench: Bench, *, amplitude: float = 2.0, frequency: float = 1000.0) -> None:
        self._amplitude, self._frequency = amplitude, frequency
        self._stopped_at = math.inf
        """Time on the clock at which the acquisition ends, in s."""
        super().__init__(bench)

    def execute(self, header: str, argument: str) -> str | bytes | None:  # noqa: ARG002 - none has one
        """Handle the commands that acquire and that read the screen."""
        now = self.bench.clock.time()
        match header:
            case "RUN":
                self._stopped_at = math.inf
            case "STOP":
                self._stopped_at = now
            case "SING":
                self._stopped_at = now + _ACQUISITION
            case "TRIG:STAT?":
                return "STOP" if now >= self._stopped_at else "TD"
            case "WAV:PRE?":
                dt, start, dv, origin = self._axes()
                return f"0,0,{_POINTS},1,{dt:.6e},{start:.6e},0,{dv:.6e},{origin:d},{_ZERO}"
            case "WAV:XINC?" | "WAV:XOR?" | "WAV:XREF?" | "WAV:YINC?" | "WAV:YOR?" | "WAV:YREF?":
                dt, start, dv, origin = self._axes()
                values = {"XINC": dt, "XOR": start, "XREF": 0, "YINC": dv, "YOR": origin, "YREF": _ZERO}
                value = values[header[4:-1]]
                return f"{value:d}" if isinstance(value, int) else f"{value:.6e}"
            case "WAV:DATA?":
                data = self._screen()
                return f"#9{len(data):09d}".encode() + data
            case _:
                raise KeyError(header)
        return None

    def _axes(self) -> tuple[float, float, float, int]:
        """Return seconds between points, time of the first point in s, volts between steps, and the origin in steps."""
        source = str(self.values["WAV:SOUR"])
        dt = self.number("TIM:SCAL") / 100
        dv = self.number(f"{source}:SCAL") / _STEPS
        return dt, -dt * _POINTS / 2, dv, round(self.number(f"{source}:OFFS") / dv)

    def _screen(self) -> bytes:
        dt, start, dv, origin = self._axes()
        amplitude = self._amplitude if self.values["WAV:SOUR"] == "CHAN1" else 0.0
        volts = (
            amplitude * math.sin(2 * math.pi * self._frequency * (start + dt * number)) for number in range(_POINTS)
        )
        return bytes(min(max(round(one / dv) + origin + _ZERO, 0), 255) for one in volts)


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"rigol_ds1000z": DS1000Z}
