from pathlib import Path

import pytest

from catkit_devices.errors import DeviceOpenError, DeviceTimeoutError, SafetyError, ServerNotFoundError
from catkit_devices.multiprocessing import Process
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
    bench.write_text(bench.read_text().replace('simulator = "test_gauge"\n', "", 1))

    with Testbed(configuration(bench)) as testbed:
        testbed.devices.basin.lamp = True
        with pytest.raises(DeviceOpenError, match=r"device 'tank' \(test_gauge at ASRL1::INSTR\)"):
            testbed.run(ReadsLevel())

    assert journal.read_text().splitlines() == ["basin LAMP 1", "basin LAMP 0"]


def test_an_error_in_the_block_goes_through_after_everything_was_ended(bench, journal):
    def fail():
        with Testbed(configuration(bench)) as testbed:
            testbed.devices.tank.lamp = True
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert journal.read_text().splitlines()[-1] == "tank LAMP 0"


def test_a_device_that_does_not_close_in_time_is_named_and_keeps_nobody_waiting(bench, journal):
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


def test_a_testbed_that_does_not_run_says_so(bench):
    with pytest.raises(AttributeError, match=r"this testbed does not run, so it has no devices"):
        _ = Testbed(configuration(bench)).devices


# --- several processes, several testbeds ---


def level_from_elsewhere(name):
    with Testbed.attach(name) as testbed:
        with testbed.lock("tank"):
            testbed.devices.tank.level = 3
        return testbed.devices.reservoir.level, testbed.status()["name"]


def test_another_process_attaches_by_name(bench):
    with Testbed(configuration(bench)) as testbed:
        process = Process(target=level_from_elsewhere, args=("trial",))
        process.start()
        assert process.result == (3.0, "trial")
        assert testbed.devices.tank.level == 3.0


def test_attaching_to_what_does_not_run_names_what_does(bench):
    with (
        Testbed(configuration(bench)),
        pytest.raises(ServerNotFoundError, match=r"no testbed named 'trail' is running .*did you mean 'trial'\?"),
    ):
        Testbed.attach("trail")


def test_two_testbeds_of_one_name_do_not_interfere(bench, tmp_path):
    with Testbed(configuration(bench)) as one, Testbed(configuration(bench, "testbed.runs='x'"), runs=tmp_path) as two:
        one.devices.tank.level = 1
        two.devices.tank.level = 2
        assert one.run(ReadsLevel()) == [1.0]
        assert two.run(ReadsLevel()) == [2.0]
        with pytest.raises(ServerNotFoundError, match=r"several testbeds named 'trial' are running, say which"):
            Testbed.attach("trial")
        with Testbed.attach(two.layout.server) as attached:
            assert attached.devices.tank.level == 2.0


# --- notifications ---


def test_plugins_are_told_what_happens(tmp_path, bench, until):
    told = tmp_path / "told"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "teller_of_tales.py").write_text(TELLER.format(told=str(told)))
    plugins = f"testbed.plugins=['{tmp_path / 'mine'}', '{PLUGINS}']"
    check = "safety.level={device='tank', property='level', maximum=5, interval=0.05}"

    def use():
        with Testbed(configuration(bench, plugins, check)) as testbed:
            testbed.run(ReadsLevel())
            testbed.devices.tank.level = 7
            until(testbed.safety_event.is_set)

    with pytest.raises(SafetyError):
        use()

    assert told.read_text().splitlines() == [
        "started ReadsLevel", "finished None", "tripped level: tank.level is 7, expected at most 5"
    ]  # fmt: skip


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
def safety_tripped(problem, check):
    tell("tripped " + check + ": " + problem)
"""
