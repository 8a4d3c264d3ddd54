"""Turning what an experiment hands over into what is stored: plain numbers, JSON text, units as text."""

from __future__ import annotations

import datetime as dt
import enum
import json
import time
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import DataError
from catkit_devices.readings import is_masked

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

__all__ = [
    "conversion",
    "from_json",
    "is_plain_text",
    "magnitude",
    "nanoseconds",
    "number",
    "plain_array",
    "to_json",
    "unit_text",
]

_INTEGERS = range(-(2**63), 2**63)
"""What SQLite can keep as an integer."""


def magnitude(value: Any, unit: Any, what: str) -> tuple[Any, str | None]:
    """Separate a value from its unit: a quantity is converted to ``unit``, anything else is in it already.

    Quantities are those of pint, astropy and unyt.

    Returns:
        The bare value and the unit as text, or None where there is none.

    Raises:
        DataError: the quantity cannot be converted to ``unit``, or ``unit`` is neither text nor a unit; ``what`` is
            named.
    """
    for number_name, unit_name in _QUANTITIES:
        if hasattr(value, number_name) and hasattr(value, unit_name) and hasattr(value, "to"):
            break
    else:
        return value, None if unit is None else unit_text(unit, what)
    own = getattr(value, unit_name)
    if unit is None:
        return getattr(value, number_name), unit_text(own, what) or None
    try:
        converted = value.to(unit if type(unit) is type(own) else unit_text(unit, what))
    except DataError:
        raise
    except Exception as error:  # each library has errors of its own
        raise DataError(f"{what}: a quantity in {own} cannot be recorded in {unit}: {error}") from error
    return getattr(converted, number_name), unit_text(unit, what)


_QUANTITIES = (("magnitude", "units"), ("value", "unit"), ("value", "units"))
"""What the number and the unit of a quantity are called: by pint, astropy, unyt."""


def unit_text(unit: Any, what: str) -> str:
    """Return a unit, given as text or as that of a library of units, as text.

    Raises:
        DataError: it is neither; ``what`` is named.
    """
    if isinstance(unit, str):
        return unit
    if hasattr(unit, "dimensionality"):
        return f"{unit:~}"  # pint's short form
    if hasattr(unit, "physical_type") or hasattr(unit, "dimensions"):
        return str(unit)
    raise DataError(f"{what}: a unit must be text or a unit of pint, astropy or unyt, got {_shortened(unit)}")


def conversion(what: str, given: str, known: str | None) -> Callable[[Any], Any] | None:
    """Return what turns numbers in one unit into numbers in another; None where they are the same.

    Args:
        what: is recorded; for the message.
        given: the unit of the numbers.
        known: the unit that they must have.

    Raises:
        DataError: the two measure different things, or one is not known; what is returned raises it too.
    """
    if given == known:
        return None
    refusal = f"{what} is in {known or 'no unit'} in this run and cannot be logged in {given}"
    if known is None:
        raise DataError(refusal)
    from catkit_devices.units import registry

    make = registry()
    try:
        source, target = make.Unit(given), make.Unit(known)
    except Exception as error:  # pint lets through whatever Python's tokenizer makes of the text
        raise DataError(refusal) from error
    if source == target:
        return None

    def convert(numbers: Any) -> Any:
        try:
            return make.Quantity(numbers, source).to(target).magnitude
        except Exception as error:  # pint's own, and numpy's where these are no numbers
            raise DataError(f"{refusal}: {error}") from error

    convert(1.0)  # a difference of temperatures is no temperature, though both have one dimension
    return convert


def plain_array(value: Any, what: str) -> npt.NDArray[Any]:
    """Return an array as numpy has it.

    Raises:
        DataError: its rows are of different lengths, or some of its elements are masked: what lies behind a mask is
            no measurement.
    """
    import numpy as np

    try:
        _refuse_masked(value, what)
        return np.asarray(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{what} cannot be made an array: {error}") from error


def _refuse_masked(value: Any, what: str) -> None:
    if is_masked(value):
        raise DataError(
            f"{what} has masked elements, whose values mean nothing: log array.filled(numpy.nan), or log the mask "
            "under a tag of its own"
        )


def nanoseconds(moment: Any, *, naive_is_utc: bool = False) -> int:
    """Return a moment, in seconds since 1970 UTC or as a datetime, in nanoseconds since then; None is now.

    Args:
        moment: the time.
        naive_is_utc: whether a datetime without time zone is taken for UTC; else it is refused.

    Raises:
        DataError: it is neither, not finite, or beyond the years 1678 to 2262 that 64 bits can say.
    """
    if moment is None:
        return time.time_ns()
    if isinstance(moment, dt.datetime):
        if moment.tzinfo is None:
            if not naive_is_utc:
                raise DataError(f"a time needs its time zone, got datetime {moment.isoformat()} without one")
            moment = moment.replace(tzinfo=dt.UTC)
        since: dt.timedelta = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        return since // dt.timedelta(microseconds=1) * 1000
    try:
        result = None if isinstance(moment, str | bytes | bool) else round(float(moment) * 1e9)
    except (TypeError, ValueError, OverflowError):
        result = None
    if result is None or result not in _INTEGERS:
        raise DataError(f"a time must be seconds since 1970 UTC or a datetime, got {_shortened(moment)}")
    return result


def number(value: Any, what: str) -> float | int:
    """Return a real number as a plain float or int; a truth value becomes 0 or 1.

    Raises:
        DataError: it is not one real number, masked, or an integer beyond 64 bits; ``what`` is named.
    """
    plain = value
    if type(plain) not in (float, int, bool):
        _refuse_masked(value, what)
        item = getattr(value, "item", None)
        if callable(item):  # numpy's scalars and arrays of one element
            try:
                plain = item()
            except ValueError:
                plain = None
    if isinstance(plain, int):
        if int(plain) not in _INTEGERS:
            raise DataError(f"{what} must be a float or an integer of at most 64 bits, got {plain}")
        return int(plain)
    if isinstance(plain, float):
        return float(plain)
    raise DataError(
        f"{what} must be one real number, got {_shortened(value)}; arrays go to log_array(), anything else to log()"
    )


def to_json(value: Any, what: str, *, anything: bool = False) -> str:
    """Return the value as JSON text (NaN and infinities as Python writes them).

    Paths, dates and enumerations become text (of a member its name, with that of the class before it where the name is
    another member's value), sets and tuples lists, numpy's values plain ones, dataclasses and
    pydantic models dictionaries. Keys become text.

    Args:
        value: to be written.
        what: it is; for the message.
        anything: whether what JSON has no place for (times, bytes, complex numbers) is written as text.

    Raises:
        DataError: there is something in it that JSON cannot say, or two keys of a dictionary are the same text.
    """

    def plain(value: Any) -> Any:
        try:
            return _with_text_keys(_plain(value), anything)
        except TypeError:
            if not anything:
                raise
            if isinstance(value, bytes | bytearray):
                return value.decode(errors="surrogateescape")  # which keeps every byte
            import pydantic_core

            try:
                return pydantic_core.to_jsonable_python(value, fallback=str)
            except ValueError:  # a sequence of its own with bytes in it that are no text
                return str(value)

    try:
        value = _with_text_keys(value, anything)
        text = json.dumps(value, default=plain, ensure_ascii=False)
        # Half a surrogate pair (a file name in another encoding) has no UTF-8; JSON can say it by its number.
        return text if text.isascii() or is_plain_text(text) else json.dumps(value, default=plain)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{what} cannot be written as JSON: {error}") from error


def is_plain_text(text: object) -> bool:
    """Return whether something is a text without NUL that UTF-8 can say: one that every file can hold."""
    if not isinstance(text, str) or "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _with_text_keys(value: Any, anything: bool) -> Any:
    """Return the value with the keys of its dictionaries as text, none of which may be there twice."""
    if isinstance(value, enum.Enum) and isinstance(value, str):
        return _member_text(value)
    if isinstance(value, dict):
        made: dict[str, Any] = {}
        for key, item in value.items():
            plain = isinstance(key, str) and not isinstance(key, enum.Enum)
            text = key if plain else _key_text(key, anything)
            if text in made:
                raise TypeError(f"two keys of a dictionary are {text!r} when written as text")
            made[text] = _with_text_keys(item, anything)
        return made
    if isinstance(value, list | tuple):
        return [_with_text_keys(item, anything) for item in value]
    return value


def _key_text(key: Any, anything: bool) -> str:
    if key is None or isinstance(key, bool | int | float):
        return json.dumps(key)
    if anything and isinstance(key, bytes):
        return key.decode(errors="surrogateescape")
    try:
        plain = _plain(key)
    except TypeError:
        plain = key
    if isinstance(plain, str | bool | int | float):
        return plain if isinstance(plain, str) else json.dumps(plain)
    if anything:
        return str(key)
    raise TypeError(f"keys must be text or numbers, not {_shortened(key)}")


def from_json(text: str) -> Any:
    """Read back what :func:`to_json` wrote."""
    return json.loads(text)


def _plain(value: Any) -> Any:
    import dataclasses
    import pathlib

    if isinstance(value, enum.Enum):
        return _member_text(value)
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if all(hasattr(value, name) for name in ("magnitude", "units")) or hasattr(value, "unit"):
        raise TypeError(f"{_shortened(value)} is a quantity: log its number and its unit, or use log_scalar()")
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "dtype") and is_masked(value):
        import numpy as np

        return np.ma.array(np.asarray(value), mask=value.mask).tolist()  # with None for what is masked
    for method in ("tolist", "model_dump"):  # numpy's values; pydantic's models
        convert = getattr(value, method, None)
        if callable(convert) and not isinstance(value, type):
            return convert()
    if hasattr(value, "keys") and hasattr(value, "__getitem__"):
        keys = list(value.keys())
        made = {key: value[key] for key in keys}
        if len(made) < len(keys):
            raise TypeError(f"{_shortened(value)} has a key twice")
        return made
    raise TypeError(f"{_shortened(value)} is neither a JSON value nor something that can be turned into one")


def _member_text(member: Any) -> Any:
    """Return the text that says a member and no other: its name, or its value where that is a text and it one too."""
    if member.name is None:  # a Flag of which nothing is set
        return member.value
    text = str.__str__(member) if isinstance(member, str) else member.name
    for name, other in type(member).__members__.items():
        if other is not member and text in (name, other.value):
            return f"{type(member).__name__}.{member.name}"
    return text


def _shortened(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
