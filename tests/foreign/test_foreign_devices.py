"""Drivers that know nothing of this project, hosted as devices."""

import importlib
import inspect
import math
import threading
import time
from pathlib import Path

import pytest

from catkit_devices.device import Device
from catkit_devices.drivers import Plugins, create_device, share
from catkit_devices.errors import (
    ConfigurationError,
    DeviceBusyError,
    DeviceDisconnectedError,
    DeviceError,
    DeviceFaultError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
    DeviceValueError,
    MutexBrokenError,
    OperationCancelled,
)
from catkit_devices.foreign import Member
from catkit_devices.foreign.quantity import ForeignQuantity
from catkit_devices.simulation import Fault, Instrument, VirtualClock, build_library

PLUGINS = Path(__file__).parent / "foreign_plugins"
DRIVER = "python:catkit_devices.plugins.lamp_house:LampDriver"
ADDRESS = "ASRL1::INSTR"


@pytest.fixture
def lamp():
    """Make and open the foreign driver on its simulated instrument: ``device, line, instrument = lamp(**options)``."""
    made = []

    def build(address=ADDRESS, driver=DRIVER, clock=None, opens=True, **options):
        library = build_library([Instrument(address, "lamp")], plugin_directories=[PLUGINS], clock=clock or "real")
        device = create_device(
            driver, "lamp", {"address": address, "late_window": 0.1, **options},
            plugin_directories=[PLUGINS], visa_library=library,
        )  # fmt: skip
        made.append(device)
        if opens:
            device.open()
        return device, library.line(address), library.instrument(address)

    yield build
    for device in made:
        device._life_.abandon()


@pytest.fixture
def lamp_house():
    Plugins([PLUGINS])
    return importlib.import_module("catkit_devices.plugins.lamp_house")


# --- what it has


def test_properties_methods_and_attributes_of_a_foreign_object_are_operations(lamp):
    device, _line, instrument = lamp()
    device.level = 3
    device.comment = "warm"

    assert (device.level, device.ask("LEV?"), device.comment, device.MODEL) == (3.0, "3", "warm", "L1")
    device.off()
    assert instrument.level == 0.0
    described = device.describe()
    assert described["properties"]["level"]["doc"] == "The level of the lamp."
    assert str(inspect.signature(type(device).ramp)) == "(self, steps, pause)"
    assert "_hidden" not in described["commands"]


def test_a_name_that_every_device_has_gets_an_underscore_behind_it(lamp):
    device, _line, instrument = lamp()
    device.reset_()
    assert instrument.sent[-1] == b"RST"
    assert type(device)._renamed_ == {"reset": "reset_"}


def test_what_cannot_be_an_operation_is_left_out_with_the_reason(lamp):
    device, _line, _instrument = lamp()
    assert [(one.name, one.reason) for one in device._description_.left_out] == [
        ("each", "is a generator: its work would be done after the operation has ended")
    ]


def test_a_plugin_adds_a_source_of_drivers():
    toy = create_device("toys:anything", "toy", {"options": {"start": 4}}, plugin_directories=[PLUGINS])
    with toy:
        assert toy.count == 4
        toy.count = 5
        assert toy.count == 5
        with pytest.raises(DeviceValueError, match="count must be a number, with or without a unit, got 'x'"):
            toy.count = "x"


@pytest.mark.parametrize(
    ("driver", "problem"),
    [
        ("toy:x", r"there is no source of drivers 'toy'.*did you mean 'toys'"),
        ("python:Lamp", "expected 'python:package.module:Class', got 'python:Lamp'"),
        ("python:no.such:Lamp", "'no.such' cannot be imported: ModuleNotFoundError"),
        ("python:catkit_devices.plugins.lamp_house:LampDrivr", "has no class 'LampDrivr'.*did you mean 'LampDriver'"),
        ("pymeasure:Keithley2450", "expected a maker and a class"),
        ("pymeasure:keitley.Keithley2450", "no maker 'keitley'.*did you mean 'keithley'"),
        ("pymeasure:keithley.Kiethley2450", "did you mean 'pymeasure:keithley.Keithley2450'"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_driver_that_there_is_not_is_an_error_that_names_the_nearest(driver, problem):
    with pytest.raises(ConfigurationError, match=problem):
        Plugins([PLUGINS]).driver(driver)


def test_a_framework_that_is_not_installed_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pymeasure.instruments", None)
    monkeypatch.setitem(__import__("sys").modules, "pymeasure", None)
    with pytest.raises(ConfigurationError) as caught:
        Plugins().driver("pymeasure:keithley.Keithley2450")
    assert str(caught.value) == "PyMeasure is not installed: pip install 'catkit_devices[pymeasure]'"


# --- errors


def test_a_value_that_the_foreign_driver_refuses_is_a_value_error_of_the_device(lamp):
    device, _line, instrument = lamp()
    before = len(instrument.sent)
    with pytest.raises(DeviceValueError, match=r"device 'lamp' .*: level: level must be 0 to 10, is 11") as caught:
        device.level = 11
    assert type(caught.value.__cause__) is ValueError
    assert len(instrument.sent) == before
    assert device.level == 0.0


@pytest.mark.parametrize(
    ("name", "kind"), [("broken", AttributeError), ("table", KeyError), ("refused", ConnectionRefusedError)]
)
def test_any_other_error_of_the_foreign_driver_has_the_facts_of_the_device(lamp, name, kind):
    device, _line, _instrument = lamp()
    with pytest.raises(DeviceError, match=rf"device 'lamp' .*: {name}: {kind.__name__}: ") as caught:
        getattr(device, name)
    assert type(caught.value) is DeviceError
    assert type(caught.value.__cause__) is kind
    assert device.state == "open"  # an OSError that foreign code raises is no lost connection
    assert device.level == 0.0


def test_a_reply_that_makes_no_sense_to_the_foreign_driver_is_a_protocol_error(lamp, monkeypatch):
    device, _line, instrument = lamp()
    monkeypatch.setattr(type(instrument), "feed", lambda self, data: b"many\n" if data else b"")
    with pytest.raises(DeviceProtocolError, match="level: ValueError: could not convert string to float: 'many'"):
        _ = device.level


def test_a_driver_that_cannot_be_made_is_a_device_that_cannot_be_opened(lamp):
    device, _line, _instrument = lamp(opens=False, options={"colour": "red"})
    with pytest.raises(DeviceOpenError, match=r"LampDriver cannot be made: TypeError: .*'colour'"):
        device.open()
    assert device.state == "closed"


# --- its wire


def test_a_foreign_driver_may_open_the_address_of_its_device_only(lamp):
    device, _line, _instrument = lamp()
    with pytest.raises(DeviceOpenError, match="opens ASRL99::INSTR, and may open the address of the device only"):
        device.elsewhere()


@pytest.mark.parametrize("address", [ADDRESS, "GPIB0::5::INSTR"])
def test_a_late_reply_is_never_taken_for_the_answer_to_a_later_question(lamp, address):
    device, line, _instrument = lamp(address=address, clock=VirtualClock(), late_window=2.0)
    line.inject(Fault("late", delay=1.0))
    with pytest.raises(DeviceTimeoutError, match="echo: VI_ERROR_TMO") as caught:
        _ = device.echo
    assert caught.value.device == "lamp"
    assert device.echo == "echo 2"


@pytest.mark.parametrize("address", [ADDRESS, "GPIB0::5::INSTR"])
def test_the_line_of_an_object_that_is_there_already_is_recovered_after_a_timeout(lamp_house, address):
    library = build_library([Instrument(address, "lamp")], plugin_directories=[PLUGINS], clock=VirtualClock())
    made = lamp_house.LampDriver(address, library)
    device = share(made, late_window=2.0, safe=["off()"])
    with device:
        made.level = 4.0  # past the device, by the program that has made it
        assert device.level == 4.0
        library.line(address).inject(Fault("late", delay=1.0))
        with pytest.raises(DeviceTimeoutError, match="echo: VI_ERROR_TMO"):
            _ = device.echo
        assert device.echo == "echo 2"
        assert made.connection.timeout == 300, "what the driver has set is left as it is"
        with pytest.raises(DeviceBusyError, match="another device of this program has the object"):
            share(made, safe="nothing").open()
        other = lamp_house.LampDriver(address, library)
        with pytest.raises(DeviceBusyError, match="a device of this program has it already"):
            share(other, safe="nothing").open()
    assert library.instrument(address).level == 0.0
    with pytest.raises(DeviceOpenError, match=r"has been closed: give the class, share\(LampDriver, address\)"):
        device.open()
    with share(lamp_house.LampDriver, address, visa_library=library, safe="nothing") as another:
        assert another.level == 0.0


def test_an_object_without_a_line_of_its_own_has_the_mutex_all_the_same(lamp_house):
    with share(lamp_house.Counter(2), safe="nothing") as counter, counter.lock():
        assert (counter.step(), counter._address_) == (3, None)
    with pytest.raises(ConfigurationError, match="Counter is open already, so it has its address: give no other"):
        share(lamp_house.Counter(2), ADDRESS)


def test_a_driver_that_reads_until_nothing_comes_leaves_a_line_that_is_trusted(lamp):
    device, _line, _instrument = lamp(clock=VirtualClock())
    assert device.drain() == ["one", "two"]
    assert device._exchanges_.transport.trust.state.name == "TRUSTED"


def test_a_reply_that_nobody_has_read_is_never_taken_for_that_of_a_property(lamp):
    device, _line, _instrument = lamp(clock=VirtualClock())
    device._foreign_.connection.write("ECHO?")
    assert device.echo == "echo 2"


def test_a_cable_that_is_pulled_is_a_lost_connection_and_the_driver_is_made_anew(lamp):
    device, _line, _instrument = lamp()
    first = device._foreign_
    library = device._visa_library_
    library.disconnect(ADDRESS)
    with pytest.raises(DeviceDisconnectedError):
        _ = device.level
    library.reconnect(ADDRESS)
    assert device.level == 0.0
    assert device._foreign_ is not first


def test_an_operation_that_sleeps_ends_at_its_next_exchange_when_it_is_cancelled(lamp):
    device, _line, instrument = lamp(safe=["off()"])
    ended = []

    def ramp():
        try:
            device.ramp(1000, 0.01)
        except OperationCancelled as error:
            ended.append(error)
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=ramp)
    thread.start()
    while len(instrument.sent) < 5:
        time.sleep(0.001)
    device.mutex.break_("the operator wants it")
    thread.join(10)
    assert "the operator wants it" in str(ended[0])
    sent = len(instrument.sent)
    assert device.level == instrument.level
    assert len(instrument.sent) == sent + 1


def test_a_read_of_a_foreign_driver_that_waits_on_a_stream_ends_when_it_is_cancelled(lamp):
    device, _line, instrument = lamp(options={"timeout": 60_000})
    ended = []

    def ask():
        try:
            device.ask("what has no answer?")
        except MutexBrokenError as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while instrument.sent != [b"what has no answer?"]:
        time.sleep(0.001)
    device.mutex.break_("the operator wants it")
    thread.join(30)
    assert not thread.is_alive()
    assert "the operator wants it" in str(ended[0])
    assert device.level == 0.0


def test_a_device_is_made_safe_while_its_operation_sleeps_and_that_does_not_go_on(lamp):
    device, _line, instrument = lamp(safe={"level": 0})

    def ramp():
        with pytest.raises(Exception, match="."):
            device.ramp(1000, 0.01)

    thread = threading.Thread(target=ramp)
    thread.start()
    while len(instrument.sent) < 5:
        time.sleep(0.001)
    device._life_.interrupt("a trip")
    device.make_safe()
    thread.join(10)
    device.make_safe()
    assert instrument.level == 0.0


def test_an_address_has_one_owner_for_foreign_drivers_and_ours(lamp):
    library = build_library([Instrument(ADDRESS, "lamp")], plugin_directories=[PLUGINS])
    library.machine_wide = True  # as a real instrument
    one = create_device(DRIVER, "one", {"address": ADDRESS}, plugin_directories=[PLUGINS], visa_library=library)
    with one:
        from catkit_devices._wire.ownership import Ownership

        with pytest.raises(DeviceBusyError, match="ASRL1::INSTR is in use by"):
            Ownership(ADDRESS)


# --- safety


def test_a_foreign_device_is_made_safe_as_its_configuration_says(lamp):
    device, _line, instrument = lamp(safe={"level": 0})
    device.level = 5
    device.close()
    assert instrument.level == 0.0


@pytest.mark.parametrize(
    ("safe", "problem"),
    [
        ({"levl": 0}, "safe.levl: there is no such property.*did you mean 'level'"),
        ({"echo": 0}, "safe.echo: expected a property that can be set: echo can only be read"),
        (["of()"], "safe: there is no such property.*did you mean 'off'"),
        (["off"], "expected a method with brackets"),
        ("nothin", 'or "nothing", got'),
    ],
)
def test_a_mistake_in_safe_is_named_before_anything_is_opened(lamp, safe, problem):
    with pytest.raises(ConfigurationError, match=problem):
        lamp(safe=safe, opens=False)


def test_without_safe_an_emergency_puts_it_into_fault_and_closing_does_not(lamp):
    device, _line, instrument = lamp()
    device.level = 5
    device.close()
    assert (device.state, instrument.level) == ("closed", 5.0)
    device.open()
    with pytest.raises(DeviceFaultError, match="its configuration does not say how it is made safe"):
        device.make_safe()
    with pytest.raises(DeviceFaultError):
        _ = device.level
    device.reset()
    with device:
        assert device.level == 5.0


def test_units_limits_and_shared_come_from_the_configuration(lamp):
    device, _line, instrument = lamp(units={"level": "V"}, limits={"level": (0, 5)}, shared=["level"])
    device.level = "2000 mV"
    assert instrument.level == 2.0
    with pytest.raises(DeviceValueError, match="level must be 0 to 5 V, got 6.0 V"):
        device.level = 6
    about = device.describe()["properties"]["level"]
    assert (about["unit"], about["limits"], about["shared"]) == ("V", (0, 5), True)


class Attribute(Device):
    """Has an attribute of which a server of another framework tells the limits."""

    level = ForeignQuantity(Member("level", "The level.", writable=True, numeric=True, limits=(0, math.inf)))

    def _open(self):
        return self


def test_a_limit_that_another_framework_does_not_know_refuses_what_is_set():
    with (
        Attribute("attribute") as device,
        pytest.raises(DeviceValueError, match="highest value is not known: what its function tells is inf"),
    ):
        device.level = 5


def test_a_quantity_that_a_foreign_driver_reads_is_a_number_in_the_unit_of_its_property(lamp):
    device, _line, _instrument = lamp(units={"height": "mm"}, limits={"height": (0, 5)}, shared=["height"])
    device.height = "1500 um"
    assert device.height == 1.5
    assert type(device.height) is float
    other, _line, _instrument = lamp(units={"height": "m"})
    with pytest.raises(DeviceProtocolError, match="height is in millimeter in its driver, so its unit cannot be m"):
        _ = other.height
    wrong, _line, _instrument = lamp(units={"height": "V"})
    with pytest.raises(DeviceProtocolError, match="height must be in V, got 0.25 millimeter"):
        _ = wrong.height


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"units": {"lvel": "V"}}, "units.lvel: there is no such property.*did you mean 'level'"),
        ({"units": {"level": "volts per"}}, "units.level"),
        ({"shared": ["off"]}, "shared: off is no property"),
        ({"identity": "LAMP"}, "identity: there is no question for it"),
    ],
)
def test_a_mistake_in_the_other_keys_is_named_too(lamp, options, problem):
    with pytest.raises(ConfigurationError, match=problem):
        lamp(opens=False, **options)


def test_a_class_without_visa_is_hosted_as_it_is():
    counter = create_device(
        "python:catkit_devices.plugins.lamp_house:Counter", "counter", {"options": {"start": 2}},
        plugin_directories=[PLUGINS],
    )  # fmt: skip
    with counter:
        assert counter.step(by=3) == 5
        assert counter.count == 5
