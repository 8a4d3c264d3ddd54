"""Stanford Research SR830 lock-in amplifier: driver ``srs_sr830``.

GPIB, LF. Commands, ranges and status bits: SR830 manual revision 2.5 (10/2011), p. 5-1 to 5-24. Its commands are not
SCPI; there is no error queue, and ``*ESR?`` tells whether a command was refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.device import operation
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.scpi import ScpiDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["SR830"]

_SENSITIVITIES = [
    f"{factor * scale} {unit}" for unit in ("nV", "uV", "mV") for scale in (1, 10, 100) for factor in (1, 2, 5)
]
"""As the front panel shows them. The first, 1 nV, does not exist: 2 nV is number 0, and 1 V is number 26."""
_TIME_CONSTANTS = ["10 us", "30 us", "100 us", "300 us", "1 ms", "3 ms", "10 ms", "30 ms", "100 ms", "300 ms", "1 s",
                   "3 s", "10 s", "30 s", "100 s", "300 s", "1 ks", "3 ks", "10 ks", "30 ks"]  # fmt: skip
"""In the order of their numbers, from 0."""
_LEAST = 0.004
"""V: the lowest amplitude of the sine output; the output cannot be switched off."""


def _numbered(words: list[str]) -> dict[str, int]:
    return {word: number for number, word in enumerate(words)}


class SR830(ScpiDevice):
    """A lock-in amplifier; it is safe when its sine output is at its lowest and its auxiliary outputs are at 0 V."""

    identity = r"^Stanford_Research_Systems,SR830"
    error_query = "*ESR?"

    x = Measurement("OUTP?1", unit="V", shared=True, doc="In-phase part of the signal.")
    y = Measurement("OUTP?2", unit="V", shared=True, doc="Quadrature part of the signal.")
    magnitude = Measurement("OUTP?3", unit="V", shared=True, doc="Magnitude of the signal.")
    angle = Measurement("OUTP?4", unit="deg", shared=True, doc="Phase of the signal to the reference.")
    frequency = Control(
        "FREQ?",
        "FREQ {:.6g}",
        unit="Hz",
        limits=(0.001, 102000.0),
        doc="Reference frequency, to five digits or 0.1 mHz; it can be set only with the internal reference.",
    )
    phase = Control("PHAS?", "PHAS {:.2f}", unit="deg", limits=(-179.99, 180.0), doc="Phase shift of the reference.")
    amplitude = Control(
        "SLVL?",
        "SLVL {:.3f}",
        unit="V",
        limits=(_LEAST, 5.0),
        doc="Amplitude (rms) of the sine output, in steps of 2 mV.",
    )
    harmonic = Control("HARM?", "HARM {}", type=int, limits=(1, 19999), doc="Harmonic that is detected.")
    reference = Control("FMOD?", "FMOD {}", choices={"external": 0, "internal": 1}, doc="Source of the reference.")
    sensitivity = Control(
        "SENS?",
        "SENS {}",
        choices=_numbered([*_SENSITIVITIES[1:], "1 V"]),
        doc="Signal at full scale, for a voltage input; for a current input, 1 V stands for 1 uA.",
    )
    time_constant = Control("OFLT?", "OFLT {}", choices=_numbered(_TIME_CONSTANTS), doc="Time constant of the filter.")
    slope = Control(
        "OFSL?",
        "OFSL {}",
        choices=_numbered(["6 dB", "12 dB", "18 dB", "24 dB"]),
        doc="Slope of the filter, per octave.",
    )
    reserve = Control("RMOD?", "RMOD {}", choices=_numbered(["high", "normal", "low noise"]), doc="Dynamic reserve.")
    input = Control(
        "ISRC?", "ISRC {}", choices=_numbered(["A", "A-B", "I (1 MOhm)", "I (100 MOhm)"]), doc="Signal input."
    )
    coupling = Control("ICPL?", "ICPL {}", choices=_numbered(["AC", "DC"]), doc="Coupling of the input.")
    overloaded = Measurement(
        lambda self: bool(self._ask_value("LIAS?", int) & 0b111),
        type=bool,
        doc="Overload of the input, the filter or the output since the last time this was read.",
    )

    @operation(shared=True)
    def read_both(self) -> tuple[float, float]:
        """Return X and Y in V, both of the same instant; ``x`` and ``y`` are read one after the other."""
        x, y = self._ask_value("SNAP?1,2", count=2)
        return x, y

    def auto_phase(self) -> None:
        """Set the phase so that Y is zero."""
        self._write("APHS")

    def _make_safe(self) -> None:
        """Set the sine output to 4 mV, its lowest, and the auxiliary outputs to 0 V."""
        for command in (f"SLVL {_LEAST}", *(f"AUXV {number},0" for number in (1, 2, 3, 4))):
            self._write(command)


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"srs_sr830": SR830}
