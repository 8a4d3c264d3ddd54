r"""A simulated Thorlabs MCLS1 four-channel laser source.

Sources (no manual page was found): github epics-containers/ibek-runtime-streamdevice
``thorlabsMcls1/thorlabsMcls1.proto`` and ``sim/thorlabs_sim.py``; github spacetelescope/catkit
``catkit/hardware/thorlabs/ThorlabsMCLS1.py``; github ChrisDelaX/HCIFS ``HCIFS/Device/Source/MCLS1.py``.

* 115200 baud, 8N1; CR, echo and prompt as :mod:`catkit_devices.sim.thorlabs_prompt` has them.
* ``id?`` (not ``*idn?``) and ``?`` (a list of commands); ``channel`` (1 to 4) selects the channel of these commands:
  ``enable`` (0, 1), ``current`` (mA, up to the diode's limit), ``power?`` (mW), ``target`` (°C, 20 to 30), ``temp?``
  (°C), ``specs?``; ``system`` (0, 1) enables all; ``step`` (0.01 to 10 mA); ``statword?``; ``save``.
* Light needs both ``system=1`` and ``enable=1``; it settles in about 2 s.
* Errors are ``Command error CMD_NOT_DEFINED`` and ``Command error CMD_ARG_INVALID``, as for the filter wheel.
* ``statword?``: eight binary digits: ``000``, system, and the four channels, as in the simulator named above.

Assumed: numbers have two decimals; a current above the diode's limit is refused; the layout of ``specs?`` is a line
for each of Wavelength, POut, IOp, IMon, ITh and SerialNumber.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim.models import Lag, Laser
from catkit_devices.sim.optical_bench import DIODES
from catkit_devices.sim.thorlabs_prompt import PromptInstrument, UnknownCommandError, choose, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.simulation import Bench

__all__ = ["MCLS1"]

_COMMANDS = ("id?", "?", "channel", "channel?", "target", "target?", "temp?", "current", "current?", "power?", "enable",
             "enable?", "system", "system?", "specs?", "step", "step?", "save", "statword?")  # fmt: skip


class MCLS1(PromptInstrument):
    """The simulator ``thorlabs_mcls1``.

    Args:
        bench: the bench to which it belongs; if it has a ``laser``, the unit switches that laser.

    Attributes:
        laser: its true state.
    """

    IDENTIFY = "id"

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.laser: Laser = getattr(bench, "laser", None) or Laser(bench.clock, DIODES)
        self._temperatures = [Lag(bench.clock, 25.0, 2.0) for _ in self.laser.diodes]
        self._channel = 0
        self._step = 0.1

    def get(self, key: str) -> str:
        """Return the answer to a query."""
        laser, channel = self.laser, self._channel
        answers: dict[str, Callable[[], str]] = {
            self.IDENTIFY: lambda: "THORLABS MCLS vers 1.06",
            "": lambda: "Commands:\r" + "\r".join(_COMMANDS),
            "channel": lambda: str(channel + 1),
            "enable": lambda: str(int(laser.enabled[channel])),
            "system": lambda: str(int(laser.system)),
            "current": lambda: f"{laser.currents[channel]:.2f}",
            "power": lambda: f"{laser.power(channel):.2f}",
            "target": lambda: f"{self._temperatures[channel].target:.2f}",
            "temp": lambda: f"{self._temperatures[channel].value():.2f}",
            "step": lambda: f"{self._step:.2f}",
            "specs": self._specifications,
            "statword": lambda: f"000{laser.system:d}" + "".join(f"{on:d}" for on in laser.enabled),
        }
        if key not in answers:
            raise UnknownCommandError(key)
        return answers[key]()

    def set(self, key: str, value: str, start: float) -> float:  # noqa: ARG002 - nothing takes time
        """Change a setting: of the selected channel, or of the whole unit."""
        if key == "channel":
            self._channel = choose(value, range(1, len(self.laser.diodes) + 1)) - 1
        elif key == "enable":
            self.laser.enable(self._channel, bool(choose(value, (0, 1))))
        elif key == "system":
            self.laser.enable_system(bool(choose(value, (0, 1))))
        elif key == "current":
            limit = self.laser.diodes[self._channel].maximum_current
            self.laser.set_current(self._channel, measure(value, 0.0, limit))
        elif key == "target":
            self._temperatures[self._channel].go(measure(value, 20.0, 30.0))
        elif key == "step":
            self._step = measure(value, 0.01, 10.0)
        else:
            raise UnknownCommandError(key)
        return 0.0

    def _specifications(self) -> str:
        diode = self.laser.diodes[self._channel]
        return "\r".join(
            (
                f"Wavelength = {diode.wavelength:.1f}",
                f"POut = {diode.maximum_power:.2f}",
                f"IOp = {diode.maximum_current:.2f}",
                "IMon = 0.0",
                f"ITh = {diode.threshold:.2f}",
                f"SerialNumber = {diode.serial_number}",
            )
        )


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"thorlabs_mcls1": MCLS1}
