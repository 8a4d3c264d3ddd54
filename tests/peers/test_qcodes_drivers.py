"""Drivers of QCoDeS talk to the bundled simulators.

Where the two disagreed, the manufacturer's manual was asked. QCoDeS 0.58 asks ``HTR?`` for the outputs 3 and 4 of the
Lake Shore 336, which the manual has for the outputs 1 and 2 only (chapter 6). It asks the DS1000Z for ``WAV:POIN?``,
which its programming guide does not have. Most of what else these drivers can ask is not simulated, and gets no answer.
"""

from __future__ import annotations

import pytest
from qcodes.instrument_drivers.Keithley import Keithley2450
from qcodes.instrument_drivers.Keysight import Keysight33512B
from qcodes.instrument_drivers.Lakeshore import LakeshoreModel336
from qcodes.instrument_drivers.rigol import RigolDS1074Z

from catkit_devices.simulation import Instrument, VirtualClock, build_library


@pytest.fixture
def foreign():
    """Open a driver of QCoDeS on a bundled simulator: ``device, simulator = foreign(cls, simulator, address)``."""
    opened = []

    def build(cls, simulator, address, **options):
        library = build_library([Instrument(address, simulator, options)], clock=VirtualClock())
        device = cls("device", address, visalib=library)
        opened.append(device)
        return device, library.instrument(address)

    yield build
    for device in opened:
        device.close()


def test_qcodes_uses_the_2450(foreign):
    source, simulator = foreign(Keithley2450, "keithley_2450", "USB0::0x05E6::0x2450::1::INSTR", load=100.0)
    source.source.function("voltage")
    source.source.voltage(2)
    source.source.limit(0.05)
    source.sense.function("current")
    source.output_enabled(True)

    assert (source.source.function(), source.source.voltage(), source.source.limit()) == ("voltage", 2.0, 0.05)
    assert source.sense.current() == 0.02
    source.output_enabled(False)
    assert not simulator.output


def test_qcodes_uses_the_33500b(foreign):
    generator, _simulator = foreign(Keysight33512B, "keysight_33500b", "TCPIP0::10.0.0.9::INSTR")
    second = generator.ch2
    second.function_type("SQU")
    second.frequency(500)
    second.amplitude_unit("VPP")
    second.amplitude(1.5)
    second.offset(0.25)
    second.output("ON")

    assert (second.function_type(), second.frequency(), second.amplitude()) == ("SQU", 500.0, 1.5)
    assert (second.offset(), second.output(), generator.ch1.output()) == (0.25, "ON", "OFF")
    assert generator.error() == (0, "No error")


def test_qcodes_uses_the_336(foreign):
    controller, simulator = foreign(LakeshoreModel336, "lakeshore_336", "GPIB0::12::INSTR")
    controller.output_1.setpoint(310)
    controller.output_1.output_range("high")
    simulator.bench.clock.wait(300.0)

    assert (controller.output_1.setpoint(), controller.output_1.output_range()) == (310, "high")
    assert controller.output_1.output() == 15.0
    assert controller.A.temperature() == pytest.approx(310, abs=0.01)


def test_qcodes_uses_the_ds1000z(foreign):
    oscilloscope, _simulator = foreign(RigolDS1074Z, "rigol_ds1000z", "TCPIP0::10.0.0.9::INSTR")
    oscilloscope.channels.ch1.vertical_scale(0.5)
    oscilloscope.data_source("ch1")

    assert oscilloscope.channels.ch1.vertical_scale() == 0.5
    assert (oscilloscope.waveform_xincrem(), oscilloscope.waveform_xorigin()) == (1e-5, -6e-3)
    assert (oscilloscope.waveform_yincrem(), oscilloscope.waveform_yorigin(), oscilloscope.waveform_yref()) == (
        0.02,
        0.0,
        127.0,
    )
