"""A driver for a SCPI instrument that is described by tables in the configuration, without any Python.

The tables are made into a class, once, and this class is checked like every driver's. So its properties, and how it is
made safe, are known before anything is opened.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, NoReturn, Self

from catkit_devices._device.members import DeviceType
from catkit_devices.errors import ConfigurationError, nearest
from catkit_devices.properties import Array, Control, Measurement, Quantity, Setting
from catkit_devices.scpi import ScpiDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["TableScpiDevice"]

_TYPES: dict[str, Any] = {"float": float, "int": int, "bool": bool, "str": str, "array": Array}
"""The types that a table may name."""
_PROPERTY = frozenset(
    {
        "arguments",
        "average",
        "choices",
        "doc",
        "dtype",
        "get",
        "limits",
        "repeatable",
        "set",
        "settles_within",
        "shape",
        "shared",
        "type",
        "unit",
        "until",
    }
)
"""Keys of the table of a property."""
_COMMAND = frozenset(("write", "doc", "completes_within"))
"""Keys of the table of a command."""
_NOTHING = "nothing"
"""The value of ``safe`` for an instrument of which nothing needs to be made safe."""
_SETTINGS = (
    "identity",
    "errors",
    "error_query",
    "strict",
    "io_timeout",
    "read_termination",
    "write_termination",
    "encoding",
    "baud_rate",
    "data_bits",
    "parity",
    "stop_bits",
    "flow_control",
)
"""Class attributes that are options here."""


class TableScpiDevice(ScpiDevice):
    """An instrument that is described by its table in the configuration.

    Args:
        name: the device's name.
        properties: a table for each property: ``get`` and ``set`` (commands), ``type`` (``"float"``, ``"int"``,
            ``"bool"``, ``"str"`` or ``"array"``), ``unit``, ``limits``, ``choices``, ``doc``, and other arguments of
            :class:`~catkit_devices.properties.Control`; for arrays also ``dtype`` and ``shape``.
        commands: a table for each command: ``write`` (what is sent), ``doc``, and ``completes_within`` (seconds) where
            it takes time.
        safe: the values that make it safe, by property, in the order in which they are set; or ``"nothing"``, if
            nothing of it needs to be made safe.
        identity: a regular expression that the reply to ``*IDN?`` must contain.
        errors: when the error queue is read: ``"always"``, ``"on_request"`` or ``"never"``.
        error_query: the command that reads the oldest error.
        strict: whether only one exact form of each reply is accepted, so that disturbed replies are detected.
        io_timeout: seconds for one exchange.
        read_termination: characters that end a reply.
        write_termination: characters that end a command.
        encoding: encoding of text, such as ``"ascii"``.
        baud_rate: for a serial port, in bits per second; the next four are for a serial port too.
        data_bits: 5 to 8.
        parity: ``"none"``, ``"odd"``, ``"even"``, ``"mark"`` or ``"space"``.
        stop_bits: 1, 1.5 or 2.
        flow_control: ``"none"``, ``"xon_xoff"``, ``"rts_cts"`` or ``"dtr_dsr"``.
        **options: options of :class:`~catkit_devices.visa.VisaDevice`.
    """

    def __new__(cls, name: str, **options: Any) -> Self:  # noqa: ARG004 - for the constructor
        """Make a device of the class that the tables describe."""
        return object.__new__(cls._for_(options))

    def __init__(
        self,
        name: str,
        *,
        properties: dict[str, Any],
        commands: dict[str, Any] | None = None,
        safe: dict[str, Any] | str | None = None,
        identity: str = ".",
        errors: str = "always",
        error_query: str = "SYST:ERR?",
        strict: bool = False,
        io_timeout: float = 2.0,
        read_termination: str = "\n",
        write_termination: str = "\n",
        encoding: str = "ascii",
        baud_rate: int = 9600,
        data_bits: int = 8,
        parity: str = "none",
        stop_bits: float = 1,
        flow_control: str = "none",
        **options: Any,
    ) -> None:
        # The class of the device has been made of all these.
        del properties, commands, safe, identity, errors, error_query, strict, io_timeout, read_termination
        del write_termination, encoding, baud_rate, data_bits, parity, stop_bits, flow_control
        super().__init__(name, **options)

    @classmethod
    def _for_(cls, options: Mapping[str, Any]) -> type[Self]:
        if "_tables_" in vars(cls) or "properties" not in options:
            return cls  # the class is made already, or the call is refused because "properties" is missing
        tables = {key: options[key] for key in ("properties", "commands", "safe", *_SETTINGS) if key in options}
        made: type[Self] = _class_of(cls, json.dumps(tables, default=str))
        return made

    @classmethod
    def _why_not_made_safe_(cls) -> str | None:
        """Return that its table does not say what is safe, unless nothing can be changed."""
        tables = vars(cls).get("_tables_", {})
        can_be_set = any("set" in table for table in (tables.get("properties") or {}).values())
        if tables.get("safe") is None and (can_be_set or tables.get("commands")):
            return f'the table has no safe = {{ ... }}, which says what is set then (or safe = "{_NOTHING}")'
        return None


@functools.lru_cache(maxsize=256)
def _class_of(base: type[TableScpiDevice], tables: str) -> Any:
    """Return the class for tables as JSON; the same for the same tables."""
    options = json.loads(tables)
    members: dict[str, Any] = {"_tables_": options, "__module__": base.__module__, "__doc__": "A SCPI instrument."}
    members |= {name: options[name] for name in _SETTINGS if name in options}
    for name, table in _tables(options, "properties"):
        members[name] = _made(("properties", name), _quantity, name, table)
    for name, table in _tables(options, "commands"):
        if name in members:
            _refuse(("commands", name), "there is a property of this name")
        members[name] = _made(("commands", name), _command, name, table)
    safe = _safe_values(options.get("safe"))
    for name, value in safe.items():
        _check_safe(members, name, value)
    if safe:
        members["_make_safe"] = _setting(safe)
    try:
        return DeviceType(base.__name__, (base,), members)
    except TypeError as error:
        raise ConfigurationError(str(error).replace(f"{base.__name__}.", "")) from error


def _tables(options: Mapping[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    found = options.get(key) or {}
    if not isinstance(found, dict):
        _refuse((key,), f"expected a table with a table for each of them, got {found!r}")
    for name, table in found.items():
        if not isinstance(table, dict):
            _refuse((key, name), f"expected a table, got {table!r}")
        if not name.isidentifier() or name.startswith("_"):
            _refuse((key, name), f"expected a name such as 'voltage', got {name!r}")
    return list(found.items())


def _made(path: Sequence[str], make: Callable[[str, dict[str, Any]], Any], name: str, table: dict[str, Any]) -> Any:
    try:
        return make(name, table)
    except ConfigurationError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error), key=".".join(path)) from error


def _quantity(name: str, table: dict[str, Any]) -> Quantity:
    _refuse_unknown(("properties", name), table, _PROPERTY)
    given = dict(table)
    get, set_ = given.pop("get", None), given.pop("set", None)
    if get is None and set_ is None:
        raise TypeError('needs get = "..." (the command that reads it), set = "..." (with {} for the value), or both')
    for text in (get, set_):
        _require_one_message(text)
    kind = given.pop("type", "float")
    if kind not in _TYPES:
        raise TypeError(f"type must be one of {', '.join(_TYPES)}, got {kind!r}")
    shape = {key: given.pop(key) for key in ("dtype", "shape") if key in given}
    if shape and kind != "array":
        raise TypeError(f'{next(iter(shape))} is for type = "array"')
    given["type"] = Array(**shape) if kind == "array" else _TYPES[kind]
    given.setdefault("doc", f"{name.replace('_', ' ').capitalize()}.")
    if "limits" in given:
        limits = given["limits"]
        if not isinstance(limits, list) or len(limits) != 2:
            raise TypeError(f"limits must be [lowest, highest], got {limits!r}")
        given["limits"] = tuple(limits)
    if set_ is None:
        return Measurement(get, **given)
    return Setting(set_, **given) if get is None else Control(get, set_, **given)


def _command(name: str, table: dict[str, Any]) -> Callable[[Any], None]:
    _refuse_unknown(("commands", name), table, _COMMAND)
    write, seconds = table.get("write"), table.get("completes_within")
    if not isinstance(write, str):
        raise TypeError('needs write = "...", which is sent')
    _require_one_message(write)
    if "{" in write or "}" in write:
        raise TypeError(
            f"a command is sent as it is, got {write!r}; what has a value is a property, with set = {write!r}"
        )
    if write.partition(" ")[0].endswith("?"):
        raise TypeError(
            f"nobody would read the reply to {write!r}: what is asked for is a property, with get = {write!r}"
        )

    def run(self: Any) -> None:
        if seconds is None:
            self._write(write)
        else:
            self._wait_for_completion_(write, float(seconds))

    run.__name__ = name
    run.__doc__ = table.get("doc") or f"Send {write!r}."
    return run


def _require_one_message(text: Any) -> None:
    """Refuse line ends and the like inside of a command: the reply to a second message would be read as another one."""
    if isinstance(text, str) and any(ord(letter) < ord(" ") for letter in text):
        raise TypeError(f"a command is one line, without control characters, got {text!r}")


def _setting(safe: Mapping[str, Any]) -> Callable[[Any], None]:
    def _make_safe(self: Any) -> None:
        """Set the values of ``safe`` in its table."""
        for name, value in safe.items():
            setattr(self, name, value)

    return _make_safe


def _safe_values(safe: Any) -> dict[str, Any]:
    if safe is None or safe == _NOTHING:
        return {}
    if not isinstance(safe, dict):
        _refuse(("safe",), f'expected {{ property = value, ... }} or "{_NOTHING}", got {safe!r}')
    return safe


def _check_safe(members: Mapping[str, Any], name: str, value: Any) -> None:
    quantity = members.get(name)
    if not isinstance(quantity, Quantity) or not quantity.writable:
        there = [known for known, one in members.items() if isinstance(one, Quantity) and one.writable]
        _refuse(("safe", name), f"expected a property that can be set, got {name!r}", nearest(name, there))
    try:
        quantity.plain(value)
    except ValueError as error:
        _refuse(("safe", name), str(error))


def _refuse_unknown(path: Sequence[str], table: Mapping[str, Any], known: frozenset[str]) -> None:
    for key in table:
        if key not in known:
            text = f"there is no such key, expected one of {', '.join(sorted(known))}"
            _refuse((*path, key), text, nearest(key, known))


def _refuse(path: Sequence[str], problem: str, suggestion: str | None = None) -> NoReturn:
    raise ConfigurationError(problem, key=".".join(path), suggestion=suggestion)
