"""A lamp that keeps a journal of what reaches it, in a file that survives the testbed."""

import time
from pathlib import Path

from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.visa import VisaDevice


class Lamp(VisaDevice):
    """A lamp behind VISA."""

    identity = "Lamp"

    power = Control("POW?", "POW {}", limits=(0, 9), unit="mW", doc="Power.")
    warmth = Measurement("POW?", shared=True, doc="How warm it is.")
    slow = Measurement("SLOW?", doc="A number that takes its time.")

    def _make_safe(self):
        self._write("POW 0")


class SimulatedLamp:
    message_end = b"\n"

    def __init__(self, bench, *, journal):
        self._journal = Path(journal)
        self._power = b"0"
        self._clock = bench.clock
        self._due = None

    def feed(self, data):
        reply = b""
        if self._due is not None and self._clock.time() >= self._due:
            self._due, reply = None, b"1\n"
        for line in data.splitlines():
            with self._journal.open("a") as journal:
                journal.write(f"{time.time()} {line.decode()}\n")
            if line == b"*IDN?":
                reply = b"Makers,Lamp,1,1\n"
            elif line == b"POW?":
                reply = self._power + b"\n"
            elif line.startswith(b"ECHO? "):
                reply = line[6:] + b"\n"
            elif line.startswith(b"BLOCK? "):
                reply = b"#8%08d" % int(line[7:]) + bytes(int(line[7:])) + b"\n"
            elif line == b"SLOW?":
                self._due = self._clock.time() + 0.5
            elif line.startswith(b"POW "):
                self._power = line[4:]
        return reply


@hookimpl
def catkit_devices_drivers():
    return {"lamp": Lamp}


@hookimpl
def catkit_devices_simulators():
    return {"lamp": SimulatedLamp}
