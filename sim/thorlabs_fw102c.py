r"""Simulated Thorlabs filter wheels: FW102C with six slots, FW212C with twelve.

Sources: Thorlabs FW102C/FW212C manual Rev H (October 2014) section 5.2.3; pylablib ``devices/Thorlabs/serial.py``;
github delmic/odemis ``src/odemis/driver/tlfw.py`` (a driver with a simulator); github spacetelescope/catkit
``catkit/hardware/thorlabs/ThorlabsFW102C.py``; instrumentkit ``thorlabs/thorlabs_utils.py``.

* 115200 baud, 8N1; commands end with CR; the unit echoes, answers and prompts with ``> ``: asking is ``pos?\r`` out,
  ``pos?\r3\r> `` in, setting is ``pos=3\r`` out, ``pos=3\r> `` in.
* ``*idn?``, ``pos`` (1 to pcount), ``pcount`` (6 or 12), ``trig`` (0 input, 1 output), ``speed`` (0 slow, 1 fast),
  ``sensors`` (0 off when idle, 1 always on), ``baud`` (0 9600, 1 115200), ``save``.
* ``Command error CMD_NOT_DEFINED`` for an unknown keyword and for a bare CR, ``Command error CMD_ARG_INVALID`` for a
  value out of range; the text ends with LF CR (as odemis has it), then comes the prompt.
* The prompt after ``pos=`` comes when the wheel has arrived. It turns the shorter way. About 1 s for each step at
  speed 1 and 2 s at speed 0 (odemis; an estimate).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from catkit_devices.errors import ConfigurationError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim.models import Wheel
from catkit_devices.sim.thorlabs_prompt import PromptInstrument, UnknownCommandError, choose

if TYPE_CHECKING:
    from catkit_devices.simulation import Bench

__all__ = ["FW102C", "FW212C"]


class FW102C(PromptInstrument):
    """The simulator ``thorlabs_fw102c``.

    Args:
        bench: the bench to which it belongs; if it has a ``wheel(role)``, the unit turns that wheel.
        role: which of the bench's wheels it is: ``"nd"`` or ``"colour"`` on the bench ``optical``.
        position: of the wheel at the start.
        step_time: s for each step at speed 1; twice that at speed 0.

    Attributes:
        wheel: its true position.
    """

    slots: ClassVar[int] = 6

    def __init__(self, bench: Bench, *, role: str | None = None, position: int = 1, step_time: float = 1.0) -> None:
        super().__init__(bench)
        wheel: Any = getattr(bench, "wheel", None)
        if wheel is None and role is not None:
            raise ConfigurationError(f"role {role!r} needs a bench with filter wheels")
        if wheel is not None and role is None:
            raise ConfigurationError("say which wheel of the bench this is, with the option 'role'")
        if not step_time >= 0:
            raise ConfigurationError(f"step_time must not be negative, got {step_time!r}")
        self.wheel: Wheel = Wheel(bench.clock, self.slots) if wheel is None else wheel(role)
        if self.wheel.positions != self.slots:
            raise ConfigurationError(f"wheel {role!r} of the bench has {self.wheel.positions} slots, not {self.slots}")
        if position not in range(1, self.wheel.positions + 1):
            raise ConfigurationError(f"position must be 1 to {self.wheel.positions}, got {position!r}")
        self.wheel.move(position, start=0.0, seconds_per_step=0.0)
        self._step_time = step_time
        self._settings = {"trig": 0, "speed": 1, "sensors": 0, "baud": 1}

    def get(self, key: str) -> str:
        """Return the answer to a query."""
        if key == self.IDENTIFY:
            return "THORLABS FW102C/FW212C Filter Wheel version 1.07"
        if key == "pos":
            return str(self.wheel.position)
        if key == "pcount":
            return str(self.wheel.positions)
        if key in self._settings:
            return str(self._settings[key])
        raise UnknownCommandError(key)

    def set(self, key: str, value: str, start: float) -> float:
        """Change a setting, or begin to move."""
        if key == "pos":
            target = choose(value, range(1, self.wheel.positions + 1))
            step = self._step_time if self._settings["speed"] else 2 * self._step_time
            return self.wheel.move(target, start=start, seconds_per_step=step)
        if key == "pcount":
            self.wheel.positions = choose(value, (6, 12))
        elif key in self._settings:
            self._settings[key] = choose(value, (0, 1))
        else:
            raise UnknownCommandError(key)
        return 0.0


class FW212C(FW102C):
    """The simulator ``thorlabs_fw212c``: the same with twelve slots."""

    slots = 12


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulators."""
    return {"thorlabs_fw102c": FW102C, "thorlabs_fw212c": FW212C}
