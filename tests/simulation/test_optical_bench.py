"""The optical bench: a change of one instrument is visible in the others."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import pyvisa

from catkit_devices.errors import ConfigurationError
from catkit_devices.sim.camera import Camera
from catkit_devices.sim.npoint_lc400 import LC400
from catkit_devices.sim.omega_ithx import ITHX
from catkit_devices.sim.optical_bench import OpticalBench
from catkit_devices.sim.thorlabs_fw102c import FW102C
from catkit_devices.sim.thorlabs_mcls1 import MCLS1
from catkit_devices.sim.thorlabs_pm100d import PM100D
from catkit_devices.simulation import Instrument, RealClock, VirtualClock, build_library

ADDRESSES = {
    "laser": "ASRL/dev/laser::INSTR",
    "nd": "ASRL/dev/nd::INSTR",
    "colour": "ASRL/dev/colour::INSTR",
    "stage": "ASRL/dev/stage::INSTR",
    "meter": "USB0::0x1313::0x8078::P0009999::INSTR",
    "sensor": "TCPIP0::ithx::2000::SOCKET",
    "camera": "TCPIP0::camera::5025::SOCKET",
}


class Laboratory:
    """All instruments of the bench, each with what a test needs of it."""

    def __init__(self, *, clock="virtual", seed=1, **options):
        simulators = {
            "laser": (MCLS1, {}), "nd": (FW102C, {"role": "nd"}), "colour": (FW102C, {"role": "colour"}),
            "stage": (LC400, {}), "meter": (PM100D, {}), "sensor": (ITHX, {}), "camera": (Camera, {}),
        }  # fmt: skip
        library = build_library(
            [Instrument(ADDRESSES[name], *simulator) for name, simulator in simulators.items()],
            bench=OpticalBench,
            bench_options=options,
            clock=clock,
            seed=seed,
        )
        self.bench = library.bench
        self.manager = pyvisa.ResourceManager(library)
        ends = {"laser": "\r", "nd": "\r", "colour": "\r", "stage": "", "meter": "\n", "sensor": "\r", "camera": "\n"}
        self.open = {
            name: self.manager.open_resource(address, write_termination=ends[name], read_termination=ends[name] or None,
                                             timeout=10_000)
            for name, address in ADDRESSES.items()
        }  # fmt: skip

    def command(self, name, *lines):
        """Send lines to an instrument with a prompt; return the answer to the last."""
        for line in lines:
            self.open[name].write(line)
            received = b""
            while not received.endswith(b"> "):
                received += self.open[name].read_bytes(1)
        return received.split(b"\r")[1].decode()

    def shine(self, current=60.0):
        self.command("laser", "channel=1", f"current={current}", "enable=1", "system=1")
        self.bench.clock.wait(10.0)

    def power(self):
        return float(self.open["meter"].query("MEAS:POW?"))

    def tilt(self, axis, microradians):
        counts = round(microradians * 1048574 / 2000)
        self.open["stage"].write_raw(struct.pack("<BIiB", 0xA2, 0x11830218 + 0x1000 * axis, counts, 0x55))
        self.bench.clock.wait(0.2)

    def image(self):
        values = self.open["camera"].query_binary_values("READ?", datatype="H", container=np.array)
        return values.reshape(128, 128).astype(float)

    def spot(self):
        """Return (x, y) in µm as the camera sees them: the centroid of what is well above the background."""
        image = self.image()
        image = np.where(image > 200, image - 100, 0)
        y, x = (5.0 * (np.indices(image.shape)[axis] - 63.5) for axis in (0, 1))
        return (image * x).sum() / image.sum(), (image * y).sum() / image.sum()


@pytest.fixture
def laboratory():
    laboratories = []

    def build(**options):
        laboratories.append(Laboratory(**options))
        return laboratories[-1]

    yield build
    for each in laboratories:
        each.manager.close()


def test_every_density_dims_the_power_by_its_factor(laboratory):
    lab = laboratory(noise=0, drift=0)
    lab.shine()
    lab.command("colour", "pos=4")
    powers = []
    for slot in range(1, 7):
        lab.command("nd", f"pos={slot}")
        powers.append(lab.power())
    assert powers[0] > 1e-4
    assert np.log10(powers[0] / np.array(powers)) == pytest.approx([0.0, 0.3, 0.6, 1.0, 2.0, 3.0], abs=1e-6)


def test_the_band_passes_let_through_what_is_near_the_laser(laboratory):
    lab = laboratory(noise=0, drift=0)
    lab.shine()
    powers = []
    for slot in range(1, 7):
        lab.command("colour", f"pos={slot}")
        powers.append(lab.power())
    assert np.argmax(powers) == 3
    assert powers[2] == pytest.approx(powers[4], rel=1e-6)
    half = 10 ** (np.log10(2) * (15 / 20) ** 2)
    assert powers[3] / powers[2] == pytest.approx(half, rel=1e-3)


def test_a_position_without_a_filter_blocks_the_beam(laboratory):
    lab = laboratory(noise=0, drift=0)
    lab.shine()
    lab.command("nd", "pcount=12", "pos=12")
    assert lab.power() == 0.0


def test_a_moving_wheel_blocks_the_beam(laboratory):
    lab = laboratory(noise=0, drift=0)
    lab.shine()
    lit = lab.power()
    lab.open["nd"].write("pos=2")
    assert lab.power() == 0.0
    lab.bench.clock.wait(2.0)
    assert 0 < lab.power() < lit


def test_power_follows_the_current_above_threshold_and_both_switches(laboratory):
    lab = laboratory(noise=0, drift=0)
    powers = {}
    for current in (20, 40, 50, 60):
        lab.shine(current)
        powers[current] = lab.power()
    assert powers[20] < 1e-3 * powers[40]
    assert powers[60] - powers[50] == pytest.approx(powers[50] - powers[40], rel=1e-6)
    for off in ("enable=0", "system=0"):
        lab.shine()
        lab.command("laser", off)
        assert lab.power() == 0.0


def test_the_mirror_moves_the_spot_and_the_coupling(laboratory):
    lab = laboratory(drift=0)
    lab.shine()
    lab.command("colour", "pos=4")
    centred = lab.power()
    assert lab.spot() == pytest.approx((0, 0), abs=0.5)
    lab.tilt(1, 100.0)
    assert lab.bench.true_offset() == pytest.approx((40.0, 0.0), abs=0.01)
    assert lab.spot() == pytest.approx((40.0, 0.0), abs=0.5)
    assert lab.power() / centred == pytest.approx(np.exp(-0.5), rel=0.01)
    lab.tilt(2, -50.0)
    assert lab.spot() == pytest.approx((40.0, -20.0), abs=0.5)


def test_the_spot_drifts_and_can_be_brought_back(laboratory):
    lab = laboratory()
    lab.shine()
    lab.command("colour", "pos=4")
    lab.bench.clock.wait(25.0)
    x, y = lab.spot()
    assert np.hypot(x, y) > 10
    assert (x, y) == pytest.approx(lab.bench.drift_offset(), abs=1.0)
    drifted = lab.power()
    lab.tilt(1, -x / 0.4)
    lab.tilt(2, -y / 0.4)
    assert np.hypot(*lab.bench.true_offset()) < 5
    assert np.hypot(*lab.bench.drift_offset()) > 10
    assert lab.power() > drifted


def test_the_drift_starts_at_zero_and_depends_on_time_and_seed_only():
    one, same, other = (OpticalBench(clock=VirtualClock(), seed=seed) for seed in (3, 3, 4))
    same.meter_power(635.0)
    assert one.drift_offset(0.0) == (0.0, 0.0)
    assert one.drift_offset(20.0) == same.drift_offset(20.0) != other.drift_offset(20.0)


def test_the_camera_sees_the_filters_too(laboratory):
    lab = laboratory(drift=0)
    lab.shine()
    lab.command("colour", "pos=4")
    bright = (lab.image() - 100.5).sum()
    lab.command("nd", "pos=4")
    assert (lab.image() - 100.5).sum() / bright == pytest.approx(0.1, abs=0.01)


def test_photon_noise_grows_with_the_square_root_of_the_light(laboratory):
    lab = laboratory(drift=0)
    lab.shine()
    lab.command("colour", "pos=4")
    difference = (lab.image() - lab.image())[60:68, 60:68]
    expected = lab.image()[60:68, 60:68] - 100
    assert difference.var() / 2 == pytest.approx(expected.mean() + 9, rel=0.5)


def test_the_wavelength_setting_scales_the_reading(laboratory):
    lab = laboratory(noise=0, drift=0)
    lab.shine()
    right = lab.power()
    assert right == pytest.approx(lab.bench.true_power())
    lab.open["meter"].write("SENS:CORR:WAV 500")
    assert lab.power() / right == pytest.approx(0.385 / 0.24, rel=1e-3)


def test_noise_is_small_seeded_and_never_the_same_twice(laboratory):
    readings = []
    for seed in (1, 1, 2):
        lab = laboratory(seed=seed, drift=0)
        lab.shine()
        readings.append([lab.power() for _ in range(50)])
    assert readings[0] == readings[1] != readings[2]
    assert 0.0005 < np.std(readings[0]) / np.mean(readings[0]) < 0.002
    assert len(set(readings[0])) > 40


def test_the_room_is_near_its_set_values_and_its_dry_air_can_fail(laboratory):
    lab = laboratory(humidity_rise=6.0)
    sensor = lab.open["sensor"]
    assert float(sensor.query("*SRTC")) == pytest.approx(21.0, abs=0.2)
    assert float(sensor.query("*SRH")) == pytest.approx(22.0, abs=0.4)
    lab.bench.clock.wait(120.0)
    assert float(sensor.query("*SRH")) == pytest.approx(34.0, abs=2.0)


def test_the_whole_dialogue_is_the_same_for_the_same_seed(laboratory):
    def everything(seed):
        lab = laboratory(seed=seed)
        lab.shine()
        lab.command("colour", "pos=4")
        lab.tilt(1, 30)
        return lab.power(), lab.image().tobytes(), lab.open["sensor"].query("*SRH"), lab.spot()

    assert everything(5) == everything(5)
    assert everything(5) != everything(6)


@pytest.mark.parametrize(
    ("instruments", "message"),
    [
        ([("ASRL1", FW102C)], "say which wheel of the bench this is, with the option 'role'"),
        ([("ASRL1", FW102C, {"role": "color"})], "role must be one of nd, colour on this bench, got 'color'"),
        ([("ASRL1", FW102C, {"role": "nd"}), ("ASRL2", FW102C, {"role": "nd"})], "two instruments have the role 'nd'"),
        ([("ASRL1", PM100D, {"power": 1.0})], "the option power is for a bench without light"),
    ],
)
def test_instruments_that_do_not_fit_the_bench_are_refused(instruments, message):
    with pytest.raises(ConfigurationError, match=message):
        build_library([Instrument(*each) for each in instruments], bench=OpticalBench)


@pytest.mark.parametrize("options", [{"pinhole": 0}, {"noise": -1}, {"noise": float("nan")}])
def test_an_impossible_bench_is_refused(options):
    with pytest.raises(ConfigurationError, match="got"):
        OpticalBench(clock=RealClock(), **options)
