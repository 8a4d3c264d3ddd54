"""A simulated Thorlabs PM100D power meter with an S120C sensor.

Sources: PM100D manual, SCPI chapter (p. 49-51); PM400 manual p. 42-46 and PM100USB manual p. 20-21 (the same command
tree); pymeasure ``thorlabspm100usb.py``; QMI ``qmi/instruments/thorlabs/pm100d.py``.

The plain commands are in ``thorlabs_pm100d.yaml``. This class adds what YAML cannot say: keywords in either case and in
short or long form, optional nodes (``RANGe[:UPPer]``, ``ERRor[:NEXT]``, ``ZERO[:INITiate]``), ``*RST``, power from
the bench at the wavelength that was set, and 3 ms for each sample of the average. Above a range that was set by hand a
reading is 9.9E+37, as SCPI has it. Set the unit to DBM and readings are in dBm.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from catkit_devices.errors import ConfigurationError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim.scpi import Keywords
from catkit_devices.simulation import Outbox, YamlInstrument

if TYPE_CHECKING:
    from catkit_devices.simulation import Bench

__all__ = ["PM100D"]

_KEYWORDS = Keywords(
    "SYSTem VERSion ERRor NEXT LFRequency SENSor IDN SENSe CORRection WAVelength BEAMdiameter COLLect ZERO INITiate"
    " ABORt STATe MAGNitude AVERage COUNt POWer RANGe UPPer AUTO REFerence UNIT CONFigure FETCh READ MEASure CURRent"
    " TEMPerature MINimum MAXimum"
)
_OPTIONAL = {"RANG:UPP": "RANG", "ERR:NEXT": "ERR", "ZERO:INIT": "ZERO"}
_OVERFLOW = 9.9e37
_SAMPLE_TIME = 0.003


class PM100D(YamlInstrument):
    """The simulator ``thorlabs_pm100d``.

    Args:
        bench: what it belongs to; its ``meter_power(wavelength)``, if it has one, is the light on the sensor, and its
            ``temperature()`` the sensor's temperature.
        power: W on the sensor, on a bench without ``meter_power``.
    """

    def __init__(self, bench: Bench, *, power: float = 0.0) -> None:
        if hasattr(bench, "meter_power") and power:
            raise ConfigurationError("power comes from the bench")
        self._power = power
        self._outbox = Outbox(bench.clock)
        self._last = 0.0
        super().__init__(bench, Path(__file__).with_name("thorlabs_pm100d.yaml"))
        self.couple("measured", self._measure)
        self.couple("read", self._measure)
        self.couple("fetched", lambda: self._last)
        self.couple("current", lambda: 0.38 * self._light())
        if hasattr(bench, "temperature"):
            self.couple("temperature", bench.temperature)

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the replies that are due."""
        if reply := super().feed(data):
            self._outbox.put(reply)
        return self._outbox.take()

    def clear(self) -> None:
        """Forget a half-received message and unread replies."""
        super().clear()
        self._outbox.clear()

    def answer(self, message: bytes) -> bytes:
        """Answer one message; what takes time is put aside until it is due."""
        header, _space, argument = message.decode("latin-1").strip().partition(" ")
        header = _KEYWORDS.short(header)
        for written, meant in _OPTIONAL.items():
            header = header.replace(written, meant)
        if header == "*RST":
            self.reset()
            return b""
        if header == "INIT":
            self._measure()
            return b""
        argument = _KEYWORDS.short(argument.strip())
        reply = super().answer(f"{header} {argument}".strip().encode())
        if header in {"READ?", "MEAS:POW?", "MEAS:CURR?"}:
            self._outbox.put(reply, self.value("average_count") * _SAMPLE_TIME)
            return b""
        return reply

    def _measure(self) -> float:
        light = self._light()
        if not self.value("range_auto") and light > self.value("range"):
            self._last = _OVERFLOW
        elif self.value("unit") == "DBM":
            self._last = 10 * math.log10(max(light, 1e-15) / 1e-3)
        else:
            self._last = light
        return self._last

    def _light(self) -> float:
        bench_power = getattr(self.bench, "meter_power", None)
        return float(self._power if bench_power is None else bench_power(self.value("wavelength")))


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Hand in the simulator."""
    return {"thorlabs_pm100d": PM100D}
