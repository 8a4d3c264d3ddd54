"""Turns a number with a unit, in any of the forms that an experiment may have, into a plain number and a text."""

from __future__ import annotations

import datetime as dt
import functools
import math
import reprlib
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import DataError
from catkit_devices.lazy import imported
from catkit_devices.readings import carried_unit, elements, is_masked, parts
from catkit_devices.units import check_unit, registry, wide_enough

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["conversion", "magnitude", "refuse_masked", "unit_text"]

_QUANTITIES = (("magnitude", "units"), ("value", "unit"), ("value", "units"))
"""The attributes that hold the number and the unit of a quantity of pint, astropy and unyt."""


def magnitude(value: Any, unit: Any, what: str) -> tuple[Any, str | None]:
    """Separate a value from its unit. A value that has a unit is converted to ``unit``; any other is taken to be in it.

    Values with units are quantities of pint, astropy and unyt, astropy's NDData (CCDData) and columns, objects of
    xarray and pandas whose attributes have ``units``, and spans of time, which become seconds. An array of spans of
    time for which no unit is given stays as it is. The elements of a list, or of an array of Python objects, may have
    units each: if ``unit`` is not given, they are converted to that of the first.

    Returns:
        The bare value and the unit as text, or None if there is none.

    Raises:
        DataError: the value cannot be converted to ``unit``, ``unit`` is neither text nor a unit, some elements of a
            list have a unit and others have none, or the value is a table whose columns have units; the message names
            ``what``.
    """
    wanted = None if unit is None else unit_text(unit, what)
    if parts(value) is not None:
        return _of_list(value, wanted, what)
    own = carried_unit(value)
    if own is None:
        return _of_time(value, wanted, what)
    for number_name, unit_name in _QUANTITIES:
        if hasattr(value, number_name) and hasattr(value, unit_name) and hasattr(value, "to"):
            return _of_quantity(value, getattr(value, number_name), own, unit, what)
    if hasattr(value, "colnames"):
        raise DataError(f"{what}: a table whose columns have units ({own}) is recorded a column at a time")
    refuse_masked(value, what)
    inner = getattr(value, "data", None)
    if carried_unit(inner) is not None:  # a labelled array (xarray) of quantities
        return magnitude(inner, unit, what)
    import numpy as np

    numbers = np.asarray(value if isinstance(own, str) else inner)  # astropy's NDData has its array in .data
    return _converted(numbers, unit_text(own, what), wanted, what)


def _of_list(value: Any, wanted: str | None, what: str) -> tuple[Any, str | None]:
    refuse_masked(value, what)
    try:
        units = dict.fromkeys(_own_unit(one, what) for one in elements(value))
        if units.keys() <= {None}:
            return value, wanted
        named = next(filter(None, units), "")
        if named and None in units:
            raise DataError(f"{what} has elements in {named} and elements without a unit: all must have one, or none")
        unit = next(one for one in units if one is not None) if wanted is None else wanted
        return _each(value, unit, what), unit
    except RecursionError as error:
        raise DataError(f"{what} cannot be made an array: {error}") from error


def _own_unit(value: Any, what: str) -> str | None:
    if isinstance(value, dt.timedelta) or getattr(getattr(value, "dtype", None), "kind", "") == "m":
        return "s"
    own = carried_unit(value)
    return None if own is None else magnitude(value, None, what)[1]


def _each(value: Any, unit: str, what: str) -> Any:
    found = parts(value)
    return magnitude(value, unit, what)[0] if found is None else [_each(one, unit, what) for one in found]


def _of_time(value: Any, wanted: str | None, what: str) -> tuple[Any, str | None]:
    """Return spans of time in seconds, and anything else unchanged."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    several = wanted is None and getattr(value, "shape", ()) != ()
    if not isinstance(value, dt.timedelta) and (kind != "m" or several):
        return value, wanted
    return _converted(_seconds(value, what), "s", wanted, what)


def _of_quantity(value: Any, number: Any, own: Any, unit: Any, what: str) -> tuple[Any, str | None]:
    scale = getattr(own, "scale", 1.0)  # a unit of astropy may have a factor, such as "1000 m"
    if scale != 1.0:
        number, own = wide_enough(number) * scale, type(own)(1.0, own.bases, own.powers)
        value = type(value)(number, own)
    if unit is None:
        return number, unit_text(own, what)
    wanted = unit_text(unit, what)
    wide = wide_enough(number)
    if wide is not number:
        value = value.astype(wide.dtype) if hasattr(value, "astype") else type(value)(wide, own)
    try:
        converted = value.to(unit if type(unit) is type(own) else wanted)
    except Exception:  # noqa: BLE001 - each library raises its own errors, and has its own names for units
        return _converted(number, unit_text(own, what), wanted, what)
    return converted.magnitude if hasattr(converted, "magnitude") else converted.value, wanted


def _converted(numbers: Any, own: str, wanted: str | None, what: str) -> tuple[Any, str]:
    if wanted is None:
        return numbers, own
    convert = conversion(f"{what}: a quantity in {own or 'no unit'} cannot be recorded in {wanted}", own, wanted)
    return numbers if convert is None else convert(numbers), wanted


def _seconds(span: Any, what: str) -> Any:
    if isinstance(span, dt.timedelta):
        return span.total_seconds() if span == span else math.nan  # NaT of pandas
    import numpy as np

    array = np.asarray(span)
    if np.datetime_data(array.dtype)[0] in ("Y", "M", "generic"):
        raise DataError(f"{what}: {reprlib.repr(span)} has no length in seconds")
    return array / np.timedelta64(1, "s")


def unit_text(unit: Any, what: str) -> str:
    """Return a unit as text. It may be given as text, or as a unit of pint, astropy or unyt.

    Raises:
        DataError: it is neither, or has a factor (astropy's ``Unit("1000 m")``); the message names ``what``.
    """
    if isinstance(unit, str):
        return unit
    if hasattr(unit, "dimensionality"):
        return f"{unit:~}"  # pint's short form
    if hasattr(unit, "physical_type"):
        if getattr(unit, "scale", 1.0) != 1.0:
            raise DataError(f"{what}: a unit must have no factor, got {str(unit)!r}")
        return _text_of_astropy(unit)
    if hasattr(unit, "dimensions"):
        return str(unit)  # unyt's
    raise DataError(f"{what}: a unit must be text or a unit of pint, astropy or unyt, got {reprlib.repr(unit)}")


@functools.cache
def _text_of_astropy(unit: Any) -> str:
    """Return a unit of astropy as pint writes and reads it: ``W / m ** 2`` where astropy writes ``W / m2``."""
    if not hasattr(unit, "bases"):  # magnitudes and the like
        return str(unit)
    above: list[str] = []
    below: list[str] = []
    for base, power in zip(unit.bases, unit.powers, strict=True):
        size = abs(power)
        name = _name_for_pint(base)
        exponent = str(size) if isinstance(size, int | float) else f"({size})"
        (above if power > 0 else below).append(name if size == 1 else f"{name} ** {exponent}")
    if not below:
        return " * ".join(above)
    return " / ".join([" * ".join(above) or "1", *below])


_NAMES = {"ct": "count", "deg_C": "degC", "pix": "pixel", "bit": "bit", "%": "%"}
"""Pint's names for units of astropy that cannot be expressed in SI units."""


def _name_for_pint(base: Any) -> str:
    """Return the name by which pint knows a unit; if pint does not know it, a name that pint has for no other unit."""
    if base.name in _NAMES:
        return _NAMES[base.name]
    make = registry()
    unknown = []
    for name in base.names:
        try:
            check_unit(name)
        except ValueError:
            unknown.append(name)
            continue
        try:
            in_si = base.si
            expected = math.prod(
                (make.Unit(one.name) ** float(power) for one, power in zip(in_si.bases, in_si.powers, strict=True)),
                start=make.Unit(""),
            )
            if math.isclose(make.Quantity(1.0, name).to(expected).magnitude, in_si.scale, rel_tol=1e-6):
                return str(name)
        except Exception:  # noqa: BLE001, S112 - pint has another unit of that name (ct is the carat)
            continue
    return str(unknown[0] if unknown else base.name)


def conversion(refusal: str, given: str, known: str | None) -> Callable[[Any], Any] | None:
    """Return a function that converts numbers from one unit to another; None if the two are the same unit.

    Args:
        refusal: the message of the error if this is impossible.
        given: the unit of the numbers.
        known: the unit that they must have; None and empty are no unit.

    Raises:
        DataError: the units have different dimensions, or one is unknown; the returned function raises it too.
    """
    if given == (known or ""):
        return None
    make = registry()
    try:
        source, target = make.Unit(given), make.Unit(known or "")
    except Exception:  # noqa: BLE001 - besides its own errors, pint raises those of Python's tokenizer
        return _conversion_of_astropy(refusal, given, known or "")
    if source == target:
        return None
    return _checked(lambda numbers: make.Quantity(numbers, source).to(target).magnitude, refusal)


def _conversion_of_astropy(refusal: str, given: str, known: str) -> Callable[[Any], Any]:
    """Return a function that converts with astropy, if the program has imported it: it knows more units (Jy)."""
    astropy = imported("astropy.units")
    if astropy is None:
        raise DataError(refusal)
    try:
        source, target = astropy.Unit(given), astropy.Unit(known)
    except ValueError:
        raise DataError(refusal) from None
    return _checked(lambda numbers: source.to(target, numbers), refusal)


def _checked(convert: Callable[[Any], Any], refusal: str) -> Callable[[Any], Any]:
    def checked(numbers: Any) -> Any:
        try:
            return convert(wide_enough(numbers))
        except Exception as error:  # pint's own errors, and numpy's where these are not numbers
            raise DataError(f"{refusal}: {error}") from error

    checked(1.0)  # a temperature difference is not a temperature, though both have the same dimension: it must be tried
    return checked


def refuse_masked(value: Any, what: str) -> None:
    """Raise DataError if a value has masked elements."""
    if is_masked(value):
        raise DataError(
            f"{what} has masked elements, whose values mean nothing: log array.filled(numpy.nan), or log the mask "
            "under a tag of its own"
        )
