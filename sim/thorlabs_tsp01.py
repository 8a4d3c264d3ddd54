"""A simulated Thorlabs TSP01 (revision A) temperature and humidity logger.

Source: github QuTech-Delft/QMI ``qmi/instruments/thorlabs/tsp01.py``. Assumed: numbers are sent as NR3, and a probe
that is not plugged in reads 9.91E+37, which is "not a number" in SCPI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim import scpi

if TYPE_CHECKING:
    from catkit_devices.simulation import Bench

__all__ = ["TSP01"]

_NO_NUMBER = 9.91e37
"""SCPI-99 volume 1, 7.2.1.5."""


class TSP01(scpi.ScpiSimulator):
    """The simulator ``thorlabs_tsp01``.

    Args:
        bench: the simulated bench that it is part of; its ``temperature()`` and ``humidity()``, if it has them, are
            measured.
        temperature: °C, on a bench without one.
        humidity: %, on a bench without one.
        probes: °C at the external probes; None for one that is not plugged in.
    """

    identity = "Thorlabs,TSP01,M00012345,1.0.0"
    commands = scpi.Commands(
        f"{scpi.Status.COMMON} *IDN *RST SYSTem:ERRor[:NEXT] MEASure[:SCALar]:TEMPerature# MEASure[:SCALar]:HUMidity"
    )

    def __init__(
        self,
        bench: Bench,
        *,
        temperature: float = 21.5,
        humidity: float = 40.0,
        probes: tuple[float | None, float | None] = (20.25, None),
    ) -> None:
        super().__init__(bench)
        self._temperature, self._humidity, self._probes = temperature, humidity, probes

    def execute(self, header: str, argument: str) -> str | bytes | None:
        """Measure."""
        air = getattr(self.bench, "temperature", None), getattr(self.bench, "humidity", None)
        probes = [_NO_NUMBER if probe is None else probe for probe in self._probes]
        measured = {
            "MEAS:TEMP1?": self._temperature if air[0] is None else float(air[0]()),
            "MEAS:HUM?": self._humidity if air[1] is None else float(air[1]()),
            "MEAS:TEMP2?": probes[0],
            "MEAS:TEMP3?": probes[1],
        }
        if argument:
            raise scpi.RefusedError(*scpi.PARAMETER_NOT_ALLOWED)
        return f"{measured[header]:.6E}"


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"thorlabs_tsp01": TSP01}
