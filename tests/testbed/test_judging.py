import math
import threading
from collections import deque
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest

from catkit_devices import units
from catkit_devices.testbed import SafetyTest, load_configuration
from catkit_devices.testbed.configuration.layout_factory import permit_timeout
from catkit_devices.testbed.processes.process_clock import OwnTime
from catkit_devices.testbed.safety.check import CheckState, Freshness, PluginTest, safety_tests

PERCENT = units.quantity(3, "percent")
TEST = SafetyTest(name="level", device="tank", property="level", minimum=-5, maximum=5)


@pytest.mark.parametrize("value", [-5, 0, 5.0, 4.999])
def test_a_value_within_the_limits_or_on_them_is_safe(value):
    assert TEST.problem(value) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5.1, "tank.level is 5.1, expected -5 to 5"),
        (-math.inf, "tank.level is -inf, which is no measurement, expected -5 to 5"),
        (math.nan, "tank.level is nan, which is no measurement, expected -5 to 5"),
        (9.91e37, "tank.level is 9.91e+37, which is no measurement, expected -5 to 5"),
        (np.ma.masked, "tank.level is masked, expected a number -5 to 5"),
        (np.True_, "tank.level is np.True_, expected a number -5 to 5"),
        (np.ones(1), "tank.level is array([1.]), expected a number -5 to 5"),
        (PERCENT, f"tank.level is {PERCENT!r}, expected a number -5 to 5"),
        ("3", "tank.level is '3', expected a number -5 to 5"),
        (None, "tank.level is None, expected a number -5 to 5"),
        (True, "tank.level is True, expected a number -5 to 5"),
    ],
)
def test_everything_else_fails_and_the_message_has_value_and_limit(value, message):
    assert TEST.problem(value) == message


@pytest.mark.parametrize("value", [np.float32(1), np.int8(1), np.array(1.0), Decimal(1)])
def test_a_number_of_another_library_is_a_number(value):
    assert TEST.problem(value) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 9.9e37, -9.9e37, 9.91e37, 1e38, np.float32(9.9e37)])
@pytest.mark.parametrize("limit", ["minimum", "maximum"])
def test_a_number_that_is_no_measurement_fails_a_check_with_one_limit(limit, value):
    test = SafetyTest(name="n", device="tank", property="level", **{limit: 1})

    assert "which is no measurement, expected at " in test.problem(value)


class Always:
    """A plugin's kind of test that always says the same."""

    def __init__(self, answer):
        self.answer = answer

    def problem(self, value):
        return self.answer


def plugin_test(answer):
    return PluginTest(name="own", test="always", implementation=Always(answer))


def test_a_test_of_a_plugin_returns_the_problem_or_none():
    assert plugin_test(None).problem((1, "x")) is None
    assert plugin_test("too wet").problem(1) == "too wet"


@pytest.mark.parametrize("value", [math.nan, (1.0, 9.91e37), {"humidity": math.inf}, np.array([1.0, math.nan])])
def test_a_test_of_a_plugin_does_not_get_values_that_are_no_measurement(value):
    assert "which is no measurement" in plugin_test(None).problem(value)


@pytest.mark.parametrize("answer", ["", False, True, 0, [], np.False_])
def test_an_unclear_answer_of_a_test_of_a_plugin_is_not_taken_for_safe(answer):
    problem = plugin_test(answer).problem(1)

    assert problem == f"own: problem() returned {answer!r}, expected a text that says what is wrong, or None"


@pytest.mark.parametrize("value", [math.nan, 9.91e37, -math.inf, None, "3", (1, 2), True])
def test_a_state_without_a_value_has_none(value):
    assert CheckState(TEST).after(value, "no", 1.0).value is None


def test_a_check_trips_when_failures_in_a_row_exceed_what_is_tolerated():
    test = SafetyTest(name="level", device="tank", property="level", maximum=5, max_consecutive_failures=2)
    state = CheckState(test)

    tripped = []
    for value in (9, 9, 1, 9, 9, 9):
        state = state.after(value, test.problem(value), 1.0)
        tripped.append(str(state.tripped) if state.tripped else None)

    assert tripped[:5] == [None] * 5
    assert tripped[5] == "safety check 'level': tank.level is 9, expected at most 5, 3 times in a row"


# --- freshness ---


def test_a_value_is_stale_when_its_timestamp_has_not_changed_for_too_long():
    test = SafetyTest(name="level", device="tank", property="level", maximum=5, timestamp="measured", max_age=2.0)
    freshness = Freshness(test)

    problems = [freshness.problem(stamp, now) for stamp, now in [(1, 0.0), (1, 1.0), (2, 1.9), (2, 3.8), (2, 4.0)]]

    assert problems[:4] == [None] * 4
    assert problems[4] == "tank.level is old: its 'measured' is 2, expected another within 2 s"


def test_a_timestamp_that_has_never_changed_does_not_confirm_a_value():
    test = SafetyTest(name="level", device="tank", property="level", maximum=5, timestamp="measured", max_age=2.0)
    freshness = Freshness(test)

    confirmed = []
    for stamp in (1, 1, 2):
        freshness.problem(stamp, 0.0)
        confirmed.append(freshness.confirmed)

    assert confirmed == [False, False, True]


@pytest.mark.parametrize("stamp", [math.nan, None, 9.91e37, np.nan])
def test_a_value_that_is_not_a_timestamp_is_stale(stamp):
    test = SafetyTest(name="level", device="tank", property="level", maximum=5, timestamp="measured", max_age=2.0)

    assert "is old" in Freshness(test).problem(stamp, 0.0)


@pytest.mark.parametrize(
    "new",
    [
        object,
        lambda: [object()],
        lambda: np.datetime64("NaT", "ns"),
        lambda: complex(math.nan, 0),
        lambda: {"at": np.datetime64("NaT", "ns")},
        lambda: deque([math.nan]),
        lambda: SimpleNamespace(at=math.nan),
        lambda: threading.Lock(),
    ],
)
def test_a_timestamp_that_is_not_equal_to_itself_is_never_fresh(new):
    test = SafetyTest(name="level", device="tank", property="level", maximum=5, timestamp="measured", max_age=2.0)
    freshness = Freshness(test)

    for now in (0.0, 1.0, 2.0):
        assert "old: its 'measured'" in freshness.problem(new(), now)
    assert not freshness.confirmed


@pytest.mark.parametrize(
    "stamp", [1, "12:00", (1, 2.0), np.datetime64("2026-11-27"), datetime(2026, 11, 27, tzinfo=UTC), b"x"]
)
def test_a_timestamp_may_be_a_number_a_text_or_a_time(stamp):
    test = SafetyTest(name="level", device="tank", property="level", maximum=5, timestamp="measured", max_age=2.0)

    assert Freshness(test).problem(stamp, 0.0) is None


# --- permits ---


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], None),
        (["safety.a={device='tank', property='level', maximum=1, interval=3.0}"], 6.0),
        (["safety.a={device='tank', property='level', maximum=1, interval=0.1}"], 2.0),
        (["safety.a={device='tank', property='level', maximum=1}", "testbed.permit_timeout=0.5"], 0.5),
        (["testbed.permit_timeout=3.0"], 3.0),
    ],
)
def test_a_permit_lasts_for_twice_the_longest_interval_unless_told_otherwise(bench, overrides, expected):
    assert permit_timeout(load_configuration([bench], overrides)) == expected


def test_the_process_clock_stops_while_the_process_is_stopped():
    moments = iter([100.0, 100.2, 100.4, 160.0, 160.1])
    own_time = OwnTime(0.5, lambda: next(moments))

    assert [round(own_time(), 3) for _ in range(4)] == [0.2, 0.4, 0.9, 1.0]


def test_bounds_with_a_unit_are_converted_to_that_of_the_property(bench):
    override = "safety.hot={device='reservoir', property='temperature', minimum='263.15 K', maximum=30}"
    (check,) = safety_tests(load_configuration([bench], [override]))

    assert (check.device, check.minimum, check.maximum) == ("tank", pytest.approx(-10.0), 30.0)
    assert check.problem(-9.0) is None
    assert check.problem(-11.0) == "tank.temperature is -11, expected -10 to 30"


@pytest.mark.parametrize("limit", [math.nan, math.inf, -math.inf, 9.91e37, 1e38])
@pytest.mark.parametrize("side", ["minimum", "maximum"])
def test_a_check_whose_limit_means_no_measurement_cannot_be_made(side, limit):
    with pytest.raises(ValueError, match="cannot be a limit, because it stands for no measurement"):
        SafetyTest(name="level", device="tank", property="level", **{side: limit})
