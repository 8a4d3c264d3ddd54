"""The bundled simulators, byte for byte, through the real VISA stack and without any driver of ours.

The expected streams are those that the sources in each simulator's docstring give.
"""

from __future__ import annotations

import struct

import numpy as np
import pytest
import pyvisa
from pyvisa.constants import StatusCode

from catkit_devices.drivers import Plugins
from catkit_devices.errors import ConfigurationError
from catkit_devices.sim.camera import Camera
from catkit_devices.sim.npoint_lc400 import LC400
from catkit_devices.sim.omega_ithx import ITHX
from catkit_devices.sim.thorlabs_fw102c import FW102C
from catkit_devices.sim.thorlabs_mcls1 import MCLS1
from catkit_devices.sim.thorlabs_pm100d import PM100D
from catkit_devices.simulation import Bench, VirtualClock, build_library

SERIAL = "ASRL/dev/ttyUSB0::INSTR"
METER = "USB0::0x1313::0x8078::P0009999::INSTR"
SENSOR = "TCPIP0::ithx.lab::2000::SOCKET"
CAMERA = "TCPIP0::camera.lab::5025::SOCKET"


def talk(resource, sent, count=None):
    """Write bytes; return `count` bytes, or what is there without waiting."""
    resource.write_raw(sent)
    return resource.read_bytes(resource.bytes_in_buffer if count is None else count)


class TestFW102C:
    @pytest.fixture
    def wheel(self, visa):
        return visa((SERIAL, FW102C)).open_resource(SERIAL, baud_rate=115200, timeout=10_000)

    @pytest.mark.parametrize(
        ("sent", "received"),
        [
            (b"pos?\r", b"pos?\r1\r> "),
            (b"*idn?\r", b"*idn?\rTHORLABS FW102C/FW212C Filter Wheel version 1.07\r> "),
            (b"pcount?\r", b"pcount?\r6\r> "),
            (b"speed?\r", b"speed?\r1\r> "),
            (b"sensors=1\r", b"sensors=1\r> "),
            (b"save\r", b"save\r> "),
            (b"pos=1\r", b"pos=1\r> "),
            (b"\r", b"\rCommand error CMD_NOT_DEFINED\n\r> "),
            (b"POS?\r", b"POS?\rCommand error CMD_NOT_DEFINED\n\r> "),
            (b"pos=7\r", b"pos=7\rCommand error CMD_ARG_INVALID\n\r> "),
            (b"pos=x\r", b"pos=x\rCommand error CMD_ARG_INVALID\n\r> "),
            (b"speed=2\r", b"speed=2\rCommand error CMD_ARG_INVALID\n\r> "),
            (b"\xff\r", b"\xff\rCommand error CMD_NOT_DEFINED\n\r> "),
        ],
    )
    def test_the_dialogue_is_echo_answer_prompt(self, wheel, sent, received):
        assert talk(wheel, sent) == received

    def test_no_reply_comes_before_the_line_is_complete(self, wheel):
        assert talk(wheel, b"po") == b""
        assert talk(wheel, b"s?\r") == b"pos?\r1\r> "

    @pytest.mark.parametrize(("target", "steps"), [(2, 1), (3, 2), (4, 3), (5, 2), (6, 1)])
    def test_the_prompt_comes_when_the_wheel_has_arrived_the_shorter_way(self, wheel, target, steps):
        clock = wheel.visalib.bench.clock
        start = clock.time()
        assert talk(wheel, b"pos=%d\r" % target) == b"pos=%d\r" % target
        clock.wait(steps - 0.01)
        assert wheel.bytes_in_buffer == 0
        assert wheel.read_bytes(2) == b"> "
        assert clock.time() - start == pytest.approx(steps, abs=0.05)
        assert talk(wheel, b"pos?\r") == b"pos?\r%d\r> " % target

    def test_a_slow_wheel_takes_twice_as_long(self, wheel):
        clock = wheel.visalib.bench.clock
        talk(wheel, b"speed=0\r")
        start = clock.time()
        talk(wheel, b"pos=3\r", len(b"pos=3\r> "))
        assert clock.time() - start == pytest.approx(4.0, abs=0.1)

    def test_commands_sent_during_a_move_are_carried_out_after_it(self, wheel):
        clock, simulator = wheel.visalib.bench.clock, wheel.visalib.instrument(SERIAL)
        wheel.write_raw(b"pos=2\r")
        wheel.write_raw(b"pos=4\rpos?\r")
        clock.wait(0.5)
        assert wheel.read_bytes(wheel.bytes_in_buffer) == b"pos=2\r"
        assert simulator.wheel.position == 2
        assert wheel.read_bytes(19) == b"> pos=4\r> pos?\r4\r> "
        assert clock.time() == pytest.approx(3.0, abs=0.1)

    def test_it_can_have_twelve_positions(self, wheel):
        assert talk(wheel, b"pcount=12\r") == b"pcount=12\r> "
        assert talk(wheel, b"pos=12\r", 9) == b"pos=12\r> "

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"role": "nd"}, "role 'nd' needs a bench with filter wheels"),
            ({"position": 7}, "position must be 1 to 6, got 7"),
            ({"step_time": -1}, "step_time must not be negative"),
        ],
    )
    def test_impossible_options_are_refused(self, visa, options, message):
        with pytest.raises(ConfigurationError, match=message):
            visa((SERIAL, FW102C, options))


class TestMCLS1:
    @pytest.fixture
    def laser(self, visa):
        return visa((SERIAL, MCLS1)).open_resource(SERIAL, baud_rate=115200)

    @pytest.mark.parametrize(
        ("sent", "received"),
        [
            (b"id?\r", b"id?\rTHORLABS MCLS vers 1.06\r> "),
            (b"*idn?\r", b"*idn?\rCommand error CMD_NOT_DEFINED\n\r> "),
            (b"channel?\r", b"channel?\r1\r> "),
            (b"channel=5\r", b"channel=5\rCommand error CMD_ARG_INVALID\n\r> "),
            (b"current=40.5\r", b"current=40.5\r> "),
            (b"current=68.10\r", b"current=68.10\rCommand error CMD_ARG_INVALID\n\r> "),
            (b"current=-1\r", b"current=-1\rCommand error CMD_ARG_INVALID\n\r> "),
            (b"current=nan\r", b"current=nan\rCommand error CMD_ARG_INVALID\n\r> "),
            (b"enable=2\r", b"enable=2\rCommand error CMD_ARG_INVALID\n\r> "),
            (b"target=30.5\r", b"target=30.5\rCommand error CMD_ARG_INVALID\n\r> "),
            (b"target?\r", b"target?\r25.00\r> "),
            (b"step=0.01\r", b"step=0.01\r> "),
            (b"power=1\r", b"power=1\rCommand error CMD_NOT_DEFINED\n\r> "),
            (b"statword?\r", b"statword?\r00000000\r> "),
            (
                b"specs?\r",
                b"specs?\r"
                + b"\r".join(
                    [
                        b"Wavelength = 635.0",
                        b"POut = 2.50",
                        b"IOp = 68.09",
                        b"IMon = 0.0",
                        b"ITh = 30.00",
                        b"SerialNumber = SIM-635-01",
                    ]
                )
                + b"\r> ",
            ),
        ],
    )
    def test_the_dialogue_is_echo_answer_prompt(self, laser, sent, received):
        assert talk(laser, sent) == received

    def test_settings_belong_to_the_selected_channel(self, laser):
        talk(laser, b"current=10\r")
        talk(laser, b"channel=2\r")
        assert talk(laser, b"current?\r") == b"current?\r0.00\r> "
        talk(laser, b"current=20\r")
        talk(laser, b"channel=1\r")
        assert talk(laser, b"current?\r") == b"current?\r10.00\r> "

    def test_light_needs_both_switches_and_settles(self, laser):
        clock = laser.visalib.bench.clock

        def power():
            return float(talk(laser, b"power?\r").split(b"\r")[1])

        talk(laser, b"current=68.09\r")
        talk(laser, b"enable=1\r")
        clock.wait(5)
        assert power() == 0.0
        assert talk(laser, b"statword?\r") == b"statword?\r00001000\r> "
        talk(laser, b"system=1\r")
        assert power() < 0.5
        clock.wait(2)
        assert power() == 2.5
        talk(laser, b"enable=0\r")
        assert power() == 0.0


class TestLC400:
    @pytest.fixture
    def stage(self, visa):
        return visa((SERIAL, LC400)).open_resource(SERIAL, baud_rate=115200, timeout=500)

    def read(self, stage, address):
        reply = talk(stage, struct.pack("<BIB", 0xA0, address, 0x55), 10)
        start, at, word, end = struct.unpack("<BIIB", reply)
        assert (start, at, end) == (0xA0, address, 0x55)
        return word

    def test_a_written_word_is_read_back(self, stage):
        """The manufacturer's own example of both frames."""
        stage.write_raw(bytes.fromhex("A2 18 12 83 11 E8 03 00 00 55"))
        assert stage.bytes_in_buffer == 0
        assert talk(stage, bytes.fromhex("A0 18 12 83 11 55")) == bytes.fromhex("A0 18 12 83 11 E8 03 00 00 55")

    def test_a_block_is_read_with_its_words_in_order(self, stage):
        reply = talk(stage, bytes.fromhex("A4 28 00 83 11 05 00 00 00 55"), 26)
        assert reply[:5] == bytes.fromhex("A4 28 00 83 11")
        assert reply[5:-1].rstrip(b"\0") == b"LC403-SIM fw 1.0"
        assert reply[-1] == 0x55

    @pytest.mark.parametrize(("offset", "value"), [(0x720, 0.125), (0x728, 37.5), (0x730, -1e-300)])
    def test_a_gain_is_two_words_low_word_first(self, stage, offset, value):
        low, high = struct.unpack("<2I", struct.pack("<d", value))
        address = 0x11832000 + offset
        stage.write_raw(struct.pack("<BIIB", 0xA2, address, low, 0x55) + struct.pack("<BIB", 0xA3, high, 0x55))
        reply = talk(stage, struct.pack("<BIIB", 0xA4, address, 2, 0x55), 14)
        assert struct.unpack("<d", reply[5:13]) == (value,)

    def test_a_read_sets_the_address_of_the_next_write(self, stage):
        stage.write_raw(struct.pack("<BIIB", 0xA2, 0x11831720, 1, 0x55))
        self.read(stage, 0x11831300)
        stage.write_raw(struct.pack("<BIB", 0xA3, 99, 0x55))
        assert self.read(stage, 0x11831304) == 99

    def test_frames_may_come_in_pieces_and_binary_line_feeds_end_nothing(self, stage):
        stage.write_raw(struct.pack("<BIIB", 0xA2, 0x11831218, 0x0A0A0A, 0x55)[:4])
        stage.write_raw(struct.pack("<BIIB", 0xA2, 0x11831218, 0x0A0A0A, 0x55)[4:])
        assert self.read(stage, 0x11831218) == 0x0A0A0A

    def test_bytes_that_are_not_a_frame_are_skipped(self, stage):
        assert talk(stage, b"\x00\xa0\x01\x02" + bytes.fromhex("A0 78 10 83 11 55"), 10)[5:9] == struct.pack("<I", 2000)

    @pytest.mark.parametrize(
        "frame", ["A0 00 00 00 20 55", "A4 28 00 83 11 00 00 00 00 55", "A4 FC 3F 83 11 02 00 00 00 55"]
    )
    def test_addresses_without_memory_do_not_answer(self, stage, frame):
        stage.write_raw(bytes.fromhex(frame))
        with pytest.raises(pyvisa.VisaIOError) as caught:
            stage.read_bytes(1)
        assert caught.value.error_code == StatusCode.error_timeout

    def sensor(self, stage):
        return struct.unpack("<i", struct.pack("<I", self.read(stage, 0x11831334)))[0]

    def go(self, stage, counts):
        stage.write_raw(struct.pack("<BIiB", 0xA2, 0x11831218, counts, 0x55))

    def test_the_axis_settles_at_the_commanded_counts(self, stage):
        self.go(stage, -262144)
        assert abs(self.sensor(stage)) < 262144
        stage.visalib.bench.clock.wait(0.1)
        assert self.sensor(stage) == pytest.approx(-262144, abs=20)
        assert stage.visalib.instrument(SERIAL).axes[1].position() == pytest.approx(-500, abs=0.01)

    def test_an_open_loop_misses_its_target_and_without_gain_nothing_moves(self, stage):
        clock = stage.visalib.bench.clock
        stage.write_raw(struct.pack("<BIIB", 0xA2, 0x11831084, 0, 0x55))
        self.go(stage, 100000)
        clock.wait(0.1)
        assert self.sensor(stage) == pytest.approx(94000, abs=20)
        stage.write_raw(struct.pack("<BIIB", 0xA2, 0x11831728, 0, 0x55) + struct.pack("<BIB", 0xA3, 0, 0x55))
        stage.write_raw(struct.pack("<BIIB", 0xA2, 0x11831084, 1, 0x55))
        self.go(stage, 0)
        clock.wait(10)
        assert self.sensor(stage) == pytest.approx(94000, abs=20)

    def test_a_command_beyond_the_range_goes_to_its_end(self, stage):
        self.go(stage, 600000)
        stage.visalib.bench.clock.wait(0.1)
        assert self.sensor(stage) == pytest.approx(524287, abs=20)

    def test_the_first_byte_of_a_read_reply_can_be_the_other_one(self, visa):
        stage = visa((SERIAL, LC400, {"read_reply": 0xA4})).open_resource(SERIAL)
        assert talk(stage, bytes.fromhex("A0 78 10 83 11 55"))[0] == 0xA4


class TestPM100D:
    @pytest.fixture
    def meter(self, visa):
        return visa((METER, PM100D, {"power": 1.25e-3})).open_resource(
            METER, read_termination="\n", write_termination="\n"
        )

    @pytest.mark.parametrize(
        ("query", "reply"),
        [
            ("*IDN?", "THORLABS,PM100D,P0009999,2.6.0"),
            ("*OPC?", "1"),
            ("SYSTem:ERRor?", '+0,"No error"'),
            (":syst:err:next?", '+0,"No error"'),
            ("SYST:VERS?", "1999.0"),
            ("SENSE:CORRECTION:WAVELENGTH?", "6.35000000E+02"),
            ("sens:corr:wav? max", "1.10000000E+03"),
            ("MEASure:POWer?", "1.25000000E-03"),
            ("READ?", "1.25000000E-03"),
            ("SENS:POW:RANG:UPP?", "5.00000000E-02"),
            ("SENS:POW:UNIT?", "W"),
        ],
    )
    def test_queries_are_answered_in_long_and_short_form(self, meter, query, reply):
        assert meter.query(query) == reply

    def test_settings_are_kept_and_reset(self, meter):
        meter.write("SENSe:CORRection:WAVelength 850")
        meter.write("sens:aver:coun 10")
        assert (meter.query("SENS:CORR:WAV?"), meter.query("SENS:AVER:COUN?")) == ("8.50000000E+02", "10")
        meter.write("*RST")
        assert meter.query("SENS:CORR:WAV?") == "6.35000000E+02"

    @pytest.mark.parametrize(
        ("command", "error", "events"),
        [
            ("SENS:CORR:WAV 399", '-222,"Data out of range"', 16),
            ("SENS:AVER:COUN 0", '-222,"Data out of range"', 16),
            ("SENS:POW:RANG:AUTO 2", '-222,"Data out of range"', 16),
            ("SENS:CORR:WAV 1E999", '-222,"Data out of range"', 16),
            ("*ESE 256", '-222,"Data out of range"', 16),
            ("SENS:POW:UNIT BTU", '-224,"Illegal parameter value"', 16),
            ("SENS:CORR:WAV green", '-104,"Data type error"', 32),
            ("SENS:CORR:WAV", '-109,"Missing parameter"', 32),
            ("SENS:CORR:WAV? 5", '-108,"Parameter not allowed"', 32),
            ("SENS:CORR:WAVE 500", '-113,"Undefined header"', 32),
            ("NONSENSE", '-113,"Undefined header"', 32),
        ],
    )
    def test_a_refused_command_is_in_the_error_queue_and_sets_its_event(self, meter, command, error, events):
        meter.write("*CLS")
        meter.write(command)
        assert meter.query("*STB?") == "4"
        assert meter.query("SYST:ERR?") == error
        assert meter.query("SYST:ERR?") == '+0,"No error"'
        assert (meter.query("*ESR?"), meter.query("*ESR?")) == (str(events), "0")
        assert meter.query("SENS:CORR:WAV?") == "6.35000000E+02"

    def test_clearing_the_status_empties_the_error_queue(self, meter):
        meter.write("NONSENSE")
        meter.write("*CLS")
        assert [meter.query(query) for query in ("SYST:ERR?", "*ESR?", "*STB?")] == ['+0,"No error"', "0", "0"]

    def test_enabled_events_show_in_the_status_byte(self, meter):
        assert meter.query("*ESR?") == "128"  # power on
        meter.write("*ESE 1;*SRE 32;*OPC")
        assert meter.query("*ESE?;*SRE?;*STB?;*ESR?;*STB?") == "1;32;96;1;0"

    @pytest.mark.parametrize(
        ("query", "reply"),
        [
            ("POW:DC:RANG:UPP?", "5.00000000E-02"),
            ("SENSe:POWer:DC:RANGe:AUTO?", "1"),
            ("AVER?", "1"),
            ("corr:wav?", "6.35000000E+02"),
            ("MEAS:SCAL:POW?", "1.25000000E-03"),
            ("STAT:OPER?;OPER:COND?;PTR?", "0;0;32767"),
            ("SENS:CORR:WAV? MINimum", "4.00000000E+02"),
            ("SENS:AVER:COUN? MAX", "3000"),
            ("SENS:POW:RANG? MIN", "5.00000000E-08"),
            ("SENS:CORR:WAV 700;WAV?", "7.00000000E+02"),
            ("SENS:CORR:WAV MAX;:CORR:WAV?", "1.10000000E+03"),
            ("SENS:POW:RANG:AUTO OFF;AUTO?", "0"),
            ("MEAS:POW?;:SYST:ERR?", '1.25000000E-03;+0,"No error"'),
        ],
    )
    def test_nodes_may_be_left_out_and_a_message_may_have_several_commands(self, meter, query, reply):
        assert meter.query(query) == reply

    def test_conf_selects_what_is_measured(self, meter):
        assert meter.query("CONF?") == "POW"
        meter.write("CONFigure:CURRent:DC")
        assert (meter.query("CONF?"), meter.query("READ?")) == ("CURR", "4.75000000E-04")
        assert meter.query("MEAS:TEMP?") == "2.10000000E+01"
        assert (meter.query("CONF?"), meter.query("FETC?")) == ("TEMP", "2.10000000E+01")
        meter.write("*RST")
        assert meter.query("CONF?") == "POW"

    def test_a_reading_takes_three_milliseconds_for_each_sample(self, meter):
        clock = meter.visalib.bench.clock
        meter.write("SENS:AVER:COUN 1000")
        start = clock.time()
        meter.timeout = 5000
        meter.query("MEAS:POW?")
        assert clock.time() - start == pytest.approx(3.0, rel=0.02)

    def test_fetching_repeats_the_last_reading(self, meter):
        assert meter.query("FETC?") == "0.00000000E+00"
        meter.write("INIT")
        assert meter.query("FETC?") == "1.25000000E-03"

    def test_readings_can_be_in_dbm_and_overflow_a_range(self, meter):
        meter.write("SENS:POW:UNIT DBM")
        assert float(meter.query("READ?")) == pytest.approx(10 * np.log10(1.25))
        meter.write("SENS:POW:RANG:AUTO 0")
        meter.write("SENS:POW:RANG 1E-3")
        assert float(meter.query("READ?")) == 9.9e37


class TestITHX:
    @pytest.fixture
    def sensor(self, visa):
        return visa((SENSOR, ITHX, {"temperature": 19.44, "humidity": 57.0})).open_resource(
            SENSOR, read_termination="\r", write_termination="\r"
        )

    @pytest.mark.parametrize(
        ("query", "reply"),
        [("*SRTC", "019.4"), ("*SRTF", "067.0"), ("*SRH", "057.0"), ("*SRDC", "010.7"), ("*SRDF", "051.3"),
         ("*SRTC2", "019.4"), ("*SRH2", "057.0"), ("*SRYRST", "Reset"), ("*IDN?", "Serial Time Out")],
    )  # fmt: skip
    def test_queries_are_answered_zero_padded(self, sensor, query, reply):
        assert sensor.query(query) == reply

    def test_both_values_come_with_a_return_between_them(self, sensor):
        assert sensor.query("*SRB") == "019.4"
        assert sensor.read() == ",057.0"
        sensor.write("*SRBF")
        assert sensor.read_bytes(13) == b"067.0\r,057.0\r"


class TestCamera:
    @pytest.fixture
    def camera(self, visa):
        return visa((CAMERA, Camera)).open_resource(
            CAMERA, read_termination="\n", write_termination="\n", timeout=12_000
        )

    def frame(self, camera, query, shape=(128, 128)):
        camera.write(query)
        assert camera.read_bytes(7) == b"#532768" if shape == (128, 128) else True
        data = camera.read_bytes(2 * shape[0] * shape[1])
        assert camera.read_bytes(1) == b"\n"
        return np.frombuffer(data, "<u2").reshape(shape)

    @pytest.mark.parametrize(
        ("query", "reply"),
        [
            ("*IDN?", "CATKIT_DEVICES,SIMCAM,0001,1.0"),
            ("SENSor:SIZE?", "128,128"),
            ("SENS:PIX?", "5.0"),
            ("SENS:SAT?", "65535"),
            ("EXPosure?", "1.000000E-02"),
            ("exp? min", "1.000000E-05"),
            ("EXP? MAXIMUM", "1.000000E+01"),
            ("ROI?", "0,0,128,128"),
            ("INIT:STAT?", "0"),
            ("SYST:ERR?", '+0,"No error"'),
        ],
    )
    def test_queries_are_answered(self, camera, query, reply):
        assert camera.query(query) == reply

    @pytest.mark.parametrize(
        ("command", "error"),
        [
            ("EXP 11", '-222,"Data out of range"'),
            ("EXP nan", '-222,"Data out of range"'),
            ("EXP soon", '-220,"Parameter error"'),
            ("ROI 100,0,29,10", '-222,"Data out of range"'),
            ("ROI 0,0,10", '-220,"Parameter error"'),
            ("EXPO 1", '-113,"Undefined header"'),
            ("FETC?", '-230,"Data corrupt or stale"'),
        ],
    )
    def test_a_wrong_command_is_in_the_error_queue_and_changes_nothing(self, camera, command, error):
        camera.write(command)
        assert camera.query("SYST:ERR?") == error
        assert (camera.query("EXP?"), camera.query("ROI?")) == ("1.000000E-02", "0,0,128,128")

    def test_a_frame_shows_the_spot_in_the_middle(self, camera):
        image = self.frame(camera, "READ?") - 100.5
        rows, columns = np.indices(image.shape)
        assert (image * rows).sum() / image.sum() == pytest.approx(63.5, abs=0.2)
        assert (image * columns).sum() / image.sum() == pytest.approx(63.5, abs=0.2)
        assert image.sum() == pytest.approx(1e7 * 0.01, rel=0.05)

    def test_a_frame_can_be_read_as_a_binary_block(self, camera):
        values = camera.query_binary_values("READ?", datatype="H", container=np.array)
        assert values.shape == (128 * 128,)

    def test_a_frame_takes_its_exposure_time(self, camera):
        clock = camera.visalib.bench.clock
        camera.write("EXP 2.5")
        start = clock.time()
        camera.write("INIT")
        assert camera.query("INIT:STAT?") == "1"
        camera.write("INIT")
        assert camera.query("SYST:ERR?") == '-213,"Init ignored"'
        self.frame(camera, "FETC?")
        assert clock.time() - start == pytest.approx(2.502, rel=0.02)
        assert camera.query("INIT:STAT?") == "0"

    def test_a_frame_that_is_fetched_twice_is_the_same(self, camera):
        first = self.frame(camera, "READ?")
        assert np.array_equal(self.frame(camera, "FETC?"), first)
        assert not np.array_equal(self.frame(camera, "READ?"), first)

    def test_continuous_exposures_follow_each_other_and_each_frame_is_sent_once(self, camera):
        clock = camera.visalib.bench.clock
        camera.write("EXP 0.1")
        camera.write("INIT:CONT 1")
        start = clock.time()
        first = self.frame(camera, "FETC?")
        assert not np.array_equal(self.frame(camera, "FETC?"), first)
        assert clock.time() - start == pytest.approx(2 * 0.102, rel=0.05)
        clock.wait(1.0)  # what was not fetched meanwhile is gone
        self.frame(camera, "FETC?")
        assert clock.time() - start == pytest.approx(2 * 0.102 + 1.0, rel=0.05)
        assert (camera.query("INIT:CONT?"), camera.query("INIT:STAT?")) == ("1", "1")
        camera.write("INIT")
        assert camera.query("SYST:ERR?") == '-213,"Init ignored"'
        camera.write("ABOR")
        assert (camera.query("INIT:CONT?"), camera.query("INIT:STAT?")) == ("0", "0")

    def test_a_long_exposure_saturates(self, camera):
        camera.write("EXP 10")
        assert self.frame(camera, "READ?").max() == 65535

    def test_a_region_is_cut_out_of_the_frame(self, camera):
        camera.write("ROI 60,50,8,4")
        camera.write("READ?")
        assert camera.read_bytes(4) == b"#264"
        assert len(camera.read_bytes(64)) == 64

    def test_an_exposure_can_be_aborted(self, camera):
        camera.write("EXP 10")
        camera.write("READ?")
        camera.write("ABOR")
        assert camera.query("INIT:STAT?") == "0"
        camera.write("FETC?")
        assert camera.query("SYST:ERR?") == '-230,"Data corrupt or stale"'


def test_the_bundled_simulators_and_the_bench_are_found_by_name():
    plugins = Plugins()
    names = {"npoint_lc400", "omega_ithx", "scpi_camera", "thorlabs_fw102c", "thorlabs_mcls1", "thorlabs_pm100d"}
    assert names <= set(plugins.simulators)
    assert build_library([], bench="optical", plugins=plugins).bench.coupling(time=0.0) == 1.0


@pytest.mark.parametrize("simulator", sorted(set(Plugins().simulators) - {"scpi"}))  # that is made from a table
def test_arbitrary_bytes_never_break_a_simulator(simulator):
    rng = np.random.default_rng(7)
    bench = Bench(clock=VirtualClock())
    instrument = Plugins().simulators[simulator](bench)
    alphabet = list(b"\r\n?=*:;, #019pPos\xa0\xa2\xa4\x55\x83\x11\x00")
    for _ in range(2000):
        instrument.feed(bytes(rng.choice(alphabet, size=rng.integers(1, 12))))
        bench.clock.wait(0.5)
