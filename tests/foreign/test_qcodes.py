"""Drivers of QCoDeS as devices, unchanged. Only with ``--foreign``: QCoDeS is not among what the tests install."""

import signal
import subprocess
import sys
from pathlib import Path

import hosted_qcodes
import pytest

from catkit_devices.datalog import RunReader
from catkit_devices.drivers import Plugins, create_device, share
from catkit_devices.errors import (
    ConfigurationError,
    DeviceClosedError,
    DeviceError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceValueError,
    MutexTimeoutError,
    ProcessDiedError,
)
from catkit_devices.multiprocessing import Process, SharedMemoryManager
from catkit_devices.simulation import Fault, Instrument, build_library
from catkit_devices.testbed import Experiment, Testbed, load_configuration

pytestmark = pytest.mark.filterwarnings("ignore")

ADDRESS = "USB0::0x05E6::0x2450::1::INSTR"
DRIVER = "qcodes:Keithley.Keithley2450"


class Bench:
    """What is true of the simulated source, for tests."""

    def __init__(self, library):
        self._instrument = library.instrument(ADDRESS)

    def output(self):
        return self._instrument.output


_libraries = []


def library():
    if not _libraries:
        _libraries.append(build_library([Instrument(ADDRESS, "keithley_2450", {"load": 100.0})]))
    return _libraries[0]


def make_source(**options):
    return create_device(DRIVER, "source", {"address": ADDRESS, "safe": "nothing", **options}, visa_library=library())


def make_bench():
    return Bench(library())


@pytest.fixture
def meter():
    """Make and open the driver of a multimeter on the simulated one of QCoDeS: ``meter(**options)``."""
    made = []

    def build(opens=True, **options):
        lines, address = hosted_qcodes.library_for("Keysight.Keysight34465A")
        given = {"address": address, "safe": "nothing", "late_window": 0.0, **options}
        device = create_device("qcodes:Keysight.Keysight34465A", "meter", given, visa_library=lines)
        made.append(device)
        if opens:
            device.open()
        return device

    yield build
    for device in made:
        device._life_.abandon()


# --- what it has


def test_what_a_parameter_declares_is_known_when_the_device_is_open(meter):
    described = meter().describe()["properties"]
    facts = {
        name: [described[name][key] for key in ("type", "unit", "limits", "choices", "readable", "writable")]
        for name in ("volt", "timetrace_dt", "timetrace_npts", "trigger.source", "display.enabled", "display.text")
    }
    assert facts == {
        "volt": ["float", "V", None, None, True, False],
        "timetrace_dt": ["float", "s", (0.0, None), None, True, True],
        "timetrace_npts": ["int", None, (1, None), None, True, True],
        "trigger.source": ["choice", None, None, ["BUS", "EXT", "IMM", "INT"], True, True],
        "display.enabled": ["choice", None, None, [True, False], True, True],
        "display.text": ["str", None, None, None, True, True],
    }
    assert described["NPLC"]["doc"].startswith("Integration time, in NPLC.\n\nSets the integration time")


def test_before_it_is_open_it_has_what_its_source_tells(meter):
    device = meter(opens=False)
    described = device.describe()
    assert described["grows"] is True
    assert described["properties"]["volt"]["doc"] == "Voltage, in V."
    assert "increase_range" in described["commands"]
    with pytest.raises(DeviceClosedError):
        device.trigger  # noqa: B018 - whether there is such a module is known when it is open
    with device:
        assert "grows" not in device.describe()
        assert device.trigger.level == 0.0


def test_a_value_that_is_set_by_the_operation_that_opens_it_is_checked(meter):
    device = meter(opens=False, open_on_use=True, limits={"timetrace_dt": [0, 2]})
    with pytest.raises(DeviceValueError, match="timetrace_dt must be 0 to 2 s, got 3.0 s"):
        device.timetrace_dt = 3
    device.close(force=True)
    fresh = meter(opens=False, open_on_use=True)
    fresh.timetrace_dt = 1
    assert (fresh.timetrace_dt, fresh._foreign_.parameters["timetrace_dt"].get()) == (1, 1)


def test_limits_and_choices_follow_the_driver_while_it_is_open(meter):
    from qcodes.validators import Enum

    device = meter()
    assert device.describe()["properties"]["range"]["choices"] == [0.1, 1, 10, 100, 1000]
    device._foreign_.parameters["range"].vals = Enum(1, 3)  # as drivers do when the function of an instrument changes
    assert device.describe()["properties"]["range"]["choices"] == [1, 3]
    device.range = 3
    with pytest.raises(DeviceValueError, match="range must be one of 1, 3, got 10"):
        device.range = 10


def test_a_module_that_a_method_of_the_driver_adds_is_there_at_once(tmp_path, monkeypatch):
    (tmp_path / "rack_driver.py").write_text("""
from qcodes.instrument import Instrument, InstrumentModule


class Rack(Instrument):
    def plug_in(self, name):
        module = InstrumentModule(self, name)
        module.add_parameter("level", set_cmd=None, initial_value=1, unit="V")
        self.add_submodule(name, module)
""")
    monkeypatch.syspath_prepend(tmp_path)
    with SharedMemoryManager("lab") as manager:
        rack = manager.get_object("rack", create_device, "qcodes:rack_driver.Rack", "rack", {"safe": "nothing"})
        with rack:
            with pytest.raises(AttributeError, match="slot1"):
                _ = rack.slot1
            rack.plug_in("slot1")
            assert rack.slot1.level == 1
            assert rack.describe()["properties"]["slot1.level"]["unit"] == "V"


def test_what_cannot_be_an_operation_is_left_out_with_the_reason(meter):
    source = make_source()
    with source:
        reasons = {one.name: one.reason for one in source._description_.left_out}
    assert reasons["_source_voltage"] == "is private to the driver"
    assert reasons["buffer"] == "returns a Keithley2450Buffer, which is an object of the driver"
    assert "add_parameter" not in reasons


def test_a_property_that_is_one_of_several_modules_is_a_component():
    with make_source() as source:
        source.source_function = "current"
        source.source.current = 0.01
        assert source.source.current == 0.01
        with pytest.raises(DeviceError, match=r"source.voltage: AttributeError: .* has no parameter 'voltage' now"):
            _ = source.source.voltage
        source.source_function = "voltage"
        source.source.voltage = 2
        assert source.source.voltage == 2.0


@pytest.mark.parametrize(
    ("driver", "problem"),
    [
        ("qcodes:Keithley2450", "expected a maker and a class"),
        ("qcodes:Keitley.Keithley2450", "no maker 'Keitley'.*did you mean 'Keithley'"),
        ("qcodes:Keithley.Kiethley2450", "did you mean 'qcodes:Keithley.Keithley2450'"),
    ],
)
def test_a_driver_that_there_is_not_is_an_error_that_names_the_nearest(driver, problem):
    with pytest.raises(ConfigurationError, match=problem):
        Plugins().driver(driver)


# --- the configuration


def test_units_limits_and_shared_of_what_is_known_when_open_come_from_the_configuration(meter):
    device = meter(
        units={"trigger.delay": "s"},
        limits={"timetrace_dt": [0, 2]},
        shared=["trigger.level"],
        safe={"trigger.level": 0},
    )
    device.trigger.delay = "2000 ms"
    assert device.trigger.delay == 2.0
    with pytest.raises(DeviceValueError, match="timetrace_dt must be 0 to 2 s, got 3.0 s"):
        device.timetrace_dt = 3
    assert device.describe()["properties"]["trigger.level"]["shared"] is True


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"units": {"trigger.dely": "s"}}, "units.trigger.dely: there is no such property.*did you mean 'delay'"),
        ({"limits": {"NPLC": [0, 1]}}, "limits.NPLC: has no limits that could be narrowed"),
        ({"safe": {"trigger.levl": 0}}, "safe.trigger.levl: there is no such property.*did you mean 'level'"),
        ({"safe": ["display.cler()"]}, "safe: there is no such property.*did you mean 'clear'"),
        ({"shared": ["tigger.level"]}, "shared: there is no component tigger.*did you mean 'trigger'"),
    ],
)
def test_a_mistake_that_is_known_when_it_is_open_is_named_then(meter, options, problem):
    device = meter(opens=False, **options)
    with pytest.raises(DeviceOpenError, match=f"device 'meter' .*its configuration: .*{problem}"):
        device.open()


# --- errors


def test_a_value_that_the_driver_refuses_is_a_value_error_of_the_device(meter):
    device = meter()
    with pytest.raises(DeviceValueError, match=r"device 'meter' .*: display.text: 3 is not a string; Parameter:"):
        device.display.text = 3


def test_an_answer_that_makes_no_sense_to_the_driver_is_a_protocol_error(meter):
    device = meter()
    device._visa_library_.line("GPIB::1::INSTR").inject(Fault("extra"))
    with pytest.raises(DeviceProtocolError, match=r"device 'meter' .*: volt: "):
        _ = device.volt


# --- processes


def switch_on_and_hang(server):
    manager = SharedMemoryManager(server)
    manager.connect()
    source = manager.get_object("source")
    with source, source.lock():
        source.output_enabled = True
        signal.pause()


def count_up(server, times):
    manager = SharedMemoryManager(server)
    manager.connect()
    source = manager.get_object("source")
    with source:
        for _ in range(times):
            with source.lock():
                source.source.voltage = source.source.voltage + 0.5


@pytest.fixture
def hosted():
    with SharedMemoryManager("lab") as manager:
        yield lambda safe: (
            manager.get_object("source", make_source, safe=safe), manager.get_object("bench", make_bench),
        )  # fmt: skip


def test_two_processes_use_a_driver_of_qcodes_one_at_a_time(hosted):
    source, _bench = hosted({"output_enabled": False})
    with source:
        source.source_function = "voltage"
        source.source.voltage = 0
        programs = [Process(target=count_up, args=("lab", 10)) for _ in range(2)]
        for program in programs:
            program.start()
        for program in programs:
            program.join()
        assert source.source.voltage == 10.0


def test_a_killed_program_gives_a_driver_of_qcodes_back_and_it_is_made_safe(hosted, until):
    source, bench = hosted({"output_enabled": False})
    program = Process(target=switch_on_and_hang, args=("lab",), name="sweep")
    program.start()
    until(bench.output, timeout=60)
    with pytest.raises(MutexTimeoutError, match="held for .* by 'sweep'"):
        source.acquire(timeout=0)
    program.kill()
    with pytest.raises(ProcessDiedError):
        program.join()
    with source:
        assert source.output_enabled is False  # waits until it is free, and made safe before
        assert not bench.output()


def test_a_client_needs_no_qcodes(hosted):
    hosted("nothing")
    program = """
import sys
sys.modules["qcodes"] = None
from catkit_devices.multiprocessing import SharedMemoryManager
manager = SharedMemoryManager("lab")
manager.connect()
source = manager.get_object("source")
with source:
    source.source_function = "voltage"
    source.source.voltage = 1.5
    print(source.source.voltage, source.snapshot()["parameters"]["source_function"]["value"])
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )  # fmt: skip
    assert result.stdout.split() == ["1.5", "voltage"], result.stderr


def test_share_makes_a_device_of_a_class_or_of_an_object():
    from qcodes.instrument_drivers.Keithley import Keithley2450

    with share(Keithley2450, ADDRESS, visa_library=library(), safe="nothing") as source:
        source.source_function = "voltage"
        assert (source.name, source.source_function) == ("keithley2450", "voltage")
    made = Keithley2450("made", ADDRESS, visalib=library())
    with share(made, safe={"output_enabled": False}) as source:
        source.output_enabled = True
        assert library().instrument(ADDRESS).output
    assert not library().instrument(ADDRESS).output


class SetsAVoltage(Experiment):
    def experiment(self):
        source = self.devices.source
        source.source_function = "voltage"
        source.source.voltage = 1.5


def test_a_testbed_and_the_command_line_use_a_driver_of_qcodes(tmp_path):
    path = tmp_path / "bench.toml"
    path.write_text(f"""
[testbed]
name = "bench"
simulate = true

[devices.source]
driver = "{DRIVER}"
address = "{ADDRESS}"
simulator = "keithley_2450"
simulator_options = {{ load = 100.0 }}
shared = ["source.voltage"]
safe = {{ output_enabled = false }}

[safety.level]
device = "source"
property = "source.voltage"
maximum = 6.0
""")
    with Testbed(load_configuration([path]), runs=tmp_path) as testbed:
        experiment = SetsAVoltage()
        testbed.run(experiment)
        with RunReader(experiment.run_path) as run:
            (taken,) = run.values("snapshot.end")
        snapshot = taken.value["source"]["driver"]
        assert snapshot["parameters"]["source_function"]["value"] == "voltage"
        assert snapshot["submodules"]["_source_voltage"]["parameters"]["voltage"]["unit"] == "V"
        source = testbed.devices.source
        assert source.source.voltage == 1.5
        command = [sys.executable, "-m", "catkit_devices", "get", "source.source.voltage", "--config", str(path)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path, check=False)
        assert result.stdout.strip() == "source.source.voltage = 1.5 V", result.stderr


def test_every_block_of_the_page_for_users_of_qcodes_does_what_it_says(tmp_path):
    root = Path(__file__).parents[2]
    program, page = root / "tests" / "docs" / "run_page.py", root / "docs" / "how-to" / "migrate-from-qcodes.md"
    command = [sys.executable, str(program), str(page)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr


# --- every driver for which QCoDeS brings a simulated instrument


def make_many(driver):
    return hosted_qcodes.make_device(driver)


@pytest.mark.timeout(900)
def test_parameters_that_work_with_qcodes_work_hosted():
    worked = hosted = 0
    differences = {}
    with SharedMemoryManager("lab") as manager:
        for driver in hosted_qcodes.DRIVERS:
            device = manager.get_object(driver, make_many, driver)
            with device:
                found = hosted_qcodes.compared(driver, device)
            worked += found.read + found.set
            hosted += found.read_hosted + found.set_hosted
            differences |= {f"{driver} {name}": text for name, text in found.differences.items()}
    assert worked > 1500
    assert hosted >= 0.99 * worked, differences
