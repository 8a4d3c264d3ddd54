"""What people are shown of safety checks."""

import io
import math
import re
from dataclasses import asdict

import pytest
from rich.console import Console

from catkit_devices.cli.output import SILENT, TRIPPED, code_of
from catkit_devices.cli.picture import picture, reading
from catkit_devices.testbed.safety.check import CheckState, PluginTest, SafetyTest

FLOW = SafetyTest(name="flow", device="meter", property="flow", minimum=5)
OWN = PluginTest(name="own", test="own")
RED, GREEN = "\x1b[31m", "\x1b[32m"


def check(state):
    return {**asdict(state), "test": {"expected": state.test.expected()}, "silent": None}


def shown(state, **safety):
    status = {
        "name": "bench", "state": "running", "silent": [], "experiments": {}, "devices": {},
        "safety": {"checks": {"flow": check(state)}, "tripped": None, **safety},
    }  # fmt: skip
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=200)
    console.print(picture(status))
    return console.file.getvalue()


@pytest.mark.parametrize("value", [math.nan, math.inf, 9.91e37, 9.9e37, None, "high"])
def test_a_check_without_a_measurement_shows_no_value_and_nothing_green(value):
    text = shown(CheckState(FLOW).after(value, FLOW.problem(value), 1.0))

    assert f"{RED}no value" in text
    assert GREEN not in text


def test_a_check_that_was_not_read_yet_shows_nothing_green():
    text = shown(CheckState(FLOW))

    assert "no reading yet" in text
    assert GREEN not in text


def test_a_measurement_within_its_limits_is_green():
    text = shown(CheckState(FLOW).after(7.5, None, 1.0))

    assert re.search(rf"{re.escape(GREEN)} *7\.5", text)


def test_a_check_that_passes_without_a_single_number_is_shown_as_ok():
    assert reading(check(CheckState(OWN).after((1, 2), None, 1.0))) == "in order"


def test_a_device_that_is_not_known_to_be_safe_is_shown_with_the_reason():
    text = shown(CheckState(FLOW), tripped="it burns", not_safe={"laser": "the shutter is stuck"})

    assert re.search("NOT KNOWN TO BE SAFE.*laser: the shutter is stuck", text)


@pytest.mark.parametrize(
    ("tripped", "silent", "not_safe", "code"),
    [
        (None, [], {}, 0),
        (None, [], {"laser": "the shutter is stuck"}, TRIPPED),
        ("it burns", [], {"laser": "the shutter is stuck"}, TRIPPED),
        (None, [{"what": "a server", "pid": 1, "seconds": 9.0}], {"laser": "its server does not answer"}, SILENT),
    ],
)
def test_a_device_that_is_not_known_to_be_safe_is_in_the_exit_code(tripped, silent, not_safe, code):
    safety = {"tripped": tripped, "not_safe": not_safe}
    assert code_of({"state": "running", "silent": silent, "safety": safety}) == code
