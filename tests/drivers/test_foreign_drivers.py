"""Drivers that others wrote talk to the bundled simulators.

Where the two disagreed, the manufacturer's manual was asked. PyMeasure 0.16 takes harmonics of the SR830 up to 19998,
the manual up to 19999 (p. 5-4). It takes a reading of the Lake Shore 336 as it comes, 0 K where there is no sensor; the
manual has ``RDGST?`` for that (chapter 6). It sets three ranges of the outputs 3 and 4, of which they have one. The
message with which a KDC101 is told to send none at the end of a motion is for the unit, not for its channel, as
thorlabs-apt-protocol has it.
"""

import io

import pytest

from catkit_devices.drivers import Plugins
from catkit_devices.sim.thorlabs_apt import KDC101
from catkit_devices.simulation import Bench, VirtualClock

# PyMeasure asks its users for what it does not know of some instruments.
pytestmark = pytest.mark.filterwarnings("ignore:It is not known whether this device support SCPI:FutureWarning")

COUNTS = 34554.96  # per mm
SOCKET = "TCPIP0::10.0.0.9::5025::SOCKET"
USB = "USB0::0x0957::0x0407::MY0001::INSTR"
LINES = {"read_termination": "\n", "write_termination": "\n"}


@pytest.fixture
def foreign(serve):
    """Open a driver of PyMeasure on a bundled simulator: ``device, simulator = foreign(cls, simulator, address)``."""
    opened = []

    def build(cls, simulator, address, how=None, **options):
        library = serve(address, simulator, **options)
        device = cls(address, visa_library=library, **(how or {}))
        opened.append(device)
        return device, library.instrument(address)

    yield build
    for device in opened:
        device.adapter.close()


# --- PyMeasure


def test_pymeasure_uses_the_sr830(foreign):
    from pymeasure.instruments.srs import SR830

    lock_in, simulator = foreign(SR830, "srs_sr830", "GPIB0::8::INSTR")
    lock_in.frequency, lock_in.sine_voltage, lock_in.harmonic = 1234.5, 0.5, 2
    lock_in.sensitivity, lock_in.time_constant, lock_in.filter_slope = 0.1, 0.001, 24
    lock_in.aux_out_3 = -2.5

    assert lock_in.id == "Stanford_Research_Systems,SR830,s/n12345,ver1.07"
    assert (lock_in.frequency, lock_in.sine_voltage, lock_in.harmonic) == (1234.5, 0.5, 2)
    assert (lock_in.sensitivity, lock_in.time_constant, lock_in.filter_slope) == (0.1, 0.001, 24)
    assert (lock_in.aux_out_3, simulator.outputs) == (-2.5, [0.0, 0.0, -2.5, 0.0])
    lock_in.harmonic = 1
    simulator.bench.clock.wait(1.0)
    assert (lock_in.magnitude, lock_in.theta) == (0.05, 30.0)
    assert lock_in.snap("X", "Y", "R") == pytest.approx([0.05 * 0.8660254, 0.025, 0.05], abs=1e-6)
    assert lock_in.get_scaling("X") == (0.0, 1)
    assert not lock_in.is_out_of_range()


def test_the_numbered_tables_of_the_sr830_are_those_of_pymeasure():
    from pymeasure.instruments.srs import SR830 as Theirs
    from pymeasure.instruments.srs.sr830 import LIAStatus

    from catkit_devices._device.members import describe_class
    from catkit_devices.plugins.srs_sr830 import SR830
    from catkit_devices.units import convert

    def words(name):
        return list(describe_class(SR830)["properties"][name]["choices"])

    assert [convert(word, "V") for word in words("sensitivity")] == list(Theirs.SENSITIVITIES)
    assert [convert(word, "s") for word in words("time_constant")] == list(Theirs.TIME_CONSTANTS)
    assert words("slope") == [f"{slope} dB" for slope in Theirs.FILTER_SLOPES]
    assert words("input") == [text.replace("A - B", "A-B") for text in Theirs.INPUT_CONFIGS]
    assert words("coupling") == Theirs.INPUT_COUPLINGS
    assert words("reserve") == [text.lower().removesuffix(" reserve") for text in Theirs.RESERVE_VALUES]
    assert words("reference") == [text.lower() for text in Theirs.REFERENCE_SOURCES]
    assert LIAStatus.INPUT_OVERLOAD | LIAStatus.FILTER_OVERLOAD | LIAStatus.OUTPUT_OVERLOAD == 0b111  # of `overloaded`


def test_pymeasure_uses_the_2450(foreign):
    from pymeasure.instruments.keithley import Keithley2450

    source, simulator = foreign(Keithley2450, "keithley_2450", USB, load=100.0)
    source.source_mode, source.source_voltage, source.compliance_current = "voltage", 2, 0.05
    source.enable_source()

    assert (source.source_mode, source.source_voltage, source.compliance_current) == ("voltage", 2.0, 0.05)
    assert source.source_enabled
    source.measure_current()
    assert source.current == 0.02
    source.measure_voltage()
    assert source.voltage == 2.0
    source.disable_source()
    assert not simulator.output
    assert source.next_error == [0.0, '"No error;0;0 0"']


def test_pymeasure_uses_the_34461a(foreign):
    from pymeasure.instruments.agilent import Agilent34410A

    meter, _simulator = foreign(Agilent34410A, "keysight_34461a", USB, voltage=-3.0, current=0.2)

    assert meter.voltage_dc == pytest.approx(-3.0, rel=1e-5)
    assert meter.current_dc == pytest.approx(0.2, rel=1e-5)
    assert meter.resistance_4w == pytest.approx(1000.0, rel=1e-5)


def test_pymeasure_uses_the_33500b(foreign):
    from pymeasure.instruments.agilent import Agilent33500

    generator, simulator = foreign(Agilent33500, "keysight_33500b", SOCKET, LINES)
    second = generator.ch_2
    second.shape, second.frequency, second.amplitude, second.offset, second.output = "SQU", 500, 1.5, 0.25, True
    generator.data_arb("test", [0, 0.5, 1, 0.5, 0, -0.5, -1, -0.5], data_format="float")
    generator.arb_file = "test"

    assert (second.shape, second.frequency, second.amplitude, second.offset) == ("SQU", 500.0, 1.5, 0.25)
    assert (second.output, generator.output) == (True, False)
    assert simulator.waveforms["SOUR1", "TEST"] == [0, 0.5, 1, 0.5, 0, -0.5, -1, -0.5]
    assert generator.check_errors() == []


def test_pymeasure_uses_the_e36312a(foreign):
    from pymeasure.instruments.keysight import KeysightE36312A

    supply, simulator = foreign(KeysightE36312A, "keysight_e36312a", SOCKET, LINES, load=40.0)
    output = supply.ch_2
    output.voltage_setpoint, output.current_limit, output.output_enabled = 10, 0.5, True

    assert (output.voltage_setpoint, output.current_limit, output.output_enabled) == (10.0, 0.5, True)
    assert (output.voltage, output.current) == (10.0, 0.25)
    assert simulator.outputs == [False, True, False]
    assert supply.check_errors() == []


def test_pymeasure_uses_the_336(foreign):
    from pymeasure.instruments.lakeshore import LakeShore3xx

    controller, simulator = foreign(LakeShore3xx, "lakeshore_336", "GPIB0::12::INSTR")
    controller.output_1.setpoint, controller.output_1.range = 310, "high"
    simulator.bench.clock.wait(300.0)

    assert (controller.output_1.setpoint, controller.output_1.range, controller.output_1.output) == (310, "high", 15.0)
    assert controller.input_A.kelvin == pytest.approx(310, abs=0.01)
    assert controller.input_A.celsius == pytest.approx(36.85, abs=0.01)
    assert controller.input_C.kelvin == 0.0


def test_pymeasure_uses_the_pm100d(foreign):
    from pymeasure.instruments.thorlabs import ThorlabsPM100USB

    meter, _simulator = foreign(ThorlabsPM100USB, "thorlabs_pm100d", USB, power=1e-3)
    meter.wavelength = 633

    assert (meter.wavelength, meter.wavelength_min, meter.wavelength_max) == (633, 400, 1100)
    assert meter.power == pytest.approx(1e-3)


# --- thorlabs-apt-protocol


@pytest.fixture
def apt():
    """What a simulated unit answers to a message of thorlabs-apt-protocol, as that understands it."""
    import thorlabs_apt_protocol

    class Talk:
        def __init__(self, simulator, **options):
            self.clock = VirtualClock()
            self.unit = Plugins().simulators[simulator](Bench(clock=self.clock), **options)

        def __getattr__(self, name):
            def send(*arguments):
                reply = self.unit.feed(getattr(thorlabs_apt_protocol, name)(0x50, 0x01, *arguments))
                return [message._asdict() for message in thorlabs_apt_protocol.Unpacker(io.BytesIO(reply))]

            return send

    return Talk


def test_thorlabs_apt_protocol_understands_the_mff101(apt):
    mount = apt("thorlabs_mff101")

    [info] = mount.hw_req_info()
    assert (info["model_number"], info["serial_number"], info["nchs"]) == (b"MFF101\0\0", 37000001, 1)
    assert mount.mot_move_jog(1, 2) == []
    [status] = mount.mot_req_statusupdate(1)
    assert (status["moving_forward"], status["forward_limit_switch"], status["reverse_limit_switch"]) == (
        True,
        False,
        False,
    )
    mount.clock.wait(1.0)
    [status] = mount.mot_req_statusupdate(1)
    assert (status["moving_forward"], status["forward_limit_switch"], status["reverse_limit_switch"]) == (
        False,
        False,
        True,
    )
    [parameters] = mount.mot_req_mmf_operparams(1)
    assert (parameters["i_tranit_time"], parameters["oper_mode2"]) == (500, 3)


def test_thorlabs_apt_protocol_understands_the_kdc101(apt):
    motor = apt("thorlabs_kdc101", homed=True, position=1.0)

    assert motor.mot_move_absolute(1, round(3 * COUNTS)) == []
    [status] = motor.mot_req_dcstatusupdate(1)
    assert (status["moving_forward"], status["homed"], status["position"]) == (True, True, round(COUNTS))
    motor.clock.wait(2.0)
    ended, status = motor.mot_req_dcstatusupdate(1)
    assert (ended["msg"], ended["position"]) == ("mot_move_completed", round(3 * COUNTS))
    assert (status["moving_forward"], status["position"]) == (False, round(3 * COUNTS))
    assert motor.mot_suspend_endofmovemsges() == []
    assert motor.mot_move_home(1) == []
    motor.clock.wait(10.0)
    [velocity] = motor.mot_req_velparams(1)
    assert velocity["max_velocity"] == pytest.approx(2.0 * 772981.3692, abs=1)


class RecordedMotor(KDC101):
    """Keeps what it is sent."""

    def __init__(self, bench):
        super().__init__(bench, homed=True)
        self.sent = []

    def feed(self, data):
        self.sent += [data] if data else []
        return super().feed(data)


def test_the_driver_of_the_kdc101_sends_what_thorlabs_apt_protocol_does(simulated):
    import thorlabs_apt_protocol as protocol

    motor, simulator = simulated("thorlabs_kdc101", simulator=RecordedMotor)
    motor.position = 6
    motor.home()
    motor.stop()

    to = (0x50, 0x01)
    expected = [
        protocol.hw_req_info(*to),
        protocol.mot_suspend_endofmovemsges(*to),
        protocol.mot_move_absolute(*to, 1, round(6 * COUNTS)),
        protocol.mot_req_dcstatusupdate(*to, 1),
        protocol.mot_req_velparams(*to, 1),
        protocol.mot_move_home(*to, 1),
        protocol.mot_move_stop(*to, 1, 1),
    ]
    assert [message.hex(" ") for message in expected if message not in simulator.sent] == []
