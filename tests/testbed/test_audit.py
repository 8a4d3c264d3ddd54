"""The audit trail and the log of a testbed: who has changed what, in files whose size is limited."""

import json
import logging
import os
import time

import pytest

from catkit_devices.errors import CatkitDevicesError, DeviceValueError, MutexBrokenError
from catkit_devices.multiprocessing.locks.owner import current_call, user_name
from catkit_devices.testbed import Testbed, load_configuration
from catkit_devices.testbed.processes import log_files
from catkit_devices.testbed.processes.audit import Trail, sentence
from catkit_devices.testbed.processes.log_files import LogFiles


def read(directory):
    file = directory / "trial.logs" / "audit.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.exists() else []


def until(directory, count):
    """Return the entries, as soon as there are so many."""
    deadline = time.monotonic() + 30
    while len(found := read(directory)) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def short(one):
    return {key: one[key] for key in ("what", "target", "name", "value", "old", "arguments", "reason") if key in one}


def test_who_has_set_called_broken_and_stopped_what_is_written_down_and_reads_are_not(bench, tmp_path):
    with Testbed(load_configuration([bench])) as testbed:
        tank = testbed.devices.tank
        assert not tank.is_open
        tank.level = 2.0
        tank.level = 3.0
        with pytest.raises(DeviceValueError):
            tank.level = 1e9
        tank.make_safe()
        tank.level = 1.0
        with pytest.raises(MutexBrokenError), tank.lock():
            assert testbed.break_lock("tank", "it hangs")
        with pytest.raises(CatkitDevicesError, match="nothing to reset"):
            testbed.reset_safety("all is well")
        entries = sorted(until(tmp_path / "runs", 7), key=lambda one: one["time"])
    assert [short(one) for one in entries] == [
        {"what": "set", "target": "tank", "name": "level", "value": 2.0},
        {"what": "set", "target": "tank", "name": "level", "value": 3.0, "old": 2.0},
        {"what": "set", "target": "tank", "name": "level", "value": 1e9, "old": 3.0},
        {"what": "called", "target": "tank", "name": "make_safe"},
        {"what": "set", "target": "tank", "name": "level", "value": 1.0},
        {"what": "broke", "target": "tank", "reason": "it hangs"},
        {"what": "reset", "target": "safety", "reason": "all is well"},
    ]
    assert {(one["user"], one["pid"]) for one in entries} == {(user_name(), os.getpid())}
    assert ["error" in one for one in entries] == [False, False, True, False, False, False, True]
    log = (tmp_path / "runs" / "trial.logs" / "testbed.log").read_text("utf-8")
    assert "Z INFO" in log
    assert "audit: tank.level set to 3.0 (it was set to 2.0 before)" in log


def test_a_testbed_whose_log_cannot_be_written_works_and_says_so_once(bench, tmp_path, caplog):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "trial.logs").write_text("a file where the directory should be")
    with Testbed(load_configuration([bench])) as testbed:
        testbed.devices.tank.level = 2.0
        testbed.devices.tank.level = 3.0
        assert testbed.devices.tank.level == 3.0
    told = [record.message for record in caplog.records if "cannot be written" in record.message]
    assert sorted(text.partition(" ")[0].rpartition("/")[2] for text in told) == ["audit.jsonl", "testbed.log"]


class Awkward:
    """A value that cannot even be looked at."""

    def __getattribute__(self, name):
        raise RuntimeError(name)

    def __len__(self):
        raise RuntimeError("no length")


@pytest.fixture
def trail():
    sent = []
    made = Trail(sent.extend)
    made.sent = sent
    return made


def test_a_loop_that_sets_the_same_again_and_again_becomes_one_entry(trail):
    call = current_call()
    for number in range(100):
        trail(call, "set", "mirror", "command", (number,), {}, None)
    trail.flush(time.time())
    assert [one["value"] for one in trail.sent] == list(range(20))
    trail.flush(time.time() + 20)
    assert len(trail.sent) == 21
    assert (trail.sent[-1]["count"], trail.sent[-1]["value"], trail.sent[-1]["old"]) == (80, 99, 19)
    assert "80 times until" in sentence(trail.sent[-1])


def test_noting_never_fails_and_keeps_no_value_that_may_change(trail):
    import numpy as np

    call = current_call()
    image = np.zeros((3, 4))
    trail(call, "called", "mirror", "apply", (image, [1, 2.5], float("nan"), b"\xff", "x" * 300), {"gain": 2}, None)
    trail(call, "called", "mirror", "odd", (Awkward(),), {}, None)
    trail.flush(time.time())
    assert trail.sent[0]["arguments"] == [
        "<float64 array of shape (3, 4)>", [1, 2.5], "nan", "\\xff", f"{'x' * 200}... (300 characters)", "gain=2",
    ]  # fmt: skip
    assert json.dumps(trail.sent)


def test_entries_that_cannot_be_sent_are_kept_and_the_lost_ones_counted(monkeypatch):
    monkeypatch.setattr("catkit_devices.testbed.processes.audit._KEPT", 3)
    ways, sent = [OSError("gone"), None], []

    def send(entries):
        if ways[0] is not None:
            raise ways[0]
        sent.extend(entries)

    trail = Trail(send)
    for number in range(5):
        trail(current_call(), "called", "tank", f"step{number}", (), {}, None)
    trail.flush(time.time())
    ways[0] = None
    trail.flush(time.time())
    assert (sent[0]["missing"], [one["name"] for one in sent[1:]]) == (2, ["step2", "step3", "step4"])


def test_the_files_are_renamed_when_they_are_large_and_the_oldest_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(log_files, "_SIZE", 2_000)
    monkeypatch.setattr(log_files, "_OLD", 2)
    files = LogFiles(tmp_path / "logs")
    for number in range(200):
        files.log(logging.makeLogRecord({"msg": f"line {number}", "levelname": "INFO", "name": "x"}))
        files.audit([{"number": number}])
    files.close()
    kept = sorted(tmp_path.glob("logs/*"))
    assert [file.name for file in kept if file.name.startswith("testbed")] == [
        "testbed.log", "testbed.log.1", "testbed.log.2",
    ]  # fmt: skip
    assert all(file.stat().st_size <= 2_000 for file in kept)
