"""Drivers of meters, sources and sensors: exact bytes against scripts, behaviour on the simulators."""

import math

import numpy as np
import pytest

from catkit_devices.errors import ComponentNotFoundError, DeviceOpenError, DeviceProtocolError, DeviceValueError

USB = "USB0::0x0957::0x0407::MY0001::INSTR"
GPIB = "GPIB0::8::INSTR"
SOCKET = "TCPIP0::10.0.0.7::5025::SOCKET"
NO_ERROR = b'+0,"No error"\n'

# --- TSP01


def test_tsp01_reads_nan_if_no_probe_is_plugged_in(simulated):
    device, _simulator = simulated("thorlabs_tsp01", USB, temperature=23.5, probes=(None, 30.0))

    assert (device.temperature, device.humidity, device.probe_2) == (23.5, 40.0, 30.0)
    assert math.isnan(device.probe_1)


# --- SR830


def test_sr830_takes_x_and_y_at_one_instant_with_these_bytes(simulated, script):
    replies = {b"*IDN?": b"Stanford_Research_Systems,SR830,s/n1,ver1.07\n", b"*ESR?": b"0\n",
               b"SNAP?1,2": b"0.951359,0.0253297\n", b"SENS 17": b"", b"*CLS": b""}  # fmt: skip
    device, simulator = simulated("srs_sr830", GPIB, script, replies=replies)
    simulator.sent.clear()

    assert device.read_both() == (0.951359, 0.0253297)
    device.sensitivity = "1 mV"

    assert simulator.sent == [b"SNAP?1,2", b"SENS 17", b"*ESR?"]


def test_sr830_that_refuses_is_an_error(simulated):
    device, _simulator = simulated("srs_sr830", GPIB)
    device.frequency = 60000

    with pytest.raises(DeviceProtocolError, match="refused: .*'HARM 2'"):
        device.harmonic = 2
    device.reference = "external"
    with pytest.raises(DeviceProtocolError, match="refused: .*'FREQ 100'"):
        device.frequency = 100


def test_sr830_settles_with_its_time_constant_and_tells_of_overload(simulated):
    device, simulator = simulated("srs_sr830", GPIB, divider=0.1)
    device.time_constant = "1 s"
    device.amplitude = 2.0
    assert device.magnitude < 0.19
    simulator.bench.clock.wait(10.0)
    assert device.magnitude == pytest.approx(0.2, rel=1e-3)
    assert not device.overloaded

    device.sensitivity = "100 mV"

    assert device.overloaded
    assert device.magnitude == pytest.approx(0.109)


# --- 2450


def test_2450_sources_and_measures_with_these_bytes(simulated, script):
    replies = {b"*IDN?": b"KEITHLEY INSTRUMENTS INC.,MODEL 2450,01234567,1.0.0i\n", b"*LANG?": b"SCPI\n",
               b"SYST:ERR?": b'0,"No error;0;0 0"\n', b"MEAS:CURR?": b"-1.375422E-11\n", b"OUTP?": b"0\n"}  # fmt: skip
    device, simulator = simulated("keithley_2450", USB, script, replies=replies)
    simulator.sent.clear()

    device.voltage = "10 mV"
    device.enabled = True

    assert device.measured_current == -1.375422e-11
    assert simulator.sent == [b"SOUR:VOLT 0.01", b"SYST:ERR?", b"OUTP 1", b"SYST:ERR?", b"MEAS:CURR?"]


def test_2450_keeps_to_its_limit_and_says_so(simulated):
    device, simulator = simulated("keithley_2450", USB, load=100.0)
    device.current_limit = 0.01
    device.voltage = 5
    device.enabled = True

    assert (device.measured_current, device.measured_voltage, device.limited) == (0.01, 1.0, True)
    device.close()
    assert not simulator.output


def test_2450_that_speaks_another_language_is_not_opened(simulated):
    with pytest.raises(DeviceOpenError, match=r"SCPI was expected, found 'TSP': send \*LANG SCPI"):
        simulated("keithley_2450", USB, language="TSP")


# --- 34461A


def test_34461a_reads_infinity_above_its_highest_range(simulated):
    device, _simulator = simulated("keysight_34461a", USB, resistance=1e9)

    assert device.resistance == math.inf
    assert device.dc_voltage == pytest.approx(1.25, rel=1e-5)


def test_34461a_takes_many_readings_in_their_time(simulated):
    device, simulator = simulated("keysight_34461a", USB, voltage=-3.0)
    begun = simulator.bench.clock.time()

    readings = device.sample_dc_voltage(50, cycles=10)

    assert simulator.bench.clock.time() - begun >= 20.0
    assert readings.shape == (50,)
    assert readings == pytest.approx(-3.0, rel=1e-5)
    with pytest.raises(DeviceValueError, match="1 to 1000 readings, each of 0.02, 0.2, 1.0, 10.0, 100.0 cycles"):
        device.sample_dc_voltage(5, cycles=3)


# --- 33500B


@pytest.mark.parametrize(("model", "channels", "highest"), [("33511B", 1, 20e6), ("33522B", 2, 30e6)])
def test_33500b_has_the_channels_and_the_limits_of_its_model(simulated, model, channels, highest):
    device, _simulator = simulated("keysight_33500b", SOCKET, model=model)

    assert list(device.channels) == list(range(1, channels + 1))
    device.channels[1].frequency = highest
    with pytest.raises(DeviceValueError, match=r"channels\[1\]\.frequency must be 1e-06 to [23]0000000 Hz"):
        device.channels[1].frequency = 1.1 * highest
    if channels == 1:
        with pytest.raises(ComponentNotFoundError):
            device.channels[2]


def test_33500b_refuses_an_offset_that_is_too_much_with_the_amplitude(simulated):
    device, _simulator = simulated("keysight_33500b", SOCKET)
    device.channels[2].amplitude = 8

    with pytest.raises(DeviceProtocolError, match='refused: -221,"Settings conflict"'):
        device.channels[2].offset = 2

    assert device.channels[2].offset == 0.0


def test_33500b_takes_an_arbitrary_waveform(simulated):
    device, simulator = simulated("keysight_33500b", SOCKET)
    wave = np.sin(np.linspace(0, 2 * np.pi, 64))

    device.channels[1].load_waveform(wave, 1e6)

    assert simulator.waveforms["SOUR1", "CATKIT"] == pytest.approx(wave, abs=1e-4)
    assert device.channels[1].function == "arbitrary"


# --- E36312A


def test_e36312a_says_which_output_is_meant(simulated, script):
    replies = {b"*IDN?": b"Keysight Technologies,E36312A,MY1,2.1.3\n", b"SYST:ERR?": NO_ERROR,
               **{b"OUTP? (@%d)" % number: b"0\n" for number in (1, 2, 3)},
               **{b"%b? MIN,(@%d)" % (what, number): b"0\n" for number in (1, 2, 3) for what in (b"VOLT", b"CURR")},
               **{b"CURR? MAX,(@%d)" % number: b"+1.03E+00\n" for number in (1, 2, 3)},
               b"VOLT? MAX,(@1)": b"6.18\n", b"VOLT? MAX,(@2)": b"25.75\n",
               b"VOLT? MAX,(@3)": b"-25.75\n"}  # fmt: skip
    device, simulator = simulated("keysight_e36312a", SOCKET, script, replies=replies)
    simulator.sent.clear()

    device.outputs[2].voltage = 12
    device.outputs[2].enabled = True

    assert [line for line in simulator.sent if b"MIN" not in line and b"MAX" not in line] == [
        b"VOLT 12.0,(@2)", b"SYST:ERR?", b"OUTP 1,(@2)", b"SYST:ERR?"
    ]  # fmt: skip
    with pytest.raises(DeviceValueError, match=r"outputs\[1\]\.voltage must be 0 to 6.18 V, got 12"):
        device.outputs[1].voltage = 12
    with pytest.raises(DeviceValueError, match=r"outputs\[3\]\.voltage must be -25.75 to 0 V, got 12"):
        device.outputs[3].voltage = 12


@pytest.mark.parametrize(
    ("model", "highest", "third"), [("E36311A", 5.15, -25.75), ("E36312A", 5.15, 25.75), ("E36313A", 10.3, 25.75)]
)
def test_e36312a_has_the_ranges_of_its_model(simulated, model, highest, third):
    device, _simulator = simulated("keysight_e36312a", SOCKET, model=model)

    device.outputs[1].current_limit = highest
    device.outputs[3].voltage, device.outputs[3].enabled = third, True

    assert device.outputs[3].measured_voltage * third > 0
    with pytest.raises(DeviceValueError, match=r"outputs\[1\]\.current_limit must be 0 to"):
        device.outputs[1].current_limit = highest + 0.01


def test_e36312a_limits_the_current(simulated):
    device, _simulator = simulated("keysight_e36312a", SOCKET, load=10.0)
    output = device.outputs[1]
    output.voltage, output.current_limit, output.enabled = 5, 0.2, True

    assert (output.measured_voltage, output.measured_current) == (2.0, 0.2)


# --- 336


def test_336_asks_for_a_reading_and_its_status_in_one_message(simulated, script):
    replies = {b"*IDN?": b"LSCI,MODEL336,1234567/1234567,1.0\r\n", b"*ESR?": b"000\r\n", b"*CLS": b"",
               b"KRDG? A;RDGST? A": [b"+295.123;000\r\n", b"+0.00000;016\r\n"], b"*OPC?": b"1\r\n"}  # fmt: skip
    replies |= {b"RANGE? %d" % output: b"0\r\n" for output in (1, 2, 3, 4)}
    device, simulator = simulated("lakeshore_336", simulator=script, replies=replies)
    simulator.sent.clear()

    assert device.inputs["A"].temperature == 295.123
    with pytest.raises(DeviceProtocolError, match="input A: the reading is below the range"):
        _ = device.inputs["A"].temperature
    assert simulator.sent == 2 * [b"KRDG? A;RDGST? A"]  # the line is in order, so nothing else is asked


def test_336_heats_to_its_setpoint_and_is_switched_off(simulated):
    device, simulator = simulated("lakeshore_336")
    device.outputs[1].setpoint = 310
    device.outputs[1].range = "high"
    simulator.bench.clock.wait(300.0)
    assert device.inputs["A"].temperature == pytest.approx(310, abs=0.01)

    device.make_safe()

    assert device.outputs[1].range == "off"
    assert not simulator.heating


def test_336_that_refuses_is_an_error(simulated):
    device, _simulator = simulated("lakeshore_336")

    with pytest.raises(DeviceProtocolError, match="refused: .*'PID 1,5000.0,1.0,1.0'"):
        device.outputs[1].set_pid(5000, 1, 1)
    with pytest.raises(DeviceValueError, match=r"outputs\[3\]\.range must be one of 'off', 'on', got 'high'"):
        device.outputs[3].range = "high"


# --- DS1000Z


def test_ds1000z_waveform_is_in_volts_and_seconds(simulated):
    device, _simulator = simulated("rigol_ds1000z", SOCKET, amplitude=2.0, frequency=500.0)
    device.channels[1].scale = 0.5
    device.channels[1].offset = "200 mV"
    device.acquire_once()

    times, volts = device.channels[1].waveform()

    assert times[[0, -1]] == pytest.approx([-6e-3, 5.99e-3])
    assert volts == pytest.approx(np.clip(2.0 * np.sin(2 * np.pi * 500 * times), -2.74, 2.36), abs=0.011)
    assert device.channels[2].waveform()[1] == pytest.approx(0.0)


def test_ds1000z_allows_the_scale_that_its_probe_does(simulated):
    device, _simulator = simulated("rigol_ds1000z", SOCKET)
    device.channels[1].probe = 1
    device.channels[1].scale = 0.001

    with pytest.raises(DeviceValueError, match=r"channels\[1\]\.scale must be 0.001 to 10 V, got 20"):
        device.channels[1].scale = 20


def test_ds1000z_reads_the_block_by_its_length(simulated, script):
    data = bytes([127, 10, 128, 137])  # 10 is the end of a line elsewhere
    replies = {b"*IDN?": b"RIGOL TECHNOLOGIES,DS1104Z,DS1ZA1,00.04.04\n", b"SYST:ERR?": b'0,"No error"\n',
               **{b"CHAN%d:PROB?" % channel: b"1.000000e+01\n" for channel in (1, 2, 3, 4)},
               b"WAV:PRE?": b"0,0,4,1,1.000000e-06,-2.000000e-06,0,4.000000e-02,0,127\n",
               b"WAV:DATA?": b"#9000000004" + data + b"\n"}  # fmt: skip
    device, _simulator = simulated("rigol_ds1000z", SOCKET, script, replies=replies)

    times, volts = device.channels[3].waveform()

    assert volts == pytest.approx([0.0, -4.68, 0.04, 0.4])
    assert times == pytest.approx([-2e-6, -1e-6, 0.0, 1e-6])
