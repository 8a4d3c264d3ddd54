"""What every process of a running testbed needs to know of it: plain, small, and quick to load."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from catkit_devices.device import Device
    from catkit_devices.drivers import Plugins
    from catkit_devices.testbed.configuration.model import Configuration, DeviceConfiguration

__all__ = ["DeviceEntry", "Layout", "SimulationEntry", "lay_out"]


@dataclass(frozen=True, kw_only=True)
class DeviceEntry:
    """One device: how it is made, and what it may be called."""

    name: str
    driver: str
    server: str
    """The full name of the server that it lives on."""
    aliases: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    uses: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, tuple[float | str, float | str]] = field(default_factory=dict)
    interfaces: frozenset[str] = frozenset()
    """``module.class`` of every class that the driver is one of."""
    visa: bool = False
    """Whether the driver takes a VISA library."""
    address: str | None = None
    simulator: str | None = None
    stand_in: str | None = None
    simulator_options: Mapping[str, Any] = field(default_factory=dict)
    faults: Mapping[str, float] = field(default_factory=dict)
    eager: bool = False
    """Whether it is opened at the start."""


@dataclass(frozen=True, kw_only=True)
class SimulationEntry:
    """What the simulated instruments share, and the full name of the server that they live on."""

    server: str
    bench: str | None
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    clock: str = "real"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A running testbed.

    ``server`` is the one through which its processes find each other; devices live on servers of their own, so that
    one of those can die without taking the others' means of saying so along.
    """

    name: str
    server: str
    devices: tuple[DeviceEntry, ...]
    """Each after those that it uses."""
    plugins: tuple[str, ...] = ()
    visa_library: str = "@py"
    simulation: SimulationEntry | None = None
    record: str | None = None
    """Directory for recordings of what goes over the wires."""
    runs: str = "runs"
    """Directory that receives one directory per run."""
    stop_timeout: float = 10.0
    """Seconds that an experiment has to end when told to stop."""
    permit_timeout: float | None = None
    """Seconds for which a device server may be changed without word from who watches; None for ever."""
    checked: bool = False
    """Whether there are safety checks."""

    @property
    def device_servers(self) -> list[str]:
        """The full names of the servers that devices live on, in the order in which they are needed."""
        return list(dict.fromkeys(entry.server for entry in self.devices))

    @property
    def servers(self) -> list[str]:
        """The full names of all servers but the testbed's own, in the order in which they are needed."""
        simulation = [] if self.simulation is None else [self.simulation.server]
        return list(dict.fromkeys([*simulation, *self.device_servers]))

    def device(self, name: str) -> DeviceEntry:
        """Return the device of that name or alias.

        Raises:
            ConfigurationError: there is none.
        """
        for entry in self.devices:
            if name == entry.name or name in entry.aliases:
                return entry
        known = [known for entry in self.devices for known in (entry.name, *entry.aliases)]
        raise ConfigurationError(
            f"testbed {self.name!r} has no device {name!r}, expected one of {', '.join(known) or 'none'}",
            suggestion=nearest(name, known),
        )


def lay_out(configuration: Configuration, server: str, *, simulate: bool, runs: str | None = None) -> Layout:
    """Return the layout of a testbed whose processes meet at ``server``.

    Raises:
        ConfigurationError: it is to be simulated, and a device would open its real instrument or none.
    """
    from catkit_devices.testbed.configuration.checks import start_order
    from catkit_devices.testbed.configuration.device_checks import not_simulated
    from catkit_devices.testbed.configuration.problems import combined
    from catkit_devices.testbed.safety.check import permit_timeout

    plugins = configuration.plugins()
    if simulate and (problems := not_simulated(configuration, plugins)):
        raise combined([ConfigurationError(text, key=f"devices.{name}") for name, text in problems.items()])
    testbed = configuration.testbed
    entries = tuple(_entry(configuration, plugins, name, server) for name in start_order(configuration))
    homes = sorted({entry.server for entry in entries})
    shared = configuration.simulation
    simulation = SimulationEntry(
        # What several servers use lives beside them, so that none of them takes it along when it dies.
        server=homes[0] if len(homes) == 1 else f"{server}.simulation",
        bench=shared.bench,
        seed=shared.seed,
        options=shared.options,
        clock=shared.clock,
    )
    return Layout(
        name=testbed.name,
        server=server,
        devices=entries,
        plugins=testbed.plugins,
        visa_library=testbed.visa_library,
        simulation=simulation if simulate and entries else None,
        record=testbed.record,
        runs=str(Path(runs if runs is not None else testbed.runs).resolve()),
        stop_timeout=testbed.stop_timeout,
        permit_timeout=permit_timeout(configuration),
        checked=bool(configuration.safety),
    )


def visa_address_of(table: DeviceConfiguration, driver: type[Device]) -> str | None:
    """Return where the instrument of a device is, as VISA says it."""
    from catkit_devices.serial_device import SerialDevice, visa_address

    if table.address is not None and issubclass(driver, SerialDevice):
        return visa_address(table.address)
    return table.address


def _entry(configuration: Configuration, plugins: Plugins, name: str, server: str) -> DeviceEntry:
    from catkit_devices._device.stand_ins import takes_visa

    table = configuration.devices[name]
    driver = plugins.driver(table.driver)
    return DeviceEntry(
        name=name,
        driver=table.driver,
        server=f"{server}.{table.server}",
        aliases=table.aliases,
        options=table.options,
        uses={role: configuration.device_name(used) or used for role, used in table.uses.items()},
        limits=table.limits,
        interfaces=frozenset(f"{cls.__module__}.{cls.__qualname__}" for cls in driver.__mro__),
        visa=takes_visa(driver),
        address=visa_address_of(table, driver),
        simulator=table.simulator,
        stand_in=table.stand_in,
        simulator_options=table.simulator_options,
        faults=table.faults,
        eager=table.open == "start",
    )
