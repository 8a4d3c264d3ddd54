"""The pint registry of the process, and the conversion of numbers, quantities and text to a plain number.

pint and its registry take about half a second to load. So they are loaded only when a unit must be looked up; this is
not needed for plain numbers and for declarations in common units. Inside of the framework, values are plain Python
numbers in a declared unit; quantities are used only where users pass or read values.
"""

from __future__ import annotations

import functools
import math
import os
import re
import reprlib
import threading
from typing import TYPE_CHECKING, Any

from catkit_devices.lazy import imported
from catkit_devices.readings import carried_unit, is_masked, measured, no_measurement, real_number

if TYPE_CHECKING:
    import pint

__all__ = [
    "check_unit",
    "convert",
    "convert_exactly",
    "convertible",
    "magnitude",
    "quantity",
    "quantity_of",
    "registry",
    "unit_text",
    "wide_enough",
    "without_unit",
]

_COMMON = frozenset(
    {
        *(
            prefix + symbol
            for symbol in ("A", "Hz", "J", "N", "Pa", "V", "W", "bar", "g", "m", "ohm", "rad", "s")
            for prefix in ("", "n", "u", "m", "k", "M", "G")
        ),
        *("K", "arcsec", "cm", "count", "deg", "degC", "degF", "dB", "dBm", "h", "min", "percent", "pixel", "rpm"),
        *("1/s", "1/s^2", "K/min", "deg/s", "deg/s^2", "m/s", "m/s^2", "mm/s", "mm/s^2", "um/s", "um/s^2"),
        "dimensionless",
    }
)
"""Units that need not be looked up: a quantity that is declared in one of them does not load pint."""
_TEXT = re.compile(r"\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>.*?)\s*")
"""A number and a unit: ``"50 mA"``."""

_EXACT = 1e15
"""Whole numbers below this lose no digits when their unit is converted."""

_PARTS = (("magnitude", "units"), ("value", "unit"), ("value", "units"))
"""The attributes that hold the number and the unit of a quantity of pint, astropy and unyt."""

_NAMES = {"ct": "count", "deg_C": "degC", "pix": "pixel", "bit": "bit", "%": "%"}
"""Pint's names for units of astropy that cannot be expressed in SI units."""

_guard = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_guard._at_fork_reinit)  # type: ignore[attr-defined]  # noqa: SLF001 - threading's own way, which typeshed does not list


def registry() -> pint.UnitRegistry[Any]:
    """Return the registry of this process; it is pint's application registry too, so quantities pickle and compare."""
    with _guard:  # so that two threads never make two registries
        return _registry()


@functools.cache
def _registry() -> pint.UnitRegistry[Any]:
    import pint

    # A registry that the user's program has set is kept: quantities of two registries cannot be used together.
    holder: Any = pint.application_registry
    if not isinstance(holder.get(), pint.UnitRegistry):  # not used yet: pint's placeholder
        holder.set(pint.UnitRegistry())
    chosen: pint.UnitRegistry[Any] = holder.get()
    return chosen


def quantity(value: float, unit: str | None) -> pint.Quantity[Any]:
    """Return ``value`` in ``unit`` (None: dimensionless) as a quantity.

    Raises:
        ValueError: when there is no such unit.
    """
    check_unit(unit)
    return registry().Quantity(value, unit or "dimensionless")


def check_unit(unit: str | None) -> None:
    """Raise ValueError unless ``unit`` is None or a unit that the registry knows."""
    if unit is not None and not (isinstance(unit, str) and unit in _COMMON):
        _parse_unit(unit)


def convertible(unit: str, other: str) -> bool:
    """Return whether values in one unit can be converted to another one."""
    if unit == other:
        return True
    try:
        magnitude(quantity(1.0, unit), other)
    except ValueError:
        return False
    return True


def convert(value: Any, unit: str | None = None) -> float:
    """Return ``value`` as a finite plain number in ``unit``.

    It accepts numbers (also of numpy, and arrays without dimensions), which are taken to be in ``unit``; quantities of
    pint, astropy and unyt, and whatever else carries a unit (see :func:`quantity_of`); and text: ``"50 mA"``,
    ``"25 degC"``, ``"1e-3"`` (taken to be in ``unit``).

    It refuses booleans (True is not a number of milliamperes), NaN, infinities and their stand-ins (comparisons of a
    limit with NaN are false, and no instrument can be set to infinity), complex numbers, arrays of one or more
    dimensions, and masked values.

    Raises:
        ValueError: the value is refused, the unit is unknown, or it has another dimension.
    """
    if isinstance(value, str):
        number = _convert_text(value, unit)
    elif (given := quantity_of(value)) is not None:
        number = _convert_quantity(given, unit)
    else:
        number = _plain(value)
    return _finite(number, value)


def convert_exactly(value: Any, unit: str | None = None) -> Any:
    """Return a number that :func:`convert` accepts unchanged, if a float could not hold it exactly.

    Raises:
        ValueError: as by :func:`convert`; also if the number is in another unit and its conversion would lose digits.
    """
    number = convert(value, unit)
    if isinstance(value, str):
        match = _TEXT.fullmatch(value)
        if match is not None and (match["unit"] in ("", unit) or _parse_unit(match["unit"]) == _parse_unit(unit or "")):
            from decimal import Decimal

            return Decimal(match["number"])
    elif (given := quantity_of(value)) is None:
        return value
    elif given.units == given.to(unit or "dimensionless").units:
        return given.magnitude
    if abs(number) >= _EXACT:
        raise ValueError(
            f"must be {'in ' + unit if unit else 'a plain number'}: a conversion of such a large number would lose "
            f"digits, got {value!r}"
        )
    return number


def _plain(value: Any) -> float:
    number = real_number(value)
    if number is None:
        raise ValueError(f"must be a number, got {value!r}")
    return _finite(number, value)


def _finite(number: float, value: Any) -> float:
    if not math.isfinite(number):
        raise ValueError(f"must be a finite number, got {value!r}")
    if no_measurement(number):
        raise ValueError(f"must be below 9.9E37, which means infinity, got {value!r}")
    return number


def quantity_of(value: Any) -> pint.Quantity[Any] | None:
    """Return a value that carries a unit as a quantity of pint; None if it carries none.

    It knows quantities of pint, astropy and unyt, astropy's NDData and columns, and what has its unit in ``attrs``
    (xarray, pandas, h5py).

    Raises:
        ValueError: pint does not know the unit, or elements are masked.
    """
    own = carried_unit(value)
    if own is None:
        return None
    if hasattr(own, "function_unit"):  # pint reads astropy's dB(mW) as dB times mW
        raise ValueError(f"must be a number of a linear unit, got {reprlib.repr(value)}")
    if is_masked(value):
        raise ValueError(f"must have no masked elements, got {reprlib.repr(value)}")
    loaded = imported("pint")  # a quantity of it cannot exist before it was imported
    if loaded is not None and isinstance(value, loaded.Quantity):
        given: pint.Quantity[Any] = value
        return given
    number, unit = without_unit(value)
    return registry().Quantity(number, _parse_unit(unit))


def without_unit(value: Any) -> tuple[Any, str]:
    """Separate a value that carries a unit (see :func:`quantity_of`) into its number and the unit as text.

    Raises:
        ValueError: it is a table whose columns have units, or the unit is none of a known library.
    """
    own = carried_unit(value)
    if hasattr(value, "colnames"):
        raise ValueError(f"is a table whose columns have units: {own}")
    number = _number_in(value, own)
    if carried_unit(number) is not None:  # a labelled array (xarray) of quantities
        return without_unit(number)
    scale = getattr(own, "scale", 1.0)  # a unit of astropy may have a factor, such as "1000 m"
    if scale != 1.0:
        number, own = wide_enough(number) * scale, type(own)(1.0, own.bases, own.powers)
    return number, unit_text(own)


def _number_in(value: Any, own: Any) -> Any:
    for number, unit in _PARTS:
        if hasattr(value, number) and hasattr(value, unit) and hasattr(value, "to"):
            return getattr(value, number)
    inner = getattr(value, "data", None)  # where astropy's NDData has its array
    if carried_unit(inner) is not None or not isinstance(own, str):
        return inner
    import numpy as np

    return np.asarray(value)


def unit_text(unit: Any) -> str:
    """Return a unit as text. It may be given as text, or as a unit of pint, astropy or unyt.

    Raises:
        ValueError: it is neither, or has a factor (astropy's ``Unit("1000 m")``).
    """
    if isinstance(unit, str):
        return unit
    if hasattr(unit, "dimensionality"):
        return f"{unit:~}"  # pint's short form
    if hasattr(unit, "physical_type"):
        if getattr(unit, "scale", 1.0) != 1.0:
            raise ValueError(f"a unit must have no factor, got {str(unit)!r}")
        return _text_of_astropy(unit)
    if hasattr(unit, "dimensions"):
        return str(unit)  # unyt's
    raise ValueError(f"a unit must be text or a unit of pint, astropy or unyt, got {reprlib.repr(unit)}")


def magnitude(value: pint.Quantity[Any], unit: str | None) -> Any:
    """Return a quantity, converted to ``unit``, as a number or an array of numbers; stand-ins are NaN or infinity.

    Raises:
        ValueError: it has another dimension.
    """
    number = real_number(value.magnitude)
    if number is not None:
        return number if no_measurement(number) else _convert_quantity(value, unit)
    import pint

    try:
        wide = type(value)(wide_enough(measured(value.magnitude)), value.units)
        return wide.to(unit or "dimensionless").magnitude
    except (pint.PintError, AttributeError, TypeError) as error:
        raise ValueError(f"must be {'in ' + unit if unit else 'plain numbers'}, got {value}: {error}") from error


def wide_enough(numbers: Any) -> Any:
    """Return numbers of a type in which a conversion neither overflows nor loses digits."""
    dtype: Any = getattr(numbers, "dtype", None)
    if getattr(dtype, "kind", "") in ("b", "i", "u", "f") and dtype.itemsize < 8:
        return numbers.astype("float64")
    return numbers.astype("complex128") if getattr(dtype, "kind", "") == "c" and dtype.itemsize < 16 else numbers


def _convert_text(text: str, unit: str | None) -> float:
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"must be a number, with or without a unit, got {text!r}")
    number = _finite(float(match["number"]), text)
    if not match["unit"]:
        return number
    if match["unit"] == unit:
        return number
    # Number and unit are combined here and not by pint's parser, which multiplies: degC cannot be multiplied.
    try:
        given = registry().Quantity(number, _parse_unit(match["unit"]))
    except ValueError as error:
        raise ValueError(f"must be {'in ' + unit if unit else 'a plain number'}, got {text!r}: {error}") from error
    return _convert_quantity(given, unit)


def _convert_quantity(value: Any, unit: str | None) -> float:
    import pint

    try:
        converted = value.to(unit or "dimensionless")
        if converted.units == value.units:
            return _plain(value.magnitude)
        # Powers of ten are not exact in binary: "0.635 um" must be 635 nm, and "0.05 A" must not exceed 50 mA.
        return float(f"{_plain(converted.magnitude):.15g}")
    except pint.DimensionalityError:
        raise ValueError(f"must be {'in ' + unit if unit else 'a plain number'}, got {value}") from None
    except (pint.PintError, AttributeError, TypeError) as error:
        raise ValueError(f"must be {'in ' + unit if unit else 'a plain number'}, got {value}: {error}") from error


def _parse_unit(unit: str) -> Any:
    if not isinstance(unit, str):
        raise ValueError(f"a unit is text, got {unit!r}")  # noqa: TRY004 - a value that a user gave
    try:
        return registry().Unit(unit)
    except Exception as error:  # besides its own errors, pint raises those of Python's tokenizer
        hint = f"; did you mean {unit.lower()!r}?" if unit.isidentifier() and unit.lower() in registry() else ""
        raise ValueError(f"{unit!r} is not a unit: {error}{hint}") from error


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
