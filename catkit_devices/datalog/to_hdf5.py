r"""A whole run as HDF5.

Every tag is a group, ``/scalars/TAG``, ``/arrays/TAG``, ``/curves/TAG``, ``/figures/TAG``, ``/fits/TAG`` or
``/values/TAG`` (slashes in a tag make groups in groups), with ``time``, in nanoseconds since 1970 UTC, and ``value``,
whose attribute ``unit`` says what it is in. ``value`` is a dataset for scalars, for arrays of one shape and type (the
records along its first axis) and for values (as JSON). It is a group of ``0``, ``1``, ... for other arrays, for curves
(each with ``x`` and ``y``) and for pictures and FITS files (their bytes). ``/events`` has ``time``, ``kind``, ``text``
and ``facts``; ``/run`` has ``information``, ``configuration`` and ``log``.

HDF5 cannot hold a text with a NUL, or with half of a surrogate pair (a file name in another encoding). Such a text is
written as JSON (``"caf\udce9.fits"``), and an attribute says so: ``json`` of a dataset, or of a group of datasets,
means that all its texts are JSON; ``outcome_json`` means that the attribute ``outcome`` is JSON.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from catkit_devices.datalog.extras import extra
from catkit_devices.datalog.values import is_plain_text, to_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import RawIOBase
    from pathlib import Path

    import numpy.typing as npt

    from catkit_devices.datalog.reader import RunReader
    from catkit_devices.datalog.records import Tag

__all__ = ["write"]

_TIME_UNIT = "nanoseconds since 1970-01-01 UTC"
"""Unit of all times in the file."""
_OURS = ("time", "value", "", ".", "..")
"""Names that a tag's group cannot have: our datasets are called so, or HDF5 gives them another meaning."""


def write(reader: RunReader, tags: list[Tag], file: Path) -> list[str]:
    """Write everything that was logged under the tags; return what was left out, as sentences."""
    h5py = extra("h5py", "export to HDF5")
    with file.open("w+b", buffering=0) as raw:
        stream = _Stream(raw)
        with h5py.File(stream, "w", track_order=True) as root:
            left_out = _Writer(h5py, reader, root, stream.check).write(tags)
        stream.check()  # closing the file has written too
        return left_out


class _Stream:
    """A file in which no write fails, for the HDF5 library.

    Where a write fails, for example on a full disk, that library crashes the process (segmentation fault). So what
    cannot be written is kept in memory here, and :meth:`check` raises the error.
    """

    def __init__(self, raw: RawIOBase) -> None:
        self._raw = raw
        self._position = 0
        self._error: OSError | None = None
        self._kept: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise the OSError of the first write that failed."""
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte, counted from the beginning or the end."""
        end = 0
        if whence == os.SEEK_END:
            end = max([self._raw.seek(0, os.SEEK_END), *(start + len(data) for start, data in self._kept)])
        self._position = end + offset
        return self._position

    def tell(self) -> int:
        """Return the position in the file."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Read ``size`` bytes. h5py takes an object with this method for a file, and uses :meth:`readinto`."""
        place = bytearray(max(size, 0))
        self.readinto(place)
        return bytes(place)

    def readinto(self, buffer: Any) -> int:
        """Read, including what is kept in memory; bytes that were never written are zero."""
        place = memoryview(buffer).cast("B")
        self._raw.seek(self._position)
        data = (self._raw.read(len(place)) or b"").ljust(len(place), b"\0")
        place[:] = data
        for start, kept in self._kept:
            first, last = max(start, self._position), min(start + len(kept), self._position + len(place))
            if first < last:
                place[first - self._position : last - self._position] = kept[first - start : last - start]
        self._position += len(place)
        return len(place)

    def write(self, buffer: Any) -> int:
        """Write; keep in memory what cannot be written."""
        data = memoryview(buffer).cast("B")
        size, start = len(data), self._position
        if self._error is None:
            try:
                self._raw.seek(start)
                while True:
                    data = data[self._raw.write(data) or 0 :]
                    if not data:
                        break
            except OSError as error:
                self._error = error
        if self._error is not None:
            self._kept.append((start + size - len(data), bytes(data)))
        self._position = start + size
        return size

    def truncate(self, size: int) -> int:
        """Make the file ``size`` bytes long."""
        if self._error is None:
            try:
                self._raw.truncate(size)
            except OSError as error:
                self._error = error
        return size

    def flush(self) -> None:
        """Do nothing: every write goes to the file at once."""


class _Writer:
    def __init__(self, h5py: Any, reader: RunReader, root: Any, check: Callable[[], None]) -> None:
        self._check = check
        self._text = h5py.string_dtype()
        self._type_of = h5py.h5t.py_create
        self._reader = reader
        self._root = root

    def write(self, tags: list[Tag]) -> list[str]:
        information = self._reader.information
        self._root.attrs["name"] = information["name"]
        self._root.attrs["started"] = information["started"]
        outcome = (self._reader.outcome or {}).get("outcome", "")
        self._root.attrs["outcome"] = outcome if is_plain_text(outcome) else json.dumps(outcome)
        if not is_plain_text(outcome):
            self._root.attrs["outcome_json"] = True
        run = self._root.create_group("run")
        run["information"] = to_json(information, "information")
        run["configuration"] = to_json(self._reader.configuration, "configuration")
        run["log"] = self._reader.log_text().replace("\0", "\N{REPLACEMENT CHARACTER}")
        left_out = []
        for tag in tags:
            try:
                getattr(self, f"_{tag.kind}")(tag)
            except (TypeError, ValueError) as error:  # h5py raises these for data that HDF5 cannot hold
                left_out.append(f"{tag.kind} {tag.tag}: {error}")
            self._check()
        self._events()
        return left_out

    def _group(self, tag: Tag, place: str) -> Any:
        group = self._root.require_group(place).require_group(_path(tag.tag))
        group.attrs["tag"] = tag.tag
        return group

    def _times(self, group: Any, times: npt.NDArray[Any]) -> None:
        group["time"] = times.astype("datetime64[ns]").astype("int64")
        group["time"].attrs["unit"] = _TIME_UNIT

    def _scalar(self, tag: Tag) -> None:
        column = self._reader.scalars(tag.tag)
        group = self._group(tag, "scalars")
        self._times(group, column.times)
        group["value"] = column.values
        group["value"].attrs["unit"] = column.unit or ""

    def _array(self, tag: Tag) -> None:
        arrays = self._reader.arrays(tag.tag)
        for array in arrays[:1] if arrays.uniform else arrays:
            self._storable(array)  # raises before the group is made, which would stay incomplete
        group = self._group(tag, "arrays")
        self._times(group, arrays.times)
        as_json = any(_needs_json(array) for array in arrays)
        if arrays.uniform:
            first, original = self._storable(arrays[0], as_json)
            shape = first.shape
            chunks = (1, *shape) if shape and first.size else None
            value = group.create_dataset("value", (len(arrays), *shape), first.dtype, chunks=chunks)
            for number, array in enumerate(arrays):
                value[number] = self._storable(array, as_json)[0]
                self._check()
            value.attrs["numpy_type"] = original
        else:
            value = group.create_group("value", track_order=True)
            for number, array in enumerate(arrays):
                storable, original = self._storable(array, as_json)
                value.create_dataset(str(number), data=storable, dtype=storable.dtype)
                value[str(number)].attrs["numpy_type"] = original
                self._check()
        value.attrs["unit"] = arrays.unit or ""
        if as_json:
            value.attrs["json"] = True

    def _storable(self, array: npt.NDArray[Any], as_json: bool = False) -> tuple[npt.NDArray[Any], str]:
        """Return the array in a type that HDF5 has, and the name of its own type; TypeError if there is none."""
        import numpy as np

        original = str(array.dtype)
        if array.dtype.kind in "mM":
            return array.astype("int64"), original
        if array.dtype.kind == "U":
            if as_json:
                texts = np.empty(array.size, self._text)
                texts[:] = [json.dumps(text) for text in array.ravel().tolist()]
                return texts.reshape(array.shape), original
            return array.astype(self._text), original
        self._type_of(array.dtype, logical=True)
        return array, original

    def _curve(self, tag: Tag) -> None:
        curves = self._reader.curves(tag.tag)
        group = self._numbered(tag, "curves", [curve.time_ns for curve in curves])
        for number, curve in enumerate(curves):
            one = group.create_group(str(number))
            for axis, values, unit, label in (
                ("x", curve.x, curve.x_unit, curve.x_label),
                ("y", curve.y, curve.y_unit, curve.y_label),
            ):
                as_json = _needs_json(values)
                one[axis] = self._storable(values, as_json)[0]
                if as_json:
                    one[axis].attrs["json"] = True
                one[axis].attrs["unit"] = unit or ""
                one[axis].attrs["label"] = label

    def _figure(self, tag: Tag) -> None:
        self._files(tag, "figures", [(figure.time_ns, figure.png) for figure in self._reader.figures(tag.tag)])

    def _fits(self, tag: Tag) -> None:
        self._files(tag, "fits", [(fits.time_ns, fits.data) for fits in self._reader.fits(tag.tag)])

    def _files(self, tag: Tag, place: str, files: list[tuple[int, bytes]]) -> None:
        import numpy as np

        group = self._numbered(tag, place, [time_ns for time_ns, _ in files])
        for number, (_, data) in enumerate(files):
            group[str(number)] = np.frombuffer(data, dtype=np.uint8)
            self._check()

    def _numbered(self, tag: Tag, place: str, times: list[int]) -> Any:
        """Return the group for the numbered records of a tag."""
        import numpy as np

        group = self._group(tag, place)
        self._times(group, np.array(times, dtype="datetime64[ns]"))
        return group.create_group("value", track_order=True)

    def _value(self, tag: Tag) -> None:
        import numpy as np

        values = self._reader.values(tag.tag)
        group = self._group(tag, "values")
        self._times(group, np.array([value.time_ns for value in values], dtype="datetime64[ns]"))
        texts = [to_json(value.value, tag.tag) for value in values]
        group.create_dataset("value", data=texts, dtype=self._text)

    def _event(self, tag: Tag) -> None:
        """Do nothing: events of all kinds are written together, by ``_events``."""

    def _events(self) -> None:
        import numpy as np

        events = self._reader.events()
        group = self._root.create_group("events")
        self._times(group, np.array([event.time_ns for event in events], dtype="datetime64[ns]"))
        for name, texts in (
            ("kind", [event.kind for event in events]),
            ("text", [event.text for event in events]),
            ("facts", [to_json(event.facts, "event") for event in events]),
        ):
            as_json = not all(map(is_plain_text, texts))
            data = [json.dumps(text) for text in texts] if as_json else texts
            group.create_dataset(name, (len(data),), data=data or None, dtype=self._text)
            if as_json:
                group[name].attrs["json"] = True


def _needs_json(array: npt.NDArray[Any]) -> bool:
    return array.dtype.kind == "U" and not all(map(is_plain_text, array.ravel().tolist()))


def _path(tag: str) -> str:
    """Return the path of a tag's group; a part of it that is one of our own names gets its first letter escaped."""
    parts = tag.replace("%", "%25").replace("\0", "%00").split("/")
    return "/".join(
        part if part not in _OURS else (f"%{ord(part[0]):02X}{part[1:]}" if part else "%") for part in parts
    )
