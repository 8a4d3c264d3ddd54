"""Turns the values that an experiment logs into what is stored: plain numbers and arrays, times, JSON text."""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import json
import time
from typing import TYPE_CHECKING, Any

from catkit_devices.datalog.quantities import refuse_masked
from catkit_devices.errors import DataError
from catkit_devices.readings import carried_unit, is_masked, real_number, times_as_text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "from_json",
    "is_plain_text",
    "nanoseconds",
    "number",
    "plain_array",
    "refuse_unit",
    "to_json",
]

_INTEGERS = range(-(2**63), 2**63)
"""The integers that SQLite can store."""


def plain_array(value: Any, what: str) -> npt.NDArray[Any]:
    """Return a value as a numpy array.

    Raises:
        DataError: its rows differ in length, it holds Python objects, which cannot be stored as bytes, or some of its
            elements are masked: a masked element is no measurement.
    """
    import numpy as np

    try:
        refuse_masked(value, what)
        array = np.asarray(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{what} cannot be made an array: {error}") from error
    if array.dtype.hasobject:
        raise DataError(f"{what} is an array of Python objects ({array.dtype}): convert it, or use log()")
    return array


def refuse_unit(array: npt.NDArray[Any], unit: str | None, what: str) -> None:
    """Raise DataError if there is a unit, and an array holds anything but numbers, such as texts or times."""
    if unit and not _is_numeric(array.dtype):
        raise DataError(f"{what} is an array of {array.dtype}, which cannot be in {unit}: only numbers have a unit")


def _is_numeric(dtype: np.dtype[Any]) -> bool:
    if dtype.names:
        return all(_is_numeric(dtype[name]) for name in dtype.names)
    return dtype.base.kind in "biufc"


def nanoseconds(moment: Any, what: str, *, utc: bool = False) -> int:
    """Return a time in nanoseconds since 1970 UTC; None is now.

    Args:
        moment: the time, in seconds since 1970 UTC or as a datetime.
        what: the name of the record, for the message.
        utc: whether times without a time zone (a naive datetime, NumPy's datetime64) are UTC; else they are refused.

    Raises:
        DataError: it is neither, not finite, or outside of the years 1678 to 2262, for which 64 bits are enough.
    """
    if moment is None:
        return time.time_ns()
    result = None
    if isinstance(moment, dt.datetime):
        result = _of_datetime(moment, what, utc)
    elif utc and getattr(getattr(moment, "dtype", None), "kind", "") == "M" and moment.shape == ():
        result = _of_numpy(moment)
    elif real_number(moment) is not None:
        with contextlib.suppress(ValueError, OverflowError):  # NaN and infinity
            plain = moment.item() if hasattr(moment, "item") else moment
            result = round(plain * 10**9 if not isinstance(plain, float) else plain * 1e9)
    if result is None or result not in _INTEGERS:
        raise DataError(
            f"{what}: a time must be seconds since 1970 UTC or a datetime, between the years 1678 and 2262, got "
            f"{_shortened(moment)}"
        )
    return result


def _of_datetime(moment: dt.datetime, what: str, utc: bool) -> int | None:
    if moment != moment:  # NaT of pandas
        return None
    if moment.tzinfo is None:
        if not utc:
            raise DataError(f"{what}: a time needs its time zone, got datetime {moment.isoformat()} without one")
        moment = moment.replace(tzinfo=dt.UTC)
    since: dt.timedelta = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    # A timestamp of pandas has nanoseconds in addition to the microseconds.
    return since // dt.timedelta(microseconds=1) * 1000 + getattr(moment, "nanosecond", 0)


def _of_numpy(moment: Any) -> int | None:
    import numpy as np

    if np.isnat(moment):
        return None
    seconds = moment.astype("datetime64[s]")
    return int(seconds.astype("int64")) * 10**9 + int((moment - seconds).astype("timedelta64[ns]").astype("int64"))


def number(value: Any, what: str) -> float | int:
    """Return a real number as a plain float or int; a truth value becomes 0 or 1.

    Raises:
        DataError: it is not one real number, is masked, or is an integer beyond 64 bits; the message names ``what``.
    """
    plain = value
    if type(plain) not in (float, int, bool):
        refuse_masked(value, what)
        item = getattr(value, "item", None)
        is_time = getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M")  # its item() may be a plain number
        if callable(item) and not is_time:  # numpy's scalars and arrays of one element
            try:
                plain = item()
                if type(plain) is type(value):
                    plain = _exact(plain)
            except ValueError:
                plain = None
            except TypeError as error:
                raise DataError(f"{what}: {error}") from None
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

    Paths and dates become text. A member of an enumeration becomes its name, with the name of its class in front if
    another member has that text as its value. Sets and tuples become lists, numpy's values plain ones, dataclasses and
    pydantic models dictionaries. Keys become text.

    Args:
        value: the value.
        what: its name, for the message.
        anything: whether what JSON cannot express (times, bytes, complex numbers) is written as text.

    Raises:
        DataError: something in it cannot be expressed in JSON, or two keys of a dictionary become the same text.
    """

    def plain(value: Any) -> Any:
        try:
            return _with_text_keys(_plain(value), anything)
        except TypeError:
            if not anything:
                raise
            if isinstance(value, bytes | bytearray):
                return value.decode(errors="surrogateescape")  # this loses no byte
            import pydantic_core

            try:
                return pydantic_core.to_jsonable_python(value, fallback=str)
            except ValueError:  # a sequence of a class of its own, with bytes in it that are not text
                return str(value)

    try:
        value = _with_text_keys(value, anything)
        text = json.dumps(value, default=plain, ensure_ascii=False)
        # Half a surrogate pair (from a file name in another encoding) is not valid UTF-8; JSON can write it as \udXXX.
        return text if text.isascii() or is_plain_text(text) else json.dumps(value, default=plain)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{what} cannot be written as JSON: {error}") from error


def is_plain_text(text: object) -> bool:
    """Return whether something is a text without NUL that UTF-8 can encode: every format of file can hold it."""
    if not isinstance(text, str) or "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _with_text_keys(value: Any, anything: bool) -> Any:
    """Return the value with the keys of its dictionaries as text; TypeError if two keys become the same."""
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
        return value.isoformat() if value == value else None  # NaT of pandas
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if isinstance(value, dt.timedelta) or kind == "m":
        raise TypeError(f"{_shortened(value)} is a span of time: log its seconds, or use log_scalar()")
    if carried_unit(value) is not None:
        raise TypeError(f"{_shortened(value)} is a quantity: log its number and its unit, or use log_scalar()")
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "colnames"):  # a table of astropy, or a row of one
        return {name: value[name] for name in value.colnames}
    if hasattr(value, "dtype") and is_masked(value):
        import numpy as np

        return np.ma.array(np.asarray(value), mask=value.mask).tolist()  # with None for what is masked
    if kind == "M":
        return times_as_text(value)
    if kind == "V" and getattr(value.dtype, "names", None):
        return _records(value)
    index = getattr(value, "index", None) if hasattr(value, "iloc") else None
    if index is not None and list(index) != list(range(len(value))):
        raise TypeError(f"{_shortened(value)} has an index, which would be lost: reset_index() makes a column of it")
    for method in ("tolist", "model_dump"):  # numpy's values; pydantic's models
        convert = getattr(value, method, None)
        if callable(convert) and not isinstance(value, type):
            plain = convert()
            return _exact(plain) if method == "tolist" and type(plain) is type(value) else plain
    if hasattr(value, "keys") and hasattr(value, "__getitem__"):
        keys = list(value.keys())
        made = {key: value[key] for key in keys}
        if len(made) < len(keys):
            raise TypeError(f"{_shortened(value)} has a key twice")
        return made
    raise TypeError(f"{_shortened(value)} is neither a JSON value nor something that can be turned into one")


def _exact(number: Any) -> float | complex:
    """Return NumPy's long double, which has more than 64 bits, as a number of Python's.

    Raises:
        TypeError: that would round it.
    """
    plain: float | complex = complex(number) if number.dtype.kind == "c" else float(number)
    if not (plain == number or number != number):
        raise TypeError(f"{_shortened(number)} has more digits than 64 bits can hold: round it, or use log_array()")
    return plain


def _records(array: Any) -> Any:
    """Return an array of records as a list of tuples, with times as text."""
    import numpy as np

    def plain(dtype: Any) -> Any:
        if dtype.names:
            return [(name, plain(dtype[name])) for name in dtype.names]
        if dtype.base.kind == "m":
            raise TypeError("an array of records has spans of time: log their seconds")
        return (f"U{_TIME_LENGTH}", dtype.shape) if dtype.base.kind == "M" else dtype

    return np.asarray(array).astype(plain(array.dtype)).tolist()


_TIME_LENGTH = 48
"""Characters of a time as text, at most: NumPy's longest has a year of 64 bits and attoseconds."""


def _member_text(member: Any) -> Any:
    """Return a text that means this member and no other: its name, or its value if members are texts themselves."""
    if member.name is None:  # a Flag without any bit set
        return member.value
    text = str.__str__(member) if isinstance(member, str) else member.name
    for name, other in type(member).__members__.items():
        if other is not member and text in (name, other.value):
            return f"{type(member).__name__}.{member.name}"
    return text


def _shortened(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
