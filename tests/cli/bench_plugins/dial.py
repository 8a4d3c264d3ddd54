"""A device without any hardware, for the tests of the command line: much of it cannot be read."""

import sys
import threading
import time
import types

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

    @property
    def relic(self):
        """What the vendor's library calls a reading."""
        return vendor_library().Relic()

    @property
    def handle(self):
        """What only this process can use."""
        return threading.Lock()

    @property
    def quitter(self):
        """What a vendor's library answers by ending the program."""
        sys.exit(3)

    @property
    def knot(self):
        """A list that contains itself."""
        knot = []
        knot.append(knot)
        return knot

    @property
    def shouted(self):
        """A reading that fails in colours."""
        raise ValueError("\x1b[31mred\x1b[0m\0 alert")

    def leave(self) -> None:
        """End the program."""
        sys.exit(3)

    def hum(self, seconds: float) -> None:
        """Hum, and let nothing be read meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._checkpoint()
            time.sleep(0.01)

    def scan(self):
        """Return positions, powers and the time that each took."""
        import numpy as np

        return np.arange(3), np.ones((3, 2)), 0.5

    def trace(self):
        """Return what it has drawn: numbers, one of which was not measured."""
        import numpy as np

        return {"mbar": np.array([1.0, np.inf]), (1, 2): "\udcb5"}


def vendor_library():
    """A module that only the process of the device has."""
    if "vendor_library" not in sys.modules:
        module = sys.modules["vendor_library"] = types.ModuleType("vendor_library")
        module.Relic = type("Relic", (), {"__module__": "vendor_library"})
    return sys.modules["vendor_library"]


@hookimpl
def catkit_devices_drivers():
    return {"test_gauge": Gauge}
