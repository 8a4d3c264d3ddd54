"""Components in the configuration of a testbed, on its command line, and in its safety checks."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catkit_devices.errors import ConfigurationError, DeviceValueError, SafetyError
from catkit_devices.testbed import Testbed, load_configuration

PLUGINS = Path(__file__).parent / "rack_plugins"

BENCH = f"""
[testbed]
name = "racks"
plugins = ["{PLUGINS}"]
simulate = true

[devices.supply]
driver = "test_rack"
address = "ASRL1::INSTR"
simulator = "test_rack"

[devices.supply.limits]
outputs.1.voltage = [0, "5 V"]
"outputs[2].voltage" = [1, 20]
"""

WATCHED = """
[safety.output]
device = "supply"
property = "outputs.2.voltage"
maximum = "10000 mV"
interval = 0.05
timeout = 5.0

[safety.oven]
device = "supply"
property = "modules['oven'].sensors[2].value"
maximum = 1000
interval = 0.05
timeout = 5.0
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "bench.toml"
    path.write_text(BENCH)
    return path


@pytest.fixture
def racks(file, runtime):
    with Testbed(load_configuration([file]), runs=file.parent) as testbed:
        yield testbed


def test_components_have_their_limits_from_the_configuration(racks):
    supply = racks.devices.supply
    supply.outputs[2].voltage = 20
    with pytest.raises(DeviceValueError, match=r"outputs\[1\]\.voltage must be 0 to 5 V"):
        supply.outputs[1].voltage = 6
    with pytest.raises(DeviceValueError, match=r"outputs\[2\]\.voltage must be 1 to 20 V"):
        supply.outputs[2].voltage = 0.5

    assert supply.describe()["properties"]["outputs[1].voltage"]["limits"] == (0.0, 5.0)
    assert [supply.modules["oven"].sensors[1].value, supply.modules["bath"].sensors[2].value] == [401.5, 702.5]


def test_a_later_file_and_a_set_option_lay_themselves_over_limits_in_either_spelling(file):
    overlaid = file.with_name("later.toml")
    overlaid.write_text("[devices.supply.limits]\noutputs.2.voltage = [1, 3]\n")
    configuration = load_configuration([file, overlaid], ['devices.supply.limits."outputs[1].voltage"=[0, 2]'])

    assert configuration.devices["supply"].limits == {"outputs.1.voltage": (0.0, 2.0), "outputs.2.voltage": (1.0, 3.0)}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("outputs.3.voltage = [0, 1]", r"bench\.toml: devices\.supply\.limits\.outputs\.3\.voltage: there is no"),
        ("outputs.1.volage = [0, 1]", r"limits\.outputs\.1\.volage: .*did you mean 'voltage'"),
        ("output.1.voltage = [0, 1]", r"there is no component output \(did you mean 'outputs'"),
        ("outputs.1.enabled = [0, 1]", r"outputs\.1\.enabled: has no limits"),
        ("outputs.1.voltage = [0, 31]", r"outputs\.1\.voltage: can only be narrowed"),
        ("outputs.1.voltage = 5", r"devices\.supply\.limits\.outputs\.1\.voltage"),
    ],
)  # fmt: skip
def test_limits_that_make_no_sense_are_named_with_their_file_and_key(tmp_path, text, problem):
    path = tmp_path / "bench.toml"
    path.write_text(BENCH.partition("outputs.1")[0] + text)

    with pytest.raises(ConfigurationError, match=problem):
        load_configuration([path])


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("outputs.2.voltage", "outputs.2.volage", r"no property 'outputs\.2\.volage'; .*outputs\[1\]\.voltage.*did"),
        ("outputs.2.voltage", "outputs.2.enabled", r"'outputs\.2\.enabled' of device 'supply' is not shared"),
        ("outputs.2.voltage", "outputs.3.voltage", r"no property 'outputs\.3\.voltage'"),
        ("10000 mV", "10 K", r"safety\.output\.maximum: expected a number in the unit of 'outputs\.2\.voltage'"),
    ],
)  # fmt: skip
def test_a_safety_check_of_a_property_that_a_component_does_not_have_is_refused(tmp_path, before, after, problem):
    path = tmp_path / "bench.toml"
    path.write_text((BENCH + WATCHED).replace(before, after))

    with pytest.raises(ConfigurationError, match=problem):
        load_configuration([path])


def test_a_component_is_watched_and_its_device_made_safe_when_it_trips(tmp_path, runtime):
    path = tmp_path / "bench.toml"
    path.write_text(BENCH + WATCHED)
    with (
        pytest.raises(SafetyError, match=r"outputs\.2\.voltage is 11, .*'outputs\[1\]\.enabled' of device"),
        Testbed(load_configuration([path]), runs=tmp_path) as testbed,
    ):
        output = testbed.devices.supply.outputs[1]
        output.enabled = True
        testbed.devices.supply.outputs[2].voltage = 11
        deadline = time.monotonic() + 30
        while output.enabled:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        output.enabled = True


# --- on the command line


def command(*words, fails=False):
    done = subprocess.run(
        [sys.executable, "-m", "catkit_devices", *words], capture_output=True, text=True, timeout=60, env=os.environ
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


def test_plugged_in_components_are_known_to_the_command_line_before_the_device_is_used(racks):
    assert command("get", "supply.modules.oven.sensors.2.value").endswith(
        ".modules['oven'].sensors[2].value = 402.5 K\n"
    )
    racks.devices.supply.close(force=True)
    shown = json.loads(command("get", "supply", "--json"))
    assert shown["properties"]["modules['bath'].sensors[1].value"]["value"] == 701.5


def test_components_are_read_and_set_and_called_from_the_command_line(racks):
    assert command("set", "supply.outputs[1].voltage", "2500 mV") == "supply.outputs[1].voltage = 2.5 V\n"
    assert command("get", "supply.outputs.1.voltage") == "supply.outputs[1].voltage = 2.5 V\n"
    assert (
        command("get", "supply.modules.oven.sensors.2.value") == "supply.modules['oven'].sensors[2].value = 402.5 K\n"
    )
    assert command("call", "supply.outputs.1.ramp", "4", "step=0.5") == "4.0\n"
    shown = json.loads(command("get", "supply.outputs[1]", "--json"))
    assert {name: one["value"] for name, one in shown["properties"].items()} == {
        "outputs[1].voltage": 4.0, "outputs[1].enabled": False
    }  # fmt: skip
    shown = json.loads(command("get", "supply.outputs[1].voltage", "--json"))
    assert (shown["property"], shown["value"]) == ("outputs[1].voltage", 4.0)


def test_a_misspelt_component_is_answered_with_the_nearest(racks):
    assert "did you mean 'outputs[1].voltage'" in command("get", "supply.outputs[1].volage", fails=True)
    assert "'outputs[1].ramp' is no property: `call` runs commands" in command(
        "get", "supply.outputs[1].ramp", fails=True
    )
    assert "must be 0 to 5 V" in command("set", "supply.outputs.1.voltage", "7", fails=True)


def complete(*words):
    told = {
        "_CATKIT_DEVICES_COMPLETE": "complete_zsh",
        "_TYPER_COMPLETE_ARGS": " ".join(["catkit-devices", *words]),
    }
    code = "import sys; sys.argv[0] = 'catkit-devices'; from catkit_devices.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ, **told}
    )
    return done.stdout


@pytest.mark.whole
def test_the_shell_completes_components_without_brackets_and_quotes(racks):
    racks.devices.supply.open()
    offered = complete("get", "supply.outputs.1.")
    assert "supply.outputs.1.voltage" in offered
    assert "[" not in offered.replace('"supply', "")
    assert "supply.modules.oven.sensors.1.value" in complete("get", "supply.modules.o")
    assert "supply.outputs[2].voltage" in complete("set", "supply.outputs[2].v")
    assert "supply.outputs.2.ramp" in complete("call", "supply.outputs.2.")
    racks.devices.supply.close(force=True)
