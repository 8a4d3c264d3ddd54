"""A device without any hardware, for the tests of the command line: a tank whose level is watched."""

import threading
import time

from catkit_devices.device import Device, operation
from catkit_devices.hookspecs import hookimpl


class Tank(Device):
    """A tank of water with a pump."""

    has_instrument = False

    def __init__(self, name: str, *, level: float = 2.0, **options):
        super().__init__(name, **options)
        self._level = level
        self._pump = False

    def _open(self):
        return self

    def _make_safe(self) -> None:
        self._pump = False

    @property
    @operation(shared=True)
    def level(self) -> float:
        """How full it is."""
        return self._level

    @level.setter
    def level(self, value: float) -> None:
        self._level = float(value)

    @property
    def pump(self) -> bool:
        """Whether the pump runs."""
        return self._pump

    @pump.setter
    def pump(self, value: bool) -> None:
        self._pump = bool(value)

    def fill(self, litres: float, *, label: str = "") -> str:
        """Fill water in, or take it out."""
        self._level += litres
        return f"{label}{self._level:g}"

    def overflow(self, seconds: float) -> None:
        """Be too full for a while."""
        before, self._level = self._level, 100.0
        threading.Timer(seconds, lambda: setattr(self, "_level", before)).start()

    def picture(self, rows: int = 2):
        """Return what it looks like."""
        import numpy as np

        return np.arange(rows * 3, dtype="u2").reshape(rows, 3)

    def pause(self, seconds: float) -> None:
        """Do nothing for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.wait(0.02)

    def leak(self) -> None:
        """Raise what a driver's mistake would raise."""
        raise ZeroDivisionError("no bottom")


@hookimpl
def catkit_devices_drivers():
    return {"test_tank": Tank}
