"""Turning what an experiment hands over into what is stored: plain numbers, JSON text, units as text."""

from __future__ import annotations

import json
from typing import Any

from catkit_devices.errors import DataError

__all__ = ["from_json", "magnitude", "number", "to_json"]

_INTEGERS = range(-(2**63), 2**63)


def magnitude(value: Any, unit: Any) -> tuple[Any, str | None]:
    """Separate a value from its unit: a pint quantity is converted to ``unit``, anything else is in it already.

    Returns:
        The bare value and the unit as text, or None where there is none.
    """
    if hasattr(value, "magnitude") and hasattr(value, "units"):
        if unit is None:
            return value.magnitude, f"{value.units:~}" or None
        return value.to(unit).magnitude, str(unit)
    return value, None if unit is None else str(unit)


def number(value: Any) -> float | int:
    """Return a real number as a plain float or int; a truth value becomes 0 or 1.

    Raises:
        DataError: it is not one real number, or an integer beyond 64 bits.
    """
    plain = value
    if type(plain) not in (float, int, bool):
        item = getattr(value, "item", None)
        if callable(item):  # numpy's scalars and arrays of one element
            try:
                plain = item()
            except ValueError:
                plain = None
    if isinstance(plain, int):
        if int(plain) not in _INTEGERS:
            raise DataError(f"a scalar must be a float or an integer of at most 64 bits, got {plain}")
        return int(plain)
    if isinstance(plain, float):
        return float(plain)
    raise DataError(
        f"a scalar must be one real number, got {_shortened(value)}; arrays go to log_array(), anything else to log()"
    )


def to_json(value: Any, what: str) -> str:
    """Return the value as JSON text (NaN and infinities as Python writes them).

    Paths, dates and enumerations become text, sets and tuples lists, numpy's values plain ones, dataclasses and
    pydantic models dictionaries.

    Raises:
        DataError: there is something in it that JSON cannot say; ``what`` names it.
    """
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{what} cannot be written as JSON: {error}") from error


def from_json(text: str) -> Any:
    """Read back what :func:`to_json` wrote."""
    return json.loads(text)


def _plain(value: Any) -> Any:
    import dataclasses
    import datetime as dt
    import enum
    import pathlib

    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for method in ("tolist", "model_dump"):  # numpy's values; pydantic's models
        convert = getattr(value, method, None)
        if callable(convert) and not isinstance(value, type):
            return convert()
    if hasattr(value, "keys") and hasattr(value, "__getitem__"):
        return {str(key): value[key] for key in value}
    raise TypeError(f"{_shortened(value)} is neither a JSON value nor something that can be turned into one")


def _shortened(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
