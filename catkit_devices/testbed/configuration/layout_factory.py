"""From a configuration to the layout of a testbed: what its processes need to know of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from catkit_devices.errors import ConfigurationError
from catkit_devices.stand_ins import takes_visa
from catkit_devices.testbed.configuration.bounds import unit_of
from catkit_devices.testbed.configuration.checks import start_order
from catkit_devices.testbed.configuration.device_checks import not_simulated, simulated_addresses, visa_address_of
from catkit_devices.testbed.configuration.problems import combined
from catkit_devices.testbed.layout import DeviceEntry, FramesEntry, Layout, SimulationEntry, TelemetryEntry

if TYPE_CHECKING:
    from catkit_devices.drivers import Plugins
    from catkit_devices.testbed.configuration.model import Configuration

__all__ = ["lay_out", "permit_timeout"]

_SHORTEST_PERMIT = 2.0
"""Seconds; below that, a busy computer would be taken for a dead one."""


def lay_out(configuration: Configuration, server: str, *, simulate: bool, runs: str | None = None) -> Layout:
    """Return the layout of a testbed whose processes meet at ``server``.

    Raises:
        ConfigurationError: it is to be simulated, and a device would open its real instrument or none.
    """
    plugins = configuration.plugins()
    if simulate and (problems := not_simulated(configuration, plugins)):
        raise combined([ConfigurationError(text, key=f"devices.{name}") for name, text in problems.items()])
    testbed = configuration.testbed
    at = simulated_addresses(configuration, plugins)
    entries = tuple(_entry(configuration, plugins, name, server, at.get(name)) for name in start_order(configuration))
    homes = sorted({entry.server for entry in entries})
    shared = configuration.simulation
    kept = str(Path(runs if runs is not None else testbed.runs).resolve())
    simulation = SimulationEntry(
        # Devices that several servers use have a server of their own, so that they do not die with one of the others.
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
        runs=kept,
        logs=testbed.logs or str(Path(kept) / f"{testbed.name}.logs"),
        history=testbed.history or str(Path(kept) / f"{testbed.name}.history.sqlite"),
        history_size=testbed.history_size,
        stop_timeout=testbed.stop_timeout,
        permit_timeout=permit_timeout(configuration),
        checked=bool(configuration.safety),
    )


def _entry(configuration: Configuration, plugins: Plugins, name: str, server: str, at: str | None) -> DeviceEntry:
    table = configuration.devices[name]
    driver = plugins.driver_for(table.driver, table.class_options)
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
        simulated_at=at,
        simulator=table.simulator,
        stand_in=table.stand_in,
        simulator_options=table.simulator_options,
        faults=table.faults,
        says_how_safe=driver._says_how_safe_(),
        telemetry=tuple(
            TelemetryEntry(path=path, rate=rate, unit=unit_of(driver, path)) for path, rate in table.telemetry.items()
        ),
        frames=None if table.frames is None else FramesEntry(**table.frames.model_dump()),
        eager=table.open == "start",
        gateway=table.gateway,
        gateway_port=table.gateway_port,
    )


def permit_timeout(configuration: Configuration) -> float | None:
    """Return for how many seconds devices may be changed without a renewal of the permit; None: no limit."""
    configured = configuration.testbed.permit_timeout
    if configured is not None or not configuration.safety:
        return configured
    return max(_SHORTEST_PERMIT, 2 * max(table.interval for table in configuration.safety.values()))
