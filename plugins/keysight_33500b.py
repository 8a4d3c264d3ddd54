"""Keysight (Agilent) 33500B waveform generators, with one or two channels: driver ``keysight_33500b``.

USBTMC, or TCP port 5025; LF. Commands and blocks: 33500 Series Operating and Service Guide, SCPI programming reference;
ranges: pymeasure ``agilent33500.py``; models and their frequencies: qcodes ``KeysightAgilent_33XXX.py``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from catkit_devices.components import Component, Components
from catkit_devices.errors import DeviceProtocolError, DeviceValueError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control
from catkit_devices.scpi import ScpiDevice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catkit_devices.device import Device

__all__ = ["Keysight33500B"]

_FREQUENCIES = {"1": 20e6, "2": 30e6}
"""Hz: the highest frequency of a sine, by the fourth digit of the model."""
_POINTS = range(8, 65537)
"""Numbers of points that an arbitrary waveform may have."""


class Channel(Component):
    """One output of the generator."""

    function = Control(
        "SOUR{self.number}:FUNC?",
        "SOUR{self.number}:FUNC {}",
        choices={"sine": "SIN", "square": "SQU", "triangle": "TRI", "ramp": "RAMP", "pulse": "PULS", "noise": "NOIS",
                 "dc": "DC", "arbitrary": "ARB"},
        doc="Form of the wave.",
    )  # fmt: skip
    frequency = Control(
        "SOUR{self.number}:FREQ?",
        "SOUR{self.number}:FREQ {}",
        unit="Hz",
        limits=lambda self: (1e-6, self.device._highest_frequency),  # noqa: SLF001 - of the same driver
        doc="Frequency. The limit is that of a sine; for other forms the instrument refuses the highest frequencies.",
    )
    amplitude = Control(
        "SOUR{self.number}:VOLT?",
        "SOUR{self.number}:VOLT {}",
        unit="V",
        limits=(0.01, 10.0),
        doc="Amplitude, peak to peak, into 50 ohms.",
    )
    offset = Control(
        "SOUR{self.number}:VOLT:OFFS?",
        "SOUR{self.number}:VOLT:OFFS {}",
        unit="V",
        limits=(-4.995, 4.995),
        doc="Offset, into 50 ohms; with the amplitude it must stay within 5 V.",
    )
    phase = Control(
        "SOUR{self.number}:PHAS?", "SOUR{self.number}:PHAS {}", unit="deg", limits=(-360.0, 360.0), doc="Phase."
    )
    enabled = Control("OUTP{self.number}?", "OUTP{self.number} {:d}", type=bool, doc="Output: on or off.")

    def load_waveform(self, samples: Sequence[float], sample_rate: float) -> None:
        """Load an arbitrary waveform, and select it.

        Args:
            samples: 8 to 65536 numbers from -1 to 1; 1 is half the peak-to-peak amplitude above the offset.
            sample_rate: samples per second, up to 250e6.
        """
        if len(samples) not in _POINTS or not all(-1 <= sample <= 1 for sample in samples):
            raise DeviceValueError(f"{_POINTS[0]} to {_POINTS[-1]} numbers from -1 to 1 are expected", **self._facts())
        source = f"SOUR{self.number}"
        for command in (
            f"{source}:DATA:VOL:CLE",
            f"{source}:DATA:ARB CATKIT,{','.join(f'{float(sample):.5g}' for sample in samples)}",
            f"{source}:FUNC:ARB CATKIT",
            f"{source}:FUNC:ARB:SRAT {sample_rate}",
            f"{source}:FUNC ARB",
        ):
            self._write(command)

    def _make_safe(self) -> None:
        self._write(f"OUTP{self.number} 0")
        if self._ask_value(f"OUTP{self.number}?", bool):
            raise DeviceProtocolError(f"output {self.number} is still on", **self._facts())


class Keysight33500B(ScpiDevice):
    """A waveform generator; it is safe when its outputs are off."""

    identity = r"^(Agilent|Keysight) Technologies,335[12][12]B"

    channels = Components(Channel, numbers=lambda self: range(1, 1 + self._number_of_channels))

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._number_of_channels = 1
        self._highest_frequency = _FREQUENCIES["1"]

    def _identify(self) -> None:
        super()._identify()
        model = re.search(r",335(.)(.)B", self._query("*IDN?"))
        if model is None:
            raise DeviceProtocolError("a model of the series was expected", **self._facts("*IDN?"))
        self._highest_frequency = _FREQUENCIES[model[1]]
        self._number_of_channels = int(model[2])
        for channel in range(1, 1 + self._number_of_channels):  # amplitudes are peak to peak, into 50 ohms
            self._write(f"SOUR{channel}:VOLT:UNIT VPP")
            self._write(f"OUTP{channel}:LOAD 50")

    def _make_safe(self) -> None:
        """Switch the outputs off."""


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"keysight_33500b": Keysight33500B}
