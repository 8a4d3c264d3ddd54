"""Under simulation no real instrument is opened: a stand-in is declared, or the testbed does not start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from catkit_devices.errors import ConfigurationError, DeviceOpenError
from catkit_devices.testbed import Testbed, load_configuration
from catkit_devices.testbed.configuration.layout_factory import lay_out
from catkit_devices.testbed.devices.factory import make_device

PLUGINS = Path(__file__).parent / "stand_in_plugins"

BENCH = """
[testbed]
name = "trial"
plugins = ["{plugins}"]
runs = "{runs}"

[simulation]
clock = "virtual"

[devices.camera]
driver = "sdk_camera"
serial = "CAM2-0001"
"""


@pytest.fixture
def real(tmp_path, monkeypatch):
    """A file that is there when the real camera was touched."""
    monkeypatch.setenv("REAL_CAMERA", str(tmp_path / "real"))
    return tmp_path / "real"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """What the stand-in was told."""
    monkeypatch.setenv("FAKE_CAMERA", str(tmp_path / "fake"))
    return tmp_path / "fake"


@pytest.fixture
def configured(tmp_path):
    """Write the configuration, with further keys of the camera or tables, and load it."""

    def load(more="", *overrides):
        file = tmp_path / "bench.toml"
        file.write_text(BENCH.format(plugins=PLUGINS, runs=tmp_path / "runs") + more)
        return load_configuration([file], overrides)

    return load


def test_the_name_of_a_port_and_its_visa_address_are_one_address(configured):
    with pytest.raises(ConfigurationError, match="expected 'devices', the server of 'meter', which has the same addr"):
        configured(
            """
[devices.meter]
driver = "port_name"
address = "COM3"

[devices.spare]
driver = "port_name"
address = "ASRL3::INSTR"
server = "other"
"""
        )


REFUSAL = r"camera.*driver 'sdk_camera' does not use VISA.*declare stand_in = \"module:Class\""


def test_a_driver_without_visa_is_not_simulated_without_a_stand_in(configured, real):
    with pytest.raises(ConfigurationError, match=REFUSAL), Testbed(configured(), simulate=True):
        pytest.fail("the testbed started")
    with pytest.raises(ConfigurationError, match=r"bench.toml: devices.camera: driver 'sdk_camera' does not use VISA"):
        configured("", "testbed.simulate=true")
    assert not real.exists()


def test_a_device_without_a_stand_in_is_not_made_in_a_simulated_testbed(configured, real):
    layout = lay_out(configured('stand_in = "_camera_stand_in:FakeCamera"\n'), "nowhere", simulate=True)
    (entry,) = layout.devices
    object.__setattr__(entry, "stand_in", None)
    with pytest.raises(ConfigurationError, match=REFUSAL):
        make_device("camera", layout, {})
    assert not real.exists()


def test_without_simulation_the_real_instrument_is_opened(configured, real):
    with Testbed(configured('stand_in = "_camera_stand_in:FakeCamera"\n'), simulate=False) as testbed:
        testbed.devices.camera.open()
        assert real.read_text() == "CAM2-0001"


@pytest.mark.parametrize("stand_in", ["FakeCamera", "SimulatedCamera"])
def test_the_code_of_the_driver_uses_the_stand_in_as_its_instrument(configured, real, fake, stand_in):
    camera = f'stand_in = "_camera_stand_in:{stand_in}"\nsimulator_options = {{ gain = 5 }}\n'
    with Testbed(configured(camera), simulate=True) as testbed:
        device = testbed.devices.camera
        assert device.gain == 5
        device.gain = 12
        with pytest.raises(ValueError, match="gain must be 0 to 48"):
            device.gain = 60
        assert device.settle(), "it did not have the clock of the simulation"
    assert fake.read_text().splitlines() == ["gain 12", "gain 0", "closed"]
    assert not real.exists()


@pytest.mark.parametrize(
    ("camera", "problem"),
    [
        ('stand_in = "FakeCamera"', "devices.camera.stand_in: .*pattern"),
        ('stand_in = "_no_such_module:FakeCamera"', "'_no_such_module' cannot be imported"),
        ('stand_in = "_camera_stand_in:FakeCamra"', "has no class 'FakeCamra'.*FakeCamera"),
        ('stand_in = "_camera_stand_in:NO_CLASS"', "has no class 'NO_CLASS'"),
        ('stand_in = "sdk_plugin:Sum"', "expected a class that derives from the driver's, Camera"),
        ('stand_in = "_camera_stand_in:OpensTheRealOne"', "which opens the real instrument: it needs its own _open()"),
        ('stand_in = "_camera_stand_in:FakeCamera"\nsimulator_options = { gian = 5 }', "has no such option.*gain"),
        ('stand_in = "_camera_stand_in:FakeCamera"\nsimulator = "scpi_camera"', "expected stand_in or simulator"),
        (
            '[devices.wheel]\ndriver = "thorlabs_fw102c"\naddress = "ASRL3"\nstand_in = "_camera_stand_in:FakeCamera"',
            "devices.wheel.stand_in: driver 'thorlabs_fw102c' uses VISA, which is simulated: declare simulator",
        ),
    ],
)  # fmt: skip
def test_an_impossible_stand_in_is_an_error_of_the_configuration(configured, real, camera, problem):
    with pytest.raises(ConfigurationError, match=f"(?s){problem}"):
        configured(camera + "\n")
    assert not real.exists()


CAMERA = 'stand_in = "_camera_stand_in:FakeCamera"\n'


@pytest.mark.parametrize(
    ("device", "problem"),
    [
        ('driver = "thorlabs_fw102c"\naddress = "ASRL3::INSTR"', "at ASRL3::INSTR: declare simulator"),
        ('driver = "fixed_address"', "uses VISA: declare address and simulator"),
        ('driver = "port_name"\naddress = "/dev/ttyUSB7"', "at /dev/ttyUSB7: declare simulator"),
    ],
)
def test_a_driver_with_visa_is_not_simulated_without_a_simulated_instrument(configured, device, problem):
    with pytest.raises(ConfigurationError, match=f"devices.other.*{problem}"):
        lay_out(configured(f"{CAMERA}[devices.other]\n{device}\n"), "nowhere", simulate=True)


def test_a_second_device_at_an_address_has_the_simulated_instrument_of_the_first(configured):
    wheel = '[devices.{}]\ndriver = "thorlabs_fw102c"\naddress = "{}"\n'
    second = wheel.format("second", "asrl3")
    first = wheel.format("first", "ASRL3::INSTR") + 'simulator = "thorlabs_fw102c"\n'
    assert len(lay_out(configured(CAMERA + second + first), "nowhere", simulate=True).devices) == 3


def test_a_driver_that_opens_no_instrument_is_not_replaced_under_simulation(configured, fake):
    with Testbed(configured(f'{CAMERA}[devices.sum]\ndriver = "sum"\n'), simulate=True) as testbed:
        assert testbed.devices.sum.add(2, 3) == 5


def test_a_serial_device_is_simulated_at_the_name_of_its_port(configured, fake):
    port = '[devices.port]\ndriver = "port_name"\naddress = "/dev/ttyUSB7"\nsimulator = "thorlabs_fw102c"\n'
    with Testbed(configured(CAMERA + port), simulate=True) as testbed:
        assert testbed.devices.port.kind_of_port() == "VisaSerialPort"


def check_config(tmp_path, *arguments):
    command = [sys.executable, "-m", "catkit_devices", "check-config", str(tmp_path / "bench.toml"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_check_config_names_what_cannot_be_simulated(configured, real, tmp_path):
    configured()
    checked = check_config(tmp_path)
    assert checked.returncode == 0
    assert "device 'camera' cannot be simulated: driver 'sdk_camera' does not use VISA" in " ".join(
        checked.stderr.split()
    )
    assert json.loads(check_config(tmp_path, "--json").stdout)["not_simulated"].keys() == {"camera"}
    simulated = check_config(tmp_path, "--set", "testbed.simulate=true")
    assert simulated.returncode != 0
    assert "driver 'sdk_camera' does not use VISA" in " ".join(simulated.stderr.split())
    assert not real.exists()


SUPPLY = """
[devices.supply]
driver = "scpi"
address = "TCPIP::10.0.0.7::5025::SOCKET"
simulator = "scpi"
properties.voltage.get = "VOLT?"
properties.voltage.set = "VOLT {}"
"""


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (SUPPLY, "making safe does nothing to supply: the table has no safe = { ... }"),
        (f"{SUPPLY}safe = {{ voltage = 0 }}\n", None),
        pytest.param(f'{SUPPLY}safe = "nothing"\n', None, marks=pytest.mark.whole),
        pytest.param(
            SUPPLY.replace('properties.voltage.set = "VOLT {}"', ""), None, marks=pytest.mark.whole
        ),  # there is nothing to set
        ('[devices.supply]\ndriver = "sum"\n', "making safe does nothing to supply: the driver has nothing to make"),
        ('[devices.supply]\ndriver = "keysight_e36312a"\naddress = "TCPIP::10.0.0.7::5025::SOCKET"\n', None),
    ],
)
def test_check_config_says_which_devices_have_no_safe_state(configured, tmp_path, table, said):
    configured(table)
    printed = " ".join(check_config(tmp_path).stdout.split())
    assert said in printed if said else "to supply" not in printed
    assert ("supply" in json.loads(check_config(tmp_path, "--json").stdout)["not_made_safe"]) is (said is not None)


def test_limits_are_narrowed_by_the_configuration_for_a_driver_without_visa_too(configured, real, fake):
    more = 'stand_in = "_camera_stand_in:FakeCamera"\nlimits = { gain = [0, 10] }\n'
    with Testbed(configured(more), simulate=True) as testbed:
        camera = testbed.devices.camera
        camera.gain = 10
        with pytest.raises(ValueError, match="gain must be 0 to 10, got 11"):
            camera.gain = 11
        assert camera.describe()["properties"]["gain"]["limits"] == (0, 10)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("limits = { gain = [0, 99] }", "devices.camera.limits.gain: can only be narrowed: 0 to 99 is not"),
        ("[devices.other]\ndriver = 'unconfigurable'\nlimits = { gain = [0, 9] }",
         "devices.other.limits: driver 'unconfigurable' takes no limits: its constructor must pass"),
    ],
)  # fmt: skip
def test_impossible_limits_are_an_error_of_the_configuration(configured, more, problem):
    with pytest.raises(ConfigurationError) as caught:
        configured(f"{more}\n")

    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("stand_in", "hint"),
    [('stand_in = "_camera_stand_in:FakeCamera"', "; --simulate uses the stand-in, which does not need it"), ("", "")],
)
def test_a_package_that_is_not_installed_is_named_with_the_stand_in_that_needs_none(configured, stand_in, hint):
    layout = lay_out(configured(stand_in, 'devices.camera.driver="not_installed"'), "nowhere", simulate=False)
    with pytest.raises(DeviceOpenError) as raised:
        make_device("camera", layout, {}).open()

    needs = "the driver needs the Python module 'catkit_devices_sdk_of_nobody', which is not installed here"
    assert raised.value.problem == needs + hint


def test_a_device_whose_address_is_no_visa_address_does_not_prevent_recording(configured, tmp_path):
    switch = '[devices.switch]\ndriver = "dli_power_switch"\naddress = "192.0.2.7"\npassword = "1234"\n'
    wheel = '[devices.wheel]\ndriver = "thorlabs_fw102c"\naddress = "ASRL3::INSTR"\n'
    recorded = f"testbed.record='{tmp_path / 'recordings'}'"

    layout = lay_out(configured("\n" + switch + wheel, recorded), "recorded", simulate=False)

    make_device("wheel", layout, {})
