"""Turns a number with a unit, in any of the forms that an experiment may have, into a plain number and a text."""

from __future__ import annotations

import datetime as dt
import math
import reprlib
from typing import TYPE_CHECKING, Any

from catkit_devices import units
from catkit_devices.errors import DataError
from catkit_devices.lazy import imported
from catkit_devices.readings import carried_unit, elements, is_masked, parts
from catkit_devices.units import registry, wide_enough, without_unit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["conversion", "magnitude", "refuse_masked", "unit_text"]


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
    if hasattr(value, "colnames"):
        raise DataError(f"{what}: a table whose columns have units ({own}) is recorded a column at a time")
    refuse_masked(value, what)
    try:
        number, text = without_unit(value)
    except ValueError as error:
        raise DataError(f"{what}: {error}") from error
    if wanted is None:
        return number, text
    if hasattr(value, "to"):
        if getattr(own, "scale", 1.0) != 1.0:
            own = type(own)(1.0, own.bases, own.powers)
            value = type(value)(number, own)
        wide = wide_enough(number)
        if wide is not number:
            value = value.astype(wide.dtype) if hasattr(value, "astype") else type(value)(wide, own)
        try:
            converted = value.to(unit if type(unit) is type(own) else wanted)
            return converted.magnitude if hasattr(converted, "magnitude") else converted.value, wanted
        except Exception:  # noqa: BLE001, S110 - each library raises its own errors, and has its own names for units
            pass
    return _converted(number, text, wanted, what)


def _of_list(value: Any, wanted: str | None, what: str) -> tuple[Any, str | None]:
    try:
        refuse_masked(value, what)
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
    try:
        return units.unit_text(unit)
    except ValueError as error:
        raise DataError(f"{what}: {error}") from error


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
