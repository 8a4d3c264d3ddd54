"""How values are written as text and as JSON, and what value a text means: for commands and for web pages."""

from __future__ import annotations

import ast
import enum
import json
import math
import numbers
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from catkit_devices.errors import ConfigurationError, nearest
from catkit_devices.readings import carried_unit, missing_in, no_measurement, real_number, times_as_text

__all__ = [
    "converted",
    "kept",
    "literal",
    "number_in",
    "plain",
    "plain_json",
    "property_value",
    "reason_for_null",
    "safe_text",
    "text_of",
    "too_large",
]

_BOOLEANS = {
    "on": True, "yes": True, "true": True, "1": True, "off": False, "no": False, "false": False, "0": False,
}  # fmt: skip


def property_value(text: str, description: Mapping[str, Any]) -> Any:
    """Return the value that a text means, for a property with that description.

    A number may carry a unit (``50 mA``); the device checks whether it is within the limits.

    Raises:
        ConfigurationError: a text that cannot be a truth value where one is expected, or a number that is too large.
    """
    for choice in description["choices"] or ():
        if str(choice) == text:
            return choice
    return converted(text, description["type"])


def converted(text: str, kind: str | None) -> Any:
    """Return the value that a text means where a type of that name is declared; None for any type."""
    if kind in ("str", "text"):
        return text
    if kind == "bool":
        if text.lower() not in _BOOLEANS:
            raise ConfigurationError(f"expected on or off, got {text!r}", suggestion=nearest(text.lower(), _BOOLEANS))
        return _BOOLEANS[text.lower()]
    if kind in ("int", "float"):
        for number in (int, number_in):
            try:
                return number(text)
            except ConfigurationError:
                raise
            except ValueError:
                continue
        return text  # a number with a unit, which the device converts
    return literal(text)


def literal(text: str) -> Any:
    """Return the value of a text in the syntax of JSON or Python, else the text itself.

    Raises:
        ConfigurationError: there is a number in it that is too large.
    """
    try:
        return json.loads(text, parse_float=number_in)
    except ConfigurationError:
        raise
    except ValueError:
        pass
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    for node in ast.walk(ast.parse(text.strip(), mode="eval")):
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex) and abs(node.value) == math.inf:
            segment = ast.get_source_segment(text.strip(), node)
            raise ConfigurationError(f"expected a number, got {segment}, which is too large")
    return value


def number_in(text: str) -> float:
    """Return the number that a text is; for JSON and TOML, in which ``1e400`` would be read as infinity.

    Raises:
        ConfigurationError: it is more than a float can hold.
    """
    if too_large(text):
        raise ConfigurationError(f"expected a number, got {text}, which is too large")
    return float(text)


def too_large(text: str) -> bool:
    """Return whether a text is a number that is more than a float can hold."""
    try:
        return math.isinf(float(text)) and "inf" not in text.lower()
    except ValueError:
        return False


def kept(value: Any) -> bool | int | float | str:
    """Return the value of a setting as it is kept in a file, from which it can be set again; of a choice its name.

    Raises:
        ValueError: it is of a type that is not kept, or no measurement; says so.
    """
    value = value.name if isinstance(value, enum.Enum) else value
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError("no measurement")
            return kind(value)
    raise ValueError(f"{type(value).__name__} is not kept")


def text_of(value: Any, unit: str | None = None) -> str:
    """Return a value as people read it; a large array by what it is, a number that is no measurement as that.

    A member of an enumeration is its name, by which it can also be set.
    """
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, float) and no_measurement(value):
        return f"no measurement ({value:g})"
    if hasattr(value, "dtype") and getattr(value, "size", 0) > 64:
        text = f"{value.dtype} array of shape {value.shape}"
        if value.dtype.kind in "biuf":
            text += f", {value.min():g} to {value.max():g}"
        return f"{text} {unit}" if unit else text
    text = repr(value) if isinstance(value, str) else safe_text(value)
    return f"{text} {unit}" if unit else text


def safe_text(value: Any) -> str:
    """Return ``str(value)``; if a driver's own class raises an error there, the name of that class."""
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - it may raise anything
        return f"<{type(value).__name__} without a text: {type(error).__name__}>"


def plain_json(value: Any) -> dict[str, Any]:
    """Return a value that was read as entries of a JSON object: ``value``, and ``reason`` if it is no measurement.

    Raises:
        ValueError: it cannot be written, for example a list that contains itself.
    """
    try:
        return {"value": plain(value), **reason_for_null(value)}
    except Exception as error:
        raise ValueError(f"its value cannot be written as JSON ({type(error).__name__}: {error})") from error


def reason_for_null(value: Any) -> dict[str, str]:
    """Return ``reason``, for JSON beside a value that was read: why a number in it is ``null``; else nothing."""
    missing = missing_in(value)
    return {} if missing is None else {"reason": f"no measurement ({missing})"}


def plain(value: Any) -> Any:
    """Return a value as types that JSON has: texts, numbers, truth values, None, lists, and dicts by text."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, float):
        return None if no_measurement(value) else float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value) if value.bit_length() < _LONG else hex(value)
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, numbers.Number) and not hasattr(value, "dtype"):  # Decimal, Fraction
        number = real_number(value)
        return safe_text(value) if number is None else plain(number)
    if isinstance(value, Mapping):
        return _by_text(value)
    if isinstance(value, list | tuple | AbstractSet):
        return [plain(one) for one in value]
    if carried_unit(value) is not None:
        return safe_text(value)
    return _plain_array(value) if callable(getattr(value, "tolist", None)) else safe_text(value)


_LONG = 14_000
"""Bits of a whole number that Python still writes in decimal digits, of which it allows 4300."""


def _plain_array(value: Any) -> Any:
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "M":
        return times_as_text(value)
    if kind == "m":  # tolist() would make whole numbers of nanoseconds
        return safe_text(value) if value.shape == () else [plain(one) for one in value]
    listed = value.tolist()
    if type(listed) is type(value):  # NumPy's long double
        listed = complex(listed) if kind == "c" else float(listed)
    return plain(listed)


def _by_text(value: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a mapping with text keys; of the keys "1" and 1, which have one text, the number is ``1 (int)``."""
    made: dict[str, Any] = {key: plain(one) for key, one in value.items() if type(key) is str}
    for key, one in value.items():
        if type(key) is str:
            continue
        text = key.name if isinstance(key, enum.Enum) else safe_text(key)
        wanted, number = text, 1
        while wanted in made:
            number += 1
            wanted = f"{text} ({type(key).__name__}{'' if number == 2 else f' {number}'})"
        made[wanted] = plain(one)
    return made
