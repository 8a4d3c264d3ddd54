"""Programs that others wrote use the devices of a testbed, through its gateway, while experiments use them too."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading

import pytest
from pymeasure.adapters import VISAAdapter
from pymeasure.instruments.keysight import KeysightE36312A
from qcodes.instrument_drivers.Keithley import Keithley2450
from qcodes.instrument_drivers.Keysight import Keysight33512B
from qcodes.instrument_drivers.Lakeshore import LakeshoreModel336

from catkit_devices.errors import ConfigurationError
from catkit_devices.gateway import HislipServer
from catkit_devices.gateway.testbed_device import doors_of
from catkit_devices.testbed import Testbed, load_configuration

BENCH = """
[testbed]
name = "bench"
runs = "{runs}"
simulate = true

[devices.controller]
driver = "lakeshore_336"
address = "GPIB0::12::INSTR"
simulator = "lakeshore_336"
gateway = "write"

[devices.generator]
driver = "keysight_33500b"
address = "TCPIP0::10.0.0.9::inst0::INSTR"
simulator = "keysight_33500b"
gateway = "write"

[devices.source]
driver = "keithley_2450"
address = "USB0::0x05E6::0x2450::1::INSTR"
simulator = "keithley_2450"
simulator_options = {{ load = 100.0 }}
gateway = "write"

[devices.supply]
driver = "keysight_e36312a"
address = "TCPIP0::10.0.0.8::inst0::INSTR"
simulator = "keysight_e36312a"
gateway = "write"
"""


class Bench:
    def __init__(self, testbed, server, socket_port):
        self.devices = testbed.devices
        self.socket_port = socket_port
        self._server = server

    def address(self, name):
        return self._server.address(name)


@pytest.fixture
def bench(tmp_path, runtime):
    file = tmp_path / "bench.toml"
    file.write_text(BENCH.format(runs=tmp_path / "runs"))
    with Testbed(load_configuration([file])) as testbed:
        for _ in range(10):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            with contextlib.suppress(ConfigurationError):  # somebody else has taken it meanwhile
                server = HislipServer(doors_of(testbed), port=0, sockets={"supply": port})
                break
        with server:
            yield Bench(testbed, server, port)


@pytest.fixture
def of_qcodes(bench):
    """Open a driver of QCoDeS at a device of the testbed."""
    opened = []

    def build(cls, name):
        opened.append(cls(name, bench.address(name), visalib="@py", timeout=20))
        return opened[-1]

    yield build
    for device in opened:
        device.close()


@pytest.fixture
def of_pymeasure(bench):
    """A driver of PyMeasure at the power supply."""
    adapter = VISAAdapter(bench.address("supply"), visa_library="@py", timeout=20_000)
    yield KeysightE36312A(adapter)
    adapter.close()
    adapter.manager.close()


def test_drivers_of_qcodes_ask_set_and_measure(bench, of_qcodes):
    controller = of_qcodes(LakeshoreModel336, "controller")
    assert controller.get_idn()["model"] == "336"  # it expects CR LF
    controller.output_1.setpoint(310)
    assert controller.output_1.setpoint() == 310
    assert float(bench.devices.controller.query("SETP? 1")) == 310

    generator = of_qcodes(Keysight33512B, "generator")
    generator.ch2.function_type("SQU")
    generator.ch2.frequency(500)
    assert (generator.ch2.function_type(), generator.ch2.frequency()) == ("SQU", 500.0)
    assert generator.error() == (0, "No error")

    source = of_qcodes(Keithley2450, "source")
    source.source.function("voltage")
    source.source.voltage(2)
    source.source.limit(0.05)
    source.sense.function("current")
    source.output_enabled(True)
    assert source.sense.current() == 0.02
    source.output_enabled(False)


def test_a_driver_of_pymeasure_and_an_experiment_take_turns(bench, of_pymeasure, until):
    supply = bench.devices.supply
    done = []

    def program():
        of_pymeasure.ch_1.voltage_setpoint = 1.5
        done.append(of_pymeasure.ch_1.voltage_setpoint)

    thread = threading.Thread(target=program)
    with supply.lock():
        thread.start()
        until(lambda: supply.mutex.waiters)
        assert "VISA program at 127.0.0.1:" in supply.mutex.waiters[0].process
        assert float(supply.query("VOLT? (@1)")) == 0
    thread.join()
    assert done == [1.5]
    assert of_pymeasure.check_errors() == []
    wrong = []

    def experiment():
        for number in range(50):
            with supply.lock():
                volt = 1 + number / 100
                supply.write(f"VOLT {volt},(@1)")
                if float(supply.query("VOLT? (@1)")) != pytest.approx(volt):
                    wrong.append(volt)

    thread = threading.Thread(target=experiment)
    thread.start()
    for number in range(50):
        of_pymeasure.ch_2.voltage_setpoint = number / 10
        assert of_pymeasure.ch_2.voltage_setpoint == number / 10
        assert "E36312A" in of_pymeasure.id
    thread.join()
    assert wrong == []


def lxi(bench, *arguments):
    """Run the command of lxi-tools, of Debian's package of this name, on the plain socket of the power supply."""
    command = shutil.which("lxi")
    assert command is not None, "these tests need the Debian package lxi-tools: apt-get install lxi-tools"
    where = ["-a", "127.0.0.1", "-p", str(bench.socket_port), "-r"]
    done = subprocess.run([command, arguments[0], *where, *arguments[1:]], capture_output=True, text=True, timeout=60,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_lxi_tools_ask_and_set_and_run_their_benchmark(bench):
    assert "E36312A" in lxi(bench, "scpi", "*IDN?")
    lxi(bench, "scpi", "VOLT 2.5,(@3)")
    assert float(lxi(bench, "scpi", "VOLT? (@3)")) == 2.5
    assert "requests/second" in lxi(bench, "benchmark", "-c", "200")
