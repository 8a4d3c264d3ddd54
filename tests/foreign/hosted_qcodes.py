"""Drivers of QCoDeS on the simulated instruments that QCoDeS brings: by themselves, and hosted as our devices.

Each parameter is read and set by QCoDeS alone, and then in the same order, from another process, through a proxy of the
device. Both use simulated instruments of their own. What becomes of each must be the same.
"""

import contextlib
import io
import reprlib
from dataclasses import dataclass, field
from pathlib import Path

from catkit_devices._base.paths import get_at, set_at, words
from catkit_devices.drivers import Plugins, create_device
from catkit_devices.foreign.device import _plain
from catkit_devices.simulation import Instrument, VirtualClock, build_library

DRIVERS = {
    "AimTTi.AimTTiPL601": ("AimTTi_PL601P", "GPIB::1::INSTR"),
    "CopperMountain.CopperMountainM5065": ("CopperMountain_M5065", "TCPIP0::localhost::hislip0::INSTR"),
    "CopperMountain.CopperMountainM5180": ("CopperMountain_M5180", "TCPIP0::localhost::hislip0::INSTR"),
    "Keithley.Keithley2450": ("Keithley_2450", "GPIB::2::INSTR"),
    "Keithley.Keithley2614B": ("Keithley_2600", "GPIB::1::INSTR"),
    "Keithley.Keithley3706A": ("Keithley_3706A", "GPIB::11::INSTR"),
    "Keithley.Keithley7510": ("keithley_7510", "GPIB::1::INSTR"),
    "Keithley.KeithleyS46": ("Keithley_s46", "GPIB::2::INSTR"),
    "Keysight.Keysight33512B": ("Keysight_33xxx", "GPIB::1::INSTR"),
    "Keysight.Keysight34465A": ("Keysight_34465A", "GPIB::1::INSTR"),
    "Keysight.keysight_34980a.Keysight34980A": ("keysight_34980A", "GPIB::1::INSTR"),
    "Keysight.KeysightB1500": ("keysight_b1500", "GPIB::1::INSTR"),
    "Keysight.keysight_b220x.KeysightB220X": ("keysight_b220x", "GPIB::1::INSTR"),
    "Keysight.keysight_e4980a.KeysightE4980A": ("Keysight_E4980A", "GPIB::1::INSTR"),
    "Keysight.KeysightN6705B": ("Keysight_N6705B", "GPIB::1::INSTR"),
    "Keysight.KeysightN9030B": ("Keysight_N9030B", "GPIB::1::INSTR"),
    "Lakeshore.LakeshoreModel335": ("lakeshore_model335", "GPIB::2::INSTR"),
    "Lakeshore.LakeshoreModel336": ("lakeshore_model336", "GPIB::2::INSTR"),
    "Lakeshore.LakeshoreModel372": ("lakeshore_model372", "GPIB::3::INSTR"),
    "american_magnetics.AMIModel430": ("AMI430", "GPIB::1::INSTR", {"terminator": "\n"}),
    "cryomagnetics.CryomagneticsModel4G": (
        "cryo4g", "GPIB::1::INSTR", {"max_current_limits": {0: [0.0, 0.0]}, "coil_constant": 10.0},
    ),
    "cryomagnetics.CryomagneticsModelTM620": ("cryo_tm620", "GPIB0::1::INSTR"),
    "rigol.RigolDS1074Z": ("Rigol_DS1074Z", "GPIB::1::INSTR"),
    "rohde_schwarz.RTO1000.RTO1000": ("RTO_1000", "GPIB::1::INSTR", {"model": "RTO1044"}),
    "rohde_schwarz.RohdeSchwarzSGS100A": ("RSSGS100A", "GPIB::1::INSTR"),
    "stahl.Stahl": ("stahl", "ASRL3::INSTR"),
    "tektronix.TektronixAWG5014": ("Tektronix_AWG5014C", "GPIB0::1::INSTR", {"terminator": "\n", "timeout": 40}),
    "tektronix.AWG5208.TektronixAWG5208": ("Tektronix_AWG5208", "GPIB0::1::INSTR"),
    "tektronix.TektronixAWG70002A": ("Tektronix_AWG70000A", "GPIB0::2::INSTR"),
    "tektronix.DPO7200xx.TektronixDPO7000xx": ("Tektronix_DPO7200xx", "TCPIP0::0.0.0.0::inst0::INSTR"),
    "weinschel.Weinschel8320": ("Weinschel_8320", "GPIB::1::INSTR"),
    "yokogawa.YokogawaGS200": ("Yokogawa_GS200", "GPIB0::1::INSTR"),
}  # fmt: skip
"""The drivers for which QCoDeS brings a simulated instrument: its file, the address in it, options of the driver.

Without OxfordMercuryiPS: it refuses the address of its own simulated instrument, but for QCoDeS's own way to name it.
"""


@dataclass
class Outcome:
    """What became of one parameter: the value that was read, and whether it could be set; or the errors."""

    value: object = None
    not_read: str | None = None
    tried: object = None
    not_set: str | None = None
    is_gettable: bool = True
    is_tried: bool = False


@dataclass
class Compared:
    """What became of all parameters of a driver, by QCoDeS alone and hosted."""

    parameters: int = 0
    read: int = 0
    read_hosted: int = 0
    set: int = 0
    set_hosted: int = 0
    refused: int = 0
    refused_hosted: int = 0
    differences: dict[str, str] = field(default_factory=dict)


def library_for(driver):
    import qcodes.instrument.sims as sims

    file, address, *_ = DRIVERS[driver]
    instrument = Instrument(address, Path(sims.__file__).with_name(f"{file}.yaml"))
    return build_library([instrument], clock=VirtualClock()), address


def make_device(driver):
    """The factory for a server."""
    library, address = library_for(driver)
    options = DRIVERS[driver][2] if len(DRIVERS[driver]) > 2 else {}
    given = {"address": address, "safe": "nothing", "late_window": 0.0, "options": options}
    return create_device(f"qcodes:{driver}", "device", given, visa_library=library)


@contextlib.contextmanager
def alone(driver):
    """The driver by itself."""
    library, address = library_for(driver)
    library.__class__ = type("SimVisaLibrary", (type(library),), {})  # the name by which QCoDeS knows a simulation
    options = DRIVERS[driver][2] if len(DRIVERS[driver]) > 2 else {}
    with contextlib.redirect_stdout(io.StringIO()):
        instrument = Plugins().sources["qcodes"].find(driver)("alone", address, visalib=library, **options)
    try:
        yield instrument
    finally:
        instrument.close()


def parameters_of(owner, above=(), before=()):
    """Yield each parameter with its path, once: a channel that is a module too is used as a module."""
    for name, parameter in owner.parameters.items():
        if (parameter.gettable or parameter.settable) and not name.startswith("_"):
            yield (*above, name), parameter
    singles = [one for one in owner.submodules.values() if hasattr(one, "parameters")]
    for name, one in public_modules(owner):
        if hasattr(one, "parameters"):
            if one not in before:
                yield from parameters_of(one, (*above, name), (*before, owner))
            continue
        channels = list(one)
        if channels and all(any(channel is single for single in singles) for channel in channels):
            continue
        for channel in channels:
            yield from parameters_of(channel, (*above, name, channel.short_name), (*before, owner))


def public_modules(owner):
    """Yield the modules and lists of channels that users reach, by attributes without an underscore."""
    for name, one in owner.submodules.items():
        if not name.startswith("_"):
            yield name, one
    for name in dir(type(owner)):
        if isinstance(getattr(type(owner), name, None), property) and name not in ("parent", "root_instrument"):
            with contextlib.suppress(Exception):
                one = getattr(owner, name)
                if any(one is module for module in owner.submodules.values()):
                    yield name, one


def used_alone(driver):
    """Read and set every parameter by QCoDeS alone; return what became of each, by its path."""
    outcomes = {}
    with alone(driver) as instrument:
        for path, parameter in parameters_of(instrument):
            outcomes[path] = used(parameter)
    return outcomes


def used(parameter):
    """Read a parameter, and set it to what was read, or to a value that its validator has as an example."""
    outcome = Outcome(is_gettable=parameter.gettable)
    if parameter.gettable:
        try:
            outcome.value = _plain(parameter.get())
        except Exception as error:
            outcome.not_read = f"{type(error).__name__}: {error}"
    if parameter.settable:
        has_value = parameter.gettable and outcome.not_read is None
        examples = getattr(parameter.vals, "valid_values", ())
        if has_value or examples:
            outcome.is_tried = True
            outcome.tried = outcome.value if has_value else _plain(examples[0])
            outcome.not_set = problem_of(lambda: parameter.set(outcome.tried))
    return outcome


def problem_of(action):
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def compared(driver, device):
    """Use every parameter of an open device as QCoDeS alone does; return how far it is the same."""
    found = Compared()
    there = {words(path): path for path in device.describe()["properties"]}
    for path, outcome in used_alone(driver).items():
        found.parameters += 1
        name = ".".join(path)
        hosted = there.get(path) or there.get((*path[:-1], f"{path[-1]}_"))
        if hosted is None:
            found.differences[name] = "is no property of the device"
            continue
        if outcome.is_gettable:
            compare_read(found, name, outcome, device, hosted)
        if outcome.is_tried:
            compare_set(found, name, outcome, device, hosted)
    return found


def compare_read(found, name, outcome, device, hosted):
    try:
        value, problem = get_at(device, hosted), None
    except Exception as error:
        value, problem = None, f"{type(error).__name__}: {error}"
    if outcome.not_read is None:
        found.read += 1
        if problem is None and same(value, outcome.value):
            found.read_hosted += 1
        else:
            found.differences[name] = f"{reprlib.repr(outcome.value)} alone, hosted {problem or reprlib.repr(value)}"
    else:
        found.refused += 1
        if problem is not None:
            found.refused_hosted += 1
        else:
            found.differences[name] = f"not read alone ({outcome.not_read}), hosted {reprlib.repr(value)}"


def compare_set(found, name, outcome, device, hosted):
    problem = problem_of(lambda: set_at(device, hosted, outcome.tried))
    if outcome.not_set is None:
        found.set += 1
        if problem is None:
            found.set_hosted += 1
        else:
            found.differences[f"{name} = {reprlib.repr(outcome.tried)}"] = f"set alone, hosted {problem}"
    else:
        found.refused += 1
        if problem is not None:
            found.refused_hosted += 1
        else:
            found.differences[f"{name} = {reprlib.repr(outcome.tried)}"] = f"not set alone ({outcome.not_set})"


def same(one, other):
    import numpy as np

    if isinstance(one, dict) and isinstance(other, dict):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)
    return type(one) is type(other) and (one == other or (one != one and other != other))
