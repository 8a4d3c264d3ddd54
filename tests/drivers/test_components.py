"""The components of a device are used under its mutex, and named as parts of it."""

import json
import re
import threading
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from catkit_devices import Component, Components, Control, Device, Measurement, VisaDevice, operation, unlocked
from catkit_devices.errors import (
    ComponentNotFoundError,
    ConfigurationError,
    DeviceClosedError,
    DeviceFaultError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceValueError,
    MutexBrokenError,
    MutexTimeoutError,
)
from catkit_devices.simulation import Fault, Instrument, build_library

ADDRESS = "TCPIP0::192.0.2.1::5025::SOCKET"


class Rack:
    """A simulated supply with three outputs, and slots for modules; ``Rack.slots`` says what is plugged in."""

    slots: ClassVar[dict[int, str]] = {1: "meter", 3: "switch"}
    heard: ClassVar[list[str]] = []
    values: ClassVar[dict[tuple[str, str], str]] = {}

    def __init__(self, bench):
        Rack.slots = {1: "meter", 3: "switch"}
        Rack.heard = []
        self.received = b""
        Rack.values = {}

    def feed(self, data):
        *lines, self.received = (self.received + data).split(b"\n")
        return b"".join(self.answer(line.decode()) for line in lines)

    def answer(self, line):
        self.heard.append(line)
        if line == "*IDN?":
            return b"ACME,RACK\n"
        if line == "SLOTS?":
            return ",".join(f"{slot}:{kind}" for slot, kind in self.slots.items()).encode() + b"\n"
        question = re.fullmatch(r"(\w+)\? \(@(\w+)\)", line)
        if question:
            return f"{self.values.get((question[1], question[2]), 0)}\n".encode()
        name, value, number = re.fullmatch(r"(\w+) (\S+),\(@(\w+)\)", line).groups()
        self.values[name, number] = value
        return b""


class Output(Component):
    """One output."""

    voltage = Control(
        "VOLT? (@{self.number})", "VOLT {},(@{self.number})", unit="V", limits=(0, 30), doc="Voltage.", shared=True
    )
    enabled = Control("OUTP? (@{self.number})", "OUTP {},(@{self.number})", type=bool, doc="Output.")

    def ramp(self, end: float) -> list[float]:
        """Raise the voltage to ``end``, in V, by whole volts."""
        while self.voltage < end:
            self.voltage += 1
        return [self.voltage]

    @property
    def power(self) -> float:
        """Power that it gives."""
        return float(self._query(f"POW? (@{self.number})"))

    def _make_safe(self) -> None:
        self.enabled = False


class Sensor(Component):
    """One sensor of a module, which its module selects."""

    value = Measurement("VAL? (@{self.number})", unit="K", doc="Temperature.", shared=True)

    def mean(self) -> float:
        """Return the mean of two values."""
        return sum(self._ask(f"VAL? (@{self.number})", float) for _ in range(2)) / 2


class Module(Component):
    """One module in a slot."""

    label = Control("LAB? (@{self.number})", "LAB {},(@{self.number})", type=str, doc="Label.")

    def count(self) -> float:
        """Return how often it was used."""
        return self._ask(f"USE? (@{self.number})", float)


class Meter(Module):
    sensors = Components(Sensor, numbers=(1, 2))

    def _query(self, command: str, timeout: float | None = None) -> str:
        with self._transaction():
            super()._write(f"SEL {self.number},(@0)")
            return super()._query(command, timeout)


class Switch(Module):
    closed = Control("ROUT? (@{self.number})", "ROUT {},(@{self.number})", type=bool, doc="Whether it conducts.")


KINDS = {"meter": Meter, "switch": Switch}


class Supply(VisaDevice):
    """A supply with outputs, and slots."""

    identity = "ACME"

    outputs = Components(Output, numbers=(1, 2, 3))
    pair = Components(Output, keys={"A": 1, "B": 2})
    main = Output(1)
    fan = Output(9, fitted=lambda supply: supply._has("fan"))
    modules = Components(Module, numbers=lambda supply: supply._modules())

    enabled = Control("OUTP? (@0)", "OUTP {},(@0)", type=bool, doc="All outputs.")

    def _plugged(self) -> dict[int, str]:
        pairs = [one.split(":") for one in self._query("SLOTS?").split(",") if one]
        return {int(slot): kind for slot, kind in pairs}

    def _has(self, kind: str) -> bool:
        return kind in self._plugged().values()

    def _modules(self) -> dict[int, Module]:
        return {slot: KINDS[kind](slot) for slot, kind in self._plugged().items() if kind in KINDS}

    def _make_safe(self) -> None:
        self.enabled = False


def made(kind=Supply, **options: Any) -> Any:
    library = build_library([Instrument(ADDRESS, Rack)], clock="virtual")
    return kind("supply", address=ADDRESS, visa_library=library, late_window=0.1, **options)


@pytest.fixture
def supply():
    device = made()
    with device:
        Rack.heard.clear()
        yield device


def lines(supply, act):
    """What the instrument hears of an action."""
    Rack.heard.clear()
    act(supply)
    return list(Rack.heard)


# --- using them


def test_a_component_is_used_by_its_number_and_is_in_the_commands(supply):
    supply.outputs[2].voltage = "2500 mV"

    assert supply.outputs[2].voltage == 2.5
    assert Rack.heard == ["VOLT 2.5,(@2)", "VOLT? (@2)"]
    assert (supply.main.voltage, supply.pair["B"].voltage) == (0.0, 2.5)


def test_a_component_knows_its_device_its_key_and_its_number(supply):
    assert (supply.pair["B"].device, supply.pair["B"].key, supply.pair["B"].number) == (supply, "B", 2)
    assert (supply.main.key, supply.main.number) == ("main", 1)
    assert supply.modules[1].sensors[2].device is supply
    assert repr(supply.modules[1].sensors[2]) == "<Sensor 'supply.modules[1].sensors[2]'>"


def test_components_are_a_mapping(supply):
    assert list(supply.outputs) == [1, 2, 3]
    assert (2 in supply.outputs, 4 in supply.outputs, len(supply.pair)) == (True, False, 2)
    assert {key: output.number for key, output in supply.pair.items()} == {"A": 1, "B": 2}
    assert supply.outputs.get(7) is None


def test_a_component_stays_the_same_object(supply):
    output, module = supply.outputs[1], supply.modules[1]
    output._remembered = 5
    supply.close(force=True)
    with supply:
        assert supply.outputs[1] is output
        assert supply.modules[1] is module
        assert output._remembered == 5


def test_two_devices_of_a_driver_have_components_of_their_own():
    one, other = made(), made()
    one.outputs[1]._remembered = 1

    assert one.outputs[1] is not other.outputs[1]
    assert not hasattr(other.outputs[1], "_remembered")
    assert other.outputs[1].device is other


def test_a_component_uses_the_helpers_of_its_device_and_may_override_how_it_asks(supply):
    assert lines(supply, lambda supply: supply.outputs[1].power) == ["POW? (@1)"]
    assert lines(supply, lambda supply: supply.modules[1].sensors[2].value) == ["SEL 1,(@0)", "VAL? (@2)"]
    assert lines(supply, lambda supply: supply.modules[3].label) == ["LAB? (@3)"]


def test_every_helper_asks_as_the_component_does(supply):
    assert lines(supply, lambda supply: supply.modules[1].count()) == ["SEL 1,(@0)", "USE? (@1)"]
    assert lines(supply, lambda supply: supply.modules[1].sensors[2].mean()) == 2 * ["SEL 1,(@0)", "VAL? (@2)"]
    assert lines(supply, lambda supply: supply.modules[3].count()) == ["USE? (@3)"]


def test_a_private_value_that_a_component_lacks_is_not_taken_from_its_device(supply):
    supply._remembered = 5

    with pytest.raises(AttributeError, match="'_remembered'"):
        _ = supply.outputs[1]._remembered


# --- its operations are those of the device


def in_another_thread(action):
    ended = SimpleNamespace(error=None)

    def run():
        try:
            action()
        except Exception as error:
            ended.error = error

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    return ended.error


def test_an_operation_of_a_component_waits_for_the_mutex_of_the_device_and_is_named_in_messages(supply):
    supply._access_.mutex.timeout = 0.05
    with supply.lock():
        supply.outputs[1].voltage = 1
        error = in_another_thread(lambda: supply.outputs[1].ramp(2))

    assert isinstance(error, MutexTimeoutError)
    assert "'supply' not acquired" in str(error)


def test_the_holder_of_a_device_is_shown_with_the_operation_of_the_component():
    class Slow(Component):
        def measure(self) -> str:
            """Tell who holds the device."""
            return str(self.device.mutex.holder)

    class Driver(Device):
        slow = Components(Slow, numbers=(4,))

        def _open(self) -> str:
            return "connection"

    with Driver("driver") as driver:
        assert "driver.slow[4].measure" in driver.slow[4].measure()


def test_a_shared_read_of_a_component_skips_the_mutex(supply):
    with supply.lock():
        assert in_another_thread(lambda: supply.outputs[1].voltage) is None
        supply._access_.mutex.timeout = 0.05
        assert isinstance(in_another_thread(lambda: supply.outputs[1].enabled), MutexTimeoutError)


def test_a_method_of_a_component_is_one_operation(supply):
    held = []

    class Driver(Device):
        class Axis(Component):
            def move(self) -> None:
                """Look whether the device is held."""
                held.append(self.device.mutex.holder is not None)

        axis = Axis()

        def _open(self) -> str:
            return "connection"

    with Driver("driver") as driver:
        driver.axis.move()
    assert held == [True]


def test_a_section_that_was_broken_refuses_the_components_too(supply):
    output = supply.outputs[1]
    with pytest.raises(MutexBrokenError), supply.lock():
        supply.mutex.break_("a test")
        with pytest.raises(MutexBrokenError):
            output.voltage = 1
    output.voltage = 1

    assert output.voltage == 1.0


def test_errors_name_the_device_and_the_component(supply):
    facts = rf"^device 'supply' \(Supply at {ADDRESS}\): "
    with pytest.raises(DeviceValueError, match=facts + r"outputs\[1\]\.voltage must be 0 to 30 V, got 31\.0 V"):
        supply.outputs[1].voltage = 31
    Rack.values["VAL", "2"] = "cold"
    with pytest.raises(DeviceProtocolError, match=facts + r"modules\[1\]\.sensors\[2\]\.value: a number was expected"):
        _ = supply.modules[1].sensors[2].value
    supply.close(force=True)
    with pytest.raises(DeviceClosedError, match=facts + r"'outputs\[2\]\.voltage' needs it open"):
        _ = supply.outputs[2].voltage


def test_a_missing_component_is_an_error_that_lists_those_that_exist(supply):
    with pytest.raises(ComponentNotFoundError, match=r"there is no outputs\[0\], there are 1, 2, 3"):
        supply.outputs[0]
    with pytest.raises(KeyError, match=r"there is no pair\['C'\], there are 'A', 'B'"):
        supply.pair["C"]
    with pytest.raises(ComponentNotFoundError, match=r"there is no outputs\[\[1\]\]"):
        supply.outputs[[1]]


# --- what the instrument says that it has


def test_plugged_in_components_are_known_when_the_device_is_open():
    supply = made()
    with pytest.raises(DeviceClosedError, match="'modules' needs it open"):
        supply.modules[1]
    with supply:
        assert {slot: type(module) for slot, module in supply.modules.items()} == {1: Meter, 3: Switch}
        assert list(supply.modules[1].sensors) == [1, 2]
        assert not hasattr(supply, "fan")
        with pytest.raises(ComponentNotFoundError, match="there is no fan: the instrument does not have it"):
            _ = supply.fan


def test_a_device_that_opens_on_use_is_opened_to_tell_its_components():
    supply = made(open_on_use=True)

    assert list(supply.modules) == [1, 3]
    assert supply.is_open
    supply.close(force=True)


def test_plugged_in_components_are_asked_for_with_every_new_connection(supply):
    meter, switch = supply.modules[1], supply.modules[3]
    supply.close(force=True)
    Rack.slots = {3: "switch", 4: "meter", 5: "fan"}
    with supply:
        assert list(supply.modules) == [3, 4]
        assert supply.fan.number == 9
        assert switch.closed is False
        with pytest.raises(ComponentNotFoundError, match=r"there is no modules\[1\] any more"):
            _ = meter.label
        with pytest.raises(ComponentNotFoundError, match=r"there is no modules\[1\] any more"):
            _ = meter.sensors[1].value


def test_an_instrument_that_does_not_tell_its_components_is_not_opened_and_opens_later():
    supply = made()
    line = supply._visa_library_.line(ADDRESS)
    line.inject(Fault("no_reply"), 2, after=1)
    with pytest.raises(DeviceOpenError, match=r"what depends on the instrument could not be read: no reply.*'SLOTS\?'"):
        supply.open()

    assert supply.state == "closed"
    line.clear()
    with supply:
        assert list(supply.modules) == [1, 3]


def test_a_device_is_made_safe_over_a_new_connection_that_does_not_tell_its_components(supply):
    Rack.slots = {1: "meter", 2: "?"}
    supply.outputs[1].enabled = True
    supply._life_.lose()
    supply._modules = lambda: 1 / 0
    supply.make_safe()

    assert Rack.heard[-1] == "OUTP 0,(@0)"
    assert Rack.values["OUTP", "1"] == "0"


def test_a_device_that_cannot_tell_its_components_is_not_opened():
    supply = made()
    Rack.slots = {1: "something"}
    supply._modules = lambda: {1: Output(1)}
    with pytest.raises(TypeError, match="component 1 must be a Module"):
        supply.open()

    assert supply.state == "closed"
    del supply._modules
    with supply:
        assert list(supply.modules) == []


# --- making safe


def test_components_are_made_safe_before_their_device(supply):
    assert lines(supply, lambda supply: supply.make_safe()) == [
        *(f"OUTP 0,(@{number})" for number in (1, 2, 3, 1, 2, 1)),
        "OUTP 0,(@0)",
    ]


def test_if_one_component_cannot_be_made_safe_the_others_still_are():
    class Lamp(Component):
        def _make_safe(self) -> None:
            made_safe.append(self.number)
            if self.number == 1:
                raise ValueError("it is stuck")

    class Driver(Device):
        lamps = Components(Lamp, numbers=(1, 2))

        def _open(self) -> str:
            return "connection"

        def _make_safe(self) -> None:
            made_safe.append("device")

    made_safe: list[object] = []
    driver = Driver("driver")
    driver.open()
    with pytest.raises(DeviceFaultError, match="it is stuck") as caught:
        driver.make_safe()

    assert made_safe == [1, 2, "device"]
    assert "in making driver.lamps[1] safe" in str(caught.value.__cause__.__notes__)
    assert driver.state == "fault"
    driver._life_.abandon()


# --- limits of the configuration


def test_the_limits_of_a_component_are_narrowed_by_either_spelling():
    supply = made(limits={"outputs.1.voltage": [0, "5 V"], "pair['A'].voltage": [1, 2], "main.voltage": [0, 3]})

    assert supply.describe()["properties"]["outputs[1].voltage"]["limits"] == (0.0, 5.0)
    assert supply.describe()["properties"]["outputs[2].voltage"]["limits"] == (0, 30)
    assert supply.describe()["properties"]["pair['A'].voltage"]["limits"] == (1.0, 2.0)
    with supply, pytest.raises(DeviceValueError, match="main.voltage must be 0 to 3 V"):
        supply.main.voltage = 4


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"outputs.4.voltage": [0, 1]}, r"\.outputs\.4\.voltage: there is no component outputs\.4, there are 1, 2, 3"),
        ({"outputs.1.voltge": [0, 1]}, r"there is no such property \(did you mean 'voltage'\?\)"),
        ({"output.1.voltage": [0, 1]}, r"there is no component output \(did you mean 'outputs'\?\)"),
        ({"outputs.voltage": [0, 1]}, r"outputs are several components: say of which, as in outputs\.1"),
        ({"outputs.1.voltage": [0, 31]}, r"can only be narrowed"),
        ({"outputs.1.enabled": [0, 1]}, r"has no limits"),
        ({"outputs.1.ramp": [0, 1]}, r"there is no such property"),
        ({"modules.1.voltage": [0, 1]}, r"there is no such property"),
        ({"modules.1.sensors.2.value": [0, 1]}, r"cannot be set, so it has no limits"),
    ],
)  # fmt: skip
def test_limits_that_no_component_can_have_are_refused(limits, problem):
    with pytest.raises(ConfigurationError, match=problem):
        made(limits=limits)


# --- telling


def test_describe_tells_the_operations_of_components_too(supply):
    described = supply.describe()

    assert described["properties"]["outputs[3].voltage"]["unit"] == "V"
    assert described["properties"]["modules[1].sensors[2].value"]["doc"] == "Temperature."
    assert described["properties"]["pair['A'].power"]["kind"] == "property"
    assert described["commands"]["main.ramp"]["parameters"]["end"]["type"] == "float"
    assert described["components"]["outputs"] == {
        "kind": "Output", "doc": "One output.", "single": False, "keys": [1, 2, 3]
    }  # fmt: skip
    assert described["components"]["fan"]["keys"] == []
    assert json.loads(json.dumps(described))["components"]["modules[1].sensors"]["keys"] == [1, 2]


def test_describe_of_a_closed_device_names_the_components_that_are_known_only_while_it_is_open():
    described = made().describe()

    assert described["components"]["modules"]["keys"] is None
    assert "outputs[1].voltage" in described["properties"]
    assert not any(path.startswith("modules") for path in described["properties"])


# --- rules, checked when the class is made


def component(**members):
    return type("Channel", (Component,), members)


def driver(**members):
    return type("Driver", (VisaDevice,), members)


class Helper:
    """An object that talks to the instrument and is no component."""

    def __init__(self, device=None):
        self.device = device

    def measure(self):
        return self.device._query("MEAS?")


def returns_helper(self) -> Helper:
    return Helper(self)


def returns_component(self) -> Output:
    return Output(1)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"channel": Helper()}, r"Driver\.channel is a Helper, whose methods would run outside.*derive Helper from"),
        ({"channel": property(returns_helper)}, r"Driver\.channel is a Helper, whose methods would run outside"),
        ({"channel": property(returns_component)}, r"Driver\.channel returns a component: declare it in the class"),
        ({"channels": [Helper(), Helper()]}, r"Driver\.channels is a Helper, whose methods"),
        ({"channels": [Output(1), Output(2)]}, r"Driver\.channels has components inside of a list: declare them as"),
        ({"channels": {1: Output(1)}}, r"Driver\.channels has components inside of a dict"),
        ({"output": Output}, r"Driver\.output is a class: declare a component of it, output = Output\(\.\.\.\)"),
        ({"_output": Output(1)}, r"Driver\._output is a component.*does not begin with _"),
        ({"lock": Output(1)}, r"Driver\.lock belongs to Device: give it another name"),
        ({"channel": component(_open=lambda self: None)()}, r"Channel\._open would never be called: .*in Driver\._o"),
        ({"channel": component(_identify=lambda self: None)()}, r"Channel\._identify would never be called"),
    ],
)  # fmt: skip
def test_a_driver_with_members_that_would_run_outside_of_the_mutex_is_refused(members, problem):
    with pytest.raises(TypeError, match=problem):
        driver(**members)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"device": 1}, r"Channel\.device belongs to Component: give it another name"),
        ({"number": property(lambda self: 1)}, r"Channel\.number belongs to Component"),
        ({"__enter__": lambda self: self}, r"Channel\.__enter__ belongs to Component"),
        ({"_path_": "x"}, r"Channel\._path_ belongs to Component"),
        ({"baud_rate": 9600}, r"Channel\.baud_rate is a plain value that no base class knows"),
        (
            {"_query": lambda self, register: ""},
            r"Channel\._query\(self, register\) is in the place of Component\._query",
        ),
        ({"_make_safe": None}, r"Channel\._make_safe is a NoneType in the place of Component\._make_safe"),
        ({"values": classmethod(lambda cls: 1)}, r"Channel\.values is a classmethod"),
        ({"voltage": Control("V? {self.numer}", "V {}", doc="V.")}, r"Channel\.voltage has 'numer' filled into"),
    ],
)
def test_the_class_of_a_component_follows_the_rules_of_drivers(members, problem):
    with pytest.raises(TypeError, match=problem):
        component(**members)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"kind": Helper, "numbers": (1,)}, "a class that derives from Component, got .*Helper"),
        ({"kind": Output}, "needs numbers, or keys"),
        ({"kind": Output, "numbers": (1,), "keys": ("A",)}, "needs numbers, or keys"),
        ({"kind": Output, "numbers": ("A",)}, "expected a whole number among the numbers of components, got 'A'"),
        ({"kind": Output, "keys": ("a b",)}, "expected a word of letters, digits, _ and -, or a whole number"),
        ({"kind": Output, "keys": ("1", 1)}, "expected different keys of components, got 1 twice"),
        ({"kind": Output, "keys": "AB"}, "expected the keys of components"),
        ({"kind": Output, "numbers": 3}, "expected the keys of components"),
        ({"kind": Output, "keys": {"A": Sensor(1)}}, "component 'A' must be a Output, got <Sensor"),
    ],
)
def test_a_declaration_of_components_that_makes_no_sense_is_refused(arguments, problem):
    with pytest.raises(TypeError, match=problem):
        Components(**arguments)


def test_an_object_that_only_the_driver_uses_need_not_be_a_component():
    class Reading(SimpleNamespace):
        def mean(self) -> float:
            return 1.0

    def reading(self) -> Reading:
        return Reading()

    made_class = driver(_helper=Helper(), reading=property(reading), Output=Output)

    assert made_class("driver", address=ADDRESS)._helper is not None


def test_an_object_that_uses_the_device_is_no_result_of_an_operation():
    class Driver(Device):
        def _open(self) -> str:
            return "connection"

        def channel(self):
            """Return a helper."""
            return Helper(self)

        def channels(self):
            """Return several."""
            return [Helper(self)]

    with Driver("driver") as made_device:
        for get in (made_device.channel, made_device.channels):
            with pytest.raises(TypeError, match=r"driver\.channels? returned a Helper.*Component"):
                get()


def test_a_misspelt_attribute_of_a_component_is_refused(supply):
    with pytest.raises(
        AttributeError, match=r"<Output 'supply.outputs\[1\]'> has no property 'volage'.*mean 'voltage'"
    ):
        supply.outputs[1].volage = 3
    with pytest.raises(AttributeError, match=r"supply.* has no attribute 'lock': it has the mutex of its device"):
        supply.outputs[1].lock()
    with pytest.raises(AttributeError, match=r"outputs of <Supply 'supply': open> is several components"):
        supply.outputs = 5
    with pytest.raises(AttributeError, match=r"main of .* is a component"):
        supply.main = 5
    with pytest.raises(AttributeError, match=r"a component is declared in the class of the driver"):
        supply.other = Output(2)


def test_a_component_may_be_declared_after_the_class_was_made():
    later = driver()
    later.channel = Output(4)

    assert later("driver", address=ADDRESS).channel.number == 4
    assert "channel.voltage" in later("driver", address=ADDRESS).describe()["properties"]


def test_a_component_without_a_device_says_so():
    with pytest.raises(AttributeError, match="is not part of a device: declare it in the class of a driver"):
        _ = Output(1).voltage


def test_a_component_takes_arguments_of_its_own(supply):
    class Scaled(Component):
        def __init__(self, number, *, factor):
            super().__init__(number)
            self._factor = factor

        @unlocked
        @property
        def factor(self):
            """Factor."""
            return self._factor

        @operation(shared=True)
        def scaled(self):
            """Return the number, scaled."""
            return self._factor * self.number

    class Driver(Device):
        channels = Components(Scaled, keys={1: Scaled(10, factor=2), 2: Scaled(20, factor=3)})

        def _open(self) -> str:
            return "connection"

    with Driver("driver") as made_device:
        assert [channel.scaled() for channel in made_device.channels.values()] == [20, 60]
        assert made_device.channels[2].factor == 3
