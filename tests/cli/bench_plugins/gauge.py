"""A device without any hardware, for the tests of the command line: much of it cannot be read."""

from catkit_devices.device import Device, operation
from catkit_devices.errors import DeviceProtocolError
from catkit_devices.hookspecs import hookimpl


class Gauge(Device):
    """A gauge that has seen better days."""

    has_instrument = False

    def _open(self):
        return self

    @property
    @operation(shared=True)
    def pressure(self) -> float:
        """Pressure in the tank; the sensor is unplugged."""
        return float("nan")

    @property
    def range(self) -> int:
        """Range in use."""
        return 3

    @property
    def inlet(self) -> float:
        """Flow at the inlet."""
        raise DeviceProtocolError("the flow sensor has no supply", **self._facts())

    @property
    def outlet(self) -> float:
        """Flow at the outlet."""
        raise DeviceProtocolError("the flow sensor has no supply", **self._facts())

    @property
    def ratio(self) -> float:
        """Flow at the inlet by that at the outlet."""
        return 1 / 0

    def trace(self):
        """Return what it has drawn: numbers, one of which was not measured."""
        import numpy as np

        return {"mbar": np.array([1.0, np.inf]), (1, 2): "\udcb5"}


@hookimpl
def catkit_devices_drivers():
    return {"test_gauge": Gauge}
