"""What runs have recorded, as series of numbers that can be drawn, and as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.plain import plain
from catkit_devices.web.pages.frames import picture, scale_of
from catkit_devices.web.problems import Problem

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from catkit_devices.datalog import RunReader

__all__ = ["picture_of", "series_of"]

_MOST_POINTS = 2000
"""Points of a series that are drawn; of a longer one every second point is, or every third, and so on."""
_MOST_CURVES = 12
"""Curves of a tag that are drawn, the newest ones."""


def series_of(path: Path, kind: str, tag: str) -> dict[str, Any]:
    """Return what was logged under a tag as series: ``time`` (whether x is one), ``x_label``, ``unit`` and ``series``.

    Scalars are drawn over time, curves as they are, and of arrays of one dimension the newest.

    Raises:
        Problem: it cannot be drawn.
        DataError: nothing was logged so.
    """
    from catkit_devices.datalog import RunReader

    with RunReader(path) as reader:
        if kind == "scalar":
            scalars = reader.scalars(tag)
            return _drawn([(tag, scalars.seconds, scalars.values)], "", scalars.unit, time=True)
        if kind == "curve":
            curves = reader.curves(tag)[-_MOST_CURVES:]
            newest = curves[-1]
            x_label = f"{newest.x_label} ({newest.x_unit})" if newest.x_unit else newest.x_label
            return _drawn([(one.y_label or tag, one.x, one.y) for one in curves], x_label, newest.y_unit)
        if kind == "array":
            array = _newest(reader, tag)
            if array.ndim == 1:
                return _drawn([(tag, range(len(array)), array)], "", reader.arrays(tag).unit)
    raise Problem(422, f"a {kind} cannot be drawn as a curve")


def _drawn(series: Any, x_label: str, unit: str | None, *, time: bool = False) -> dict[str, Any]:
    import numpy as np

    made = []
    for label, x, y in series:
        step = max(1, -(-len(y) // _MOST_POINTS))
        made.append({"label": label, "x": plain(np.asarray(x, float)[::step]), "y": plain(np.asarray(y)[::step])})
    return {"time": time, "x_label": x_label, "unit": unit or "", "series": made}


def picture_of(path: Path, kind: str, tag: str) -> bytes:
    """Return the newest picture that was logged under a tag, as PNG.

    Raises:
        Problem: it is no picture.
        DataError: nothing was logged so.
    """
    from catkit_devices.datalog import RunReader

    with RunReader(path) as reader:
        if kind == "figure":
            png = reader.figures(tag, index=slice(-1, None))[-1].png
            if not png.startswith(b"\x89PNG\r\n\x1a\n"):
                raise Problem(422, f"what was logged as figure {tag!r} is no PNG")
            return png
        array = _newest(reader, tag)
        return picture(array, scale_of(array))


def _newest(reader: RunReader, tag: str) -> npt.NDArray[Any]:
    return reader.arrays(tag)[-1]
