"""``logs`` and ``audit``, each run as a process, as a user and a script run them."""

import json
import os
import threading
import time

import pytest

from catkit_devices.cli.log_reading import following, log_records, newest
from catkit_devices.cli.moments import local
from catkit_devices.datalog import Run


def entries(bench, *arguments):
    """Return what ``audit`` tells, as soon as it tells something."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        result = bench.command("audit", *arguments, "--json")
        if found := json.loads(result.stdout):
            return found
    return pytest.fail("nothing was written")


def test_audit_shows_who_has_set_what(running):
    running.command("set", "wheel.position", "4")
    one = entries(running, "filters.position")[-1]
    assert (one["what"], one["target"], one["name"], one["value"]) == ("set", "wheel", "position", 4)
    assert one["time"].endswith("Z")
    shown = running.command("audit", "wheel", "-n", "1").stdout
    assert "wheel.position set to 4" in shown
    assert local(time.time())[-5:] in shown
    assert entries(running, "wheel", "--user", one["user"])
    assert json.loads(running.command("audit", "wheel", "--user", "nobody-else", "--json").stdout) == []


def test_logs_shows_the_testbed_one_device_or_a_run(running, tmp_path):
    running.command("set", "wheel.position", "2")
    entries(running, "wheel")
    everything = running.json("logs", "--since", "1h")
    assert any("'tank' opened" in one["text"] for one in everything)
    of_wheel = running.json("logs", "filters")
    assert of_wheel
    assert all("wheel" in one["text"] for one in of_wheel)
    assert {one["level"] for one in running.json("logs", "--level", "warning")} <= {"WARNING", "ERROR", "CRITICAL"}
    with Run.create(running.directory / "runs", "scan") as run:
        (run.path / "log.txt").write_text("2026-11-27T20:52:07.163Z INFO     scan (1) MainThread x: began\nand more\n")
    assert [one["text"] for one in running.json("logs", "last")] == ["began", "and more"]
    assert "did you mean 'scan'?" in running.error("logs", "skan")
    assert "--level" in running.error("logs", "--level", "LOUD")


def line(number):
    return f"2026-11-27T20:52:07.{number:03d}Z INFO     one (1) MainThread x: record {number}\n"


def test_the_newest_records_are_found_over_files_that_were_renamed(tmp_path):
    log = tmp_path / "testbed.log"
    log.write_text(line(4) + line(5))
    (tmp_path / "testbed.log.1").write_text(line(2) + line(3))
    (tmp_path / "testbed.log.2").write_text(line(0) + line(1))
    texts = [one["text"] for one in newest(log, log_records, lambda one: True, 3, 0.0)]
    assert texts == ["record 3", "record 4", "record 5"]


def test_following_goes_on_after_the_file_was_renamed(tmp_path):
    log = tmp_path / "testbed.log"
    log.write_text(line(0))
    found, begun = [], threading.Event()

    def follow():
        records = following(log, log_records)
        begun.set()
        for one in records:
            found.append(one["text"])
            if one["text"] == "record 3":
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    begun.wait()
    deadline = time.monotonic() + 30
    with log.open("a") as file:
        while not found and time.monotonic() < deadline:  # it may not have opened the file yet
            file.write(line(1))
            file.flush()
            time.sleep(0.02)
        file.write(line(2))
    os.replace(log, tmp_path / "testbed.log.1")
    log.write_text(line(3))
    thread.join(30)
    assert not thread.is_alive()
    assert found[-2:] == ["record 2", "record 3"]
