"""Four experiments on the demonstration's bench, with faults on the wires and killed at random: nothing goes wrong."""

import os
import random
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from catkit_devices.datalog import RunReader
from catkit_devices.errors import DeviceError, DeviceFaultError, ProcessDiedError
from catkit_devices.testbed import Experiment, Testbed, bundled, load_configuration

FAULTS = "{no_reply=0.004, late=0.004, disconnect=0.004, slow=0.004}"
FAULTY = ("laser", "nd_wheel", "colour_wheel", "meter", "tiptilt", "camera")
OVERRIDES = [
    "testbed.permit_timeout=15.0",  # the computer of a continuous integration may be busy
    *(f"devices.{name}.faults={FAULTS}" for name in FAULTY),
    *(f"devices.{name}.simulator_options.step_time=0.005" for name in ("nd_wheel", "colour_wheel")),
]


_EXITING = 4
"""PF_EXITING of linux/sched.h: its descriptors are closed, and seen to be, some time before it is a zombie."""


class Overlap(Exception):
    """Somebody else was in the section of a device."""


class Wrong(Exception):
    """A device returned a value that it cannot have."""


@contextmanager
def alone_with(directory, devices):
    """Mark devices as in use, in a way that knows nothing of mutexes; the mark of a dead process does not count."""
    marks = [directory / name for name in devices]
    for mark in marks:
        while True:
            try:
                with mark.open("x") as file:
                    file.write(str(os.getpid()))
                break
            except FileExistsError:
                text = mark.read_text()
                if text and running(int(text)):
                    raise Overlap(f"{mark.name}: {text} is in its section, and so is {os.getpid()}") from None
                mark.unlink(missing_ok=True)
    try:
        yield
    finally:
        for mark in marks:
            mark.unlink()


def running(pid):
    """Whether a process can still do anything: not from the moment on at which the kernel begins to end it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    state, flags = fields[0], int(fields[6])
    return state != "Z" and not flags & _EXITING


def expect(found, expected):
    if found != expected:
        raise Wrong(f"{found} instead of {expected}")


class Works(Experiment):
    """Takes its devices, sets what nobody else sets, finds it as it was set, and writes down how often, for ever."""

    uses: ClassVar[tuple[str, ...]] = ()
    directory: Path

    def experiment(self):
        chance = random.Random(os.getpid())
        noted = self.run.path / "noted"
        count = 0
        while not self.finishing:
            try:
                with self.lock(*self.uses, timeout=30), alone_with(self.directory, self.uses):
                    self.step(chance)
            except DeviceFaultError as error:
                self.devices[error.device].reset()
                self.log_scalar("errors", 1)
            except DeviceError:
                self.log_scalar("errors", 1)
            count += 1
            self.log_scalar("count", count)
            with noted.open("a") as file:
                file.write(f"{count}\n")

    def step(self, chance):
        raise NotImplementedError


class Wheels(Works):
    uses = ("nd_wheel", "colour_wheel")

    def step(self, chance):
        for name in self.uses:
            wheel, slot = self.devices[name], chance.randint(1, 6)
            wheel.position = slot
            expect(wheel.position, slot)


class Mirror(Works):
    uses = ("tiptilt",)

    def step(self, chance):
        tip = round(chance.uniform(-50, 50), 1)
        self.devices.tiptilt.tip = tip
        for _ in range(3):
            if abs(self.devices.tiptilt.tip - tip) > 0.01:
                raise Wrong(f"tip {self.devices.tiptilt.tip} instead of {tip}")


class Power(Works):
    uses = ("laser", "meter")

    def step(self, chance):
        current, wavelength = chance.randint(1, 40), chance.randint(500, 700)
        self.devices.laser.current = current
        self.devices.meter.wavelength = wavelength
        expect(self.devices.laser.current, current)
        expect(self.devices.meter.wavelength, wavelength)


class Looks(Works):
    uses = ("camera", "laser", "tiptilt")

    def step(self, chance):
        exposure = chance.choice([0.001, 0.002, 0.003])
        self.devices.camera.exposure_time = exposure
        self.devices.laser.current = current = chance.randint(1, 40)
        frame = self.devices.camera.frame()
        expect(self.devices.camera.exposure_time, exposure)
        expect(frame.shape, self.devices.camera.shape)
        expect(self.devices.laser.current, current)


class Worker(threading.Thread):
    """Runs one kind of experiment again and again: whenever it dies."""

    def __init__(self, testbed, kind, directory, ending):
        super().__init__(name=kind.__name__)
        self.testbed, self.kind, self.directory, self.ending = testbed, kind, directory, ending
        self.runs, self.failures, self.deaths = [], [], 0

    def run(self):
        while not self.ending.is_set():
            experiment = self.kind(directory=self.directory)
            try:
                self.testbed.run(experiment)
            except ProcessDiedError as error:
                self.deaths += 1
                if error.signal != "SIGKILL":
                    self.failures.append(error)
            except BaseException as error:
                self.failures.append(error)
                return
            finally:
                self.runs.append(experiment.run_path)


@contextmanager
def told_when_not_made_safe():
    """On lines that fail, a device may end in FAULT, and the testbed with it: that is told, and nothing else may be."""
    try:
        yield
    except* DeviceFaultError as told:
        for error in told.exceptions:
            assert "could not be" in str(error)


def counts(run):
    """Return what was noted as logged, and what the data has."""
    noted = [int(line) for line in (run / "noted").read_text().splitlines()] if (run / "noted").exists() else []
    with RunReader(run) as reader:
        logged = [int(value) for value in reader.scalars("count").values] if noted else []
    return noted, logged


@pytest.mark.timeout(4000)
def test_four_experiments_that_are_killed_at_random_on_faulty_wires(tmp_path, rounds, until, request):
    seconds = request.config.getoption("--soak-seconds") or rounds(5, soak=3600)
    chance = random.Random(4)
    marks = tmp_path / "marks"
    marks.mkdir()
    ending = threading.Event()
    configuration = load_configuration([bundled("demo")], OVERRIDES)

    with told_when_not_made_safe(), Testbed(configuration, runs=tmp_path / "runs") as testbed:
        workers = [Worker(testbed, kind, marks, ending) for kind in (Wheels, Mirror, Power, Looks)]
        servers = [psutil.Process(testbed.manager.pid), *(psutil.Process(pid) for pid in device_servers(testbed))]
        for worker in workers:
            worker.start()
        begun = time.monotonic()
        sizes = []
        kills = 0
        while (elapsed := time.monotonic() - begun) < seconds or (steps_of(tmp_path) < 20 and elapsed < 120):
            time.sleep(chance.uniform(0.2, 0.8))
            victims = [one.pid for one in testbed.progress() if one.state == "running" and one.pid]
            if victims and elapsed > 2.0:
                kills += kill(chance.choice(victims))
            sizes.append([(server.memory_info().rss, server.num_fds()) for server in servers])
            assert not [failure for worker in workers for failure in worker.failures]
        ending.set()
        testbed.finish()
        for worker in workers:
            worker.join(60)
        # What the last ones to be killed left is being made safe, over lines that fail, perhaps.
        until(lambda: not [lock for lock in testbed.locks() if lock["holder"]], timeout=30)
        for name in FAULTY:  # as an operator would: what could not be made safe over a line that failed again and again
            if testbed.devices[name].state == "fault":
                testbed.devices[name].reset()
        trip = testbed.trip

    assert [failure for worker in workers for failure in worker.failures] == []
    assert trip is None
    assert kills > seconds / 4
    assert sum(worker.deaths for worker in workers) >= kills - 1
    steps = 0
    for worker in workers:
        for run in worker.runs:
            noted, logged = counts(run)
            assert logged[: len(noted)] == noted
            assert len(logged) - len(noted) in (0, 1)
            steps += len(logged)
    assert steps >= 20
    warm, last = sizes[len(sizes) // 3], sizes[-1]
    for (size, descriptors), (size_later, descriptors_later) in zip(warm, last, strict=True):
        assert size_later < 1.2 * size + 20e6, (warm, last)
        assert descriptors_later < descriptors + 40, (warm, last)


def steps_of(directory):
    return sum(len(noted.read_text().splitlines()) for noted in directory.glob("runs/**/noted"))


def device_servers(testbed):
    from catkit_devices.testbed.trip import connected

    return [connected(server).pid for server in testbed.layout.servers]


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1
