"""A stand-in for a ZWO ASI camera: ``stand_in = "catkit_devices.sim.zwo_asi:Camera"``.

It has the methods of ``zwoasi.Camera`` that the driver uses (zwoasi 0.2.0), and sees a spot that does not move, with
the noise of :mod:`catkit_devices.sim.camera`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from catkit_devices.sim.camera import picture

if TYPE_CHECKING:
    from catkit_devices.simulation import Clock

__all__ = ["Camera"]

_SPOT = (1e7, 0.0, 0.0, 25.0)  # photons per second, x, y and sigma in µm
_PIXEL = 2.9  # µm, of the ASI290
_GAIN, _EXPOSURE, _TEMPERATURE = 0, 1, 8
"""Controls of the SDK."""
_RAW16 = 2  # type of images of the SDK
_IDLE, _WORKING, _SUCCESS = 0, 1, 2
"""States of an exposure, of the SDK."""
_HIGHEST = {_GAIN: 600, _EXPOSURE: 2_000_000_000}
"""Largest values of controls: 0.1 dB and µs."""


class Camera:
    """The camera, open and idle.

    Args:
        clock: of the simulation.
        rows: of the sensor.
        columns: of the sensor.
        temperature: of the sensor, °C.
    """

    def __init__(self, clock: Clock, *, rows: int = 1096, columns: int = 1936, temperature: float = 20.0) -> None:
        self._clock = clock
        self._shape = rows, columns
        self._values = {_GAIN: 0, _EXPOSURE: 10_000, _TEMPERATURE: round(10 * temperature)}
        self._rng = np.random.default_rng(290)
        self._ends: float | None = None
        """When the exposure ends or has ended; None without one."""

    def get_roi_format(self) -> list[int]:
        """Return width and height, binning and type of image."""
        return [self._shape[1], self._shape[0], 1, _RAW16]

    def get_control_value(self, control: int) -> list[int | bool]:
        """Return the value of a control, and whether the camera sets it by itself."""
        return [self._values[control], False]

    def set_control_value(self, control: int, value: int) -> None:
        """Set a control; too large a value becomes the largest."""
        self._values[control] = min(value, _HIGHEST[control])

    def start_exposure(self) -> None:
        """Begin an exposure."""
        self._ends = self._clock.time() + self._values[_EXPOSURE] / 1e6

    def stop_exposure(self) -> None:
        """End the exposure without a frame."""
        self._ends = None

    def get_exposure_status(self) -> int:
        """Return the state of the exposure."""
        if self._ends is None:
            return _IDLE
        return _WORKING if self._clock.time() < self._ends else _SUCCESS

    def get_data_after_exposure(self) -> bytearray:
        """Return the frame."""
        self._ends = None
        frame = picture(_SPOT, self._shape, _PIXEL, self._values[_EXPOSURE] / 1e6, self._rng)
        return bytearray(frame.astype("<u2").tobytes())

    def close(self) -> None:
        """Do nothing: nothing is open."""
