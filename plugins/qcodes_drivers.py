"""Drivers of QCoDeS: ``driver = "qcodes:Keysight.Keysight34465A"``.

A class of QCoDeS tells its methods only: the constructor adds parameters, channels and modules. What of these can be
read in its source is told before anything is opened; when a device is open, its object tells all of them, with units,
limits and choices.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import json
import math
from dataclasses import dataclass, replace
from types import FunctionType
from typing import TYPE_CHECKING, Any, get_type_hints

from catkit_devices.foreign import (
    Children,
    Description,
    DriverSource,
    LeftOut,
    Member,
    attributes_set_by,
    bundled_class,
    missing,
    read_class,
    syntax_of,
)
from catkit_devices.hookspecs import hookimpl
from catkit_devices.units import check_unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

__all__ = ["QCoDeSDrivers"]

_BASES = ("qcodes.instrument.", "qcodes.metadatable.", "qcodes.utils.")
"""Modules of QCoDeS's base classes. Most of what they have is for those who write its drivers."""
_FOR_USERS = frozenset(
    {"ask", "ask_raw", "device_clear", "get_idn", "invalidate_cache", "snapshot", "write", "write_raw"}
)
"""What else they have, for those who use a driver."""
_NO_LIMIT = 1e18
"""QCoDeS's integer for "no limit" (``BIGSTRING`` and ``BIGINT`` in qcodes.validators)."""


class QCoDeSDrivers(DriverSource):
    """Finds QCoDeS's instrument classes by maker and name, or by module and name."""

    def find(self, text: str) -> type:
        """Return an instrument class: ``Keysight.Keysight34465A``, or ``my_package.my_module.MyInstrument``."""
        return bundled_class(
            text, _framework().Instrument, framework="QCoDeS", prefix="qcodes", package="qcodes.instrument_drivers",
            example="Keysight.Keysight34465A",
        )  # fmt: skip

    def describe(self, cls: type) -> Description:
        """Return what a class tells before an object of it is made: methods, and parameters in its source."""
        uses_visa = issubclass(cls, _framework().VisaInstrument)
        members, left_out = read_class(cls, without=_not_for_users(cls))
        parameters = {one.name: one for one in _parameters_in_source(cls)}
        methods = [one for one in members if one.function is not None and one.name not in parameters]
        return Description(
            doc=inspect.getdoc(cls) or cls.__name__,
            members=(*parameters.values(), *methods),
            left_out=tuple(left_out),
            question=_question if uses_visa else None,
            uses_visa=uses_visa,
            complete=False,
        )

    def describe_opened(self, instrument: Any) -> Description:
        """Return what an object has: parameters, functions, methods, attributes, modules and channels."""
        return _Opened(instrument).description(asks=_has_said_what_it_is(instrument))

    def names(self, instrument: Any) -> list[str]:
        """Return the names of its parameters, functions, modules and channels, and of the parameters of its modules."""
        names = [*instrument.parameters, *instrument.functions, *instrument.submodules]
        for one in instrument.submodules.values():
            if isinstance(one, _kinds().InstrumentBase):
                names += one.parameters
            elif isinstance(one, _kinds().ChannelTuple):
                names += [channel.short_name for channel in one]
        return names

    def construct(self, cls: type, name: str, address: str | None, library: Any, options: Mapping[str, Any], /) -> Any:
        """Make the instrument."""
        if library is None:
            return cls(name, **options)
        if not getattr(library, "machine_wide", True):
            # QCoDeS knows a simulation by this name, and then asks for no greeting that its simulated instruments lack.
            library.__class__ = type("SimVisaLibrary", (type(library),), {})
        return cls(name, address, visalib=library, **options)

    def snapshot(self, instrument: Any) -> dict[str, Any]:
        """Return QCoDeS's snapshot, with the values that it knows, in the form in which QCoDeS writes it as JSON."""
        encoder = importlib.import_module("qcodes.utils").NumpyJSONEncoder
        made: dict[str, Any] = json.loads(json.dumps(instrument.snapshot(update=False), cls=encoder))
        return made

    def claims(self, cls: type) -> bool:
        """Return whether a class is an instrument of QCoDeS."""
        return any(base.__module__.startswith("qcodes.instrument.") for base in cls.__mro__)


def _framework() -> ModuleType:
    try:
        return importlib.import_module("qcodes.instrument")
    except ModuleNotFoundError as error:
        raise missing("QCoDeS", "qcodes", error) from error


def _question(instrument: Any) -> str:
    """Ask an instrument what it is, by ``*IDN?`` or what its driver has instead."""
    told = instrument.get_idn()
    if not _is_told(told):
        raise ValueError(f"the instrument did not say what it is: {told}")
    return ",".join(str(part) for part in told.values() if part is not None)


def _is_told(idn: Any) -> bool:
    # Where the question fails, QCoDeS returns the name of the object as the model, and nothing else.
    return isinstance(idn, dict) and any(idn.get(part) for part in ("vendor", "serial", "firmware"))


def _has_said_what_it_is(instrument: Any) -> bool:
    """Return whether the constructor has asked it, and got an answer: then the question can be asked again."""
    idn = instrument.parameters.get("IDN")
    return idn is not None and _is_told(idn.cache.get(get_if_invalid=False))


@functools.cache
def _not_for_users(cls: type) -> frozenset[str]:
    """Return the members of a class that are QCoDeS's own, and not of the driver."""
    bases = [base for base in cls.__mro__ if _is_base(base)]
    of_bases = {name for base in bases for name in (*dir(base), *attributes_set_by(base))}
    own = {name for base in cls.__mro__ if not _is_base(base) and base is not object for name in vars(base)}
    return frozenset((of_bases - own - _FOR_USERS) | {"close", "parameters", "functions", "submodules"})


def _is_base(cls: type) -> bool:
    return f"{cls.__module__}.".startswith(_BASES)


# --- what an object has


@dataclass(frozen=True)
class _Read:
    """Reads a parameter."""

    name: str

    def __call__(self, owner: Any) -> Any:
        return _parameter(owner, self.name).get()


@dataclass(frozen=True)
class _Write:
    """Sets a parameter, after the driver has checked the value."""

    name: str

    def __call__(self, owner: Any, value: Any) -> None:
        parameter = _parameter(owner, self.name)
        try:
            parameter.validate(value)
        except (TypeError, ValueError) as error:
            raise ValueError("; ".join(map(str, error.args))) from error
        parameter.set(value)


def _parameter(owner: Any, name: str) -> Any:
    if name not in owner.parameters:
        raise AttributeError(f"{owner.full_name} has no parameter {name!r} now")
    return owner.parameters[name]


@dataclass(frozen=True)
class _Now:
    """Tells what a parameter declares at present: drivers change limits and choices of an open instrument."""

    name: str

    def __call__(self, owner: Any) -> Member:
        return _declared(owner.parameters[self.name], self.name)


@dataclass(frozen=True)
class _Module:
    """Finds a module of an instrument, by its attribute."""

    name: str

    def __call__(self, owner: Any) -> dict[str, Any]:
        return {self.name: owner.submodules.get(self.name) or getattr(owner, self.name)}


@dataclass(frozen=True)
class _Channels:
    """Finds the channels of a list, by their names."""

    name: str

    def __call__(self, owner: Any) -> dict[Any, Any]:
        return _by_name(owner.submodules.get(self.name) or getattr(owner, self.name))


class _Opened:
    """Describes an object of QCoDeS.

    Args:
        instrument: an instrument, module or channel.
        above: the objects of which it is a part.
    """

    def __init__(self, instrument: Any, above: tuple[Any, ...] = ()) -> None:
        self._object = instrument
        self._above = (*above, instrument)
        self._left_out: list[LeftOut] = []

    def description(self, *, asks: bool = False) -> Description:
        """Return the description.

        Args:
            asks: whether the instrument can be asked what it is.
        """
        cls = type(self._object)
        children, collections = self._children()
        names = {one.name for one in children} | set(collections)
        members = {name: one for name, one in self._members(cls).items() if name not in names}
        return Description(
            doc=inspect.getdoc(cls) or cls.__name__,
            members=tuple(members.values()),
            children=tuple(children),
            left_out=tuple(one for one in self._left_out if one.name not in names and one.name not in members),
            question=_question if asks else None,
            uses_visa=isinstance(self._object, _framework().VisaInstrument),
            collections=collections,
        )

    def _members(self, cls: type) -> dict[str, Member]:
        members: dict[str, Member] = {}
        for name, parameter in self._object.parameters.items():
            if not (parameter.gettable or parameter.settable):
                self._left_out.append(LeftOut(name, "can be neither read nor set"))
            elif name.startswith("_"):
                self._left_out.append(LeftOut(name, _PRIVATE))
            else:
                members[name] = _declared(parameter, name)
        for name, function in self._object.functions.items():
            members.setdefault(name, Member(name, f"Function {name!r} of the driver.", function=_function(function)))
        of_class, left_out = read_class(cls, without=_not_for_users(cls))
        self._left_out += left_out
        for one in of_class:
            if one.function is not None and (kind := _returned(one.function)) is not None:
                self._left_out.append(LeftOut(one.name, f"returns a {kind.__name__}, which is an object of the driver"))
            elif one.function is not None or isinstance(inspect.getattr_static(cls, one.name, None), property):
                members.setdefault(one.name, one)
        for name, value in vars(self._object).items():
            if name.startswith("_") or name in members or name in _not_for_users(cls):
                continue
            if isinstance(value, bool | int | float | str | bytes | None):
                members[name] = Member(name, f"Attribute {name!r} of the driver's object.", writable=True)
            elif isinstance(value, dict | list | tuple):  # what is in it can be changed by the driver only
                members[name] = Member(name, f"Attribute {name!r} of the driver's object.")
            elif not isinstance(value, _kinds().InstrumentBase | _kinds().ChannelTuple):
                self._left_out.append(LeftOut(name, f"is an object of the class {type(value).__name__}"))
        return members

    def _children(self) -> tuple[list[Children], dict[str, dict[Any, str]]]:
        children: list[Children] = []
        collections: dict[str, dict[Any, str]] = {}
        found = {**self._object.submodules}
        known = set(map(id, found.values()))
        for name, value in vars(self._object).items():
            is_part = isinstance(value, _kinds().InstrumentModule | _kinds().ChannelTuple)
            if is_part and not name.startswith("_") and id(value) not in known:
                found.setdefault(name, value)
        single = {id(one): name for name, one in found.items() if isinstance(one, _kinds().InstrumentBase)}
        for name, one in found.items():
            if any(one is other for other in self._above):
                continue
            if name.startswith("_"):
                self._left_out.append(LeftOut(name, _PRIVATE))
            elif isinstance(one, _kinds().InstrumentBase):
                children.append(Children(name, _Opened(one, self._above).description(), _Module(name)))
            elif isinstance(one, _kinds().ChannelTuple):
                channels = _by_name(one)
                if channels and all(id(channel) in single for channel in channels.values()):
                    collections[name] = {key: single[id(channel)] for key, channel in channels.items()}
                else:
                    children.append(self._channels(name, channels))
            else:
                self._left_out.append(LeftOut(name, f"is a submodule of the class {type(one).__name__}"))
        return [*children, *self._chosen()], collections

    def _chosen(self) -> Iterator[Children]:
        """Yield the properties of the driver that are one of its modules, which one depends on the instrument."""
        cls: Any = type(self._object)
        for name in dir(cls):
            found = inspect.getattr_static(cls, name, None)
            if not isinstance(found, property) or name.startswith("_") or name in _not_for_users(cls):
                continue
            kind = _returned(found.fget)
            modules = [one for one in self._object.submodules.values() if kind is not None and isinstance(one, kind)]
            if modules:
                several = [_Opened(one, self._above).description() for one in modules]
                yield Children(name, _in_common(several), _Module(name))
            elif kind is not None:
                self._left_out.append(LeftOut(name, f"is a {kind.__name__} that is made anew"))

    def _channels(self, name: str, channels: Mapping[Any, Any]) -> Children:
        each = {key: _Opened(channel, self._above).description() for key, channel in channels.items()}
        kinds = list(each.values())
        alike = bool(kinds) and all(kind == kinds[0] for kind in kinds)
        return Children(name, kinds[0] if alike else each, _Channels(name), tuple(each))


_PRIVATE = "is private to the driver"
"""Why what begins with an underscore is left out."""


def _returned(function: Any) -> type | None:
    """Return the class of QCoDeS's objects that a function returns, according to its annotation; None for all else."""
    try:
        kind = get_type_hints(function).get("return")
    except Exception:  # noqa: BLE001 - an annotation may name what exists for type checkers only
        return None
    is_object = isinstance(kind, type) and issubclass(kind, _kinds().InstrumentBase)
    return kind if is_object else None


def _in_common(several: list[Description]) -> Description:
    """Return one description for modules of which only one is in use at a time: it has what any of them has."""
    members: dict[str, list[Member]] = {}
    for description in several:
        for one in description.members:
            members.setdefault(one.name, []).append(replace(one, now=None))
    return replace(several[0], members=tuple(_any_of(found) for found in members.values()))


def _any_of(found: list[Member]) -> Member:
    first = found[0]
    if all(one == first for one in found):
        return first
    unit = first.unit if all(one.unit == first.unit for one in found) else None
    readable, writable = any(one.readable for one in found), any(one.writable for one in found)
    # What may be set depends on the module, and only the driver can check it.
    return Member(first.name, first.doc, first.function, readable, writable, unit=unit, read=first.read,
                  write=first.write)  # fmt: skip


def _kinds() -> ModuleType:
    return importlib.import_module("qcodes.instrument")


def _by_name(channels: Any) -> dict[Any, Any]:
    """Return the channels of a list by their names; by their places in it, if two have the same name."""
    named = {str(channel.short_name): channel for channel in channels}
    return named if len(named) == len(channels) else dict(enumerate(channels))


def _function(function: Any) -> Callable[..., Any]:
    """Return a plain function with the signature of a Function of QCoDeS, which takes a fixed number of arguments."""
    count = getattr(function, "_arg_count", 0)
    names = [f"value{number}" for number in range(1, count + 1)] if count > 1 else ["value"] * count

    def call(_self: Any, *args: Any) -> Any:
        return function(*args)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in ["self", *names]]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it from there
    return call


# --- parameters


def _declared(parameter: Any, name: str) -> Member:
    """Return what a parameter declares."""
    facts: dict[str, Any] = {"readable": parameter.gettable, "writable": parameter.settable}
    facts |= _checked_by(parameter.vals, getattr(parameter, "val_mapping", None))
    unit = getattr(parameter, "unit", None) or ""
    is_plain = type(parameter).get_raw is not None and not hasattr(parameter, "setpoints")
    is_number = "choices" not in facts and facts.get("kind") in (None, int)
    can_have = facts.get("numeric") or parameter.vals is None or not parameter.settable
    if unit and is_plain and is_number and can_have and _is_unit(unit) and not _is_array(parameter):
        facts["unit"] = unit
    return Member(
        name, _doc(parameter, name, told=facts.get("unit")), read=_Read(name), write=_Write(name), now=_Now(name),
        **facts,
    )  # fmt: skip


def _doc(parameter: Any, name: str, *, told: str | None) -> str:
    """Return the label of a parameter, what its driver says of it, and its unit where it is not told otherwise."""
    label = getattr(parameter, "label", None) or name
    own = getattr(parameter, "_own_doc_", None) or _docstring(parameter)
    unit = getattr(parameter, "unit", None) or getattr(parameter, "units", None)
    text = str(label) + (f", in {unit}" if unit and told is None else "")
    return f"{text}.\n\n{own}" if own else f"{text}."


def _docstring(parameter: Any) -> str:
    """Return what a driver says of a parameter: QCoDeS puts its own text about every parameter behind it."""
    doc = parameter.__doc__ or ""
    before, found, _ = doc.partition("Parameter class:")
    return before.strip() if found and doc != type(parameter).__doc__ else ""


def _is_array(parameter: Any) -> bool:
    return hasattr(parameter, "shape") or hasattr(parameter, "shapes") or type(parameter.vals).__name__ == "Arrays"


def _checked_by(validator: Any, mapping: Any) -> dict[str, Any]:
    """Return what a validator of QCoDeS allows, as far as it can be told."""
    kind = type(validator).__name__
    if kind in {"Numbers", "Ints", "PermissiveInts"}:
        low, high = validator.min_value, validator.max_value
        limits = (None if low <= -_NO_LIMIT else low, None if high >= _NO_LIMIT else high)
        return {"numeric": True, "limits": limits, "kind": None if kind == "Numbers" else int}
    if kind == "Enum":
        choices = tuple(mapping) if mapping else tuple(sorted(validator.values, key=_order))
        return {"choices": choices} if choices and set(choices) == validator.values else {}
    if kind == "Bool":
        return {"choices": (False, True)}
    if kind == "OnOff":
        return {"choices": ("on", "off")}
    return {"kind": str} if kind == "Strings" else {}


def _order(value: Any) -> tuple[str, Any]:
    """Return by what choices are sorted: the set that QCoDeS keeps of them has another order in each process."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    return ("", float(value)) if is_number else (type(value).__name__, str(value))


def _is_unit(unit: str) -> bool:
    try:
        check_unit(unit)
    except ValueError:
        return False
    return True


# --- parameters in the source of a class


def _parameters_in_source(cls: type) -> Iterator[Member]:
    """Yield the parameters that the constructors of a class, and of its base classes, add under a plain name."""
    for base in cls.__mro__:
        constructor = vars(base).get("__init__")
        if isinstance(constructor, FunctionType):
            for call in _calls_in(constructor):
                with contextlib.suppress(ValueError):
                    yield _in_source(call)


def _calls_in(function: FunctionType) -> Iterator[ast.Call]:
    for node in ast.walk(syntax_of(function)):
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if is_call and node.func.attr == "add_parameter" and ast.unparse(node.func.value) == "self":  # type: ignore[attr-defined]  # as just asked
            yield node  # type: ignore[misc]  # as above


def _in_source(call: ast.Call) -> Member:
    """Return the parameter that a call adds; ValueError if its name is made in another way."""
    written = {one.arg: one.value for one in call.keywords}
    name = ast.literal_eval(call.args[0] if call.args else written["name"])
    if not isinstance(name, str):
        raise ValueError(f"the name {name!r} is no text")  # noqa: TRY004 - as for one that is no plain value

    def plain(argument: str, otherwise: Any) -> Any:
        try:
            return ast.literal_eval(written[argument]) if argument in written else otherwise
        except ValueError:
            return ...  # made in another way: there is something

    has_class = len(call.args) > 1 or "parameter_class" in written
    readable = has_class or plain("get_cmd", False) is not False
    writable = has_class or plain("set_cmd", False) is not False
    label, unit = plain("label", name), plain("unit", "")
    text = str(label if isinstance(label, str) and label else name)
    doc = f"{text}, in {unit}." if isinstance(unit, str) and unit else f"{text}."
    reads, writes = readable or not writable, writable or not readable
    return Member(name, doc, readable=reads, writable=writes, read=_Read(name), write=_Write(name))


@hookimpl
def catkit_devices_driver_sources() -> dict[str, DriverSource]:
    """Provide ``qcodes:``."""
    return {"qcodes": QCoDeSDrivers()}
