"""A simulated Keysight 34461A multimeter.

Source: Keysight Truevolt Series Operating and Service Guide, SCPI programming reference; the form of readings
(``+1.23456789E+00``, 9.9E+37 for an overload) is there. Assumed: a reading takes two times its power line cycles at
50 Hz; the noise of a measured value is a millionth of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim import scpi

if TYPE_CHECKING:
    from catkit_devices.simulation import Bench

__all__ = ["Keysight34461A"]

_OVERLOAD = 9.9e37
"""SCPI-99 volume 1, 7.2.1.4."""
_MOST_VOLTS, _MOST = 1200.0, 1.2e8
"""Upper ends of the highest ranges: in V, and in ohms, A or Hz."""
_CYCLE = 1 / 50  # s


_MEASURED = " ".join(
    f"MEASure[:SCALar]:{one} CONFigure[:SCALar]:{one}"
    for one in ["VOLTage[:DC]", "VOLTage:AC", "CURRent[:DC]", "CURRent:AC", "RESistance", "FRESistance", "FREQuency"]
)
"""The commands of everything that it measures."""


class Keysight34461A(scpi.ScpiSimulator):
    """The simulator ``keysight_34461a``.

    Args:
        bench: the simulated bench that it is part of.
        voltage: V at the input.
        current: A through the input.
        resistance: ohms at the input; above 1.2e8 it is an overload.
    """

    identity = "Keysight Technologies,34461A,MY53200001,A.02.08-02.37-02.08-00.49-02-01"
    settings = {  # noqa: RUF012 - nothing changes it
        "VOLT:NPLC": scpi.Number(10.0, 0.02, 100.0),
        "SAMP:COUN": scpi.Number(1, 1, 1000000, "{:+.8E}"),
        "TRIG:COUN": scpi.Number(1, 1, 1000000, "{:+.8E}"),
        "TRIG:SOUR": scpi.Choice("IMM", {"IMM": "IMM", "IMMEDIATE": "IMM", "EXT": "EXT", "BUS": "BUS"}),
    }
    commands = scpi.Commands(
        f"""{scpi.Status.COMMON} *IDN *RST *TRG *TST {scpi.Status.STATUS} SYSTem:ERRor[:NEXT]
        {_MEASURED}
        CONFigure [SENSe:]VOLTage[:DC]:NPLCycles SAMPle:COUNt TRIGger:COUNt TRIGger:SOURce INITiate[:IMMediate]
        READ FETCh ABORt"""
    )

    def __init__(
        self, bench: Bench, *, voltage: float = 1.25, current: float = 0.002, resistance: float = 1000.0
    ) -> None:
        self._signals = {"VOLT": voltage, "CURR": current, "RES": resistance, "FRES": resistance, "FREQ": 50.0,
                         "VOLT:AC": 0.5, "CURR:AC": 0.001}  # fmt: skip
        self._function = "VOLT"
        self._readings: list[str] = []
        self._rng = bench.rng("34461A")
        super().__init__(bench)

    def execute(self, header: str, argument: str) -> str | bytes | None:  # noqa: ARG002 - ranges are not simulated
        """Handle the commands that configure and measure."""
        command, _colon, function = header.removesuffix("?").partition(":")
        if command in ("MEAS", "CONF") and function:
            self.reset()
            self._function = function
        match command, header.endswith("?"):
            case "CONF", True:
                return f'"{self._function} +1.00000000E+01,+3.00000000E-06"'
            case "CONF", False:
                self._readings = []
            case (("MEAS" | "READ"), True):
                self._begin()
                self.busy = self.complete_at - self.bench.clock.time()
                return ",".join(self._readings)
            case "INIT", False:
                self._begin()
            case "FETC", True:
                if not self._readings:
                    raise scpi.RefusedError(*scpi.DATA_STALE)
                self.busy = max(self.complete_at - self.bench.clock.time(), 0.0)
                return ",".join(self._readings)
            case "ABOR", False:
                self.complete_at = 0.0
            case "*TST", True:
                return "+0"
            case _:
                raise KeyError(header)
        return None

    def _begin(self) -> None:
        """Take the readings; they are complete after the time that they need."""
        if self.bench.clock.time() < self.complete_at:
            raise scpi.RefusedError(*scpi.INIT_IGNORED)
        count = int(self.number("SAMP:COUN") * self.number("TRIG:COUN"))
        self._readings = [self._reading() for _ in range(count)]
        self.complete_at = self.bench.clock.time() + count * 2 * self.number("VOLT:NPLC") * _CYCLE

    def _reading(self) -> str:
        signal = self._signals[self._function]
        if signal > (_MOST_VOLTS if self._function.startswith("VOLT") else _MOST):
            return f"{_OVERLOAD:+.8E}"
        return f"{signal * (1 + 1e-6 * self._rng.standard_normal()):+.8E}"


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"keysight_34461a": Keysight34461A}
