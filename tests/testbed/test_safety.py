"""Whatever goes wrong with the checks or with those who watch: devices safe, writes refused, experiments ended."""

import os
import signal
import threading
import time
from multiprocessing import active_children
from pathlib import Path

import psutil
import pytest

from catkit_devices.datalog import RunReader
from catkit_devices.errors import CatkitDevicesError, MutexBrokenError, ProcessDiedError, SafetyError
from catkit_devices.testbed import Experiment, Testbed, load_configuration
from catkit_devices.testbed.watch import SafetyWatch

TWO_SERVERS = "devices.basin.server='other'"
QUICK = "testbed.permit_timeout=1.5"
SOON = 5.0
"""Seconds; a tenth of a second where the machine has nothing else to do. The guarantee is 1 s."""
TOLERANT = "safety.tank_level.max_consecutive_failures=3"


def seconds_until_dark(journal, lamp, since):
    """Return how many seconds after a moment a lamp went out for good."""
    lines = [line.split() for line in journal.with_suffix(".times").read_text().splitlines()]
    switched = [(float(when), value) for when, label, word, value in lines if (label, word) == (lamp, "LAMP")]
    assert any(value == "1" for _, value in switched)
    assert switched[-1][1] == "0"
    return next(when for when, value in switched if value == "0" and when > since - 5.0) - since


def child(name):
    (process,) = [child for child in active_children() if child.name == name or f"{name}'" in child.name]
    return psutil.Process(process.pid)


class Lights(Experiment):
    """Lights both lamps, makes the check fail in one way or another, and stays."""

    level: float = 0.0
    mode: str = "fine"
    way: str = "sleep"
    mark: Path

    def experiment(self):
        self.devices.basin.lamp = True
        with self.lock("tank"):
            self.devices.tank.lamp = True
            self.mark.write_text("lit ")
            self.devices.tank.mode = self.mode
            self.devices.tank.level = self.level
            if self.way == "compute":
                sum(range(10**11))  # one instruction of the interpreter, which nothing interrupts
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    if self.way != "cling":
                        raise

    def teardown(self):
        with self.mark.open("a") as file:
            file.write("torn down")


class Tripped:
    """A testbed on which an experiment lights both lamps, and which trips meanwhile."""

    def __init__(self, bench, journal, mark, *overrides, act=lambda testbed: None, **parameters):
        self.journal = journal
        self.act = act
        self.acted = None
        self.mark = mark
        self.testbed = Testbed(load_configuration([bench], overrides))
        self.experiment = Lights(mark=mark, **parameters)

    def __enter__(self):
        self.testbed.__enter__()
        try:
            with pytest.raises(SafetyError) as caught:
                self.testbed.run(self.experiment, on_tick=self.on_tick)
        except BaseException as error:
            self.testbed.__exit__(type(error), error, None)
            raise
        self.ended = time.time()
        self.error = caught.value
        return self

    def __exit__(self, *error):
        return self.testbed.__exit__(*error)

    def on_tick(self):
        if self.acted is None and self.mark.exists():
            self.act(self.testbed)
            self.acted = time.time()

    def assert_it_failed_closed(self, *, message, alive=("tank", "basin"), rescued=()):
        testbed = self.testbed
        assert message in str(self.error)
        assert testbed.safety_event.is_set()
        for device in ("tank", "basin"):
            took = seconds_until_dark(self.journal, device, self.error.detected)
            print(f"{device} dark {took:.3f} s after the detection")
            assert took < (2 * SOON if device in rescued else SOON)
        for name in alive:
            device = testbed.devices[name]
            with pytest.raises(SafetyError, match="'lamp' of device '.*' is refused until the safety is reset"):
                device.lamp = True
            assert device.lamp is False
        with pytest.raises(SafetyError):
            testbed.run(Lights(mark=self.mark))
        (progress,) = testbed.progress()
        assert progress.state in {"stopped", "failed"}
        assert not psutil.pid_exists(progress.pid) or psutil.Process(progress.pid).status() == "zombie"


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "mark"


# --- what is read ---


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"level": 50.0}, "safety check 'tank_level': tank.level is 50, expected -5 to 5"),
        ({"mode": "nan"}, "safety check 'tank_level': tank.level is nan, which is no measurement, expected -5 to 5"),
        ({"mode": "silent"}, "tank.level could not be read, expected a value -5 to 5: DeviceTimeoutError"),
    ],
)
def test_a_value_that_is_not_safe_trips(watched_bench, journal, mark, how, message):
    with Tripped(watched_bench, journal, mark, **how) as tripped:
        tripped.assert_it_failed_closed(message=message)
        assert mark.read_text() == "lit torn down"
        (progress,) = tripped.testbed.progress()
        with RunReader(progress.run) as run:
            assert message in run.log_text()
            assert [event.kind for event in run.events()].count("safety_tripped") == 1
            assert message in run.outcome["detail"]


def test_more_failures_in_a_row_than_are_tolerated_trip(watched_bench, journal, mark):
    with Tripped(watched_bench, journal, mark, TWO_SERVERS, TOLERANT, level=50.0) as tripped:
        tripped.assert_it_failed_closed(message="tank.level is 50, expected -5 to 5, 4 times in a row")


def test_a_stale_value_trips(watched_bench, journal, mark):
    stamp = ["safety.tank_level.timestamp='measured'", "safety.tank_level.max_age=0.4"]

    with Tripped(watched_bench, journal, mark, *stamp, mode="stale") as tripped:
        tripped.assert_it_failed_closed(message="tank.level is old: its 'measured' is ")


def test_a_reading_that_hangs_trips(watched_bench, journal, mark):
    hanging = ["safety.tank_level.property='slow_level'", "safety.tank_level.timeout=0.4"]

    with Tripped(watched_bench, journal, mark, *hanging, level=1.5) as tripped:
        tripped.assert_it_failed_closed(message="tank.slow_level did not answer in 0.4 s, expected a value -5 to 5")


def test_a_reading_that_hangs_trips_however_busy_another_check_is(watched_bench, journal, mark):
    """The other one has something to say all the time."""
    hanging = ["safety.tank_level.property='slow_level'", "safety.tank_level.timeout=0.4"]
    busy = ["device='basin'", "property='level'", "minimum=-5", "interval=0.001"]
    more = [f"safety.basin_level.{setting}" for setting in busy]

    with Tripped(watched_bench, journal, mark, *hanging, *more, level=1.5) as tripped:
        tripped.assert_it_failed_closed(message="tank.slow_level did not answer in 0.4 s, expected a value -5 to 5")


@pytest.mark.parametrize(
    "check", ["device='tank', property='level', minimum=-5", "test='total_level', devices=['tank'], limit=1000"]
)
def test_an_overload_trips_a_check_that_has_one_limit(bench, journal, mark, check):
    check = f"safety.one={{{check}, interval=0.05, timeout=5.0}}"

    with Tripped(bench, journal, mark, check, mode="overload") as tripped:
        tripped.assert_it_failed_closed(message="inf, which is no measurement")
        state = tripped.testbed.status()["safety"]["checks"]["one"]
        assert state["value"] is None
        assert "which is no measurement" in state["problem"]


def test_a_test_of_a_plugins_own_kind_trips(bench, journal, mark):
    check = "safety.flood={test='total_level', devices=['tank', 'basin'], limit=8, interval=0.05}"

    with Tripped(bench, journal, mark, check, level=9.0) as tripped:
        tripped.assert_it_failed_closed(message="safety check 'flood': 9 in all, expected at most 8")


# --- who watches ---


def test_a_killed_monitor_trips(watched_bench, journal, mark):
    def act(testbed):
        child("safety monitor").kill()

    with Tripped(watched_bench, journal, mark, act=act) as tripped:
        tripped.assert_it_failed_closed(message="the safety monitor died: process 'safety monitor'")
        assert tripped.error.detected - tripped.acted < SOON


def test_a_stopped_monitor_trips(watched_bench, journal, mark):
    def act(testbed):
        child("safety monitor").suspend()

    with Tripped(watched_bench, journal, mark, QUICK, act=act) as tripped:
        tripped.assert_it_failed_closed(message="the safety monitor has not renewed it for 1.5 s")
        assert tripped.error.detected - tripped.acted < 6.0


def test_a_trip_is_reported_however_late_its_testbed_notices_it(watched_bench, journal, mark, monkeypatch):
    looks = SafetyWatch.look

    def late(watch):
        time.sleep(2)  # as where this process is not run for so long
        looks(watch)

    def act(testbed):
        child("safety monitor").suspend()
        monkeypatch.setattr(SafetyWatch, "look", late)

    with Tripped(watched_bench, journal, mark, QUICK, act=act) as tripped:
        tripped.assert_it_failed_closed(message="safety check 'permit': the safety monitor has not renewed it")


def test_a_killed_device_server_trips_and_its_devices_are_made_safe_by_another_process(watched_bench, journal, mark):
    def act(testbed):
        child(f"{testbed.layout.server}.devices").kill()

    with Tripped(watched_bench, journal, mark, TWO_SERVERS, act=act) as tripped:
        # Several notice it, and the first one says so: it "died", or it "is lost".
        message = "safety check 'server': device server 'trial"
        tripped.assert_it_failed_closed(message=message, alive=["basin"], rescued=["tank"])
        assert tripped.error.detected - tripped.acted < SOON
        with pytest.raises(SafetyError, match="died: end this testbed and start another"):
            tripped.testbed.reset_safety()


def test_a_killed_server_of_the_testbed_itself_trips(watched_bench, journal, mark):
    """It has what the processes tell each other; the device servers do without it what must be done."""

    def act(testbed):
        psutil.Process(testbed.manager.pid).kill()

    with Tripped(watched_bench, journal, mark, act=act) as tripped:
        # It died, or is lost: this depends on who notices it first.
        assert "the testbed's server " in str(tripped.error)
        for device in ("tank", "basin"):
            assert seconds_until_dark(journal, device, tripped.error.detected) < SOON


def test_without_checks_a_killed_device_server_is_reported_and_its_devices_are_made_safe(bench, journal, until):
    with Testbed(load_configuration([bench], [TWO_SERVERS])) as testbed:
        testbed.devices.basin.lamp = True
        child(f"{testbed.layout.server}.other").kill()
        until(lambda: "basin LAMP 0" in journal.read_text(), timeout=20)
        until(lambda: any("other' died" in message["text"] for message in testbed.status()["messages"]))
        assert testbed.trip is None
        testbed.devices.tank.lamp = True  # the others go on
        with pytest.raises(CatkitDevicesError):
            testbed.devices.basin.lamp = True


def test_a_stopped_device_server_trips(watched_bench, journal, mark, until):
    def act(testbed):
        child(f"{testbed.layout.server}.other").suspend()

    with Tripped(watched_bench, journal, mark, TWO_SERVERS, QUICK, act=act) as tripped:
        assert "other' has not answered for 1.5 s" in str(tripped.error)
        assert seconds_until_dark(journal, "tank", tripped.error.detected) < SOON
        # It stays silent, so it is killed, and what it had open is made safe by another process.
        until(lambda: "basin LAMP 0" in journal.read_text(), timeout=20)
        with pytest.raises(CatkitDevicesError):
            tripped.testbed.devices.basin.lamp = True


def test_devices_of_a_stopped_device_server_are_made_safe_even_if_the_testbed_ends_at_once(
    watched_bench, journal, mark
):
    def act(testbed):
        child(f"{testbed.layout.server}.other").suspend()

    with Tripped(watched_bench, journal, mark, TWO_SERVERS, QUICK, act=act):
        pass
    lamps = [line for line in journal.read_text().splitlines() if line.startswith("basin LAMP")]
    assert lamps[-1] == "basin LAMP 0"


# --- experiments that do not end ---


@pytest.mark.parametrize("way", ["cling", "compute"])
def test_an_experiment_that_holds_the_device_and_ignores_signals_is_killed(watched_bench, journal, mark, way):
    with Tripped(watched_bench, journal, mark, "testbed.stop_timeout=0.3", level=50.0, way=way) as tripped:
        tripped.assert_it_failed_closed(message="tank.level is 50, expected -5 to 5")
        (progress,) = tripped.testbed.progress()
        assert progress.message.endswith("it had to be ended by force")
        assert tripped.ended - tripped.error.detected < 12.0


class Insists(Experiment):
    """Goes on with its section after the trip."""

    def experiment(self):
        refused, told_to_stop = [], False
        with self.lock("tank"):
            self.devices.tank.level = 50
            while len(refused) < 2 or not told_to_stop:
                try:
                    try:
                        time.sleep(0.05)
                        self.devices.tank.lamp = True
                    except (MutexBrokenError, SafetyError) as error:
                        refused.append(str(error))
                except BaseException:  # once, wherever it strikes
                    told_to_stop = True
        raise ValueError("; ".join(refused))


def test_a_section_is_broken_by_a_trip_and_the_error_names_check_value_and_limit(watched_bench, journal):
    with Testbed(load_configuration([watched_bench])) as testbed:
        with pytest.raises(SafetyError) as caught:
            testbed.run(Insists())
        holder = testbed.devices.tank.mutex.holder

    assert holder is None
    assert any("'tank' was taken from this owner: safety check 'tank_level': tank.level is 50" in note
               for note in caught.value.__notes__)  # fmt: skip


# --- at the start ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("level=50.0", r"safety check 'tank_level': tank.level is 50, expected -5 to 5"),
        ("level='high'", r"tank.level could not be read, expected a value -5 to 5: .*"),
    ],
)
def test_a_check_that_fails_at_the_start_prevents_every_experiment(watched_bench, journal, options, message):
    overrides = [f"devices.tank.simulator_options={{journal='{journal}', label='tank', {options}}}"]

    with (
        pytest.raises(SafetyError, match=message),
        Testbed(load_configuration([watched_bench], overrides)),
    ):
        pytest.fail("the testbed started")

    assert "tank LAMP 0" in journal.read_text()


def test_nothing_can_be_changed_before_every_check_has_passed(watched_bench, until, runtime):
    slow = ["safety.tank_level.property='slow_level'", "devices.tank.simulator_options.level=1.0"]
    refused = []

    class Watching(Testbed):
        def _publish(self, layout):
            super()._publish(layout)
            try:
                self.devices.basin.lamp = True
            except SafetyError as error:
                refused.append(str(error))

    with Watching(load_configuration([watched_bench], slow)) as testbed:
        testbed.devices.basin.lamp = True

    assert refused == ["safety check 'permit': not given yet: 'lamp' of device 'basin' is refused"]


# --- after a trip ---


def test_changes_are_allowed_again_after_a_reset_and_not_before(watched_bench, until):
    with Testbed(load_configuration([watched_bench])) as testbed:
        with pytest.raises(CatkitDevicesError, match="has not tripped: there is nothing to reset"):
            testbed.reset_safety()
        testbed.devices.tank.level = 7
        until(lambda: testbed.trip)
        assert testbed.status()["state"] == "tripped"
        with pytest.raises(SafetyError, match="tank.level is 7, expected -5 to 5; the safety is not reset"):
            testbed.reset_safety("without looking")
        assert testbed.trip is not None
        testbed.simulation.evaluate(fill, 3.0)

        testbed.reset_safety("drained")
        testbed.devices.basin.lamp = True
        assert testbed.run(Reads()) == [3.0]

        assert (testbed.trip, testbed.safety_event.is_set(), testbed.status()["state"]) == (None, False, "running")
        testbed.devices.tank.level = 8
        until(lambda: testbed.trip)
        with pytest.raises(SafetyError, match="tank.level is 8"):
            testbed.run(Reads())


def test_a_reset_reads_a_check_whose_device_is_closed_and_opens_it_for_that(watched_bench, until):
    with Testbed(load_configuration([watched_bench])) as testbed:
        testbed.devices.tank.level = 7
        until(lambda: testbed.trip)
        testbed.devices.tank.close(force=True)
        testbed.simulation.evaluate(fill, 3.0)
        for attempt in (testbed.devices.tank.open, lambda: testbed.devices.tank.level):
            with pytest.raises(SafetyError, match="of device 'tank', which is not open, is refused until"):
                attempt()

        testbed.reset_safety("drained")

        assert testbed.devices.tank.is_open
        testbed.devices.tank.lamp = True


def test_a_device_that_is_not_known_to_be_safe_is_in_the_status_until_it_is(watched_bench, until):
    with Testbed(load_configuration([watched_bench])) as testbed:
        testbed.devices.basin.lamp = True
        testbed.simulation.disconnect("ASRL2::INSTR")
        testbed.devices.tank.level = 7
        until(lambda: testbed.status()["safety"]["not_safe"], timeout=60.0)
        assert "could not be made safe" in testbed.status()["safety"]["not_safe"]["basin"]

        testbed.simulation.reconnect("ASRL2::INSTR")

        until(lambda: not testbed.status()["safety"]["not_safe"], timeout=60.0)
        assert testbed.devices.basin.state == "fault"
        testbed.devices.basin.reset()
        testbed.simulation.evaluate(fill, 3.0)
        testbed.reset_safety("plugged in")
        assert testbed.devices.basin.lamp is False


def test_a_trip_is_acted_on_though_the_testbeds_process_can_start_no_thread(watched_bench, journal, until):
    with Testbed(load_configuration([watched_bench])) as testbed:
        testbed.devices.basin.lamp = True
        threading.stack_size(1 << 46)  # bytes: more than there is address space
        try:
            testbed.devices.tank.level = 7
            until(lambda: testbed.trip)
            testbed._watch.wait_until_safe()
        finally:
            threading.stack_size(0)
        assert "basin LAMP 0" in journal.read_text()
        with pytest.raises(SafetyError):
            testbed.devices.basin.lamp = True
        testbed.simulation.evaluate(fill, 3.0)
        testbed.reset_safety("again as it was")  # which needs the watch to be alive
        testbed.devices.tank.level = 8
        until(lambda: testbed.trip)
        testbed.simulation.evaluate(fill, 3.0)
        testbed.reset_safety()


def test_after_a_trip_the_checks_are_still_read_and_shown(watched_bench, until):
    def shown(testbed):
        check = testbed.status()["safety"]["checks"]["tank_level"]
        return check["value"], check["problem"]

    with Testbed(load_configuration([watched_bench])) as testbed:
        testbed.devices.tank.level = 7
        until(lambda: testbed.trip)

        testbed.simulation.evaluate(fill, 8.0)
        until(lambda: shown(testbed) == (8.0, "tank.level is 8, expected -5 to 5"))
        with pytest.raises(SafetyError, match="tank.level is 8"):
            testbed.reset_safety()
        testbed.simulation.evaluate(fill, 3.0)
        until(lambda: shown(testbed) == (3.0, None))
        assert testbed.status()["state"] == "tripped"
        with pytest.raises(SafetyError, match="is refused until the safety is reset"):
            testbed.devices.basin.lamp = True

        testbed.reset_safety()
        until(lambda: shown(testbed) == (3.0, None))


def test_after_the_safety_monitor_was_killed_the_checks_are_still_read_and_shown(watched_bench, until):
    with Testbed(load_configuration([watched_bench])) as testbed:
        child("safety monitor").kill()
        until(lambda: testbed.trip)
        read = testbed.checks()["tank_level"].time
        until(lambda: testbed.checks()["tank_level"].time > read)
        testbed.reset_safety()


def fill(library, level):
    library.instrument("ASRL1::INSTR")._values["LEVEL"] = str(level)


def test_a_trip_while_nothing_runs_is_raised_at_the_end(watched_bench, until):
    def spoil():
        with Testbed(load_configuration([watched_bench])) as testbed:
            testbed.devices.tank.level = 7
            until(testbed.safety_event.is_set)

    with pytest.raises(SafetyError, match=r"tank.level is 7, expected -5 to 5"):
        spoil()


# --- what is no trip ---


class Dies(Experiment):
    def experiment(self):
        _ = self.devices.tank.level
        os.kill(os.getpid(), signal.SIGKILL)


class Reads(Experiment):
    def experiment(self):
        time.sleep(0.2)
        return self.devices.tank.level


class Spoiled(Experiment):
    def experiment(self):
        self.devices.tank.mode = "nan"
        time.sleep(0.4)
        self.devices.tank.mode = "fine"


class Pauses(Experiment):
    """Has an operation that takes longer than a reading may."""

    def experiment(self):
        with self.lock("tank"):
            self.devices.tank.pause(3.0)
        return self.devices.tank.level


def test_an_operation_that_waits_does_not_trip_its_own_check(watched_bench):
    with Testbed(load_configuration([watched_bench], ["safety.tank_level.timeout=1.0"])) as testbed:
        assert testbed.run(Pauses()) == [0.0]
        assert testbed.trip is None


def test_neither_an_experiment_that_dies_nor_failures_that_are_tolerated_nor_a_slow_monitor_trip(watched_bench):
    overrides = ["safety.tank_level.max_consecutive_failures=1000", "testbed.permit_timeout=3.0"]

    with Testbed(load_configuration([watched_bench], overrides)) as testbed:
        with pytest.raises(ProcessDiedError, match="was killed by SIGKILL"):
            testbed.run(Dies())
        testbed.run(Spoiled())
        monitor = child("safety monitor")
        monitor.suspend()
        suspended = time.time()
        testbed.run(Reads(), on_tick=lambda: monitor.resume() if time.time() > suspended + 1.0 else None)
        monitor.resume()
        assert testbed.run(Reads()) == [0.0]
        assert testbed.trip is None
        spoiled = testbed.progress()[1]

    with RunReader(spoiled.run) as run:
        assert (
            "safety check 'tank_level': tank.level is nan, which is no measurement, expected -5 to 5" in run.log_text()
        )
        assert [event.kind for event in run.events()].count("safety_failure") == 1
