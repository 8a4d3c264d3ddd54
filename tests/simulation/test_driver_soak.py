"""Random operations under random faults, on every bundled driver: never a wrong value, and errors of the right kind.

Every value that is read is compared with the instrument's true state, every value that was set without an error must
have arrived there, every error must be one that the faults which struck explain, and whatever nothing struck must
succeed. Time is virtual, so thousands of steps take seconds.

A bit flipped in the payload of a binary frame is left out: the frames of the LC400 and of the camera have no checksum,
so nothing on the wire shows it. In text a flipped bit is the top one and stray bytes are above 0x7F, for the same
reason: another digit in a number is another number.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from catkit_devices.drivers import create_device
from catkit_devices.errors import (
    DeviceDisconnectedError,
    DeviceError,
    DeviceFaultError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
)
from catkit_devices.sim.omega_ithx import _dew_point
from catkit_devices.simulation import (
    FAULTS,
    Bench,
    Fault,
    Instrument,
    RemoteVisaLibrary,
    SharedSimulation,
    build_library,
)

SERIAL = "ASRL7::INSTR"
SOCKET = "TCPIP0::10.0.0.7::2000::SOCKET"
USB = "USB0::0x1313::0x8078::P0001::INSTR"
GPIB = "GPIB0::7::INSTR"
LATE_WINDOW = 1.0


class QuietBench(Bench):
    """A bench whose readings have no noise."""

    noise = 0.0


# --- what can be done with each driver: reads with the truth, and settings with values and the truth


def wheel(sim):
    settings = sim._settings
    return (
        {"positions": lambda: 6},
        {
            "position": (range(1, 7), lambda: sim.wheel.position),
            "speed": (["slow", "fast"], lambda: ["slow", "fast"][settings["speed"]]),
            "sensors_always_on": ([False, True], lambda: bool(settings["sensors"])),
            "trigger": (["input", "output"], lambda: ["input", "output"][settings["trig"]]),
        },
    )


def laser(sim, channel=0):
    return (
        {
            "power": lambda: sim.laser.power(channel),
            "temperature": lambda: sim._temperatures[channel].value(),
            "channel": lambda: channel + 1,
        },
        {
            "current": ([0.0, 10.0, 20.5, 40.25], lambda: sim.laser.currents[channel]),
            "enabled": ([False, True], lambda: sim.laser.enabled[channel] and sim.laser.system),
            "system": ([False, True], lambda: sim.laser.system),
            "target_temperature": ([21.0, 25.5, 29.75], lambda: sim._temperatures[channel].target),
        },
    )


def meter(sim):
    return (
        {"power": lambda: sim._power, "sensor": lambda: "S120C,11010101,01-Jan-2024,1,18,33"},
        {
            "wavelength": ([500.0, 635.0, 700.5], lambda: sim.value("wavelength")),
            "averaging": ([1, 3, 100], lambda: sim.value("average_count")),
            "auto_range": ([False, True], lambda: bool(sim.value("range_auto"))),
        },
    )


def stage(sim):
    def word(channel, register):
        found = sim._words.get(0x11830000 + 0x1000 * channel + register, 0)
        return found - (1 << 32) * (found >= 1 << 31)

    def commanded(channel):
        return lambda: word(channel, 0x218) / 1048574 * 2000.0

    angles = [-1000.0, -12.5, 0.0, 333.25, 1000.0]
    return (
        {"measured_tip": sim.axes[1].position, "measured_tilt": sim.axes[2].position},
        {
            "tip": (angles, commanded(1)),
            "tilt": (angles, commanded(2)),
            "closed_loop": ([False, True], lambda: all(word(channel, 0x084) == 1 for channel in (1, 2))),
        },
    )


def sensor(sim):
    return (
        {"temperature": lambda: 21.0, "humidity": lambda: 22.0, "dew_point": lambda: _dew_point(21.0, 22.0),
         "read_both": lambda: (21.0, 22.0)},
        {},
    )  # fmt: skip


def camera(sim):
    regions = [(0, 0, 8, 8), (1, 2, 3, 4), (7, 7, 1, 1)]
    return (
        {"frame": lambda: sim._frame and sim._frame.pixels, "pixel_size": lambda: 5.0, "saturation": lambda: 65535,
         "shape": lambda: sim._region[2:]},
        {"exposure_time": ([0.01, 0.02, 1.5], lambda: sim._exposure), "region": (regions, lambda: sim._region)},
    )  # fmt: skip


#: driver: address, operations, simulator's options, what the wire shows less exactly than the truth is
DRIVERS = {
    "thorlabs_fw102c": (SERIAL, wheel, {}, 0),
    "thorlabs_mcls1": (SERIAL, laser, {}, 0.0051),
    "thorlabs_pm100d": (USB, meter, {"power": 1.2345678e-3}, 0),
    "npoint_lc400": (SERIAL, stage, {}, 0.001),
    "omega_ithx": (SOCKET, sensor, {"temperature": 21.0, "humidity": 22.0}, 0.051),
    "scpi_camera": (SOCKET, camera, {"rows": 8, "columns": 8}, 0),
}
#: Which payloads a flipped bit changes into another value that is as good.
UNPROTECTED = {"npoint_lc400", "scpi_camera"}

#: What a fault can make of the operation whose reply it strikes, beside nothing.
KINDS = {
    "no_reply": (DeviceTimeoutError,),
    "late": (DeviceTimeoutError,),
    "truncated": (DeviceTimeoutError, DeviceProtocolError),
    "garbled": (DeviceProtocolError, DeviceTimeoutError),
    "extra": (DeviceProtocolError, DeviceTimeoutError),
    "disconnect": (DeviceDisconnectedError,),
    "slow": (DeviceTimeoutError,),
}


class Subject:
    """One driver on its simulator, both ends of the wire in hand."""

    def __init__(self, driver, seed, *, address=None, through=None, addresses=1):
        default, operations, options, self.tolerance = DRIVERS[driver]
        self.driver = driver
        self.address = address or default
        self.rng = random.Random(f"{driver} {seed}")
        self.library = build_library(
            [Instrument(self.address, driver, options)], bench=QuietBench, clock="virtual", seed=seed
        )
        self.line = self.library.line(self.address)
        self.simulator = self.library.instrument(self.address)
        self.reads, self.settings = operations(self.simulator)
        visa_library = self.library if through is None else through(self.library)
        given = {"address": self.address, "late_window": LATE_WINDOW}
        self.device = create_device(driver, "device", given, visa_library=visa_library)
        self.recovering = self.slow = False
        self.outcomes = Counter()

    def operations(self):
        """Return every operation, as functions of nothing that check what they find."""
        steps = [lambda name=name: self._read(name) for name in [*self.reads, *self.settings]]
        return steps + [
            lambda name=name, value=value: self._set(name, value)
            for name, (values, _truth) in self.settings.items()
            for value in values
        ]

    def _read(self, name):
        truth = self.reads.get(name) or self.settings[name][1]
        before = truth()
        found = getattr(self.device, name)
        found = found() if callable(found) else found
        after = truth()
        if name == "frame":
            assert found.tobytes() == after
        elif isinstance(found, float):
            least, most = sorted((before, after))
            margin = self.tolerance + 1e-6 * abs(most)
            assert least - margin <= found <= most + margin, f"{name} is {after}, {found} was read"
        else:
            assert found == after, f"{name} is {after}, {found} was read"

    def _set(self, name, value):
        setattr(self.device, name, value)
        found = self.settings[name][1]()
        assert found == (pytest.approx(value, abs=self.tolerance) if isinstance(value, float) else value), name

    def perform(self, step):
        """Do one thing; check that what struck meanwhile explains an error. Return whether there was none."""
        struck, writes = len(self.line.history), self.line._writes
        recovering = self.recovering
        reconnects = self.device.state == "lost"
        try:
            step()
        except DeviceError as error:
            kinds = [kind for _number, kind in self.line.history[struck:]]
            allowed = [kind for fault in kinds for kind in KINDS[fault]]
            if len(kinds) + recovering >= 2:  # a fault that struck the recovery from another one
                allowed.append(DeviceFaultError)
            if recovering and self.slow:  # bytes that keep coming for longer than a recovery waits
                allowed.append(DeviceFaultError)
            if reconnects and kinds:
                allowed.append(DeviceOpenError)
            if step == self.device.open:
                allowed = [DeviceOpenError] if kinds else []
            self.outcomes[type(error).__name__] += 1
            self.recovering, self.slow = True, "slow" in kinds
            assert type(error) in allowed, f"{error!r} after {kinds or 'nothing'}"
            return False
        if self.line._writes > writes:
            self.recovering = len(self.line.history) > struck  # what struck may show itself later only
        self.outcomes["right"] += 1
        return True

    def ready(self):
        """Open the device, again where the last error was one that takes this."""
        lost = self.device._exchanges_.is_lost()
        if lost or self.device.state == "fault":
            self.line.clear()
            self.library.bench.clock.wait(60.0)  # as long as a person takes; a slow reply may still be coming
            self.device.reset()
        if not self.device.is_open:
            self.line.clear()
            self.recovering = False
            assert self.perform(self.device.open)

    def close(self):
        self.line.clear()
        self.device.reset()
        self.device.close(force=True)


#: Seconds that an instrument may take by itself before its reply is made late, within the drivers' timeouts.
OWN_TIME = 0.35


def fault(kind, device, rng):
    """Return a random fault; a late reply comes when the line is waited on, or up to the late window afterwards."""
    delay = rng.uniform(0.0, device.io_timeout + LATE_WINDOW - OWN_TIME) if kind == "late" else 0.5
    return Fault(kind, delay=delay, interval=rng.choice([0.001, 0.02, 0.3]))


def kinds_for(driver):
    return [kind for kind in FAULTS if not (kind == "garbled" and driver in UNPROTECTED)]


def soak(subject, steps, rate=0.15):
    """Perform random operations, each under a fault with some probability, some of which come in bursts."""
    rng, kinds, operations = subject.rng, kinds_for(subject.driver), subject.operations()
    subject.ready()
    for _ in range(steps):
        if rng.random() < rate:
            for _ in range(rng.choice([1, 1, 1, 2, 3])):
                subject.line.inject(fault(rng.choice(kinds), subject.device, rng), after=rng.choice([0, 0, 0, 1, 2]))
        subject.perform(rng.choice(operations))
        subject.ready()
    subject.close()
    return subject.outcomes


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("driver", DRIVERS)
def test_no_value_is_ever_wrong_and_every_error_is_of_the_right_kind(driver, seed, rounds):
    outcomes = soak(Subject(driver, seed), rounds(150, soak=10_000))
    assert outcomes["right"] > 100
    assert {"DeviceTimeoutError", "DeviceDisconnectedError"} <= set(outcomes)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("driver", ["thorlabs_pm100d", "scpi_camera"])
def test_at_other_kinds_of_address_no_value_is_ever_wrong(driver, rounds):
    for address in (GPIB, SERIAL, SOCKET, "TCPIP0::10.0.0.7::inst0::INSTR"):
        outcomes = soak(Subject(driver, 4, address=address), rounds(60, soak=3000))
        assert outcomes["right"] > 30


@pytest.mark.timeout(900)
@pytest.mark.parametrize("driver", DRIVERS)
def test_on_a_shared_bench_no_value_is_ever_wrong(driver, rounds):
    subject = Subject(driver, 5, through=lambda library: RemoteVisaLibrary(SharedSimulation(library)))
    assert soak(subject, rounds(60, soak=3000))["right"] > 30


@pytest.mark.timeout(900)
@pytest.mark.parametrize("driver", DRIVERS)
def test_every_reply_of_every_operation_survives_every_fault(driver, rounds):
    """One fault at a time: it strikes, the error is of its kind, and the next operation succeeds."""
    share = rounds(0.15, soak=1.0)
    subject = Subject(driver, 6)
    subject.ready()
    for step in subject.operations():
        writes = subject.line._writes
        assert subject.perform(step)
        for number in range(subject.line._writes - writes):
            for kind in kinds_for(driver):
                if subject.rng.random() > share:
                    continue
                subject.line.inject(fault(kind, subject.device, subject.rng), after=number)
                subject.perform(step)
                subject.line.clear()
                subject.ready()
                assert subject.perform(step)
    subject.close()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_late_reply_is_never_taken_for_the_reply_to_another_command_whatever_its_delay(driver, rounds):
    subject = Subject(driver, 7)
    subject.ready()
    operations, patience = subject.operations(), subject.device.io_timeout + LATE_WINDOW
    count = rounds(20, soak=2000)
    for number in range(count):
        delay = (number + 0.5) / count * (patience - OWN_TIME)
        subject.line.inject(Fault("late", delay=delay))
        subject.perform(subject.rng.choice(operations))
        subject.line.clear()
        subject.ready()
        assert subject.perform(subject.rng.choice(operations))
    subject.close()


@pytest.mark.parametrize("driver", sorted(set(DRIVERS) - UNPROTECTED))
def test_every_byte_of_a_reply_can_be_garbled_without_a_wrong_value(driver):
    subject = Subject(driver, 8)
    subject.ready()
    for name in [*subject.reads, *subject.settings]:
        for position in range(40):
            subject.line.inject(Fault("garbled", position=position))
            subject.perform(lambda name=name: subject._read(name))
            subject.line.clear()
            subject.ready()
    subject.close()


@pytest.mark.timeout(900)
def test_devices_that_share_a_wire_share_its_recovery(rounds):
    """Two channels of one laser: a late reply to one of them is not taken for one to the other."""
    subject = Subject("thorlabs_mcls1", 9)
    other = create_device(
        "thorlabs_mcls1", "other", {"address": SERIAL, "late_window": LATE_WINDOW, "channel": 2},
        visa_library=subject.library,
    )  # fmt: skip
    both = Subject("thorlabs_mcls1", 9)
    both.library, both.line, both.simulator = subject.library, subject.line, subject.simulator
    both.device = other
    both.reads, both.settings = laser(subject.simulator, channel=1)
    pair = [subject, both]
    for _ in range(rounds(150, soak=10_000)):
        for one in pair:
            one.ready()
        chosen = subject.rng.choice(pair)
        if subject.rng.random() < 0.15:
            kind = subject.rng.choice(kinds_for("thorlabs_mcls1"))
            subject.line.inject(fault(kind, chosen.device, subject.rng))
        chosen.perform(subject.rng.choice(chosen.operations()))
        for one in pair:  # the wire is one: what one left behind is found by the other
            one.recovering |= chosen.recovering
            one.slow |= chosen.slow
    for one in pair:
        one.close()
    assert subject.outcomes["right"] > 30
    assert both.outcomes["right"] > 30
