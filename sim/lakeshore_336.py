r"""A simulated Lake Shore 336 temperature controller.

Sources: Lake Shore Model 336 User's Manual, chapter 6; PyPI lakeshore 1.10.0 (``model_336.py``,
``temperature_controllers.py``); qcodes ``Lakeshore_model_336.py``. Commands end with LF, replies with CR LF; ``;``
joins commands, and their replies come joined by ``;``. An unknown command sets bit 5 of ``*ESR?``, a value that is not
accepted sets bit 4, and neither has a reply.

Outputs 1 and 2 heat inputs A and B: while a heater is on, the temperature of its input goes to the setpoint, otherwise
to that of the room. Inputs C and D have no sensor: status 1, reading 0. Assumed: the control loop is perfect; the power
in percent is the number of kelvins from the room to the setpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim.models import Lag
from catkit_devices.simulation import Outbox

if TYPE_CHECKING:
    from catkit_devices.simulation import Bench

__all__ = ["LakeShore336"]

_ROOM = 295.0  # K
_TIME_CONSTANT = 20.0  # s
_EXECUTION, _COMMAND = 16, 32
"""Bits of ``*ESR?``."""
_LIMITS = {
    "SETP": ((0.0, 2000.0),), "RANGE": ((0, 3),), "PID": ((0.1, 1000.0), (0.1, 1000.0), (0.0, 200.0)),
    "RAMP": ((0, 1), (0.0, 100.0)), "MOUT": ((0.0, 100.0),), "OUTMODE": ((0, 5), (0, 4), (0, 1)),
}  # fmt: skip
"""Settings of an output: lowest and highest value of each parameter after the number of the output."""
_DEFAULTS: dict[str, list[float]] = {
    "SETP": [_ROOM],
    "RANGE": [0],
    "PID": [50.0, 20.0, 0.0],
    "RAMP": [0, 0.1],
    "MOUT": [0.0],
    "OUTMODE": [1, 1, 0],
}
"""Settings at power-up."""


class _RefusedError(Exception):
    """The argument is a bit of ``*ESR?``."""


class LakeShore336:
    """The simulator ``lakeshore_336``.

    Args:
        bench: the simulated bench that it is part of.

    Attributes:
        temperatures: K, by input; only inputs that have a sensor.
    """

    message_end = b"\n"

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.temperatures = {name: Lag(bench.clock, _ROOM, _TIME_CONSTANT) for name in "AB"}
        self._outbox = Outbox(bench.clock)
        self._received = b""
        self._events = 128
        self._settings = {name: {output: list(values) for output in "1234"} for name, values in _DEFAULTS.items()}

    @property
    def heating(self) -> bool:
        """Whether an output is on."""
        return any(values[0] for values in self._settings["RANGE"].values())

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the replies."""
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            replies = []
            for command in filter(None, (part.strip() for part in line.decode("latin-1").split(";"))):
                try:
                    reply = self._execute(command.upper())
                except _RefusedError as error:
                    self._events |= error.args[0]
                else:
                    replies += [] if reply is None else [reply]
            if replies:
                self._outbox.put(";".join(replies).encode() + b"\r\n")
        return self._outbox.take()

    def clear(self) -> None:
        """Forget a half-received line and unread replies."""
        self._received = b""
        self._outbox.clear()

    def _execute(self, command: str) -> str | None:
        header, _space, argument = command.partition(" ")
        arguments = [part.strip() for part in argument.split(",") if part.strip()]
        match header:
            case "*IDN?":
                return "LSCI,MODEL336,1234567/1234567,1.0"
            case "*ESR?":
                events, self._events = self._events, 0
                return f"{events:03d}"
            case "*OPC?":
                return "1"
            case "*CLS":
                self._events = 0
            case "*RST":
                pass
            case "KRDG?" | "CRDG?" | "SRDG?" | "RDGST?":
                return self._read(header, arguments)
            case "HTR?" if arguments and arguments[0] in ("1", "2"):
                return f"{self._power(arguments[0]):+06.1f}"
            case _:
                return self._setting(header, arguments)
        return None

    def _read(self, header: str, arguments: list[str]) -> str:
        name = arguments[0] if arguments else ""
        if name not in ("A", "B", "C", "D"):
            raise _RefusedError(_EXECUTION)
        if header == "RDGST?":
            return "000" if name in self.temperatures else "001"
        if name not in self.temperatures:
            return "+0.00000"
        kelvin = self.temperatures[name].value()
        reading = {"KRDG?": kelvin, "CRDG?": kelvin - 273.15, "SRDG?": 100 * kelvin / 273.15}[header]
        return f"{reading:+.3f}"

    def _setting(self, header: str, arguments: list[str]) -> str | None:
        name, query = header.removesuffix("?"), header.endswith("?")
        if name not in self._settings:
            raise _RefusedError(_COMMAND)
        if not arguments or arguments[0] not in self._settings[name]:
            raise _RefusedError(_EXECUTION)
        output, *values = arguments
        if query:
            return ",".join(
                f"{value:d}" if isinstance(value, int) else f"{value:+.4f}" for value in self._settings[name][output]
            )
        try:
            numbers = [float(value) for value in values]
        except ValueError:
            raise _RefusedError(_EXECUTION) from None
        limits = _LIMITS[name] if name != "RANGE" or output in "12" else ((0, 1),)
        fits = all(low <= number <= high for number, (low, high) in zip(numbers, limits, strict=False))
        if len(numbers) != len(limits) or not fits:
            raise _RefusedError(_EXECUTION)
        kinds = _DEFAULTS[name]
        self._settings[name][output] = [
            round(number) if isinstance(kind, int) else number for number, kind in zip(numbers, kinds, strict=True)
        ]
        self._heat()
        return None

    def _heat(self) -> None:
        for output, name in (("1", "A"), ("2", "B")):
            on = self._settings["RANGE"][output][0]
            self.temperatures[name].go(self._settings["SETP"][output][0] if on else _ROOM)

    def _power(self, output: str) -> float:
        on = self._settings["RANGE"][output][0]
        return min(max(self._settings["SETP"][output][0] - _ROOM, 0.0), 100.0) if on else 0.0


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"lakeshore_336": LakeShore336}
