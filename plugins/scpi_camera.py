"""The camera of the simulated bench: driver ``scpi_camera``.

There is no such product. Its commands, similar to SCPI on a TCP socket, are documented and simulated in
:mod:`catkit_devices.sim.camera`. It shows how a driver reads frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.errors import DeviceValueError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.interfaces import Camera
from catkit_devices.properties import Control, Measurement
from catkit_devices.scpi import ScpiDevice, number

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import numpy as np
    import numpy.typing as npt

    from catkit_devices.device import Device

__all__ = ["ScpiCamera"]


class ScpiCamera(ScpiDevice, Camera):
    """A camera with 16-bit pixels."""

    identity = r"CATKIT_DEVICES,SIMCAM,"
    strict = True

    exposure_time = Control("EXP?", "EXP {}", unit="s", limits=(1e-5, 10.0), doc="Exposure time of one frame.")
    pixel_size = Measurement(lambda self: self._ask_twice("SENS:PIX?", number), unit="um", doc="Pitch of the pixels.")
    saturation = Measurement("SENS:SAT?", type=int, doc="Value at which a pixel saturates, in counts.")

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._sensor = (0, 0)
        self._exposing = False

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a frame, in pixels: those of the region that is read out."""
        return self.region[2:]

    @property
    def region(self) -> tuple[int, int, int, int]:
        """Region of the sensor that is read out: first row and column from 0, height and width, in pixels."""
        row, column, rows, columns = self._ask_value("ROI?", int, count=4)
        return row, column, rows, columns

    @region.setter
    def region(self, value: Sequence[int]) -> None:
        try:
            numbers = [int(part) for part in value]
        except (TypeError, ValueError, OverflowError):
            numbers = []
        if len(numbers) != 4 or any(part != whole for part, whole in zip(value, numbers, strict=True)):
            raise DeviceValueError(f"region must be four whole numbers, got {value!r}", **self._facts())
        for first, length, available in zip(numbers[:2], numbers[2:], self._sensor, strict=True):
            if first < 0 or length < 1 or first + length > available:
                rows, columns = self._sensor
                raise DeviceValueError(
                    f"region must lie within the sensor's {rows} rows and {columns} columns, got {value!r}",
                    **self._facts(),
                )
        self._write("ROI " + ",".join(map(str, numbers)))

    def frame(self) -> npt.NDArray[np.uint16]:
        """Expose and return one frame: ``shape`` unsigned 16-bit counts, row 0 first."""
        exposure, rows, columns = self._begin("INIT")
        self.wait(exposure)  # no exchange is open on the wire, so the camera can be made safe meanwhile
        frame = self._query_array("FETC?", "<u2", shape=(rows, columns))
        self._exposing = False
        return frame

    def _continuous_frames(self) -> Generator[npt.NDArray[np.uint16]]:
        """Have the camera expose again and again."""
        exposure, rows, columns = self._begin("INIT:CONT 1")
        try:
            while True:
                self.wait(exposure)
                yield self._query_array("FETC?", "<u2", shape=(rows, columns))
        finally:
            self._write("ABOR")
            self._exposing = False

    def _begin(self, command: str) -> tuple[float, int, int]:
        """Begin to expose; return the exposure time, and rows and columns of the frames that come."""
        exposure = self._ask_value("EXP?")
        rows, columns = self._ask_value("ROI?", int, count=4)[2:]
        if self._exposing:  # by an operation that was cancelled
            self._write("ABOR")
        self._exposing = True
        self._write(command)
        return exposure, rows, columns

    def _identify(self) -> None:
        super(ScpiDevice, self)._write("ABOR")  # else a frame of a cancelled operation could come before the identity
        self._exposing = False
        super()._identify()
        rows, columns = self._ask_value("SENS:SIZE?", int, count=2)
        self._sensor = (rows, columns)

    def _make_safe(self) -> None:
        """End the exposure."""
        self._write("ABOR")


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"scpi_camera": ScpiCamera}
