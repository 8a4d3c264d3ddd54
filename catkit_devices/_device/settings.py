"""The plain values in a driver's class: each is declared once, as ``ClassVar``, and checked in every class below.

A class that declares ``baud_rate: ClassVar[int] = 9600`` lets its subclasses say ``baud_rate = 115200``. A public value
that no class has declared is usually a spelling mistake, and would have no effect.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from typing import Annotated, Any, Final, Literal, NamedTuple

from catkit_devices._base.timeouts import LONGEST_TIMEOUT
from catkit_devices.errors import nearest

if typing.TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "AsciiText",
    "Encoding",
    "Pattern",
    "PositiveWhole",
    "Requirement",
    "Seconds",
    "check_setting",
    "declared_settings",
]

_CLASS_VARIABLE = re.compile(r"\b(?:ClassVar|Final)\b")
"""In an annotation that is text: this is not a setting of the device."""


class Requirement(NamedTuple):
    """What a value must be beyond its type: ``ClassVar[Annotated[float, Requirement("at least 1", ...)]]``."""

    expected: str
    """The condition as text for messages, with its unit."""
    holds: Callable[[Any], bool]
    """Asked with a value of the right type."""


def _compiles(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


_ASCII = bytes(range(128))
"""Every character of ASCII."""


def _contains_ascii(encoding: str) -> bool:
    try:
        return _ASCII.decode().encode(encoding) == _ASCII and _ASCII.decode(encoding) == _ASCII.decode()
    except (LookupError, ValueError):  # unknown, no encoding of text, or not of these
        return False


Seconds = Annotated[
    float,
    Requirement(
        f"a number of seconds above 0, at most {LONGEST_TIMEOUT:.0f}", lambda value: 0 < value <= LONGEST_TIMEOUT
    ),
]
PositiveWhole = Annotated[int, Requirement("a whole number above 0", lambda value: value > 0)]
AsciiText = Annotated[str, Requirement("text in ASCII", str.isascii)]
Encoding = Annotated[
    str,
    Requirement(
        "an encoding that Python knows and in which ASCII is as it is, such as 'latin-1' or 'utf-8'", _contains_ascii
    ),
]
Pattern = Annotated[str, Requirement("a regular expression", _compiles)]


def declared_settings(cls: type) -> dict[str, list[tuple[type, Any]]]:
    """Return for each public class variable that ``cls`` or a base declares which class does so, and as what.

    The nearest class comes first.
    """
    found: dict[str, list[tuple[type, Any]]] = {}
    for base in cls.__mro__:
        for name, annotation in _annotations(base).items():
            if not name.startswith("_") and _is_class_variable(annotation):
                found.setdefault(name, []).append((base, annotation))
    return found


def check_setting(cls: type, name: str, value: Any) -> None:
    """Check a public plain value in the class of a driver.

    Raises:
        TypeError: no class has declared it (names the nearest that one has), or it is not as declared.
    """
    where = f"{cls.__qualname__}.{name}"
    known = declared_settings(cls)
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(known))}."
        raise TypeError(
            f"{where} is a plain value that no base class knows: {hint} A value of the driver's own is private "
            f"(_{name}) or declared ({name}: ClassVar[...])"
        )
    for base, annotation in known[name]:
        expected = _unmet(_resolved(base, name, annotation), value)
        if expected is not None:
            raise TypeError(f"{where} must be {expected}, got {value!r}")


def _annotations(cls: type) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(cls)


def _is_class_variable(annotation: Any) -> bool:
    return _CLASS_VARIABLE.search(annotation if isinstance(annotation, str) else repr(annotation)) is not None


def _resolved(base: type, name: str, annotation: Any) -> Any:
    """Return the type of an annotation; Any if only type checkers know it."""
    alone = type("_", (), {"__annotations__": {name: annotation}, "__module__": base.__module__})
    try:
        hint = typing.get_type_hints(alone, include_extras=True)[name]
    except Exception:  # noqa: BLE001 - an annotation may be any expression
        return Any
    arguments = typing.get_args(hint)
    return arguments[0] if typing.get_origin(hint) in {typing.ClassVar, Final} else Any


def _unmet(hint: Any, value: Any) -> str | None:
    """Return what was expected if ``value`` is not of the type ``hint``; None if it is, or may be."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        conditions = [one for one in arguments[1:] if isinstance(one, Requirement)]
        wrong = _unmet(arguments[0], value)
        for condition in conditions:
            if wrong is not None or not condition.holds(value):
                return condition.expected
        return wrong
    if origin is Literal:
        same = any(type(value) is type(choice) and value == choice for choice in arguments)
        return None if same else f"one of {', '.join(map(repr, arguments))}"
    if origin in {typing.Union, types.UnionType}:
        unmet = [_unmet(one, value) for one in arguments]
        return None if None in unmet else " or ".join(map(str, unmet))
    kind = origin or hint
    if kind is None:
        kind = type(None)
    if kind is Any or not isinstance(kind, type):
        return None
    if kind in {int, float} and isinstance(value, bool):
        return f"a number ({kind.__name__})"
    if isinstance(value, (int, float) if kind is float else kind):
        return None
    return {int: "a whole number", float: "a number", str: "text", bytes: "bytes"}.get(kind, f"a {kind.__name__}")
