"""A testbed of two simulated gauges, written to a file, for tests that run it for real."""

from pathlib import Path

import pytest

from catkit_devices.testbed import Testbed, load_configuration

PLUGINS = Path(__file__).parent / "bench_plugins"

_BENCH = """
[testbed]
name = "trial"
plugins = ["{plugins}"]
runs = "{runs}"
simulate = true
stop_timeout = 5

[devices.tank]
driver = "test_gauge"
address = "ASRL1::INSTR"
simulator = "test_gauge"
simulator_options = {{ journal = "{journal}", label = "tank" }}
aliases = ["reservoir"]

[devices.basin]
driver = "test_gauge"
address = "ASRL2::INSTR"
simulator = "test_gauge"
simulator_options = {{ journal = "{journal}", label = "basin" }}
"""

TWO_SERVERS = "devices.basin.server='other'"

WATCHED = """
[safety.tank_level]
device = "reservoir"
property = "level"
minimum = -5
maximum = 5
interval = 0.05
timeout = 5.0
"""


def write_bench(directory, *, watched=False):
    """Write the file of a testbed with two gauges, and the empty journal beside it."""
    (directory / "journal.txt").touch()
    path = directory / "bench.toml"
    text = _BENCH.format(plugins=PLUGINS, journal=directory / "journal.txt", runs=directory / "runs")
    path.write_text(text + WATCHED if watched else text)
    return path


@pytest.fixture(scope="session")
def bench_in():
    """What writes the file of a testbed with two gauges into a directory."""
    return write_bench


@pytest.fixture(scope="module", autouse=True)
def _children_begin_ready(ready_children):
    """How processes are started is shown in ``sharing``."""


@pytest.fixture
def journal(tmp_path):
    """What reached the instruments, one line per command."""
    return tmp_path / "journal.txt"


@pytest.fixture(autouse=True)
def _no_plugins_of_the_user(monkeypatch):
    monkeypatch.delenv("CATKIT_DEVICES_PLUGINS", raising=False)


@pytest.fixture
def bench(tmp_path):
    """The file of a testbed with two gauges."""
    return write_bench(tmp_path)


@pytest.fixture
def watched_bench(tmp_path):
    """The same, with a safety check on the level of the tank."""
    return write_bench(tmp_path, watched=True)


@pytest.fixture(scope="module")
def _module_testbed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(directory / "rt"))
        with Testbed(load_configuration([write_bench(directory)])) as testbed:
            yield testbed, directory / "rt"


@pytest.fixture
def shared_testbed(_module_testbed, runtime, monkeypatch):
    """A running testbed for tests that leave it as it was."""
    testbed, directory = _module_testbed
    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(directory))
    return testbed
