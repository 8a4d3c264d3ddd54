"""The bundled drivers: exact bytes against scripts written from their sources, behaviour against the simulators."""

import math
import re
import threading

import numpy as np
import pytest

from catkit_devices import interfaces, units
from catkit_devices._base.paths import reached, words
from catkit_devices._wire.exchange import _Stage
from catkit_devices.drivers import Plugins, create_device
from catkit_devices.errors import (
    DeviceFaultError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceValueError,
    MutexBrokenError,
)
from catkit_devices.interfaces import interfaces_of
from catkit_devices.simulation import Instrument, build_library

SERIAL = "ASRL7::INSTR"
USB = "USB0::0x1313::0x8078::P0001::INSTR"
SOCKET = "TCPIP0::10.0.0.7::2000::SOCKET"
ADDRESS = {
    "thorlabs_fw102c": SERIAL, "thorlabs_fw212c": SERIAL, "thorlabs_mcls1": SERIAL, "thorlabs_pm100d": USB,
    "npoint_lc400": SERIAL, "omega_ithx": SOCKET, "scpi_camera": SOCKET, "thorlabs_kdc101": SERIAL,
    "thorlabs_mff101": SERIAL, "keithley_2450": USB, "keysight_33500b": SOCKET, "keysight_34461a": USB,
    "keysight_e36312a": SOCKET, "lakeshore_336": SERIAL, "mcpherson_747": SERIAL, "mcpherson_789a4": SERIAL,
    "newport_8742": SOCKET, "newport_xps_q8": SOCKET, "rigol_ds1000z": SOCKET, "srs_sr830": "GPIB0::8::INSTR",
    "thorlabs_tsp01": USB,
}  # fmt: skip
OPTIONS = {"newport_xps_q8": {"groups": {"Group1": {"Pos": "mm"}}}}
IMPLEMENTS = {
    "thorlabs_fw102c": ("FilterWheel",), "thorlabs_fw212c": ("FilterWheel",), "thorlabs_mcls1": ("LaserSource",),
    "thorlabs_pm100d": ("PowerMeter",), "npoint_lc400": ("TipTilt",), "omega_ithx": ("EnvironmentSensor",),
    "scpi_camera": ("Camera",), "thorlabs_tsp01": ("EnvironmentSensor",),
}  # fmt: skip


@pytest.fixture
def bench(serve):
    """Open a driver on its own simulator or on one of the test's: ``device, simulator = bench(driver)``."""
    opened = []

    def build(driver, simulator=None, *, opens=True, options=None, **simulator_options):
        address = ADDRESS[driver]
        library = serve(address, simulator or driver, **simulator_options)
        device = create_device(driver, "device", {"address": address, **(options or {})}, visa_library=library)
        if opens:
            opened.append(device)
            device.open()
        return device, library.instrument(address)

    yield build
    for device in opened:
        if device.state == "fault":
            device._life_.abandon()
        device.close(force=True)


# --- all of them


@pytest.mark.parametrize("driver", ADDRESS)
def test_a_driver_says_what_it_can_do(driver):
    cls = Plugins().driver(driver)
    described = create_device(driver, "device", {"address": ADDRESS[driver]} | OPTIONS.get(driver, {})).describe()

    assert interfaces_of(cls) == IMPLEMENTS.get(driver, ())
    assert all(issubclass(cls, interfaces.interface(name)) for name in interfaces_of(cls))
    for name, facts in described["properties"].items():
        assert facts["doc"], name
        units.check_unit(facts["unit"])
    assert all(facts["doc"] for facts in described["commands"].values())


@pytest.mark.parametrize("driver", sorted(ADDRESS))
def test_every_property_can_be_read_from_its_simulator(bench, driver):
    device, _simulator = bench(driver, options=OPTIONS.get(driver))

    for name, facts in device.describe()["properties"].items():
        if facts["readable"] and not (driver == "lakeshore_336" and re.match(r"inputs\W+[CD]\W", name)):  # no sensor
            reached(device, words(name))


# --- FW102C

WHEEL = {b"*idn?": b"*idn?\rTHORLABS FW102C/FW212C Filter Wheel version 1.07\r> ", b"pcount?": b"pcount?\r6\r> "}


@pytest.fixture
def wheel(bench, script):
    return lambda **replies: bench(
        "thorlabs_fw102c", script, end=b"\r", replies=WHEEL | {key.encode(): value for key, value in replies.items()}
    )


def test_fw102c_asks_and_moves_with_these_bytes(wheel):
    device, simulator = wheel(**{"pos?": b"pos?\r3\r> ", "pos=3": b"pos=3\r> "})
    simulator.sent.clear()

    device.position = 3

    assert device.position == 3
    assert simulator.sent == [b"pos=3", b"pos?", b"pos?"]


def test_fw102c_ignores_zero_bytes_that_opening_the_port_may_cause(wheel):
    device, _simulator = wheel(**{"pos?": b"\0\0pos?\r3\r> "})

    assert device.position == 3


def test_fw102c_waits_until_the_wheel_has_arrived(bench):
    device, simulator = bench("thorlabs_fw102c")
    begun = simulator.bench.clock.time()

    device.position = 4

    assert simulator.bench.clock.time() - begun >= 3.0
    assert simulator.wheel.in_beam() == 4


def test_fw102c_that_did_not_arrive_is_an_error(wheel):
    device, _simulator = wheel(**{"pos=3": b"pos=3\r> ", "pos?": b"pos?\r2\r> "})

    with pytest.raises(DeviceProtocolError, match=r"did not arrive: it reports pos=2.*'pos=3'"):
        device.position = 3


def test_fw102c_refuses_a_reply_with_another_echo(wheel):
    device, _simulator = wheel(**{"pos?": b"speed?\r1\r> "})

    with pytest.raises(DeviceProtocolError, match=r"the echo 'pos\?' was expected, got 'speed\?'"):
        _ = device.position


def test_fw102c_that_refuses_is_an_error_after_which_the_line_is_fine(wheel):
    device, simulator = wheel(**{"pos?": [b"pos?\rCommand error CMD_NOT_DEFINED\n\r> ", b"pos?\r3\r> "]})

    with pytest.raises(DeviceProtocolError, match="refused: Command error CMD_NOT_DEFINED"):
        _ = device.position

    assert device.position == 3
    assert simulator.sent.count(b"*idn?") == 1


def test_fw102c_refuses_a_wheel_with_twelve_slots(wheel):
    with pytest.raises(DeviceOpenError, match="6 slots was expected, found 12"):
        wheel(**{"pcount?": b"pcount?\r12\r> "})


# --- MCLS1


def channel_of(library, channel):
    options = {"address": SERIAL, "channel": channel}
    return create_device("thorlabs_mcls1", f"laser{channel}", options, visa_library=library)


def test_mcls1_selects_its_channel_before_each_command(bench, script):
    said = {"id?": "THORLABS MCLS vers 1.06\r", "channel=2": "", "specs?": "Wavelength = 658\rIOp = 63.89\r",
            "current?": "12.50\r", "current=12.50": "", "system?": "1\r"}  # fmt: skip
    replies = {key.encode(): f"{key}\r{reply}> ".encode() for key, reply in said.items()}
    device, simulator = bench("thorlabs_mcls1", script, end=b"\r", replies=replies, options={"channel": 2})
    simulator.sent.clear()

    device.current = "0.0125 A"
    assert device.current == 12.5
    assert device.system is True

    assert simulator.sent == [b"channel=2", b"current=12.50", b"channel=2", b"current?", b"system?"]
    replies = simulator._replies
    replies.update({b"enable=0": b"enable=0\r> ", b"enable?": b"enable?\r0\r> "})


def test_mcls1_takes_the_limit_of_the_current_from_the_diode(bench):
    device, simulator = bench("thorlabs_mcls1", options={"channel": 3})

    assert device.describe()["properties"]["current"]["limits"] == (0.0, 41.59)
    with pytest.raises(DeviceValueError, match=r"current must be 0 to 41\.59 mA, got 50\.0 mA"):
        device.current = 50
    assert simulator.laser.currents == [0.0] * 4


def test_mcls1_that_is_closed_is_off_and_leaves_the_other_channels_on(serve):
    library = serve(SERIAL, "thorlabs_mcls1")
    laser = library.instrument(SERIAL).laser
    first, second = (channel_of(library, channel) for channel in (1, 2))

    with second:
        with first:
            first.enabled = second.enabled = True
            assert (first.enabled, laser.enabled, laser.system) == (True, [True, True, False, False], True)
        assert (laser.enabled, laser.system) == ([False, True, False, False], True)


def test_mcls1_that_cannot_be_switched_off_is_in_fault(bench, script):
    said = {"id?": "THORLABS MCLS vers 1.06\r", "channel=1": "", "specs?": "IOp = 63.89\r", "enable=0": "",
            "enable?": "1\r"}  # fmt: skip
    replies = {key.encode(): f"{key}\r{reply}> ".encode() for key, reply in said.items()}
    device, _simulator = bench("thorlabs_mcls1", script, end=b"\r", replies=replies)

    with pytest.raises(DeviceFaultError, match="enable was set to 0, but '1' was read back"):
        device.make_safe()

    assert device.state == "fault"


def test_mcls1_channels_never_get_the_values_of_another_channel(serve, often):
    library = serve(SERIAL, "thorlabs_mcls1")
    lasers = [channel_of(library, channel) for channel in (1, 2, 3, 4)]
    wrong = []

    def use(laser):
        for step in range(25):
            current = laser.channel + step / 100
            laser.current = current
            if laser.current != pytest.approx(current):
                wrong.append(laser.name)

    for laser in lasers:
        laser.open()
    threads = [threading.Thread(target=use, args=(laser,)) for laser in lasers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for laser in lasers:
        laser.close()

    assert wrong == []
    assert library.instrument(SERIAL).laser.currents == pytest.approx([1.24, 2.24, 3.24, 4.24])


# --- PM100D

METER = {b"*IDN?": b"THORLABS,PM100D,P0001,2.6.0\n", b"SYST:ERR?": b'+0,"No error"\n', b"SENS:POW:UNIT?": b"W\n",
         b"SENS:CORR:WAV? MIN": b"4.00000000E+02\n", b"SENS:CORR:WAV? MAX": b"1.10000000E+03\n"}  # fmt: skip


def test_pm100d_measures_and_sets_with_these_bytes(bench, script):
    device, simulator = bench("thorlabs_pm100d", script, replies={**METER, b"MEAS:POW?": b"1.23456789E-06\n"})
    simulator.sent.clear()

    device.wavelength = "0.635 um"

    assert device.power == 1.23456789e-06
    assert simulator.sent == [b"SENS:CORR:WAV 635.0", b"SYST:ERR?", b"MEAS:POW?"]


@pytest.mark.parametrize("reply", [b"11.23456789E-06\n", b"1.23456789\n", b"no sensor\n", b"1.2E-06,3.0E-06\n"])
def test_pm100d_accepts_only_whole_numbers(bench, script, reply):
    device, _simulator = bench("thorlabs_pm100d", script, replies={**METER, b"MEAS:POW?": reply})

    with pytest.raises(DeviceProtocolError):
        _ = device.power


def test_pm100d_above_its_range_reads_infinity(bench, script):
    device, _simulator = bench("thorlabs_pm100d", script, replies={**METER, b"MEAS:POW?": b"9.90000000E+37\n"})

    assert device.power == math.inf


def test_pm100d_reads_watts_whatever_it_was_left_at(bench):
    device, simulator = bench("thorlabs_pm100d", power=2e-3)
    simulator.feed(b"SENS:POW:UNIT DBM\n")
    device.close()

    with device:
        assert device.power == pytest.approx(2e-3)


def test_pm100d_that_refuses_a_setting_is_an_error_with_its_words(bench, script):
    none = b'+0,"No error"\n'
    refusal = [none, none, b'-222,"Data out of range"\n', none]  # the first two while it is opened
    device, _simulator = bench("thorlabs_pm100d", script, replies={**METER, b"SYST:ERR?": refusal})

    with pytest.raises(DeviceProtocolError, match=r'refused: -222,"Data out of range".*SENS:AVER:COUN 3'):
        device.averaging = 3


def test_pm100d_waits_for_long_averages(bench):
    device, simulator = bench("thorlabs_pm100d", power=1e-6)
    device.averaging = 1000
    begun = simulator.bench.clock.time()

    assert device.power == pytest.approx(1e-6)
    assert simulator.bench.clock.time() - begun >= 3.0


# --- LC400


def word(address, data, head=0xA0):
    return bytes([head]) + address.to_bytes(4, "little") + (data & 0xFFFFFFFF).to_bytes(4, "little") + b"\x55"


def ask(address):
    return b"\xa0" + address.to_bytes(4, "little") + b"\x55"


STAGE = {ask(0x11830028 + 4 * number): word(0x11830028 + 4 * number, 0x41414141) for number in range(5)}
for base in (0x11831000, 0x11832000):
    STAGE |= {ask(base + 0x44): word(base + 0x44, 2), ask(base + 0x78): word(base + 0x78, 2000),
              ask(base + 0x208): word(base + 0x208, 0)}  # fmt: skip


@pytest.fixture
def stage(bench, frames):
    return lambda **replies: bench(
        "npoint_lc400", frames, replies=STAGE | {bytes.fromhex(key): value for key, value in replies.items()}
    )


@pytest.mark.parametrize("head", [0xA0, 0xA4])
def test_lc400_reads_and_writes_words_with_these_bytes(stage, head):
    # The manufacturer's example: 1000 counts at 0x11831218.
    device, simulator = stage(A01812831155=word(0x11831218, 1000, head))
    simulator.sent.clear()

    device.tip = 1000 * 2000 / 1048574

    assert device.tip == pytest.approx(1.90735, abs=1e-5)
    written = bytes.fromhex("A2 18 12 83 11 E8 03 00 00 55")
    asked = bytes.fromhex("A0 18 12 83 11 55")
    assert simulator.sent == [written, asked, asked]


def test_lc400_that_did_not_accept_a_word_is_an_error(stage):
    device, _simulator = stage(A01812831155=word(0x11831218, 999))

    with pytest.raises(DeviceProtocolError, match="1000 was written, but 999 was read back"):
        device.tip = 1000 * 2000 / 1048574


def test_lc400_refuses_a_word_from_another_address(stage):
    device, _simulator = stage(A01812831155=word(0x11832218, 1000))

    with pytest.raises(DeviceProtocolError, match="the word at 0x11831218 was expected"):
        _ = device.tip


def test_lc400_moves_neither_axis_when_one_is_out_of_range(bench):
    device, simulator = bench("npoint_lc400")

    with pytest.raises(DeviceValueError, match=r"tilt must be -1000 to 1000 urad, got 1000\.5 urad"):
        device.move(10, 1000.5)

    assert simulator.axes[1].position() == 0.0


def test_lc400_moves_the_stage(serve):
    library = serve(SERIAL, "npoint_lc400")
    with create_device("npoint_lc400", "stage", {"address": SERIAL}, visa_library=library) as device:
        device.move("0.1 mrad", -50)
        library.bench.clock.wait(1.0)

        axes = library.instrument(SERIAL).axes
        assert [axis.position() for axis in axes.values()] == pytest.approx([100, -50], abs=2e-3)
        assert (device.tip, device.tilt) == pytest.approx((100, -50), abs=2e-3)
        assert device.measured_tip == pytest.approx(100, abs=0.5)


# --- operations that are cancelled


def cancel(device, begin, until, begun=lambda device: device._exchanges_._stage is _Stage.TALKING):
    """Begin an operation in another thread, break the device's mutex while it waits, and return what it raised."""
    caught = []

    def run():
        try:
            begin()
        except MutexBrokenError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: device.mutex.holder)
    until(lambda: begun(device))
    device._access_.mutex_lock.break_("test")
    thread.join(5)
    assert not thread.is_alive()
    return caught


def test_fw102c_goes_on_after_a_move_that_was_cancelled(until):
    library = build_library([Instrument(SERIAL, "thorlabs_fw102c", {"step_time": 0.4})])
    options = {"address": SERIAL, "late_window": 0.1}
    with create_device("thorlabs_fw102c", "wheel", options, visa_library=library) as device:
        begun = library.bench.clock.time()
        assert cancel(device, lambda: setattr(device, "position", 4), until)
        assert library.bench.clock.time() - begun < 0.8

        assert device.position == 4
        assert library.instrument(SERIAL).wheel.in_beam() == 4


def test_camera_goes_on_after_an_exposure_that_was_cancelled(until):
    library = build_library([Instrument(SOCKET, "scpi_camera", {"rows": 8, "columns": 8})])
    options = {"address": SOCKET, "late_window": 0.1}
    with create_device("scpi_camera", "camera", options, visa_library=library) as device:
        device.exposure_time = 10
        assert cancel(device, device.frame, until, lambda device: device._exposing)

        device.exposure_time = 0.01
        assert device.frame().shape == (8, 8)


# --- iTHX


def test_ithx_reads_both_values_though_a_line_end_is_between_them(bench, script):
    replies = {b"*SRTC": b"019.4\r", b"*SRH": b"057.0\r", b"*SRB": b"019.4\r,057.0\r", b"*SRDC": b"03.36\r"}
    device, simulator = bench("omega_ithx", script, end=b"\r", replies=replies)

    assert device.read_both() == (19.4, 57.0)
    assert (device.temperature, device.humidity, device.dew_point) == (19.4, 57.0, 3.36)
    assert simulator.sent == [b"*SRTC", b"*SRB", b"*SRTC", b"*SRH", b"*SRDC"]


@pytest.mark.parametrize("reply", [b"1019.4\r", b"19.4\r", b"Serial Time Out\r", b"0019.4\r", b"\r"])
def test_ithx_accepts_only_complete_readings(bench, script, reply):
    device, _simulator = bench("omega_ithx", script, end=b"\r", replies={b"*SRTC": b"019.4\r", b"*SRH": reply})

    with pytest.raises(DeviceProtocolError):
        _ = device.humidity


# --- camera


def test_camera_frames_are_the_region_in_16_bits(bench):
    device, _simulator = bench("scpi_camera", rows=32, columns=48)
    whole = device.frame()
    device.region = (8, 16, 10, 20)
    part = device.frame()

    assert (whole.shape, whole.dtype) == ((32, 48), np.uint16)
    assert part.shape == device.shape == (10, 20)
    assert np.unravel_index(whole.argmax(), whole.shape) == pytest.approx((15.5, 23.5), abs=6)


def test_camera_waits_for_exposures_longer_than_its_timeout(bench):
    device, _simulator = bench("scpi_camera", rows=8, columns=8)
    device.exposure_time = "10 s"

    assert device.frame().mean() > 1000


@pytest.mark.parametrize("region", [(0, 0, 33, 1), (-1, 0, 1, 1), (0, 0, 0, 1), (0, 0, 1), (0.5, 0, 1, 1)])
def test_camera_refuses_regions_outside_of_its_sensor(bench, region):
    device, _simulator = bench("scpi_camera", rows=32, columns=32)

    with pytest.raises(DeviceValueError, match="region must"):
        device.region = region
