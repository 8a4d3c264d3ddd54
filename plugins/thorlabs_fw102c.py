"""Thorlabs FW102C and FW212C motorized filter wheels: drivers ``thorlabs_fw102c`` and ``thorlabs_fw212c``.

Commands and values: Thorlabs FW102C/FW212C manual Rev H (October 2014) section 5.2.3, p. 11. The dialogue is that of
:mod:`catkit_devices.plugins._thorlabs_prompt`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from catkit_devices.errors import DeviceOpenError, DeviceProtocolError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.interfaces import FilterWheel
from catkit_devices.properties import Control

from ._thorlabs_prompt import PromptDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["FW102C", "FW212C"]


class FW102C(PromptDevice, FilterWheel):
    """A wheel with six filters."""

    identity = r"FW102C"
    #: Seconds for a move. The prompt comes when it is complete; a step takes about 1 s at high and 2 s at low speed
    #: (github delmic/odemis, tlfw.py, which allows 10 s), and the wheel turns the shorter way: six steps at most.
    move_timeout: ClassVar[float] = 15.0
    _slots: ClassVar[int] = 6

    position = Control(
        "pos?",
        "pos={}",
        type=int,
        limits=(1, 6),
        doc="Filter slot in the beam, 1 to 6. Setting it returns when the wheel has arrived and was found there.",
    )
    speed = Control("speed?", "speed={}", choices={"slow": 0, "fast": 1}, doc="Speed of rotation.")
    sensors_always_on = Control(
        "sensors?",
        "sensors={}",
        type=bool,
        doc="Position sensors while the wheel does not turn: on, or off (False) so that they emit no stray light.",
    )
    trigger = Control("trig?", "trig={}", choices={"input": 0, "output": 1}, doc="Direction of the BNC trigger.")

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._moving = False

    @property
    def positions(self) -> int:
        """Number of filter slots."""
        return self._ask("pcount?", int)

    def _identify(self) -> None:
        # After a move that was cancelled, the unit answers only when the wheel has arrived; the move's prompt is first.
        timeout = self.move_timeout if self._moving else None
        self._check_identity("\n".join(self._converse("*idn?", timeout, resumes=self._moving)))
        self._moving = False
        slots = self._query("pcount?")
        if slots != str(self._slots):
            raise DeviceOpenError(f"a wheel with {self._slots} slots was expected, found {slots}", **self._facts())

    def _write(self, command: str) -> None:
        if not command.startswith("pos="):
            super()._write(command)
            return
        # The wire is held for the whole move: the unit accepts no command before the wheel has arrived.
        with self._transaction():
            self._moving = True
            self._confirm(command, self.move_timeout)
            self._moving = False
            arrived = f"pos={self._query('pos?')}"
        if arrived != command:
            raise DeviceProtocolError(f"the wheel did not arrive: it reports {arrived}", **self._facts(command))


class FW212C(FW102C):
    """A wheel with twelve filters."""

    _slots = 12

    position = Control(
        "pos?",
        "pos={}",
        type=int,
        limits=(1, 12),
        doc="Filter slot in the beam, 1 to 12. Setting it returns when the wheel has arrived and was found there.",
    )


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the drivers."""
    return {"thorlabs_fw102c": FW102C, "thorlabs_fw212c": FW212C}
