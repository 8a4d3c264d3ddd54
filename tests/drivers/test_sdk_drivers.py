"""Drivers that use the library of a manufacturer: with their stand-ins, and how they open the library itself."""

import sys
from types import ModuleType

import numpy as np
import pytest

from catkit_devices import units
from catkit_devices.drivers import Plugins, create_device
from catkit_devices.errors import (
    ConfigurationError,
    DeviceDisconnectedError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceValueError,
    SafetyError,
)
from catkit_devices.interfaces import interfaces_of
from catkit_devices.sim import boston_dm, zwo_asi
from catkit_devices.simulation import VirtualClock
from catkit_devices.stand_ins import create_simulated
from catkit_devices.testbed import Testbed, load_configuration

CONFIGURATION = """
[testbed]
name = "bench"
simulate = true

[devices.mirrors]
driver = "boston_dm"
serial = "17BW023#065"
stand_in = "catkit_devices.sim.boston_dm:BmcDm"

[devices.camera]
driver = "zwo_asi"
model = "ZWO ASI290MM"
stand_in = "catkit_devices.sim.zwo_asi:Camera"
simulator_options = { rows = 64, columns = 96 }

[devices.power]
driver = "dli_power_switch"
address = "http://192.168.0.100"
password = "1234"
stay_on = [8]
stand_in = "catkit_devices.sim.dli_power_switch:PowerSwitch"

[devices.ups]
driver = "snmp_ups"
address = "192.168.0.101"
stand_in = "catkit_devices.sim.snmp_ups:Ups"
simulator_options = { fails_after = 0.0, charge = 50.0 }

[safety.mains]
device = "ups"
property = "minutes_remaining"
minimum = 10
interval = 0.2
timeout = 10.0
"""
OPTIONS = {
    "boston_dm": {"serial": "17BW023#065"}, "zwo_asi": {"model": "ZWO ASI290MM"}, "snmp_ups": {"address": "10.0.0.1"},
    "dli_power_switch": {"address": "http://10.0.0.2", "password": ""},
}  # fmt: skip


def simulated(driver, stand_in, **options):
    given = {**OPTIONS[driver], **options}
    return create_simulated(Plugins().driver(driver), stand_in, driver, given, {}, VirtualClock())


# --- all of them


@pytest.mark.parametrize("driver", OPTIONS)
def test_a_driver_without_visa_says_what_it_can_do(driver):
    described = create_device(driver, "device", OPTIONS[driver]).describe()

    assert interfaces_of(Plugins().driver(driver)) == (("Camera",) if driver == "zwo_asi" else ())
    for name, facts in described["properties"].items():
        assert facts["doc"], name
        units.check_unit(facts["unit"])


def test_drivers_without_visa_run_on_a_simulated_testbed(tmp_path):
    file = tmp_path / "bench.toml"
    file.write_text(CONFIGURATION)
    commands = np.zeros((2, 34, 34))
    commands[0, 17, 17] = 0.5

    with Testbed(load_configuration([file])) as bench:
        mirrors, camera, power, ups = (bench.devices[name] for name in ("mirrors", "camera", "power", "ups"))
        mirrors.commands = commands
        camera.exposure_time = "20 ms"
        power.outlets[8].enabled = True

        assert np.array_equal(mirrors.commands, commands)
        frame = camera.frame()
        assert (frame.shape, frame.dtype) == ((64, 96), np.uint16)
        assert frame[28:36, 44:52].mean() > 2 * np.median(frame)  # the spot is in the middle
        assert power.outlets[8].enabled
        assert (ups.on_battery, ups.output_voltage, ups.minutes_remaining) == (True, 230.0, 14.0)
        assert bench.trip is None


def test_a_ups_with_too_little_charge_is_a_safety_check_that_fails(tmp_path):
    file = tmp_path / "bench.toml"
    file.write_text(CONFIGURATION.replace("minimum = 10", "minimum = 16"))

    with pytest.raises(SafetyError, match="mains.*16"), Testbed(load_configuration([file])):
        pass


# --- deformable mirrors


class Sdk(boston_dm.BmcDm):
    """The class of the SDK, which has to be opened."""

    answer = 0

    def __init__(self):
        super().__init__()
        self._open = False
        self.sent[:] = 0.7  # whatever the mirrors had before
        type(self).made = self

    def open_dm(self, serial):
        self.serial = serial
        self._open = self.answer == 0
        return self.answer


@pytest.fixture
def bmc(monkeypatch):
    module = ModuleType("bmc")
    module.BmcDm = type("BmcDm", (Sdk,), {})
    monkeypatch.setitem(sys.modules, "bmc", module)
    return module.BmcDm


def test_the_mirrors_are_at_0_v_when_they_are_opened_and_closed(bmc):
    device = create_device("boston_dm", "dm", OPTIONS["boston_dm"])
    device.open()
    sdk = bmc.made
    assert (sdk.serial, sdk.sent.any(), device.commands.any()) == ("17BW023#065", False, False)
    device.commands = np.full((2, 34, 34), 0.25)
    assert sdk.sent.any()

    device.close()

    assert not sdk.sent.any()
    assert not sdk._open


def test_commands_go_to_952_actuators_of_each_mirror_row_by_row():
    device = simulated("boston_dm", boston_dm.BmcDm)
    with device:
        commands = np.zeros((2, 34, 34))
        commands[0], commands[1] = 0.25, 0.5
        commands[1, 0, 13] = 0.75  # a place without an actuator, since the first row has those from 14 to 19 only
        commands[1, 0, 12:22] += 0.125

        device.commands = commands

        sent = device._connection.sent
        assert set(sent[:952]) == {0.25}
        assert not sent[952:1024].any()
        assert not sent[1024 + 952 :].any()
        first_row = np.flatnonzero(device.actuators[0])
        assert np.array_equal(sent[1024 : 1024 + len(first_row)], commands[1, 0, first_row])
        assert device.commands[1, 0, 0] == 0.0
        assert device.actuators.sum() == 952


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        (np.full((2, 34, 34), 0.51), r"commands must be 0 to 0\.5, got 0 to 0\.51"),
        (np.full((2, 34, 34), -0.01), r"commands must be 0 to 0\.5, got -0\.01 to 0"),
        (np.zeros((2, 32, 32)), r"commands must be an array of the shape \(2, 34, 34\), got .* \(2, 32, 32\)"),
        ("flat", r"commands must be an array of numbers, got 'flat'"),
    ],
)
def test_commands_that_would_damage_the_mirrors_are_refused(commands, message):
    with simulated("boston_dm", boston_dm.BmcDm, highest=0.5) as device:
        with pytest.raises(DeviceValueError, match=message):
            device.commands = commands
        assert not device._connection.sent.any()


def test_after_a_failed_command_the_present_commands_of_the_mirrors_are_not_known(monkeypatch):
    with simulated("boston_dm", boston_dm.BmcDm) as device:
        monkeypatch.setattr(device._connection, "send_data", lambda _commands: 1)
        with pytest.raises(DeviceProtocolError, match="the driver box is closed"):
            device.commands = np.full((2, 34, 34), 0.25)
        with pytest.raises(DeviceProtocolError, match="it is not known whether the last commands have arrived"):
            _ = device.commands
        monkeypatch.undo()


def test_mirrors_that_are_not_there_are_an_error_of_the_sdk(bmc):
    bmc.answer = 2

    with pytest.raises(DeviceOpenError, match="serial number '17BW023#065': commands are out of range"):
        create_device("boston_dm", "dm", OPTIONS["boston_dm"]).open()


@pytest.mark.parametrize(
    ("driver", "package", "hint"),
    [("boston_dm", "bmc", "Micromachines' SDK"), ("zwo_asi", "zwoasi", "pip install zwoasi")],
)
def test_without_the_library_the_error_says_what_to_install(driver, package, hint, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(DeviceOpenError, match=f"needs the package {package} .*{hint}"):
        create_device(driver, "device", OPTIONS[driver]).open()


@pytest.mark.parametrize("highest", [0.0, 1.5])
def test_a_highest_command_that_makes_no_sense_is_refused(highest):
    with pytest.raises(ConfigurationError, match="highest must be above 0 and at most 1"):
        create_device("boston_dm", "dm", {**OPTIONS["boston_dm"], "highest": highest})


# --- camera


@pytest.fixture
def zwoasi(monkeypatch):
    """The package zwoasi, with two cameras plugged in."""
    module = ModuleType("zwoasi")
    module.ZWO_Error = type("ZWO_Error", (Exception,), {})
    module.libraries = []
    module.init = module.libraries.append
    module.list_cameras = lambda: ["ZWO ASI1600MM", "ZWO ASI290MM"]
    module.made = []

    class Camera(zwo_asi.Camera):
        def __init__(self, number):
            super().__init__(VirtualClock(), rows=8, columns=16)
            self.number = number
            module.made.append(self)

        def set_image_type(self, image_type):
            self.image_type = image_type

    module.Camera = Camera
    monkeypatch.setitem(sys.modules, "zwoasi", module)
    return module


def test_the_camera_of_the_model_is_opened_with_16_bits(zwoasi):
    with create_device("zwo_asi", "camera", {**OPTIONS["zwo_asi"], "library": "/opt/libASICamera2.so"}) as device:
        assert zwoasi.libraries == ["/opt/libASICamera2.so"]
        assert [(camera.number, camera.image_type) for camera in zwoasi.made] == [(1, 2)]
        assert device.shape == (8, 16)


def test_a_camera_that_is_not_there_is_an_error_that_lists_those_that_are(zwoasi):
    with pytest.raises(DeviceOpenError, match="expected one camera 'ZWO ASI183MM', found 'ZWO ASI1600MM', 'ZWO ASI290"):
        create_device("zwo_asi", "camera", {"model": "ZWO ASI183MM"}).open()


def test_an_sdk_that_is_not_installed_is_an_error_that_says_so(zwoasi, monkeypatch):
    def fails(_library):
        raise zwoasi.ZWO_Error("ASI SDK library not found")

    monkeypatch.setattr(zwoasi, "init", fails)

    with pytest.raises(DeviceOpenError, match="ASI SDK library not found"):
        create_device("zwo_asi", "camera", OPTIONS["zwo_asi"]).open()


def test_a_frame_takes_the_exposure_time_and_is_brighter_with_a_longer_one():
    device = simulated("zwo_asi", zwo_asi.Camera)
    with device:
        means = []
        for seconds in (0.01, 0.1):
            device.exposure_time = seconds
            begun = device._clock_.time()
            means.append(device.frame()[540:556, 960:976].mean())
            assert device._clock_.time() - begun >= seconds

    assert means[1] - 100 == pytest.approx(10 * (means[0] - 100), rel=0.1)


def test_an_exposure_that_fails_is_an_error(monkeypatch):
    with simulated("zwo_asi", zwo_asi.Camera) as device:
        monkeypatch.setattr(device._connection, "get_exposure_status", lambda: 3)
        with pytest.raises(DeviceProtocolError, match="the exposure has failed: status 2 was expected, got 3"):
            device.frame()


def test_a_value_that_the_camera_changes_is_an_error(monkeypatch):
    with simulated("zwo_asi", zwo_asi.Camera) as device:
        monkeypatch.setitem(zwo_asi._HIGHEST, zwo_asi._GAIN, 300)
        with pytest.raises(DeviceProtocolError, match="400 was set, but 300 was read back"):
            device.gain = 400


def test_a_camera_that_was_unplugged_is_told_from_one_that_refuses(monkeypatch):
    class Error(Exception):
        def __init__(self, number):
            super().__init__(f"error {number}")
            self.error_code = number

    device = simulated("zwo_asi", zwo_asi.Camera)
    device.open()
    camera = device._connection
    for number, kind in ((16, DeviceProtocolError), (5, DeviceDisconnectedError)):

        def fails(*_arguments, number=number):
            raise Error(number)

        monkeypatch.setattr(camera, "get_control_value", fails)
        with pytest.raises(kind, match=rf"'zwo_asi' \(zwo_asi\): Error: error {number}"):
            _ = device.gain
    device.close()
