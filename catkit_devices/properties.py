"""One line per quantity of an instrument: Control, Measurement and Setting.

::

    position = Control("pos?", "pos={}", type=int, limits=(1, 6), doc="Filter slot in the beam.")
    power = Measurement("MEAS:POW?", unit="W", doc="Optical power on the sensor.")
    enabled = Setting("OUTP {:d}", type=bool, doc="Laser output.")

Commands are text, for every device that has ``_query(command) -> str`` and ``_write(command)``. If this does not fit,
give functions of the device instead::

    gain = Control(lambda camera: camera._sdk.gain(), lambda camera, value: camera._sdk.set_gain(value), doc="...")

One declaration may also be for several inputs, wait until the instrument has settled, have limits that depend on
another quantity, or be an array of numbers::

    temperature = Measurement("KRDG? {key}", arguments=("A", "B"), unit="K", doc="Temperature at the input.")
    setpoint = Control("SETP?", "SETP {}", unit="K", limits=(0, "highest"), settles_within=600.0, doc="Target.")
    trace = Measurement("CURV?", type=Array(">i2", scale=0.01), unit="V", doc="Waveform.")

In all cases a value is converted and checked before anything is sent, and so is the command that is made of it: a
number that the format would round beyond a limit is refused, and a text cannot become a second command. A function
makes its own command, so it puts texts into it with :func:`command_text`. A reply that does not fit the declaration is
an error.

A command may contain a value of the device itself, or of the component: ``"VOLT? (@{self.number})"``. That is a class
attribute, a private value such as ``_channel``, or a property that is marked ``@unlocked``.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import reprlib
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

from catkit_devices._base.deferred import Watched, done, refuse_deferred
from catkit_devices._device.arrays import Array
from catkit_devices._device.values import (
    Command,
    Limits,
    Rule,
    SetCommand,
    checked,
    command_text,
    distinct,
    intersection,
)
from catkit_devices.device import DeviceProperty
from catkit_devices.errors import DeviceError, DeviceProtocolError, DeviceTimeoutError, DeviceValueError, nearest
from catkit_devices.readings import no_measurement, real_number
from catkit_devices.units import check_unit, magnitude, quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Array", "Control", "Limits", "Measurement", "Quantity", "Setting", "command_text"]

Get: TypeAlias = "str | Callable[..., Any]"
Set: TypeAlias = "str | Callable[..., object]"
Bounds: TypeAlias = "tuple[float | str | None, float | str | None] | Callable[[Any], Limits]"
Arguments: TypeAlias = "Iterable[Any] | Mapping[Any, Any]"

_COMPLETE = ("*OPC", "*OPC?", "*WAI")
"""The ways to ask an instrument whether it has settled (IEEE 488.2, 12.5)."""
_KEY = "{key}"
"""The placeholder for an argument in a command."""
_UNKNOWN = object()
"""Stands for the limits of a function that was not called over this connection."""
_INSTEAD = {
    "choices={value: what stands for it on the wire}": "map_values val_mapping inst_true inst_false",
    "limits=(lowest, highest) for a range, choices=(...) for a list": "values validator vals valid_range min max "
    "minimum maximum range bounds options",
    "choices=..., with an Enum class": "enum",
    "the command that reads it, first": "get_cmd get_command command",
    "the command that sets it": "set_cmd set_command",
    "type=..., a function from the reply to the value": "get_parser get_process preprocess_reply cast input_decoration",
    "a function of the device and the value in the place of the command": "set_process command_process set_parser "
    "output_decoration scale offset",
    "the format in the command that sets it, such as {:.3f}": "format_code set_fmt",
    "type=Array(...), for a reply with several numbers": "separator maxsplit values_kwargs get_process_list",
    "ScpiDevice with errors = 'always' in the class": "check_set_errors check_get_errors",
    "limits=(0, 'other_property'), or a function of the device": "dynamic",
    "unit=...": "units",
    "doc=...": "docs docstring label description",
    "Measurement for what is only read, and Setting for what is only set": "readonly writeonly",
    "settles_within=..., in seconds": "post_delay inter_delay settle settling settling_time timeout",
    "settles_within=..., in seconds, and until=..., a function of the device and the value": "tolerance",
    "average=..., a number of readings": "mean mean_of averages averaging n samples",
    "arguments=('A', 'B'), with {key} in the command": "argument key keys parameter parameters channel channels",
    "a method that goes there in steps": "step",
    "_identify() of the driver, for what is set when it is opened": "initial_value initial_cache_value",
}
"""The arguments of a declaration, with the names that others use for the same: PyMeasure, QCoDeS and InstrumentKit, or
somebody who guesses. Of several in one declaration, the first in this list is named.
"""
_NOT_NEEDED = {
    "every reading asks the instrument": "max_val_age",
    "its name in the class is enough": "name instrument",
    "an experiment says what is recorded": "snapshot_value snapshot_get snapshot_exclude",
}
"""Why some of their arguments have no counterpart."""
_OF_CHARACTERS = frozenset({"list", "tuple", "set", "frozenset", "dict", "bytes", "array", "asarray", "ndarray"})
"""Types of Python and numpy that take a text for many characters, or for one value."""
_OURS = {word: f", but {ours}" for ours, words in _INSTEAD.items() for word in words.split()} | {
    word: f", because {why}" for why, words in _NOT_NEEDED.items() for word in words.split()
}
"""What is said of each of these words."""


class Quantity(DeviceProperty):
    """The base of Control, Measurement and Setting.

    Args:
        get: the command that reads it, or a function of the device that returns the value; None if it cannot be read.
            What a function returns is checked as a reply is.
        set: the command that sets it, with one ``{}`` for the value, or a function of the device and the value; None
            if it cannot be set. A function gets a plain value of the declared type: for ``float`` 3.0 instead of 3, for
            ``int`` 3 instead of 3.0.
        type: ``float``, ``int``, ``bool``, ``str``, another class of numbers (``Decimal``, ``numpy.int16``), ``Array``,
            or a function from the reply's text to a value, which raises ValueError if the reply makes no sense. With
            such a function, the result of a function ``get`` is used unchanged (give ``tuple`` or ``numpy.asarray`` if
            it is neither a number nor an array of numbers). An Enum class means the same here as for ``choices``.
        unit: the unit of the plain numbers on the wire and in Python; a quantity (of pint, astropy or unyt) or text
            such as ``"50 mA"`` is converted to it. A unit that does not exist is a ValueError when the class is made.
        limits: lowest and highest value, both included and in ``unit``; None on either side for no limit. If a limit
            is the value of another property: its name, with a minus sign for the negative of it,
            ``limits=("-range", "range")``; that property is read before each value is set. For anything else that
            depends on the instrument: one function of the device that returns both, ``limits=lambda self: (0, 0.9 *
            self.range)``. It is called when the device is opened and before each value is set, and may read properties
            of the device then. It must not set anything. If it raises an error, the device is not opened, or the value
            not set: without limits, nothing would be refused. For the same reason, a number that is no measurement
            (infinity, 9.9E37) is never a limit: as a number it is refused here, and nothing can be set while the
            instrument or the function tells such a one. Only None means that there is none.
        choices: the values that are allowed, or a mapping from each of them to its form on the wire. With an Enum
            class, the choices are its members: the value of a member is its form on the wire; a reading is a member;
            and it can be set by member, name or value.
        doc: begins with the noun that is controlled or measured; says what unit and limits do not.
        shared: whether it is read without the mutex, so that safety checks and displays never wait for a section.
        repeatable: whether a reading that finds the connection lost is repeated once over a new connection (never in a
            section): for readings that change nothing in the instrument.
        arguments: if there are several of it: their keys, ``arguments=("A", "B")``, or a mapping from each key to its
            form in the command, where it replaces ``{key}``. Each is a property of its own, with the name
            ``temperature['A']``; ``device.temperature["A"]`` reads it. A function instead of a command gets the
            argument after the device.
        average: number of readings of which one value is the mean; between them the operation can be cancelled.
        settles_within: seconds within which a value that was set must be reached; otherwise it is an error. Setting it
            waits until then, and can be cancelled.
        until: how to know that the value is reached: a function of the device and the value that returns whether it is,
            called every 0.1 s; or, for commands of IEEE 488.2, ``"*OPC"`` (with ``*ESR?``, in short exchanges; this is
            the default), ``"*OPC?"`` or ``"*WAI"``, which are one long exchange each.
    """

    kind: ClassVar[str]
    _declared: tuple[tuple[Any, ...], dict[str, Any]]
    """The arguments of the declaration: those without a name, and those with one."""

    def __new__(cls, *positional: Any, **named: Any) -> Self:
        """Refuse arguments with names of other frameworks before anything else is checked, and keep the others."""
        _refuse_foreign(cls, positional, named)
        made = super().__new__(cls)
        made._declared = positional, named
        return made

    def __init__(
        self,
        get: Get | None,
        set: Set | None,  # noqa: A002 - its public name
        *,
        type: Callable[[str], Any] = float,  # noqa: A002 - its public name
        unit: str | None = None,
        limits: Bounds | None = None,
        choices: Iterable[Any] | Mapping[Any, Any] | None = None,
        doc: str,
        shared: bool = False,
        repeatable: bool = False,
        arguments: Arguments | None = None,
        average: int = 1,
        settles_within: float | None = None,
        until: str | Callable[[Any, Any], bool] | None = None,
    ) -> None:
        super().__init__(doc, shared=shared, repeatable=repeatable)
        if not self.doc:
            raise TypeError(f"a {self.kind} needs a doc that says what it is")
        for function in (get, set, type, limits, until):
            refuse_deferred(function, f"a function of the {self.kind} {self.doc!r}")
        self.readable = get is not None
        self.writable = set is not None
        check_unit(unit)
        if isinstance(choices, str) or isinstance(arguments, str):
            raise TypeError(
                f"choices and arguments are several, such as ('A', 'B'), got the text {choices or arguments!r}"
            )
        if isinstance(get, str):
            _refuse_type_of_characters(type)
        self._rule = Rule(type, unit, choices)
        if limits is not None and not self._rule.numeric:
            raise TypeError("limits are for numbers; for anything else there are choices")
        self._limits = _checked_bounds(limits)
        self._depends = [] if callable(limits) else _names_in(limits)
        if (
            not isinstance(average, int)
            or isinstance(average, bool)
            or average < 1
            or (average > 1 and type is not float and not self._rule.several)
        ):
            raise TypeError(f"average is a number of readings, of a quantity of type float or Array, got {average!r}")
        self._average = average
        self._seconds = settles_within
        self._until = _checked_until(set, settles_within, until)
        if self._rule.several and isinstance(set, str):
            raise TypeError("an array is set by a function of the device and the value, not by a command")
        if arguments is None:
            self._use(get, set)
            return
        self._use(None, None)
        tokens = distinct(arguments, "argument")
        self.each = {key: self._with(key, token, get, set) for key, token in tokens.items()}
        self.readable = self.writable = False  # by itself

    def replace(self, **others: Any) -> Self:
        """Return the same quantity with other arguments, for a class that derives from the one which declares it.

        ``voltage = Supply.voltage.replace(limits=(0, 60))`` is the voltage of another model. Arguments have the names
        that they have in the declaration; the commands are ``get`` and ``set``.
        """
        positional, named = self._declared
        declared = inspect.signature(type(self).__init__).bind(self, *positional, **named).arguments
        return type(self)(**{name: one for name, one in declared.items() if name != "self"} | others)

    def _use(self, get: Get | None, set: Set | None) -> None:  # noqa: A002 - as in the constructor
        self._get = get
        self._set = set
        self._question = Command(get) if isinstance(get, str) else None
        if self._question is not None:
            self._rule.require_distinct_choices()
        for command in (get, set):
            if isinstance(command, str) and _KEY in command:
                raise TypeError(f"the command {command!r} has {_KEY} for an argument, so it needs arguments=(...)")
        self._command = SetCommand(set, self._rule) if isinstance(set, str) else None

    def _with(self, key: Any, token: Any, get: Get | None, set: Set | None) -> Quantity:  # noqa: A002 - as in the constructor
        """Return the quantity for one of the arguments."""
        if not isinstance(key, int | str) or isinstance(key, bool):
            raise TypeError(f"an argument must be a whole number or a text, got {key!r}")
        if not str(token).isprintable() or {*"{}"} & {*str(token)}:
            raise TypeError(f"an argument would be sent as {token!r}, which cannot be part of a command")
        commands: list[Any] = []
        for command in (get, set):
            if isinstance(command, str) and _KEY not in command:
                raise TypeError(f"the command {command!r} has no {_KEY} for the argument")
            filled: Any = functools.partial(_given, command, token) if callable(command) else command
            commands.append(command.replace(_KEY, str(token)) if isinstance(command, str) else filled)
        one = copy.copy(self)
        one._use(*commands)  # noqa: SLF001 - of this class
        return one

    def read(self, device: Any) -> Any:
        """Ask the instrument and return the value; NaN or infinity if the number means them (9.91E37, 9.9E37).

        Raises:
            DeviceProtocolError: the reply, or the result of the function, does not fit the declaration.
        """
        if (reads := device._device_._limit_reads_) is not None:  # a function that tells limits is running
            reads.append((device, self.name))
        values = [self._read_once(device)]
        while len(values) < self._average:
            device.wait(0.0)  # others may read in between, and the operation can be cancelled
            values.append(self._read_once(device))
        return values[0] if len(values) == 1 else _mean(values)

    def _read_once(self, device: Any) -> Any:
        try:
            command = None if self._question is None else self._question.filled(device)
        except ValueError as error:
            raise DeviceValueError(f"{device._prefix_}{self.name} {error}", **device._facts_()) from None
        found = self._get(device) if callable(self._get) else self._ask(device, command or "")
        try:
            return self._rule.returned(found) if command is None else self._parse(device, found)
        except ValueError as error:
            getattr(device, "_distrust_", _ignore)(
                f"{device._prefix_}{self.name} was answered with {reprlib.repr(found)}"
            )
            raise DeviceProtocolError(f"{device._prefix_}{self.name}: {error}", **device._facts_(command)) from error

    def question(self, device: Any) -> str | None:
        """Return the command that reads it; None where a function does, or where the device cannot say it now."""
        try:
            return None if self._question is None else self._question.filled(device)
        except ValueError:
            return None

    def _ask(self, device: Any, command: str) -> Any:
        if isinstance(self._rule.type, Array) and self._rule.type.binary:
            return device._query_binary(command)  # noqa: SLF001 - what drivers implement
        ask = getattr(device, "_ask_for_", None)  # of a device that asks again for what may have been disturbed
        return device._query(command) if ask is None else ask(device._query, command, self._rule)  # noqa: SLF001 - what drivers implement

    def _parse(self, device: Any, reply: Any) -> Any:
        if isinstance(self._rule.type, Array):
            return self._rule.type.scaled(self._rule.type(reply), device)
        plain = getattr(device, "_plain_", None)  # of a device that knows in which forms its instrument answers
        return self._rule.parse(reply.strip() if plain is None else plain(reply, self._rule))

    def write(self, device: Any, value: Any) -> None:
        """Check ``value`` and set it.

        Raises:
            DeviceValueError: it is refused; nothing was sent.
        """
        if device._device_._limit_reads_ is not None:
            raise TypeError(f"a function that tells limits may read, but it sets {device._prefix_}{self.name}")
        plain = self.check(device, value)
        if self._command is not None:
            command = self._command.text(plain, owner=device)
            if self._seconds is None or callable(self._until):
                sent = device._write(command)  # noqa: SLF001 - what drivers implement
                if sent is not None:
                    done(sent, f"{type(device).__qualname__}._write")
            else:
                self._complete(device, command, self._seconds)
        elif callable(self._set):
            what = f"the function that sets {device._prefix_}{self.name}"
            with Watched(what):
                done(self._set(device, plain), what)
        if callable(self._until):
            self._settle(device, plain, self._seconds or 0.0)
        self._tell_limits_anew(device)

    def _complete(self, device: Any, command: str, seconds: float) -> None:
        complete = getattr(device, "_complete_", None)
        if complete is None:
            raise TypeError(
                f"{device._prefix_}{self.name} settles_within {seconds:g} s, but {type(device).__qualname__} is no "
                "VisaDevice, so it needs until=..., a function of the device and the value"
            )
        complete(command, seconds, self._until or "*OPC")

    def _settle(self, device: Any, value: Any, seconds: float) -> None:
        until: Any = self._until
        if not device.wait(lambda: until(device, value), seconds, 0.1):
            unit = f" {self._rule.unit}" if self._rule.unit else ""
            raise DeviceTimeoutError(
                f"{device._prefix_}{self.name} has not settled at {value}{unit} in {seconds:g} s", **device._facts_()
            )

    def check(self, device: Any, value: Any, *, ask: bool = True) -> Any:
        """Return ``value`` as a plain value in the declared unit, if it may be set; raises as :meth:`write` does.

        Args:
            device: the device.
            value: to be set.
            ask: whether the properties on which its limits depend are read now; else what was read of them last counts.
        """
        try:
            if self._depends or callable(self._limits):
                self._rule.convert(value)  # a value that is always wrong is refused before the instrument is asked
            limits = self.limits(device, ask=ask)
            self._require_known(device, limits)
            return self.plain(value, limits, device)
        except DeviceError:
            raise
        except ValueError as error:
            raise DeviceValueError(f"{device._prefix_}{self.name} {error}", **device._facts_()) from None

    def plain(self, value: Any, limits: Limits | None = None, device: Any = None) -> Any:
        """Return ``value`` as a plain value in the declared unit.

        Args:
            value: to be set.
            limits: the present limits; None for those of the declaration.
            device: the device whose attributes are part of the command; None if there is none yet.

        Raises:
            ValueError: it may not be set.
        """
        limits = self.limits() if limits is None else limits
        plain = self._rule.convert(value)
        self._rule.check(plain, limits)
        if self._command is not None and (device is not None or not self._command.attributes):
            self._command.text(plain, limits, device)
        return plain

    def limits(self, device: Any = None, *, ask: bool = False) -> Limits | None:
        """Return the present limits for ``device``; without a device, those that the driver declares.

        Limits that depend on the instrument are known only while the device is open; before that they are None. For a
        limit that is another property, the last reading of that property is used, and before the first reading, its own
        limit; for a function that reads properties, what it returned last. A limit is NaN, which allows nothing, if the
        number is no measurement (9.9E37, infinity): the instrument does not say what it is.

        Args:
            device: the device, or None.
            ask: whether the properties on which the limits depend are read now.
        """
        declared: Any = self._limits
        if device is None:
            return None if callable(declared) or self._depends else declared
        if callable(declared) or self._depends:
            declared = None
            if device._device_.is_open:
                if ask:
                    self._ask_for_limits(device)
                told = self._present_bounds(device)
                declared = None if told is _UNKNOWN else _learned(f"{device._prefix_}{self.name}", told)
        return intersection(declared, device._narrowed_.get(self.narrowed_as))

    def _present_bounds(self, device: Any) -> Any:
        """Return both limits as the instrument, or the function, has told them; _UNKNOWN if it was not asked."""
        return (self._bound(device, 0), self._bound(device, 1)) if self._depends else self._told(device)

    def _require_known(self, device: Any, limits: Limits | None) -> None:
        """Raise ValueError if one of the present limits is no measurement."""
        for side, bound in enumerate(limits or ()):
            if bound is not None and math.isnan(bound):
                whose = f"{device._prefix_}{self._limits[side]}" if self._depends else "what its function tells"
                raise ValueError(
                    f"cannot be set, because its {('lowest', 'highest')[side]} value is not known: {whose} is "
                    f"{self._present_bounds(device)[side]:g}, which is no measurement"
                )

    def depends_on(self) -> list[str]:
        """Return the properties that its limits are declared to be."""
        return self._depends

    def limits_read(self, device: Any) -> list[tuple[Any, str]]:
        """Return the properties that are read for its limits, with their device or component.

        Those that a function reads are known when it was called.
        """
        known = device._bounds_.get(self._limits) if callable(self._limits) else None
        if known is None:
            return [(device, name) for name in self._depends]
        return [(owner, name) for owner, name in known.reads if name]

    def learn(self, device: Any) -> None:
        """Read the properties on which its limits depend, or have the function tell them."""
        if callable(self._limits):
            self._ask_for_limits(device)
        for bound in self._depends:
            other = inspect.getattr_static(type(device), bound)
            if isinstance(other, Quantity):
                device._bounds_.note(bound, other.read(device))

    def _ask_for_limits(self, device: Any) -> None:
        """Read what its limits are now, and remember it for those who must not ask the instrument."""
        if not callable(self._limits):
            for bound in self._depends:
                device._bounds_.note(bound, getattr(device, bound))
            return
        with device._device_._limit_reads_noted_() as reads:
            try:
                told = self._limits(device)
            except (ArithmeticError, LookupError, ValueError) as error:
                if isinstance(error, DeviceError):
                    raise
                why = f"{type(error).__name__}: {error}"
                problem = f"the function that tells the limits of {device._prefix_}{self.name} has failed: {why}"
                raise DeviceProtocolError(problem, **device._facts_()) from error
        device._bounds_.note(self._limits, told, reads, self)

    def _tell_limits_anew(self, device: Any) -> None:
        """Read those limits of others again that depend on this property, which was just set."""
        for of, known in list(device._bounds_.items()):
            if of == self.name and self.readable:
                device._bounds_.note(of, self.read(device))
            elif known.whose is not None and (device, self.name) in known.reads:
                known.whose.learn(device)

    def _told(self, device: Any) -> Any:
        """Return what the function tells: now, if it does not use the instrument, and else what it told last."""
        known = device._bounds_.now(self._limits)
        if known is None:
            return _UNKNOWN
        return known.value if known.reads else self._limits(device)

    def _bound(self, device: Any, side: int) -> float | None:
        bound: Any = self._limits[side]
        if not isinstance(bound, str):
            return None if bound is None else float(bound)
        name, negative = bound.removeprefix("-"), bound.startswith("-")
        other = inspect.getattr_static(type(device), name)
        known = device._bounds_.now(name)
        value = unit = None
        if isinstance(other, Quantity):
            value, unit = other._furthest(1 - side if negative else side), other._rule.unit  # noqa: SLF001 - of this class
        if known is not None:
            value = known.value
        if value is None:
            return None
        if unit is not None and self._rule.unit is not None and unit != self._rule.unit:
            value = magnitude(quantity(value, unit), self._rule.unit)
        return -float(value) if negative else float(value)

    def _furthest(self, side: int) -> float | None:
        """Return the lowest (side 0) or highest value that it may have; None if that is not known."""
        choices = [one for one in self._rule.choices or () if real_number(one) is not None]
        if choices:
            return float((min, max)[side](choices))
        limits = self.limits()
        return None if limits is None else limits[side]

    def describe(self, device: Any = None) -> dict[str, Any]:
        """Return everything that was declared, as plain data; with ``device``, its present limits."""
        rule = self._rule
        shape = {"shape": rule.type.shape, "dtype": rule.type.dtype} if isinstance(rule.type, Array) else {}
        arguments = {"arguments": list(self.each)} if self.each else {}
        return {
            "kind": self.kind,
            "type": rule.type_name,
            "unit": rule.unit,
            "limits": self.limits(device),
            "choices": rule.choice_names,
            "doc": self.doc,
            "readable": self.readable,
            "writable": self.writable,
            "shared": self.shared,
            **shape,
            **arguments,
        }

    def fills_in(self) -> list[str]:
        """Return the attributes of the device or component that its commands contain."""
        return [
            name for command in (self._question, self._command) if command is not None for name in command.attributes
        ]

    def narrowed(self, limits: Sequence[Any]) -> Limits:
        """Return the limits of a configuration as numbers in the declared unit.

        Raises:
            ValueError: they make no sense, or are wider than the limits that the driver declares.
        """
        if not self.writable and not any(one.writable for one in self.each.values()):
            raise ValueError("cannot be set, so it has no limits")
        return self._rule.narrowed(limits, self.limits())


class Control(Quantity):
    """A quantity that can be read and set: ``Control(get, set, ...)``."""

    kind = "control"


class Measurement(Quantity):
    """A quantity that can be read: ``Measurement(get, ...)``."""

    kind = "measurement"

    def __init__(
        self,
        get: Get,
        *,
        type: Callable[[str], Any] = float,  # noqa: A002 - its public name
        unit: str | None = None,
        choices: Iterable[Any] | Mapping[Any, Any] | None = None,
        doc: str,
        shared: bool = False,
        repeatable: bool = False,
        arguments: Arguments | None = None,
        average: int = 1,
    ) -> None:
        super().__init__(
            get,
            None,
            type=type,
            unit=unit,
            choices=choices,
            doc=doc,
            shared=shared,
            repeatable=repeatable,
            arguments=arguments,
            average=average,
        )


class Setting(Quantity):
    """A quantity that can be set, but not read from the instrument: ``Setting(set, ...)``."""

    kind = "setting"

    def __init__(
        self,
        set: Set,  # noqa: A002 - its public name
        *,
        type: Callable[[str], Any] = float,  # noqa: A002 - its public name
        unit: str | None = None,
        limits: Bounds | None = None,
        choices: Iterable[Any] | Mapping[Any, Any] | None = None,
        doc: str,
        arguments: Arguments | None = None,
        settles_within: float | None = None,
        until: str | Callable[[Any, Any], bool] | None = None,
    ) -> None:
        super().__init__(
            None,
            set,
            type=type,
            unit=unit,
            limits=limits,
            choices=choices,
            doc=doc,
            arguments=arguments,
            settles_within=settles_within,
            until=until,
        )


def _refuse_foreign(cls: type[Quantity], positional: tuple[Any, ...], named: Mapping[str, object]) -> None:
    kind = cls.kind
    for word in _OURS:
        if word in named:
            raise TypeError(f"a {kind} has no {word}=...{_OURS[word]}")
    known = _parameters(cls)
    for word in named:
        if known and word not in known:
            near = nearest(word, known)
            hint = f"did you mean {near}=...?" if near else f"it has {', '.join(known)}"
            raise TypeError(f"a {kind} has no {word}=...: {hint}")
    if positional and "doc" in known and "doc" not in named and len(positional) <= (2 if kind == "control" else 1):
        raise TypeError(f"a {kind} needs doc=..., a text that says what it is")
    if positional and isinstance(positional[-1], str) and len(positional) > (2 if kind == "control" else 1):
        raise TypeError(f"the doc of a {kind} must be given by name: doc={positional[-1]!r}")


def _parameters(cls: type[Quantity]) -> tuple[str, ...]:
    """Return the names of the arguments of a declaration; none if its class takes others too."""
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return () if any(one.kind is one.VAR_KEYWORD for one in parameters) else tuple(one.name for one in parameters)


def _refuse_type_of_characters(kind: Any) -> None:
    """Refuse a type that makes something of each character of a reply."""
    if kind is Array:
        raise TypeError("the type of an array is Array(...), got the class: type=Array()")
    if getattr(kind, "__module__", None) in ("builtins", "numpy") and kind.__name__ in _OF_CHARACTERS:
        raise TypeError(
            f"type={kind.__name__} does not make numbers of the text of a reply; type=Array() does, where commas are "
            "between them"
        )


def _names_in(limits: Any) -> list[str]:
    """Return the properties that are limits, each once."""
    return list(dict.fromkeys(bound.removeprefix("-") for bound in limits or () if isinstance(bound, str)))


def _checked_bounds(limits: Bounds | None) -> Any:
    if limits is None or callable(limits):
        return limits
    if not isinstance(limits, tuple | list) or len(limits) != 2:
        raise TypeError(
            "limits are the lowest and the highest value, (0, 5), each a number or the name of a property, or one "
            f"function of the device that returns both, got {limits!r}"
        )
    if any(callable(bound) for bound in limits):
        raise TypeError(
            "limits are two numbers or names of properties, or one function of the device that returns both, got a "
            "function as one of the two"
        )
    for bound in limits:
        if not (bound is None or isinstance(bound, str)) and real_number(bound) is None:
            raise TypeError(f"a limit is a number, the name of a property, or None for no limit, got {bound!r}")
    low, high = limits
    checked((None if isinstance(low, str) else low, None if isinstance(high, str) else high))
    return low, high


def _checked_until(set_: Set | None, seconds: float | None, until: Any) -> Any:
    if seconds is None and until is not None:
        raise TypeError("until=... needs settles_within=..., the seconds after which it is an error")
    if seconds is not None and not ((number := real_number(seconds)) and 0 < number < math.inf):
        raise TypeError(f"settles_within must be a number of seconds above 0, got {seconds!r}")
    if until is not None and not callable(until) and until not in _COMPLETE:
        raise TypeError(
            f"until must be a function of the device and the value, or one of {', '.join(_COMPLETE)}, got {until!r}"
        )
    if seconds is not None and callable(set_) and not callable(until):
        raise TypeError("what a function sets needs until=..., a function of the device and the value")
    return until


def _mean(values: list[Any]) -> Any:
    """Return the mean of numbers or arrays; of equal numbers it is that number."""
    finite = all(isinstance(value, float) and math.isfinite(value) for value in values)
    return (math.fsum(values) if finite else sum(values[1:], values[0])) / len(values)


def _given(function: Callable[..., Any], argument: Any, device: Any, *value: Any) -> Any:
    """Call a function of a quantity that has arguments."""
    return function(device, argument, *value)


def _learned(name: str, limits: Any) -> Limits:
    """Return limits that an instrument has sent: NaN, which allows nothing, for a number that is no measurement."""
    bounds = list(limits) if isinstance(limits, tuple | list) else []
    numbers = [bound if type(bound) is int else real_number(bound) for bound in bounds]
    if len(bounds) != 2 or [bound is None for bound in bounds] != [number is None for number in numbers]:
        raise TypeError(f"the function that tells the limits of {name} must return two numbers, got {limits!r}")
    low, high = (math.nan if number is not None and no_measurement(number) else number for number in numbers)
    return low, high


def _ignore(_reason: str) -> None:
    """Do nothing: for devices without a line."""
