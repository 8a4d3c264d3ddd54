"""Arrays: many numbers in one reply, such as a waveform, a spectrum or a frame."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from catkit_devices._device.values import as_number, decimal
from catkit_devices.readings import measured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

__all__ = ["Array"]


class Array:
    """The type of a quantity that is many numbers: ``Measurement("CURV?", type=Array(">i2", shape=1000), ...)``.

    Args:
        dtype: how the numbers are sent: ``"text"`` with commas between them, or the numpy type of each number in a
            binary block (IEEE 488.2, 8.7.9), with its byte order: ``">i2"`` for 16 bits with sign, most significant
            byte first (what SCPI calls ``FORMat:BORDer NORMal``), ``"<f4"`` for 32-bit numbers, least significant byte
            first, ``"u1"`` for bytes.
        shape: the number of elements in each dimension; None for one dimension of any length.
        scale: the factor by which each number is multiplied; or a function of the device that returns it, and may ask
            the instrument.
        offset: the number that is added after that, or a function that returns it. Without ``scale`` and ``offset``,
            the numbers are those that were sent.
    """

    several = True
    __name__ = "array"

    def __init__(
        self,
        dtype: str = "text",
        *,
        shape: int | Sequence[int] | None = None,
        scale: float | Callable[[Any], float] = 1.0,
        offset: float | Callable[[Any], float] = 0.0,
    ) -> None:
        found = re.fullmatch(r"([<>|]?)([iufb])(\d+)", dtype)
        if dtype != "text" and (found is None or int(found[3]) not in (1, 2, 4, 8)):
            raise TypeError(f"the type of numbers must be 'text', or such as '>i2', '<f4' or 'u1', got {dtype!r}")
        if found is not None and int(found[3]) > 1 and found[1] not in ("<", ">"):
            raise TypeError(
                f"the type {dtype!r} of {found[3]} bytes needs a byte order: '>{dtype}' (most significant byte first) "
                f"or '<{dtype}'"
            )
        self.dtype = dtype
        self.binary = found is not None
        self.shape = None if shape is None else (shape,) if isinstance(shape, int) else tuple(shape)
        self._scale = scale
        self._offset = offset

    def __call__(self, reply: str | bytes) -> npt.NDArray[Any]:
        """Return the numbers of a reply, as they were sent.

        Raises:
            ValueError: the reply does not contain numbers, or not as many as expected.
        """
        import numpy as np

        found: npt.NDArray[Any]
        if isinstance(reply, str):
            found = measured(np.array(_numbers(reply), dtype=float))
        else:
            kind: np.dtype[Any] = np.dtype(self.dtype)
            if len(reply) % kind.itemsize:
                raise ValueError(f"numbers of {kind.itemsize} bytes were expected, got {len(reply)} bytes")
            found = np.frombuffer(reply, kind).astype(kind.newbyteorder("="))
        if self.shape is None:
            return found
        if math.prod(self.shape) != found.size:
            raise ValueError(f"{math.prod(self.shape)} numbers were expected, got {found.size}")
        return found.reshape(self.shape)

    def scaled(self, sent: npt.NDArray[Any], device: Any) -> npt.NDArray[Any]:
        """Return the values for the numbers that a device has sent."""
        scale, offset = (one(device) if callable(one) else one for one in (self._scale, self._offset))
        return sent if (scale, offset) == (1.0, 0.0) else sent * scale + offset


def _numbers(reply: str) -> list[float]:
    # Some instruments send the text in a block.
    head = re.match(r"\s*#([1-9])", reply)
    if head is not None and head.end() + int(head[1]) < len(reply):
        reply = reply[head.end() + int(head[1]) :]
    found = []
    for part in reply.strip().rstrip(",").split(","):
        number = as_number(decimal(part.strip()))
        if number is None:
            raise ValueError(f"numbers with commas between them were expected, got {part.strip()[:80]!r}")
        found.append(float(number))
    return found
