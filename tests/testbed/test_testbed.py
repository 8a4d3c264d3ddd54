import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
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


# --- Ctrl-C ---

SCRIPT = """
import sys, time
from catkit_devices.testbed import Experiment, Testbed, load_configuration

class Lights(Experiment):
    def experiment(self):
        self.devices.tank.lamp = True
        with self.lock("basin"):
            self.devices.basin.lamp = True
            for _ in self.track(iter(int, 1)):
                self.devices.basin.level = 1
                {loop}
    def teardown(self):
        time.sleep(0.2)
        print("torn down", flush=True)

with Testbed(load_configuration([sys.argv[1]], sys.argv[2:])) as testbed:
    testbed.run(Lights())
"""


def start_script(bench, *overrides, loop="pass"):
    script = bench.with_name("script.py")
    script.write_text(SCRIPT.format(loop=textwrap.indent(textwrap.dedent(loop), " " * 16).strip()))
    # A session of its own: SIGINT to its process group is what a terminal sends on Ctrl-C.
    return subprocess.Popen(
        [sys.executable, str(script), str(bench), *overrides],
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run_until_lit(bench, journal, until, *overrides, loop="pass"):
    process = start_script(bench, *overrides, loop=loop)
    until(lambda: "basin LEVEL" in journal.read_text() or process.poll() is not None)
    return process


def of_session(session):
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


CHECK = "safety.level={device='tank', property='level', maximum=5, interval=0.1}"


@pytest.mark.parametrize("overrides", [(), (CHECK,)])
def test_ctrl_c_ends_everything_in_order(bench, journal, until, runtime, overrides):
    process = run_until_lit(bench, journal, until, *overrides)

    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)

    assert out == "torn down\n"
    assert err.rstrip().endswith("KeyboardInterrupt: ") or err.rstrip().endswith("KeyboardInterrupt")
    assert "SafetyError" not in err
    assert process.returncode == -signal.SIGINT
    lines = journal.read_text().splitlines()
    assert lines[-2:] == ["basin LAMP 0", "tank LAMP 0"]
    until(lambda: not of_session(process.pid))
    assert not [path for path in runtime.iterdir() if path.suffix in {".json", ".sock"}]


def test_ctrl_c_ends_an_experiment_that_ignores_it(bench, journal, until):
    loop = """
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
    """
    process = run_until_lit(bench, journal, until, "testbed.stop_timeout=0.3", loop=loop)

    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)

    assert process.returncode == -signal.SIGINT
    assert {"basin LAMP 0", "tank LAMP 0"} <= set(journal.read_text().splitlines())
    until(lambda: not of_session(process.pid))


def test_ctrl_c_at_any_moment_leaves_nothing_behind(bench, journal, until, runtime, rounds):
    chance = random.Random(7)
    for _ in range(rounds(4, soak=100)):
        process = start_script(bench, CHECK)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.3, 2.5))

        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)

        assert process.returncode == -signal.SIGINT, err
        assert err.rstrip().endswith("KeyboardInterrupt")
        until(lambda session=process.pid: not of_session(session))
        assert not [path for path in runtime.iterdir() if path.suffix in {".json", ".sock"}]
        lamps = [line for line in journal.read_text().splitlines() if "tank LAMP" in line]
        assert lamps[-1:] in ([], ["tank LAMP 0"])


def test_killing_the_testbed_leaves_nothing_running_and_devices_safe(bench, journal, until):
    process = run_until_lit(bench, journal, until)

    process.kill()
    process.communicate(timeout=30)

    until(lambda: not of_session(process.pid), timeout=20)
    assert {"basin LAMP 0", "tank LAMP 0"} <= set(journal.read_text().splitlines())
