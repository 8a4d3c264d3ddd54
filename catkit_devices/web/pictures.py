"""Frames of cameras as PNG pictures, which every browser shows and every language reads."""

from __future__ import annotations

import math
import struct
import zlib
from typing import TYPE_CHECKING, Any

from catkit_devices.web.problems import Problem

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Picture", "picture_of", "png"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""The first bytes of every PNG file (W3C PNG, 5.2)."""
_GREY, _COLOUR = 0, 2
"""Colour types of a PNG (W3C PNG, 11.2.1)."""
_LEVEL = 1
"""How hard zlib tries, 1 to 9: at 1 a picture of a megapixel takes some 20 ms, at 6 five times as long."""


class Picture:
    """A frame as PNG.

    Attributes:
        png: the bytes of the file.
        low: the value that is black.
        high: the value that is white.
        exact: whether the picture has the values themselves; else they are scaled to 0 to 255.
        step: every how many-th pixel it has.
    """

    def __init__(self, png: bytes, low: float, high: float, step: int, *, exact: bool) -> None:
        self.png, self.low, self.high, self.step, self.exact = png, low, high, step, exact


def picture_of(
    frame: np.ndarray[Any, Any], low: float | None = None, high: float | None = None, most: int | None = None
) -> Picture:
    """Return a frame as PNG: grey, or in colour if its last axis has three planes of 8 bits.

    Values of 8 and 16 bits without sign are kept as they are, unless a scale is given. Others are scaled to 8 bits.

    Args:
        frame: rows and columns, and perhaps planes.
        low: the value that is to be black; by default the smallest one of what is scaled.
        high: the value that is to be white; by default the largest one.
        most: pixels on the longer side that the picture may have. Of a larger frame every n-th pixel is taken.

    Raises:
        Problem: it is no picture.
    """
    import numpy as np

    colour = frame.ndim == 3 and frame.shape[2] == 3 and frame.dtype == np.uint8
    if (frame.ndim != 2 and not colour) or 0 in frame.shape or frame.dtype.kind not in "biuf":
        raise Problem(
            422, f"expected a frame with rows and columns of numbers, got shape {frame.shape} and type {frame.dtype}: "
            "ask for it as raw"
        )  # fmt: skip
    step = 1 if most is None else max(1, math.ceil(max(frame.shape[:2]) / most))
    seen = frame[::step, ::step]
    if low is None and high is None and seen.dtype.kind == "u" and seen.dtype.itemsize <= 2:
        full = float(np.iinfo(seen.dtype).max)
        return Picture(_encoded(seen, colour=colour), 0.0, full, step, exact=True)
    if colour:
        raise Problem(422, "a frame in colour has no scale: leave out low and high")
    values = seen.astype(np.float64)
    finite = values[np.isfinite(values)]
    black = low if low is not None else float(finite.min()) if finite.size else 0.0
    white = high if high is not None else float(finite.max()) if finite.size else 1.0
    if white <= black:
        white = black + 1.0
    scaled = np.nan_to_num((values - black) * (255.0 / (white - black)), nan=0.0, posinf=255.0, neginf=0.0)
    return Picture(_encoded(scaled.clip(0, 255).astype(np.uint8), colour=False), black, white, step, exact=False)


def _encoded(pixels: np.ndarray[Any, Any], *, colour: bool) -> bytes:
    import numpy as np

    rows, columns = pixels.shape[:2]
    bits = 8 * pixels.dtype.itemsize
    # Numbers of 16 bits are written with the larger byte first; each row begins with 0: no filter.
    lines = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(rows, -1)
    data = np.zeros((rows, lines.shape[1] + 1), np.uint8)
    data[:, 1:] = lines
    head = struct.pack(">IIBBBBB", columns, rows, bits, _COLOUR if colour else _GREY, 0, 0, 0)
    return png((b"IHDR", head), (b"IDAT", zlib.compress(data.tobytes(), _LEVEL)))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG file of these chunks, each a name and its data; the one at the end is added (W3C PNG, 5)."""
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in (*chunks, (b"IEND", b""))
    )
