"""Reads what the runs of the demonstration recorded, for its picture and its table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from catkit_devices.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from catkit_devices.datalog import RunReader

__all__ = ["FilterPower", "Loop", "read_filters", "read_loop"]


@dataclass(frozen=True)
class FilterPower:
    """What was measured behind one filter, in watts."""

    wheel: str
    slot: int
    readings: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean of the readings, in watts."""
        return sum(self.readings) / len(self.readings)


@dataclass(frozen=True, eq=False)
class Loop:
    """What the loop recorded: times in seconds since 1970 UTC, distances in pixels, power in watts, light in counts.

    ``offset`` is the distance of the spot from the centre, ``without`` the distance that it would have if the loop had
    not moved the stage, ``light`` the light of the spot on the camera.
    """

    seconds: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    without: npt.NDArray[np.float64]
    power: npt.NDArray[np.float64]
    light: npt.NDArray[np.float64]


def read_filters(reader: RunReader) -> tuple[list[FilterPower], list[tuple[float, float]]]:
    """Return what a filter scan measured, and from when to when it held the locks, in seconds since 1970 UTC.

    Raises:
        DataError: it measured nothing.
    """
    filters = []
    for tag in reader.tags("scalar"):
        kind, _, rest = tag.tag.partition("/")
        if kind == "power":
            wheel, _, slot = rest.rpartition("/")
            filters.append(FilterPower(wheel, int(slot), tuple(map(float, reader.scalars(tag.tag).values))))
    if not filters:
        raise DataError(f"run {reader.path}: no power was measured")
    turns = reader.scalars("turn")
    return filters, [(float(end - length), float(end)) for end, length in zip(turns.seconds, turns.values, strict=True)]


def read_loop(reader: RunReader) -> Loop:
    """Return what the loop that keeps the spot centred recorded.

    Raises:
        DataError: it recorded nothing.
    """
    import numpy as np

    offset_x = reader.scalars("offset_x")
    columns = {
        name: reader.scalars(name).values for name in ("offset_y", "without_x", "without_y", "coupled_power", "light")
    }
    count = min(len(offset_x), *(len(values) for values in columns.values()))
    if not count:
        raise DataError(f"run {reader.path}: the spot was never seen")
    return Loop(
        seconds=offset_x.seconds[:count],
        offset=np.hypot(offset_x.values[:count], columns["offset_y"][:count]),
        without=np.hypot(columns["without_x"][:count], columns["without_y"][:count]),
        power=columns["coupled_power"][:count],
        light=columns["light"][:count],
    )
