"""A furnace that another device makes safe: the gas valve, which by itself knows no safe state."""

from pathlib import Path

from catkit_devices.device import Device, operation
from catkit_devices.errors import DeviceClosedError
from catkit_devices.hookspecs import hookimpl


class Valve(Device):
    """Gas flows while the file is there."""

    has_instrument = False

    def __init__(self, name, *, gas: str, **options):
        super().__init__(name, **options)
        self._gas = Path(gas)

    def _open(self):
        return self

    @property
    def opened(self) -> bool:
        """Whether gas flows."""
        return self._gas.exists()

    @opened.setter
    def opened(self, opened: bool) -> None:
        if self._connection is None:
            raise DeviceClosedError("is not open", **self._facts())
        self._gas.touch() if opened else self._gas.unlink(missing_ok=True)


class Furnace(Device):
    """It burns while its valve is open."""

    has_instrument = False

    def __init__(self, name, *, valve, **options):
        super().__init__(name, **options)
        self._valve = valve
        self._heat = 0.0

    def _open(self):
        return self

    def _make_safe(self):
        self._valve.opened = False

    def burn(self) -> None:
        """Burn."""
        self._valve.opened = True

    def overheat(self) -> None:
        """Become too hot."""
        self._heat = 1000.0

    @property
    @operation(shared=True)
    def heat(self) -> float:
        """Heat above that of the room, in K."""
        return self._heat


@hookimpl
def catkit_devices_drivers():
    return {"furnace": Furnace, "valve": Valve}
