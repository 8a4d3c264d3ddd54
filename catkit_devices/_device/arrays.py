"""Arrays: many numbers in one reply, such as a waveform, a spectrum or a frame."""

from __future__ import annotations

import math
import re
import reprlib
from typing import TYPE_CHECKING, Any

from catkit_devices._device.values import as_number, decimal
from catkit_devices.readings import carried_unit, is_masked, measured, missing_in, real_number, without_stand_ins
from catkit_devices.units import magnitude, quantity_of, wide_enough

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
            found = measured(np.frombuffer(reply, kind).astype(kind.newbyteorder("=")))
        if self.shape is None:
            return found
        if math.prod(self.shape) != found.size:
            raise ValueError(f"{math.prod(self.shape)} numbers were expected, got {found.size}")
        return found.reshape(self.shape)

    def scaled(self, sent: npt.NDArray[Any], device: Any) -> npt.NDArray[Any]:
        """Return the values for the numbers that a device has sent."""
        scale, offset = (_factor(one(device) if callable(one) else one) for one in (self._scale, self._offset))
        # As floats: 30000 times 2 does not fit in 16 bits.
        return sent if (scale, offset) == (1.0, 0.0) else wide_enough(sent) * scale + offset

    def array(self, value: Any, unit: str | None, *, finite: bool) -> npt.NDArray[Any]:
        """Return an array that a function has returned, or that a user has given to be set.

        Numbers that stand for infinity or NaN become that. A quantity is converted. Numbers are of the declared type,
        or floats if that is "text" or if what is sent is scaled.

        Args:
            value: an array, or lists of numbers.
            unit: of the quantity; None if it has none.
            finite: whether each element must be a measurement.

        Raises:
            ValueError: it is no array of numbers of the declared shape, in another unit, or masked; or an element does
                not fit in the declared type.
        """
        import numpy as np

        if is_masked(value):
            raise ValueError(f"must have no masked elements, got {reprlib.repr(value)}")
        if (given := quantity_of(value)) is not None:
            if finite:
                _refuse_missing(given.magnitude)  # before it is converted
            value = magnitude(given, unit)
        try:
            found = np.asarray(_numbers_in(value))
        except (ValueError, TypeError):  # lists of different lengths
            found = np.asarray(None)
        if found.dtype.kind not in "iuf" or not found.ndim:
            raise ValueError(f"must be an array of numbers, got {reprlib.repr(value)}")
        if found.shape != self.shape and (self.shape is not None or found.ndim != 1):
            wanted = "one dimension" if self.shape is None else f"the shape {self.shape}"
            raise ValueError(f"must be an array of {wanted}, got one of the shape {found.shape}")
        if finite:
            _refuse_missing(found)
        found = measured(found)
        kind = np.dtype(self.dtype if self.binary and (self._scale, self._offset) == (1.0, 0.0) else float)
        with np.errstate(all="ignore"):
            made: npt.NDArray[Any] = found.astype(kind.newbyteorder("="), copy=False)
            wrong = made != found if kind.kind in "iu" else np.isinf(made) & np.isfinite(found)
        if wrong.any():
            raise ValueError(f"must be an array of numbers that {kind.name} can hold, got {found[wrong][0]:g}")
        return made


def _factor(value: Any) -> float:
    number = real_number(value)
    if number is None:
        raise ValueError(f"scale and offset must be numbers, got {value!r}")
    return without_stand_ins(number)


def _refuse_missing(value: Any) -> None:
    if (missing := missing_in(value)) is not None:
        raise ValueError(f"must hold finite numbers only, got {reprlib.repr(value)}, in which there is {missing}")


def _numbers_in(value: Any) -> Any:
    """Return a value; raise TypeError if it is a list in which there are truth values, or numbers with their own unit.

    Numpy would make plain numbers of these.
    """
    if isinstance(value, list | tuple):
        if not {float, int}.issuperset(map(type, value)):  # a list of a million numbers has few types
            for one in value:
                _numbers_in(one)
    elif isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool" or carried_unit(value) is not None:
        raise TypeError
    return value


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
