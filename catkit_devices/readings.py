"""What a number that was read says: something measured, or that there is no measurement.

This is the one place that decides it. NaN and infinities are no measurement, and neither is what stands for them in the
replies of instruments: 9.9E37 is infinity, -9.9E37 negative infinity and 9.91E37 not a number (SCPI-99 volume 1,
7.2.1.4 and 7.2.1.5). An instrument sends them where it has an overload, no sensor, or nothing yet.
"""

from __future__ import annotations

import datetime as dt
import inspect
import math
import numbers
from collections import UserString
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from catkit_devices.lazy import imported

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "carried_unit",
    "is_masked",
    "measured",
    "missing_in",
    "no_measurement",
    "real_number",
    "times_as_text",
    "without_stand_ins",
]

_INFINITY = 9.9e37
"""What stands for infinity (SCPI-99 volume 1, 7.2.1.4)."""
_NOT_A_NUMBER = 9.91e37
"""What stands for NaN (SCPI-99 volume 1, 7.2.1.5)."""
_ROUNDING = 1e-6
"""By how much a stand-in may differ, as a fraction: 32-bit numbers, in which many instruments send it, have 6e-8."""


def no_measurement(number: float) -> bool:
    """Return whether a number says that there is no measurement.

    Everything from 9.9E37 on does: there is no instrument that measures so much, and some send 1E38 for an overload.
    """
    return not abs(number) < _INFINITY * (1 - _ROUNDING)  # so that NaN is none


def without_stand_ins(number: float) -> float:
    """Return a number with NaN and infinity in the place of what stands for them."""
    if math.isclose(abs(number), _NOT_A_NUMBER, rel_tol=_ROUNDING):
        return math.nan
    return math.copysign(math.inf, number) if number == number and no_measurement(number) else number


def measured(value: Any) -> Any:
    """Return a value with NaN and infinity in the place of what stands for them, also inside of groups.

    Looked into are tuples, lists, mappings and arrays; what holds no stand-in is returned itself.
    """
    number = real_number(value)
    if number is not None:
        return without_stand_ins(number) if no_measurement(number) else value
    if missing_in(value) is None:
        return value
    if getattr(value, "dtype", None) is not None:
        return _measured_array(value)
    if type(value) is dict:
        return {key: measured(one) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named one
        return type(value)(*map(measured, value))
    return type(value)(map(measured, value)) if type(value) in (tuple, list) else value


def _measured_array(array: Any) -> Any:
    import numpy as np

    if array.dtype.kind != "f" or array.dtype.itemsize < 4:  # 16 bits cannot say a stand-in
        return array
    found = array.copy()  # it may be masked, which it stays
    plain = np.asarray(found)
    sizes = np.abs(plain)
    nan = np.isclose(sizes, _NOT_A_NUMBER, rtol=_ROUNDING, atol=0)
    infinite = (sizes >= _INFINITY * (1 - _ROUNDING)) & ~nan
    plain[infinite] = np.copysign(np.inf, plain[infinite])
    plain[nan] = np.nan
    return found


def real_number(value: Any) -> float | None:
    """Return a value that is one real number as a float, None for any other.

    Numbers of numpy, arrays without dimensions and decimals are numbers. Truth values, text, complex numbers, arrays,
    times, masked values and quantities (whose unit a float would not have) are none.
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        if getattr(value, "mask", False):
            return None  # item() would return what is behind the mask
        if getattr(value.dtype, "kind", "") in ("m", "M"):
            return None  # item() of a time in nanoseconds is a whole number
        value = value.item()
    if isinstance(value, bool) or not (isinstance(value, numbers.Real) or _is_decimal(value)):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf if value > 0 else -math.inf
    except ValueError:  # a decimal that is a signalling NaN
        return math.nan


def carried_unit(value: Any) -> Any:
    """Return the unit that a value has with it, None where it has none.

    Units are those of quantities (pint, astropy, unyt), of astropy's NDData, columns and tables (of these the units of
    the columns, as text), and the attribute ``units`` or ``unit`` of what has attributes (xarray, pandas, h5py).
    """
    if isinstance(value, str | int | float | list | tuple | dict | dt.date | dt.timedelta) or value is None:
        return None
    attributes = getattr(value, "attrs", None)
    if isinstance(attributes, Mapping):
        own = attributes.get("units", attributes.get("unit"))
        if isinstance(own, Mapping):  # of a table, whose columns have a unit each
            own = ", ".join(f"{name} in {unit}" for name, unit in own.items() if unit)
        inner = getattr(value, "data", None) if not own and hasattr(value, "dims") else None
        return own or carried_unit(inner)
    if hasattr(value, "colnames"):
        columns = ((name, getattr(column, "unit", None)) for name, column in value.columns.items())
        return ", ".join(f"{name} in {unit}" for name, unit in columns if unit is not None) or None
    for name in ("units", "unit"):
        own = getattr(value, name, None)
        if own is not None and not inspect.isroutine(own):
            return own
    return None


def times_as_text(times: Any) -> Any:
    """Return NumPy's datetime64, one or an array of them, as ISO 8601 text in nested lists, None for no time (NaT)."""
    import numpy as np

    plain = np.asarray(times)
    if plain.dtype.kind != "M":  # of pandas, with a time zone
        return [one.isoformat() if one == one else None for one in plain.tolist()]
    texts = np.asarray(np.datetime_as_string(plain), dtype=object)
    texts[np.isnat(plain)] = None
    return texts.tolist()


def is_masked(value: Any) -> bool:
    """Return whether something in a value lies behind a mask, as those of numpy and astropy have it.

    It is looked for in arrays, scalars and quantities, and in sequences and mappings of them, also nested ones: what
    numpy makes of a list of masked arrays has lost their masks.
    """
    if isinstance(value, Mapping):
        return any(map(is_masked, value.values()))
    if isinstance(value, Sequence):
        # A list of a million numbers has few types, and these are found much sooner than each number is looked at.
        return not _WITHOUT_MASK.issuperset(map(type, value)) and any(map(is_masked, value))
    mask = getattr(value, "mask", None)
    if getattr(mask, "dtype", None) is None:
        return hasattr(value, "magnitude") and is_masked(value.magnitude)
    import numpy as np

    return bool(np.ascontiguousarray(mask).reshape(-1).view(np.uint8).any())  # as bytes: records have a mask per field


_DEPTH = 20
"""How many containers, one inside of the other, are looked into: a list that holds itself would have no end."""
_WITHOUT_NUMBERS = frozenset((bool, str, bytes, type(None)))
"""Types of which no value is a number, nor holds one."""

_WITHOUT_MASK = frozenset((float, int, bool, complex, str, bytes, type(None)))
"""Types of which nothing can be masked; text is also a sequence whose parts are sequences, without end."""


def missing_in(value: Any) -> str | None:
    """Return the first number in ``value`` that is no measurement, as text; None where there is none.

    Numbers are looked for in containers of every kind that has a length, in mappings (keys too), in arrays and what can
    be one, in quantities, and in the fields of dataclasses and namespaces, also nested ones. Complex numbers are two
    numbers. Masked values are no measurement, and neither are times that are none (NaT). What is nested too deep to be
    looked into is none either.
    """
    return _missing_in(value, _DEPTH)


def _missing_in(value: Any, depth: int) -> str | None:
    kind = type(value)
    if kind in _WITHOUT_NUMBERS:
        return None
    number = real_number(value)
    if number is not None:
        return f"{number:g}" if no_measurement(number) else None
    if isinstance(value, complex):
        return f"{value:g}" if no_measurement(value.real) or no_measurement(value.imag) else None
    if isinstance(value, str | bytes | bytearray | range | UserString | type):
        return None
    if depth == 0:
        return "something nested too deep"
    if getattr(value, "shape", None) is not None and hasattr(value, "dtype"):
        return _missing_in_array(value, depth)
    if hasattr(value, "magnitude"):
        return _missing_in(value.magnitude, depth - 1)
    if hasattr(value, "__array__") or isinstance(value, memoryview):
        import numpy as np

        return _missing_in_array(np.asarray(value), depth)
    if isinstance(value, Mapping):
        return _first_missing(value.keys(), depth) or _first_missing(value.values(), depth)
    if is_dataclass(value):
        return _first_missing((getattr(value, field.name) for field in fields(value)), depth)
    if isinstance(value, SimpleNamespace) or hasattr(kind, "__attrs_attrs__"):
        names = vars(value) if isinstance(value, SimpleNamespace) else [one.name for one in kind.__attrs_attrs__]
        return _first_missing((getattr(value, name) for name in names), depth)
    return _first_missing(value, depth) if isinstance(value, Collection) else None


def _first_missing(parts: Iterable[Any], depth: int) -> str | None:
    return next((found for part in parts if (found := _missing_in(part, depth - 1)) is not None), None)


def _missing_in_array(array: Any, depth: int) -> str | None:
    import numpy as np

    if is_masked(array):
        return "masked"
    if not isinstance(array.dtype, np.dtype):  # of pandas, say
        return _first_missing(array, depth)
    if array.dtype.kind in "OV":  # of objects; of records
        return _first_missing(np.asarray(array).ravel().tolist(), depth)
    if array.dtype.kind in "mM":
        return "NaT" if np.isnat(np.asarray(array)).any() else None
    if array.dtype.kind not in "fc":
        return None
    plain = np.asarray(array)
    if plain.dtype.itemsize < 4:
        plain = plain.astype(np.float32)  # 16 bits cannot say the number that it is compared with
    bad = ~(np.abs(plain) < _INFINITY * (1 - _ROUNDING))
    return f"{plain[bad][0]:g}" if bad.any() else None


def _is_decimal(value: Any) -> bool:
    # Decimal is deliberately not registered as Real, yet it is a number that people read from files.
    decimal = imported("decimal")  # there is no Decimal before it was imported
    return decimal is not None and isinstance(value, decimal.Decimal)
