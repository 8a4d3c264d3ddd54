"""``catkit-devices simulate`` and ``catkit-devices record``, as somebody at a terminal uses them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tomllib

import pytest
import pyvisa
import serial

from catkit_devices.simulation import read_entries

BENCH = """
[testbed]
name = "bench"
simulate = true

[simulation]
bench = "optical"
options = { noise = 0.0 }

[devices.laser]
driver = "thorlabs_mcls1"
address = "ASRL1::INSTR"
simulator = "thorlabs_mcls1"

[devices.wheel]
driver = "thorlabs_fw102c"
address = "ASRL3::INSTR"
simulator = "thorlabs_fw102c"
simulator_options = { role = "nd", step_time = 0.01 }

[devices.meter]
driver = "thorlabs_pm100d"
address = "USB0::0x1313::0x8078::P0001::INSTR"
simulator = "thorlabs_pm100d"
server = "other"
"""

SCAN = """
from catkit_devices.testbed import Experiment

class Scan(Experiment):
    def experiment(self):
        self.devices.laser.current = 60.0
        self.devices.laser.enabled = True
        self.devices.wheel.position = 3
        return [self.devices.wheel.position, self.devices.laser.current, self.devices.meter.power]
"""


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "bench.toml").write_text(BENCH)
    (tmp_path / "scan.py").write_text(SCAN)
    return tmp_path


def run(directory, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "catkit_devices", *arguments],
        cwd=directory, capture_output=True, text=True, timeout=90, check=False, env=os.environ,
    )  # fmt: skip


@contextlib.contextmanager
def simulating(directory, *arguments, ends_by=signal.SIGINT):
    """Run `simulate --json` meanwhile; yield what it printed, by device."""
    command = [sys.executable, "-m", "catkit_devices", "simulate", "--config", "bench.toml", "--json", *arguments]
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            text = ""
            for line in process.stdout:
                text += line
                if line == "}\n":
                    break
            assert text, process.stderr.read()
            yield {row["device"]: row for row in json.loads(text)["instruments"]}
            process.send_signal(ends_by)
            assert process.wait(20) == 0, process.stderr.read()
        finally:
            process.kill()


@pytest.mark.parametrize("ends_by", [signal.SIGINT, signal.SIGTERM])
def test_any_program_can_use_what_is_simulated_until_it_is_told_to_end(directory, ends_by):
    with simulating(directory, ends_by=ends_by) as served:
        assert served["wheel"]["simulates"] == "ASRL3::INSTR"
        with serial.serial_for_url(served["wheel"]["url"], timeout=10) as port:
            port.write(b"pos=5\r")
            assert port.read_until(b"> ") == b"pos=5\r> "
        manager = pyvisa.ResourceManager("@py")
        with manager.open_resource(served["wheel"]["address"], read_termination="\r", write_termination="\r") as wheel:
            assert [wheel.query("pos?"), wheel.read()] == ["pos?", "5"]
        with manager.open_resource(served["meter"]["address"], read_termination="\n", write_termination="\n") as meter:
            assert meter.query("*IDN?").startswith("THORLABS,PM100D")
        with manager.open_resource(served["meter"]["hislip_address"]) as meter:
            assert meter.query("*IDN?").startswith("THORLABS,PM100D")
        assert served["wheel"]["hislip_address"] is None  # a serial line marks no ends of messages
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((served["wheel"]["host"], served["wheel"]["port"]), timeout=5)


def test_a_testbed_uses_what_another_process_simulates(directory):
    with simulating(directory, "--write-config", "served.toml") as served:
        overlay = tomllib.loads((directory / "served.toml").read_text())
        assert overlay["devices"]["meter"]["address"] == served["meter"]["address"]
        result = run(directory, "run", "scan.py", "--config", "bench.toml", "--config", "served.toml",
                     "--hardware", "--runs", "runs", "--json")  # fmt: skip
        assert result.returncode == 0, result.stderr
        position, current, power = json.loads(result.stdout)["result"]
        assert (position, current) == (3, 60.0)
        assert power > 1e-9  # the light of the laser, as the meter sees it
        with serial.serial_for_url(served["wheel"]["url"], timeout=10) as port:
            port.write(b"pos?\r")
            assert port.read_until(b"> ") == b"pos?\r3\r> "  # the wheel is where the testbed has left it


def test_without_json_a_table_says_where_instruments_are(directory):
    process = subprocess.Popen(
        [sys.executable, "-m", "catkit_devices", "simulate", "--config", "bench.toml"],
        cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            lines = [next(process.stdout) for _ in range(7)]
            assert process.stderr.readline() == "Ctrl-C ends it\n"
        finally:
            process.terminate()
            assert process.wait(20) == 0
    (wheel,) = (line for line in lines if line.split()[:1] == ["wheel"])
    assert "ASRL3::INSTR" in wheel
    assert "TCPIP0::127.0.0.1::" in wheel
    assert "socket://127.0.0.1:" in wheel


@pytest.mark.parametrize(("arguments", "problem"), [
    ((), "say which testbed"),
    (("--config", "bench.toml", "--port-base", "70000"), "a port must be 0 to 65535, got 70000"),
    (("--config", "bench.toml", "--set", 'simulation.clock="virtual"'), "whose clock is virtual cannot be served"),
])  # fmt: skip
def test_a_device_that_cannot_be_simulated_is_one_clear_error(directory, arguments, problem):
    result = run(directory, "simulate", *arguments)
    assert result.returncode == 2
    assert problem in result.stderr
    assert "Traceback" not in result.stderr


def test_an_experiment_is_recorded_and_replayed(directory):
    record = ("record", "scan.py", "--config", "bench.toml", "--to", "recordings", "--runs", "runs", "--json")
    result = run(directory, *record)
    assert result.returncode == 0, result.stderr
    recorded = json.loads(result.stdout)["result"]
    assert recorded[2] > 1e-9  # one bench, although laser and meter live on two servers
    names = sorted(path.name for path in (directory / "recordings").iterdir())
    assert names == ["laser.wire", "meter.wire", "wheel.wire"]
    assert "recorded: " in result.stderr
    sent = [entry.data for entry in read_entries(directory / "recordings" / "wheel.wire") if entry.kind == ">"]
    assert b"pos=3\r" in sent

    again = run(directory, *record)
    assert again.returncode == 2
    assert "has recordings already (laser.wire, meter.wire, wheel.wire)" in again.stderr

    replay = BENCH.split("[devices", maxsplit=1)[0].replace('bench = "optical"\noptions = { noise = 0.0 }', "")
    for name, driver, address in (
        ("laser", "thorlabs_mcls1", "ASRL1::INSTR"), ("wheel", "thorlabs_fw102c", "ASRL3::INSTR"),
        ("meter", "thorlabs_pm100d", "USB0::0x1313::0x8078::P0001::INSTR"),
    ):  # fmt: skip
        replay += f'\n[devices.{name}]\ndriver = "{driver}"\naddress = "{address}"\n'
        replay += f'simulator = "recordings/{name}.wire"\n'
    (directory / "replay.toml").write_text(replay)
    result = run(directory, "run", "scan.py", "--config", "replay.toml", "--runs", "runs", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["result"] == recorded

    (directory / "scan.py").write_text(SCAN.replace("position = 3", "position = 4"))
    result = run(directory, "run", "scan.py", "--config", "replay.toml", "--runs", "runs")
    assert result.returncode == 1
    assert "expected  pos=3\\r" in result.stderr
    assert "sent      pos=4\\r" in result.stderr
