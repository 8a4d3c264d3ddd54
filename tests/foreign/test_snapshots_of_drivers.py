"""What the framework of a foreign driver knows of its instrument is in the record of each run."""

from pathlib import Path

import pytest

from catkit_devices.datalog import RunReader
from catkit_devices.testbed import Experiment, Testbed, load_configuration

pytestmark = pytest.mark.usefixtures("ready_children")

PLUGINS = Path(__file__).parent / "foreign_plugins"


class UsesTwo(Experiment):
    """Leaves one toy open, and closes the other."""

    def experiment(self):
        self.devices.open.count = 3
        self.devices.closed.count = 7
        self.devices.closed.close(force=True)


class FailsWithOneThatHasNoSnapshot(Experiment):
    def experiment(self):
        self.devices.broken.count = -1
        raise ZeroDivisionError


def snapshots(experiment):
    with RunReader(experiment.run_path) as run:
        found = {tag.tag: [one.value for one in run.values(tag.tag)] for tag in run.tags("value")}
        return found, run.log_text()


def test_snapshots_of_foreign_drivers_are_in_the_record_of_a_run(tmp_path):
    path = tmp_path / "toys.toml"
    tables = "".join(f'[devices.{name}]\ndriver = "toys:any"\nsafe = "nothing"\n' for name in NAMES)
    path.write_text(f'[testbed]\nname = "toys"\nplugins = ["{PLUGINS}"]\n{tables}')
    first, second = UsesTwo(), FailsWithOneThatHasNoSnapshot()
    with Testbed(load_configuration([path]), runs=tmp_path) as testbed:
        testbed.run(first)
        with pytest.raises(ZeroDivisionError):
            testbed.run(second)

    found, _log = snapshots(first)
    (end,) = found.pop("snapshot.end")
    assert 0 <= end["closed"].pop("closed") < 60
    assert end == {"open": {"driver": {"count": 3}}, "closed": {"driver": {"count": 7}}}
    assert found == {}, "nothing was open when it began"

    found, log = snapshots(second)
    assert found == {"snapshot.start": [{"open": {"driver": {"count": 3}}}],
                     "snapshot.end": [{"open": {"driver": {"count": 3}}}]}, "closed before it began"  # fmt: skip
    with RunReader(second.run_path) as run:
        asked = run.settings["start"]["devices"]["open"]
    assert (asked["settings"], asked["not_read"]) == ({}, {}), "its properties are not read for the settings of the run"
    assert "a driver of another framework" in asked["problem"]
    assert "the snapshot of device 'broken' is not in the record of the run: a toy that counts backwards" in log


NAMES = ("open", "closed", "broken", "unused")
