"""For other processes: how each bundled driver is brought into an unsafe state, and how its simulator tells."""

from __future__ import annotations

import threading

import numpy as np

from catkit_devices.drivers import Plugins, create_device
from catkit_devices.sim import boston_dm, dli_power_switch, zwo_asi
from catkit_devices.simulation import Instrument, RealClock, build_library
from catkit_devices.stand_ins import create_simulated

SERIAL, SOCKET, USB = "ASRL{}::INSTR", "TCPIP0::10.0.0.{}::5000::SOCKET", "USB0::0x1::0x1::{}::INSTR"


def camera_exposes(device):
    device.exposure_time = 10.0
    device.frame()


def generator_runs(device):
    for channel in device.channels.values():
        channel.enabled = True


def heater_heats(device):
    device.outputs[1].setpoint = 400.0
    device.outputs[1].range = "high"
    device.outputs[3].range = "on"


def laser_shines(device):
    device.current = 10.0
    device.enabled = True


def mirrors_are_pushed(device):
    device.commands = np.full((2, 34, 34), 0.5)


def motor_moves(device):
    device.home()
    device.velocity = 0.05
    device.position = 20.0


def outlets_are_on(device):
    for outlet in device.outlets.values():
        outlet.enabled = True


def picomotor_moves(device):
    device.motors[2].velocity = 1
    device.motors[2].position = 1000


def scan_goes_on(device):
    device.velocity = 36
    device.move_by(100000)


def stage_moves(device):
    device.groups["S"].home()
    device.groups["S"].positioners["P"].velocity = 0.01
    device.groups["S"].positioners["P"].position = 20.0


def sine_goes_out(device):
    device.amplitude = 5.0
    device.write("AUXV 3,10")


def source_is_on(device):
    device.voltage = 200.0
    device.enabled = True


def supply_is_on(device):
    for output in device.outputs.values():
        output.enabled = True


def table_is_on(device):
    device.enabled = True


def wavetable_runs(device):
    for channel in (1, 2):
        device.write_bytes(b"\xa2" + (0x11830208 + 0x1000 * channel).to_bytes(4, "little") + b"\1\0\0\0\x55")


DRIVERS = {
    # driver: address, options of the simulator, what a program does with it, whether the simulator is safe then
    "keithley_2450": (USB, {}, source_is_on, lambda source: not source.output),
    "keysight_33500b": (
        SOCKET, {}, generator_runs, lambda source: {source.values["OUTP1"], source.values["OUTP2"]} == {"0"}
    ),
    "keysight_e36312a": (SOCKET, {}, supply_is_on, lambda supply: not any(supply.outputs)),
    "lakeshore_336": (SERIAL, {}, heater_heats, lambda controller: not controller.heating),
    "mcpherson_789a4": (SERIAL, {}, scan_goes_on, lambda scan: not scan.axis.moving and not scan.home_circuit),
    "newport_8742": (SOCKET, {}, picomotor_moves, lambda motors: not any(axis.moving for axis in motors.axes.values())),
    "newport_xps_q8": (
        SOCKET, {"groups": {"S": ["P"]}}, stage_moves, lambda stages: not stages.groups["S"].moving
    ),
    "npoint_lc400": (
        SERIAL, {}, wavetable_runs, lambda stage: not any(stage._words.get(0x11831208 + place) for place in (0, 0x1000))
    ),
    "scpi": (SOCKET, {}, table_is_on, lambda instrument: instrument.value("enabled") == "0"),
    "scpi_camera": (SOCKET, {"rows": 8, "columns": 8}, camera_exposes, lambda camera: not camera._busy()),
    "srs_sr830": (USB, {}, sine_goes_out, lambda lock_in: lock_in.values["SLVL"] == 0.004 and not any(lock_in.outputs)),
    "thorlabs_kdc101": (SERIAL, {"position": 0.0}, motor_moves, lambda motor: not motor.axis.moving),
    "thorlabs_mcls1": (SERIAL, {}, laser_shines, lambda source: not any(source.laser.enabled)),
}  # fmt: skip

STAND_INS = {
    # driver: its options, the class that replaces its instrument, the same as above
    "boston_dm": ({"serial": "17BW023#065"}, boston_dm.BmcDm, mirrors_are_pushed, lambda dm: not dm.sent.any()),
    "dli_power_switch": (
        {"address": "http://10.0.0.8", "password": ""}, dli_power_switch.PowerSwitch, outlets_are_on,
        lambda switch: not any(switch.outlets),
    ),
    "zwo_asi": (
        {"model": "ZWO ASI290MM"}, zwo_asi.Camera, camera_exposes, lambda camera: camera.get_exposure_status() != 1
    ),
}  # fmt: skip


OPTIONS = {
    "newport_xps_q8": {"groups": {"S": {"P": "mm"}}},
    "scpi": {
        "properties": {"enabled": {"get": "OUTP?", "set": "OUTP {}", "type": "bool"}},
        "safe": {"enabled": False},
    },
}
"""Of the drivers that cannot do without."""


class Room:
    """On a server: the simulators of all drivers with a safe state, and whether each of them is in it."""

    def __init__(self):
        self._library = build_library(
            [
                Instrument(address(name), name, DRIVERS[name][1], driver_options=OPTIONS.get(name, {}))
                for name in DRIVERS
            ]
        )
        type(self).library = self._library
        type(self).stand_ins = {}

    def unsafe(self):
        """Return the drivers whose simulators are not in their safe state."""
        with self._library.bench.lock:
            simulators = {name: self._library.instrument(address(name)) for name in DRIVERS} | self.stand_ins
            return [name for name, instrument in simulators.items() if not (DRIVERS | STAND_INS)[name][3](instrument)]


def address(name):
    return DRIVERS[name][0].format(1 + list(DRIVERS).index(name))


def driver(name):
    """Make a device on the server that has the room."""
    if name in STAND_INS:
        options, stand_in, *_others = STAND_INS[name]
        device = create_simulated(Plugins().driver(name), stand_in, name, options, {}, RealClock())
        instrument = Room.stand_ins[name] = device._stand_in_()
        device._stand_in_ = lambda: instrument
        return device
    return create_device(name, name, {"address": address(name)} | OPTIONS.get(name, {}), visa_library=Room.library)


def switch_on(server):
    """Use all of them at once, and never come to an end: the program that is going to be killed."""
    from catkit_devices.multiprocessing import SharedMemoryManager

    manager = SharedMemoryManager(server)
    manager.connect()

    def use(name):
        device = manager.get_object(name, driver, name)
        device.open()
        (DRIVERS | STAND_INS)[name][2](device)

    for name in DRIVERS | STAND_INS:
        threading.Thread(target=use, args=(name,), name=name).start()
    threading.Event().wait()
