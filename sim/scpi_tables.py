"""A simulated instrument made from the tables of a driver: simulator ``scpi``, for the driver ``scpi``.

It knows the commands in the configuration, keeps the values that are set, and answers with them. This shows that the
configuration agrees with itself: **it is no proof that the instrument understands these commands**.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from catkit_devices.hookspecs import hookimpl
from catkit_devices.scpi import number
from catkit_devices.sim import scpi

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from catkit_devices.simulation import Bench

__all__ = ["TableInstrument"]

_log = logging.getLogger(__name__)

_FIRST = {"float": "0.0", "int": "0", "bool": "0", "str": "text"}
"""Value of a property that has neither a limit nor choices nor a given value, by type."""


class TableInstrument:
    """An instrument that knows the commands of a table.

    Args:
        bench: the bench of the simulation.
        device_options: ``properties``, ``commands``, ``identity`` and others, of each device that it stands for. A
            command that two of them have means the same for both.
        idn: the reply to ``*IDN?``; by default one that says that this is a simulation.
        values: first values of the properties, by property; of those with arguments, by property and argument.
    """

    def __init__(
        self,
        bench: Bench,
        *,
        device_options: Sequence[Mapping[str, Any]],
        idn: str | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        self.bench = bench
        self._devices: list[Mapping[str, Any]] = []
        self._given_idn = idn
        self._values = values or {}
        self._status = scpi.Status()
        self._received = b""
        self._commands: set[str] = set()
        self._quantities: list[_Quantity] = []
        for one in device_options:
            self.stand_for(one)
        _log.warning(
            "the simulated instrument %r is made from the configuration of its driver: that the two agree is no proof "
            "that the real instrument understands these commands", self._idn,
        )  # fmt: skip

    def stand_for(self, options: Mapping[str, Any]) -> None:
        """Stand for one more device at the address.

        Args:
            options: of this device; those of a device that it stands for already change nothing.

        Raises:
            ValueError: the devices differ in what they must have in common.
        """
        if options in self._devices:
            return
        devices = [*self._devices, options]
        end = _shared(devices, "write_termination", "\n").encode() or b"\n"
        reply_end = _shared(devices, "read_termination", "\n").encode()
        error_query = _shared(devices, "error_query", "SYST:ERR?")
        identity = _shared(devices, "identity", ".")
        self._end, self._reply_end, self._error_query, self.message_end = end, reply_end, error_query, end
        self._idn = _identity(identity) if self._given_idn is None else self._given_idn
        self._commands |= {table["write"] for table in (options.get("commands") or {}).values()}
        for name, table in options.get("properties", {}).items():
            self._quantities += _quantities(len(self._devices), name, table, self._values.get(name))
        self._devices = devices

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the replies that are due."""
        self._received += data
        replies = []
        while self._end in self._received:
            line, _, self._received = self._received.partition(self._end)
            found = [reply for unit in _units(line.decode("latin-1")) if (reply := self._obey(unit)) is not None]
            if found:
                replies.append(b";".join(found) + self._reply_end)
        return b"".join(replies)

    def value(self, name: str, argument: Any = None) -> str:
        """Return the value of a property, as it is sent on the wire."""
        return next(one.now for one in self._quantities if (one.name, one.argument) == (name, argument))

    def _obey(self, unit: str) -> bytes | None:
        for quantity in self._quantities:
            if unit == quantity.query:
                return quantity.reply()
        if unit == "*IDN?":
            return self._idn.encode()
        if unit == self._error_query != "*ESR?":
            return self._status.errors.next().encode()
        if unit in self._commands:
            return None
        try:
            for quantity in self._quantities:
                if (token := quantity.token(unit)) is not None:
                    self._set(quantity, token)
                    return None
            reply = self._status.execute(*unit.partition(" ")[::2])
        except KeyError:
            self._status.refuse(scpi.UNDEFINED_HEADER)
            return None
        except scpi.RefusedError as error:
            self._status.refuse((error.args[0], error.args[1]))
            return None
        return None if reply is None else reply.encode()

    def _set(self, quantity: _Quantity, token: str) -> None:
        if quantity.numeric:
            low, high = (self._bound(quantity, bound) for bound in quantity.limits)
            try:
                found = number(token)
            except ValueError:
                raise scpi.RefusedError(*scpi.DATA_TYPE_ERROR) from None
            if (low is not None and found < low) or (high is not None and found > high):
                raise scpi.RefusedError(*scpi.OUT_OF_RANGE)
        self._first(quantity).now = token

    def _bound(self, quantity: _Quantity, bound: Any) -> float | None:
        """Return a limit of a quantity; if it is the name of a property, that of a property of the same device."""
        if not isinstance(bound, str):
            return None if bound is None else float(bound)
        sign, name = (-1, bound[1:]) if bound.startswith("-") else (1, bound)
        named = next(one for one in self._quantities if (one.device, one.name) == (quantity.device, name))
        return sign * number(self._first(named).now)

    def _first(self, quantity: _Quantity) -> _Quantity:
        """Return the quantity that keeps the value: the first one that is read by the same command."""
        same = (one for one in self._quantities if quantity.query is not None and one.query == quantity.query)
        return next(same, quantity)


class _Quantity:
    """One property, or one argument of a property that has some."""

    def __init__(self, device: int, name: str, table: Mapping[str, Any], argument: Any, token: Any, value: Any) -> None:
        def filled(command: str | None) -> str | None:
            return None if command is None else command.replace("{key}", str(token))

        self.device, self.name, self.argument = device, name, argument
        self.kind = table.get("type", "float")
        choices: Any = table.get("choices")
        self.numeric = self.kind in ("float", "int") and choices is None
        self.limits = table.get("limits") or (None, None)
        self.query = filled(table.get("get"))
        self._dtype = table.get("dtype", "text")
        before, _, after = re.sub(r"\{[^{}]*\}", "\0", filled(table.get("set")) or "\0").partition("\0")
        self._pattern = re.compile(f"{re.escape(before)}(.+){re.escape(after)}") if before or after else None
        tokens = list(choices.values() if hasattr(choices, "values") else choices or ())
        shape = table.get("shape", 4)
        low = next((bound for bound in self.limits if isinstance(bound, int | float)), None)
        count = shape if isinstance(shape, int) else _product(shape)
        first = tokens[0] if tokens else ",".join(["0"] * count) if self.kind == "array" else low
        self.now = str(_FIRST[self.kind] if first is None else first) if value is None else str(value)

    def token(self, unit: str) -> str | None:
        """Return the value that a command sets; None if the command is for another quantity."""
        found = None if self._pattern is None else self._pattern.fullmatch(unit)
        return None if found is None else found[1]

    def reply(self) -> bytes:
        """Return the answer to its query."""
        if self.kind == "array" and self._dtype != "text":
            import numpy as np

            return scpi.block(np.array([float(one) for one in self.now.split(",")]).astype(self._dtype).tobytes())
        if self.numeric and self.kind == "float":
            return f"{number(self.now):.9E}".encode()
        return self.now.encode()


def _quantities(device: int, name: str, table: Mapping[str, Any], value: Any) -> list[_Quantity]:
    arguments = table.get("arguments")
    if arguments is None:
        return [_Quantity(device, name, table, None, "", value)]
    tokens = dict(arguments) if hasattr(arguments, "keys") else {one: one for one in arguments}
    return [_Quantity(device, name, table, key, token, (value or {}).get(key)) for key, token in tokens.items()]


def _shared(device_options: Sequence[Mapping[str, Any]], key: str, default: str) -> str:
    """Return an option that all devices at one address must have in common."""
    found = {one.get(key, default) for one in device_options}
    if len(found) > 1:
        raise ValueError(
            f"the devices at one address must have the same {key}, got {', '.join(map(repr, sorted(found)))}"
        )
    return str(found.pop())


def _product(shape: Any) -> int:
    found = 1
    for length in shape:
        found *= length
    return found


def _units(line: str) -> list[str]:
    return [unit.strip() for unit in line.split(";") if unit.strip()]


def _identity(pattern: str) -> str:
    """Return an identity that the driver accepts: the text of its regular expression, if that has no special parts."""
    plain = re.sub(r"[\^$\\]", "", pattern).replace(".*", "")
    made = f"{plain.strip('.') or 'catkit_devices'},simulated from its configuration,0,0"
    return made if re.search(pattern, made, re.IGNORECASE) else f"{plain},simulated,0,0"


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"scpi": TableInstrument}
