"""Which names of its base classes a driver may take: the hooks, with the parameters that they have."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catkit_devices import Control, Device, Measurement, ScpiDevice, VisaDevice
from catkit_devices._wire.wire_device import WireDevice
from catkit_devices.errors import (
    DeviceClosedError,
    DeviceDisconnectedError,
    DeviceProtocolError,
    DeviceTimeoutError,
    ProcessDiedError,
)
from catkit_devices.interfaces import interfaces_of
from catkit_devices.multiprocessing import Process, SharedMemoryManager
from catkit_devices.serial_device import SerialDevice
from catkit_devices.simulation import Fault, Instrument, VirtualClock, build_library


def driver(base=VisaDevice, /, **members):
    return type("Driver", (base,), members)


def device(made):
    return made("device", address="ASRL1::INSTR")


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("_open", None),
        ("_close", property(lambda device: 1)),
        ("_make_safe", int),
        ("_write", Control("Q?", "Q {}", doc="A quantity.")),
        ("__slots__", ("_open",)),
    ],
    ids=["value", "property", "class", "quantity", "slot"],
)
def test_an_attribute_that_is_not_a_method_cannot_replace_a_hook(name, member):
    with pytest.raises(TypeError, match=r"Driver\._\w+ is a \w+ in the place of (Visa)?Device\._\w+\(self.*: give it"):
        driver(**{name: member})


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("_write", lambda self, register, value: None),
        ("_write", lambda self: None),
        ("_query", lambda self, command: ""),
        ("_query", lambda self, command, timeout: ""),
        ("_query", lambda self, command, timeout=None, *, extra: ""),
        ("_open", lambda self, port: None),
        ("_identify", lambda self, reply: None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_helper_with_other_parameters_cannot_replace_a_hook(name, member):
    with pytest.raises(
        TypeError, match=rf"Driver\.{name}\(self.*\) is in the place of \w+\.{name}\(self.*another name"
    ):
        driver(**{name: member})


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("_query", lambda self, command, timeout=None, *, retries=1: ""),
        ("_query", lambda self, *args, **kwargs: ""),
        ("_write", functools.wraps(VisaDevice._write)(lambda self, *args: None)),
        ("_open", staticmethod(lambda: None)),
        ("_close", functools.partialmethod(lambda self, how: None, "quickly")),
    ],
)  # fmt: skip
def test_a_hook_may_be_overridden_in_every_way_in_which_it_can_be_called(name, member):
    assert vars(driver(**{name: member}))[name] is member


def test_a_hook_that_a_parent_driver_has_overridden_is_still_a_hook():
    parent = driver(_write=lambda self, command: None)

    with pytest.raises(TypeError, match=r"in the place of VisaDevice\._write\(self, command\)"):
        driver(parent, _write=lambda self, register, value: None)


def test_a_helper_of_a_mixin_cannot_replace_a_hook():
    mixin = type("Mixin", (), {"_write": lambda self, register, value: None})

    with pytest.raises(TypeError, match=r"Driver\._write\(self, register, value\)"):
        type("Driver", (mixin, VisaDevice), {})


def test_a_hook_is_checked_when_it_is_assigned_to_the_class_later():
    made = driver()

    with pytest.raises(TypeError, match="in the place of"):
        made._make_safe = True


@pytest.mark.parametrize("name", ["_open", "_close", "_make_safe", "_identify", "_query", "_write"])
def test_a_value_assigned_to_a_device_cannot_replace_a_hook(name):
    def constructor(self, device_name, **options):
        super(made, self).__init__(device_name, **options)
        setattr(self, name, False)

    made = driver(__init__=constructor)

    with pytest.raises(AttributeError, match=rf"{name} is \w+\.{name}\(self.*give the value another name"):
        device(made)


def test_an_annotation_alone_replaces_no_hook():
    made = driver(__annotations__={"_open": bool, "_connection": int})

    assert made._open is VisaDevice._open


def test_the_name_of_a_hook_of_one_kind_of_device_is_free_in_another():
    made = driver(Device, _write=lambda self, register, value: None, _query=7, _identify="me")

    assert (made._query, made._identify) == (7, "me")


# --- everything else is out of a driver's way


ROOT = Path(__file__).parents[2]
FRAMEWORK = (Device, WireDevice, VisaDevice, ScpiDevice, SerialDevice)
HOOKS = {"_open", "_close", "_make_safe", "_continuous_frames", "_identify", "_query", "_write"}


def is_natural(name):
    """Whether a driver's author might choose a name: begins with one underscore, and does not end with one."""
    return name.startswith("_") and "__" not in name and not name.endswith("_") and name != "_abc_impl"  # Python's


def names_inside():
    """What the framework's own names would be called by somebody who does not know of them."""
    made = device(VisaDevice)
    inside = (
        {name for cls in FRAMEWORK for name in vars(cls)} | set(vars(made)) | {"_session", "_lock", "_line", "_port"}
    )
    return sorted({name for inner in inside if is_natural(name := inner.removesuffix("_"))} - HOOKS)


def documented():
    """The names that the page on devices lists: what a driver may override, and what it may use."""
    program = (
        "import sys, json; sys.path.insert(0, 'docs'); import generate;"
        "print(json.dumps([sum(names['devices'].values(), []) for names in (generate.HOOKS, generate.HELPERS)]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return map(set, json.loads(done.stdout))


def test_the_natural_names_in_the_framework_are_hooks_or_helpers_that_are_documented():
    hooks, helpers = documented()
    natural = {name for cls in FRAMEWORK for name in vars(cls) if is_natural(name)}

    assert {name for cls in FRAMEWORK for name in vars(cls) if hasattr(vars(cls)[name], "_hook")} == HOOKS == hooks
    assert natural == hooks | helpers - {"_connection"}
    assert {name for name in vars(device(SerialDevice)) if is_natural(name)} == {"_connection"}


class Poison:
    """Code that uses it in any way is code of the framework that has mistaken the driver's name for its own."""

    def __init__(self, name):
        self._name = name

    def _use(self, *args, **kwargs):
        raise AssertionError(f"the driver's {self._name} was taken for the framework's")

    __call__ = __getitem__ = __bool__ = __len__ = __iter__ = __enter__ = __lt__ = __add__ = _use


class Meter(VisaDevice):
    """What everything is done with below."""

    identity = "acme"
    io_timeout = 0.5

    power = Measurement("A?", unit="W", doc="Power.", shared=True)
    text = Measurement("C?", doc="No number.")
    level = Control("B?", "B {}", unit="V", limits=(0, 10), doc="Level.")

    @property
    def reading(self):
        """Power, asked for in the driver's own words."""
        return self.power

    def ramp(self, level):
        self.level = level
        self.wait(0.0)
        return self.level

    def _make_safe(self):
        self.level = 0


def values(poison):
    return type("Poisoned", (Meter,), poison)


def methods(poison):
    def member(name):
        return lambda self, *args, **kwargs: poison[name]()

    return type("Poisoned", (Meter,), {name: member(name) for name in poison})


def attributes(poison):
    def constructor(self, name, **options):
        vars(self).update(poison)
        super(made, self).__init__(name, **options)
        for natural, value in poison.items():
            setattr(self, natural, value)

    made = type("Poisoned", (Meter,), {"__init__": constructor})
    return made


def in_a_mixin(poison):
    return type("Poisoned", (type("Mixin", (), dict(poison)), Meter), {})


REPLIES = {b"*IDN?": b"acme meter\n", b"A?": b"1.5\n", b"B?": b"2.5\n", b"C?": b"x\n", b"DATA?": b"#15hello\n"}


def poisoned(make, library):
    poison = {name: Poison(name) for name in names_inside() if name != "_connection"}
    return make(poison)("meter", address="ASRL1::INSTR", visa_library=library, limits={"level": ["0 V", "5 V"]})


@pytest.mark.parametrize("make", [values, methods, attributes, in_a_mixin])
def test_a_driver_may_use_every_natural_name_for_its_own_members(serve, script, make):
    library = serve("ASRL1::INSTR", script, replies=REPLIES)
    meter = poisoned(make, library)
    line = library.line("ASRL1::INSTR")
    assert interfaces_of(type(meter)) == ()

    with meter:
        assert (meter.power, meter.level, meter.reading, meter.ramp(1)) == (1.5, 2.5, 1.5, 2.5)
        assert meter.query("A?") == "1.5"
        meter.write("A?")
        assert meter.read() == "1.5"
        meter.write_bytes(b"A?\n")
        assert meter.read_bytes(4) == b"1.5\n"
        meter.write("A?")
        assert meter.read_until(b"5\n") == b"1."
        assert meter.query_binary("DATA?") == b"hello"
        with pytest.raises(ValueError, match="0 to 5 V"):
            meter.level = 6
        with meter.lock():
            meter.level = 3
        line.inject(Fault("no_reply"))
        with pytest.raises(DeviceTimeoutError, match=r"'meter' \(Poisoned at ASRL1::INSTR\)"):
            meter.query("A?")
        assert meter.power == 1.5  # the line was recovered
        with pytest.raises(DeviceProtocolError, match="text"):
            assert meter.text
        assert meter.power == 1.5
        library.disconnect("ASRL1::INSTR")
        with pytest.raises(DeviceDisconnectedError):
            assert meter.level
        library.reconnect("ASRL1::INSTR")
        assert meter.level == 2.5  # over a new connection
        assert meter.describe()["properties"]["level"]["limits"] == (0.0, 5.0)
        meter.make_safe()
        assert (meter.name, meter.is_open, meter.state) == ("meter", True, "open")
        assert "Poisoned 'meter': open" in repr(meter)
    with pytest.raises(DeviceClosedError, match="'meter'"):
        assert meter.power
    meter.reset()
    assert library.instrument("ASRL1::INSTR").sent[-1] == b"B 0.0"


class Simulated:
    """Answers each line by what REPLIES has for it."""

    def __init__(self, bench):
        self._received = b""

    def feed(self, data):
        *lines, self._received = (self._received + data).split(b"\n")
        return b"".join(REPLIES.get(line, b"") for line in lines)


def on_a_server(make):
    return poisoned(make, build_library([Instrument("ASRL1::INSTR", Simulated)], clock=VirtualClock()))


def use_and_die(started):
    manager = SharedMemoryManager()
    manager.connect()
    meter = manager.get_object("meter")
    meter.open()
    with meter.lock():
        meter.level = 3
        started.set()
        time.sleep(60)


def state_of(manager):
    return next(one["state"] for one in manager.status()["objects"] if one["name"] == "meter")


@pytest.mark.parametrize("make", [values, attributes])
def test_the_methods_that_a_server_calls_do_not_clash_with_the_names_of_a_driver(make, until):
    with SharedMemoryManager() as manager:
        meter = manager.get_object("meter", on_a_server, make)
        with meter:
            assert (meter.power, meter.level, meter.ramp(1)) == (1.5, 2.5, 2.5)
            assert state_of(manager) == "open"
            started = manager.get_event("started")
            client = Process(target=use_and_die, args=(started,))
            client.start()
            started.wait(30)
            os.kill(client.pid, signal.SIGKILL)
            with pytest.raises(ProcessDiedError):
                client.join()
            assert meter.power == 1.5
            until(lambda: meter.mutex.holder is None)
            meter.level = 4
        assert state_of(manager) == "closed"


class Shared:
    """No device: a class of somebody's own, shared as it is."""

    def __init__(self):
        for name in ("_status", "_interface", "_hosted_as", "_session_ended", "_server_stops", "_section", "_fixed"):
            setattr(self, name, Poison(name))

    def value(self):
        return 7


def test_a_shared_class_of_a_user_may_use_every_natural_name_too():
    with SharedMemoryManager() as manager:
        assert manager.get_object("shared", Shared).value() == 7
        manager.status()


def test_a_name_that_the_framework_uses_is_refused():
    for name in ("_perform_", "_facts_", "_join_line_"):
        with pytest.raises(TypeError, match=rf"Driver\.{name} belongs to \w*Device"):
            driver(**{name: lambda self: None})


def test_the_name_of_the_connection_is_refused_for_a_method():
    for member in (lambda self: None, property(lambda self: None)):
        with pytest.raises(TypeError, match=r"Driver\._connection belongs to Device"):
            driver(_connection=member)


def test_a_driver_that_keeps_its_connection_itself_keeps_it():
    class Keeps(Device):
        def __init__(self, name):
            super().__init__(name)
            self._connection = None

        def _open(self):
            self._connection = "the connection"

        def what(self):
            return self._connection

    with Keeps("keeps") as keeps:
        assert keeps.what() == "the connection"
