"""Turns curves, pictures and FITS files, in any of the forms that an experiment may have, into the bytes to store."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices.datalog.arrays import encode
from catkit_devices.datalog.values import plain_array, refuse_unit
from catkit_devices.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["curve", "fits_file", "picture"]


def curve(tag: str, x: npt.ArrayLike, y: npt.ArrayLike, x_unit: str | None, y_unit: str | None) -> bytes:
    """Return two sequences of the same length as two consecutive ``.npy`` records.

    Raises:
        DataError: their lengths differ, they hold Python objects, or one has a unit and holds anything but numbers.
    """
    xs, ys = plain_array(x, f"curve {tag!r}: x"), plain_array(y, f"curve {tag!r}: y")
    if xs.ndim != 1 or xs.shape != ys.shape:
        raise DataError(f"curve {tag!r}: x and y must have the same length, got shapes {xs.shape} and {ys.shape}")
    refuse_unit(xs, x_unit, f"curve {tag!r}: x")
    refuse_unit(ys, y_unit, f"curve {tag!r}: y")
    return encode(xs) + encode(ys)


def picture(tag: str, figure: Any) -> bytes:
    """Return a matplotlib figure drawn as PNG, or the bytes of a PNG file unchanged.

    Raises:
        DataError: it is neither.
    """
    if isinstance(figure, bytes | bytearray):
        data = bytes(figure)
    elif callable(getattr(figure, "savefig", None)):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        data = buffer.getvalue()
    else:
        data = b""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise DataError(f"figure {tag!r}: expected a matplotlib figure or the bytes of a PNG file")
    return data


def fits_file(tag: str, fits: Any) -> bytes:
    """Return the bytes of a FITS file, given as bytes, as a path, or as an astropy HDU or list of HDUs.

    Raises:
        DataError: it is none of these, or cannot be read.
    """
    if isinstance(fits, bytes | bytearray):
        data = bytes(fits)
    elif isinstance(fits, str | Path):
        try:
            data = Path(fits).read_bytes()
        except (OSError, ValueError) as error:  # no name that a file can have
            raise DataError(f"FITS {tag!r}: {str(fits)!r} cannot be read: {error}") from error
    elif callable(getattr(fits, "writeto", None)):
        buffer = io.BytesIO()
        fits.writeto(buffer)
        data = buffer.getvalue()
    else:
        data = b""
    if not data.startswith(b"SIMPLE  ="):
        raise DataError(f"FITS {tag!r}: expected a FITS file, but the data does not begin with 'SIMPLE  ='")
    return data
