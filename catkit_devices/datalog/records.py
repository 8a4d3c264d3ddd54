"""What a reader of a run returns: the records of a tag, with their times and units."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from catkit_devices.datalog.arrays import read
from catkit_devices.datalog.extras import extra

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

__all__ = ["Arrays", "Curve", "Event", "Figure", "Fits", "Location", "Scalars", "Tag", "Value"]


@dataclass(frozen=True)
class Tag:
    """One tag of a run: its kind, its unit and how many records it has.

    A kind is one of scalar, array, curve, figure, fits, value and event (whose tag is the kind of event).
    """

    kind: str
    tag: str
    unit: str | None
    count: int


@dataclass(frozen=True, eq=False)
class Scalars:
    """The numbers of one tag, in the order in which they were recorded.

    ``values`` is a float64 array, or int64 when every value is an integer. ``times`` is datetime64[ns] in UTC.
    """

    tag: str
    unit: str | None
    times: npt.NDArray[np.datetime64]
    values: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def seconds(self) -> npt.NDArray[np.float64]:
        """The times in seconds since 1970 UTC."""
        return _seconds(self.times)

    def to_pandas(self) -> Any:
        """Return a pandas Series over time, named after the tag; its unit is in ``attrs``. Needs pandas."""
        pd = extra("pandas", "a table of scalars")
        series = pd.Series(self.values, index=pd.DatetimeIndex(self.times, name="time", tz="UTC"), name=self.tag)
        series.attrs["unit"] = self.unit
        return series

    def to_xarray(self) -> Any:
        """Return an xarray DataArray over time, named after the tag; its unit is in ``attrs``. Needs xarray."""
        xr = extra("xarray", "a labelled array")
        return xr.DataArray(
            self.values, dims=["time"], coords={"time": self.times}, name=self.tag, attrs={"units": self.unit or ""}
        )


@dataclass(frozen=True)
class Location:
    """Where an array lies on disk."""

    time_ns: int
    file: str
    offset: int
    size: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Arrays(Sequence["npt.NDArray[Any]"]):
    """The arrays of one tag, in the order in which they were recorded; each is read from disk when it is used."""

    tag: str
    unit: str | None
    times: npt.NDArray[np.datetime64]
    _directory: Path = field(repr=False)
    _locations: Sequence[Location] = field(repr=False)

    def __len__(self) -> int:
        return len(self._locations)

    @property
    def seconds(self) -> npt.NDArray[np.float64]:
        """The times in seconds since 1970 UTC."""
        return _seconds(self.times)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each array, known without reading it."""
        return [location.shape for location in self._locations]

    @property
    def uniform(self) -> bool:
        """Whether all arrays are of one shape and one type, known without reading them."""
        return len({(location.shape, location.dtype) for location in self._locations}) <= 1

    @overload
    def __getitem__(self, index: int) -> npt.NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Arrays: ...
    def __getitem__(self, index: int | slice) -> npt.NDArray[Any] | Arrays:
        if isinstance(index, slice):
            return Arrays(self.tag, self.unit, self.times[index], self._directory, self._locations[index])
        location = self._locations[index]
        return read(self._directory / location.file, location.offset, location.size)

    def stack(self) -> npt.NDArray[Any]:
        """Return all as one array, the records along its first axis; ValueError if their shapes differ."""
        import numpy as np

        return np.stack(list(self)) if len(self) else np.empty((0,))

    def to_xarray(self) -> Any:
        """Return an xarray DataArray with time as its first dimension; its unit is in ``attrs``. Needs xarray."""
        xr = extra("xarray", "a labelled array")
        data = self.stack()
        dimensions = ["time", *(f"axis_{number}" for number in range(1, data.ndim))]
        return xr.DataArray(
            data, dims=dimensions, coords={"time": self.times}, name=self.tag, attrs={"units": self.unit or ""}
        )


@dataclass(frozen=True, eq=False)
class Curve:
    """One curve; ``time_ns`` counts nanoseconds since 1970 UTC."""

    tag: str
    time_ns: int
    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    x_unit: str | None
    y_unit: str | None
    x_label: str
    y_label: str


@dataclass(frozen=True)
class Figure:
    """One picture, the bytes of a PNG file."""

    tag: str
    time_ns: int
    png: bytes = field(repr=False)


@dataclass(frozen=True)
class Fits:
    """One FITS file."""

    tag: str
    time_ns: int
    data: bytes = field(repr=False)

    def open(self) -> Any:
        """Return it as astropy's HDUList, read whole. Needs astropy."""
        return extra("astropy.io.fits", "reading FITS").open(io.BytesIO(self.data), lazy_load_hdus=False)


@dataclass(frozen=True)
class Value:
    """One value that JSON can express."""

    tag: str
    time_ns: int
    value: Any


@dataclass(frozen=True)
class Event:
    """Something that happened to the run, such as a mutex that was broken or a safety check that tripped."""

    kind: str
    time_ns: int
    text: str
    facts: dict[str, Any]


def _seconds(times: npt.NDArray[np.datetime64]) -> npt.NDArray[np.float64]:
    import numpy as np

    seconds: npt.NDArray[np.float64] = times.astype(np.int64) / 1e9
    return seconds
