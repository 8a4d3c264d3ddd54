"""ZWO ASI cameras: driver ``zwo_asi``.

Through the package zwoasi (``pip install zwoasi``), which needs the library ASICamera2 of ZWO's SDK. Controls, states
and types of images: ASICamera2.h of that SDK, and zwoasi 0.2.0 with the same names. Ranges: ZWO's manuals of the
cameras ASI183, ASI290, ASI1600 and ASI6200, which expose from 32 µs to 2000 s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.device import Device
from catkit_devices.errors import (
    DeviceDisconnectedError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
)
from catkit_devices.hookspecs import hookimpl
from catkit_devices.interfaces import Camera
from catkit_devices.properties import Control, Measurement

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["ZwoAsi"]

_GAIN, _EXPOSURE, _TEMPERATURE = 0, 1, 8
"""Controls: gain, exposure time in µs, temperature of the sensor in 0.1 °C."""
_RAW16 = 2
"""Type of images: 16 bits for each pixel, little-endian."""
_WORKING, _SUCCESS = 1, 2
"""States of an exposure; the others are 0, idle, and 3, failed."""
_REMOVED = 5
"""Number of the error of a camera that was unplugged."""
_READ_OUT = 5.0
"""Seconds from the end of an exposure until the frame must be there: over USB 2, a large one takes about 2 s."""


class ZwoAsi(Device, Camera):
    """A camera, with its whole sensor and single exposures. Closing it keeps a cooler as it is.

    Args:
        model: the camera's name in the SDK, such as ``"ZWO ASI290MM Mini"``. Only one camera of a model can be used.
        library: path of the SDK's library; None to look for it where the system has its libraries.
    """

    exposure_time = Control(
        lambda self: self._value(_EXPOSURE) / 1e6,
        lambda self, seconds: self._set(_EXPOSURE, round(seconds * 1e6)),
        unit="s",
        limits=(32e-6, 2000.0),
        doc="Exposure time of one frame, in steps of 1 µs.",
    )
    gain = Control(
        lambda self: self._value(_GAIN),
        lambda self, gain: self._set(_GAIN, gain),
        type=int,
        limits=(0, 600),
        doc="Gain, in 0.1 dB; the highest depends on the camera.",
    )
    temperature = Measurement(
        lambda self: self._value(_TEMPERATURE) / 10, unit="degC", shared=True, doc="Temperature of the sensor."
    )

    def __init__(self, name: str, *, model: str, library: str | None = None, **options: Any) -> None:
        super().__init__(name, **options)
        self._model = model
        self._library = library

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a frame, in pixels."""
        columns, rows, *_ = self._sdk("get_roi_format")
        return rows, columns

    def frame(self) -> npt.NDArray[np.uint16]:
        """Expose and return one frame: ``shape`` unsigned 16-bit counts, the first row at the top."""
        import numpy as np

        if self._sdk("get_exposure_status") == _WORKING:  # of an operation that was cancelled
            self._sdk("stop_exposure")
        exposure = self.exposure_time
        self._sdk("start_exposure")
        self.wait(exposure)
        if not self.wait(lambda: self._sdk("get_exposure_status") != _WORKING, _READ_OUT, 0.005):
            self._sdk("stop_exposure")
            raise DeviceTimeoutError(f"no frame {_READ_OUT:g} s after the exposure", **self._facts("frame"))
        if (status := self._sdk("get_exposure_status")) != _SUCCESS:
            raise DeviceProtocolError(
                f"the exposure has failed: status {_SUCCESS} was expected, got {status}", **self._facts("frame")
            )
        pixels = np.frombuffer(self._sdk("get_data_after_exposure"), "<u2")
        return pixels.reshape(self.shape).astype(np.uint16)

    def _open(self) -> Any:
        try:
            import zwoasi
        except ImportError as error:
            raise DeviceOpenError(f"needs the package zwoasi ({error}): pip install zwoasi", **self._facts()) from error
        try:
            zwoasi.init(self._library)
            models = zwoasi.list_cameras()
            if models.count(self._model) != 1:
                found = ", ".join(map(repr, models)) or "none"
                raise DeviceOpenError(f"expected one camera {self._model!r}, found {found}", **self._facts())
            camera = zwoasi.Camera(models.index(self._model))
            camera.set_image_type(_RAW16)
        except (zwoasi.ZWO_Error, OSError) as error:  # OSError: the library cannot be loaded
            raise DeviceOpenError(str(error), **self._facts()) from error
        return camera

    def _close(self) -> None:
        self._connection.close()

    def _make_safe(self) -> None:
        """End the exposure."""
        self._sdk("stop_exposure")

    def _value(self, control: int) -> int:
        return int(self._sdk("get_control_value", control)[0])

    def _set(self, control: int, value: int) -> None:
        self._sdk("set_control_value", control, value)
        if (found := self._value(control)) != value:
            raise DeviceProtocolError(f"{value} was set, but {found} was read back", **self._facts())

    def _sdk(self, name: str, *arguments: Any) -> Any:
        """Call a function of the SDK."""
        self._checkpoint()
        try:
            return getattr(self._connection, name)(*arguments)
        except Exception as error:
            removed = getattr(error, "error_code", None) == _REMOVED
            kind = DeviceDisconnectedError if removed else DeviceProtocolError
            raise kind(f"{type(error).__name__}: {error}", **self._facts(name)) from error


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"zwo_asi": ZwoAsi}
