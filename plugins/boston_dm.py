"""Boston Micromachines deformable mirrors, two of 34 by 34 actuators on one driver box: driver ``boston_dm``.

Through the manufacturer's package ``bmc``, which comes with its SDK; the package of that name on PyPI is another one.
Its functions, commands as fractions of the full voltage, and the second mirror at the half of the vector of commands:
github spacetelescope/catkit ``catkit/hardware/boston/BostonDmController.py`` and github spacetelescope/catkit2
``services/bmc_deformable_mirror_hardware``. The 952 actuators of a mirror are those within a circle of 35 actuators'
diameter; they are counted row by row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.device import Device
from catkit_devices.errors import ConfigurationError, DeviceOpenError, DeviceProtocolError, DeviceValueError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Array, Control, Measurement

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["BostonDm"]

_MIRRORS, _ACROSS = 2, 34  # actuators
_SHAPE = (_MIRRORS, _ACROSS, _ACROSS)
"""Shape of an array of commands: mirror, row, column."""
_RADIUS = 17.5  # actuators: within it are 952


class BostonDm(Device):
    """Two deformable mirrors; they are safe at 0 V, at which opening and closing leave them too.

    Args:
        serial: of the driver box, such as ``"17BW023#065"``.
        highest: the highest command that is accepted, a fraction of the full voltage; the mirrors are damaged by more.
    """

    commands = Control(
        lambda self: self._present().copy(),
        lambda self, commands: self._send(commands),
        type=Array("<f8", shape=_SHAPE),
        doc="Commands, fractions of the full voltage from 0 to ``highest``, by mirror, row and column. What was sent "
        "last is read: the mirrors cannot be asked. Where there is no actuator, the command is not used and reads 0.",
    )
    actuators = Measurement(
        lambda self: self._mask().astype("u1"),
        type=Array("u1", shape=(_ACROSS, _ACROSS)),
        shared=True,
        doc="Places of the actuators of a mirror: 1 if there is one, by row and column.",
    )

    def __init__(self, name: str, *, serial: str, highest: float = 1.0, **options: Any) -> None:
        super().__init__(name, **options)
        if not 0 < highest <= 1:
            raise ConfigurationError(f"highest must be above 0 and at most 1, got {highest!r}")
        self._serial = serial
        self._highest = highest
        self._sent: tuple[Any, npt.NDArray[np.float64] | None] = None, None
        """The connection over which commands were sent last, and these; None if it is not known what has arrived."""

    def _open(self) -> Any:
        try:
            from bmc import BmcDm  # comes with the SDK of the manufacturer
        except ImportError as error:
            raise DeviceOpenError(
                f"needs the package bmc of Boston Micromachines' SDK, with its folder in PYTHONPATH ({error})",
                **self._facts(),
            ) from error
        import numpy as np

        mirrors = BmcDm()
        if code := mirrors.open_dm(self._serial):
            raise DeviceOpenError(f"serial number {self._serial!r}: {mirrors.error_string(code)}", **self._facts())
        if code := mirrors.send_data(np.zeros(mirrors.num_actuators())):
            mirrors.close_dm()
            raise DeviceOpenError(f"0 V is refused: {mirrors.error_string(code)}", **self._facts())
        return mirrors

    def _close(self) -> None:
        self._connection.close_dm()

    def _make_safe(self) -> None:
        """Set all actuators to 0 V."""
        import numpy as np

        self._send(np.zeros(_SHAPE))

    def _mask(self) -> npt.NDArray[np.bool_]:
        import numpy as np

        square = (np.arange(_ACROSS) - (_ACROSS - 1) / 2) ** 2
        inside: npt.NDArray[np.bool_] = square[:, None] + square <= _RADIUS**2
        return inside

    def _present(self) -> npt.NDArray[np.float64]:
        """Return what was sent last over this connection; opening it has set all actuators to 0 V."""
        import numpy as np

        connection, commands = self._sent
        if connection is not self._connection:
            return np.zeros(_SHAPE)
        if commands is None:
            raise DeviceProtocolError("it is not known whether the last commands have arrived", **self._facts())
        return commands

    def _send(self, commands: npt.NDArray[np.float64]) -> None:
        import numpy as np

        wanted = np.array(commands)
        mask = self._mask()
        wanted[:, ~mask] = 0.0
        if not np.all((wanted >= 0) & (wanted <= self._highest)):
            raise DeviceValueError(
                f"commands must be 0 to {self._highest:g}, got {wanted.min():g} to {wanted.max():g}", **self._facts()
            )
        vector = np.zeros(self._connection.num_actuators())
        half, count = len(vector) // _MIRRORS, np.count_nonzero(mask)
        if half < count:
            raise DeviceProtocolError(
                f"a driver box for {_MIRRORS} times {count} actuators was expected, got {len(vector)}", **self._facts()
            )
        for mirror in range(_MIRRORS):
            vector[mirror * half : mirror * half + count] = wanted[mirror][mask]
        self._checkpoint()
        self._sent = self._connection, None
        if code := self._connection.send_data(vector):
            raise DeviceProtocolError(self._connection.error_string(code), **self._facts("send_data"))
        self._sent = self._connection, wanted


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"boston_dm": BostonDm}
