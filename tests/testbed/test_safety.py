import math
import os
import signal
import time
from multiprocessing import active_children
from pathlib import Path

import psutil
import pytest

from catkit_devices.datalog import RunReader
from catkit_devices.errors import SafetyError
from catkit_devices.testbed import Experiment, SafetyTest, Testbed, load_configuration
from catkit_devices.testbed.safety import CheckState

TEST = SafetyTest(name="level", device="tank", property="level", minimum=-5, maximum=5)

# --- judging ---


@pytest.mark.parametrize("value", [-5, 0, 5.0, 4.999])
def test_a_value_within_the_limits_or_on_them_is_safe(value):
    assert TEST.problem(value) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5.1, "tank.level is 5.1, expected -5 to 5"),
        (-math.inf, "tank.level is -inf, expected -5 to 5"),
        (math.nan, "tank.level is nan, expected -5 to 5"),
        ("3", "tank.level is '3', expected a number -5 to 5"),
        (None, "tank.level is None, expected a number -5 to 5"),
        (True, "tank.level is True, expected a number -5 to 5"),
    ],
)
def test_everything_else_fails_and_the_message_has_value_and_limit(value, message):
    assert TEST.problem(value) == message


@pytest.mark.parametrize(("limit", "expected"), [("minimum", "at least 1"), ("maximum", "at most 1")])
def test_nan_fails_a_check_with_one_limit(limit, expected):
    test = SafetyTest(name="n", device="tank", property="level", **{limit: 1})

    assert test.problem(math.nan) == f"tank.level is nan, expected {expected}"


def test_a_check_trips_when_failures_in_a_row_exceed_what_is_tolerated():
    test = SafetyTest(name="level", device="tank", property="level", maximum=5, max_consecutive_failures=2)
    state = CheckState(test)

    tripped = []
    for value in (9, 9, 1, 9, 9, 9):
        state = state.after(value, test.problem(value), 1.0)
        tripped.append(str(state.tripped) if state.tripped else None)

    assert tripped[:5] == [None] * 5
    assert tripped[5] == "safety check 'level': tank.level is 9, expected at most 5, 3 times in a row"


# --- at the start ---


def test_a_check_that_fails_at_the_start_prevents_every_experiment(watched_bench, journal):
    options = f"devices.tank.simulator_options={{journal='{journal}', label='tank', level=50.0}}"

    with (
        pytest.raises(SafetyError, match=r"safety check 'tank_level': tank.level is 50, expected -5 to 5"),
        Testbed(load_configuration([watched_bench], [options])),
    ):
        pytest.fail("the testbed started")

    assert "tank LAMP 0" in journal.read_text()


def test_a_device_that_cannot_be_read_at_the_start_prevents_every_experiment(watched_bench):
    text = watched_bench.read_text().replace('simulator = "test_gauge"\n', "", 1)
    watched_bench.write_text(text)

    with (
        pytest.raises(SafetyError, match=r"tank.level could not be read, expected a value -5 to 5: DeviceOpenError"),
        Testbed(load_configuration([watched_bench])),
    ):
        pytest.fail("the testbed started")


# --- later ---


class Spoils(Experiment):
    """Lights the lamps, makes the check fail in one way or another, then clings to the device."""

    level: float = 0.0
    mode: str = "fine"
    mark: Path

    def experiment(self):
        self.devices.basin.lamp = True
        with self.lock("tank"):
            self.devices.tank.lamp = True
            self.devices.tank.level = self.level
            self.devices.tank.mode = self.mode
            time.sleep(60)

    def teardown(self):
        self.mark.write_text("torn down")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"level": 50.0}, "tank.level is 50, expected -5 to 5"),
        ({"mode": "nan"}, "tank.level is nan, expected -5 to 5"),
        ({"mode": "silent"}, "tank.level could not be read, expected a value -5 to 5: DeviceTimeoutError"),
    ],
)
def test_a_trip_ends_the_run_and_makes_devices_safe_that_an_experiment_holds(
    watched_bench, journal, tmp_path, how, message
):
    mark = tmp_path / "mark"

    with Testbed(load_configuration([watched_bench])) as testbed:
        with pytest.raises(SafetyError, match=message):
            testbed.run(Spoils(mark=mark, **how))
        assert testbed.safety_event.is_set()
        assert testbed.trip.check == "tank_level"
        with pytest.raises(SafetyError, match=message):
            testbed.run(Spoils(mark=mark))
        (progress,) = testbed.progress()

    with RunReader(progress.run) as run:
        assert message in run.log_text()
        assert message in run.outcome["detail"]
    assert mark.read_text() == "torn down"
    lines = journal.read_text().splitlines()
    assert lines.count("tank LAMP 1") == 1
    assert "tank LAMP 0" in lines[lines.index("tank LAMP 1") :]
    assert "basin LAMP 0" in lines


def test_a_reading_that_hangs_trips_after_its_timeout(watched_bench, tmp_path):
    overrides = ["safety.tank_level.property='slow_level'", "safety.tank_level.timeout=0.5"]

    with (
        Testbed(load_configuration([watched_bench], overrides)) as testbed,
        pytest.raises(SafetyError, match=r"tank.slow_level did not answer in 0.5 s, expected a value -5 to 5"),
    ):
        testbed.run(Spoils(mark=tmp_path / "mark", level=3.0))


class Spoiled(Experiment):
    def experiment(self):
        self.devices.tank.mode = "nan"
        time.sleep(0.5)
        self.devices.tank.mode = "fine"


def test_failures_that_are_tolerated_are_in_the_log_of_the_run(watched_bench):
    overrides = ["safety.tank_level.max_consecutive_failures=1000"]

    with Testbed(load_configuration([watched_bench], overrides)) as testbed:
        testbed.run(Spoiled())
        (progress,) = testbed.progress()

    with RunReader(progress.run) as run:
        assert "safety check 'tank_level': tank.level is nan, expected -5 to 5" in run.log_text()


def monitor_process():
    (process,) = [child for child in active_children() if child.name == "safety monitor"]
    return psutil.Process(process.pid)


def test_a_killed_monitor_trips_at_once(watched_bench, journal, tmp_path, until):
    moments = {}

    def on_tick():
        if "killed" not in moments and "tank LAMP 1" in journal.read_text():
            moments["killed"] = time.monotonic()
            monitor_process().send_signal(signal.SIGKILL)
        elif "killed" in moments and testbed.safety_event.is_set():
            moments.setdefault("tripped", time.monotonic())

    with Testbed(load_configuration([watched_bench])) as testbed:
        with pytest.raises(SafetyError, match=r"the safety monitor died: .* was killed by SIGKILL"):
            testbed.run(Spoils(mark=tmp_path / "mark"), on_tick=on_tick)
        until(lambda: "tank LAMP 0" in journal.read_text())

    assert moments["tripped"] - moments["killed"] < 2.0


class Clings(Experiment):
    """Holds the device and ignores everything that it is told."""

    def experiment(self):
        with self.lock("tank"):
            self.devices.tank.lamp = True
            self.devices.tank.level = 50
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    continue


def test_devices_are_made_safe_at_once_though_an_experiment_clings_to_them(watched_bench, journal):
    moments = {}

    def on_tick():
        text = journal.read_text()
        if "tank LEVEL 50" in text:
            moments.setdefault("level", time.monotonic())
        if "tank LAMP 0" in text:
            moments.setdefault("safe", time.monotonic())

    with Testbed(load_configuration([watched_bench], ["testbed.stop_timeout=2.0"])) as testbed:
        with pytest.raises(SafetyError, match=r"tank.level is 50, expected -5 to 5"):
            testbed.run(Clings(), on_tick=on_tick)
        ended = time.monotonic()

    assert moments["safe"] - moments["level"] < 1.0
    assert ended - moments["level"] > 2.0


def test_a_trip_while_nothing_runs_is_raised_at_the_end(watched_bench, until):
    def spoil():
        with Testbed(load_configuration([watched_bench])) as testbed:
            testbed.devices.tank.level = 7
            until(testbed.safety_event.is_set)

    with pytest.raises(SafetyError, match=r"tank.level is 7, expected -5 to 5"):
        spoil()


# --- what is no trip ---


class Dies(Experiment):
    def experiment(self):
        _ = self.devices.tank.level
        os.kill(os.getpid(), signal.SIGKILL)


class Reads(Experiment):
    def experiment(self):
        time.sleep(0.3)
        return self.devices.tank.level


def test_an_experiment_that_dies_is_no_trip(watched_bench):
    with Testbed(load_configuration([watched_bench])) as testbed:
        with pytest.raises(Exception, match="was killed by SIGKILL"):
            testbed.run(Dies())
        assert testbed.run(Reads()) == [0.0]
        assert testbed.trip is None
        state = testbed.checks()["tank_level"]

    assert (state.value, state.failures, state.problem) == (0.0, 0, None)
