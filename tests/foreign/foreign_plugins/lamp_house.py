"""Drivers as somebody outside of this project would write them, for pyvisa, and the instrument that they are for."""

import dataclasses
import enum
import time
from pathlib import Path

import pint
import pyvisa

from catkit_devices.foreign import Description, DriverSource, Member
from catkit_devices.hookspecs import hookimpl

UNITS = pint.UnitRegistry()


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Grade(enum.IntEnum):
    GOOD = 1


@dataclasses.dataclass
class Report:
    name: str
    colour: Colour


class LampDriver:
    """A lamp, as its maker's example program drives it."""

    MODEL = "L1"

    def __init__(self, address, visa_library=None, timeout=300):
        self.connection = pyvisa.ResourceManager(visa_library).open_resource(
            address, read_termination="\n", write_termination="\n", timeout=timeout
        )
        self.comment = ""
        self.height = 0.25

    def close(self):
        self.connection.close()

    @property
    def level(self):
        """The level of the lamp."""
        return float(self.connection.query("LEV?"))

    @level.setter
    def level(self, value):
        if not 0 <= value <= 10:
            raise ValueError(f"level must be 0 to 10, is {value}")
        self.connection.write(f"LEV {value}")

    @property
    def height(self):
        """The height of the lamp, as a quantity."""
        return self._height

    @height.setter
    def height(self, value):
        self._height = value if isinstance(value, pint.Quantity) else UNITS.Quantity(value, "mm")

    @property
    def echo(self):
        return self.connection.query("ECHO?")

    @property
    def broken(self):
        raise AttributeError("no attribute 'handle'")

    @property
    def refused(self):
        raise ConnectionRefusedError("the licence server refuses")

    @property
    def table(self):
        return {}["missing"]

    @property
    def colour(self):
        return Colour.RED

    @property
    def grade(self):
        return Grade.GOOD

    def ask(self, question):
        """Ask the lamp."""
        return self.connection.query(question)

    def report(self):
        return Report("lamp", Colour.BLUE)

    def off(self):
        """Switch the lamp off."""
        self.connection.write("LEV 0")

    def ramp(self, steps, pause):
        """Raise the level in steps, sleeping in between."""
        for step in range(steps):
            self.connection.write(f"LEV {step}")
            time.sleep(pause)

    def drain(self):
        """Read until nothing comes any more."""
        self.connection.write("LOG?")
        lines = []
        while True:
            try:
                lines.append(self.connection.read())
            except pyvisa.VisaIOError:
                return lines

    def elsewhere(self):
        return pyvisa.ResourceManager(self.connection.visalib).open_resource("ASRL99::INSTR")

    def reset(self):
        """Restore the settings of the maker."""
        self.connection.write("RST")

    def each(self):
        yield 1

    def _hidden(self):
        raise NotImplementedError


class Counter:
    """A driver without VISA."""

    def __init__(self, start=0):
        self.count = start

    def step(self, by=1):
        """Count on."""
        self.count += by
        return self.count


class Lamp:
    """The simulated lamp. ``slow`` is how many replies to ECHO? are late, by ``late`` seconds of the clock."""

    message_end = b"\n"

    def __init__(self, bench, journal=None):
        self.bench = bench
        self.level = 0.0
        self.sent = []
        self.count = 0
        self.journal = None if journal is None else Path(journal)

    def feed(self, data):
        reply = b""
        for line in data.splitlines():
            self.sent.append(line)
            if self.journal is not None:
                with self.journal.open("a") as file:
                    file.write(line.decode() + "\n")
            if line == b"LEV?":
                reply += b"%g\n" % self.level
            elif line.startswith(b"LEV "):
                self.level = float(line[4:])
            elif line == b"ECHO?":
                self.count += 1
                reply += b"echo %d\n" % self.count
            elif line == b"LOG?":
                reply += b"one\ntwo\n"
        return reply


class Toys(DriverSource):
    """A framework of toys, which has one driver."""

    def find(self, text):
        return Counter

    def describe(self, cls):
        return Description("A toy.", members=(Member("count", "Count of the toy.", writable=True, numeric=True),))

    def construct(self, cls, name, address, library, options):
        return cls(**options)

    def snapshot(self, instrument):
        if instrument.count < 0:
            raise ValueError("a toy that counts backwards has no snapshot")
        return {"count": instrument.count}


@hookimpl
def catkit_devices_driver_sources():
    return {"toys": Toys()}


@hookimpl
def catkit_devices_simulators():
    return {"lamp": Lamp}
