"""Keysight (Agilent) 34461A multimeter, and 34460A, 34465A, 34470A: driver ``keysight_34461a``.

USBTMC, LAN (TCP port 5025) or GPIB; LF. Commands and replies: Keysight Truevolt Series Operating and Service Guide,
SCPI programming reference (MEASure, CONFigure, SAMPle, [SENSe:]VOLTage:NPLC, overload ±9.9E+37).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.errors import DeviceValueError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Measurement
from catkit_devices.scpi import ScpiDevice

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from catkit_devices.device import Device

__all__ = ["Keysight34461A"]

_CYCLES = (0.02, 0.2, 1.0, 10.0, 100.0)
"""Power line cycles that a reading may take."""
_MOST_SAMPLES = 1000  # the memory of a 34460A holds no more
_SECONDS_PER_CYCLE = 2 / 50
"""For a power line of 50 Hz; twice as long as a cycle, since the zero is measured too."""


class Keysight34461A(ScpiDevice):
    """A multimeter; it only measures, so making it safe does nothing. Each reading uses the automatic range."""

    identity = r"^(Agilent|Keysight) Technologies,344(60|61|65|70)A"
    #: Seconds: a reading with 10 power line cycles and automatic zero takes 0.4 s, and one of slow AC signals 2.5 s.
    io_timeout = 10.0

    dc_voltage = Measurement("MEAS:VOLT:DC?", unit="V", doc="DC voltage; infinite above the highest range.")
    ac_voltage = Measurement("MEAS:VOLT:AC?", unit="V", doc="AC voltage (rms).")
    dc_current = Measurement("MEAS:CURR:DC?", unit="A", doc="DC current.")
    ac_current = Measurement("MEAS:CURR:AC?", unit="A", doc="AC current (rms).")
    resistance = Measurement(
        "MEAS:RES?", unit="ohm", doc="Resistance, with two wires; infinite if the circuit is open."
    )
    four_wire_resistance = Measurement("MEAS:FRES?", unit="ohm", doc="Resistance, with four wires.")
    frequency = Measurement("MEAS:FREQ?", unit="Hz", doc="Frequency of an AC voltage.")

    def sample_dc_voltage(self, count: int, cycles: float = 1.0) -> npt.NDArray[np.float64]:
        """Read the DC voltage ``count`` times, one after the other, and return the readings in V.

        Args:
            count: number of readings, 1 to 1000.
            cycles: power line cycles that each reading takes: 0.02, 0.2, 1, 10 or 100.
        """
        if not 1 <= count <= _MOST_SAMPLES or cycles not in _CYCLES:
            raise DeviceValueError(
                f"1 to {_MOST_SAMPLES} readings, each of {', '.join(map(str, _CYCLES))} cycles, are expected, got "
                f"{count} of {cycles}",
                **self._facts(),
            )
        for command in ("CONF:VOLT:DC AUTO", f"VOLT:DC:NPLC {cycles}", f"SAMP:COUN {count}"):
            self._write(command)
        self._wait_for_completion("INIT", 5.0 + 2 * count * cycles * _SECONDS_PER_CYCLE)
        samples: npt.NDArray[np.float64] = self._query_array("FETC?", "text", shape=count)
        return samples


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"keysight_34461a": Keysight34461A}
