"""Rigol DS1000Z oscilloscopes (DS1054Z, DS1104Z and others) with four channels: driver ``rigol_ds1000z``.

USBTMC, or TCP port 5555; LF. Commands, the ten numbers of the preamble, the formula for volts: Rigol MSO1000Z/DS1000Z
Series Digital Oscilloscope Programming Guide (December 2015), :CHANnel, :TIMebase, :TRIGger and :WAVeform commands; the
range of the scale is there by the ratio of the probe (:CHANnel<n>:SCALe).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.components import Component, Components
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.scpi import ScpiDevice

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from catkit_devices.device import Device

__all__ = ["DS1000Z"]


_PROBES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Ratios of a probe, from its tip to the oscilloscope."""
_FINEST, _COARSEST = 0.001, 10.0
"""V per division, for a probe of 1 to 1."""


class Channel(Component):
    """One input of the oscilloscope."""

    displayed = Control("CHAN{self.number}:DISP?", "CHAN{self.number}:DISP {:d}", type=bool, doc="Trace: shown or not.")
    probe = Control(
        "CHAN{self.number}:PROB?",
        "CHAN{self.number}:PROB {}",
        choices=_PROBES,
        doc="Ratio of the probe, 10 for one of 10 to 1; setting it changes scale and offset.",
    )
    scale = Control(
        "CHAN{self.number}:SCAL?",
        "CHAN{self.number}:SCAL {}",
        unit="V",
        limits=lambda self: (_FINEST * self.probe, _COARSEST * self.probe),
        doc="Volts per division; the screen has eight divisions.",
    )
    offset = Control(
        "CHAN{self.number}:OFFS?",
        "CHAN{self.number}:OFFS {}",
        unit="V",
        limits=(-1000.0, 1000.0),
        doc="Offset of the trace; the instrument refuses what its scale does not allow.",
    )
    coupling = Control(
        "CHAN{self.number}:COUP?",
        "CHAN{self.number}:COUP {}",
        choices=("AC", "DC", "GND"),
        doc="Coupling of the input.",
    )

    def waveform(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the trace on the screen: times in s, counted from the trigger, and volts."""
        import numpy as np

        with self._transaction():
            for command in (f"WAV:SOUR CHAN{self.number}", "WAV:MODE NORM", "WAV:FORM BYTE"):
                self._write(command)
            # Format, type, points, averages; then increment, origin and reference, first of time and then of volts.
            _, _, points, _, dt, start, first, dv, origin, zero = self._ask_value("WAV:PRE?", count=10)
            volts = self._query_array("WAV:DATA?", "u1", shape=int(points), scale=dv, offset=-(origin + zero) * dv)
        return (np.arange(len(volts)) - first) * dt + start, volts


class DS1000Z(ScpiDevice):
    """An oscilloscope; it only measures, so making it safe does nothing."""

    identity = r"^RIGOL TECHNOLOGIES,(DS|MSO)1\d{3}Z"

    channels = Components(Channel, numbers=(1, 2, 3, 4))

    time_scale = Control(
        "TIM:MAIN:SCAL?",
        "TIM:MAIN:SCAL {}",
        unit="s",
        limits=(5e-9, 50.0),
        doc="Time per division; the screen has twelve.",
    )
    trigger_level = Control(
        "TRIG:EDGE:LEV?",
        "TRIG:EDGE:LEV {}",
        unit="V",
        limits=(-500.0, 500.0),
        doc="Level of the edge that triggers; the instrument refuses what is off the screen.",
    )
    trigger_source = Control(
        "TRIG:EDGE:SOUR?",
        "TRIG:EDGE:SOUR {}",
        choices=("CHAN1", "CHAN2", "CHAN3", "CHAN4", "AC", *(f"D{number}" for number in range(16))),
        doc="Input that triggers: a channel, the mains, or, with a logic probe (MSO1000Z), a digital input.",
    )
    trigger_state = Measurement(
        "TRIG:STAT?", choices=("TD", "WAIT", "RUN", "AUTO", "STOP"), shared=True, doc="State of the trigger."
    )

    def run(self) -> None:
        """Acquire again and again."""
        self._write("RUN")

    def stop(self) -> None:
        """Stop acquiring; what is on the screen stays."""
        self._write("STOP")

    def acquire_once(self, timeout: float = 10.0) -> None:
        """Acquire once; returns when a trigger has come and the acquisition is complete.

        Args:
            timeout: seconds.
        """
        self._wait_for_completion("SING", timeout, lambda: self._query("TRIG:STAT?").strip() == "STOP")


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"rigol_ds1000z": DS1000Z}
