"""What a value may be: its type, unit, choices and limits, and how it is written on the wire and read back from there.

A value is checked before a command is made of it, and what is sent is checked once more: a format may round a number to
beyond its limit, and a quote inside of a text may end the string in which it is.

This module does not know devices; every refusal is a ValueError, before whose text the name of the quantity is put.
"""

from __future__ import annotations

import builtins
import enum
import math
import numbers
import re
import reprlib
import string
import typing
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from catkit_devices import units
from catkit_devices.errors import DeviceValueError, nearest
from catkit_devices.lazy import imported
from catkit_devices.readings import (
    carried_unit,
    elements,
    is_masked,
    measured,
    missing_in,
    no_measurement,
    real_number,
    without_stand_ins,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "Command",
    "Limits",
    "Rule",
    "SetCommand",
    "as_number",
    "checked",
    "command_text",
    "decimal",
    "distinct",
    "intersection",
    "range_text",
    "within",
]

#: Lowest and highest value allowed, both included; None if there is no bound.
Limits: TypeAlias = "tuple[float | None, float | None]"

_Flags: TypeAlias = "type[enum.Flag]"

# Stricter than float(), which takes "1_0" and "infinity": only what instruments send.
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf)", re.IGNORECASE | re.ASCII)
_COMPOSED = re.compile(r"[-+.()/0-9ejnaif]+", re.IGNORECASE | re.ASCII)
"""What a fraction or complex number is made of: ``1/4``, ``1+2j``."""
_HEXADECIMAL = re.compile(r"[0-9a-f]+", re.IGNORECASE)
"""A reply that may be a hexadecimal number."""
_BOOLEANS = {"1": True, "0": False, "on": True, "off": False, "true": True, "false": False}
"""The replies that mean a truth value, in lower case."""

_MODULES_OF_TRUTH = ("builtins", "_operator", "ctypes")
"""Where functions are that make a truth value of anything."""
_TRUTHS = ("all", "any", "callable", "c_bool", "not_", "truth")
"""What makes a truth value of a text by its length or kind, so that "0" is true."""

_OWN = re.compile(r"\{self\b([^{}!:]*)(![rsa])?(?::([^{}]*))?\}")
"""In a command, what the device or component fills in of itself: ``{self.number}``, ``{self.number:02d}``."""
_OWN_NAME = re.compile(r"\.([^\W\d]\w*)")
"""In the same: each attribute, such as ``.number``."""
_QUOTES = "\"'"
"""What begins and ends a string in a command (IEEE 488.2, 7.7.5)."""
_BLOCK = re.compile(r"#(?:\d|$)")
"""What begins a block of data, whose bytes have no meaning in the command (IEEE 488.2, 7.7.6)."""
_PLACE = "\0"
"""Stands for what is filled in while a command is taken apart: no command contains it."""
_BASES = {"b": 2, "o": 8, "x": 16, "X": 16}
"""What whole numbers are written in, by format."""
_IN_A_BASE = re.compile(r"#([HQB])([0-9A-F]+)", re.IGNORECASE)
_LETTERS = {"H": 16, "Q": 8, "B": 2}
"""Bases of numbers in replies, by the letter behind ``#`` (IEEE 488.2, 8.7.5 to 8.7.7)."""
_WORDS = {"INF": "inf", "INFINITY": "inf", "NINF": "-inf", "NINFINITY": "-inf", "NAN": "nan"}
"""Numbers that are words, by what Python reads for them (SCPI-99 volume 1, 7.2.1.4 and 7.2.1.5)."""
_ROUNDING = 1e-9
"""Relative tolerance, in addition to rounding, when what was sent is compared with the value: binary numbers are not
exact."""
_ORDINARY = 1e37
"""Smaller numbers are ordinary ones: only larger ones can stand for infinity or NaN (9.9E37)."""


class Rule:
    """Which values a quantity can have.

    Args:
        type: ``float``, ``int``, ``bool``, ``str``, another class of numbers (``Decimal``, numpy's ``int16``), or a
            function from a reply's text to a value, which raises ValueError when the reply makes no sense. If the
            reply is what instruments send for infinity or NaN (``9.91E37``), a number that the function makes of it is
            that, scaled or not; but a reply that may as well be hexadecimal (``1E40``) is what the function makes of
            it. An Enum class says that its members are the choices.
        unit: of the plain numbers; None for numbers without a unit, and for other types.
        choices: the values that are allowed, or a mapping from each of them to what is sent for it. For a member of an
            Enum its value is sent.
    """

    def __init__(
        self,
        type: Callable[[str], Any],  # noqa: A002 - its public name
        unit: str | None,
        choices: Iterable[Any] | Mapping[Any, Any] | None,
    ) -> None:
        type = _plain_type(type)  # noqa: A001 - its public name
        if unit is not None and type in (bool, str):
            raise TypeError(f"a {type.__name__} has no unit")
        self.type: Callable[[str], Any] = type
        self.flags: _Flags | None = None
        """The class of the flags, if a whole number is read as flags."""
        if isinstance(type, enum.EnumType) and issubclass(type, enum.Flag):
            self.flags = type
        self.several = bool(getattr(type, "several", False))
        """Whether a value is an array."""
        self.unit = unit
        kind: Any = type
        of_numbers = self.flags is None and isinstance(kind, builtins.type) and issubclass(kind, numbers.Number)
        self._kind: Any = kind if of_numbers else None
        """The class of numbers that the type is (int, Decimal, numpy's int16); None if it is none."""
        self._other = self._kind not in (None, bool, int, float)
        """Whether it is one that may be unable to hold a number."""
        self._whole_only = of_numbers and kind is not bool and issubclass(kind, numbers.Integral)
        self._complex = of_numbers and issubclass(kind, numbers.Complex) and not issubclass(kind, numbers.Real)
        self._fraction = of_numbers and issubclass(kind, numbers.Rational) and not issubclass(kind, numbers.Integral)
        self.choices: dict[Any, Any] | None = None
        if choices is None and isinstance(type, enum.EnumType) and self.flags is None:
            choices = cast("Iterable[Any]", type)
        if choices is not None:
            self.choices = distinct(choices, "choice")
        elif self.flags is not None and not list(self.flags):
            raise TypeError(f"{self.flags.__name__} has no flags")

    def require_distinct_choices(self) -> None:
        """Raise TypeError if two choices have the same form on the wire: a reply could mean either."""
        known: dict[str, Any] = {}
        for value, token in (self.choices or {}).items():
            other = known.setdefault(_text(token), value)
            if other is not value:
                names = f"{_name_of(other)!r} and {_name_of(value)!r}"
                raise TypeError(
                    f"the choices {names} are both {_plain(token)!r} on the wire: a reply does not say which is meant"
                )

    @property
    def choice_names(self) -> list[Any] | None:
        """The choices as plain data: members of an Enum by their names; None if there are no choices."""
        if self.flags is not None:
            return [str(flag.name) for flag in self.flags]
        return None if self.choices is None else [_name_of(choice) for choice in self.choices]

    @property
    def numeric(self) -> bool:
        """Whether values are numbers that can have limits."""
        return self.choices is None and not self.several and (self.type in (float, int) or self.unit is not None)

    @property
    def type_name(self) -> str:
        """The name of the type of the values, for messages."""
        if self.choices is not None:
            return "choice"
        if self.flags is not None:
            return "flags"
        if self.type in (int, bool, str):
            return self.type.__name__
        return "float" if self.numeric else getattr(self.type, "__name__", "value")

    # --- from Python to the wire

    def convert(self, value: Any) -> Any:
        """Return ``value`` as a plain Python value of the declared type, in the declared unit.

        Raises:
            ValueError: it is none, or not among the choices.
        """
        if self.choices is not None:
            return self._chosen(value)
        if type(value) in (int, float) and abs(value) < _ORDINARY:
            if self.type is int and type(value) is int:
                return value
            if self.numeric and not self._whole_only and not self._other:
                return float(value)
        if self.several:
            return self._array(value, finite=True)
        if self._whole_only:
            return self._as_whole(value)
        if self._other:
            return self._as_other(value)
        if self.numeric:
            return units.convert(value, self.unit)
        if self.type is bool:
            return _boolean(value)
        if self.flags is not None:
            return self._flags(value)
        # A line end inside the text would be a second command.
        if self.type is str:
            if not (isinstance(value, str) and value.isprintable()):
                raise ValueError(f"must be printable text, got {value!r}")
            return str.__str__(value)  # of a text that is a member of an Enum, str() would be the member's name
        missing = missing_in(value)
        if missing is not None and real_number(value) is not None:
            raise ValueError(f"must be a finite number, got {value!r}")
        if missing is not None:
            raise ValueError(f"must hold finite numbers only, got {reprlib.repr(value)}, in which there is {missing}")
        return value

    def _array(self, value: Any, *, finite: bool = False) -> Any:
        kind: Any = self.type
        return kind.array(value, self.unit, finite=finite)

    def _as_whole(self, value: Any) -> int:
        whole = _whole(units.convert_exactly(value, self.unit))
        if whole is None:
            raise ValueError(f"must be a whole number, got {value!r}")
        return int(self._held(whole, value))

    def _as_other(self, value: Any) -> Any:
        """Return a number as one of the declared class; of numpy's floating-point numbers as a float."""
        if self._complex:
            number = self._complex_number(value)
            if missing_in(number) is not None:
                raise ValueError(f"must be a finite number, got {value!r}")
            return self._held(number, value)
        number = units.convert_exactly(value, self.unit)
        held = self._held(number, value)
        return float(number) if hasattr(held, "dtype") else held

    def _complex_number(self, value: Any) -> Any:
        if (given := units.quantity_of(value)) is not None:
            value = units.magnitude(given, self.unit)
        number = _without_dimensions(value)
        if isinstance(number, bool) or not isinstance(number, numbers.Complex):
            raise ValueError(f"must be a number, got {reprlib.repr(value)}")  # noqa: TRY004 - a value that a user gave
        return number

    def _held(self, number: Any, value: Any) -> Any:
        """Return a finite number as one of the declared class.

        Raises:
            ValueError: the class cannot hold it; says so of the value of which the number was made.
        """
        kind = self._kind
        number = _without_dimensions(number)
        if isinstance(number, kind):
            return number
        try:
            if issubclass(kind, numbers.Complex) and not issubclass(kind, numbers.Rational):
                made = _quietly(kind, number if hasattr(number, "dtype") or self._complex else float(number))
                fits = missing_in(made) is None and bool(made) == bool(number)
            else:
                made = kind(_exactly(number, kind))
                fits = not self._whole_only or bool(made == number)
        except (ArithmeticError, TypeError, ValueError):
            fits = False
        if not fits:
            raise ValueError(f"must be a number that {self._kind.__name__} can hold, got {reprlib.repr(value)}")
        return made

    def check(self, value: Any, limits: Limits | None) -> None:
        """Raise ValueError unless ``value``, already converted, is within ``limits``."""
        if limits is not None and not within(_comparable_number(value), limits):
            unit = f" {self.unit}" if self.unit else ""
            raise ValueError(f"must be {range_text(limits, self.unit)}, got {value!r}{unit}")

    def token(self, value: Any) -> Any:
        """Return what is sent for ``value``, which is already converted."""
        return _plain(value if self.choices is None else self.choices[value])

    def examples(self) -> list[Any]:
        """Return values that are among those allowed if there are no limits: every choice, or one of the type."""
        if self.choices is not None:
            return list(self.choices)
        if self.numeric:
            return [1 if self._whole_only else 1.0]
        if self.flags is not None:
            return list(self.flags)
        return {bool: [True], str: ["text"]}.get(self.type, [])  # type: ignore[call-overload, no-any-return]  # type: one of ours

    def narrowed(self, limits: Sequence[Any], declared: Limits | None) -> Limits:
        """Return ``limits``, which a user wrote, as numbers in the declared unit.

        Raises:
            ValueError: they make no sense, or would be wider than those ``declared``.
        """
        if not self.numeric:
            raise ValueError("has no limits that could be narrowed")
        if isinstance(limits, str) or len(limits) != 2:
            raise ValueError(f"needs a lowest and a highest value, got {limits!r}")
        low, high = (None if bound is None else _comparable_number(self.convert(bound)) for bound in limits)
        wanted = checked((low, high))
        if declared is not None and intersection(declared, wanted) != wanted:
            raise ValueError(
                f"can only be narrowed: {range_text(wanted, self.unit)} is not within {range_text(declared, self.unit)}"
            )
        return wanted

    def _chosen(self, value: Any) -> Any:
        choices = self.choices or {}
        if str(getattr(value, "dtype", "")) == "bool" and value.shape == () and not is_masked(value):
            value = bool(value)  # numpy's truth value is no bool, and equal to 1
        switched = self._switched(value)
        if switched is not None:
            return switched
        wanted = self._wanted(value)
        found = [choice for choice in choices if _is_meant(choice, value, wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{value!r} is the name of one choice and the value of another: use the member itself")
        names = [_name_of(choice) for choice in choices]
        words = [name for name in names if isinstance(name, str)]
        near = nearest(value, words) if isinstance(value, str) else None
        hint = f" (did you mean {near!r}?)" if near else ""
        raise ValueError(f"must be one of {', '.join(map(repr, names))}, got {value!r}{hint}")

    def _switched(self, value: Any) -> bool | None:
        """Return the choice among True and False that is meant: by a truth value of any kind, or a word for one.

        None if neither is meant; also for a word that means True in Python and False for the instrument, or the
        reverse.
        """
        choices = self.choices or {}
        if not any(isinstance(choice, bool) for choice in choices) or (isinstance(value, str) and value in choices):
            return None
        try:
            truth = _boolean(value)
        except ValueError:
            return None
        if truth not in choices or not isinstance(next(one for one in choices if one == truth), bool):
            return None
        return truth if isinstance(value, bool) or _truth(str(_plain(choices[truth]))) is not (not truth) else None

    def _wanted(self, value: Any) -> Any:
        """Return what is compared with the choices: a number in the unit if some of them are numbers."""
        plain = [choice.value if isinstance(choice, enum.Enum) else choice for choice in self.choices or ()]
        numeric = any(real_number(one) is not None for one in plain)
        # An infinite load, say, may be a choice.
        named = isinstance(value, enum.Enum) or (isinstance(value, str | float) and value in plain)
        if not numeric or named:
            return value
        try:
            return units.convert(value, self.unit)
        except ValueError:
            if not any(isinstance(choice, enum.Enum) for choice in self.choices or ()):
                raise
            return value  # the name of a member, perhaps

    # --- from the wire to Python

    def parse(self, reply: str) -> Any:
        """Return the value that ``reply`` means; it has no white space around it.

        A number that stands for infinity or NaN becomes that.

        Raises:
            ValueError: it is none.
        """
        if self.choices is not None:
            # The very text first: 1E40 and 1E41, of a register in hexadecimal, are both infinity as numbers.
            for comparable in (_text, _comparable):
                for value, token in self.choices.items():
                    if comparable(token) == comparable(reply):
                        return value
            truth = _truth(reply)
            for value, token in self.choices.items():
                # What is set by "ON" and "OFF" is often told as 1 and 0, and the other way round.
                if truth is not None and _is_on_or_off(value, token) and _truth(str(_plain(token))) is truth:
                    return value
            tokens = map(repr, map(_plain, self.choices.values()))
            raise ValueError(f"one of {', '.join(tokens)} was expected, got {reply!r}")
        if self.type is bool:
            truth = _truth(reply)
            if truth is None:
                raise ValueError(f"on or off was expected, got {reply!r}")
            return truth
        if self.flags is not None:
            return self._flags_of(as_number(reply), reply)
        if self._kind is not None:
            return self._parsed_number(reply)
        value = self._made_of(reply)
        # The function may have scaled the number that stands for no measurement. But "1E40" may also be a register in
        # hexadecimal: then only what the function has made of it counts.
        number = None if _HEXADECIMAL.fullmatch(reply) else as_number(reply)
        if number is not None and no_measurement(number) and real_number(value) is not None:
            return without_stand_ins(number)
        return self._measured(value)

    def _parsed_number(self, reply: str) -> Any:
        number = as_number(reply)
        composed = (self._complex or self._fraction) and _COMPOSED.fullmatch(reply) is not None
        if number is None and (not composed or _NUMBER.fullmatch(reply)):
            raise ValueError(f"a number was expected, got {reply!r}")
        if number is not None and (no_measurement(number) or self._whole_only or self.type is float):
            return self._found_number(reply, float(number), reply)
        made = _quietly(self._made_of, reply)  # "0.10" of a Decimal keeps its digits
        if number is not None and (missing_in(made) is not None or bool(made) != bool(number)):
            raise ValueError(f"a number that {self._kind.__name__} can hold was expected, got {reply!r}")
        return measured(made)

    def _made_of(self, reply: str) -> Any:
        try:
            return self.type(reply)
        except (ArithmeticError, LookupError) as error:  # Decimal has no ValueError, nor has a list that is too short
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"a value for the declared type was expected, got {reply!r} ({why})") from error

    def _found_number(self, number: Any, size: float, found: Any) -> Any:
        """Return a number that was read as one of the declared class; NaN or infinity for a stand-in.

        Args:
            number: exactly, or its text.
            size: the number as a float.
            found: what was read, for messages.
        """
        size = without_stand_ins(size)
        if not self._whole_only and (self._kind is float or not math.isfinite(size)):
            return self._kind(size) if self._complex else size
        whole = _whole(number) if self._whole_only and math.isfinite(size) else None
        if self._whole_only and whole is None:
            raise ValueError(f"a whole number was expected, got {reprlib.repr(found)}")
        return self._held(number if whole is None else whole, found)

    def _flags_of(self, size: float | None, found: Any) -> Any:
        """Return the flags for which a whole number, or its text, stands; ``size`` is that number as a float."""
        kind = cast("type[enum.Flag]", self.flags)
        whole = None if size is None or no_measurement(size) else _whole(found)
        if whole is None:
            raise ValueError(f"a whole number was expected, got {found!r}")
        try:
            if whole >= 0:  # of -1, all flags would be set
                return kind(whole)
        except ValueError:  # a bit without a name
            pass
        raise ValueError(f"the sum of {_sum_of(kind)} was expected, got {found!r}")

    def returned(self, value: Any) -> Any:
        """Return ``value``, which a driver's function has read, as a plain one of the declared type.

        A number that stands for infinity or NaN becomes that, a quantity a number in the unit. If the type is ``bool``
        or a class of numbers, a text is converted as a reply is. If the type is a function, the value is kept; with a
        unit, a quantity becomes a number in it.

        Raises:
            ValueError: it is of another type.
        """
        if self.choices is not None:
            return self._chosen(measured(value))
        if self.several:
            return self._array(value)
        if self.flags is not None:
            return self._flags(value)
        if self.type is str:
            if not isinstance(value, str):
                raise ValueError(f"text was expected, got {reprlib.repr(value)}")
            return str.__str__(value)  # not numpy's str_
        if self._kind is None:
            return self._measured(value)
        if isinstance(value, str):
            return self.parse(value.strip())
        if self.type is bool:
            return _boolean(value)
        if self._complex:
            return self._kind(measured(self._complex_number(value)))
        given = units.quantity_of(value)
        size = real_number(value if given is None else units.magnitude(given, self.unit))
        if size is None:
            raise ValueError(f"a number was expected, got {reprlib.repr(value)}")
        exact = given is None or self._kind is float or no_measurement(size)
        return self._found_number(value if exact else units.convert_exactly(value, self.unit), size, value)

    def _flags(self, value: Any) -> Any:
        """Return flags that are given as such, as a whole number, or by their names with | between them."""
        kind = cast("type[enum.Flag]", self.flags)
        if isinstance(value, kind):
            return value
        if isinstance(value, str) and as_number(value.strip()) is None:
            found = kind(0)
            for name in (part.strip() for part in value.split("|")):
                if name not in kind.__members__:
                    raise ValueError(f"must be of {' | '.join(kind.__members__)}, got {value!r}")
                found |= kind[name]
            return found
        size = as_number(value.strip()) if isinstance(value, str) else real_number(value)
        try:
            return self._flags_of(size, value)
        except ValueError:
            raise ValueError(f"must be of {' | '.join(kind.__members__)}, got {value!r}") from None

    def _measured(self, value: Any) -> Any:
        """Check and return a value that a driver's own type has made of a reply, or its function has returned."""
        if self.unit is not None and (value is None or isinstance(value, str | bytes | bool)):
            raise ValueError(f"a number in {self.unit} was expected, got {value!r}")
        if self.unit is not None and (given := units.quantity_of(value)) is not None:
            value = units.magnitude(given, self.unit)
        elif self.unit is not None and any(carried_unit(one) is not None for one in elements(value)):
            raise ValueError(f"numbers in {self.unit} were expected, got {reprlib.repr(value)} with their own units")
        return measured(value)


class Command:
    """The text of a command, with values of the device or component in it: ``"VOLT? (@{self.number})"``.

    A value that is filled in is a part of the command, whatever it is: braces in it have no meaning, and a text cannot
    become a second command.

    Args:
        text: as the driver's author has written it; every other brace is sent as it is.
        before: what is sent before it in the same message, as far as the author has written it.
        after: what is sent behind it.

    Raises:
        TypeError: what is to be filled in is not just one attribute.
    """

    def __init__(self, text: str, before: str = "", after: str = "") -> None:
        self._text = text
        self._parts: list[str | tuple[str, str, _Place]] = []
        """Plain texts, and for each attribute its name, the format that its value gets, and where it is put."""
        end = 0
        for found in _OWN.finditer(text):
            name = _OWN_NAME.fullmatch(found[1])
            if name is None:
                raise TypeError(
                    f"the command {text!r} can have an attribute filled in, as in {{self.number}}, got {found[0]!r}"
                )
            place = _Place(before + _OWN.sub("", text[: found.start()]), _OWN.sub("", text[found.end() :]) + after)
            self._parts += [text[end : found.start()], (name[1], f"{{{found[2] or ''}:{found[3] or ''}}}", place)]
            end = found.end()
        self._parts.append(text[end:])
        self.attributes = [part[0] for part in self._parts if isinstance(part, tuple)]
        """Of the device or component, which are filled in."""

    def filled(self, owner: Any) -> str:
        """Return the text with the attributes of ``owner`` in it.

        Raises:
            ValueError: the value of one cannot be part of a command.
        """
        if not self.attributes:
            return self._text
        return "".join(part if isinstance(part, str) else self._value(owner, *part) for part in self._parts)

    def _value(self, owner: Any, name: str, form: str, place: _Place) -> str:
        value = _plain(getattr(owner, name))
        if not isinstance(value, str | int | float) or not str(value).isprintable():
            raise ValueError(
                f"cannot be sent: in {self._text!r} a number or a word was expected for {name!r}, got {value!r}"
            )
        try:
            return place.harmless(form.format(value))
        except ValueError as error:
            raise ValueError(f"cannot be sent: in {self._text!r}, {name!r} {error}") from None


class SetCommand:
    """A command such as ``"VOLT {:.3f}"``.

    Args:
        template: the command, with one ``{}`` for the value; attributes may be filled in as in :class:`Command`.
        rule: what values there are.

    Raises:
        TypeError: the template has not just one ``{}``, or its format does not fit the values of the rule.
    """

    def __init__(self, template: str, rule: Rule) -> None:
        self._rule = rule
        # Its own attributes first: what is left has the form of str.format, with one field for the value.
        own = [found[0] for found in _OWN.finditer(template)]
        try:
            pieces = list(string.Formatter().parse(_OWN.sub(_PLACE, template)))
        except ValueError as error:
            raise TypeError(f"the set command {template!r} is no command: {error}") from None
        fields = [(name, spec or "", conversion) for _, name, spec, conversion in pieces if name is not None]
        if len(fields) != 1 or fields[0][0] not in ("", "0") or "{" in fields[0][1]:
            found = "no" if not fields else "not just one, plain"
            raise TypeError(f"the set command {template!r} has {found} {{}} for the value")
        _, self._format, conversion = fields[0]
        if self._format.endswith("c"):
            raise TypeError(f"the set command {template!r} writes a number as a letter, which may end the command")
        self._field = f"{{{f'!{conversion}' if conversion else ''}:{self._format}}}"
        position = next(index for index, piece in enumerate(pieces) if piece[1] is not None)
        before = "".join(piece[0] for piece in pieces[: position + 1])
        after = "".join(piece[0] for piece in pieces[position + 1 :])
        self._place = _Place(before, after)
        places = before.count(_PLACE)
        self._before = Command(_put_back(before, own[:places]), after=after)
        self._after = Command(_put_back(after, own[places:]), before=before)
        self.attributes = [*self._before.attributes, *self._after.attributes]
        """Of the device or component, which are filled in."""
        for value in rule.examples():
            self._try(template, value)

    def text(self, value: Any, limits: Limits | None = None, owner: Any = None) -> str:
        """Return the command that sets ``value``, which the rule has converted and found within ``limits``.

        Args:
            value: converted.
            limits: the number that is sent must be within them, too.
            owner: the device or component whose attributes are filled in.

        Raises:
            ValueError: what would be sent is beyond the limits, is another value, or could be more than one
                command.
        """
        token = self._rule.token(value)
        sent = self._formatted(token)
        if self._rule.numeric:
            self._check_number(sent, value, limits)
        elif self._rule.choices is None:
            if not self._says(sent, token, rounded=True):
                raise ValueError(f"cannot be {value!r}: that would be sent as {sent!r}")
            sent = self._place.harmless(sent)
        return f"{self._before.filled(owner)}{sent}{self._after.filled(owner)}"

    def _formatted(self, token: Any) -> str:
        fraction = isinstance(token, numbers.Rational) and not isinstance(token, numbers.Integral)
        # Before Python 3.12 a Fraction has no formats.
        return self._field.format(float(token) if fraction and self._format else token)

    def _check_number(self, sent: str, value: Any, limits: Limits | None) -> None:
        number = self._number(sent)
        exact = _comparable_number(value)
        if number is None or (number != value if self._rule.type is int else not self._rounded(sent, number, exact)):
            raise ValueError(f"cannot be {value!r}: that would be sent as {sent!r}")
        if limits is not None and not within(number, limits):
            unit = f" {self._rule.unit}" if self._rule.unit else ""
            raise ValueError(
                f"must be {range_text(limits, self._rule.unit)}, got {value!r}{unit}, which would be sent as {sent!r}"
            )

    def _number(self, sent: str) -> float | None:
        """Return the number that the instrument will read; None if that cannot be told."""
        if self._format[-1:] in _BASES:
            try:
                return int(sent, _BASES[self._format[-1]])
            except ValueError:
                return None
        for separator in ",_":
            if separator in self._format:
                sent = sent.replace(separator, "")
        if self._format.endswith("%"):
            number = as_number(sent.strip().removesuffix("%"))
            return None if number is None else number / 100
        return as_number(sent.strip())

    def _rounded(self, sent: str, number: float, value: float) -> bool:
        """Return whether what is sent is the value, rounded to the digits that are sent, and not cut off."""
        digits, _, exponent = sent.lower().strip().removesuffix("%").partition("e")
        places = len(digits.partition(".")[2])
        last = 10.0 ** (int(exponent or 0) - places - (2 if self._format.endswith("%") else 0))
        return abs(number - value) <= last / 2 + _ROUNDING * abs(value) or number == value

    def _says(self, sent: str, token: Any, *, rounded: bool = False) -> bool:
        """Return whether what is sent, read back, is the value's form on the wire, or that number rounded."""
        if isinstance(token, str):
            return sent.strip() == token.strip()
        real = real_number(token)
        if real is None:
            return True  # only the driver knows how a value of its own type is read
        number = self._number(sent)
        if number is not None and (number == real or (rounded and self._rounded(sent, number, real))):
            return True
        try:
            return bool(type(token)(sent.strip()) == token)  # a Decimal of 0.1 is no float, a Fraction is 1/4
        except (ValueError, TypeError, ArithmeticError):
            return False

    def _try(self, template: str, value: Any) -> None:
        """Raise TypeError unless the format fits a value."""
        token = self._rule.token(value)
        try:
            sent = self._formatted(token)
        except (ValueError, TypeError) as error:
            raise TypeError(f"the set command {template!r} does not fit a value such as {token!r}: {error}") from None
        if not self._says(sent, token):
            raise TypeError(f"the set command {template!r} would send {token!r} as {sent!r}")


class _Place:
    """Where a value is put in a command.

    Args:
        before: what the author has written before it.
        after: what the author has written behind it.
    """

    def __init__(self, before: str, after: str) -> None:
        quote = _open_quote(before)
        self._quote = quote if quote and quote in after else ""
        self._strings_follow = any(one in after for one in _QUOTES)

    def harmless(self, sent: str) -> str:
        """Return a text in the form in which it can be here and cannot become a second command.

        Raises:
            ValueError: there is none.
        """
        if not sent.isprintable():
            raise ValueError(f"must be printable text, got {sent!r}")
        if self._quote:
            # A quote inside of a string is written twice (IEEE 488.2, 7.7.5).
            return sent.replace(self._quote, 2 * self._quote)
        if ";" in sent:
            # It separates the commands of one message (IEEE 488.2, 7.4.1).
            raise ValueError(f"must be text without ';', behind which another command begins, got {sent!r}")
        if self._strings_follow and (_open_quote(sent) or _BLOCK.search(sent)):
            # It would take the next quote for its own, and then what is meant to be inside of a string is outside.
            raise ValueError(f"must be text that ends each string, and has no block of data, got {sent!r}")
        return sent


def command_text(template: str, *values: Any) -> str:
    """Return a command with values in it, none of which can become a second command.

    For commands that a driver's own methods and functions send. ``self._write(command_text('DISP "{}"', text))`` sends
    what ``Setting('DISP "{}"', type=str, ...)`` would. Where the template has quotes around ``{}``, a quote inside of
    the text is written twice, and every printable character is allowed (IEEE 488.2, 7.7.5). Where it has none, a ``;``
    is refused. Not checked: limits, and whether the instrument knows the word.

    Args:
        template: the command, with one ``{}`` for each value, perhaps with its format, such as ``{:.3f}``.
        values: texts, numbers, truth values (sent as 1 and 0) and members of an Enum (sent by their values).

    Raises:
        DeviceValueError: a value could be more than one command, is a number that means no measurement, does not fit
            its format, or is of another type.
        TypeError: there is not one value for each ``{}``.
    """
    pieces = list(string.Formatter().parse(template))
    fields = [(name, spec or "") for _, name, spec, _ in pieces if name is not None]
    if len(fields) != len(values) or any(name or "{" in spec for name, spec in fields):
        raise TypeError(f"the command {template!r} needs a plain {{}} for each value, got {len(values)} values")
    written = [piece[0] for piece in pieces]
    left, sent = iter(values), []
    for number, (text, name, spec, conversion) in enumerate(pieces, 1):
        sent.append(text)
        if name is not None:
            place = _Place("".join(written[:number]), "".join(written[number:]))
            field = f"{{{f'!{conversion}' if conversion else ''}:{spec}}}"
            value = next(left)
            try:
                sent.append(place.harmless(_formatted(field, _plain(value))))
            except (ValueError, TypeError) as error:
                raise DeviceValueError(f"a value of {template!r} {error}", command=template) from None
    return "".join(sent)


def _formatted(field: str, token: Any) -> str:
    """Return a text or a number as it is sent; ValueError if it is neither, or is cut off."""
    number = real_number(token)
    if number is None and not isinstance(token, str):
        raise ValueError(f"must be a text or a number, got {token!r}")
    if number is not None and no_measurement(number):
        raise ValueError(f"must be a finite number, got {token!r}")
    sent = field.format(token)
    if number is None and sent.strip() != token.strip():
        raise ValueError(f"cannot be {token!r}: that would be sent as {sent!r}")
    return sent


def as_number(text: str) -> float | None:
    """Return the number in an instrument's text (an int if it is written as one), or None if it is not a number.

    More than a float can hold (``1e400``) is none.
    """
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    if math.isinf(number) and text.lower().lstrip("+-") != "inf":
        return None  # "1e400" would be infinity, which it does not say
    # Not through float if it can be avoided: float rounds large numbers.
    return int(text) if text.lstrip("+-").isdigit() else number


def decimal(reply: str) -> str:
    """Return a number in decimal digits if it was sent in another base (IEEE 488.2, 8.7.5 to 8.7.7) or as a word."""
    found = _IN_A_BASE.fullmatch(reply)
    if found is None:
        return _WORDS.get(reply.upper().removeprefix("+"), reply)
    try:
        return str(int(found[2], _LETTERS[found[1].upper()]))
    except ValueError:
        return reply  # a digit that there is not in the base


def _plain_type(kind: Any) -> Any:
    """Return the type of Python for numpy's truth values and texts; any other type unchanged.

    Raises:
        TypeError: it cannot say what a reply means.
    """
    if not callable(kind) or typing.get_origin(kind) is not None or hasattr(kind, "__supertype__"):
        raise TypeError(f"a type is a class or a function from a reply's text to a value, got {kind!r}")
    name = getattr(kind, "__name__", "")
    if getattr(kind, "__module__", None) in _MODULES_OF_TRUTH and name in _TRUTHS:
        raise TypeError(f"type={name} takes every text for true, or none; type=bool reads 0, 1, ON and OFF")
    numpy = imported("numpy")  # its classes do not exist before it was imported
    if numpy is not None and isinstance(kind, type):
        return bool if issubclass(kind, numpy.bool_) else str if issubclass(kind, numpy.str_) else kind
    return kind


def _without_dimensions(value: Any) -> Any:
    """Return the number in an array without dimensions, as numpy's; anything else unchanged."""
    return value[()] if getattr(value, "shape", None) == () and hasattr(value, "ndim") else value


def _exactly(number: Any, kind: Any) -> Any:
    """Return a number in a form from which the class of an exact one is made: 0.1 of a float is meant as 1/10."""
    if isinstance(number, numbers.Integral):
        return int(number)
    if isinstance(number, numbers.Rational):
        return number if issubclass(kind, numbers.Rational) else _exactly(float(number), kind)
    from decimal import Decimal

    return number if isinstance(number, Decimal) else Decimal(str(number))


def _quietly(make: Callable[[Any], Any], number: Any) -> Any:
    """Return what a class makes of a number, without numpy's warning that it does not fit: that is an error here."""
    numpy = imported("numpy")
    if numpy is None:
        return make(number)
    with numpy.errstate(all="ignore"):
        return make(number)


def _sum_of(kind: type[enum.Flag]) -> str:
    return ", ".join(f"{flag.value} ({flag.name})" for flag in kind)


def _whole(value: Any) -> int | None:
    """Return a number, or its text, as a whole number; None if it is not one.

    Not by way of float, which rounds those beyond 2**53.
    """
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, str):
        from decimal import Decimal

        value = Decimal(value)
    whole = int(value)
    return whole if whole == value else None


def distinct(values: Iterable[Any] | Mapping[Any, Any], what: str) -> dict[Any, Any]:
    """Return the values, each with what is sent for it.

    Raises:
        TypeError: there is none, or one is named twice. ``what`` says what a value is.
    """
    if hasattr(values, "keys"):
        found: dict[Any, Any] = dict(values)
    else:
        listed = list(values)
        found = {value: value for value in listed}
        if len(found) < len(listed):
            twice = next(value for value in found if listed.count(value) > 1)
            raise TypeError(f"the {what} {twice!r} is named twice")
    if not found:
        raise TypeError(f"there must be at least one {what}, got {values!r}")
    return found


def within(value: float, limits: Limits) -> bool:
    """Return whether a number is within limits."""
    low, high = limits
    # Written so that NaN, which compares false with everything, is not.
    return (low is None or value >= low) and (high is None or value <= high)


def checked(limits: Limits) -> Limits:
    """Return ``limits``; raise ValueError when they are no range."""
    low, high = limits
    for bound in limits:
        if bound is not None and no_measurement(bound):
            raise ValueError(
                f"{bound:g} cannot be a limit, because it stands for no measurement: where there is no limit, leave it "
                "out (in Python: None)"
            )
    if low is not None and high is not None and low > high:
        raise ValueError(f"the lowest value {low!r} is above the highest {high!r}")
    return low, high


def intersection(one: Limits | None, other: Limits | None) -> Limits | None:
    """Return the limits that satisfy both; None is no limits."""
    if one is None or other is None:
        return one or other
    lows = [low for low in (one[0], other[0]) if low is not None]
    highs = [high for high in (one[1], other[1]) if high is not None]
    # A limit that is not known, NaN, comes first: max and min return it then.
    return max(sorted(lows, key=_is_known), default=None), min(sorted(highs, key=_is_known), default=None)


def _is_known(bound: float) -> bool:
    return not math.isnan(bound)


def range_text(limits: Limits, unit: str | None) -> str:
    """Return limits as people write them: ``1 to 6``, ``at most 50 mA``."""
    low, high = (None if bound is None else f"{bound:.10g}" for bound in limits)
    text = f"{low} to {high}"
    if high is None:
        text = f"at least {low}"
    elif low is None:
        text = f"at most {high}"
    return f"{text} {unit}" if unit else text


def _plain(token: Any) -> Any:
    """Return what is written on the wire: of a member of an Enum its value, of a truth value 1 or 0."""
    if isinstance(token, enum.Enum):
        token = token.value
    return int(token) if isinstance(token, bool) else token


def _comparable(token: Any) -> Any:
    """Return a value that is equal for texts with the same meaning: a number; or a text, also for NaN.

    NaN is not equal to itself.
    """
    text = _text(token)
    number = as_number(text)
    if number is None:
        return text
    number = without_stand_ins(number)
    return number if number == number else "nan"


def _comparable_number(value: Any) -> float:
    """Return a number in a form that can be compared with floats: for a Decimal of 0.1, the float 0.1."""
    return value if isinstance(value, int) else float(value)


def _text(token: Any) -> str:
    """Return a text, or what is sent for a choice, as a text in which upper and lower case are the same."""
    return str(_plain(token)).strip().casefold()


def _truth(text: str) -> bool | None:
    """Return the truth value that a text means, in any form that instruments use; None if it means none."""
    word = text.lower()
    if word in _BOOLEANS:
        return _BOOLEANS[word]
    number = as_number(text)  # "+1", "01", "1.00000E+00"
    return bool(number) if number in (0, 1) else None


def _is_on_or_off(choice: Any, token: Any) -> bool:
    """Return whether a choice is the state of a switch, by its name or by what is sent for it."""
    names = (str(_name_of(choice)).lower(), str(_plain(token)).lower())
    return isinstance(choice, bool) or any(name in _BOOLEANS and not name.isdigit() for name in names)


def _name_of(choice: Any) -> Any:
    return choice.name if isinstance(choice, enum.Enum) else choice


def _is_meant(choice: Any, value: Any, wanted: Any) -> bool:
    """Return whether somebody who sets ``value``, which is ``wanted`` in the unit of the choices, means ``choice``.

    A member of an Enum is meant by itself, by its name and by its value.
    """
    if isinstance(choice, enum.Enum):
        if isinstance(value, enum.Enum):
            return value is choice
        # Also as it is written in Python, `Colour.RED`.
        name = value.removeprefix(f"{type(choice).__name__}.") if isinstance(value, str) else None
        if name is not None and type(choice).__members__.get(name) is choice:
            return True
        choice = choice.value
    if isinstance(wanted, float) and real_number(choice) == wanted:
        return True  # a Decimal of 0.1 is not equal to the float
    return bool(choice == wanted) and isinstance(choice, bool) == isinstance(wanted, bool)


def _boolean(value: Any) -> bool:
    if is_masked(value) or units.quantity_of(value) is not None:
        raise ValueError(f"must be true or false, got {value!r}")
    plain = value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value
    if isinstance(plain, bool):
        return plain
    text = plain.strip().lower() if isinstance(plain, str) else str(plain) if isinstance(plain, int) else ""
    if text not in _BOOLEANS:
        raise ValueError(f"must be true or false, got {value!r}")
    return _BOOLEANS[text]


def _put_back(text: str, own: Sequence[str]) -> str:
    """Return a part of a command with what is filled in there, in the places that are kept for it."""
    first, *rest = text.split(_PLACE)
    return first + "".join(one + other for one, other in zip(own, rest, strict=True))


def _open_quote(text: str) -> str:
    """Return the quote of the string that is still open at the end of ``text``; empty if none is open."""
    quote = ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
    return quote
