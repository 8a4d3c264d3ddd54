"""One line per quantity of an instrument: Control, Measurement and Setting.

::

    position = Control("pos?", "pos={}", type=int, limits=(1, 6), doc="Filter slot in the beam.")
    power = Measurement("MEAS:POW?", unit="W", doc="Optical power on the sensor.")
    enabled = Setting("OUTP {:d}", type=bool, doc="Laser output.")

Commands are text, for every device that has ``_query(command) -> str`` and ``_write(command)``; where that does not
fit, functions of the device take their place::

    gain = Control(lambda camera: camera._sdk.gain(), lambda camera, value: camera._sdk.set_gain(value), doc="...")

Either way a value is converted and checked before anything reaches the instrument, and so is the command that is made
of it: a number that its format would round to beyond a limit is refused, and a text is never more than a text. A reply
that is not what was declared is an error, never a guess.

A command may contain a value of the device itself, or of the component: ``"VOLT? (@{self.number})"``. That is a class
attribute, a private value such as ``_channel``, or a property that is marked ``@unlocked``.
"""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from catkit_devices._base.deferred import finished, refuse_deferred
from catkit_devices._device.values import Command, Limits, Rule, SetCommand, checked, intersection
from catkit_devices.device import DeviceProperty
from catkit_devices.errors import DeviceProtocolError, DeviceValueError
from catkit_devices.readings import real_number, without_stand_ins
from catkit_devices.units import check_unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Control", "Limits", "Measurement", "Quantity", "Setting"]

Get: TypeAlias = "str | Callable[[Any], Any]"
Set: TypeAlias = "str | Callable[[Any, Any], object]"


class Quantity(DeviceProperty):
    """What Control, Measurement and Setting have in common.

    Args:
        get: the command that reads it, or a function of the device that returns the value; None if it cannot be read.
            What a function returns is checked as a reply is.
        set: the command that sets it, with one ``{}`` for the value, or a function of the device and the value; None
            if it cannot be set. A function gets a plain value of the declared type: 3.0 for 3 where that is ``float``,
            3 for 3.0 where it is ``int``.
        type: ``float``, ``int``, ``bool``, ``str``, or a function from the reply's text to a value, which raises
            ValueError when the reply makes no sense; what a function ``get`` returns is then taken as it is (``tuple``
            or ``numpy.asarray`` for what is no single number). An Enum class means the same here as for ``choices``.
        unit: the unit of the plain numbers on the wire and in Python; a quantity or text such as ``"50 mA"`` is
            converted to it. One that does not exist is a ValueError where it is declared.
        limits: lowest and highest value, both included and in ``unit``; None on either side for no bound. Where they
            depend on the instrument, a function of the device that returns what the driver learned when it opened it;
            it may be called at any time while the device is open, so it must not talk to the instrument itself.
        choices: the values that are allowed, or a mapping from each of them to what stands for it on the wire. An
            Enum class is its members: the value of each stands for it on the wire, what is read is the member, and it
            can be set by member, name or value.
        doc: begins with the noun that is controlled or measured; states what unit and limits do not.
        shared: whether reading it skips the mutex, so that safety checks and displays never wait for a section.
        repeatable: whether a reading that finds the connection lost is done once more over a new one (never in a
            section): for readings that leave no trace in the instrument.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        get: Get | None,
        set: Set | None,  # noqa: A002 - its public name
        *,
        type: Callable[[str], Any] = float,  # noqa: A002 - its public name
        unit: str | None = None,
        limits: Limits | Callable[[Any], Limits] | None = None,
        choices: Iterable[Any] | Mapping[Any, Any] | None = None,
        doc: str,
        shared: bool = False,
        repeatable: bool = False,
    ) -> None:
        super().__init__(doc, shared=shared, repeatable=repeatable)
        if not self.doc:
            raise TypeError(f"a {self.kind} needs a doc that says what it is")
        for function in (get, set, type, limits):
            refuse_deferred(function, f"a function of the {self.kind} {self.doc!r}")
        self.readable = get is not None
        self.writable = set is not None
        self._get = get
        self._set = set
        check_unit(unit)
        self._rule = Rule(type, unit, choices)
        self._question = Command(get) if isinstance(get, str) else None
        self._command = SetCommand(set, self._rule) if isinstance(set, str) else None
        if limits is not None and not self._rule.numeric:
            raise TypeError("limits are for numbers; for anything else there are choices")
        self._limits = limits if callable(limits) or limits is None else checked(limits)

    def read(self, device: Any) -> Any:
        """Ask the instrument and return the value; NaN or infinity where its number stands for them (9.91E37, 9.9E37).

        Raises:
            DeviceProtocolError: when the reply, or what the function has returned, is not what was declared.
        """
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

    def _ask(self, device: Any, command: str) -> Any:
        ask = getattr(device, "_ask_for_", None)  # of a device that asks again for what may have been disturbed
        return device._query(command) if ask is None else ask(command, self._rule)  # noqa: SLF001 - what drivers implement

    def _parse(self, device: Any, reply: str) -> Any:
        plain = getattr(device, "_plain_", None)  # of a device that knows in which forms its instrument answers
        return self._rule.parse(reply.strip() if plain is None else plain(reply, self._rule))

    def write(self, device: Any, value: Any) -> None:
        """Check ``value`` and set it.

        Raises:
            DeviceValueError: when it is refused; nothing has reached the instrument.
        """
        plain = self.check(device, value)
        if self._command is not None:
            sent = device._write(self._command.text(plain, owner=device))  # noqa: SLF001 - what drivers implement
            if sent is not None:
                finished(sent, f"{type(device).__qualname__}._write")
        elif callable(self._set):
            finished(self._set(device, plain), f"the function that sets {device._prefix_}{self.name}")

    def check(self, device: Any, value: Any) -> Any:
        """Return ``value`` as a plain one in the declared unit, if it may be set; raises as :meth:`write` does."""
        limits = self.limits(device)
        try:
            plain = self._rule.convert(value)
            self._rule.check(plain, limits)
            if self._command is not None:
                self._command.text(plain, limits, device)
        except ValueError as error:
            raise DeviceValueError(f"{device._prefix_}{self.name} {error}", **device._facts_()) from None
        return plain

    def limits(self, device: Any = None) -> Limits | None:
        """Return the limits in force for ``device``, or without one those that the driver declares.

        Limits that depend on the instrument are known while the device is open; before, None stands for them.
        """
        if device is None:
            return None if callable(self._limits) else self._limits
        declared = self._limits
        if callable(declared):
            declared = _learned(f"{device._prefix_}{self.name}", declared(device)) if device._device_.is_open else None
        return intersection(declared, device._narrowed_.get(self.name))

    def describe(self, device: Any = None) -> dict[str, Any]:
        """Return everything that was declared, as plain data; with ``device``, the limits in force for it."""
        rule = self._rule
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
        }

    def fills_in(self) -> list[str]:
        """Return the attributes of the device or component that its commands contain."""
        return [
            name for command in (self._question, self._command) if command is not None for name in command.attributes
        ]

    def narrowed(self, limits: Sequence[Any]) -> Limits:
        """Return ``limits``, as a configuration has them, as numbers in the declared unit.

        Raises:
            ValueError: they make no sense, or would be wider than what the driver declares.
        """
        if not self.writable:
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
    ) -> None:
        super().__init__(
            get, None, type=type, unit=unit, choices=choices, doc=doc, shared=shared, repeatable=repeatable
        )


class Setting(Quantity):
    """A quantity that can be set, and that the instrument does not tell: ``Setting(set, ...)``."""

    kind = "setting"

    def __init__(
        self,
        set: Set,  # noqa: A002 - its public name
        *,
        type: Callable[[str], Any] = float,  # noqa: A002 - its public name
        unit: str | None = None,
        limits: Limits | Callable[[Any], Limits] | None = None,
        choices: Iterable[Any] | Mapping[Any, Any] | None = None,
        doc: str,
    ) -> None:
        super().__init__(None, set, type=type, unit=unit, limits=limits, choices=choices, doc=doc)


def _learned(name: str, limits: Any) -> Limits:
    """Return limits that an instrument has told: its stand-in for NaN allows nothing, that for infinity is no bound."""
    bounds = list(limits) if isinstance(limits, tuple | list) else []
    numbers = [bound if type(bound) is int else real_number(bound) for bound in bounds]
    if len(bounds) != 2 or [bound is None for bound in bounds] != [number is None for number in numbers]:
        raise TypeError(f"the function that tells the limits of {name} must return two numbers, got {limits!r}")
    low, high = (None if number is None else without_stand_ins(number) for number in numbers)
    return low, high


def _ignore(_reason: str) -> None:
    """Stand for what devices without a line do not need."""
