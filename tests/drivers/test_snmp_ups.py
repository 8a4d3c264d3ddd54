"""The driver of a UPS talks to an SNMP agent in a process of its own."""

import builtins
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from catkit_devices.drivers import create_device
from catkit_devices.errors import (
    DeviceDisconnectedError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
)
from catkit_devices.plugins import _snmp
from catkit_devices.sim.snmp_ups import Ups
from catkit_devices.simulation import VirtualClock

UPS_MIB = "1.3.6.1.2.1.33.1."
ON_MAINS = {
    "1.2.0": "Keeper 3000", "2.1.0": 2, "2.2.0": 0, "2.3.0": 42, "2.4.0": 97, "2.5.0": 541, "2.7.0": 26,
    "3.3.1.2.1": 499, "3.3.1.3.1": 231, "4.1.0": 3, "4.4.1.2.1": 230, "4.4.1.5.1": 35, "6.1.0": 0,
}  # fmt: skip


def objects(values):
    return json.dumps({UPS_MIB + suffix: value for suffix, value in values.items()})


class Agent:
    def __init__(self, values):
        program = Path(__file__).with_name("snmp_agent.py")
        command = [sys.executable, str(program), objects(values)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def set(self, **values):
        print(objects({suffix.strip("_").replace("_", "."): value for suffix, value in values.items()}),
              file=self.process.stdin, flush=True)  # fmt: skip
        assert self.process.stdout.readline() == "\n"

    def end(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def agent():
    agent = Agent(ON_MAINS)
    yield agent
    agent.end()


@pytest.fixture
def ups(agent):
    with create_device("snmp_ups", "ups", options_for(agent.port)) as device:
        yield device


def options_for(port, community="laboratory"):
    return {"address": "127.0.0.1", "port": port, "community": community}


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(_snmp, "_PATIENCE", 0.1)


def test_every_property_has_the_unit_of_the_driver(ups):
    read = {name: getattr(ups, name) for name in ups.describe()["properties"]}

    assert read == {
        "output_source": "normal", "on_battery": False, "battery_status": "normal", "battery_charge": 97.0,
        "minutes_remaining": 42.0, "seconds_on_battery": 0.0, "battery_voltage": 54.1, "battery_temperature": 26.0,
        "input_voltage": 231.0, "input_frequency": 49.9, "output_voltage": 230.0, "load": 35.0, "alarms": 0,
        "model": "Keeper 3000",
    }  # fmt: skip


def test_mains_that_fail_are_seen(agent, ups):
    agent.set(_4_1_0=5, _2_1_0=3, _2_3_0=4)
    try:
        assert (ups.on_battery, ups.battery_status, ups.minutes_remaining) == (True, "low", 4.0)
    finally:
        agent.set(_4_1_0=3, _2_1_0=2, _2_3_0=42)
    assert not ups.on_battery


def test_an_object_that_the_card_does_not_have_is_an_error_that_says_so(agent, ups):
    agent.set(_2_7_0=None)
    try:
        with pytest.raises(DeviceProtocolError, match=r"'ups' \(snmp_ups\): it answers noSuchName"):
            _ = ups.battery_temperature
    finally:
        agent.set(_2_7_0=26)


def test_a_value_that_the_standard_does_not_have_is_an_error(agent, ups):
    agent.set(_4_1_0=9)
    try:
        with pytest.raises(DeviceProtocolError, match="output_source: one of .* was expected, got '9'"):
            _ = ups.on_battery
    finally:
        agent.set(_4_1_0=3)


def test_a_wrong_community_is_an_error_when_it_is_opened(agent, impatient):
    device = create_device("snmp_ups", "ups", options_for(agent.port, community="public"))

    with pytest.raises(DeviceOpenError, match=r"no reply in 0\.3 s; expected .* the community 'public'"):
        device.open()


def test_an_agent_that_ends_is_an_error_that_says_where_it_was(impatient):
    agent = Agent(ON_MAINS)
    with create_device("snmp_ups", "ups", options_for(agent.port)) as device:
        assert device.battery_charge == 97.0
        agent.end()

        with pytest.raises((DeviceDisconnectedError, DeviceTimeoutError), match=f"UDP port {agent.port} of 127.0.0.1"):
            _ = device.battery_charge


def test_a_late_reply_to_an_earlier_request_is_not_taken_for_the_present_one(agent, impatient):
    """Between driver and agent: of each request, the reply to the one before comes first."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as between:
        between.bind(("127.0.0.1", 0))
        late = Late(between, agent.port)
        late.start()
        try:
            with create_device("snmp_ups", "ups", options_for(between.getsockname()[1])) as device:
                read = [device.battery_charge, device.minutes_remaining, device.input_voltage]
        finally:
            late.end()

    assert read == [97.0, 42.0, 231.0]
    assert late.repeated


class Late:
    def __init__(self, between, port):
        import threading

        self._between = between
        self._port = port
        self._thread = threading.Thread(target=self._forward)
        self.repeated = 0

    def start(self):
        self._thread.start()

    def end(self):
        self._between.sendto(b"", self._between.getsockname())
        self._thread.join()

    def _forward(self):
        before = None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
            agent.connect(("127.0.0.1", self._port))
            agent.settimeout(5)
            while True:
                request, driver = self._between.recvfrom(65507)
                if not request:
                    return
                agent.send(request)
                reply = agent.recv(65507)
                if before is not None:
                    self._between.sendto(before, driver)
                    self._between.sendto(b"\x30\x03nonsense", driver)
                    self.repeated += 1
                self._between.sendto(reply, driver)
                before = reply


def test_without_pysnmp_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.partition(".")[0] == "pysnmp":
            raise ImportError("No module named 'pysnmp'")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    device = create_device("snmp_ups", "ups", options_for(161))

    with pytest.raises(DeviceOpenError, match=r"needs the package pysnmp .*: pip install 'catkit-devices\[snmp\]'"):
        device.open()


def test_the_battery_of_the_stand_in_is_used_up_and_charged_again():
    clock = VirtualClock()
    ups = Ups(clock, fails_after=10.0, fails_for=900.0)
    told = []
    for seconds in (0.0, 460.0, 450.0, 7200.0):
        clock.wait(seconds)
        told.append([ups.get(UPS_MIB + suffix) for suffix in ("4.1.0", "2.4.0", "2.3.0", "2.2.0")])

    assert told == [["3", "100", "30", "0"], ["5", "75", "22", "450"], ["3", "50", "15", "0"], ["3", "100", "30", "0"]]
