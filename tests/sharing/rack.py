"""A device with components, of which some exist only if its instrument says so."""

from pathlib import Path

from catkit_devices import Component, Components, Control, Device, Measurement, operation
from catkit_devices.multiprocessing.locks.owner import current_call


class Output(Component):
    """One output."""

    voltage = Control(
        lambda output: output.device._values.get(output.number, 0.0),
        lambda output, value: output.device._values.__setitem__(output.number, value),
        unit="V",
        limits=(0, 30),
        doc="Voltage.",
        shared=True,
    )

    def ramp(self, end: float) -> "Output":
        """Set the voltage, and return the output."""
        self.voltage = end
        return self

    def hold(self, entered: str) -> None:
        """Write who holds the device, and work until that is cancelled."""
        Path(entered).write_text(str(self.device.mutex.holder))
        self.wait(60)

    def who(self) -> int:
        """Return the id of the process that asks."""
        return current_call().session.pid

    def same(self, other: Component) -> bool:
        """Return whether the other one is this one."""
        return other is self

    def _make_safe(self) -> None:
        self.device._values[self.number] = 0.0


class Sensor(Component):
    value = Measurement(lambda sensor: float(sensor.number), unit="K", doc="Temperature.")


class Module(Component):
    """One module."""

    label = Measurement(lambda module: type(module).__name__, type=str, doc="Label.")


class Meter(Module):
    sensors = Components(Sensor, numbers=(1, 2))


class Switch(Module):
    closed = Measurement(lambda switch: False, type=bool, doc="Whether it conducts.")

    @operation(shared=True)
    def count(self) -> int:
        """Return how often it was closed."""
        return 5


KINDS = {"meter": Meter, "switch": Switch}


class Rack(Device):
    """Has outputs, and what a file says that is plugged in."""

    outputs = Components(Output, numbers=(1, 2, 3))
    pair = Components(Output, keys={"A": 1, "B": 2})
    main = Output(1)
    fan = Output(9, fitted=lambda rack: "fan" in rack._plugged())
    modules = Components(Module, numbers=lambda rack: rack._modules())

    def __init__(self, name, *, plugged=None, **options):
        super().__init__(name, **options)
        self._file = plugged
        self._values = {}

    def _plugged(self):
        return [] if self._file is None else Path(self._file).read_text().split()

    def _modules(self):
        return {slot: KINDS[kind](slot) for slot, kind in enumerate(self._plugged(), 1) if kind in KINDS}

    def _open(self):
        return "connection"

    def favourite(self):
        """Return one of the outputs."""
        return self.outputs[2]
