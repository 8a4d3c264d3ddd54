"""What runs inside a server: making its devices, and the simulation that they talk to."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices.multiprocessing.wire.forking import renewed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from catkit_devices.device import Device
    from catkit_devices.drivers import Simulated
    from catkit_devices.simulation import SharedSimulation, SimulatedVisaLibrary
    from catkit_devices.testbed.layout import DeviceEntry, Layout

__all__ = ["SIMULATION", "build_simulation", "make_device", "make_simulation"]

SIMULATION = "simulation"
"""Name of the shared simulation on its server."""

# By testbed: a process serves one testbed, but a test may serve several. One object for each testbed, so that all
# devices with the same address use the same library.
_simulations: dict[str, SimulatedVisaLibrary] = {}
_libraries: dict[tuple[str, str], Any] = {}
_guard = renewed(threading.RLock())


def make_device(name: str, layout: Layout, used: Mapping[str, Any]) -> Device:
    """Make a device, in its server; its first use opens it, and the server keeps it open from then on.

    Args:
        name: the device's name.
        layout: of the testbed.
        used: the devices that it uses, by the names of its constructor's arguments.

    Raises:
        ConfigurationError: its driver refuses its options; then it was not made.
    """
    from catkit_devices.drivers import create_device

    entry = layout.device(name)
    options = {**entry.options, **used, "open_on_use": True}
    if entry.limits:
        options["limits"] = dict(entry.limits)
    device = create_device(
        entry.driver,
        name,
        options,
        plugin_directories=layout.plugins,
        visa_library=_visa_library(layout, entry.server) if entry.visa else None,
        simulated=_simulated(layout, entry),
    )
    device._configured_(has_stand_in=entry.stand_in is not None)
    return device


def _simulated(layout: Layout, entry: DeviceEntry) -> Simulated | None:
    from catkit_devices._wire.byte_stream import simulated_clock
    from catkit_devices.drivers import Simulated

    if layout.simulation is None:
        return None
    clock = simulated_clock(_visa_library(layout, entry.server))
    return Simulated(clock, entry.stand_in, entry.simulator_options)


def make_simulation(layout: Layout) -> SharedSimulation:
    """Make the simulated instruments, in the process of their server."""
    from catkit_devices.simulation import SharedSimulation

    return SharedSimulation(_simulation_here(layout))


def build_simulation(layout: Layout, *, strict: bool = True) -> SimulatedVisaLibrary:
    """Build the simulated instruments of a testbed.

    Args:
        layout: of the testbed.
        strict: whether it is an error that one of them cannot be built; else all others can be used.

    Raises:
        ConfigurationError: one of them cannot be built, or what they share.
    """
    from catkit_devices.simulation import Instrument, build_library

    shared = layout.simulation
    return build_library(
        [
            Instrument(
                entry.simulated_at,
                entry.simulator,
                dict(entry.simulator_options),
                dict(entry.faults),
                driver_options=entry.options,
            )
            for entry in layout.devices
            if entry.simulated_at is not None and entry.simulator is not None
        ],
        bench=None if shared is None else shared.bench,
        bench_options={} if shared is None else dict(shared.options),
        seed=0 if shared is None else shared.seed,
        clock="real" if shared is None else shared.clock,
        plugin_directories=layout.plugins,
        strict=strict,
    )


def _simulation_here(layout: Layout) -> SimulatedVisaLibrary:
    with _guard:
        if layout.server not in _simulations:
            _simulations[layout.server] = build_simulation(layout, strict=False)
        return _simulations[layout.server]


def _visa_library(layout: Layout, server: str) -> Any:
    key = (layout.server, server)
    with _guard:
        if key not in _libraries:
            _libraries[key] = _recorded(layout, server, _bare_library(layout))
        return _libraries[key]


def _bare_library(layout: Layout) -> Any:
    if layout.simulation is None:
        return layout.visa_library
    if layout.simulation.server in layout.device_servers:
        return _simulation_here(layout)
    from catkit_devices.simulation import RemoteVisaLibrary
    from catkit_devices.testbed.trip import connected

    manager = connected(layout.simulation.server)
    return RemoteVisaLibrary(manager.get_object(SIMULATION, make_simulation, layout))


def _recorded(layout: Layout, server: str, library: Any) -> Any:
    if layout.record is None:
        return library
    from catkit_devices.simulation import RecordingVisaLibrary

    directory = Path(layout.record)
    files = {
        entry.address: directory / f"{entry.name}.wire"
        for entry in reversed(layout.devices)  # an address that several devices share is named after the first of them
        if entry.server == server and entry.visa and entry.address is not None
    }
    return RecordingVisaLibrary(library, files)
