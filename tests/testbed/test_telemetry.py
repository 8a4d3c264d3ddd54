"""What device servers read by themselves: seen by every process, never old without saying so."""

import pickle
import signal
import subprocess
import sys
import time

import pytest

from catkit_devices.errors import ConfigurationError
from catkit_devices.testbed import Testbed, load_configuration
from catkit_devices.testbed.telemetry.history import TRIP, History

RATE = ["devices.tank.telemetry.level=50", "devices.basin.telemetry.level=50"]


def wait_for(condition, timeout=20):
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


@pytest.fixture(scope="module")
def _running(tmp_path_factory, bench_in):
    directory = tmp_path_factory.mktemp("telemetry")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(directory / "rt"))
        with Testbed(load_configuration([bench_in(directory)], [*RATE, "devices.basin.server='other'"])) as testbed:
            yield testbed, directory / "rt"


@pytest.fixture
def testbed(_running, runtime, monkeypatch):
    running, directory = _running
    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(directory))
    return running


def test_what_is_set_is_read_and_published(testbed):
    for value in (1.5, 2.5):
        testbed.devices.tank.level = value
        reading = wait_for(lambda value=value: (now := testbed.telemetry["tank.level"]).value == value and now)
        assert (reading.unit, reading.problem) == (testbed.devices.tank.describe()["properties"]["level"]["unit"], None)
        assert abs(reading.time - time.time()) < 60
    assert testbed.telemetry["reservoir.level"].value == 2.5  # by alias


def test_telemetry_is_read_while_somebody_holds_the_device(testbed):
    with testbed.devices.tank.lock():
        testbed.devices.tank.level = 3.5
        wait_for(lambda: testbed.telemetry["tank.level"].value == 3.5)


def test_another_process_sees_it_without_loading_a_driver(testbed):
    testbed.devices.basin.level = 0.5
    wait_for(lambda: testbed.telemetry["basin.level"].value == 0.5)
    source = (
        "import sys; from catkit_devices import Testbed; "
        "print(Testbed.attach('trial').telemetry['basin.level'].value, 'catkit_devices.drivers' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout
    assert out == "0.5 False\n"


def test_it_is_a_mapping_that_travels(testbed):
    view = pickle.loads(pickle.dumps(testbed.telemetry))
    assert list(view) == ["tank.level", "basin.level"]
    assert len(view) == 2
    assert "reservoir.level" in view
    assert "tank.powr" not in view
    assert wait_for(lambda: view["tank.level"].problem is None)


def test_a_name_that_is_not_declared_is_answered_with_those_that_are(testbed):
    with pytest.raises(
        ConfigurationError, match=r"has no telemetry 'tank.levl', there is tank.level, basin.level.*did"
    ):
        testbed.telemetry["tank.levl"]


def test_the_status_has_it(testbed):
    wait_for(lambda: testbed.status()["telemetry"]["tank.level"]["problem"] is None)


def test_a_device_that_cannot_be_read_has_no_value_and_a_reason(testbed):
    testbed.simulation.disconnect(testbed.layout.device("tank").address)
    try:
        reading = wait_for(lambda: (now := testbed.telemetry["tank.level"]).problem and now)
        assert reading.value is None
        assert "tank" in reading.problem
    finally:
        testbed.simulation.reconnect(testbed.layout.device("tank").address)
    wait_for(lambda: testbed.telemetry["tank.level"].problem is None)


def test_a_value_of_a_server_that_stopped_is_not_shown_any_more(testbed):
    wait_for(lambda: testbed.telemetry["basin.level"].problem is None)
    pid = next(pid for server, pid in pids(testbed) if server.endswith(".other"))
    import os

    os.kill(pid, signal.SIGSTOP)
    try:
        reading = wait_for(lambda: (now := testbed.telemetry["basin.level"]).problem and now)
        assert reading.value is None
        assert reading.problem.startswith("not read for ")
        assert testbed.telemetry["tank.level"].value is not None
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: testbed.telemetry["basin.level"].problem is None)


def pids(testbed):
    return [(server, manager.server.pid) for server, manager in testbed._servers.managers.items()]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("devices.tank.telemetry.levl=1", r"devices.tank.telemetry.levl: device 'tank' has no property 'levl'"),
        ("devices.tank.telemetry.level=0", r"devices.tank.telemetry.level: .*greater than 0"),
        (
            "devices.tank.telemetry.private_level=1",
            r"private_level. of device .tank. is not shared: its readings would wait for who holds the device",
        ),
    ],
)
def test_what_cannot_be_telemetry_is_refused_with_the_configuration(bench, override, problem):
    with pytest.raises(ConfigurationError, match=problem):
        load_configuration([bench], [override])


def test_a_safety_check_judges_what_telemetry_has_read(bench):
    overrides = [
        "devices.tank.telemetry.level=20", "safety.tank_level.telemetry=true", "safety.tank_level.device='tank'",
        "safety.tank_level.property='level'", "safety.tank_level.maximum=5", "safety.tank_level.interval=0.2",
    ]  # fmt: skip
    with Testbed(load_configuration([bench], overrides)) as testbed:
        assert testbed.checks()["tank_level"].problem is None
        testbed.devices.tank.level = 7
        trip = wait_for(lambda: testbed.trip)
        assert "tank.level is 7, expected at most 5" in str(trip)
        with History(testbed.layout.history) as kept:
            ((_, text),) = wait_for(lambda: kept.events(TRIP))
        assert text == str(trip)
        testbed._told = trip  # or leaving would raise it


def test_a_safety_check_fails_when_telemetry_has_no_value(bench):
    overrides = [
        "devices.tank.telemetry.level=20", "safety.tank_level.telemetry=true", "safety.tank_level.device='tank'",
        "safety.tank_level.property='level'", "safety.tank_level.maximum=5", "safety.tank_level.interval=0.2",
    ]  # fmt: skip
    with Testbed(load_configuration([bench], overrides)) as testbed:
        testbed.devices.tank.mode = "nan"
        trip = wait_for(lambda: testbed.trip)
        assert "tank.level could not be read" in str(trip)
        assert "no measurement" in str(trip)
        testbed._told = trip


def test_a_check_of_telemetry_that_is_not_declared_is_refused(bench):
    overrides = [
        "safety.deep.telemetry=true", "safety.deep.device='tank'", "safety.deep.property='level'",
        "safety.deep.maximum=5",
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"safety.deep.telemetry: expected a property that the device's table"):
        load_configuration([bench], overrides)


def test_what_a_testbed_has_measured_is_in_its_history_when_it_has_ended(bench):
    with Testbed(load_configuration([bench], RATE)) as testbed:
        testbed.devices.tank.level, testbed.devices.basin.level = 4.5, 0.5
        wait_for(lambda: testbed.telemetry["tank.level"].value == 4.5)
        wait_for(lambda: testbed.telemetry["basin.level"].value == 0.5)
        path = testbed.layout.history
    with History(path) as kept:
        values = [point.value for point in kept.points("tank.level", 0)]
        assert [value for value in values if value is not None][-1] == 4.5
        assert [one.name for one in kept.quantities()] == ["basin.level", "tank.level"]
