"""A lamp that keeps a journal of what reaches it, in a file that survives the testbed."""

import time
from pathlib import Path

from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.simulation import Outbox
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
        self._outbox = Outbox(bench.clock)

    def feed(self, data):
        for line in data.splitlines():
            with self._journal.open("a") as journal:
                journal.write(f"{time.time()} {line.decode()}\n")
            command, _, argument = line.partition(b" ")
            if command == b"*IDN?":
                self._outbox.put(b"Makers,Lamp,1,1\n")
            elif command == b"POW?":
                self._outbox.put(self._power + b"\n")
            elif command == b"ECHO?":
                self._outbox.put(argument + b"\n")
            elif command == b"BLOCK?":
                self._outbox.put(b"#8%08d" % int(argument) + bytes(int(argument)) + b"\n")
            elif command == b"SLOW?":
                seconds, _, text = (argument or b"0.5,1").partition(b",")
                self._outbox.put(text + b"\n", float(seconds))
            elif command == b"POW":
                self._power = argument
        return self._outbox.take_one()

    def clear(self):
        self._outbox.clear()


@hookimpl
def catkit_devices_drivers():
    return {"lamp": Lamp}


@hookimpl
def catkit_devices_simulators():
    return {"lamp": SimulatedLamp}
