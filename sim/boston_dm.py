"""A stand-in for two deformable mirrors on one driver box: ``stand_in = "catkit_devices.sim.boston_dm:BmcDm"``.

It has the functions of ``bmc.BmcDm`` that the driver uses, and is open from the beginning. Sources: those of
:mod:`catkit_devices.plugins.boston_dm`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["BmcDm"]

_NO_ERROR, _CLOSED, _OUT_OF_RANGE = 0, 1, 2
"""Numbers of errors; the SDK says only that 0 is none."""


class BmcDm:
    """The two mirrors, at 0 V.

    Args:
        actuators: how many the driver box has, for both mirrors together.
    """

    def __init__(self, *, actuators: int = 2048) -> None:
        self.sent = np.zeros(actuators)
        """The commands that the actuators have, as fractions of the full voltage."""
        self._open = True

    def num_actuators(self) -> int:
        """Return how many commands the driver box takes."""
        return len(self.sent)

    def send_data(self, commands: Any) -> int:
        """Set all actuators; return 0, or the number of an error."""
        wanted = np.array(commands, dtype=float)
        if not self._open:
            return _CLOSED
        if wanted.shape != self.sent.shape or not np.all((wanted >= 0) & (wanted <= 1)):
            return _OUT_OF_RANGE
        self.sent = wanted
        return _NO_ERROR

    def error_string(self, code: int) -> str:
        """Return what an error is."""
        return {_NO_ERROR: "no error", _CLOSED: "the driver box is closed"}.get(code, "commands are out of range")

    def close_dm(self) -> int:
        """Close the driver box; the actuators keep what they have."""
        self._open = False
        return _NO_ERROR
