"""What people are shown of safety checks."""

import io
import math
import re
import time
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


def busy(**more):
    """Return the status of a bench with much to show."""
    now = time.time()
    experiment = {"total": 10, "silent": None, "description": "steps", "message": "", "started": now - 60, "run": "r"}
    device = {"holder": None, "waiters": [], "state": "open"}
    ended = {
        f"Scan-{number}": {**experiment, "state": "finished", "done": 10, "updated": now - 30} for number in range(40)
    }
    return {
        "name": "bench", "state": "running", "silent": [], "time": now, "stale_since": None,
        "experiments": {
            **ended,
            "Lamp": {**experiment, "state": "failed", "done": 2, "updated": now - 5, "message": "the lamp is out"},
            "Loop": {**experiment, "state": "running", "done": 3, "updated": now},
        },
        "devices": {f"device_{number}": device for number in range(20)},
        "safety": {"checks": {"flow": check(CheckState(FLOW).after(7.5, None, now))}, "tripped": None},
        "telemetry": {
            f"room.value_{number}": {"value": 1.0, "unit": "V", "time": now, "problem": None} for number in range(10)
        },
        "frames": {"eye": {"number": 7, "rate": 24.96, "time": now, "problem": None}},
        "messages": [
            {"time": now, "level": "INFO", "source": "MainProcess", "text": f"message {number}"} for number in range(9)
        ],
        **more,
    }  # fmt: skip


@pytest.mark.parametrize("size", [(80, 24), (60, 20)])
def test_a_busy_bench_fits_the_terminal_with_safety_and_what_runs_on_top(size):
    lines = on_screen(busy(), size)
    assert len(lines) <= size[1]
    assert max(map(len, lines)) <= size[0]
    text = "\n".join(lines)
    assert text.index("Loop") < text.index("flow") or text.index("Loop") < text.index("safety checks pass")
    assert "Scan-7" not in text


@pytest.mark.parametrize("size", [(80, 24), (60, 20)])
def test_what_concerns_safety_is_shown_however_small_the_terminal_is(size):
    failing = check(CheckState(FLOW).after(1.0, "1 is below 5", time.time()))
    status = busy(
        safety={"checks": {"flow": failing}, "tripped": "flow: 1 is below 5", "not_safe": {"laser": "stuck"}},
        stale_since=0.0,
    )
    text = "\n".join(on_screen(status, size))
    for told in ("SAFETY TRIPPED", "NOT KNOWN TO BE SAFE", "laser", "Loop", "1 is below 5"):
        assert told in text
    assert text.index("SAFETY TRIPPED") < text.index("Loop")


def test_experiments_that_have_ended_share_one_line_with_the_last_of_them():
    (line,) = [line for line in on_screen(busy(), (120, 100)) if line.startswith("ended:")]
    assert re.match(r"ended: 40 finished, 1 failed; last Lamp failed 5\.\d s ago \(the lamp is out\)", line)


def test_a_picture_without_news_says_since_when():
    assert re.search(r"stale since \d\d:\d\d:\d\d [+-]\d{4}", on_screen(busy(stale_since=time.time()), (120, 100))[0])


def test_frames_are_shown_with_their_rate_or_with_the_reason_why_there_are_none():
    held = {"number": 7, "rate": 25.0, "time": time.time() - 30, "problem": "'eye' is held by 'Scan'"}
    new = {"number": None, "rate": None, "time": 0.0, "problem": "'ear' has not been asked for a frame yet"}
    (line,) = [line for line in on_screen(busy(), (120, 100)) if "eye" in line]
    assert re.match(r" *eye +25\.0 +7 +\d+\.\d s ago$", line)
    text = "\n".join(on_screen(busy(frames={"eye": held, "ear": new}), (120, 100)))
    assert re.search(r"eye +7 +\d+\.\d s ago +no frame since \d\d:\d\d:\d\d: 'eye' is held by 'Scan'", text)
    assert re.search(r"ear +no frame yet: 'ear' has not been asked", text)


def on_screen(status, size):
    console = Console(file=io.StringIO(), width=size[0], height=size[1], color_system=None)
    console.print(picture(status, size=size))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]
