"""The history of telemetry: months in one file, coarser as it ages, bounded in size."""

import sqlite3

import numpy as np
import pytest

from catkit_devices.errors import ConfigurationError, DataError
from catkit_devices.testbed.telemetry.history import TRIP, History, HistoryWriter

DAY = 86400.0
NOW = 1_800_000_000.0


@pytest.fixture
def written(tmp_path):
    writer = HistoryWriter(tmp_path / "h.sqlite", 1e9)
    yield writer
    writer.close()


def filled(writer, begin, end, step, name="meter.power", value=lambda moment: moment % 100):
    times = np.arange(begin, end, step)
    writer.add([(name, float(value(moment)), float(moment), None) for moment in times], {name: "W"})
    return times


def test_what_is_young_is_kept_as_it_was_read(written):
    readings = [("a.b", 1.5, NOW, None), ("a.b", None, NOW + 1, "it is unplugged"), ("a.c", "on", NOW, None)]
    written.add(readings, {"a.b": "V"})
    with History(written.path) as kept:
        assert [point[:2] + point[5:] for point in kept.points("a.b", NOW - 1, NOW + 9)] == [
            (NOW, 1.5, None), (NOW + 1, None, "it is unplugged"),
        ]  # fmt: skip
        assert [(one.name, one.unit) for one in kept.quantities()] == [("a.b", "V"), ("a.c", None)]
        assert kept.points("a.c", NOW - 1, NOW + 9)[0].value == "on"


def test_what_is_old_is_averaged_with_its_lowest_and_highest_value(written):
    begin = NOW - 5 * DAY
    filled(written, begin, begin + 7200, 10)
    written.grow_old(begin + 7200 + 600)
    written.grow_old(NOW)
    with History(written.path) as kept:
        points = kept.points("meter.power", begin - 3600, NOW)
    assert all(point.readings == 6 for point in points)
    assert len(points) == 120
    first = min(points)
    values = [moment % 100 for moment in np.arange(begin, begin + 60, 10)]
    assert first[1:5] == pytest.approx((np.mean(values), min(values), max(values), 6))


def test_months_are_kept_as_averages_over_an_hour(written):
    begin = NOW - 100 * DAY
    filled(written, begin, begin + 6 * 3600, 30)
    for when in (begin + 7 * 3600, NOW):
        written.grow_old(when)
    with History(written.path) as kept:
        points = kept.points("meter.power", begin - 3600, NOW)
    assert len(points) == 6
    assert sum(point.readings for point in points) == 6 * 120


def test_an_average_and_the_readings_beside_it_neither_overlap_nor_leave_a_gap(written):
    """Readings are deleted in the middle of a minute; the average of that minute is used whole."""
    begin = NOW - 3 * DAY
    filled(written, begin, NOW, 300, value=lambda moment: 1.0)
    for when in (begin + DAY, begin + 2 * DAY, NOW + 17):
        written.grow_old(when)
    with History(written.path) as kept:
        points = kept.points("meter.power", begin - 600, NOW + 600)
    assert sum(point.readings for point in points) == 3 * DAY / 300
    assert points == sorted(points)


def test_readings_that_come_late_are_part_of_their_average(written):
    begin = NOW // 3600 * 3600 - 4 * 3600
    filled(written, begin, begin + 60, 10, value=lambda moment: 1.0)
    written.grow_old(begin + 3600 * 3)
    filled(written, begin + 5, begin + 65, 10, value=lambda moment: 3.0)
    written.grow_old(begin + 3600 * 3 + 1)
    written.grow_old(begin + 30 * DAY)
    with History(written.path) as kept:
        first = kept.points("meter.power", begin - 10, begin + 3600)[0]
    assert first[1:5] == (2.0, 1.0, 3.0, 12)
    connection = sqlite3.connect(written.path)
    assert connection.execute("SELECT count, mean FROM averages WHERE span = 3600").fetchall() == [(12, 2.0)]
    connection.close()


def test_the_file_stays_below_its_bound_and_loses_the_oldest_first(tmp_path):
    writer = HistoryWriter(tmp_path / "h.sqlite", 1e6)
    for hour in range(12):
        filled(writer, NOW + hour * 3600, NOW + (hour + 1) * 3600, 0.2)
        writer.grow_old(NOW + (hour + 1) * 3600)
        assert writer.path.stat().st_size < 1.1e6
    with History(writer.path) as kept:
        points = kept.points("meter.power", NOW - 600, NOW + 13 * 3600)
    assert points[0].time < NOW + 120  # as an average
    assert points[-1].readings == 1
    writer.close()


def test_a_refused_batch_keeps_nothing(written):
    with pytest.raises(DataError, match=r"cannot be written: .*type"):
        written.add([("a.b", 1.0, NOW, None), ("a.b", [1, 2], NOW + 1, None)], {})
    written.add([("a.b", 2.0, NOW + 2, None)], {})
    with History(written.path) as kept:
        assert [point.value for point in kept.points("a.b", 0, NOW + 9)] == [2.0]


def test_two_testbeds_may_write_one_history(tmp_path):
    one, other = (HistoryWriter(tmp_path / "h.sqlite", 1e9) for _ in range(2))
    one.add([("a.b", 1.0, NOW, None)], {})
    other.add([("a.c", 2.0, NOW, None)], {})
    one.note(TRIP, "the door is open")
    with History(one.path) as kept:
        assert [quantity.name for quantity in kept.quantities()] == ["a.b", "a.c"]
        assert [text for _, text in kept.events(TRIP)] == ["the door is open"]
    one.close()
    other.close()


def test_wrong_files_and_names_are_named(tmp_path, written):
    with pytest.raises(DataError, match=r"there is no history .*none\.sqlite"):
        History(tmp_path / "none.sqlite")
    (tmp_path / "text").write_text("this is a text " * 100)
    with pytest.raises(DataError, match="is no history of telemetry"):
        History(tmp_path / "text")
    with pytest.raises(DataError, match="cannot be written"):
        HistoryWriter(tmp_path / "text", 1e6)
    written.add([("meter.power", 1.0, NOW, None)], {})
    with History(written.path) as kept, pytest.raises(ConfigurationError, match=r"'meter.powr'.*mean 'meter.power'"):
        kept.points("meter.powr", 0)
