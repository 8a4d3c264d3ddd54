"""A simulated Keithley 2450 SourceMeter with a resistor between its terminals.

Sources: Model 2450 Reference Manual 2450-901-01 Rev. B, p. 6-4 and following, B-5; pymeasure ``keithley2450.py`` and
qcodes ``Keithley_2450.py``. Assumed: readings have no noise; with the output off, there is no current.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim import scpi

if TYPE_CHECKING:
    from catkit_devices.simulation import Bench

__all__ = ["Keithley2450"]

_FUNCTIONS = {"VOLT": "VOLT", "VOLTAGE": "VOLT", "CURR": "CURR", "CURRENT": "CURR"}
"""Source functions, in the short form that replies have."""
_SENSES = {f'"{word}{dc}"': f'"{short}:DC"' for word, short in _FUNCTIONS.items() for dc in ("", ":DC")}
"""What is measured, in each of the spellings that the instrument takes."""
_SENSES |= {f"'{word[1:-1]}'": told for word, told in _SENSES.items()} | {'"RES"': '"RES"', "'RES'": '"RES"'}
_TERMINALS = {"FRON": "FRON", "FRONT": "FRON", "REAR": "REAR"}
"""The same of the terminals."""
_LINE = 50.0  # Hz


class Keithley2450(scpi.ScpiSimulator):
    """The simulator ``keithley_2450``.

    Args:
        bench: the simulated bench that it is part of.
        load: ohms between the terminals.
        language: the command set at power-up: ``"SCPI"``, ``"TSP"`` or ``"SCPI2400"``.
    """

    identity = "KEITHLEY INSTRUMENTS INC.,MODEL 2450,01234567,1.0.0i"
    settings = {  # noqa: RUF012 - nothing changes it
        "SOUR:FUNC": scpi.Choice("VOLT", _FUNCTIONS),
        "SOUR:VOLT": scpi.Number(0.0, -210.0, 210.0),
        "SOUR:CURR": scpi.Number(0.0, -1.05, 1.05),
        "SOUR:VOLT:ILIM": scpi.Number(1.05e-4, 1e-9, 1.05),
        "SOUR:CURR:VLIM": scpi.Number(2.1, 0.02, 210.0),
        "SENS:FUNC": scpi.Choice('"CURR:DC"', _SENSES),
        "SENS:CURR:NPLC": scpi.Number(1.0, 0.01, 10.0),
        "SENS:VOLT:NPLC": scpi.Number(1.0, 0.01, 10.0),
        "SENS:CURR:RSEN": scpi.Choice("0", scpi.SWITCH),
        "SENS:VOLT:RSEN": scpi.Choice("0", scpi.SWITCH),
        "SENS:CURR:RANG": scpi.Number(1e-4, 1e-8, 1.0),
        "SENS:VOLT:RANG": scpi.Number(2.0, 0.02, 200.0),
        "SENS:CURR:RANG:AUTO": scpi.Choice("1", scpi.SWITCH),
        "SENS:VOLT:RANG:AUTO": scpi.Choice("1", scpi.SWITCH),
        "SOUR:CURR:RANG": scpi.Number(1e-4, 1e-8, 1.0),
        "SOUR:VOLT:RANG": scpi.Number(2.0, 0.02, 200.0),
        "SOUR:CURR:RANG:AUTO": scpi.Choice("1", scpi.SWITCH),
        "SOUR:VOLT:RANG:AUTO": scpi.Choice("1", scpi.SWITCH),
        "ROUT:TERM": scpi.Choice("FRON", _TERMINALS),
        "OUTP": scpi.Choice("0", scpi.SWITCH),
    }
    commands = scpi.Commands(
        f"""{scpi.Status.COMMON} *IDN *RST *LANG *TRG {scpi.Status.STATUS} SYSTem:ERRor[:NEXT] SYSTem:CLEar
        SOURce:FUNCtion[:MODE] SOURce:VOLTage[:LEVel] SOURce:CURRent[:LEVel]
        SOURce:VOLTage:ILIMit[:LEVel] SOURce:CURRent:VLIMit[:LEVel] SOURce:VOLTage:ILIMit[:LEVel]:TRIPped
        SOURce:CURRent:VLIMit[:LEVel]:TRIPped SOURce:VOLTage:RANGe SOURce:CURRent:RANGe SOURce:VOLTage:RANGe:AUTO
        SOURce:CURRent:RANGe:AUTO SENSe:FUNCtion SENSe:CURRent[:DC]:NPLCycles
        SENSe:VOLTage[:DC]:NPLCycles SENSe:CURRent[:DC]:RSENse SENSe:VOLTage[:DC]:RSENse SENSe:CURRent[:DC]:RANGe
        SENSe:VOLTage[:DC]:RANGe SENSe:CURRent[:DC]:RANGe:AUTO SENSe:VOLTage[:DC]:RANGe:AUTO OUTPut[:STATe]
        ROUTe:TERMinals READ MEASure MEASure:VOLTage[:DC] MEASure:CURRent[:DC] FETCh"""
    )

    def __init__(self, bench: Bench, *, load: float = 1000.0, language: str = "SCPI") -> None:
        self._load, self._language = load, language
        self._last = 0.0
        super().__init__(bench)

    @property
    def output(self) -> bool:
        """Whether the output is on."""
        return self.values["OUTP"] == "1"

    def changed(self, header: str) -> None:
        """Switch the output off if other terminals were selected."""
        if header == "ROUT:TERM":
            self.values["OUTP"] = "0"

    def execute(self, header: str, argument: str) -> str | bytes | None:  # noqa: ARG002 - buffers are not simulated
        """Measure, or tell whether a limit is reached."""
        if header.startswith("MEAS:"):
            self.values["SENS:FUNC"] = f'"{header[5:9]}:DC"'
        match header:
            case "*LANG?":
                return self._language
            case "SYST:CLE":
                self.status.errors.clear()
            case "SYST:ERR?":
                return self.status.errors.next().replace('0,"No error"', '0,"No error;0;0 0"').removeprefix("+")
            case "SOUR:VOLT:ILIM:TRIP?" | "SOUR:CURR:VLIM:TRIP?":
                return f"{self._flows()[2]:d}"
            case "READ?" | "MEAS?" | "MEAS:VOLT?" | "MEAS:CURR?":
                self._last = self._flows()["CURR" in str(self.values["SENS:FUNC"])]
                return f"{self._last:.6E}"
            case "FETC?":
                return f"{self._last:.6E}"
            case _:
                raise KeyError(header)
        return None

    def _flows(self) -> tuple[float, float, bool]:
        """Return voltage, current, and whether a limit is reached."""
        if not self.output:
            return 0.0, 0.0, False
        if self.values["SOUR:FUNC"] == "VOLT":
            wanted, limit = self.number("SOUR:VOLT") / self._load, self.number("SOUR:VOLT:ILIM")
            current = min(max(wanted, -limit), limit)
        else:
            wanted, limit = self.number("SOUR:CURR"), self.number("SOUR:CURR:VLIM") / self._load
            current = min(max(wanted, -limit), limit)
        return current * self._load, current, current != wanted


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"keithley_2450": Keithley2450}
