"""Real drivers on simulated instruments, in the process of the test, on a virtual clock so that no test waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices._wire.address import example, is_expression
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
"""Options that only a device on a serial port has."""


class Made(NamedTuple):
    """A device that was made, with the library and the address of its simulated instrument."""

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
        self._places: dict[str, str] = {}
        """Where instruments are, by the expressions with which devices look for them."""
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
            name: of the device; None makes one from the name of the driver.
            address: the address of the instrument; None for a serial port if the driver has settings for one, and for a
                TCP socket otherwise. Two devices with the same address share the instrument. If it is a VISA resource
                expression, the instrument is at an address to which it applies.
            simulator_options: keyword arguments of the simulator, or of ``stand_in``.
            faults: the probability of each kind of fault for each reply.
            stand_in: for a driver without VISA, the class that replaces its instrument. An object of it is used instead
                of what ``_open`` returns; or instead of the driver, if the class derives from it.
            opens: whether the device is opened.
            **options: keyword arguments of the driver.

        Raises:
            ConfigurationError: a name or an option is unknown or missing.
            DeviceOpenError: the simulated instrument does not answer as the driver expects.
        """
        cls = self.driver(driver)
        title = driver if isinstance(driver, str) else cls.__name__.lower()
        known = options_of(cls)
        library = None
        if "visa_library" in known and "visa_library" not in options:
            address = address or options.pop("address", None) or address_for(cls, len(self._served) + 1)
            instrument = Instrument(
                self._place(address),
                self._simulator(driver, simulator),
                dict(simulator_options or {}),
                dict(faults or {}),
                driver_options=dict(options),
            )
            library = self._serve(instrument)
            options |= {"address": address, "visa_library": library}
            address = instrument.address
        elif address is not None:
            options["address"] = address
        given = {} if stand_in is None else dict(simulator_options or {})
        device = create_simulated(cls, stand_in, name or self._free_name(title), options, given, self.bench.clock)
        self._made.append(Made(device, library, address if library is not None else None))
        if opens:
            device.open()
        return device

    def driver(self, driver: str | type[Device]) -> type[Device]:
        """Return the class of a driver, which is given as a registered name or as the class."""
        return self._plugins.driver(driver) if isinstance(driver, str) else driver

    def made(self, device: Any) -> Made:
        """Return a device of this test with its instrument, by the device or its name.

        Raises:
            ConfigurationError: it is not a device of this test.
        """
        for made in self._made:
            if made.device is device or made.device.name == device:
                return made
        known = ", ".join(made.device.name for made in self._made) or "none"
        raise ConfigurationError(f"{device!r} is not a simulated device of this test (there are: {known})")

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
        """Close every device, the newest first, and remove the faults that were injected and have not struck.

        Raises:
            ExceptionGroup: with one error for each device whose mutex is still held, or that could not be closed
                although its line had neither a fault nor a pulled cable.
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
            except MutexError:  # the mutex that was broken was held by this thread
                device._life_.abandon()
        self._made.clear()
        if problems:
            raise ExceptionGroup("devices were left behind", problems)

    def _place(self, address: str) -> str:
        """Return where the simulated instrument for an address is."""
        if is_expression(address):
            return self._places.setdefault(address, example(address, len(self._served) + 1))
        return address

    def _simulator(self, driver: str | type[Device], simulator: str | type | Path | None) -> str | type | Path:
        if simulator is not None:
            return simulator
        name = driver if isinstance(driver, str) else driver.driver
        if not name:
            raise ConfigurationError(f"say which simulator {driver!r} is to use: this driver is not registered")
        return name

    def _serve(self, instrument: Instrument) -> SimulatedVisaLibrary:
        where = str(parse_address(instrument.address))
        if where in self._served:
            there, library = self._served[where]
            if there != instrument:
                raise ConfigurationError(f"another simulated instrument is at {where} already")
            stand_for = getattr(library.instrument(where), "stand_for", None)
            if stand_for is not None:  # it is made from the options of the devices at its address
                try:
                    stand_for(instrument.driver_options)
                except ValueError as error:
                    raise ConfigurationError(f"the simulated instrument at {where}: {error}") from error
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
        number: a part of the address, so that the addresses of one test differ.
    """
    from catkit_devices.visa import VisaDevice

    below = [base for base in cls.__mro__ if base is not VisaDevice and issubclass(base, VisaDevice)]
    serial = any(name in vars(base) for base in below for name in _SERIAL)
    # 192.0.2.0/24 is reserved for documentation (RFC 5737): no real instrument has such an address.
    return f"ASRL{number}::INSTR" if serial or not below else f"TCPIP0::192.0.2.{number}::5025::SOCKET"


def _mend(made: Made) -> bool:
    """Undo the faults that a test has made on a line; return whether there were any."""
    if made.library is None or made.address is None:
        return False
    resource = made.library.resource(made.address)
    struck = bool(resource.line.history) or not resource.connected
    resource.line.clear()
    made.library.reconnect(made.address)
    return struck
