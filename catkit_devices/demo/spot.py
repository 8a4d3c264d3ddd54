"""Finds the spot on a camera frame, and measures its light."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["FoundSpot", "find_spot"]

_SIGNIFICANT = 5.0
"""A pixel counts as light when it is above the background by this many standard deviations of the noise there."""


class FoundSpot(NamedTuple):
    """The spot on a frame: its offset from the frame's centre (pixels; x right, y down), and its light in counts."""

    x: float
    y: float
    light: float


def find_spot(frame: npt.NDArray[Any]) -> FoundSpot:
    """Return the centre of gravity of the pixels that are above the background, and their sum above it.

    For a frame without light, the light is 0 and the centre is NaN.
    """
    import numpy as np

    counts = np.asarray(frame, dtype=float)
    background = float(np.median(counts))
    noise = 1.4826 * float(np.median(np.abs(counts - background)))  # the standard deviation, if the noise is Gaussian
    above = counts - background
    above[above < _SIGNIFICANT * max(noise, 1.0)] = 0.0
    light = float(above.sum())
    if light == 0.0:
        return FoundSpot(float("nan"), float("nan"), 0.0)
    rows, columns = counts.shape
    x = float(above.sum(axis=0) @ (np.arange(columns) - (columns - 1) / 2)) / light
    y = float(above.sum(axis=1) @ (np.arange(rows) - (rows - 1) / 2)) / light
    return FoundSpot(x, y, light)
