"""``run --queue``, ``queue`` and ``run --detach``, with a testbed that outlives each of them."""

import pytest
from conftest import Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory, ready):
    bench = Bench(tmp_path_factory.mktemp("bench"), ready)
    process = bench.start()
    yield bench
    (bench.directory / "go").touch()
    bench.end(process)


def ended(number):
    def condition(status):
        entries = {entry["number"]: entry["state"] for entry in status["queue"]["entries"]}
        return entries.get(number) not in {None, "waiting", "running"}

    return condition


def test_queued_experiments_run_without_the_program_that_added_them(bench):
    first = bench.json("run", "work.py:Wait", "--queue")
    second = bench.json("run", "work.py:Turn", "--queue", "--to", "4")
    assert (second["before"], second["paused"]) == (1, None)
    shown = bench.command("queue").stdout
    assert "work.py:Turn --to 4" in shown
    (bench.directory / "go").touch()
    status = bench.until(ended(second["number"]))
    assert [entry["state"] for entry in status["queue"]["entries"]] == ["finished", "finished"]
    last = bench.json("runs", "last")
    assert last["information"]["parameters"]["to"] == 4
    assert status["queue"]["entries"][-1]["run"].endswith(last["run"])
    assert bench.error("queue", "cancel", str(first["number"])) == (
        "error: number 1 of the queue has ended already: finished\n"
    )


def test_a_queued_experiment_that_fails_pauses_the_queue_until_it_is_resumed(bench):
    number = bench.json("run", "work.py:Fail", "--queue")["number"]
    status = bench.until(ended(number))
    assert "the lamp is too dim" in status["queue"]["paused"]
    assert "the lamp is too dim" in bench.command("status").stdout
    added = bench.command("run", "work.py:Turn", "--queue")
    assert "queue resume" in added.stderr
    assert bench.json("queue", "resume")["paused"] is None
    assert bench.until(ended(number + 1))["queue"]["entries"][-1]["state"] == "finished"


def test_what_cannot_run_is_refused_before_it_is_queued(bench):
    assert "did you mean '--to'" in bench.error("run", "work.py:Turn", "--queue", "--too", "4")
    assert "expected one of --queue and --detach" in bench.error("run", "work.py:Turn", "--queue", "--detach")
    assert "takes no number" in bench.error("queue", "pause", "3")
    assert "say which" in bench.error("queue", "move")


def test_a_detached_run_goes_on_when_its_command_has_returned(bench):
    started = bench.json("run", "work.py:Hold", "--detach")
    status = bench.until(lambda status: status["experiments"].get("Hold", {}).get("state") == "running")
    assert status["experiments"]["Hold"]["run"].endswith(started["run"].rpartition("/")[2])
    bench.command("stop", "--experiment", "Hold")
    bench.until(lambda status: status["experiments"]["Hold"]["state"] == "stopped")
    assert "Hold: stopped" in (bench.directory / started["log"]).read_text()


def test_a_detached_run_that_cannot_begin_fails_at_once(bench):
    assert "is running already" in bench.error("run", "work.py:Turn", "--detach", "--testbed", "bench", "--hardware")


def test_a_run_is_drawn_into_a_file_while_it_goes_on(bench):
    bench.command("run", "work.py:Turn", "--plot-to", "turn.png")
    assert (bench.directory / "turn.png").read_bytes().startswith(b"\x89PNG")
    refused = bench.error("run", "work.py:Turn", "--plot", MPLBACKEND="agg", DISPLAY="", WAYLAND_DISPLAY="")
    assert "there is no display for a window" in refused
