"""Real drivers on simulated instruments, in the process of the test and on a virtual clock, so that no test waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices.construction import options_of
from catkit_devices.errors import CatkitDevicesError, ConfigurationError, DeviceError, MutexError
from catkit_devices.simulation import Instrument, VirtualClock, build_bench, build_library
from catkit_devices.simulation.resource import parse_address
from catkit_devices.stand_ins import create_simulated

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from catkit_devices.device import Device
    from catkit_devices.drivers import Plugins
    from catkit_devices.simulation import Bench, SimulatedVisaLibrary

__all__ = ["Made", "Simulations", "address_for"]

_SERIAL = ("baud_rate", "data_bits", "parity", "stop_bits", "flow_control")


class Made(NamedTuple):
    """A device that was made, and the other end of its line."""

    device: Device
    library: SimulatedVisaLibrary | None
    address: str | None


class Simulations:
    """Makes devices whose instruments share one bench, and closes them all.

    Args:
        bench: the physical model; an empty one with a virtual clock when None.
        plugins: where drivers, simulators and benches are looked up by name.
    """

    def __init__(self, bench: Bench | None = None, *, plugins: Plugins) -> None:
        self.bench = build_bench(None, {}, clock=VirtualClock()) if bench is None else bench
        self._plugins = plugins
        self._made: list[Made] = []
        self._served: dict[str, tuple[Instrument, SimulatedVisaLibrary]] = {}

    def make(
        self,
        driver: str | type[Device],
        simulator: str | type | Path | None = None,
        *,
        name: str | None = None,
        address: str | None = None,
        simulator_options: Mapping[str, Any] | None = None,
        faults: Mapping[str, float] | None = None,
        stand_in: type | None = None,
        opens: bool = True,
        **options: Any,
    ) -> Device:
        """Make a device on a simulated instrument.

        Args:
            driver: its registered name, or its class.
            simulator: a registered name, a class, or the path of a pyvisa-sim YAML file or of a recording; None for
                the simulator that is registered under the driver's name.
            name: of the device; made from the driver's when None.
            address: where the instrument is; None for a serial port where the driver has settings for one, and a TCP
                socket otherwise. Two devices with one address share the instrument.
            simulator_options: keyword arguments of the simulator, or of ``stand_in``.
            faults: the probability of each kind of fault for each reply.
            stand_in: for a driver without VISA, the class that stands in for its instrument: what it makes takes the
                place of what ``_open`` returns, or, where it derives from the driver, it takes the driver's.
            opens: whether the device is opened.
            **options: keyword arguments of the driver.

        Raises:
            ConfigurationError: an unknown name or option, or something that is missing.
            DeviceOpenError: the simulated instrument does not answer as the driver expects.
        """
        cls = self.driver(driver)
        title = driver if isinstance(driver, str) else cls.__name__.lower()
        known = options_of(cls)
        library = None
        if "visa_library" in known and "visa_library" not in options:
            address = address or options.pop("address", None) or address_for(cls, len(self._served) + 1)
            instrument = Instrument(
                address, self._simulator(driver, simulator), dict(simulator_options or {}), dict(faults or {})
            )
            library = self._serve(instrument)
            options |= {"address": address, "visa_library": library}
        elif address is not None:
            options["address"] = address
        given = {} if stand_in is None else dict(simulator_options or {})
        device = create_simulated(cls, stand_in, name or self._free_name(title), options, given, self.bench.clock)
        self._made.append(Made(device, library, address if library is not None else None))
        if opens:
            device.open()
        return device

    def driver(self, driver: str | type[Device]) -> type[Device]:
        """Return a driver's class, which may be given itself."""
        return self._plugins.driver(driver) if isinstance(driver, str) else driver

    def made(self, device: Any) -> Made:
        """Return what was made with a device of this test, by the device or its name.

        Raises:
            ConfigurationError: it is none of this test's.
        """
        for made in self._made:
            if made.device is device or made.device.name == device:
                return made
        known = ", ".join(made.device.name for made in self._made) or "none"
        raise ConfigurationError(f"{device!r} is no simulated device of this test (there are: {known})")

    def instrument(self, device: Any) -> Any:
        """Return the simulated instrument behind a device, for its true state."""
        library, address = self.line_of(device)
        return library.instrument(address)

    def line_of(self, device: Any) -> tuple[SimulatedVisaLibrary, str]:
        """Return the library and the address of a device, for faults.

        Raises:
            ConfigurationError: it has no simulated instrument.
        """
        made = self.made(device)
        if made.library is None or made.address is None:
            raise ConfigurationError(f"device {made.device.name!r} has no simulated instrument")
        return made.library, made.address

    def close(self) -> None:
        """Close every device, last made first; what was injected into its line and has not struck is forgotten.

        Raises:
            ExceptionGroup: of one error for each device that is still held, or that could not be closed, unless a fault
                or a cable that was pulled accounts for that.
        """
        problems: list[CatkitDevicesError] = []
        for made in reversed(self._made):
            device, struck = made.device, _mend(made)
            if (holder := device.mutex.holder) is not None:
                problems.append(MutexError(f"device {device.name!r} is still {holder}", mutex=device.name))
                device.mutex.break_("the test is over")
            try:
                if device.state == "fault":
                    device._life_.abandon()
                device.close(force=True)
            except DeviceError as error:
                device._life_.abandon()  # gives the address back
                if not struck:
                    problems.append(error)
            except MutexError:  # the holder that was broken is this thread: it may leave now
                device._life_.abandon()
        self._made.clear()
        if problems:
            raise ExceptionGroup("devices were left behind", problems)

    def _simulator(self, driver: str | type[Device], simulator: str | type | Path | None) -> str | type | Path:
        if simulator is not None:
            return simulator
        name = driver if isinstance(driver, str) else driver.driver
        if not name:
            raise ConfigurationError(f"say which simulator {driver!r} is to use: its driver is not registered")
        return name

    def _serve(self, instrument: Instrument) -> SimulatedVisaLibrary:
        where = str(parse_address(instrument.address))
        if where in self._served:
            there, library = self._served[where]
            if there != instrument:
                raise ConfigurationError(f"another simulated instrument is at {where} already")
            return library
        library = build_library([instrument], bench=self.bench, plugins=self._plugins)
        self._served[where] = instrument, library
        return library

    def _free_name(self, wanted: str) -> str:
        taken = {made.device.name for made in self._made}
        numbered = (f"{wanted}_{number}" for number in range(2, len(taken) + 3))
        return wanted if wanted not in taken else next(name for name in numbered if name not in taken)


def address_for(cls: type[Device], number: int) -> str:
    """Return an address of the kind that a driver seems to be for.

    Args:
        cls: the driver.
        number: tells addresses of one test from each other.
    """
    from catkit_devices.visa import VisaDevice

    below = [base for base in cls.__mro__ if base is not VisaDevice and issubclass(base, VisaDevice)]
    serial = any(name in vars(base) for base in below for name in _SERIAL)
    # 192.0.2.0/24 is set aside for documentation (RFC 5737): nothing real is ever there.
    return f"ASRL{number}::INSTR" if serial or not below else f"TCPIP0::192.0.2.{number}::5025::SOCKET"


def _mend(made: Made) -> bool:
    """Undo what a test has done to a line; return whether there was anything."""
    if made.library is None or made.address is None:
        return False
    resource = made.library.resource(made.address)
    struck = bool(resource.line.history) or not resource.connected
    resource.line.clear()
    made.library.reconnect(made.address)
    return struck
