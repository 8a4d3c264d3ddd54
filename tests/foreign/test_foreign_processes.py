"""A driver of PyMeasure, unchanged, under one mutex: several processes, one of which is killed."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from catkit_devices.drivers import create_device, share
from catkit_devices.errors import DeviceFaultError, MutexTimeoutError, ProcessDiedError
from catkit_devices.multiprocessing import Process, SharedMemoryManager
from catkit_devices.simulation import Instrument, build_library

ADDRESS = "USB0::0x05E6::0x2450::1::INSTR"
DRIVER = "pymeasure:keithley.Keithley2450"
PLUGINS = Path(__file__).parent / "foreign_plugins"


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


def make_source(safe):
    return create_device(DRIVER, "source", {"address": ADDRESS, "safe": safe}, visa_library=library())


def make_bench():
    return Bench(library())


def switch_on_and_hang(server):
    manager = SharedMemoryManager(server)
    manager.connect()
    source = manager.get_object("source")
    with source, source.lock():
        source.enable_source()
        signal.pause()


def count_up(server, times):
    manager = SharedMemoryManager(server)
    manager.connect()
    source = manager.get_object("source")
    with source:
        for _ in range(times):
            with source.lock():
                source.source_voltage = source.source_voltage + 0.5


@pytest.fixture
def hosted():
    with SharedMemoryManager("lab") as manager:
        yield lambda safe: (manager.get_object("source", make_source, safe), manager.get_object("bench", make_bench))


def test_two_processes_use_a_driver_of_pymeasure_one_at_a_time(hosted):
    source, _bench = hosted(["shutdown()"])
    with source:
        source.source_mode = "voltage"
        source.source_voltage = 0
        programs = [Process(target=count_up, args=("lab", 15)) for _ in range(2)]
        for program in programs:
            program.start()
        for program in programs:
            program.join()
        assert source.source_voltage == 15.0


def test_a_killed_program_gives_a_driver_of_pymeasure_back_and_it_is_made_safe(hosted, until):
    source, bench = hosted(["shutdown()"])
    program = Process(target=switch_on_and_hang, args=("lab",), name="sweep")
    program.start()
    until(bench.output)
    with pytest.raises(MutexTimeoutError, match="held for .* by 'sweep'"):
        source.acquire(timeout=0)
    program.kill()
    with pytest.raises(ProcessDiedError):
        program.join()
    with source:
        assert source.source_enabled is False  # waits until it is free, and made safe before
        assert not bench.output()


def test_without_safe_a_killed_program_leaves_it_in_fault_until_a_person_resets_it(hosted, until):
    source, bench = hosted(None)
    with source:
        program = Process(target=switch_on_and_hang, args=("lab",), name="sweep")
        program.start()
        until(bench.output)
        program.kill()
        with pytest.raises(ProcessDiedError):
            program.join()
        until(lambda: source.state == "fault")
        with pytest.raises(DeviceFaultError, match="its configuration does not say how it is made safe"):
            _ = source.source_voltage
        source.reset()
        with source:
            assert source.source_enabled is True


def test_with_safe_nothing_a_killed_program_leaves_it_usable(hosted, until):
    source, bench = hosted("nothing")
    with source:
        program = Process(target=switch_on_and_hang, args=("lab",), name="sweep")
        program.start()
        until(bench.output)
        program.kill()
        with pytest.raises(ProcessDiedError):
            program.join()
        assert source.source_enabled is True


def test_a_client_needs_no_pymeasure(hosted):
    hosted(["shutdown()"])
    program = """
import sys
sys.modules["pymeasure"] = None
from catkit_devices.multiprocessing import SharedMemoryManager
manager = SharedMemoryManager("lab")
manager.connect()
source = manager.get_object("source")
with source:
    source.source_voltage = 1.5
    print(source.source_voltage, sorted(source.describe()["components"]))
    try:
        source.source_mode = "power"
    except Exception as error:
        print(type(error).__name__, error)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=dict(os.environ), check=False
    )
    problem = "source_mode must be one of 'current', 'voltage', got 'power'"
    assert result.stdout.splitlines() == [
        "1.5 []",
        f"DeviceValueError device 'source' ({DRIVER} at {ADDRESS}): {problem}",
    ], result.stderr


def test_share_makes_a_device_of_a_class_or_of_an_object(until):
    from pymeasure.instruments.keithley import Keithley2450

    with share(Keithley2450, ADDRESS, visa_library=library(), safe="nothing") as source:
        source.source_voltage = 2
        assert (source.name, source.source_voltage) == ("keithley2450", 2.0)
    made = Keithley2450(ADDRESS, visa_library=library())
    device = share(made, safe=["shutdown()"])
    with device:
        device.enable_source()
        assert library().instrument(ADDRESS).output
    assert not library().instrument(ADDRESS).output
    with pytest.raises(Exception, match=r"has been closed: give the class, share\(Keithley2450, address\)"):
        device.open()


def write_bench(directory, safe=""):
    path = directory / "bench.toml"
    path.write_text(f"""
[testbed]
name = "bench"
simulate = true

[devices.source]
driver = "{DRIVER}"
address = "{ADDRESS}"
simulator = "keithley_2450"
simulator_options = {{ load = 100.0 }}
units = {{ source_voltage = "V" }}
limits = {{ source_voltage = [0, 5] }}
shared = ["source_voltage"]
{safe}

[safety.level]
device = "source"
property = "source_voltage"
maximum = 6.0
""")
    return path


@pytest.fixture
def cli(tmp_path):
    def run(*words):
        command = [sys.executable, "-m", "catkit_devices", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path, check=False)

    return run


@pytest.mark.whole
def test_the_command_line_reads_and_sets_a_driver_of_pymeasure(cli, tmp_path):
    path = write_bench(tmp_path, 'safe = ["shutdown()"]')
    checked = cli("check-config", str(path))
    assert (checked.returncode, "nothing says" in checked.stdout + checked.stderr) == (0, False)
    done = cli("set", "source.source_voltage", "2500 mV", "--config", str(path))
    assert done.stdout.strip() == "source.source_voltage = 2.5 V", done.stderr
    refused = cli("set", "source.source_voltage", "7", "--config", str(path))
    assert "source_voltage must be 0 to 5 V, got 7.0 V" in refused.stderr


def test_check_config_names_a_device_of_which_nothing_says_how_it_is_made_safe(cli, tmp_path):
    checked = cli("check-config", str(write_bench(tmp_path)))
    assert checked.returncode == 0
    assert "its table has no safe = " in " ".join((checked.stdout + checked.stderr).split())


def test_status_names_a_device_of_which_nothing_says_how_it_is_made_safe(tmp_path):
    from rich.console import Console

    from catkit_devices.cli.picture import picture
    from catkit_devices.testbed import Testbed, load_configuration

    with Testbed(load_configuration([write_bench(tmp_path)]), runs=tmp_path) as testbed:
        status = testbed.status()
        assert status["devices"]["source"]["says_how_safe"] is False
        console = Console(width=120, record=True, file=io.StringIO())
        console.print(picture(status))
        assert "'safe' is not said" in console.export_text()


def test_what_a_foreign_driver_says_is_recorded_and_replayed(tmp_path):
    from pymeasure.instruments.keithley import Keithley2450

    from catkit_devices.simulation import RecordingVisaLibrary

    file = tmp_path / "source.wire"
    recorder = RecordingVisaLibrary(library(), {ADDRESS: file})
    with share(Keithley2450, ADDRESS, visa_library=recorder, safe="nothing") as source:
        source.source_voltage = 1.25
        recorded = source.source_voltage
    assert "SOUR:VOLT" in file.read_text().upper()
    replayed = build_library([Instrument(ADDRESS, file)])
    with share(Keithley2450, ADDRESS, visa_library=replayed, safe="nothing") as source:
        source.source_voltage = 1.25
        assert source.source_voltage == recorded == 1.25
