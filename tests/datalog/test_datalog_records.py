"""Every kind of record comes back as it was logged, by tag, time and index, also while it is being written."""

import collections
import datetime as dt
import decimal
import logging
import math
import sqlite3
import subprocess
import sys
import threading
import types

import astropy.units
import matplotlib as mpl
import numpy as np
import pandas as pd
import pint
import pytest
import xarray as xr
from astropy.nddata import CCDData, NDData
from astropy.table import Column, QTable, Table
from astropy.utils.masked import Masked
from hypothesis import given
from hypothesis.extra import numpy as hnp

from catkit_devices.datalog import LogFileHandler, Run, RunReader, Tag, add_note, checkpointing, export, find_runs
from catkit_devices.datalog.arrays import decode, encode
from catkit_devices.errors import DataError


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path, "scan", configuration={"testbed": {"name": "bench"}}, parameters={"repeats": 3}) as run:
        yield run


@pytest.fixture
def reader(run):
    with RunReader(run.path) as reader:
        yield reader


def test_scalars_come_back_with_unit_time_and_order(run, reader):
    before = dt.datetime.now(dt.UTC)
    for value in (1.5, np.float32(0.25), -math.inf):
        run.log_scalar("power", value, unit="W")
    scalars = reader.scalars("power")
    assert (scalars.tag, scalars.unit, scalars.values.tolist()) == ("power", "W", [1.5, 0.25, -math.inf])
    assert scalars.times.dtype == "datetime64[ns]"
    assert np.all(np.diff(scalars.times.astype(int)) >= 0)
    assert before.timestamp() - 1e-3 <= scalars.seconds[0] <= dt.datetime.now(dt.UTC).timestamp()


def test_nan_comes_back_as_nan(run, reader):
    run.log_scalar("power", math.nan)
    run.log_scalar("power", 1.0)
    np.testing.assert_array_equal(reader.scalars("power").values, [math.nan, 1.0])


def test_integers_stay_exact_and_truth_values_become_numbers(run, reader):
    for value in (2**63 - 1, np.int16(-4), True, np.bool_(False)):
        run.log_scalar("count", value)
    values = reader.scalars("count").values
    assert values.dtype == np.int64
    assert values.tolist() == [2**63 - 1, -4, 1, 0]


@pytest.mark.parametrize("value", [2**63, "1.5", None, 1j, [1.0, 2.0], np.zeros(2)])
def test_a_value_that_is_not_one_real_number_is_refused_as_a_scalar(run, reader, value):
    with pytest.raises(DataError, match="scalar 'power' must be"):
        run.log_scalar("power", value)
    assert reader.tags() == []


def test_a_quantity_is_converted_to_the_unit_of_its_tag(run, reader):
    ureg = pint.UnitRegistry()
    run.log_scalar("power", ureg.Quantity(2.0, "mW"), unit="W")
    run.log_scalar("power", ureg.Quantity(3.0, "W"))
    scalars = reader.scalars("power")
    assert (scalars.unit, scalars.values.tolist()) == ("W", [0.002, 3.0])


def test_a_tag_keeps_its_unit(run, reader):
    run.log_scalar("power", 1.0, unit="W")
    with pytest.raises(DataError, match="'power' is in W in this run and cannot be logged in A"):
        run.log_scalar("power", 1.0, unit="A")
    run.log_scalar("power", 2.0)
    assert reader.scalars("power").values.tolist() == [1.0, 2.0]


def test_reading_can_be_narrowed_by_time_and_index(run, reader):
    for second in range(10):
        run.log_scalar("power", float(second), at=1000.0 + second)
    assert reader.scalars("power", since=1003.0, until=1005.0).values.tolist() == [3.0, 4.0, 5.0]
    assert reader.scalars("power", since=dt.datetime.fromtimestamp(1008, dt.UTC)).values.tolist() == [8.0, 9.0]
    assert reader.scalars("power", index=-1).values.tolist() == [9.0]
    assert reader.scalars("power", index=2).values.tolist() == [2.0]
    assert reader.scalars("power", since=1003.0, index=slice(None, -2, 2)).values.tolist() == [3.0, 5.0, 7.0]
    with pytest.raises(DataError, match="no record 10"):
        reader.scalars("power", index=10)


def test_arrays_come_back_equal_and_the_file_is_a_sequence_of_npy_records(run, reader):
    arrays = [
        np.arange(12, dtype=np.uint16).reshape(3, 4).T,
        np.array(2.5),
        np.zeros((0, 3)),
        np.array([(1, b"ab")], dtype=[("a", ">i4"), ("b", "S2")]),
        np.array(["2026-11-22"], dtype="datetime64[D]"),
    ]
    for array in arrays:
        run.log_array("frame", array)
    stored = reader.arrays("frame")
    assert stored.shapes == [array.shape for array in arrays]
    with (run.path / "arrays-0001.npy").open("rb") as file:
        for found, expected in zip(stored, arrays, strict=True):
            np.testing.assert_array_equal(found, expected, strict=True)
            np.testing.assert_array_equal(np.load(file), expected, strict=True)
        assert file.read() == b""


@given(hnp.arrays(dtype=hnp.scalar_dtypes() | hnp.byte_string_dtypes(min_len=1), shape=hnp.array_shapes(min_dims=0)))
def test_any_array_round_trips_through_its_bytes(array):
    (found,) = decode(encode(array))
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()


def test_arrays_of_one_shape_stack_and_slice(run, reader):
    for number in range(4):
        run.log_array("frame", np.full((2, 2), number))
    stored = reader.arrays("frame")
    assert stored.stack()[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert [frame[0, 0] for frame in stored[1:3]] == [1, 2]
    assert stored[-1].max() == 3


def test_an_array_of_objects_is_refused(run):
    with pytest.raises(DataError, match="Python objects"):
        run.log_array("frame", np.array([object()]))


def test_a_curve_comes_back_with_both_units(run, reader):
    run.log_curve("spectrum", [500, 600], [0.1, 0.9], x_unit="nm", y_unit="W", x_label="wavelength", y_label="power")
    (curve,) = reader.curves("spectrum")
    assert (curve.x.tolist(), curve.y.tolist()) == ([500, 600], [0.1, 0.9])
    assert (curve.x_unit, curve.y_unit, curve.x_label, curve.y_label) == ("nm", "W", "wavelength", "power")
    with pytest.raises(DataError, match="same length"):
        run.log_curve("spectrum", [1, 2], [1])


def test_a_figure_is_kept_as_png(run, reader):
    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([1, 2])
    run.log_figure("plot", figure)
    (stored,) = reader.figures("plot")
    assert stored.png.startswith(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="PNG"):
        run.log_figure("plot", b"GIF89a")


def test_a_fits_file_opens_again(run, reader):
    fits = pytest.importorskip("astropy.io.fits")
    run.log_fits("image", fits.PrimaryHDU(np.eye(3)))
    with reader.fits("image")[0].open() as hdus:
        np.testing.assert_array_equal(hdus[0].data, np.eye(3))
    with pytest.raises(DataError, match="FITS"):
        run.log_fits("image", b"not one")


def test_a_value_is_anything_that_json_can_express(run, reader):
    run.log("state", {"gain": np.float64(0.5), "taps": np.arange(2), "when": dt.date(2026, 11, 22), "set": {2, 1}})
    (value,) = reader.values("state")
    assert value.value == {"gain": 0.5, "taps": [0, 1], "when": "2026-11-22", "set": [1, 2]}
    with pytest.raises(DataError, match="'state' cannot be written as JSON"):
        run.log("state", object())


def test_tags_of_different_kinds_may_have_the_same_name(run, reader):
    run.log_scalar("power", 1.0, "W")
    run.log_array("power", [1.0])
    run.log_scalar("power", 2.0, "W")
    assert reader.tags() == [Tag("scalar", "power", "W", 2), Tag("array", "power", None, 1)]
    assert reader.tags("array") == [Tag("array", "power", None, 1)]


def test_an_unknown_tag_is_refused_with_the_nearest(run, reader):
    run.log_scalar("power", 1.0)
    with pytest.raises(DataError, match=r"no scalar was logged as 'powr' \(did you mean 'power'\?\)"):
        reader.scalars("powr")
    with pytest.raises(DataError, match="there is a scalar of that tag"):
        reader.arrays("power")


def test_a_run_describes_itself(run, reader):
    run.set_outcome("failed", "the lamp broke")
    assert reader.configuration == {"testbed": {"name": "bench"}}
    information = reader.information
    assert information["name"] == "scan"
    assert information["parameters"] == {"repeats": 3}
    assert {"python", "catkit-devices", "numpy", "pyvisa"} <= set(information["versions"])
    assert information["pid"] > 0
    assert dt.datetime.fromisoformat(information["started"]).tzinfo is not None
    assert (reader.outcome["outcome"], reader.outcome["detail"]) == ("failed", "the lamp broke")


def test_the_git_revision_is_that_of_the_source(tmp_path):
    repository = tmp_path / "code"
    repository.mkdir()
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org", "-C", str(repository)]
    script = repository / "scan.py"
    script.write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    revisions = []
    for text in ("1", "2"):
        script.write_text(text)
        with Run.create(tmp_path / "runs", "scan", source=script) as run, RunReader(run.path) as reader:
            revisions.append(reader.information["git"])
    assert revisions == [commit, f"{commit}-dirty"]


def test_runs_started_at_the_same_moment_have_directories_of_their_own(tmp_path):
    runs = []
    threads = [threading.Thread(target=lambda: runs.append(Run.create(tmp_path, "scan"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for run in runs:
        run.close()
    assert len({run.path for run in runs}) == 8
    assert find_runs(tmp_path) == sorted(run.path for run in runs)


def test_threads_share_a_run_without_losing_a_record(run, reader):
    def log(number):
        for count in range(200):
            run.log_scalar(f"thread{number}", count)
            if count % 20 == 0:
                run.log_array("frames", np.full(5, number))

    threads = [threading.Thread(target=log, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert reader.scalars(f"thread{number}").values.tolist() == list(range(200))
    assert sorted(reader.arrays("frames").stack()[:, 0].tolist()) == sorted([0, 1, 2, 3] * 10)


def test_another_process_adds_to_a_run_that_is_open_here(run, reader):
    run.log_scalar("power", 1.0, unit="W")
    run.log_array("frame", [1])
    program = (
        "import sys; from catkit_devices.datalog import Run\n"
        "with Run.open(sys.argv[1]) as run:\n"
        "    run.log_scalar('power', 2.0, unit='W'); run.log_array('frame', [2])\n"
    )
    subprocess.run([sys.executable, "-c", program, str(run.path)], check=True, timeout=30)
    run.log_scalar("power", 3.0, unit="W")
    assert reader.scalars("power").values.tolist() == [1.0, 2.0, 3.0]
    assert [frame.tolist() for frame in reader.arrays("frame")] == [[1], [2]]


def test_the_log_of_several_processes_is_in_time_order(run, reader):
    program = (
        "import sys, logging; from catkit_devices.datalog import Run\n"
        "with Run.open(sys.argv[1]) as run:\n"
        "    logger = logging.getLogger('child'); logger.addHandler(run.handler)\n"
        "    logger.warning('from the child')\n"
    )
    logger = logging.getLogger("test_datalog.parent")
    logger.setLevel(logging.INFO)
    logger.addHandler(run.handler)
    logger.info("before")
    subprocess.run([sys.executable, "-c", program, str(run.path)], check=True, timeout=30)
    logger.info("after")
    lines = reader.log_text().splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == ["before", "from the child", "after"]
    assert lines == sorted(lines)
    assert "WARNING" in lines[1]


def test_a_closed_log_handler_writes_no_more_and_raises_nothing(tmp_path):
    handler = LogFileHandler(tmp_path / "log.txt")
    logger = logging.getLogger("test_datalog.it")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.info("one")
    handler.close()
    handler.close()
    logger.info("two")
    assert "two" not in (tmp_path / "log.txt").read_text()


def test_a_finished_run_is_one_database_file_and_reads_from_a_read_only_copy(tmp_path):
    with Run.create(tmp_path, "scan") as run:
        run.log_scalar("power", 1.0)
    assert sorted(path.name for path in run.path.iterdir()) == ["configuration.json", "data.sqlite", "run.json"]
    with RunReader(run.path) as reader:
        assert reader.scalars("power").values.tolist() == [1.0]


def test_scalars_and_arrays_go_to_pandas_and_xarray_with_their_units(run, reader):
    pytest.importorskip("pandas")
    pytest.importorskip("xarray")
    run.log_scalar("power", 1.0, "W", at=1000.0)
    run.log_array("frame", np.eye(2), "count", at=1000.0)
    series = reader.scalars("power").to_pandas()
    assert (series.name, series.attrs["unit"], series.index[0].timestamp(), series.iloc[0]) == ("power", "W", 1000.0, 1)
    assert reader.scalars("power").to_xarray().attrs["units"] == "W"
    assert reader.arrays("frame").to_xarray().sizes == {"time": 1, "axis_1": 2, "axis_2": 2}


def test_scalars_of_several_tags_stand_side_by_side_over_time(run, reader):
    pytest.importorskip("pandas")
    pytest.importorskip("xarray")
    for at, power in ((1.0, 0.1), (2.0, 0.2), (2.0, 0.3)):
        run.log_scalar("power", power, "W", at=at)
    run.log_scalar("count", 7, at=2.0)
    frame = reader.to_pandas()
    assert frame.attrs["units"] == {"power": "W", "count": None}
    assert [moment.timestamp() for moment in frame.index] == [1.0, 2.0, 2.0]
    np.testing.assert_array_equal(frame["power"], [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(frame["count"], [math.nan, 7, math.nan])
    dataset = reader.to_xarray("power")
    assert list(dataset) == ["power"]
    assert dataset["power"].attrs["units"] == "W"
    np.testing.assert_array_equal(dataset["power"], [0.1, 0.2, 0.3])


def test_the_log_is_read_in_time_order_even_if_records_were_written_late(run, reader):
    (run.path / "log.txt").write_text(
        "2026-11-22T10:00:00.100Z INFO     a: first\n"
        "2026-11-22T10:00:00.300Z ERROR    a: third\nTraceback (most recent call last):\n  2026 is not a time\n"
        "2026-11-22T10:00:00.200Z INFO     b: second, which came late\n"
    )
    lines = reader.log_text().splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == [
        "first", "second, which came late", "third", "Traceback (most recent call last):", "  2026 is not a time",
    ]  # fmt: skip


def test_the_write_ahead_log_stays_short_while_records_come_without_a_pause(run, reader, monkeypatch):
    monkeypatch.setattr(checkpointing, "_EVERY", 50)
    monkeypatch.setattr(checkpointing, "_LONGEST", 400)
    log = run.path / "data.sqlite-wal"
    count = 0
    while count < 8000 or log.stat().st_size > count * 4120 / 4:  # as long as a busy disk needs for some rounds
        for _ in range(1000):
            run.log_scalar("count", count)
            count += 1
        assert count < 100_000
    assert [thread.name for thread in threading.enumerate()].count("checkpoints") == 1
    assert reader.scalars("count").values.tolist() == list(range(count))
    reader.close()
    run.close()
    assert "checkpoints" not in [thread.name for thread in threading.enumerate()]
    assert not (run.path / "data.sqlite-wal").exists()


def test_a_short_run_has_no_thread(run):
    for number in range(500):
        run.log_scalar("count", number)
    assert "checkpoints" not in [thread.name for thread in threading.enumerate()]


# --- units, masks, times and text ---

units = pint.get_application_registry()
TWICE = (sqlite3.connect(":memory:").execute("SELECT 1 AS a, 2 AS a"), (1, 2))
HIDDEN = Masked(np.array([1.0, 999.0]), mask=[False, True])


@pytest.mark.parametrize("millivolt", [pint.UnitRegistry().mV, astropy.units.mV], ids=["pint", "astropy"])
def test_quantities_are_converted_to_the_unit_that_is_asked_for(run, reader, millivolt):
    run.log_scalar("v", 2 * millivolt, "V")
    run.log_array("v", np.arange(3.0) * millivolt, "V")
    run.log_curve("v", [0, 1], np.array([2.0, 4.0]) * millivolt, y_unit="V")
    assert reader.scalars("v").values[0] == pytest.approx(2e-3)
    assert reader.arrays("v")[0] == pytest.approx(np.arange(3) * 1e-3)
    assert reader.curves("v")[0].y == pytest.approx([2e-3, 4e-3])
    run.log_array("own", np.arange(3.0) * millivolt)
    assert (reader.arrays("own").unit, reader.arrays("own")[0].tolist()) == ("mV", [0, 1, 2])


@pytest.mark.parametrize(
    ("first", "later", "expected"),
    [
        ((1.0, "V"), (pint.get_application_registry().Quantity(1500.0, "mV"), None), 1.5),
        ((1.0, "V"), (1500.0, "mV"), 1.5),
        ((pint.get_application_registry().Quantity(25.0, "degC"), None), (26.0, "degC"), 26.0),
        ((1.0, "K"), (1.0, "degC"), 274.15),
        ((pint.get_application_registry().Quantity(1.0, "um"), None), (2.0, "um"), 2.0),
        ((1.0, "V"), (2.0, pint.get_application_registry().V), 2.0),
    ],
)
def test_a_tag_keeps_its_first_unit_and_others_are_converted_to_it(run, reader, first, later, expected):
    run.log_scalar("q", *first)
    for _ in range(2):  # the second time by what was remembered of the first
        run.log_scalar("q", *later)
    assert reader.scalars("q").values[1:] == pytest.approx([expected, expected])


def test_arrays_and_curves_are_converted_to_the_unit_of_their_tag_too(run, reader):
    run.log_array("a", [1.0], "V")
    run.log_array("a", [1500.0], "mV")
    run.log_curve("c", [0], [1.0], y_unit="V")
    run.log_curve("c", [0], [1500.0], y_unit="mV")
    assert reader.arrays("a")[1] == pytest.approx([1.5])
    assert reader.curves("c")[1].y == pytest.approx([1.5])


@pytest.mark.parametrize(("unit", "other"), [("V", "A"), ("V", "no such unit"), ("ADU", "counts of mine")])
def test_a_unit_of_something_else_is_refused_and_nothing_recorded(run, reader, unit, other):
    run.log_scalar("q", 1.0, unit)
    with pytest.raises(DataError, match=f"'q' is in {unit} in this run and cannot be logged in {other}"):
        run.log_scalar("q", 1.0, other)
    assert reader.scalars("q").values.tolist() == [1.0]


@pytest.mark.parametrize(
    ("unit", "later"),
    [
        (None, (units.Quantity(5.0, "delta_degC"), None)),
        ("degC", (units.Quantity(5.0, "delta_degC"), None)),
        ("degC", (units.Quantity(5.0, "delta_degC"), "degC")),
        ("degC", (5.0 * astropy.units.m, "K")),
        ("degC", (5.0, 3)),
    ],
)
def test_a_temperature_difference_is_not_taken_for_a_temperature_and_the_tag_is_named(run, reader, unit, later):
    run.log_scalar("q", 20.0, unit)
    run.log_array("q", [20.0], unit)
    for log in (run.log_scalar, run.log_array):
        with pytest.raises(DataError, match="'q'"):
            log("q", *later)
    assert reader.scalars("q").values.tolist() == [20.0]


def test_a_value_that_is_not_a_number_cannot_be_converted_and_the_tag_is_named(run, reader):
    run.log_array("q", [1.0], "m")
    for unit in ("mm", None):
        with pytest.raises(DataError, match="array 'q' is an array of <U1, which cannot be in mm?: only numbers"):
            run.log_array("q", ["a"], unit)
    assert len(reader.arrays("q")) == 1


@pytest.mark.parametrize(
    "array",
    [["a"], [b"a"], np.array(["2026-01-01"], "M8[s]"), np.array([("a", 1)], "U1,i4"), np.zeros(1, "V4")],
    ids=lambda array: str(np.asarray(array).dtype),
)
def test_only_numbers_have_a_unit(run, reader, array):
    for refused in (
        lambda: run.log_array("q", array, "V"),
        lambda: run.log_curve("q", array, [1], x_unit="V"),
        lambda: run.log_curve("q", [1], array, y_unit="V"),
    ):
        with pytest.raises(DataError, match="'q'.* cannot be in V: only numbers have a unit"):
            refused()
    assert reader.tags() == []
    run.log_array("q", array)
    run.log_array("numbers", np.array([(1, 2.0)], "i4,f8"), "V")
    run.log_array("spans", [1.0], "s")
    with pytest.raises(DataError, match="array 'spans' is an array of timedelta64"):
        run.log_array("spans", np.array([1], "m8[ms]"))


@pytest.mark.parametrize(
    "log",
    [
        lambda run: run.log_scalar("m", np.ma.masked),
        lambda run: run.log_scalar("m", np.ma.array([1.0], mask=[True])),
        lambda run: run.log_array("m", np.ma.array([1.0, 2.0], mask=[False, True])),
        lambda run: run.log_array("m", np.ma.array([(1, 2.0)], mask=[(0, 1)], dtype=[("a", "i4"), ("b", "f8")])),
        lambda run: run.log_curve("m", [0, 1], np.ma.array([1.0, 2.0], mask=[False, True])),
        lambda run: run.log_array("m", [np.ma.array([1, 999], mask=[0, 1]), np.ma.array([1, 2])]),
        lambda run: run.log_array("m", collections.deque([np.ma.array([1, 999], mask=[0, 1])])),
        lambda run: run.log_array("m", [[1.0, np.ma.masked]]),
        lambda run: run.log_array("m", pint.get_application_registry().Quantity(HIDDEN, "m")),
        lambda run: run.log_array("m", HIDDEN),
        lambda run: run.log_array("m", HIDDEN * astropy.units.m, "mm"),
        lambda run: run.log_curve("m", HIDDEN, [0, 1]),
        lambda run: run.log_curve("m", [0, 1], HIDDEN * astropy.units.m),
        lambda run: run.log_scalar("m", HIDDEN[1]),
        lambda run: run.log_scalar("m", HIDDEN[1] * astropy.units.m),
    ],
)
def test_masked_elements_are_never_recorded_as_measured(run, reader, log):
    with pytest.raises(DataError, match="'m'.* has masked elements"):
        log(run)
    assert reader.tags() == []


def test_an_array_with_a_mask_that_hides_nothing_is_recorded(run, reader):
    run.log_array("m", np.ma.array([1.0, 2.0], mask=[False, False]))
    run.log_array("m", Masked([1.0, 2.0], mask=False))
    run.log_array("m", [np.ma.array([1.0, 2.0], mask=[False, False])])
    run.log_scalar("m", Masked(1.0, mask=False))
    assert [array.tolist() for array in reader.arrays("m")] == [[1, 2], [1, 2], [[1, 2]]]
    assert reader.scalars("m").values.tolist() == [1]


@pytest.mark.parametrize("masked", [np.ma.array([1.0, 999.0], mask=[False, True]), HIDDEN], ids=["numpy", "astropy"])
def test_masked_elements_in_a_value_become_none(run, reader, masked):
    run.log("m", {"some": masked, "one": [masked[1]]})
    assert reader.values("m")[0].value == {"some": [1, None], "one": [None]}


@pytest.mark.parametrize(
    "array",
    [
        CCDData([1.0, 2.0], unit="mV"),
        NDData(np.array([1.0, 2.0]), unit="mV"),
        Column([1.0, 2.0], unit="mV"),
        xr.DataArray([1.0, 2.0], attrs={"units": "mV"}),
        xr.DataArray(units.Quantity([1.0, 2.0], "mV")),
        units.Quantity(np.array([1, 2], "u1"), "mV"),
        astropy.units.Quantity([1.0, 2.0], "uV") * 1000,
        np.array([1.0, 2.0]) * (astropy.units.mV / astropy.units.m) * (1 * astropy.units.m),
    ],
    ids=lambda array: type(array).__name__,
)
def test_the_unit_that_an_array_carries_is_kept_and_converted(run, reader, array):
    run.log_array("own", array)
    run.log_array("asked", array, "V")
    run.log_array("tag", [0.0], "uV")
    run.log_array("tag", array)
    own = reader.arrays("own")
    assert units.Quantity(own[0], own.unit).to("mV").magnitude == pytest.approx([1, 2])
    assert reader.arrays("asked")[0] == pytest.approx([1e-3, 2e-3])
    assert reader.arrays("tag")[1] == pytest.approx([1e3, 2e3])


def objects(*elements):
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


@pytest.mark.parametrize(
    ("elements", "own", "expected"),
    [
        ([units.Quantity([1.0, 2.0], "mV"), units.Quantity([1.0, 2.0], "V")], "mV", [[1, 2], [1e3, 2e3]]),
        ((units.Quantity(1.0, "mV"), units.Quantity(1.0, "V")), "mV", [1, 1e3]),
        ([[units.Quantity(1.0, "mV")], [units.Quantity(1.0, "V")]], "mV", [[1], [1e3]]),
        (collections.deque([[1, 2] * astropy.units.mV, [1, 2] * astropy.units.V]), "mV", [[1, 2], [1e3, 2e3]]),
        ([1 * astropy.units.mV, units.Quantity(1.0, "V")], "mV", [1, 1e3]),
        ([xr.DataArray([1.0], attrs={"units": un}) for un in ("mV", "V")], "mV", [[1], [1e3]]),
        ([Column([1.0], unit=un) for un in ("mV", "V")], "mV", [[1], [1e3]]),
        (objects(units.Quantity(1.0, "mV"), units.Quantity(1.0, "V")), "mV", [1, 1e3]),
        (pd.Series([units.Quantity(1.0, "mV"), units.Quantity(1.0, "V")]), "mV", [1, 1e3]),
        ([1.0 * astropy.units.Unit("1000 m"), 1 * astropy.units.m], "m", [1e3, 1]),
        ([units.Quantity([20.0], "degC"), units.Quantity([293.15], "K")], "\N{DEGREE SIGN}C", [[20], [20]]),
        ([np.timedelta64(1, "s"), np.timedelta64(1, "ms")], "s", [1, 1e-3]),
        ([np.array([1], "m8[s]"), np.array([1], "m8[ms]")], "s", [[1], [1e-3]]),
        ([dt.timedelta(seconds=1), np.timedelta64(1, "ms"), pd.Timedelta("1us")], "s", [1, 1e-3, 1e-6]),
        ([units.Quantity([1.0], ""), [2.0]], None, [[1], [2]]),
    ],
    ids=str,
)
def test_each_element_of_a_list_is_converted_to_the_unit_that_is_asked_for_or_to_that_of_the_first(
    run, reader, elements, own, expected
):
    run.log_array("own", elements)
    assert reader.arrays("own").unit == own
    assert reader.arrays("own")[0] == pytest.approx(np.array(expected))
    if own in ("mV", "s"):
        micro = f"u{own[-1]}"
        run.log_array("asked", elements, micro)
        run.log_array("tag", np.zeros(1), micro)
        run.log_array("tag", elements)
        factor = 1e3 if own == "mV" else 1e6
        for found in (reader.arrays("asked")[0], reader.arrays("tag")[1]):
            assert found == pytest.approx(factor * np.array(expected))
    if np.ndim(expected) == 1:
        run.log_curve("curve", elements, elements, y_unit=own)
        [curve] = reader.curves("curve")
        assert (curve.x_unit, curve.y_unit, curve.x.tolist()) == (own, own, pytest.approx(expected))
        assert curve.y == pytest.approx(expected)


@pytest.mark.parametrize("unit", [None, "V"])
@pytest.mark.parametrize(
    "elements",
    [
        [units.Quantity([1.0], "mV"), [1.0]],
        [[1.0], units.Quantity([1.0], "mV")],
        [1.0, [1.0] * astropy.units.mV],
        [[1.0, units.Quantity(1.0, "mV")], [1.0, 1.0]],
        objects(1.0, units.Quantity(1.0, "mV")),
        [xr.DataArray([1.0], attrs={"units": "mV"}), xr.DataArray([1.0])],
        [np.timedelta64(1, "s"), 5],
        [np.array([1], "M8[s]"), np.array([1], "m8[s]")],
    ],
    ids=str,
)
def test_a_list_of_which_only_some_elements_have_a_unit_is_refused(run, reader, elements, unit):
    for log in (run.log_array, lambda *rest: run.log_curve("q", [1, 2], rest[1], y_unit=unit)):
        with pytest.raises(DataError, match="'q'.* has elements in (mV|s) and elements without a unit"):
            log("q", elements, unit)
    assert reader.tags() == []


def test_a_list_of_several_dimensions_or_of_itself_is_refused(run, reader):
    endless = [units.Quantity(1.0, "V")]
    endless.append(endless)
    for refused in (
        endless,
        [units.Quantity(1.0, "V"), units.Quantity(1.0, "A")],
        [QTable({"a": [1] * astropy.units.mV})],
    ):
        with pytest.raises(DataError, match="array 'q'"):
            run.log_array("q", refused)
    assert reader.tags() == []


@pytest.mark.parametrize("value", [5.0, 5 * astropy.units.Unit("500 m")])
def test_a_unit_with_a_factor_which_its_name_would_lose_is_refused(run, reader, value):
    for log in (run.log_scalar, run.log_array):
        with pytest.raises(DataError, match="'q': a unit must have no factor, got '1000 m'"):
            log("q", value, astropy.units.Unit("1000 m"))
    assert reader.tags() == []


def test_scalars_and_arrays_that_were_read_carry_their_unit_to_another_run(run, reader):
    run.log_scalar("v", 1.0, "mV")
    run.log_array("w", reader.scalars("v").to_xarray(), "V")
    run.log_array("x", reader.scalars("v").to_pandas(), "V")
    assert [reader.arrays(tag)[0].tolist() for tag in "wx"] == [[1e-3], [1e-3]]


@pytest.mark.parametrize(
    "table", [QTable({"a": [1.0] * astropy.units.mV}), Table({"a": Column([1], unit="s"), "b": [2]})[0]]
)
def test_a_table_with_units_is_refused_and_one_without_is_a_dictionary_of_columns(run, reader, table):
    with pytest.raises(DataError, match=r"array 't': a table whose columns have units \(a in (mV|s)\)"):
        run.log_array("t", table)
    with pytest.raises(DataError, match="is a quantity"):
        run.log("t", table)
    assert reader.tags() == []
    run.log("t", Table({"a": [1, 2], "b": np.ma.array([3, 4], mask=[0, 1])}))
    assert reader.values("t")[0].value == {"a": [1, 2], "b": [3, None]}


@pytest.mark.parametrize(
    ("first", "later", "expected"),
    [
        (1 * astropy.units.m**2, 1 * astropy.units.cm**2, 1e-4),
        (1 * astropy.units.m**2, units.Quantity(1, "cm**2"), 1e-4),
        (units.Quantity(1, "W/m**2"), 1 * astropy.units.mW / astropy.units.m**2, 1e-3),
        (1 * astropy.units.Angstrom, 1 * astropy.units.nm, 10),
        (1 * astropy.units.kOhm, units.Quantity(1, "ohm"), 1e-3),
        (1 * astropy.units.m ** (1 / 2), 1 * astropy.units.cm**0.5, 0.1),
        (20 * astropy.units.deg_C, units.Quantity(21, "degC"), 21),
        (20 * astropy.units.deg_C, 300 * astropy.units.K, 26.85),
        (1 * astropy.units.ct, units.Quantity(5, "count"), 5),
        (1 * astropy.units.photon, 5 * astropy.units.ph, 5),
        (1 * astropy.units.Jy, 5 * astropy.units.mJy, 5e-3),
        (1 * astropy.units.Unit("1000 m"), 5 * astropy.units.m, 5),
        (1 * astropy.units.percent, units.Quantity(0.5, ""), 50),
        (1, units.Quantity(50, "percent"), 0.5),
    ],
    ids=str,
)
def test_units_of_astropy_and_pint_are_converted_into_each_other(run, reader, first, later, expected):
    run.log_scalar("q", first)
    run.log_scalar("q", later)
    assert reader.scalars("q").values[1] == pytest.approx(expected)


def test_units_of_astropy_and_pint_with_the_same_name_are_not_confused(run, reader):
    run.log_scalar("q", 1.0, "g")
    for of_astropy in (5 * astropy.units.ct, 5 * astropy.units.photon):  # ct of pint is the carat, ph a picohour
        with pytest.raises(DataError, match="cannot be logged in (count|photon)"):
            run.log_scalar("q", of_astropy)
    with pytest.raises(DataError, match="cannot be logged in no unit"):
        run.log_scalar("q", units.Quantity(5, ""))


@pytest.mark.parametrize("dtype", ["f2", "f4", "i1", "u1", "i2", "u2", "i4", "c8"])
@pytest.mark.parametrize("quantity", [False, True])
def test_a_conversion_neither_overflows_nor_loses_digits(run, reader, dtype, quantity):
    array = np.array([100, 3], dtype)
    run.log_array("v", np.zeros(2, dtype), "uV")
    run.log_array("v", units.Quantity(array, "V") if quantity else array, None if quantity else "V")
    run.log_array("asked", units.Quantity(array, "V"), "uV")
    for found in (reader.arrays("v")[1], reader.arrays("asked")[0]):
        np.testing.assert_allclose(found, [100e6, 3e6], rtol=1e-14)
    if array.dtype.kind != "c":
        run.log_scalar("v", units.Quantity(array[0], "V"), "uV")
        assert reader.scalars("v").values.tolist() == pytest.approx([100e6], rel=1e-14)


@pytest.mark.parametrize(
    ("span", "seconds"),
    [
        (np.timedelta64(5, "ns"), 5e-9),
        (np.timedelta64(5, "ms"), 5e-3),
        (dt.timedelta(minutes=1), 60),
        (pd.Timedelta("1500us"), 1.5e-3),
        (np.timedelta64("NaT", "ns"), math.nan),
    ],
)
def test_a_span_of_time_is_recorded_in_seconds(run, reader, span, seconds):
    run.log_scalar("t", span)
    run.log_scalar("ms", span, "ms")
    run.log_array("ms", np.array([span], "m8[ns]"), "ms")
    assert reader.scalars("t").unit == "s"
    np.testing.assert_allclose(reader.scalars("t").values, [seconds])
    np.testing.assert_allclose([reader.scalars("ms").values[0], reader.arrays("ms")[0][0]], 1e3 * seconds)


def test_times_of_numpy_and_pandas_are_recorded_as_times_and_nat_as_none(run, reader):
    at = np.datetime64("2026-01-02T03:04:05.123456789")
    record = np.array([(at, 1)], dtype=[("at", "M8[ns]"), ("n", int)])
    run.log("t", {"one": at, "some": np.array([at, "NaT"], "M8[ns]"), "record": record, "pandas": pd.NaT})
    text = "2026-01-02T03:04:05.123456789"
    run.log("zone", pd.DataFrame({"t": pd.to_datetime(["2026-01-02T03:04:05", None], utc=True)}))
    assert reader.values("zone")[0].value == {"t": ["2026-01-02T03:04:05+00:00", None]}
    assert reader.values("t")[0].value == {"one": text, "some": [text, None], "record": [[text, 1]], "pandas": None}
    run.log_array("t", np.array([at]))
    assert reader.arrays("t")[0].tolist() == np.array([at]).tolist()
    for refused in (np.timedelta64(1, "ns"), [np.array([1], "m8[us]")], dt.timedelta(1)):
        with pytest.raises(DataError, match="is a span of time: log its seconds"):
            run.log("t", refused)
    for refused in (at, np.timedelta64(1, "Y")):
        with pytest.raises(DataError, match="must be one real number|has no length in seconds"):
            run.log_scalar("t", refused)


@pytest.mark.parametrize("log", ["log_scalar", "log_array", "log_curve"])
def test_a_record_that_is_refused_leaves_the_unit_of_its_tag_open(run, reader, log):
    def write(value, unit, **at):
        if log == "log_curve":
            run.log_curve("q", [1], value, y_unit=unit, **at)
        else:
            getattr(run, log)("q", value if log == "log_array" else value[0], unit, **at)

    for refused, at in (([object()], {}), ([1.0], {"at": "now"})):
        with pytest.raises(DataError, match="'q'"):
            write(refused, "V", **at)
    write([1.0], "s")
    [tag] = reader.tags()
    assert tag.unit == "s"


def test_an_array_of_records_with_hundreds_of_fields_is_read_again(run, reader):
    table = np.ones(1, dtype=[(f"channel_{number}_mean", "f8") for number in range(400)])
    run.log_array("table", table)
    assert reader.arrays("table")[0] == table


def test_whole_numbers_keep_their_digits_in_columns_with_gaps(run, reader):
    big = 2**60 + 1
    run.log_scalar("a", 0.5, at=1)
    run.log_scalar("b", big, at=2)
    run.log_scalar("small", 3, at=2)
    frame, dataset = reader.to_pandas(), reader.to_xarray()
    assert frame["b"].dropna().tolist() == dataset["b"].dropna("time").values.tolist() == [big]
    assert (frame["small"].dtype, reader.to_pandas("b")["b"].dtype) == ("float64", "int64")


@pytest.mark.parametrize(
    "at",
    [
        math.nan, math.inf, 1e300, "now", b"1", True, np.True_, bytearray(b"1"), memoryview(b"1"), object(), pd.NaT,
        dt.datetime.fromisoformat("2026-01-01"), dt.datetime(3000, 1, 1, tzinfo=dt.UTC),
        dt.datetime(1000, 1, 1, tzinfo=dt.UTC), 10**12,
        np.datetime64("2026-01-01"), np.timedelta64(5, "ns"), units.Quantity(5, ""), [1.0],
    ],
)  # fmt: skip
def test_a_value_that_is_not_a_time_is_refused(run, reader, at):
    for log in (run.log_scalar, run.log_array, run.log):
        with pytest.raises(DataError, match="'x': a time"):
            log("x", 1.0, at=at)
    assert reader.tags() == []


@pytest.mark.parametrize(
    "at",
    [
        1.5,
        np.float64(1.5),
        decimal.Decimal("1.5"),
        pd.Timestamp(1.5, unit="s", tz="UTC"),
        dt.datetime.fromtimestamp(1.5, dt.timezone(dt.timedelta(hours=2))),
    ],
)
def test_a_time_may_be_a_number_of_any_kind_or_a_datetime_with_its_zone(run, reader, at):
    run.log_scalar("x", 1.0, at=at)
    assert reader.scalars("x").times.astype("int64").tolist() == [1_500_000_000]


def test_a_time_keeps_its_nanoseconds(run, reader):
    exact = 1_700_000_000_123_456_789
    run.log_scalar("x", 1.0, at=pd.Timestamp(exact, tz="UTC"))
    run.log_scalar("x", 1.0, at=decimal.Decimal("1700000000.123456789"))
    assert reader.scalars("x").times.astype("int64").tolist() == [exact, exact]


EVER = dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC)


def test_the_times_that_a_reader_gives_find_their_records(run, reader):
    for value in range(4):
        run.log_scalar("x", value)
    found = reader.scalars("x")
    for number, (time, second) in enumerate(zip(found.times, found.seconds, strict=True)):
        for moment in (time, second, time.astype("int64") / 1e9, pd.Timestamp(time)):
            assert number in reader.scalars("x", since=moment, until=moment).values
            assert reader.scalars("x", since=moment).values.tolist()[-1] == 3
    for nothing in ({"since": -math.inf}, {"until": math.inf}, {"since": EVER[0], "until": EVER[1]}):
        assert len(reader.scalars("x", **nothing)) == 4
    assert reader.scalars("x", index=np.int64(-1)).values.tolist() == [3]
    for wrong in ({"since": "now"}, {"until": math.nan}, {"index": 1.0}, {"index": [0]}, {"index": 2**70}):
        with pytest.raises(DataError):
            reader.scalars("x", **wrong)
    for tag in (None, 3, "\ud800"):
        with pytest.raises(DataError, match="no scalar was logged as"):
            reader.scalars(tag)
        assert reader.events(tag or "?") == []


def test_text_that_is_not_valid_utf8_comes_back_unchanged(run, reader):
    run.log("file", "caf\udce9.dat")
    run.log_event("failed", "cannot read caf\udce9.dat")
    run.set_outcome("failed", "OSError: caf\udce9.dat")
    assert reader.values("file")[0].value == "caf\udce9.dat"
    assert reader.events()[0].text == "cannot read caf\udce9.dat"
    assert reader.outcome["detail"] == "OSError: caf\udce9.dat"


THIRD = np.longdouble(1) / 3


def test_a_long_double_that_has_no_more_digits_than_a_float_is_recorded(run, reader):
    run.log("v", {"half": np.longdouble(0.5), "some": np.array([0.25, np.nan], "g")})
    run.log_scalar("v", np.longdouble(0.5))
    run.log_array("v", np.array([THIRD]))
    value = reader.values("v")[0].value
    assert (value["half"], value["some"][0], math.isnan(value["some"][1])) == (0.5, 0.25, True)
    assert reader.scalars("v").values.tolist() == [0.5]
    assert reader.arrays("v")[0].tolist() == [THIRD]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (lambda run: run.log("v", {1: "a", "1": "b"}), "two keys of a dictionary are '1'"),
        (lambda run: run.log("v", types.MappingProxyType({1: "a", "1": "b"})), "two keys of a dictionary are '1'"),
        (lambda run: run.log("v", [collections.ChainMap({1: "a"}, {"1": "b"})]), "two keys of a dictionary are '1'"),
        (lambda run: run.log("v", sqlite3.Row(*TWICE)), "has a key twice"),
        (lambda run: run.log("v", {(1, 2): 3}), "keys must be text or numbers"),
        (lambda run: run.log("v", THIRD), "more digits than 64 bits can hold"),
        (lambda run: run.log("v", np.array([1, THIRD])), "more digits than 64 bits can hold"),
        (lambda run: run.log("v", Table({"a": np.array([THIRD])})), "more digits than 64 bits can hold"),
        (lambda run: run.log("v", np.array([(1, THIRD)], "i4,g")), "more digits than 64 bits can hold"),
        (lambda run: run.log("v", np.clongdouble(1 + 2j)), r"complex \(1\+2j\) is neither a JSON value"),
        (lambda run: run.log("v", np.longdouble("1e4000")), "more digits than 64 bits can hold"),
        (lambda run: run.log_scalar("v", THIRD), "scalar 'v': .* more digits than 64 bits can hold"),
        (lambda run: run.log_scalar("v", np.clongdouble(1)), "must be one real number"),
        (lambda run: run.log("v", pd.DataFrame({"a": [1, 2]}, index=[10, 20])), "has an index, which would be lost"),
        (lambda run: run.log("v", {"a": pd.Series([1, 2], index=["p", "q"])}), "has an index, which would be lost"),
        (lambda run: run.log("v", 3 * pint.UnitRegistry().mV), "is a quantity"),
        (lambda run: run.log_array("r", [[1], [1, 2]]), "cannot be made an array"),
        (lambda run: run.log_scalar("a\0b", 1.0), "without NUL"),
        (lambda run: run.log_scalar("caf\udce9", 1.0), "UTF-8"),
        (lambda run: run.log_scalar("u", 1.0, b"V"), "a unit must be text"),
        (lambda run: run.log_scalar("u", 1.0, "caf\udce9"), "UTF-8"),
        (lambda run: run.log_curve("c", [1], [1], x_label=3), "curve 'c': x_label must be text"),
        (lambda run: run.log_curve("c", [1], [1], x_label="a\0b"), "curve 'c': x_label must be text .* without NUL"),
        (lambda run: run.log_curve("c", [1], [1], y_label="caf\udce9"), "curve 'c': y_label must be text .* UTF-8"),
        (lambda run: run.log_curve("c", [1], [1], x_unit="a\0b"), "curve 'c': x: a unit must be text .* without NUL"),
        (lambda run: run.log_curve("c", [1], [1], x_unit="caf\udce9"), "curve 'c': x: a unit must be text .* UTF-8"),
        (lambda run: run.log_fits("f", "a\0b"), "FITS 'f': 'a.*b' cannot be read"),
        (lambda run: run.log_fits("f", "\ud800"), "FITS 'f': '.ud800' cannot be read"),
        (lambda run: run.log_event("e", 3), "event 'e': what happened must be said as text, got 3"),
        (lambda run: run.set_outcome(3), "must be text, got 3 and ''"),
        (lambda run: run.set_outcome("failed", b"x"), "must be text, got 'failed' and b'x'"),
        (lambda run: run.keep_settings("now", {}), "at the start or end of a run, got 'now'"),
        (lambda run: add_note(run.path, 3), "a note needs a text, got 3"),
        (lambda run: export(run.path, "\ud800.csv"), r"ud800.csv' cannot be the name of a file"),
        (lambda run: Run.create(run.path.parent / "a\0b", "scan"), "no directory can be made in '.*a.*b'"),
        (lambda run: Run.create(run.path.parent, 3), "a run's name must be letters"),
        (lambda run: Run.create(run.path.parent, "scan", directory_name="../x"), "a run's directory must be letters"),
        (lambda run: Run.create(run.path.parent, "scan", directory_name=""), "a run's directory must be letters"),
    ],
)
def test_a_value_that_cannot_be_stored_is_refused_with_the_reason(run, reader, log, message):
    with pytest.raises(DataError, match=message):
        log(run)
    assert reader.tags() == []


@pytest.mark.parametrize(
    "value",
    [dt.timedelta(seconds=5), decimal.Decimal("0.1"), 1 + 1j, b"abc", {(1, 2): 3.0}, object()],
    ids=lambda value: type(value).__name__,
)
def test_a_parameter_of_any_type_is_described_as_text(tmp_path, value):
    with Run.create(tmp_path, "scan", parameters={"value": value}) as run, RunReader(run.path) as reader:
        assert "value" in reader.information["parameters"]


def test_a_run_that_cannot_be_made_leaves_no_directory_behind(tmp_path):
    with pytest.raises(DataError, match="two keys"):
        Run.create(tmp_path, "scan", parameters={1: "a", "1": "b"})
    assert list(tmp_path.glob("*scan*")) == []


def test_the_records_of_a_tag_are_found_without_reading_those_of_others(run):
    for table in ("scalars", "arrays", "objects"):
        plan = run._connection.execute(
            f"EXPLAIN QUERY PLAN SELECT time FROM {table} WHERE tag = 1 ORDER BY id"
        ).fetchall()
        assert [row[3] for row in plan] == [f"SEARCH {table} USING INDEX {table}_of_tag (tag=?)"]
