"""``runs``, ``plot`` and ``export``, each run as a process, as a user and a script run them."""

import csv
import json
import os
import re
import subprocess
import sys
import time

import pytest

from catkit_devices.datalog import Run


@pytest.fixture
def recorded(tmp_path):
    with Run.create(tmp_path / "runs", "FilterScan", parameters={"repeats": 3}) as run:
        for number in range(3):
            run.log_scalar("power/1", number, "W")
        run.log_array("frame", [[1, 2], [3, 4]], "count")
        run.log_event("mutex_broken", "the mutex 'wheel' was broken by an operator")
        run.set_outcome("failed", "the lamp [red] went out")
    with Run.create(tmp_path / "runs", "Loop") as run:
        run.log_scalar("offset", 1.0)
        run.set_outcome("finished")
    return tmp_path


@pytest.fixture
def command(ready):
    def run(directory, *arguments, exit_code=0, **environment):
        result = ready.run(arguments, cwd=directory, env={**os.environ, **environment}, timeout=60)
        assert result.returncode == exit_code, result.stderr
        assert "Traceback" not in result.stderr
        return result

    return run


def test_runs_are_listed_oldest_first_with_their_outcome(command, recorded):
    lines = command(recorded, "runs").stdout.splitlines()
    rows = [line.split() for line in lines if "_" in line and "─" not in line]
    assert [row[1] for row in rows] == ["FilterScan", "Loop"]
    assert "failed" in rows[0]
    assert "the lamp [red] went out" in next(line for line in lines if "FilterScan" in line)


def test_runs_are_chosen_by_name_outcome_date_and_number(command, recorded):
    def names(*options):
        return [one["name"] for one in json.loads(command(recorded, "runs", *options, "--json").stdout)]

    assert names("--last", "1") == names("--name", "Loo*") == names("--outcome", "finished") == ["Loop"]
    assert names("--since", "1h", "--outcome", "failed", "--outcome", "stopped") == ["FilterScan"]
    assert names("--until", "2020-01-01") == names("--since", "1d", "--until", "1h") == []
    assert "no recorded runs of this kind" in command(recorded, "runs", "--name", "Other").stdout
    assert "did you mean 'failed'?" in command(recorded, "runs", "--outcome", "faled", exit_code=2).stderr


def test_notes_and_a_star_are_shown_with_their_run(command, recorded):
    assert "note added to runs/" in command(recorded, "note", "FilterScan", "new", "lamp").stdout
    assert json.loads(command(recorded, "star", "FilterScan", "--json").stdout)["starred"] is True
    (one,) = json.loads(command(recorded, "runs", "--starred", "--json").stdout)
    assert (one["name"], [note["text"] for note in one["notes"]]) == ("FilterScan", ["new lamp"])
    row = next(line for line in command(recorded, "runs").stdout.splitlines() if "FilterScan" in line)
    assert row.lstrip().startswith("*")
    assert "new lamp" in row
    assert re.search(r"note \(.+\): new lamp", command(recorded, "runs", "FilterScan").stdout)
    command(recorded, "star", "FilterScan", "--remove")
    assert json.loads(command(recorded, "runs", "--starred", "--json").stdout) == []


def test_runs_for_a_script_are_json(command, recorded):
    first, second = json.loads(command(recorded, "runs", "--json").stdout)
    assert (first["name"], first["outcome"], first["records"]) == ("FilterScan", "failed", 4)
    assert os.path.isdir(recorded / first["run"])
    assert (second["name"], second["outcome"]) == ("Loop", "finished")
    assert json.loads(command(recorded, "runs", "--json", "--runs", "elsewhere").stdout) == []
    assert (
        "no recorded runs in directory 'elsewhere'" in command(recorded, "runs", CATKIT_DEVICES_RUNS="elsewhere").stdout
    )


def test_one_run_is_shown_with_its_parameters_tags_and_events(command, recorded):
    shown = command(recorded, "runs", "FilterScan").stdout
    assert "repeats = 3" in shown
    assert ["scalar", "power/1", "W", "3"] in [line.split() for line in shown.splitlines()]
    assert "mutex_broken: the mutex 'wheel' was broken by an operator" in shown
    answer = json.loads(command(recorded, "runs", "last", "--json").stdout)
    assert answer["tags"] == [{"kind": "scalar", "tag": "offset", "unit": None, "count": 1}]


def test_a_run_that_is_not_there_is_an_error_with_code_2(command, recorded):
    for arguments in (
        ["runs", "FilterSkan"],
        ["plot", "FilterSkan", "power"],
        ["export", "FilterSkan", "--to", "x.h5"],
    ):
        assert "did you mean 'FilterScan'?" in command(recorded, *arguments, exit_code=2).stderr


def test_plot_writes_a_file_named_after_the_tag_or_the_file_that_was_given(command, recorded):
    assert "plot of runs/" in command(recorded, "plot", "FilterScan", "power/1").stdout
    assert (recorded / "power_1.png").read_bytes().startswith(b"\x89PNG")
    result = command(recorded, "plot", "FilterScan", "frame", "--index", "0", "--out", "frame.pdf", "--json")
    assert json.loads(result.stdout)["plot"] == "frame.pdf"
    assert (recorded / "frame.pdf").read_bytes().startswith(b"%PDF")
    assert "did you mean 'power/1'?" in command(recorded, "plot", "FilterScan", "powr/1", exit_code=2).stderr


def test_export_writes_the_file_and_warns_of_what_it_leaves_out(command, recorded):
    result = command(recorded, "export", "FilterScan", "--to", "scan.csv")
    assert result.stderr.startswith("warning: left out: array")
    rows = list(csv.reader((recorded / "scan.csv").read_text().splitlines()))
    assert [row[1:] for row in rows] == [["tag", "value", "unit"], *(["power/1", str(n), "W"] for n in range(3))]
    assert "exists already" in command(recorded, "export", "FilterScan", "--to", "scan.csv", exit_code=1).stderr
    answer = json.loads(command(recorded, "export", "last", "--to", "scan.csv", "--replace", "--json").stdout)
    assert answer["left_out"] == []


def test_export_to_hdf5_is_a_file_that_h5py_reads(command, recorded):
    h5py = pytest.importorskip("h5py")
    command(recorded, "export", "FilterScan", "--to", "scan.h5", "--tag", "frame")
    with h5py.File(recorded / "scan.h5") as file:
        assert file["arrays/frame/value"][0].tolist() == [[1, 2], [3, 4]]


def picture_size(file):
    from matplotlib.image import imread

    return imread(file).shape[1::-1]


@pytest.mark.whole
def test_plot_without_a_tag_draws_all_scalars_over_another_with_a_logarithmic_axis(command, recorded):
    assert command(recorded, "plot", "FilterScan").stdout.endswith("scalars.png\n")
    width, height = picture_size(recorded / "scalars.png")
    assert width > height
    command(recorded, "plot", "FilterScan", "power/1", "--x", "power/1", "--log", "--out", "over.png")
    assert picture_size(recorded / "over.png")[0] == width
    assert "did you mean 'power/1'?" in command(recorded, "plot", "FilterScan", "--x", "powr/1", exit_code=2).stderr


def test_plot_follow_draws_until_the_run_ends(command, ready, tmp_path):
    with Run.create(tmp_path / "runs", "Loop") as run:
        follow = subprocess.Popen(
            [sys.executable, "-m", "catkit_devices", "plot", "last", "--follow", "--out", "x.png"],
            cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            run.log_scalar("power", 1.0)
            deadline = time.monotonic() + 60
            while not (tmp_path / "x.png").exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            first = (tmp_path / "x.png").read_bytes()
            run.log_scalar("power", 2.0)
            run.set_outcome("finished")
            assert follow.communicate(timeout=60)[0].endswith(": finished, plot: x.png\n")
        finally:
            follow.kill()
            follow.communicate()
    assert (tmp_path / "x.png").read_bytes() != first


def test_without_a_display_plot_follow_draws_in_the_terminal(command, recorded):
    shown = command(recorded, "plot", "FilterScan", "--follow", MPLBACKEND="agg", DISPLAY="", WAYLAND_DISPLAY="").stdout
    assert "power/1: 2 W" in shown
    assert any(ord("\u2800") < ord(one) < ord("\u2900") for one in shown)
    failed = command(
        recorded,
        "plot",
        "FilterScan",
        "frame",
        "--follow",
        MPLBACKEND="agg",
        DISPLAY="",
        WAYLAND_DISPLAY="",
        exit_code=2,
    )
    assert "only scalars are drawn in the terminal" in failed.stderr


def test_a_sketch_has_the_highest_point_at_the_top_and_leaves_out_what_is_no_number():
    from catkit_devices.cli.following import sketch

    lines = sketch([0, 1, 2, 3], [1.0, 10.0, float("nan"), 100.0], 24, 4, log=True)
    assert [line.split("|")[0].strip() for line in lines] == ["100", "", "", "1"]
    assert (lines[0][-1], lines[-1].split("|")[1][0]) == ("\u2808", "\u2840")
    assert sketch([0], [float("nan")], 24, 4) == ["(no number)"]
