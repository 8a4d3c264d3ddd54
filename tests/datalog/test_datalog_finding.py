"""A run is found by its path, its name or as the last one, and described at a glance, whatever became of it."""

import json
import os
import subprocess
import sys

import pytest

from catkit_devices.datalog import Run, RunReader, find_run, find_runs, summarise
from catkit_devices.errors import ConfigurationError


def make(root, name, started=None, **options):
    with Run.create(root, name, **options) as run:
        run.log_scalar("power", 1.0)
    if started is not None:
        information = json.loads((run.path / "run.json").read_text())
        (run.path / "run.json").write_text(json.dumps({**information, "started": started}))
    return run.path


def test_a_run_is_found_by_path_by_directory_by_the_name_of_what_ran_and_as_last(tmp_path):
    runs = tmp_path / "runs"
    first, second, third = make(runs, "scan"), make(runs, "loop"), make(runs, "scan")
    assert find_run(str(first), tmp_path / "elsewhere") == first
    assert find_run(second.name, runs) == second
    assert find_run("scan", runs) == third
    assert find_run("loop", runs) == second
    assert find_run("last", runs) == third


def test_the_last_run_is_the_one_that_was_started_last_whatever_it_is_called(tmp_path):
    newest = make(tmp_path, "scan", "2026-03-01T00:00:00+00:00", directory_name="a")
    oldest = make(tmp_path, "scan", "2026-01-01T00:00:00+00:00", directory_name="b")
    assert find_runs(tmp_path) == [oldest, newest]
    assert find_run("last", tmp_path) == newest


def test_an_unknown_run_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no run in"):
        find_run("last", tmp_path)
    make(tmp_path, "FilterScan")
    with pytest.raises(ConfigurationError, match="did you mean 'FilterScan'"):
        find_run("FilterSkan", tmp_path)


def test_a_run_that_goes_on_was_killed_or_is_damaged_has_an_outcome_too(tmp_path):
    finished = make(tmp_path, "scan")
    with Run.open(finished) as run:
        run.set_outcome("stopped", "enough")
    summary = summarise(finished)
    assert (summary.name, summary.outcome, summary.detail, summary.records) == ("scan", "stopped", "enough", 1)
    assert summary.started < summary.ended

    assert summarise(make(tmp_path, "scan")).outcome == "running"  # this process made it, and still runs

    program = "import sys; from catkit_devices.datalog import Run; print(Run.create(sys.argv[1], 'scan').path)"
    result = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60,
                            check=True)  # fmt: skip
    assert summarise(find_run(result.stdout.strip(), tmp_path)).outcome == "killed"

    (finished / "run.json").write_text("{")
    damaged = summarise(finished)
    assert damaged.outcome == "unreadable"
    assert "run.json cannot be read" in damaged.detail
    assert find_run("last", tmp_path).name == os.path.basename(result.stdout.strip())


def test_events_are_read_by_kind_in_order_with_their_facts(tmp_path):
    with Run.create(tmp_path, "scan") as run, Run.open(run.path) as other:
        run.log_event("safety_failure", "too humid", check="humidity", value=41.0)
        other.log_event("mutex_broken", "by an operator", mutex="wheel", at=1000.0)
        run.log_event("safety_failure", "still too humid", check="humidity")
        with RunReader(run.path) as reader:
            assert [event.kind for event in reader.events()] == ["safety_failure", "mutex_broken", "safety_failure"]
            first, second = reader.events("safety_failure")
            assert (first.text, first.facts) == ("too humid", {"check": "humidity", "value": 41.0})
            assert second.text == "still too humid"
            assert reader.events("mutex_broken")[0].time_ns == 1000_000_000_000
            assert reader.events("nothing") == []
