"""Drivers of PyMeasure: ``driver = "pymeasure:keithley.Keithley2450"``.

What a property declares is in the defaults of the arguments of its setter, where PyMeasure's ``control`` has put it:
``validator``, ``values``, ``map_values``. So nothing is opened to know it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import numbers
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from catkit_devices.foreign import (
    Children,
    Description,
    DriverSource,
    LeftOut,
    Member,
    bundled_class,
    missing,
    read_class,
)
from catkit_devices.hookspecs import hookimpl
from catkit_devices.units import check_unit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

__all__ = ["PyMeasureDrivers"]

_OF_THE_FRAMEWORK = frozenset(
    {
        "BaseChannelCreator",
        "ChannelCreator",
        "MultiChannelCreator",
        "adapter",
        "add_child",
        "control",
        "get_channel_pairs",
        "get_channels",
        "id_",
        "insert_id",
        "measurement",
        "parent",
        "remove_child",
        "setting",
    }
)
"""Members of PyMeasure's base classes that are for those who write its drivers."""
_UNITS = {
    "amp": "A", "ampere": "A", "amperes": "A", "amps": "A", "celsius": "degC", "degree": "deg", "degrees": "deg",
    "hertz": "Hz", "kelvin": "K", "meter": "m", "meters": "m", "ohm": "ohm", "ohms": "ohm", "percent": "percent",
    "radian": "rad", "radians": "rad", "second": "s", "seconds": "s", "tesla": "T", "volt": "V", "volts": "V",
    "watt": "W", "watts": "W",
}  # fmt: skip
"""Units that PyMeasure's documentation writes as words."""
_SYMBOLS = frozenset(
    {
        *(f"{prefix}{unit}" for unit in ("A", "Hz", "K", "V", "W", "m", "s", "T") for prefix in ["", *"mkun"]),
        *("MHz", "GHz", "dB", "dBm", "mbar", "bar", "Pa", "ohm", "deg", "rad", "ppm"),
    }
)  # fmt: skip
"""Units that its documentation writes as symbols, and that can be nothing else there."""
_IN_A_UNIT = re.compile(r"\bin (?:units of )?\[?([A-Za-z]+)\]?(?![\w/*^])")
"""Where a text names the unit of a property: "in volts", "in units of [V]"; not "in V/s"."""


class PyMeasureDrivers(DriverSource):
    """Finds PyMeasure's instrument classes by maker and name, or by module and name."""

    def find(self, text: str) -> type:
        """Return an instrument class: ``keithley.Keithley2450``, or ``my_package.my_module.MyInstrument``."""
        return bundled_class(
            text, _framework().Instrument, framework="PyMeasure", prefix="pymeasure", package="pymeasure.instruments",
            example="keithley.Keithley2450",
        )  # fmt: skip

    def describe(self, cls: type) -> Description:
        """Return what an instrument or channel class declares."""
        base = _framework()
        members, left_out = read_class(cls, without=_OF_THE_FRAMEWORK)
        described = [_declared(cls, member) for member in members]
        children, collections = _children(self, cls)
        names = {one.name for one in children} | set(collections)
        return Description(
            doc=inspect.getdoc(cls) or cls.__name__,
            members=tuple(one for one in described if isinstance(one, Member) and one.name not in names),
            children=tuple(children),
            left_out=tuple(
                one for one in [*left_out, *described] if isinstance(one, LeftOut) and one.name not in names
            ),
            question=_question(cls, base),
            uses_visa=issubclass(cls, base.Instrument),
            collections=collections,
        )

    def construct(self, cls: type, _name: str, address: str | None, library: Any, options: Mapping[str, Any]) -> Any:
        """Make the instrument on an adapter of PyMeasure that uses the library."""
        return cls(address, visa_library=library, **options)

    def resource(self, instrument: Any) -> Any:
        """Return the resource of the adapter."""
        return super().resource(instrument.adapter)

    def close(self, instrument: Any) -> None:
        """Close the adapter."""
        instrument.adapter.close()

    def claims(self, cls: type) -> bool:
        """Return whether a class is an instrument of PyMeasure."""
        return any(base.__module__.startswith("pymeasure.instruments") for base in cls.__mro__)


def _framework() -> ModuleType:
    try:
        return importlib.import_module("pymeasure.instruments")
    except ModuleNotFoundError as error:
        raise missing("PyMeasure", "pymeasure", error) from error


def _question(cls: type, base: ModuleType) -> Callable[[Any], Any] | None:
    """Return the function that asks an instrument what it is: its ``id``, where its class or SCPI defines one."""
    if not issubclass(cls, base.Instrument):
        return None
    defined = next(kind for kind in cls.__mro__ if "id" in vars(kind))
    return None if defined is base.Instrument else lambda instrument: instrument.id


def _declared(cls: type, member: Member) -> Member | LeftOut:
    """Return a member with what PyMeasure's declaration says of it."""
    found = inspect.getattr_static(cls, member.name) if hasattr(cls, member.name) else None
    if not isinstance(found, property):
        return member
    getter, setter = found.fget, found.fset
    readable = getter is not None and _default(getter, "get_command", "") is not None
    writable = setter is not None and _default(setter, "set_command", "") is not None
    if not (readable or writable):
        return LeftOut(member.name, "can be neither read nor set")
    facts: dict[str, Any] = {"readable": readable, "writable": writable}
    if writable and type(found) is property:
        facts |= _checked_by(_default(setter, "validator"), _default(setter, "values", ()))
    elif writable:  # a dynamic property, whose limits and choices may change with the instrument
        facts["now"] = functools.partial(_at_present, found, Member(member.name, member.doc, **facts))
    unit = _unit(member.doc)
    if unit is not None and "choices" not in facts and (facts.get("numeric") or not writable):
        facts["unit"] = unit
    return Member(member.name, member.doc, **facts)


def _at_present(found: Any, member: Member, instrument: Any) -> Member:
    """Return a member with what a dynamic property of an instrument allows now."""
    validator, values = (
        getattr(instrument, f"{found.prefix}{found.name}_{argument}", _default(found.fset, argument, otherwise))
        for argument, otherwise in (("validator", None), ("values", ()))
    )
    return replace(member, **_checked_by(validator, values))


def _checked_by(validator: Any, values: Any) -> dict[str, Any]:
    """Return what a validator of PyMeasure allows, as far as it can be told."""
    kind = getattr(validator, "__name__", "")
    try:
        if kind == "strict_discrete_set":
            return {"choices": tuple(values)} if len(values) else {}
        bounds = [float(value) for value in values] if kind in {"strict_range", "truncated_range"} else []
    except (TypeError, ValueError):
        return {}
    if not bounds or not all(isinstance(value, numbers.Real) and not isinstance(value, bool) for value in values):
        return {}
    low, high = min(bounds), max(bounds)
    if kind == "truncated_range":  # it takes what is beyond as the limit itself, so nothing is refused here
        return {"numeric": True}
    return {"numeric": True, "limits": (None if math.isinf(low) else low, None if math.isinf(high) else high)}


def _default(function: Any, argument: str, otherwise: Any = None) -> Any:
    """Return the default of an argument of a function that PyMeasure's ``control`` has made."""
    code, defaults = getattr(function, "__code__", None), getattr(function, "__defaults__", None) or ()
    names = () if code is None else code.co_varnames[: code.co_argcount]
    return dict(zip(names[len(names) - len(defaults) :], defaults, strict=True)).get(argument, otherwise)


def _unit(doc: str) -> str | None:
    """Return the unit that a documentation names, if it is one only."""
    found = set()
    for word in _IN_A_UNIT.findall(doc):
        unit = _UNITS.get(word.lower()) if len(word) > 2 else None
        if unit is None and word in _SYMBOLS:
            unit = word
        if unit is not None:
            found.add(unit)
    if len(found) != 1:
        return None
    unit = found.pop()
    try:
        check_unit(unit)
    except ValueError:
        return None
    return unit


def _children(source: PyMeasureDrivers, cls: type) -> tuple[list[Children], dict[str, dict[Any, str]]]:
    """Return the channels that a class declares, by the attributes that hold them; and the dicts that hold them too."""
    base: Any = importlib.import_module("pymeasure.instruments.common_base").CommonBase
    children: list[Children] = []
    collections: dict[str, dict[Any, str]] = {}
    for name, creator in base.get_channels(cls):
        several = isinstance(creator, base.MultiChannelCreator)
        prefix = creator.kwargs.get("prefix") if several else None
        for kind, number in creator.pairs:
            attribute = f"{prefix}{number}" if prefix and number is not None else name
            children.append(Children(attribute, source.describe(kind), _single(attribute)))
            if number is not None and attribute.isidentifier():
                collection = name if several else creator.kwargs.get("collection", "channels")
                if collection != attribute:
                    collections.setdefault(collection, {})[number] = attribute
    own = [one for kind in cls.__mro__ if kind not in base.__mro__ for one in vars(kind).values()]
    if any("add_child" in getattr(getattr(one, "__code__", None), "co_names", ()) for one in own):
        known = frozenset(one.name for one in children)
        children.append(Children("children", None, lambda parent: _added(parent, known), None))
    return [one for one in children if one.name.isidentifier()], collections


def _single(attribute: str) -> Callable[[Any], dict[str, Any]]:
    return lambda parent: {attribute: getattr(parent, attribute)}


def _added(parent: Any, known: frozenset[str]) -> dict[str, Any]:
    """Return the channels that an instrument's constructor has added, by their attributes."""
    channel = _framework().Channel
    found = {name: one for name, one in vars(parent).items() if isinstance(one, channel)}
    return {name: one for name, one in found.items() if name not in known and not name.startswith("_")}


@hookimpl
def catkit_devices_driver_sources() -> dict[str, DriverSource]:
    """Provide ``pymeasure:``."""
    return {"pymeasure": PyMeasureDrivers()}
