r"""A simulated Omega iTHX-W3 temperature and humidity sensor.

Sources: github MSLNZ/msl-equipment ``omega/ithx.py`` with its tests; github spacetelescope/catkit
``catkit/hardware/omega/iTHX_W3_2.py``, which cites Omega's manual M4965; github NuMat/omega.

TCP port 2000, commands and replies end with CR, no echo, no prompt, no identity. The dialogue is in
``omega_ithx.yaml``; this class takes the values from the bench. Replies are zero-padded to five characters, such as
``019.4\r``; both values at once are ``019.4\r,057.0\r``. Assumed: an unknown command is answered ``Serial Time Out``,
as the models W and 2 answer ``*SRB``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from catkit_devices.hookspecs import hookimpl
from catkit_devices.simulation import YamlInstrument

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.simulation import Bench

__all__ = ["ITHX"]


class ITHX(YamlInstrument):
    """The simulator ``omega_ithx``; both probes are in the same place.

    Args:
        bench: the simulated bench that it is part of; its ``temperature()`` in °C and ``humidity()`` in %RH, if it has
            them, are measured.
        temperature: °C, on a bench without.
        humidity: %RH, on a bench without.
    """

    def __init__(self, bench: Bench, *, temperature: float = 21.0, humidity: float = 22.0) -> None:
        super().__init__(bench, Path(__file__).with_name("omega_ithx.yaml"))
        celsius: Callable[[], float] = getattr(bench, "temperature", None) or (lambda: temperature)
        relative: Callable[[], float] = getattr(bench, "humidity", None) or (lambda: humidity)
        values: dict[str, Callable[[], float | str]] = {
            "celsius": celsius,
            "fahrenheit": lambda: _fahrenheit(celsius()),
            "humidity": relative,
            "dew_point_celsius": lambda: _dew_point(celsius(), relative()),
            "dew_point_fahrenheit": lambda: _fahrenheit(_dew_point(celsius(), relative())),
            "both_celsius": lambda: f"{celsius():05.1f}\r,{relative():05.1f}",
        }
        for name, read in values.items():
            self.couple(name, read)
            self.couple(f"{name}_2", read)
        self.couple("both_fahrenheit", lambda: f"{_fahrenheit(celsius()):05.1f}\r,{relative():05.1f}")


def _fahrenheit(celsius: float) -> float:
    return celsius * 1.8 + 32.0


def _dew_point(celsius: float, humidity: float) -> float:
    """Return the dew point in °C by the Magnus formula, with Sonntag's coefficients of 1990."""
    magnus = math.log(max(humidity, 0.1) / 100) + 17.62 * celsius / (243.12 + celsius)
    return 243.12 * magnus / (17.62 - magnus)


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"omega_ithx": ITHX}
