"""A device that a Tango server serves elsewhere: driver ``tango``, address ``tango://host:port/domain/family/member``.

Its attributes and commands become properties and methods, with the types, units, limits and texts that the server
tells when the device is opened. Without a Tango database the address ends with ``#dbase=no``; without ``tango://`` the
database is the one that ``TANGO_HOST`` names.

A write is sent once: PyTango would send it again after a lost connection, and nobody knows whether the first was done.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import (
    ConfigurationError,
    DeviceDisconnectedError,
    DeviceError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
    DeviceValueError,
)
from catkit_devices.foreign import Description, DriverSource, ForeignDevice, LeftOut, Member, missing
from catkit_devices.hookspecs import hookimpl
from catkit_devices.units import check_unit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

__all__ = ["TangoDevices"]

_ADDRESS = re.compile(r"(tango://[^/\s]+:\d+/)?[^/\s:]+/[^/\s]+/[^/\s#]+(#dbase=(yes|no))?")
"""Of a device: its server or database where that is named, three words, and whether there is a database."""
_UNITS = {"%": "percent", "s-1": "1/s", "°": "deg", "°C": "degC", "µm": "um", "amp": "A", "volt": "V"}
"""Units that Tango servers often write in another way."""
_NOTHING_SAID = frozenset({"", "No unit", "Not specified", "No description", "Uninitialised"})
"""What Tango tells where a server has said nothing."""
_WHOLE = frozenset({"DevShort", "DevLong", "DevLong64", "DevUShort", "DevULong", "DevULong64", "DevUChar"})
"""Tango's types of whole numbers."""
_NUMBERS = _WHOLE | {"DevFloat", "DevDouble"}
"""Tango's types of numbers."""
_ABOUT_A_VALUE = frozenset({"API_WAttrOutsideLimit", "API_IncompatibleAttrDataType", "API_IncompatibleCmdArgumentType"})
"""Reasons for which a value that was given is refused."""
_MOST_SECONDS = 3600.0
"""Seconds: PyTango counts in milliseconds, and no request takes longer."""


def _framework() -> ModuleType:
    try:
        return importlib.import_module("tango")
    except ModuleNotFoundError as error:
        raise missing("PyTango", "tango", error) from error


class TangoDevice:
    """A device of a Tango server, as its client sees it: each command is a method.

    Its own members begin with ``tango_``, which no command's name is likely to do.

    Args:
        address: of the device.
        io_timeout: seconds that one request may take.
    """

    def __init__(self, address: str, io_timeout: float) -> None:
        self._tango = tango = _framework()
        with tango.EnsureOmniThread():  # PyTango's calls need it in threads that Python has started
            self._proxy = tango.DeviceProxy(address)
            self._proxy.set_timeout_millis(round(io_timeout * 1000))
            self._proxy.set_transparency_reconnection(False)
            self.tango_attributes = {one.name: one for one in self._proxy.attribute_list_query_ex()}
            self.tango_commands = {_identifier(one.cmd_name): one for one in self._proxy.command_list_query()}
            self.tango_class = self._proxy.info().dev_class

    def __getattr__(self, name: str) -> Any:
        if name not in self.tango_commands:
            raise AttributeError(f"the Tango device has no command {name!r}")
        return functools.partial(self._carry_out, self.tango_commands[name].cmd_name)

    def tango_read(self, name: str) -> Any:
        """Read an attribute.

        Raises:
            DeviceProtocolError: the server says that the value is not valid.
        """
        with self._tango.EnsureOmniThread():
            found = self._proxy.read_attribute(name)
        if found.quality == self._tango.AttrQuality.ATTR_INVALID:
            raise DeviceProtocolError(f"{name}: the Tango server says that it has no valid value now")
        info = self.tango_attributes[name]
        if _type_of(info.data_type) == "DevEnum" and isinstance(found.value, int):
            return info.enum_labels[int(found.value)]
        return self._plain(found.value)

    def tango_write(self, name: str, value: Any) -> None:
        """Set an attribute, once."""
        info = self.tango_attributes[name]
        if _type_of(info.data_type) == "DevEnum" and isinstance(value, str):
            value = list(info.enum_labels).index(value)
        with self._tango.EnsureOmniThread():
            self._proxy.write_attribute(info, value)  # with its name only, PyTango would ask for the rest

    def _carry_out(self, name: str, *arguments: Any) -> Any:
        with self._tango.EnsureOmniThread():
            return self._plain(self._proxy.command_inout(name, *arguments))

    def _plain(self, value: Any) -> Any:
        if isinstance(value, self._tango.DevState):
            return value.name
        if isinstance(value, tuple | list):
            return [self._plain(one) for one in value]
        return value


def _type_of(data_type: Any) -> str:
    tango = _framework()
    return str(tango.CmdArgType(data_type).name)


@dataclass(frozen=True)
class _Read:
    """Reads an attribute."""

    name: str

    def __call__(self, owner: TangoDevice) -> Any:
        return owner.tango_read(self.name)


@dataclass(frozen=True)
class _Write:
    """Sets an attribute."""

    name: str

    def __call__(self, owner: TangoDevice, value: Any) -> None:
        owner.tango_write(self.name, value)


class TangoDevices(DriverSource):
    """Describes a device of a Tango server when it is open."""

    def find(self, text: str) -> type:
        """Return the class of all of them: the address says which device is meant, so ``driver = "tango"`` is all."""
        if text:
            raise ConfigurationError(f"expected driver = 'tango' and an address, got 'tango:{text}'")
        return TangoDevice

    def base(self) -> type[ForeignDevice]:
        """Return the class that takes the address."""
        return _WithAddress

    def describe(self, cls: type) -> Description:  # noqa: ARG002 - nothing is known before it is open
        """Return the description of any device of a Tango server."""
        return Description("A device that a Tango server serves.", complete=False)

    def construct(self, cls: type, name: str, _address: str | None, _library: Any, options: Mapping[str, Any]) -> Any:
        """Connect to the device."""
        tango = _framework()
        try:
            return cls(**options)
        except tango.DevFailed as error:
            raise DeviceOpenError(f"the Tango server does not answer: {_text(error)}", device=name) from error

    def describe_opened(self, instrument: Any) -> Description:
        """Return what the server says of the device."""
        members: dict[str, Member] = {}
        left_out: list[LeftOut] = []
        for info in instrument.tango_attributes.values():
            members.setdefault(_identifier(info.name), _attribute(info))
        for command in instrument.tango_commands.values():
            name = command.cmd_name
            if name in ("State", "Status"):
                left_out.append(LeftOut(f"{name}()", "is the attribute of that name"))
            elif _identifier(name) in members:
                left_out.append(LeftOut(f"{name}()", "has the name of an attribute"))
            else:
                members[_identifier(name)] = _command(command)
        doc = f"A device of the class {instrument.tango_class} of a Tango server."
        return Description(doc, tuple(members.values()), left_out=tuple(left_out))

    def close(self, instrument: Any) -> None:
        """Do nothing: the connection ends with its last user."""

    def translate(self, error: Exception) -> tuple[type[DeviceError], str] | None:
        """Tell apart what PyTango has in one class: no answer in time, no connection, a value that is refused."""
        tango = _framework()
        if not isinstance(error, tango.DevFailed):
            return None
        reasons = {one.reason for one in error.args}
        kind = DeviceError
        if "API_DeviceTimedOut" in reasons:
            kind = DeviceTimeoutError
        elif isinstance(error, tango.CommunicationFailed | tango.ConnectionFailed):
            kind = DeviceDisconnectedError
        elif reasons & _ABOUT_A_VALUE:
            kind = DeviceValueError
        return kind, _text(error)


def _identifier(name: str) -> str:
    made = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{made}" if made[:1].isdigit() else made


def _attribute(info: Any) -> Member:
    tango = _framework()
    kind = _type_of(info.data_type)
    writable = info.writable in (tango.AttrWriteType.WRITE, tango.AttrWriteType.READ_WRITE)
    is_scalar = info.data_format == tango.AttrDataFormat.SCALAR
    facts: dict[str, Any] = {}
    unit = _unit(info.unit)
    doc = info.label
    if info.description not in _NOTHING_SAID:
        doc = f"{doc}. {info.description}"
    if unit is None and info.unit not in _NOTHING_SAID:
        doc = f"{doc} Its unit: {info.unit}."
    if is_scalar and kind in _NUMBERS:
        limits = _number(info.min_value), _number(info.max_value)
        facts = {"numeric": True, "unit": unit, "limits": None if limits == (None, None) else limits}
        facts["kind"] = int if kind in _WHOLE else None
    elif is_scalar and kind in ("DevBoolean", "DevString"):
        facts = {"kind": bool if kind == "DevBoolean" else str}
    elif is_scalar and kind == "DevEnum":
        facts = {"choices": tuple(info.enum_labels)}
    return Member(
        _identifier(info.name), doc, readable=info.writable != tango.AttrWriteType.WRITE, writable=writable,
        read=_Read(info.name), write=_Write(info.name), **facts,
    )  # fmt: skip


def _unit(text: str) -> str | None:
    unit = _UNITS.get(text, text)
    if text in _NOTHING_SAID:
        return None
    try:
        check_unit(unit)
    except ValueError:
        return None
    return unit


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _command(info: Any) -> Member:
    takes, gives = _type_of(info.in_type), _type_of(info.out_type)
    doc = f"Command {info.cmd_name!r}."
    for what, kind, text in (("value", takes, info.in_type_desc), ("Returns", gives, info.out_type_desc)):
        if kind != "DevVoid":
            doc += f"\n\n{what}: {kind}" + ("." if text in _NOTHING_SAID or text.startswith(":") else f", {text}.")
    name = _identifier(info.cmd_name)
    return Member(name, doc, function=_function(name, takes_value=takes != "DevVoid"))


@functools.cache
def _function(name: str, *, takes_value: bool) -> Callable[..., Any]:
    """Return the function of a command; the same one each time, so that descriptions can be compared."""

    def call(self: Any, *arguments: Any) -> Any:
        return getattr(self, name)(*arguments)

    plain = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ["self", "value"] if takes_value else ["self"]
    call.__signature__ = inspect.Signature([inspect.Parameter(one, plain) for one in names])  # type: ignore[attr-defined]  # inspect reads it from there
    return call


def _text(error: Any) -> str:
    """Return the texts of the errors in a DevFailed, the first cause first, without repetitions."""
    return "; ".join(dict.fromkeys(" ".join(one.desc.split()) for one in error.args if one.desc))


class _WithAddress(ForeignDevice):
    """A device that a Tango server serves, with the attributes and commands that it has when it is opened.

    Args:
        name: the device's name.
        address: ``tango://host:port/domain/family/member``, with ``#dbase=no`` at the end if there is no database; or
            ``domain/family/member``, and ``TANGO_HOST`` names the database.
        io_timeout: seconds that one request may take.
        **others: of :class:`~catkit_devices.foreign.ForeignDevice`; ``safe`` says how it is made safe.
    """

    def __init__(self, name: str, *, address: str, io_timeout: float = 3.0, **others: Any) -> None:
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            raise ConfigurationError(
                f"expected an address such as 'tango://host:10000/domain/family/member', got {address!r}", key="address"
            )
        if not 0 < io_timeout <= _MOST_SECONDS:
            raise ConfigurationError(f"io_timeout must be above 0 s, and at most {_MOST_SECONDS:g} s, got {io_timeout}")
        super().__init__(name, options={"address": address, "io_timeout": io_timeout}, **others)


@hookimpl
def catkit_devices_driver_sources() -> dict[str, DriverSource]:
    """Provide ``tango``, which needs nothing behind it."""
    return {"tango": TangoDevices()}
