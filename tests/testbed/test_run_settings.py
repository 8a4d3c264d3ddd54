"""The settings of the devices are in the record of a run: as they were at its start and at its end."""

import os
import signal

import pytest

from catkit_devices.datalog import RunReader
from catkit_devices.multiprocessing.wire.endpoint import endpoint
from catkit_devices.testbed import Experiment, Testbed, load_configuration
from catkit_devices.testbed.experiments.settings import settings_of_all

pytestmark = pytest.mark.usefixtures("ready_children")


class Fills(Experiment):
    def experiment(self):
        self.devices.tank.level = 3


class SpillsAtTheEnd(Experiment):
    def experiment(self):
        raise ValueError("it leaks")

    def teardown(self):
        self.devices.tank.level = 4


def settings_of(experiment):
    with RunReader(experiment.run_path) as run:
        return run.settings


def test_the_settings_at_the_start_and_at_the_end_are_in_the_record_of_a_run(shared_testbed):
    shared_testbed.devices.tank.level = 1
    experiment = Fills()
    shared_testbed.run(experiment)
    kept = settings_of(experiment)
    before, after = (kept[when]["devices"]["tank"] for when in ("start", "end"))
    assert before["settings"]["level"] == {"value": 1.0, "unit": None}
    assert after["settings"]["level"] == {"value": 3.0, "unit": None}
    assert after["settings"]["mode"] == {"value": "fine", "unit": None}
    assert "temperature" not in after["settings"]  # it cannot be set
    assert (after["not_read"], after["problem"]) == ({}, None)


def test_a_failed_run_keeps_the_settings_that_its_teardown_left(shared_testbed):
    experiment = SpillsAtTheEnd()
    with pytest.raises(ValueError, match="it leaks"):
        shared_testbed.run(experiment)
    assert settings_of(experiment)["end"]["devices"]["tank"]["settings"]["level"]["value"] == 4.0


def test_what_is_not_shared_is_not_read_while_somebody_has_the_device(shared_testbed):
    tank = shared_testbed.devices.tank
    with tank.lock():
        tank.level = 2
        found = settings_of_all(shared_testbed.devices, "trial", 30, {})["devices"]["tank"]
    assert found["settings"] == {"level": {"value": 2.0, "unit": None}}
    assert "in use by" in found["not_read"]["private_level"]
    assert found["not_read"].keys() == {"private_level", "lamp", "mode"}


def test_a_device_that_does_not_answer_is_named_and_one_that_is_closed_is_not_opened(bench, runtime):
    with Testbed(load_configuration([bench], ["devices.basin.server='other'"])) as testbed:
        testbed.devices.tank.level = 5
        assert settings_of_all(testbed.devices, "trial", 30, {})["closed"] == ["basin"]
        pid = endpoint(testbed.layout.device("tank").server).pid
        os.kill(pid, signal.SIGSTOP)
        try:
            found = settings_of_all(testbed.devices, "trial", 0.3, {})
        finally:
            os.kill(pid, signal.SIGCONT)
        assert found["devices"] == {"tank": {"settings": {}, "not_read": {}, "problem": "no answer in 0.3 s"}}
        testbed.devices.tank.mode = "silent"
        experiment = Silent()
        testbed.run(experiment)
        found = settings_of(experiment)["end"]["devices"]["tank"]
        assert "level" not in found["settings"]
        assert found["problem"] is not None
        with RunReader(experiment.run_path) as run:
            assert "not all settings of 'tank' are in settings-end.json" in run.log_text()


class Silent(Experiment):
    def experiment(self):
        pass
