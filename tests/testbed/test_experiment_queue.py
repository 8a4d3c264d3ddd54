"""The queue of experiments: order, failures, a trip, the end of the testbed, and what is left of it on disk."""

import json
import logging
import sys
import time

import pytest

from catkit_devices.errors import ConfigurationError
from catkit_devices.testbed.experiments.experiment_queue import ExperimentQueue

# Stands for an experiment's program: tells that it has begun, does what its parameter says, and tells how it ended.
PROGRAM = """
import json, pathlib, signal, sys, time
what, _, testbed, _, announce, *parameters = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)
here, told = pathlib.Path.cwd(), pathlib.Path(announce)

def tell(**facts):
    partial = told.with_name("partial")
    partial.write_text(json.dumps({"run": f"runs/{what}", **facts}))
    partial.replace(told)

with (here / "order.txt").open("a") as file:
    file.write(what + "\\n")
tell()
try:
    while "wait" in parameters and not (here / "go").exists():
        time.sleep(0.01)
except KeyboardInterrupt:
    tell(state="stopped", message="KeyboardInterrupt")
    sys.exit(130)
if "die" in parameters:
    sys.exit("error: the lamp is out")
tell(state="finished", message="")
"""


class Bench:
    """A queue in a directory, with everything that it has said."""

    def __init__(self, directory):
        self.directory = directory
        (directory / "program.py").write_text(PROGRAM)
        self.trip = None
        self.said = []
        self.queue = self.start("bench-1")

    def start(self, server, alive=lambda server: False):
        return ExperimentQueue(
            self.directory / "bench.queue.json", server, "bench", reason_to_wait=lambda: self.trip,
            publish=lambda queue: None, say=lambda level, text: self.said.append((level, text)), alive=alive,
            command=[str(self.directory / "program.py")],
        )  # fmt: skip

    def do(self, action, **what):
        return self.queue.do(json.dumps({"do": action, **what}))

    def add(self, what, *parameters):
        entry = {"what": what, "parameters": parameters, "directory": str(self.directory), "python": sys.executable}
        return self.do("add", entry=entry)["number"]

    def until(self, condition):
        deadline = time.monotonic() + 30
        while not condition(queue := self.queue.snapshot()):
            assert time.monotonic() < deadline, queue
            time.sleep(0.01)
        return queue

    def states(self):
        return [entry["state"] for entry in self.queue.snapshot()["entries"]]

    def order(self):
        return (self.directory / "order.txt").read_text().split()


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    (tmp_path / "go").touch()
    bench.queue.end(10.0)


def count(state, number):
    return lambda queue: [entry["state"] for entry in queue["entries"]].count(state) == number


def test_experiments_run_one_after_the_other_in_the_order_that_was_chosen(bench):
    bench.add("first", "wait")
    bench.until(count("running", 1))
    second, third, fourth = (bench.add(what) for what in ("second", "third", "fourth"))
    bench.do("move", numbers=[fourth], to=1)
    bench.do("cancel", numbers=[third])
    (bench.directory / "go").touch()
    ended = bench.until(count("finished", 3))
    assert bench.order() == ["first", "fourth", "second"]
    assert ended["paused"] is None
    assert next(one for one in ended["entries"] if one["number"] == second)["run"] == "runs/second"
    assert next(one for one in ended["entries"] if one["number"] == third)["state"] == "cancelled"


def test_after_a_failure_the_queue_pauses_and_says_so(bench):
    bench.add("first", "die")
    bench.until(count("failed", 1))
    bench.add("second")
    paused = bench.until(lambda queue: queue["paused"] is not None)
    assert "first" in paused["paused"]
    assert "the lamp is out" in paused["paused"]
    assert bench.states() == ["failed", "waiting"]
    assert any(level == logging.WARNING and "the lamp is out" in text for level, text in bench.said)
    bench.do("resume")
    bench.until(count("finished", 1))


def test_a_paused_queue_starts_nothing(bench):
    bench.do("pause", reason="lamp warms up")
    bench.add("first")
    assert bench.queue.snapshot()["paused"] == "lamp warms up"
    assert bench.states() == ["waiting"]
    bench.do("resume")
    bench.until(count("finished", 1))


def test_cancelling_the_one_that_runs_stops_it_and_goes_on(bench):
    first = bench.add("first", "wait")
    bench.add("second")
    bench.until(lambda queue: queue["entries"][0]["run"] is not None)
    bench.do("cancel", numbers=[first])
    bench.until(count("finished", 1))
    assert bench.states() == ["cancelled", "finished"]


def test_while_safety_has_tripped_nothing_starts_and_the_queue_cannot_be_resumed(bench):
    bench.do("pause", reason="not yet")
    bench.add("first")
    bench.trip = "safety check 'level' failed"
    with pytest.raises(ConfigurationError, match="level"):
        bench.do("resume")
    bench.trip = None
    bench.do("resume")
    bench.until(count("finished", 1))
    bench.trip = "safety check 'level' failed"
    bench.add("second")
    assert "level" in bench.until(lambda queue: queue["paused"])["paused"]
    assert bench.order() == ["first"]


def test_after_a_trip_the_queue_waits(bench):
    bench.add("first", "wait")
    bench.add("second")
    bench.until(count("running", 1))
    bench.trip = "safety check 'level' failed"
    (bench.directory / "go").touch()
    assert bench.until(lambda queue: queue["paused"])["paused"] == "safety check 'level' failed"
    assert bench.states() == ["finished", "waiting"]


def test_a_testbed_that_is_started_again_shows_what_waited_and_waits(bench):
    bench.add("first", "wait")
    bench.add("second")
    bench.until(lambda queue: queue["entries"][0]["run"] is not None)
    again = bench.start("bench-2")
    shown = again.snapshot()
    assert [entry["state"] for entry in shown["entries"]] == ["cut off", "waiting"]
    assert shown["paused"] == "the testbed was started again"
    assert bench.order() == ["first"]
    bench.queue.hold()
    (bench.directory / "go").touch()
    bench.queue, old = again, bench.queue
    old.end(10.0)
    bench.do("resume")
    bench.until(count("finished", 1))
    assert bench.order() == ["first", "second"]


def test_the_end_of_the_testbed_starts_nothing_more(bench):
    bench.add("first", "wait")
    bench.add("second")
    bench.until(count("running", 1))
    bench.queue.hold()
    (bench.directory / "go").touch()
    bench.queue.end(10.0)
    assert bench.states() == ["finished", "waiting"]


def test_a_queue_belongs_to_one_testbed_of_a_name(bench):
    bench.do("pause", reason="not yet")
    bench.add("first")
    other = bench.start("bench-2", alive=lambda server: server == "bench-1")
    assert not other.snapshot()["entries"]
    with pytest.raises(ConfigurationError, match="another testbed of this name"):
        other.do(json.dumps({"do": "resume"}))


def test_a_damaged_file_is_kept_aside(bench):
    bench.do("pause", reason="not yet")
    (bench.directory / "bench.queue.json").write_text("{")
    assert not bench.start("bench-2").snapshot()["entries"]
    assert (bench.directory / "bench.queue.json.damaged").read_text() == "{"
    assert any("cannot be read" in text for _, text in bench.said)


def test_what_makes_no_sense_is_refused(bench):
    with pytest.raises(ConfigurationError, match="has no number 7, expected one of it is empty"):
        bench.do("cancel", numbers=[7])
    number = bench.add("first")
    bench.until(count("finished", 1))
    with pytest.raises(ConfigurationError, match="has ended already: finished"):
        bench.do("cancel", numbers=[number])
    with pytest.raises(ConfigurationError, match="does not wait any more: finished"):
        bench.do("move", numbers=[number], to=1)


def test_a_directory_that_is_gone_fails_the_experiment_not_the_queue(bench):
    entry = {"what": "first", "directory": str(bench.directory / "gone"), "python": sys.executable}
    bench.do("add", entry=entry)
    assert "FileNotFoundError" in bench.until(count("failed", 1))["entries"][0]["message"]
    bench.until(lambda queue: queue["paused"] is not None)
    bench.add("second")
    bench.do("resume")
    bench.until(count("finished", 1))
