"""Decides whether a number is a measurement, or says that there is none.

Only this module decides it. NaN and infinities are no measurement. Neither are the *stand-ins* that instruments send
for them: 9.9E37 means infinity, -9.9E37 negative infinity and 9.91E37 not a number (SCPI-99 volume 1, 7.2.1.4 and
7.2.1.5). An instrument sends them when it has an overload, no sensor, or no value yet.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections import UserString
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from catkit_devices.lazy import imported

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "carried_unit",
    "elements",
    "is_masked",
    "measured",
    "missing_in",
    "no_measurement",
    "parts",
    "real_number",
    "times_as_text",
    "without_stand_ins",
]

_INFINITY = 9.9e37
"""The stand-in for infinity (SCPI-99 volume 1, 7.2.1.4)."""
_NOT_A_NUMBER = 9.91e37
"""The stand-in for NaN (SCPI-99 volume 1, 7.2.1.5)."""
_ROUNDING = 1e-6
"""Relative difference by which a stand-in may be rounded: 32-bit numbers, which many instruments send, have 6e-8."""


def no_measurement(number: float) -> bool:
    """Return whether a number says that there is no measurement.

    Every number from 9.9E37 on does: no instrument measures so much, and some send 1E38 for an overload.
    """
    return not abs(number) < _INFINITY * (1 - _ROUNDING)  # written so that it is true for NaN


def without_stand_ins(number: float) -> float:
    """Return a number; for a stand-in, NaN or infinity."""
    if math.isclose(abs(number), _NOT_A_NUMBER, rel_tol=_ROUNDING):
        return math.nan
    return math.copysign(math.inf, number) if number == number and no_measurement(number) else number


def measured(value: Any) -> Any:
    """Return a value with NaN and infinity instead of stand-ins, also inside of tuples, lists, mappings and arrays.

    A value without a stand-in is returned unchanged. A complex number counts as two numbers.
    """
    number = real_number(value)
    if number is not None:
        return without_stand_ins(number) if no_measurement(number) else value
    if missing_in(value) is None:
        return value
    if isinstance(value, numbers.Complex):
        kind: Any = type(value)
        return kind(complex(without_stand_ins(float(value.real)), without_stand_ins(float(value.imag))))
    if getattr(value, "dtype", None) is not None:
        return _measured_array(value)
    if type(value) is dict:
        return {key: measured(one) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named tuple
        return type(value)(*map(measured, value))
    return type(value)(map(measured, value)) if type(value) in (tuple, list) else value


def _measured_array(array: Any) -> Any:
    import numpy as np

    if array.dtype.kind not in "fc" or array.dtype.itemsize < 4:  # 16-bit numbers cannot hold a stand-in
        return array
    found = array.copy()  # a masked array stays masked
    plain = np.asarray(found)
    if plain.dtype.kind == "c":
        plain.real, plain.imag = _measured_array(plain.real), _measured_array(plain.imag)
        return found
    sizes = np.abs(plain)
    nan = np.isclose(sizes, _NOT_A_NUMBER, rtol=_ROUNDING, atol=0)
    infinite = (sizes >= _INFINITY * (1 - _ROUNDING)) & ~nan
    plain[infinite] = np.copysign(np.inf, plain[infinite])
    plain[nan] = np.nan
    return found


def real_number(value: Any) -> float | None:
    """Return a value as a float if it is one real number; None if it is not.

    Numbers of numpy, arrays without dimensions and decimals count as numbers. Truth values, text, complex numbers,
    arrays, times, masked values and quantities (whose unit would be lost) do not.
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        if getattr(value, "mask", False):
            return None  # item() would return the masked value
        if type(value).__module__ != "numpy" and carried_unit(value) is not None:
            return None  # item() would return the number without its unit
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
    """Return the unit of a value; None if it has none. The units of the :func:`elements` of a list are their own.

    It is found in quantities (pint, astropy, unyt), in astropy's NDData, columns and tables (the units of the columns,
    as text), and in ``attrs`` with ``units`` or ``unit`` (xarray, pandas, h5py).
    """
    if isinstance(value, str | int | float | list | tuple | dict) or value is None:
        return None
    datetime = imported("datetime")
    if datetime is not None and isinstance(value, datetime.date | datetime.timedelta):
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


def elements(value: Any) -> Iterator[Any]:
    """Yield the innermost elements of a value, each of which may have its own unit; see :func:`parts`.

    A value without parts is its own only element. Of plain numbers in one list, it yields the first: all are alike.
    """
    found = parts(value)
    if found is None:
        yield value
        return
    for part in islice(found, 1) if _all_plain(found) else found:
        yield from elements(part)


def _all_plain(values: Sequence[Any]) -> bool:
    # A list of a million numbers has few types; to collect these is much faster than to examine each number.
    numpy = imported("numpy")
    numbers = () if numpy is None else (numpy.number, numpy.bool_)
    return all(
        kind in _PLAIN or (issubclass(kind, numbers) and kind is not numpy.timedelta64)
        for kind in set(map(type, values))
    )


def parts(value: Any) -> Sequence[Any] | None:
    """Return the parts of a sequence or of an array of Python objects; None for anything else."""
    if isinstance(value, str | bytes) or carried_unit(value) is not None:  # a row of a table is a sequence, too
        return None
    if isinstance(value, Sequence):
        return value
    if getattr(getattr(value, "dtype", None), "kind", "") != "O" or value.shape == ():
        return None
    import numpy as np

    listed: list[Any] = np.asarray(value).tolist()
    return listed


def times_as_text(times: Any) -> Any:
    """Return NumPy's datetime64, or an array of them, as ISO 8601 text in nested lists; NaT (not a time) is None."""
    import numpy as np

    plain = np.asarray(times)
    if plain.dtype.kind != "M":  # of pandas, with a time zone
        return [one.isoformat() if one == one else None for one in plain.tolist()]
    texts = np.asarray(np.datetime_as_string(plain), dtype=object)
    texts[np.isnat(plain)] = None
    return texts.tolist()


def is_masked(value: Any) -> bool:
    """Return whether a value has masked elements (of numpy or astropy).

    It looks in arrays, scalars and quantities, and in nested sequences and mappings of them, because numpy loses the
    masks when it makes one array of a list of masked arrays.
    """
    if isinstance(value, Mapping):
        return any(map(is_masked, value.values()))
    if isinstance(value, Sequence):
        return not _all_plain(value) and any(map(is_masked, value))
    mask = getattr(value, "mask", None)
    if getattr(mask, "dtype", None) is None:
        return hasattr(value, "magnitude") and is_masked(value.magnitude)
    import numpy as np

    return bool(np.ascontiguousarray(mask).reshape(-1).view(np.uint8).any())  # as bytes: records have a mask per field


_DEPTH = 20
"""Depth of nested containers that are examined: a list that contains itself would have no end."""
_WITHOUT_NUMBERS = frozenset((bool, str, bytes, type(None)))
"""Types whose values are not numbers and contain none."""

_PLAIN = frozenset((float, int, bool, complex, str, bytes, type(None)))
"""Types that cannot be masked and have no unit. (Text is here also because it is a sequence of texts, without end.)"""


def missing_in(value: Any) -> str | None:
    """Return the first number in ``value`` that is no measurement, as text; None if there is no such number.

    It examines all containers that have a length, mappings (keys too), arrays and what can be converted to one,
    quantities, and the fields of dataclasses and namespaces, also nested. A complex number counts as two numbers.
    Masked values and NaT (not a time) are no measurement. Neither is a value that is nested too deep to be examined.
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
        plain = plain.astype(np.float32)  # 16-bit numbers cannot hold the number with which they are compared
    bad = ~(np.abs(plain) < _INFINITY * (1 - _ROUNDING))
    return f"{plain[bad][0]:g}" if bad.any() else None


def _is_decimal(value: Any) -> bool:
    # Python does not register Decimal as Real, but it is used for numbers that are read from files.
    decimal = imported("decimal")  # if the module was not imported, there is no Decimal
    return decimal is not None and isinstance(value, decimal.Decimal)
