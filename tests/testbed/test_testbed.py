import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catkit_devices.errors import (
    ConfigurationError,
    DeviceDisconnectedError,
    DeviceOpenError,
    DeviceTimeoutError,
    MutexTimeoutError,
    SafetyError,
)
from catkit_devices.multiprocessing import Process
from catkit_devices.simulation import Fault
from catkit_devices.testbed import Experiment, Testbed, load_configuration

PLUGINS = Path(__file__).parent / "bench_plugins"


class ReadsLevel(Experiment):
    def experiment(self):
        return self.devices.reservoir.level


def configuration(bench, *overrides):
    return load_configuration([bench], overrides)


# --- beginning and end ---


def test_devices_open_on_first_use_and_are_made_safe_and_closed_last_first(bench, journal):
    with Testbed(configuration(bench)) as testbed:
        assert [device["state"] for device in testbed.status()["devices"].values()] == ["closed", "closed"]
        testbed.devices.basin.lamp = True
        testbed.devices.tank.lamp = True
        assert [device["state"] for device in testbed.status()["devices"].values()] == ["open", "open"]

    assert journal.read_text().splitlines() == ["basin LAMP 1", "tank LAMP 1", "basin LAMP 0", "tank LAMP 0"]


def test_a_device_opened_by_an_experiment_stays_open_for_the_next_one(bench, journal):
    with Testbed(configuration(bench)) as testbed:
        testbed.run(ReadsLevel())
        assert testbed.status()["devices"]["tank"]["state"] == "open"
        testbed.devices.tank.level = 4
        assert testbed.run(ReadsLevel()) == [4.0]
        assert "LAMP 0" not in journal.read_text()


def test_an_address_where_nothing_answers_is_named_and_the_other_devices_are_closed(bench, journal):
    with Testbed(configuration(bench, "devices.tank.faults={no_reply=1.0}")) as testbed:
        testbed.devices.basin.lamp = True
        with pytest.raises(DeviceOpenError, match=r"device 'tank' \(test_gauge at ASRL1::INSTR\)"):
            testbed.run(ReadsLevel())

    assert journal.read_text().splitlines() == ["basin LAMP 1", "basin LAMP 0"]


def test_an_error_in_the_block_is_raised_after_everything_was_ended(bench, journal):
    def fail():
        with Testbed(configuration(bench)) as testbed:
            testbed.devices.tank.lamp = True
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert journal.read_text().splitlines()[-1] == "tank LAMP 0"


def test_a_device_that_does_not_close_in_time_is_named_and_does_not_delay_the_end(bench, journal):
    sticky = "devices.sticky={driver='test_sticky', close_seconds=1.5}"

    def use():
        with Testbed(configuration(bench, sticky, "testbed.close_timeout=0.2")) as testbed:
            testbed.devices.tank.lamp = True
            testbed.devices.sticky.touch()

    with pytest.raises(DeviceTimeoutError, match=r"device 'sticky' \(test_sticky\): did not close in 0.2 s"):
        use()

    assert journal.read_text().splitlines()[-1] == "tank LAMP 0"


def test_devices_use_each_other_across_servers(bench):
    double = "devices.double={driver='test_reader', uses={gauge='reservoir'}, factor=2.0, server='third'}"

    with Testbed(configuration(bench, double)) as testbed:
        testbed.devices.tank.level = 21
        assert testbed.devices.double.scaled == 42.0


def test_a_device_configured_to_be_open_from_the_start_is_open(bench):
    with Testbed(configuration(bench, "devices.basin.open='start'")) as testbed:
        states = {name: device["state"] for name, device in testbed.status()["devices"].items()}

    assert states == {"tank": "closed", "basin": "open"}


def test_a_device_that_cannot_be_opened_at_the_start_is_named_and_the_others_are_closed(bench, journal):
    silent = "devices.basin.faults={no_reply=1.0}"

    with (
        pytest.raises(DeviceOpenError, match=r"device 'basin' \(test_gauge at ASRL2::INSTR\): nothing answers"),
        Testbed(configuration(bench, "devices.tank.open='start'", "devices.basin.open='start'", silent)),
    ):
        pytest.fail("the testbed started")

    assert journal.read_text().splitlines() == ["tank LAMP 0"]


@pytest.mark.parametrize("servers", [[], ["devices.tank.server='slow'"], ["devices.basin.server='slow'"]])
def test_moving_a_device_to_another_server_is_one_line(bench, servers):
    with Testbed(configuration(bench, *servers)) as testbed:
        testbed.devices.tank.level = 3
        testbed.devices.basin.level = 4
        assert (testbed.devices.tank.level, testbed.devices.basin.level) == (3.0, 4.0)
        assert len(testbed.layout.device_servers) == len(servers) + 1


def test_limits_are_narrowed_by_the_configuration(bench):
    with Testbed(configuration(bench, "devices.tank.limits={level=[0, 10]}")) as testbed:
        testbed.devices.tank.level = 10
        with pytest.raises(ValueError, match="level must be 0 to 10, got 11"):
            testbed.devices.tank.level = 11


def test_a_new_driver_is_one_file_and_one_yaml_dropped_into_a_directory(tmp_path, bench):
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / "acme_thermometer.py").write_text(DRIVER)
    (directory / "acme_thermometer.yaml").write_text(SIMULATOR)
    bench.write_text(BENCH)

    with Testbed(load_configuration([bench])) as testbed:
        thermometer = testbed.devices.thermometer
        thermometer.setpoint = "30 degC"
        assert (thermometer.temperature, thermometer.setpoint) == (21.5, 30.0)
        with pytest.raises(ValueError, match="setpoint must be 10 to 40 degC, got 50"):
            thermometer.setpoint = 50


DRIVER = '''
"""The ACME T1 thermostat."""

from pathlib import Path

from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.visa import VisaDevice


class Thermometer(VisaDevice):
    """A thermostat."""

    temperature = Measurement("TEMP?", unit="degC", doc="Temperature of the bath.", shared=True)
    setpoint = Control("SET?", "SET {:.1f}", unit="degC", limits=(10, 40), doc="Temperature to hold.")


@hookimpl
def catkit_devices_drivers():
    return {"acme_t1": Thermometer}


@hookimpl
def catkit_devices_simulators():
    return {"acme_t1": Path(__file__).with_suffix(".yaml")}
'''
SIMULATOR = r"""
spec: "1.1"
devices:
  thermometer:
    eom:
      ASRL INSTR:
        q: "\n"
        r: "\n"
    dialogues:
      - {q: "*IDN?", r: "ACME,T1,1,1"}
      - {q: "TEMP?", r: "21.5"}
    properties:
      setpoint:
        default: 25.0
        getter: {q: "SET?", r: "{:.1f}"}
        setter: {q: "SET {}"}
        specs: {type: float}
resources:
  ASRL1::INSTR:
    device: thermometer
"""
BENCH = """
[testbed]
simulate = true
plugins = ["mine"]

[devices.thermometer]
driver = "acme_t1"
address = "ASRL1::INSTR"
simulator = "acme_t1"
"""


def test_methods_of_a_testbed_that_does_not_run_say_so(bench):
    with pytest.raises(AttributeError, match=r"this testbed does not run, so it has no devices"):
        _ = Testbed(configuration(bench)).devices


# --- simulation ---

OPTICAL = """
[testbed]
simulate = true

[simulation]
bench = "optical"
clock = "virtual"

[devices.laser]
driver = "thorlabs_mcls1"
address = "ASRL1::INSTR"
simulator = "thorlabs_mcls1"
channel = 1

[devices.meter]
driver = "thorlabs_pm100d"
address = "USB0::0x1313::0x8078::P0000001::INSTR"
simulator = "thorlabs_pm100d"
server = "slow"
"""


def test_instruments_on_several_servers_share_one_bench(tmp_path):
    path = tmp_path / "bench.toml"
    path.write_text(OPTICAL)

    with Testbed(load_configuration([path])) as testbed:
        dark = testbed.devices.meter.power
        testbed.devices.laser.current = 40
        testbed.devices.laser.enabled = True
        assert testbed.devices.meter.power > 10 * abs(dark)
        begun = testbed.simulation.time()
        testbed.simulation.wait(3600)
        assert testbed.simulation.time() - begun >= 3600


def test_faults_strike_as_configured_and_on_demand(bench):
    faults = "devices.basin.faults={no_reply=1.0}"

    with Testbed(configuration(bench, faults)) as testbed:
        with pytest.raises(DeviceOpenError, match="nothing answers"):
            _ = testbed.devices.basin.level
        _ = testbed.devices.tank.level
        testbed.simulation.inject("ASRL1::INSTR", Fault("no_reply"))
        with pytest.raises(DeviceTimeoutError, match="no reply in 0.3 s"):
            _ = testbed.devices.tank.level


def test_a_lost_connection_is_shown_by_status_and_devices(bench):
    with Testbed(configuration(bench)) as testbed:
        tank = testbed.devices.tank
        tank.level = 5
        testbed.simulation.disconnect("ASRL1::INSTR")
        with pytest.raises(DeviceDisconnectedError):
            _ = tank.level
        assert tank.state == "lost"
        assert testbed.status()["devices"]["tank"]["state"] == "lost"
        for command in ("status", "devices"):
            shown = subprocess.run(
                [sys.executable, "-m", "catkit_devices", command], check=True, capture_output=True, text=True
            ).stdout
            assert "lost" in next(line for line in shown.splitlines() if "tank" in line)
        testbed.simulation.reconnect("ASRL1::INSTR")
        assert tank.level == 5
        assert testbed.status()["devices"]["tank"]["state"] == "open"


def test_the_bytes_on_all_wires_are_recorded_and_replayed(bench, tmp_path):
    record = f"testbed.record='{tmp_path / 'recordings'}'"
    with Testbed(configuration(bench, record)) as testbed:
        testbed.devices.tank.level = 5
        assert testbed.devices.tank.level == 5.0

    (tmp_path / "replay.toml").write_text(REPLAY.format(plugins=PLUGINS))
    with Testbed(load_configuration([tmp_path / "replay.toml"])) as testbed:
        testbed.devices.tank.level = 5
        assert testbed.devices.tank.level == 5.0


REPLAY = """
[testbed]
simulate = true
plugins = ["{plugins}"]

[devices.tank]
driver = "test_gauge"
address = "ASRL1::INSTR"
simulator = "recordings/tank.wire"
"""


def test_real_instruments_have_no_simulation(bench):
    with Testbed(configuration(bench), simulate=False) as testbed:
        assert testbed.status()["simulated"] is False
        with pytest.raises(ConfigurationError, match="the instruments of testbed 'trial' are not simulated"):
            _ = testbed.simulation


# --- plugins ---


def test_the_classes_of_a_plugin_can_be_unpickled_in_every_process(bench):
    with Testbed(configuration(bench)) as testbed:
        from catkit_devices.plugins.gauge import Level, ReadsGauge

        assert testbed.run(ReadsGauge(expected=Level(0.0))) == [Level(0.0)]


# --- notifications ---


def teller(directory):
    """A plugin that writes down what it is told; return the file, and the setting that brings the plugin in."""
    told = directory / "told"
    (directory / "mine").mkdir()
    # A module is imported once in the life of a process, so each test has one of its own.
    (directory / "mine" / f"teller_{os.urandom(4).hex()}.py").write_text(TELLER.format(told=str(told)))
    return told, f"testbed.plugins=['{directory / 'mine'}', '{PLUGINS}']"


def test_plugins_are_told_what_happens(tmp_path, bench, until):
    told, plugins = teller(tmp_path)
    check = "safety.level={device='tank', property='level', maximum=5, interval=0.05}"

    def use():
        with Testbed(configuration(bench, plugins, check)) as testbed:
            testbed.run(ReadsLevel())
            with testbed.lock("basin"):
                testbed.run(Gives())
            testbed.devices.tank.level = 7
            until(testbed.safety_event.is_set)

    with pytest.raises(SafetyError):
        use()

    lines = told.read_text().splitlines()
    # It is another process that tells of this: when that arrives is not said.
    assert lines.index("timed out basin") > lines.index("started Gives")
    lines.remove("timed out basin")
    assert lines == [
        "opened tank test_gauge ASRL1::INSTR",
        "started ReadsLevel",
        "finished None",
        "started Gives",
        "finished None",
        "tripped level: tank.level is 7, expected at most 5",
        "closed tank test_gauge ASRL1::INSTR",
    ]


class Stays(Experiment):
    def experiment(self):
        time.sleep(60)


class Floods(Experiment):
    """Brings about a trip, and stays."""

    def experiment(self):
        self.devices.tank.level = 7
        time.sleep(60)


def run_floods():
    with Testbed.attach("trial") as testbed, pytest.raises(SafetyError):
        testbed.run(Floods())


@pytest.mark.parametrize("attached", [False, True])
def test_plugins_are_told_of_a_trip_before_the_experiment_that_it_ended_and_why_that_ended(
    tmp_path, bench, attached, until
):
    told, plugins = teller(tmp_path)
    check = "safety.level={device='tank', property='level', maximum=5, interval=0.05}"
    tripped = "tripped level: tank.level is 7, expected at most 5"

    with pytest.raises(SafetyError), Testbed(configuration(bench, plugins, check)) as testbed:
        if attached:
            process = Process(target=run_floods)
            process.start()
            process.join(30)
        else:
            testbed.run(Floods())
    assert [line for line in told.read_text().splitlines() if line.partition(" ")[0] in {"tripped", "finished"}] == [
        tripped, "finished safety check 'level': tank.level is 7, expected at most 5"
    ]  # fmt: skip


def test_plugins_are_told_why_an_experiment_was_stopped(tmp_path, bench):
    told, plugins = teller(tmp_path)

    with Testbed(configuration(bench, plugins)) as testbed:
        testbed.run(Stays(), on_tick=lambda: testbed.stop(reason="enough"))
    assert told.read_text().splitlines()[-1] == "finished enough"


class Gives(Experiment):
    """Gives up when it does not get a device."""

    def experiment(self):
        try:
            with self.lock("basin", timeout=0.05):
                pass
        except MutexTimeoutError:
            pass


TELLER = """
from catkit_devices.hookspecs import hookimpl

def tell(text):
    with open({told!r}, "a") as file:
        file.write(text + "\\n")

@hookimpl
def experiment_started(experiment):
    tell("started " + experiment)
    raise ValueError("what one raises disturbs nobody")

@hookimpl
def experiment_finished(error):
    tell("finished " + str(error))

@hookimpl
def device_opened(device, driver, address):
    tell("opened " + device + " " + driver + " " + address)

@hookimpl
def device_closed(device, driver, address):
    tell("closed " + device + " " + driver + " " + address)

@hookimpl
def mutex_timeout(mutex):
    tell("timed out " + mutex)

@hookimpl
def safety_tripped(problem, check):
    tell("tripped " + check + ": " + problem)
"""
