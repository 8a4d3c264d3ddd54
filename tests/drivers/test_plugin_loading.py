import os
import pickle
import subprocess
import sys

import pytest

import catkit_devices.plugins
from catkit_devices.device import Device
from catkit_devices.drivers import Plugins, create_device
from catkit_devices.errors import ConfigurationError, DeviceValueError, PluginError
from catkit_devices.simulation import Instrument, build_library

# What a user writes to add an instrument: a driver of about 20 lines, and a simulator of about 20.
DRIVER = '''\
"""ACME shutter controller."""

from pathlib import Path

from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.visa import VisaDevice


class Shutter(VisaDevice):
    identity = "ACME,SHUTTER"

    opening = Control("OPEN?", "OPEN {}", limits=(0, 10), unit="mm", doc="Opening of the shutter.")
    cycles = Measurement("CYCL?", type=int, doc="Number of movements so far.")

    def _make_safe(self):
        self._write("OPEN 0")


@hookimpl
def catkit_devices_drivers():
    return {"acme_shutter": Shutter}


@hookimpl
def catkit_devices_simulators():
    return {"acme_shutter": Path(__file__).with_name("acme_shutter.yaml")}
'''
YAML = """\
spec: "1.1"
devices:
  shutter:
    eom:
      ASRL INSTR:
        q: "\\n"
        r: "\\n"
    error: ERROR
    dialogues:
      - q: "*IDN?"
        r: "ACME,SHUTTER,1,1.0"
      - q: "CYCL?"
        r: "12"
    properties:
      opening:
        default: 0.0
        getter: {q: "OPEN?", r: "{:.2f}"}
        setter: {q: "OPEN {}"}
        specs: {min: 0, max: 10, type: float}
"""
EMPTY_DRIVER = """\
from catkit_devices.hookspecs import hookimpl
from catkit_devices.device import Device

class Mine(Device):
    pass

@hookimpl
def catkit_devices_drivers():
    return {"mine": Mine}
"""


@pytest.fixture(autouse=True)
def _plugins_are_forgotten(monkeypatch):
    monkeypatch.delenv("CATKIT_DEVICES_PLUGINS", raising=False)
    monkeypatch.setattr(catkit_devices.plugins, "__path__", list(catkit_devices.plugins.__path__))
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(sys.modules)
    attributes = set(vars(catkit_devices.plugins))
    yield
    for name in set(sys.modules) - set(before):
        if name.startswith(("catkit_devices.plugins.", "acme")):
            del sys.modules[name]
    for name in set(vars(catkit_devices.plugins)) - attributes:
        delattr(catkit_devices.plugins, name)


@pytest.fixture
def directory(tmp_path):
    """Write plugin files into a directory of the user's: ``directory(mine="...")``."""
    made = tmp_path / "my plugins"
    made.mkdir()

    def write(**files):
        for name, text in files.items():
            (made / f"{name}.py").write_text(text)
        return made

    return write


def test_every_bundled_driver_is_found_by_name():
    plugins = Plugins()

    assert set(plugins.drivers) >= {
        "thorlabs_mcls1", "thorlabs_fw102c", "thorlabs_pm100d", "npoint_lc400", "omega_ithx", "scpi_camera",
    }  # fmt: skip
    assert "optical" in plugins.benches
    assert plugins.problems == []
    assert all(cls.driver == name for name, cls in plugins.drivers.items())


def test_one_file_in_a_directory_is_a_driver_with_its_simulator(directory):
    folder = directory(acme_shutter=DRIVER)
    (folder / "acme_shutter.yaml").write_text(YAML)
    assert len(DRIVER.splitlines()) < 30
    assert len(YAML.splitlines()) < 25
    address = "ASRL3::INSTR"
    library = build_library([Instrument(address, "acme_shutter")], clock="virtual", plugin_directories=[folder])

    shutter = create_device(
        "acme_shutter", "shutter", {"address": address, "limits": {"opening": [0, "0.5 cm"]}},
        plugin_directories=[str(folder)], visa_library=library,
    )  # fmt: skip

    with shutter:
        shutter.opening = "4 mm"
        assert (shutter.opening, shutter.cycles) == (4.0, 12)
        with pytest.raises(DeviceValueError, match=r"'shutter' \(acme_shutter at .* must be 0 to 5 mm, got 6"):
            shutter.opening = 6


def test_a_class_from_a_directory_can_be_pickled_by_name_in_every_process(directory, monkeypatch):
    folder = directory(mine=EMPTY_DRIVER)
    cls = Plugins([folder]).driver("mine")
    assert cls.__module__ == "catkit_devices.plugins.mine"

    code = "import sys, pickle; print(pickle.loads(bytes.fromhex(sys.argv[1])).__module__)"
    monkeypatch.setenv("CATKIT_DEVICES_PLUGINS", str(folder))
    child = subprocess.run(
        [sys.executable, "-c", code, pickle.dumps(cls).hex()], capture_output=True, text=True, check=True
    )

    assert child.stdout.strip() == cls.__module__


def test_directories_come_from_the_environment_too(directory, monkeypatch, tmp_path):
    monkeypatch.setenv("CATKIT_DEVICES_PLUGINS", os.pathsep.join([str(tmp_path), str(directory(mine=EMPTY_DRIVER))]))

    assert "mine" in Plugins().drivers


def test_the_same_directory_twice_is_one(directory, monkeypatch):
    folder = directory(mine=EMPTY_DRIVER)
    monkeypatch.setenv("CATKIT_DEVICES_PLUGINS", str(folder))

    assert "mine" in Plugins([folder, f"{folder}/"]).drivers


def test_an_installed_distribution_registers_drivers_by_entry_point(tmp_path):
    (tmp_path / "acme_lab.py").write_text(EMPTY_DRIVER)
    metadata = tmp_path / "acme_lab-2.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-lab\nVersion: 2.1\n")
    (metadata / "entry_points.txt").write_text("[catkit_devices]\nacme = acme_lab\n")
    sys.path.insert(0, str(tmp_path))

    assert Plugins().driver("mine").__module__ == "acme_lab"


def test_a_plugin_that_cannot_be_imported_is_reported_and_the_others_work(directory):
    folder = directory(broken="import no_such_module_anywhere\nDRIVERS = {'acme_laser': None}\n", mine=EMPTY_DRIVER)

    plugins = Plugins([folder])

    assert "mine" in plugins.drivers
    (problem,) = plugins.problems
    assert str(folder / "broken.py") in str(problem)
    assert isinstance(problem.__cause__, ModuleNotFoundError)


def test_a_driver_whose_plugin_failed_says_why(directory):
    folder = directory(broken="import no_such_module_anywhere\nDRIVERS = {'acme_laser': None}\n")

    with pytest.raises(ConfigurationError, match=r"'acme_laser' is not available.*broken.*No module named 'no_such"):
        Plugins([folder]).driver("acme_laser")


def test_an_unknown_driver_gets_the_nearest_spelling(directory):
    with pytest.raises(ConfigurationError, match=r"no driver 'thorlabs_fw102' \(did you mean 'thorlabs_fw102c'\?\)"):
        Plugins().driver("thorlabs_fw102")


MADE = (
    "from catkit_devices.drivers import create_device; create_device('thorlabs_fw102c', 'wheel', {'address': 'ASRL3'})"
)
CONFIGURED = "from catkit_devices import load_configuration; load_configuration(['bench.toml'])"


@pytest.mark.parametrize("use", [MADE, CONFIGURED])
def test_one_device_imports_no_other_bundled_plugin(use, tmp_path):
    (tmp_path / "bench.toml").write_text(
        '[testbed]\nname = "b"\n[devices.wheel]\ndriver = "thorlabs_fw102c"\naddress = "ASRL3::INSTR"\n'
    )
    code = (
        f"import sys; {use};"
        "loaded = [name.split('.')[-1] for name in sys.modules if name.startswith('catkit_devices.plugins.')];"
        "print(*sorted(name for name in loaded if not name.startswith('_')))"
    )

    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)

    assert child.stdout.split() == ["thorlabs_fw102c"]


def test_a_name_that_no_bundled_file_mentions_is_looked_up_among_all_plugins():
    driver = Plugins(only=["snmp_ups"]).driver("thorlabs_fw102c")

    assert driver is Plugins().driver("thorlabs_fw102c")
    with pytest.raises(ConfigurationError, match=r"no driver 'thorlabs_fw102' \(did you mean 'thorlabs_fw102c'\?\)"):
        create_device("thorlabs_fw102", "wheel", {})


def test_making_one_device_finds_its_name_used_twice(directory):
    folder = directory(mine=EMPTY_DRIVER.replace('"mine"', '"thorlabs_fw102c"'))

    with pytest.raises(PluginError, match=r"driver 'thorlabs_fw102c' is provided twice: .*mine\.py"):
        create_device("thorlabs_fw102c", "wheel", {}, plugin_directories=[folder])


def test_a_hook_that_raises_is_reported_and_the_others_work(directory):
    folder = directory(bad=EMPTY_DRIVER.replace('return {"mine": Mine}', "return 1 / 0"))

    plugins = Plugins([folder])

    assert "thorlabs_fw102c" in plugins.drivers
    assert "ZeroDivisionError" in str(plugins.problems[0])


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"one": EMPTY_DRIVER, "two": EMPTY_DRIVER}, ["driver 'mine' is provided twice", "one.py", "two.py"]),
        (
            {"bad": EMPTY_DRIVER.replace("catkit_devices_drivers()", "catkit_devices_driver()")},
            ["bad.py", "no hook 'catkit_devices_driver'", "did you mean 'catkit_devices_drivers'"],
        ),
        ({"bad": EMPTY_DRIVER.replace("drivers()", "drivers(colour)")}, ["bad.py", "colour"]),
        ({"bad": EMPTY_DRIVER.replace("@hookimpl", "")}, ["bad.py", "not marked with @hookimpl"]),
        ({"bad": EMPTY_DRIVER.replace('{"mine": Mine}', '{"mine": 3}')}, ["bad.py", "'mine'", "subclass of Device"]),
        ({"bad": EMPTY_DRIVER.replace('{"mine": Mine}', '{"my driver": Mine}')}, ["bad.py", "'my driver'"]),
        ({"bad": EMPTY_DRIVER.replace('{"mine": Mine}', "Mine")}, ["bad.py", "must return a dict"]),
        ({"thorlabs_fw102c": EMPTY_DRIVER}, ["two plugin files", "my plugins", "rename"]),
    ],
)
def test_a_plugin_that_breaks_the_rules_is_an_error_that_names_the_culprits(directory, files, words):
    folder = directory(**files)

    with pytest.raises(PluginError) as caught:
        Plugins([folder])

    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_tests_and_private_files_beside_a_plugin_are_left_alone(directory):
    folder = directory(mine=EMPTY_DRIVER, test_mine="raise RuntimeError", conftest="raise RuntimeError", _x="1 / 0")

    assert Plugins([folder]).problems == []


def test_a_plugin_directory_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="no_such"):
        Plugins([tmp_path / "no_such"])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"adress": "ASRL3::INSTR"}, "no such option.*did you mean 'address'"),
        ({}, "devices.laser.address: is missing, driver 'thorlabs_mcls1' needs it"),
        ({"address": "ASRL3::INSTR", "timeout": "x", "baud": 1}, "baud"),
        ({"address": "ASRL3::INSTR", "channel": 5}, "channel must be 1 to 4, got 5"),
    ],
)
def test_options_that_a_driver_refuses_are_configuration_errors(options, problem):
    with pytest.raises(ConfigurationError, match=problem):
        create_device("thorlabs_mcls1", "laser", options)


def test_making_a_device_opens_nothing():
    device = create_device("thorlabs_mcls1", "laser", {"address": "TCPIP0::192.0.2.1::1::SOCKET"})

    assert isinstance(device, Device)
    assert device.state == "closed"


def test_every_hook_is_documented():
    from catkit_devices import hookspecs

    hooks = [value for value in vars(hookspecs).values() if hasattr(value, "catkit_devices_spec")]

    assert len(hooks) == 12
    assert all(hook.__doc__ for hook in hooks)
