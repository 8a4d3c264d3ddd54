"""The base of drivers whose instruments have no error queue, but report in a register that a command was refused."""

from __future__ import annotations

from catkit_devices.errors import DeviceProtocolError
from catkit_devices.scpi import EventStatus, ScpiDevice

__all__ = ["StatusRegisterDevice"]


class StatusRegisterDevice(ScpiDevice):
    """A device that reads the standard event status register after each command (IEEE 488.2, 11.5.1)."""

    errors = "never"

    _refused = EventStatus.EXECUTION_ERROR | EventStatus.COMMAND_ERROR
    """The bits that mean that a command was refused."""

    def _write(self, command: str) -> None:
        with self._transaction():
            super()._write(command)
            status = self._ask_value("*ESR?", int)
        if status & self._refused:
            raise DeviceProtocolError(
                "refused: there is no such command, or its value is not allowed", **self._facts(command)
            )
