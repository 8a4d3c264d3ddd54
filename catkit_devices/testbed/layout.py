"""What every process of a running testbed needs to know of it: plain, small, and quick to load."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from catkit_devices.testbed.configuration import Configuration

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
    simulator_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SimulationEntry:
    """What the simulated instruments of one server share."""

    bench: str | None
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)


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

    @property
    def device_servers(self) -> list[str]:
        """The full names of the servers that devices live on, in the order in which they are needed."""
        return list(dict.fromkeys(entry.server for entry in self.devices))

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


def lay_out(configuration: Configuration, server: str, *, simulate: bool) -> Layout:
    """Return the layout of a testbed whose processes meet at ``server``."""
    from catkit_devices.options import options_of
    from catkit_devices.testbed.checks import start_order

    plugins = configuration.plugins()
    entries = []
    for name in start_order(configuration):
        table = configuration.devices[name]
        driver = plugins.driver(table.driver)
        entries.append(
            DeviceEntry(
                name=name,
                driver=table.driver,
                server=f"{server}.{table.server}",
                aliases=table.aliases,
                options=table.options,
                uses={role: configuration.device_name(used) or used for role, used in table.uses.items()},
                limits=table.limits,
                interfaces=frozenset(f"{cls.__module__}.{cls.__qualname__}" for cls in driver.__mro__),
                visa="visa_library" in options_of(driver),
                address=table.address,
                simulator=table.simulator,
                simulator_options=table.simulator_options,
            )
        )
    shared = configuration.simulation
    return Layout(
        name=configuration.testbed.name,
        server=server,
        devices=tuple(entries),
        plugins=configuration.testbed.plugins,
        visa_library=configuration.testbed.visa_library,
        simulation=(
            SimulationEntry(bench=shared.bench, seed=shared.seed, options=shared.options) if simulate else None
        ),
    )
