"""Where the spot is on a camera frame, and how much light there is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Spot", "find_spot"]

_SIGNIFICANT = 5.0
"""A pixel counts as light when it is above the background by this many standard deviations of the noise there."""


class Spot(NamedTuple):
    """The spot on a frame: where its centre is from the frame's (pixels; x right, y down), and its light in counts."""

    x: float
    y: float
    light: float


def find_spot(frame: npt.NDArray[Any]) -> Spot:
    """Return the centre of gravity of what stands out of the background, and its sum above it.

    A frame without any light gives a light of 0 and NaN for the centre.
    """
    import numpy as np

    counts = np.asarray(frame, dtype=float)
    background = float(np.median(counts))
    noise = 1.4826 * float(np.median(np.abs(counts - background)))  # as a standard deviation, were it Gaussian
    above = counts - background
    above[above < _SIGNIFICANT * max(noise, 1.0)] = 0.0
    light = float(above.sum())
    if light == 0.0:
        return Spot(float("nan"), float("nan"), 0.0)
    rows, columns = counts.shape
    x = float(above.sum(axis=0) @ (np.arange(columns) - (columns - 1) / 2)) / light
    y = float(above.sum(axis=1) @ (np.arange(rows) - (rows - 1) / 2)) / light
    return Spot(x, y, light)
