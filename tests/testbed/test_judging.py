import math

import pytest

from catkit_devices.testbed import SafetyTest, load_configuration
from catkit_devices.testbed.own_time import OwnTime
from catkit_devices.testbed.safety import CheckState, Freshness, permit_timeout

TEST = SafetyTest(name="level", device="tank", property="level", minimum=-5, maximum=5)


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


# --- freshness ---


def test_a_value_is_stale_when_its_timestamp_has_not_changed_for_too_long():
    test = SafetyTest(name="level", device="tank", property="level", maximum=5, timestamp="measured", max_age=2.0)
    freshness = Freshness(test)

    problems = [freshness.problem(stamp, now) for stamp, now in [(1, 0.0), (1, 1.0), (2, 1.9), (2, 3.8), (2, 4.0)]]

    assert problems[:4] == [None] * 4
    assert problems[4] == "tank.level is old: its 'measured' is 2, expected another within 2 s"


def test_a_timestamp_that_was_never_seen_to_change_confirms_nothing():
    test = SafetyTest(name="level", device="tank", property="level", maximum=5, timestamp="measured", max_age=2.0)
    freshness = Freshness(test)

    confirmed = []
    for stamp in (1, 1, 2):
        freshness.problem(stamp, 0.0)
        confirmed.append(freshness.confirmed)

    assert confirmed == [False, False, True]


@pytest.mark.parametrize("stamp", [math.nan, None])
def test_what_is_no_timestamp_is_stale(stamp):
    test = SafetyTest(name="level", device="tank", property="level", maximum=5, timestamp="measured", max_age=2.0)

    assert "is old" in Freshness(test).problem(stamp, 0.0)


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


def test_own_time_stands_still_while_the_process_is_stopped():
    moments = iter([100.0, 100.2, 100.4, 160.0, 160.1])
    own_time = OwnTime(0.5, lambda: next(moments))

    assert [round(own_time(), 3) for _ in range(4)] == [0.2, 0.4, 0.9, 1.0]
