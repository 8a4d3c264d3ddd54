"""A supply with two outputs and with modules, which its simulated instrument has plugged in as it was told."""

import re

from catkit_devices import Component, Components, Control, Measurement, VisaDevice, hookimpl


class Output(Component):
    """One output."""

    voltage = Control(
        "VOLT? (@{self.number})", "VOLT {:.3f},(@{self.number})", unit="V", limits=(0, 30), doc="Voltage.", shared=True
    )
    enabled = Control("OUTP? (@{self.number})", "OUTP {},(@{self.number})", type=bool, doc="Whether it gives power.")

    def ramp(self, end: float, step: float = 1.0) -> float:
        """Raise the voltage to ``end``, in V, by ``step``, in V."""
        while self.voltage + step < end:
            self.voltage += step
        self.voltage = end
        return self.voltage

    def _make_safe(self) -> None:
        self.enabled = False


class Sensor(Component):
    """One sensor of a module."""

    value = Measurement("TEMP? (@{self.number})", unit="K", doc="Temperature.", shared=True)


class Module(Component):
    """One module: it is selected before it is asked."""

    sensors = Components(Sensor, numbers=(1, 2))

    def _query(self, command: str, timeout: float | None = None) -> str:
        with self._transaction():
            super()._write(f"SLOT {self.number}")
            return super()._query(command, timeout)


class Rack(VisaDevice):
    """A supply with modules."""

    identity = "ACME"
    io_timeout = 0.5

    outputs = Components(Output, numbers=(1, 2))
    modules = Components(Module, keys=lambda rack: rack._slots())

    def _slots(self) -> dict[str, int]:
        return self._ask("SLOTS?", _plugged)


def _plugged(reply: str) -> dict[str, int]:
    if not re.fullmatch(r"\[[a-z\d:,]*\]", reply):
        raise ValueError(f"expected the modules, got {reply!r}")
    return {name: int(slot) for name, slot in (one.split(":") for one in reply[1:-1].split(",") if one)}


class SimulatedRack:
    """The instrument, with its two outputs and what is plugged in."""

    def __init__(self, bench, modules="oven:4,bath:7"):
        self.modules = modules
        self.slot = 0
        self.values = {}
        self.received = b""

    def feed(self, data):
        *lines, self.received = (self.received + data).split(b"\n")
        return b"".join(self.answer(line.decode()) for line in lines)

    def answer(self, line):
        if line == "*IDN?":
            return b"ACME,RACK\n"
        if line == "SLOTS?":
            return f"[{self.modules}]\n".encode()
        if line.startswith("SLOT "):
            self.slot = int(line[5:])
            return b""
        question = re.fullmatch(r"(\w+)\? \(@(\d+)\)", line)
        if question and question[1] == "TEMP":
            return f"{100 * self.slot + int(question[2])}.5\n".encode()
        if question:
            return f"{self.values.get((question[1], question[2]), 0)}\n".encode()
        name, value, number = re.fullmatch(r"(\w+) (\S+),\(@(\d+)\)", line).groups()
        self.values[name, number] = value
        return b""


@hookimpl
def catkit_devices_drivers():
    return {"test_rack": Rack}


@hookimpl
def catkit_devices_simulators():
    return {"test_rack": SimulatedRack}
