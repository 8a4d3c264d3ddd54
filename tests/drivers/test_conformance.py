"""Every bundled driver passes the conformance suite, on its bundled simulator.

By default, faults on the line and two processes are for a few drivers only (see conftest.py); for all with ``--whole``.
"""

from __future__ import annotations

import numpy as np

from catkit_devices.plugins.dli_power_switch import DliPowerSwitch
from catkit_devices.sim.boston_dm import BmcDm
from catkit_devices.sim.dli_power_switch import PowerSwitch, Server
from catkit_devices.sim.snmp_ups import Ups
from catkit_devices.sim.zwo_asi import Camera
from catkit_devices.testing import conformance


class DriverConformance(conformance.DriverConformance):
    strict = True


def others(group, members, numbers=(2, 3, 4)):
    """Return what leaves out the members of all components but the first: they are of one class, and time is short."""
    return {f"{group}[{number}].{member}": "as the first" for number in numbers for member in members.split()}


def pushed(row, column, command):
    """Return commands for deformable mirrors: 0, but for one actuator of the second mirror."""
    commands = np.zeros((2, 34, 34))
    commands[1, row, column] = command
    return commands


class TestFW102C(DriverConformance):
    driver = "thorlabs_fw102c"


class TestFW212C(DriverConformance):
    driver = "thorlabs_fw212c"


class TestMCLS1(DriverConformance):
    driver = "thorlabs_mcls1"
    options = {"channel": 2}
    resolution = {"current": 0.005, "target_temperature": 0.005}
    safe_state = {"enabled": False}


class TestPM100D(DriverConformance):
    driver = "thorlabs_pm100d"
    address = "USB::0x1313::?*::P0001*::INSTR"  # found by its serial number
    simulator_options = {"power": 1.5e-3}
    resolution = {"wavelength": 1e-5}


class TestLC400(DriverConformance):
    driver = "npoint_lc400"
    resolution = {"tip": 2e-3, "tilt": 2e-3}
    arguments = {"move": (120.0, -80.0)}
    varying = ("measured_tip", "measured_tilt")
    undetectable = {"garbled": "frames have no checksum"}

    def make_unsafe(self, device):
        for channel in (1, 2):
            device.write_bytes(b"\xa2" + (0x11830208 + 0x1000 * channel).to_bytes(4, "little") + b"\1\0\0\0\x55")

    def is_safe(self, device, simulator):
        return all(simulator._words[0x11830208 + 0x1000 * channel] == 0 for channel in (1, 2))


class TestITHX(DriverConformance):
    driver = "omega_ithx"


class TestScpiCamera(DriverConformance):
    driver = "scpi_camera"
    simulator_options = {"rows": 8, "columns": 10}
    resolution = {"exposure_time": 1e-5}
    values = {"region": [(0, 0, 4, 4), (2, 3, 6, 7), (0, 0, 8, 10)]}
    refused = {"region": [(0, 0, 9, 1), (-1, 0, 1, 1), (0, 0, 0, 1), (0, 0, 1), (0.5, 0, 1, 1), None]}
    undetectable = {"garbled": "frames have no checksum"}

    def make_unsafe(self, device):
        device.exposure_time = 5.0
        device.write("INIT")

    def is_safe(self, device, simulator):
        return not simulator._busy()


class TestMFF101(DriverConformance):
    driver = "thorlabs_mff101"
    resolution = {"transit_time": 0.0005}
    undetectable = {"garbled": "frames have no checksum"}


class TestKDC101(DriverConformance):
    driver = "thorlabs_kdc101"
    simulator_options = {"homed": True, "position": 0.0}
    values = {"position": [0.0, 1.0, 2.5]}  # near to each other, since motions take time
    resolution = {"position": 2e-5, "velocity": 2e-6}
    undetectable = {"garbled": "frames have no checksum"}

    def make_unsafe(self, device):
        device.home()
        device.write_bytes(bytes.fromhex("53 04 06 00 D0 01 01 00 00 00 06 00"))  # to 393216 counts, and no waiting

    def is_safe(self, device, simulator):
        return not simulator.axis.moving and simulator.axis.position() < 393216


class Test789A4(DriverConformance):
    driver = "mcpherson_789a4"
    arguments = {"move_by": (20000,)}
    varying = ("at_home",)  # known as long as finding it is not complete
    undetectable = {"garbled": "values have no checksum"}

    def make_unsafe(self, device):
        device.query("A8")
        device.query("M+1000")

    def is_safe(self, device, simulator):
        return not simulator.axis.moving and simulator.home_circuit == 0


class TestTSP01(DriverConformance):
    driver = "thorlabs_tsp01"
    strict = False  # the form of its numbers is not known
    address = "USB0::0x1313::0x80F8::M00012345::INSTR"
    undetectable = {"garbled": "a digit is as good as another one"}


class TestSR830(DriverConformance):
    driver = "srs_sr830"
    address = "GPIB0::8::INSTR"
    strict = False  # numbers have no fixed form
    values = {
        "amplitude": [5.0, 0.004],  # the last is that of the safe state, in which it is after a disconnection
        "frequency": [10.0, 0.0015, 5000.0],
        "harmonic": [1, 2, 20],  # their product may be 102 kHz
    }
    resolution = {"phase": 0.006}
    undetectable = {"garbled": "a digit is as good as another one"}

    def make_unsafe(self, device):
        device.amplitude = 2.0
        device.write("AUXV 2,5")

    def is_safe(self, device, simulator):
        return simulator.values["SLVL"] == 0.004 and not any(simulator.outputs)


class Test2450(DriverConformance):
    driver = "keithley_2450"
    address = "USB0::0x05E6::0x2450::01234567::INSTR"
    strict = False  # the form of its numbers is not known
    resolution = dict.fromkeys(("voltage", "current", "voltage_limit", "current_limit", "current_cycles"), 1e-6)
    undetectable = {"garbled": "a digit is as good as another one"}
    safe_state = {"enabled": False}


class Test34461A(DriverConformance):
    driver = "keysight_34461a"
    address = "USB0::0x2A8D::0x1301::MY53200001::INSTR"
    arguments = {"sample_dc_voltage": (3, 0.2)}
    varying = (
        "dc_voltage",
        "ac_voltage",
        "dc_current",
        "ac_current",
        "resistance",
        "four_wire_resistance",
        "frequency",
    )
    strict = False  # readings vary, so that asking twice shows nothing
    undetectable = {"garbled": "a digit is as good as another one"}


class Test8742(DriverConformance):
    driver = "newport_8742"
    address = "TCPIP0::10.0.0.7::23::SOCKET"
    values = {"motors[1].position": [0, 2000, 5000]}  # steps, of which it makes 2000 in a second
    arguments = {"motors[1].redefine": (0,)}
    left_out = others("motors", "acceleration motor_type moving position velocity redefine stop")
    undetectable = {"garbled": "commands have no checksum, and a digit is as good as another one"}
    examples = 3

    def make_unsafe(self, device):
        device.write("1PR100000")

    def is_safe(self, device, simulator):
        return not any(axis.moving for axis in simulator.axes.values())


class Test747(DriverConformance):
    driver = "mcpherson_747"
    simulator_options = {"initialised": True}
    values = {"parts[1].position": [1, 2]}
    left_out = others("parts", "initialised position initialise")
    examples = 2


class Test33500B(DriverConformance):
    driver = "keysight_33500b"
    address = "TCPIP0::10.0.0.9::5025::SOCKET"
    strict = False  # the form of its numbers is not known
    simulator_options = {"model": "33511B"}
    values = {"channels[1].amplitude": [0.01, 1.0, 2.0], "channels[1].offset": [-1.0, 0.0, 2.5]}  # within 5 V together
    arguments = {"channels[1].load_waveform": ([0.0] * 8, 1e6)}
    resolution = {"channels[1].frequency": 1e-6, "channels[1].phase": 1e-6}
    undetectable = {"garbled": "a digit is as good as another one"}
    safe_state = {"channels[1].enabled": False}
    examples = 5


class TestE36312A(DriverConformance):
    driver = "keysight_e36312a"
    address = "TCPIP0::10.0.0.9::5025::SOCKET"
    left_out = others("outputs", "voltage current_limit measured_voltage measured_current", (2, 3))
    strict = False  # the form of its numbers is not known
    undetectable = {"garbled": "a digit is as good as another one"}
    safe_state = {f"outputs[{number}].enabled": False for number in (1, 2, 3)}
    examples = 3


class TestLakeShore336(DriverConformance):
    driver = "lakeshore_336"
    strict = False  # a reading may have any digits
    varying = ("inputs['A'].temperature", "inputs['A'].sensor")  # they follow the heater
    arguments = {"outputs[1].set_pid": (50.0, 20.0, 0.0)}
    left_out = (
        others("outputs", "setpoint ramp_rate pid set_pid")
        | {f"inputs['{key}'].{member}": "as A" for key in "BCD" for member in ("temperature", "sensor")}
        | {"outputs[2].range": "as 1", "outputs[2].power": "as 1", "outputs[4].range": "as 3"}
    )
    undetectable = {"garbled": "a digit is as good as another one"}
    safe_state = {"outputs[1].range": "off", "outputs[3].range": "off"}
    examples = 3


class TestDS1000Z(DriverConformance):
    driver = "rigol_ds1000z"
    left_out = others("channels", "coupling displayed offset probe scale waveform")
    address = "TCPIP0::10.0.0.9::5555::SOCKET"
    strict = False  # the form of its numbers is not known
    undetectable = {"garbled": "a digit is as good as another one"}
    examples = 2


class TestSnmpUps(DriverConformance):
    driver = "snmp_ups"
    address = "192.0.2.1"
    stand_in = Ups


class OverHttp(DliPowerSwitch):
    """The driver as it is, with a real HTTP server in the place of the switch."""

    def __init__(self, name, *, clock, **options):
        super().__init__(name, **options)
        self._simulated = PowerSwitch(clock, outlets=2)

    def _open(self):
        self._server = Server(self._simulated)
        self._url = self._server.url
        return super()._open()

    def _close(self):
        super()._close()
        self._server.close()


class TestDliPowerSwitch(DriverConformance):
    driver = "dli_power_switch"
    address = "http://192.0.2.1"
    options = {"password": "1234"}
    stand_in = OverHttp
    safe_state = {"outlets[1].enabled": False, "outlets[2].enabled": False}
    examples = 3


class TestBostonDm(DriverConformance):
    driver = "boston_dm"
    options = {"serial": "17BW023#065", "highest": 0.9}
    stand_in = BmcDm
    values = {"commands": [np.zeros((2, 34, 34)), pushed(17, 16, 0.25), pushed(0, 15, 0.9)]}
    refused = {
        "commands": [np.zeros((34, 34)), pushed(1, 17, 0.91), pushed(1, 17, -0.01), pushed(1, 17, np.nan), "flat"]
    }
    safe_state = {"commands": np.zeros((2, 34, 34))}
    examples = 5


class TestZwoAsi(DriverConformance):
    driver = "zwo_asi"
    options = {"model": "ZWO ASI290MM"}
    stand_in = Camera
    simulator_options = {"rows": 8, "columns": 16}
    resolution = {"exposure_time": 1e-6}

    def make_unsafe(self, device):
        device.exposure_time = 5.0
        device._connection.start_exposure()

    def is_safe(self, device, simulator):
        return device._connection.get_exposure_status() == 0


class TestXPS(DriverConformance):
    driver = "newport_xps_q8"
    address = "TCPIP0::10.0.0.7::5001::SOCKET"
    options = {"groups": {"S": {"P": "mm"}}}
    simulator_options = {"ready": True}
    values = {"groups[S].positioners[P].position": [0.0, 1.0, 2.5]}  # near to each other, since motions take time
    arguments = {"groups[S].move": ([2.0],)}
    resolution = {"groups[S].positioners[P].position": 1e-9}
    examples = 5

    def make_unsafe(self, device):
        with device._exchanges_.aside("a motion that nobody waits for") as line:
            line.write(b"GroupMoveAbsolute(S.P,25)", 1.0)

    def is_safe(self, device, simulator):
        return not simulator.groups["S"].moving
