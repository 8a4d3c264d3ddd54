"""An instrument for the testbed's tests: it can be out of range, silent or slow, and writes down what reaches it."""

import time
from pathlib import Path
from typing import Any, NamedTuple

from catkit_devices.device import Device, operation
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.testbed import Experiment
from catkit_devices.visa import VisaDevice


class Gauge(VisaDevice):
    """A level that is watched, a lamp that must be off when nobody looks."""

    io_timeout = 0.3
    level = Control("LEVEL?", "LEVEL {}", limits=(-100, 100), shared=True, doc="Level in the tank.")
    temperature = Measurement("LEVEL?", unit="degC", shared=True, doc="The same, taken for a temperature.")
    private_level = Control("LEVEL?", "LEVEL {}", doc="The same, not shared.")
    lamp = Control("LAMP?", "LAMP {}", type=bool, doc="Lamp.")
    mode = Control("MODE?", "MODE {}", type=str, doc="How it behaves: fine, nan, overload, silent, stale.")
    measured = Measurement("COUNT?", type=int, shared=True, doc="Number of the measurement.")

    @property
    @operation(shared=True)
    def slow_level(self) -> float:
        """Level, after as long as the level says."""
        time.sleep(max(0.0, self.level))
        return 0.0

    def pause(self, seconds: float) -> None:
        """Do nothing for a while, inside an operation."""
        self.wait(seconds)

    def _make_safe(self) -> None:
        self.write("LAMP 0")


class GaugeSimulator:
    """Answers as :class:`Gauge` expects; appends each command to the file ``journal``."""

    def __init__(self, bench, *, journal, label="gauge", level: float | str = 0.0):
        self._journal = Path(journal)
        self._label = label
        self._values = {"LEVEL": str(level), "LAMP": "0", "MODE": "fine"}
        self._buffer = b""
        self._count = 0

    def feed(self, data):
        self._buffer += data
        replies = b""
        while b"\n" in self._buffer:
            line, self._buffer = self._buffer.split(b"\n", 1)
            replies += self._answer(line.decode())
        return replies

    def _answer(self, line):
        if line == "*IDN?":
            return b"Gauge\n"
        if line == "COUNT?":
            self._count += self._values["MODE"] != "stale"
            return f"{self._count}\n".encode()
        if line.endswith("?"):
            if self._values["MODE"] == "silent" and line == "LEVEL?":
                return b""
            if self._values["MODE"] == "nan" and line == "LEVEL?":
                return b"nan\n"
            if self._values["MODE"] == "overload" and line == "LEVEL?":
                return b"+9.90000000E+37\n"
            return self._values[line[:-1]].encode() + b"\n"
        with self._journal.open("a") as file:
            file.write(f"{self._label} {line}\n")
        with self._journal.with_suffix(".times").open("a") as file:
            file.write(f"{time.time()} {self._label} {line}\n")
        word, _, value = line.partition(" ")
        self._values[word] = value
        return b""


class Level(NamedTuple):
    """A value of a class that only this plugin knows."""

    value: float


class ReadsGauge(Experiment):
    """An experiment that comes with the plugin."""

    expected: Any

    def experiment(self):
        found = Level(self.devices.tank.level)
        if found != self.expected:
            raise ValueError(f"{found} != {self.expected}")
        return found


class Reader(Device):
    """Uses another device, on whatever server that is."""

    has_instrument = False

    def __init__(self, name, *, gauge, factor: float = 1.0, **options):
        super().__init__(name, **options)
        self._gauge = gauge
        self._factor = factor

    def _open(self):
        return self._gauge

    @property
    @operation(shared=True)
    def scaled(self) -> float:
        """The gauge's level, times the factor."""
        return self._factor * self._gauge.level


class Sticky(Device):
    """Takes its time to close."""

    has_instrument = False

    def __init__(self, name, *, close_seconds: float, **options):
        super().__init__(name, **options)
        self._close_seconds = close_seconds

    def _open(self):
        return self

    def _close(self):
        time.sleep(self._close_seconds)

    def touch(self) -> None:
        """Do nothing."""


@hookimpl
def catkit_devices_drivers():
    return {"test_gauge": Gauge, "test_reader": Reader, "test_sticky": Sticky}


class TotalLevel:
    """A safety test of this plugin's own kind: it looks at several devices at once."""

    def __init__(self, *, devices, limit: float):
        self._devices = devices
        self._limit = limit

    def read(self, devices):
        return sum(devices[name].level for name in self._devices)

    def problem(self, value):
        return None if value <= self._limit else f"{value:g} in all, expected at most {self._limit:g}"


@hookimpl
def catkit_devices_safety_tests():
    return {"total_level": TotalLevel}


@hookimpl
def catkit_devices_simulators():
    return {"test_gauge": GaugeSimulator}
