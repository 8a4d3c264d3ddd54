"""The demonstration does what it says: two experiments at once on one simulated bench, none in the other's way."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import matplotlib.image
import numpy as np
import psutil
import pytest

from catkit_devices.datalog import RunReader
from catkit_devices.demo.light import CLEAR
from catkit_devices.demo.results import read_filters, read_loop
from catkit_devices.sim.optical_bench import DIODES, OpticalBench
from catkit_devices.simulation import VirtualClock

HOME_PAGE = Path(__file__).parents[2] / "docs" / "index.md"
FAST = [f"--set=devices.{wheel}.simulator_options.step_time=0.02" for wheel in CLEAR]


def start(directory, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "catkit_devices", "demo", *arguments],
        cwd=directory, env={**os.environ, "CATKIT_DEVICES_RUNTIME": str(directory / "runtime")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="session")
def finished(once):
    """A demo that has ended: what it wrote and printed."""

    def run(directory):
        began = time.monotonic()
        process = start(directory)
        output, errors = process.communicate(timeout=100)
        facts = {"code": process.returncode, "seconds": time.monotonic() - began, "output": output, "errors": errors}
        (directory / "facts.json").write_text(json.dumps(facts))

    directory = once("demo", run)
    return {"directory": directory, **json.loads((directory / "facts.json").read_text())}


def run_of(directory, experiment):
    (found,) = (directory / "runs").glob(f"*_{experiment}")
    return found


@pytest.fixture
def scan(finished):
    with RunReader(run_of(finished["directory"], "FilterScan")) as reader:
        yield reader


@pytest.fixture
def loop(finished):
    with RunReader(run_of(finished["directory"], "KeepCentred")) as reader:
        yield reader


def test_it_succeeds_in_less_than_a_minute_with_a_table_and_a_picture(finished):
    assert finished["code"] == 0, finished["errors"]
    assert finished["seconds"] < 60
    assert "power behind every filter" in finished["output"]
    assert "colour_wheel" in finished["output"]
    (picture,) = (finished["directory"] / "runs").glob("*.png")
    assert f"plot: {picture.relative_to(finished['directory'])}" in finished["output"]


def test_the_home_page_shows_what_it_prints(finished):
    page = HOME_PAGE.read_text(encoding="utf-8")
    shown = page.partition('```none title="what the demo prints"\n')[2].partition("\n```")[0]
    assert without_numbers(finished["output"]) == without_numbers(shown)


def without_numbers(text):
    """Return a text with every number, which differs from run to run, as ``#``, and every blank as one space."""
    return re.sub(r"\d[\d.]*(e[+-]\d+)?", "#", " ".join(text.split()))


def test_it_prints_no_warning(finished):
    lines = finished["errors"].splitlines()
    assert [line for line in lines if not line.startswith(("FilterScan: ", "KeepCentred: "))] == []


def test_its_picture_is_a_real_png_with_something_on_it(finished):
    (picture,) = (finished["directory"] / "runs").glob("*.png")
    pixels = matplotlib.image.imread(picture)
    assert pixels.shape[0] > 600
    assert pixels.shape[1] > 1200
    colours = (pixels[..., :3] * 255).astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    assert len(np.unique(colours)) > 100


def test_every_experiment_has_a_run_directory_that_says_how_it_ended(scan, loop):
    for reader in (scan, loop):
        assert reader.outcome["outcome"] == "finished"
        assert reader.configuration["simulation"]["bench"] == "optical"
        assert "started" in reader.log_text()
        assert reader.information["versions"]["catkit-devices"]


def test_the_power_behind_every_filter_is_what_the_bench_lets_through(scan):
    bench = OpticalBench(clock=VirtualClock())
    wheels = {wheel: bench.wheel(wheel.removesuffix("_wheel")) for wheel in CLEAR}
    clear_power = np.mean(scan.scalars("power/nd_wheel/1").values)

    def transmission(**positions):
        for wheel, position in {**CLEAR, **positions}.items():
            wheels[wheel].move(position, start=0.0, seconds_per_step=0.0)
        return bench.transmission(DIODES[0].wavelength)

    filters, _ = read_filters(scan)
    assert [(item.wheel, item.slot) for item in filters] == [(wheel, slot) for wheel in CLEAR for slot in range(1, 7)]
    for item in filters:
        expected = clear_power * transmission(**{item.wheel: item.slot}) / transmission()
        # What the spot drifts by while the scan has the light costs the rest.
        assert item.mean == pytest.approx(expected, rel=0.05), item


def test_the_scan_lost_no_reading_to_the_loop(scan):
    filters, _ = read_filters(scan)
    for item in filters:
        assert len(item.readings) == 8
        assert max(item.readings) < 1.05 * min(item.readings), item


def test_the_loop_never_took_a_reading_while_the_scan_held_the_locks(scan, loop):
    _, turns = read_filters(scan)
    frames = read_loop(loop).seconds
    assert len(turns) == 12
    assert len(frames) >= 20
    for begin, end in turns:
        assert not np.any((frames > begin) & (frames < end))


def test_the_loop_always_had_enough_light(loop):
    held = read_loop(loop)
    assert held.light.min() > 0.5 * held.light.max()


def test_the_spot_was_held_although_it_drifted(loop):
    held = read_loop(loop)
    settled = held.seconds > held.seconds[0] + 0.5
    assert held.without[-1] > 8.0
    assert np.sqrt(np.mean(held.offset[settled] ** 2)) < np.sqrt(np.mean(held.without[settled] ** 2)) / 4
    assert held.offset[settled].max() < held.without[settled].max() / 2
    assert held.power[settled].min() > 0.8 * held.power.max()


def test_the_loop_measured_how_the_spot_follows_the_stage(loop):
    (response,) = loop.arrays("response")
    # 0.4 µm for each microradian on this bench, pixels of 5 µm
    np.testing.assert_allclose(response, [[0.08, 0.0], [0.0, 0.08]], atol=0.003)


@pytest.mark.whole
def test_it_runs_again_in_the_same_place(finished):
    before = {path.name for path in (finished["directory"] / "runs").iterdir()}
    process = start(finished["directory"], "--runs", "again", *FAST)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert {path.name for path in (finished["directory"] / "runs").iterdir()} == before
    again = [path.name for path in (finished["directory"] / "again").iterdir() if not path.name.startswith(".")]
    assert len(again) == 4, output  # two runs, the plot, and the testbed's log


def wait_until_gone(pids, seconds):
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if psutil.pid_exists(pid)]:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.02)
    return []


def test_ctrl_c_stops_both_experiments_and_leaves_nothing_behind(tmp_path):
    process = start(tmp_path, *FAST)
    seen = ""
    while "FilterScan: running, filters" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    assert len(family) >= 6
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert wait_until_gone(family, 5.0) == []
    assert [path for path in (tmp_path / "runtime").rglob("*") if path.is_socket()] == []
    for experiment in ("FilterScan", "KeepCentred"):
        with RunReader(run_of(tmp_path, experiment)) as reader:
            assert reader.outcome["outcome"] == "stopped"
    assert list((tmp_path / "runs").glob("*.png")) == []


@pytest.mark.whole
def test_with_a_page_it_goes_on_until_ctrl_c(tmp_path):
    process = start(tmp_path, "--serve", "--port", "0", *FAST)
    try:
        told = process.stdout.readline()
        url = re.search(r"http://\S+/", told)[0]
        offered = httpx.get(f"{url}api/v1/experiments", timeout=60).json()["offered"]
        assert {"FilterScan", "KeepCentred"} <= offered.keys()
        assert list(httpx.get(f"{url}api/v1/frames", timeout=60).json()["cameras"]) == ["camera"]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=100)
        assert process.returncode == 130
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
