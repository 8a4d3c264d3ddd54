"""A simulated Stanford Research SR830 lock-in amplifier.

Source: SR830 manual revision 2.5 (10/2011): p. 5-1 and 5-2 (lines, replies: several queries of one line are answered
each by itself), 5-4 to 5-16 (commands), 5-20 to 5-24 (status). A space between command and parameter may be left out.

Its sine output goes to its input through a divider. R follows changes with the time constant of the filter. Assumed:
there is no noise; the filter has one pole, whatever slope is set. Offsets and expansions of
the outputs cannot be set.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim.models import Lag
from catkit_devices.simulation import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.simulation import Bench

__all__ = ["SR830"]

_SETTINGS = {
    "FMOD": (1, 0, 1), "FREQ": (1000.0, 0.001, 102000.0), "PHAS": (0.0, -360.0, 729.99), "SLVL": (1.0, 0.004, 5.0),
    "HARM": (1, 1, 19999), "RSLP": (0, 0, 2), "SENS": (26, 0, 26), "OFLT": (8, 0, 19), "OFSL": (1, 0, 3),
    "SYNC": (0, 0, 1), "RMOD": (1, 0, 2), "ISRC": (0, 0, 3), "IGND": (0, 0, 1), "ICPL": (0, 0, 1), "ILIN": (0, 0, 3),
}  # fmt: skip
"""Commands that set a value: the value after ``*RST``, the lowest, the highest."""
_EXECUTION, _COMMAND = 0x10, 0x20
"""Bits of ``*ESR?``."""
_OUTPUT_OVERLOAD = 4
"""Bit of ``LIAS?``."""
_FULL_SCALE = 1.09
"""Highest output, as a part of the sensitivity."""


class SR830:
    """The simulator ``srs_sr830``.

    Args:
        bench: the simulated bench that it is part of.
        divider: amplitude at the input, as a part of the amplitude of the sine output.
        delay: phase of the signal relative to the reference, in degrees.

    Attributes:
        values: values of the settings, by command.
        outputs: V at the auxiliary outputs.
    """

    message_end = b"\n"

    def __init__(self, bench: Bench, *, divider: float = 0.1, delay: float = 30.0) -> None:
        self.bench = bench
        self._divider, self._delay = divider, math.radians(delay)
        self._outbox = Outbox(bench.clock)
        self._received = b""
        self._events, self._overloads = 128, 0
        self.outputs = [0.0] * 4
        self.values: dict[str, float] = {}
        self._reset()
        self._magnitude = Lag(bench.clock, self._signal(), 0.0)
        self._queries: dict[str, Callable[[list[str]], str]] = {
            "*IDN": lambda _: "Stanford_Research_Systems,SR830,s/n12345,ver1.07",
            "*ESR": lambda _: self._take_events(),
            "*STB": lambda _: "1",
            "LIAS": lambda _: self._take_overloads(),
            "ERRS": lambda _: "0",
            "OUTP": lambda numbers: self._shown(int(numbers[0])),
            "SNAP": lambda numbers: ",".join(self._shown(int(number)) for number in numbers),
            "AUXV": lambda numbers: f"{self.outputs[int(numbers[0]) - 1]:.3f}",
            "OEXP": lambda numbers: "0.00,0" if numbers[0] in ("1", "2", "3") else self._shown(0),
            "OAUX": lambda numbers: f"{[0.0, 0.5, 0.0, 0.0][int(numbers[0]) - 1]:.4f}",
        }

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the replies, one for each query."""
        *lines, self._received = (self._received + data.replace(b"\r", b"\n")).split(b"\n")
        for line in lines:
            for command in filter(None, (part.strip() for part in line.decode("latin-1").split(";"))):
                try:
                    reply = self._execute(command.upper())
                except KeyError:
                    self._events |= _COMMAND
                except (ValueError, IndexError):
                    self._events |= _EXECUTION
                else:
                    if reply is not None:
                        self._outbox.put(reply.encode() + b"\n")
        return self._outbox.take()

    def clear(self) -> None:
        """Forget a half-received line and unread replies."""
        self._received = b""
        self._outbox.clear()

    def _execute(self, command: str) -> str | None:
        found = re.fullmatch(r"(\*?[A-Z]{3,4})(\?)? ?(.*)", command)
        if found is None:
            raise KeyError(command)
        name, query, argument = found.groups()
        arguments = [part.strip() for part in argument.split(",") if part.strip()]
        if query:
            return self._told(name) if name in self.values else self._queries[name](arguments)
        if name in self.values:
            self._set(name, float(arguments[0]))
        elif name == "AUXV":
            number, volts = int(arguments[0]), float(arguments[1])
            if not (1 <= number <= 4 and abs(volts) <= 10.5):
                raise ValueError(command)
            self.outputs[number - 1] = volts
        elif name == "APHS":
            self._set("PHAS", math.degrees(self._delay))
        elif name == "*RST":
            self._reset()
        elif name == "*CLS":
            self._events = self._overloads = 0
        else:
            raise KeyError(name)
        return None

    def _reset(self) -> None:
        self.values = {name: default for name, (default, _low, _high) in _SETTINGS.items()}
        self.outputs = [0.0] * 4

    def _set(self, name: str, value: float) -> None:
        default, low, high = _SETTINGS[name]
        too_fast = name == "HARM" and value * self.values["FREQ"] > _SETTINGS["FREQ"][2]
        if not low <= value <= high or too_fast or (name == "FREQ" and not self.values["FMOD"]):
            raise ValueError(name)
        if name == "FREQ":
            value = max(float(f"{value:.4e}"), round(value, 4)) if value < 1 else float(f"{value:.4e}")
        elif name == "PHAS":
            value = 180 - (180 - round(value, 2)) % 360
        elif name == "SLVL":
            value = round(value / 0.002) * 0.002
        self.values[name] = round(value) if isinstance(default, int) else value
        self._magnitude.go(self._signal(), self._time_constant())

    def _told(self, name: str) -> str:
        value = self.values[name]
        return f"{value:d}" if isinstance(value, int) else f"{value:.4f}" if name == "FREQ" else f"{value:.3f}"

    def _time_constant(self) -> float:
        number = int(self.values["OFLT"])
        return float((1e-5, 3e-5)[number % 2] * 10 ** (number // 2))

    def _sensitivity(self) -> float:
        number = int(self.values["SENS"]) + 1
        return float((1e-9, 2e-9, 5e-9)[number % 3] * 10 ** (number // 3))

    def _signal(self) -> float:
        return self.values["SLVL"] * self._divider if self.values["HARM"] == 1 else 0.0

    def _shown(self, number: int) -> str:
        magnitude, most = self._magnitude.value(), _FULL_SCALE * self._sensitivity()
        if magnitude > most:
            self._overloads |= _OUTPUT_OVERLOAD
        angle = self._delay - math.radians(self.values["PHAS"])
        x, y = (min(max(magnitude * part, -most), most) for part in (math.cos(angle), math.sin(angle)))
        shown = {1: x, 2: y, 3: min(magnitude, most), 4: math.degrees(angle), 9: self.values["FREQ"], 10: x, 11: y}
        shown |= {5: 0.0, 6: 0.5, 7: 0.0, 8: 0.0}
        if number not in shown:
            raise ValueError(number)
        return f"{shown[number]:.6g}"

    def _take_events(self) -> str:
        events, self._events = self._events, 0
        return str(events)

    def _take_overloads(self) -> str:
        self._shown(3)
        overloads, self._overloads = self._overloads, 0
        return str(overloads)


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"srs_sr830": SR830}
