"""A camera for the testbed's tests: it writes its number of exposures into the frame, and does what a file tells it."""

import time
from pathlib import Path

import numpy as np

from catkit_devices.device import Device, operation
from catkit_devices.hookspecs import hookimpl
from catkit_devices.units import registry


class PlainCamera(Device):
    """Frames hold the number of the exposure; ``does`` says what happens: fine, text, masked, units, broken, slow."""

    has_instrument = False

    def __init__(self, name, *, journal: str, **options):
        super().__init__(name, **options)
        self._journal = Path(journal)
        self._does = "fine"
        self._shape = (4, 5)
        self._count = 0

    def _open(self):
        return self

    def _make_safe(self):
        self._note("safe")

    def _note(self, what):
        with self._journal.open("a") as file:
            file.write(f"{self.name} {what}\n")

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a frame, in pixels."""
        return self._shape

    @shape.setter
    def shape(self, shape) -> None:
        self._shape = tuple(shape)

    @property
    @operation(shared=True)
    def exposures(self) -> int:
        """How many frames were taken."""
        return self._count

    @property
    def does(self) -> str:
        """What happens with the next frame."""
        return self._does

    @does.setter
    def does(self, does: str) -> None:
        self._does = does

    def frame(self):
        """Expose and return a frame."""
        does = self._does
        if does == "text":
            return "no frame"
        if does == "masked":
            return np.ma.masked_all((2, 2))
        if does == "units":
            return [registry().Quantity(np.ones(2), unit) for unit in ("mV", "V")]
        if does == "broken":
            raise ZeroDivisionError("the sensor is gone")
        if does in {"slow", "very slow"}:
            self.wait(3.0 if does == "slow" else 30.0)
        self._count += 1
        return np.full(self._shape, self._count, "u2")

    def _continuous_frames(self):
        self._note("begins")
        try:
            while True:
                self.wait(0.01)
                yield self.frame()
        finally:
            self._checkpoint()  # as every command to an instrument does
            self._note("ends")

    def mean_frame(self, count: int):
        """Return the mean of several frames."""
        return float(np.mean([self.frame() for _ in range(count)]))

    def block(self) -> None:
        """Hold the operation for a while, deaf to everything."""
        time.sleep(0.5)


class StillCamera(PlainCamera):
    """The same, which gives no frames continuously."""

    _continuous_frames = Device._continuous_frames


@hookimpl
def catkit_devices_drivers():
    return {"plain_camera": PlainCamera, "still_camera": StillCamera}
