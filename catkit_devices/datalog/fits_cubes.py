"""FITS images that are written one array after the other, so that the frames of a run need not fit into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    import numpy.typing as npt

__all__ = ["ImageType", "image_type", "write_cube"]

_BLOCK = 2880
"""Bytes of a block; a FITS file consists of whole blocks (FITS standard 4.0, 3.1)."""


class ImageType(NamedTuple):
    """How FITS stores numbers of a type: BITPIX, and an offset (BZERO) for types that FITS does not have."""

    bitpix: int
    offset: int = 0


_TYPES = {
    "b1": ImageType(8), "u1": ImageType(8), "i2": ImageType(16), "i4": ImageType(32), "i8": ImageType(64),
    "f2": ImageType(-32), "f4": ImageType(-32), "f8": ImageType(-64),
    "i1": ImageType(8, -(2**7)), "u2": ImageType(16, 2**15), "u4": ImageType(32, 2**31), "u8": ImageType(64, 2**63),
}  # fmt: skip
_STORED = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
"""NumPy's type for the numbers of each BITPIX (FITS standard 4.0, 4.4.1)."""


def image_type(dtype: np.dtype[Any]) -> ImageType | None:
    """Return how FITS can store numbers of a type exactly, or None if it cannot."""
    return None if dtype.names else _TYPES.get(f"{dtype.kind}{dtype.itemsize}")


def write_cube(
    fits: Any,
    stream: Any,
    arrays: Iterable[npt.NDArray[Any]],
    kind: ImageType,
    shape: tuple[int, ...],
    cards: Mapping[str, Any],
) -> None:
    """Append an image extension to a FITS file.

    Args:
        fits: ``astropy.io.fits``.
        stream: the file, open for writing bytes, at the end of an extension.
        arrays: the arrays that follow each other along the image's first axis; all of one type.
        kind: how FITS stores their numbers.
        shape: the shape of the whole image.
        cards: more cards for its header.
    """
    header = fits.ImageHDU().header
    header["BITPIX"] = kind.bitpix
    header["NAXIS"] = len(shape)
    after = "NAXIS"
    for number, length in enumerate(reversed(shape), start=1):
        header.set(f"NAXIS{number}", length, after=after)
        after = f"NAXIS{number}"
    if kind.offset:
        header["BSCALE"], header["BZERO"] = 1, kind.offset
    for card, value in cards.items():
        header[card] = value
    stream.write(header.tostring().encode("ascii"))
    size = 0
    for array in arrays:
        # As one row: from an array without dimensions, numpy makes a plain number, in the byte order of this machine.
        data = _stored(array.reshape(-1), kind).tobytes()
        stream.write(data)
        size += len(data)
    stream.write(b"\0" * (-size % _BLOCK))


def _stored(array: npt.NDArray[Any], kind: ImageType) -> npt.NDArray[Any]:
    stored = _STORED[kind.bitpix]
    if not kind.offset:
        plain: npt.NDArray[Any] = array.astype(stored)
        return plain
    # To add or subtract half of the range is the same as to flip the highest bit, and this never overflows.
    bits = array.astype(f"u{array.dtype.itemsize}", copy=False)
    flipped = bits ^ bits.dtype.type(1 << (8 * array.dtype.itemsize - 1))
    shifted: npt.NDArray[Any] = flipped.view(f"{'u' if kind.bitpix == 8 else 'i'}{array.dtype.itemsize}")
    return shifted.astype(stored)
