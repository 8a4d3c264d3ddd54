"""A driver's wait takes the time of the simulated bench that its device is on, and ends early as any other."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from catkit_devices import Device, Testbed, VisaDevice, load_configuration
from catkit_devices.errors import MutexBrokenError
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.simulation import (
    Instrument,
    RealClock,
    RecordingVisaLibrary,
    RemoteVisaLibrary,
    SharedSimulation,
    build_library,
)

ADDRESS = "ASRL1::INSTR"
HOUR = 3600.0
SOON = 20.0
"""Seconds of the wall's; what took less has not waited for an hour."""


class Silent:
    def __init__(self, bench):
        self.bench = bench

    def feed(self, data):
        return b"silent\n" if b"*IDN?" in data else b""


class Patient(VisaDevice):
    """Waits for what it is told."""

    def rest(self, seconds):
        """Wait for some seconds."""
        return self.wait(seconds)

    def rest_until(self, condition, timeout=HOUR, interval=0.05):
        """Wait for a condition."""
        return self.wait(condition, timeout, interval)


class Plain(Device):
    """Has no line."""

    has_instrument = False

    rest = Patient.rest
    rest_until = Patient.rest_until

    def _open(self):
        return object()


def library(clock):
    return build_library([Instrument(ADDRESS, Silent)], clock=clock)


@pytest.fixture(params=["beside", "recorded", "elsewhere"])
def patient(request, tmp_path):
    """A device, and its clock: a virtual one, in this process or in another."""
    if request.param == "elsewhere":
        with SharedMemoryManager("sim") as manager:
            chosen = RemoteVisaLibrary(manager.get_object("simulation", shared, "virtual"))
            with Patient("patient", address=ADDRESS, visa_library=chosen) as device:
                yield device, chosen.bench.clock
        return
    chosen = library("virtual")
    wires = RecordingVisaLibrary(chosen, tmp_path) if request.param == "recorded" else chosen
    with Patient("patient", address=ADDRESS, visa_library=wires) as device:
        yield device, chosen.bench.clock


def shared(clock):
    return SharedSimulation(library(clock))


def test_a_wait_and_the_timeout_of_a_condition_use_the_clock_of_the_bench(patient):
    device, clock = patient
    began, started = clock.time(), time.monotonic()
    device.rest(HOUR)
    assert HOUR <= clock.time() - began < HOUR + 1
    assert device.rest_until(lambda: False, timeout=HOUR, interval=60.0) is False
    assert 2 * HOUR <= clock.time() - began < 2 * HOUR + 1
    assert device.rest_until(lambda: clock.time() > began + 3 * HOUR, timeout=2 * HOUR, interval=60.0)
    assert time.monotonic() - started < SOON


def test_other_threads_go_on_while_it_waits(patient):
    device, _clock = patient
    done = threading.Event()
    asked = threading.Event()

    def work():
        asked.wait(SOON)
        for _ in range(20):
            time.sleep(0)
        done.set()

    def condition():
        asked.set()
        return done.is_set()

    thread = threading.Thread(target=work)
    thread.start()
    assert device.rest_until(condition)
    thread.join()


def test_a_break_ends_the_wait(patient, until):
    ends_when_broken(patient[0], until, lambda device: device.rest_until(lambda: False, timeout=1e9, interval=0.001))


@pytest.mark.parametrize("where", ["beside", "elsewhere"])
def test_a_break_ends_a_wait_on_a_clock_of_real_time(until, where):
    with SharedMemoryManager("sim") as manager:
        chosen = library("real")
        if where == "elsewhere":
            chosen = RemoteVisaLibrary(manager.get_object("simulation", shared, "real"))
        with Patient("patient", address=ADDRESS, visa_library=chosen) as device:
            ends_when_broken(device, until, lambda device: device.rest(HOUR))


def ends_when_broken(device, until, wait):
    outcome = []

    def run():
        try:
            outcome.append(wait(device))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: device.mutex.holder)
    device.mutex.break_("the test says so")
    thread.join(SOON)
    assert [type(one) for one in outcome] == [MutexBrokenError]


def test_on_a_fast_clock_a_wait_takes_less_real_time():
    with Patient("patient", address=ADDRESS, visa_library=library(RealClock(speed=HOUR))) as device:
        started = time.monotonic()
        device.rest(HOUR)
        assert 1.0 <= time.monotonic() - started < SOON


def test_a_device_without_a_line_waits_on_the_clock_of_the_tests_bench(simulated_device, bench):
    plain = simulated_device(Plain)
    began, started = bench.clock.time(), time.monotonic()
    plain.rest(HOUR)
    assert bench.clock.time() - began == HOUR
    assert time.monotonic() - started < SOON


PLUGINS = Path(__file__).parent / "waiting_plugins"


@pytest.mark.parametrize("servers", [("devices", "devices"), ("one", "other")])
def test_devices_of_a_simulated_testbed_wait_on_its_clock(tmp_path, servers):
    tables = "".join(
        f'[devices.{name}]\ndriver = "slow"\nserver = "{server}"\n' for name, server in zip("ab", servers, strict=True)
    )
    file = tmp_path / "bench.toml"
    file.write_text(f'[testbed]\nplugins = ["{PLUGINS}"]\n[simulation]\nclock = "virtual"\n{tables}')
    with Testbed(load_configuration([file]), simulate=True) as testbed:
        started = time.monotonic()
        assert testbed.devices.a.rest()
        assert testbed.devices.b.rest()
        assert time.monotonic() - started < SOON
