"""Arrays on disk: a file of consecutive ``.npy`` records, each of which ``numpy.load`` can read by itself."""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

__all__ = ["ArrayFile", "decode", "encode", "read"]


class ArrayFile:
    """Appends arrays to a file of its own; no other process writes into it.

    A record is counted only after it was written completely. If writing fails half-way (full disk, interrupt), the next
    record overwrites what was written, so the file is always a sequence of complete records.

    Args:
        directory: where the file is made, as ``arrays-<number>.npy`` with the first number that is free.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = -1
        number = 0
        while self._descriptor < 0:
            number += 1
            self.name = f"arrays-{number:04d}.npy"
            with contextlib.suppress(FileExistsError):
                self._descriptor = os.open(
                    directory / self.name,
                    os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0),
                    0o666,
                )
        self._end = 0
        self._headers: dict[tuple[Any, tuple[int, ...]], bytes] = {}

    def append(self, array: npt.NDArray[Any]) -> tuple[int, int]:
        """Write one array; when this returns, its bytes survive the death of this process.

        Returns:
            Its offset and its size in the file, in bytes.

        Raises:
            OSError: it could not be written, for example because the disk is full.
            DataError: it holds Python objects, which cannot be stored as bytes.
        """
        import numpy as np

        array = np.ascontiguousarray(array).reshape(array.shape)
        header = self._header(array)
        offset = self._end
        self._write((header, array.reshape(-1).view(np.uint8).data), offset)
        size = len(header) + array.nbytes
        self._end = offset + size
        return offset, size

    def close(self) -> None:
        """Remove what a failed write may have left after the last record, and close the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            if os.fstat(descriptor).st_size > self._end:
                os.ftruncate(descriptor, self._end)
        finally:
            os.close(descriptor)

    def _header(self, array: npt.NDArray[Any]) -> bytes:
        key = (array.dtype, array.shape)
        header = self._headers.get(key)
        if header is None:
            header = _header(array)
            if len(self._headers) < 64:
                self._headers[key] = header
        return header

    def _write(self, parts: tuple[bytes | memoryview, ...], offset: int) -> None:
        if hasattr(os, "pwritev"):
            views = [memoryview(part) for part in parts if len(part)]
            while views:
                written = os.pwritev(self._descriptor, views, offset)
                offset += written
                while views and written >= len(views[0]):
                    written -= len(views.pop(0))
                if views and written:
                    views[0] = views[0][written:]
        else:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            for part in parts:
                view = memoryview(part)
                while view:
                    view = view[os.write(self._descriptor, view[: 1 << 30]) :]


def read(path: Path, offset: int, size: int) -> npt.NDArray[Any]:
    """Read the array whose record lies at ``offset`` of a file.

    Raises:
        DataError: the file is missing, or no whole record of that size lies there.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            array = _load(file, size)
            if file.tell() - offset != size:
                raise DataError(f"{path}: the record at byte {offset} is not the {size} bytes long that it should be")
            return array
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: no array can be read at byte {offset}: {error}") from error


def encode(array: npt.NDArray[Any]) -> bytes:
    """Return an array as the bytes of one ``.npy`` record."""
    return _header(array) + array.tobytes()


def decode(data: bytes) -> list[npt.NDArray[Any]]:
    """Return the arrays of consecutive ``.npy`` records."""
    file = io.BytesIO(data)
    arrays = []
    while file.tell() < len(data):
        arrays.append(_load(file, len(data)))
    return arrays


def _load(file: Any, size: int) -> npt.NDArray[Any]:
    """Read one record of at most ``size`` bytes; its header may be long: a type may have hundreds of fields."""
    import numpy as np

    array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False, max_header_size=max(size, 1))
    return array


def _header(array: npt.NDArray[np.generic]) -> bytes:
    import numpy as np

    if array.dtype.hasobject:
        raise DataError(f"an array of Python objects ({array.dtype}) cannot be stored: convert it, or use log()")
    file = io.BytesIO()
    np.lib.format.write_array_header_2_0(  # version 2: no limit on the size of a structured type's description
        file,
        {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape},
    )
    return file.getvalue()
