"""Random operations under random faults: every value that a driver returns is the instrument's true one."""

import random
from collections import Counter

import pytest

from catkit_devices.drivers import create_device
from catkit_devices.errors import DeviceError
from catkit_devices.simulation import Fault

KINDS = ("no_reply", "late", "truncated", "garbled", "extra", "disconnect", "slow")
#: Frames without a checksum: a flipped bit in the data is beyond what their readers could find.
UNPROTECTED = {"npoint_lc400", "scpi_camera"}


def fw102c(device, simulator, rng):
    def move():
        device.position = rng.randint(1, 6)

    return [move, lambda: (device.position, simulator.wheel.position)]


def mcls1(device, simulator, rng):
    laser = simulator.laser

    def current():
        device.current = rng.choice([10, 20.5, 30.25])

    def enabled():
        device.enabled = rng.random() < 0.5

    return [
        current,
        enabled,
        lambda: (device.current, laser.currents[0]),
        lambda: (device.enabled, laser.enabled[0] and laser.system),
    ]


def pm100d(device, simulator, rng):
    def wavelength():
        device.wavelength = rng.choice([500, 600, 700.5])

    def averaging():
        device.averaging = rng.randint(1, 9)

    def power():
        simulator._power = rng.choice([1e-3, 1.2345e-6])
        return device.power, simulator._power

    return [
        wavelength,
        averaging,
        power,
        lambda: (device.wavelength, simulator.value("wavelength")),
        lambda: (device.averaging, simulator.value("average_count")),
    ]


def lc400(device, simulator, rng):
    def counts(base):
        word = simulator._words.get(base + 0x218, 0)
        return round((word - (1 << 32) * (word >= 1 << 31)) * 2000 / 1048574, 6)

    def move():
        device.move(rng.uniform(-900, 900), rng.uniform(-900, 900))

    return [
        move,
        lambda: (round(device.tip, 6), counts(0x11831000)),
        lambda: (round(device.tilt, 6), counts(0x11832000)),
    ]


def ithx(device, simulator, rng):
    return [
        lambda: (device.temperature, 21.0),
        lambda: (device.humidity, 22.0),
        lambda: (device.read_both(), (21.0, 22.0)),
    ]


def camera(device, simulator, rng):
    def exposure():
        device.exposure_time = rng.choice([0.01, 0.02])

    return [
        exposure,
        lambda: (device.exposure_time, simulator._exposure),
        lambda: (device.frame().tobytes(), simulator._frame.pixels),
    ]


SERIAL, SOCKET, USB = "ASRL7::INSTR", "TCPIP0::10.0.0.7::2000::SOCKET", "USB0::0x1313::0x8078::P0001::INSTR"
DRIVERS = {
    "thorlabs_fw102c": (SERIAL, fw102c, {}),
    "thorlabs_fw212c": (SERIAL, fw102c, {}),
    "thorlabs_mcls1": (SERIAL, mcls1, {}),
    "thorlabs_pm100d": (USB, pm100d, {}),
    "npoint_lc400": (SERIAL, lc400, {}),
    "omega_ithx": (SOCKET, ithx, {}),
    "scpi_camera": (SOCKET, camera, {"rows": 8, "columns": 8}),
}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.timeout(600)
def test_no_fault_ever_makes_a_driver_return_a_wrong_value(serve, rounds, driver, seed):
    address, operations, options = DRIVERS[driver]
    library = serve(address, driver, **options)
    device = create_device(driver, "device", {"address": address}, visa_library=library)
    simulator, line, rng = library.instrument(address), library.line(address), random.Random(seed)
    kinds = [kind for kind in KINDS if not (kind == "garbled" and driver in UNPROTECTED)]
    steps = operations(device, simulator, rng)
    outcomes = Counter()

    def attempt(step):
        try:
            outcome = step()
        except DeviceError as error:
            outcomes[type(error).__name__] += 1
            return None
        outcomes["right"] += 1
        return outcome

    for _ in range(rounds(200, soak=5000)):
        if device.state == "fault":
            device.reset()
        library.reconnect(address)
        if device._exchanges_.is_lost():
            attempt(lambda: device.close(force=True))
        if not device.is_open:
            attempt(lambda: device.open() and None)
            continue
        if rng.random() < 0.15:
            kind = rng.choice(kinds)
            delay = rng.uniform(0.01, device.io_timeout + 0.95) if kind == "late" else 0.5
            line.inject(Fault(kind, delay=delay))
        found = attempt(rng.choice(steps))
        if found is not None:
            value, truth = found
            assert value == truth

    line.clear()
    device.reset()
    assert outcomes["right"] > 100
    assert len(outcomes) >= 3
