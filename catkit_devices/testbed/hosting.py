"""What runs inside a device server: making its devices, and the simulation that they talk to."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from catkit_devices.device import Device
    from catkit_devices.testbed.layout import Layout

__all__ = ["make_device"]

# By server: a server process has one, and a process that hosts several (a test) keeps them apart.
_simulations: dict[str, Any] = {}
_simulations_lock = threading.Lock()


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
    return create_device(
        entry.driver,
        name,
        options,
        plugin_directories=layout.plugins,
        visa_library=_visa_library(layout, entry.server) if entry.visa else None,
    )


def _visa_library(layout: Layout, server: str) -> Any:
    if layout.simulation is None:
        return layout.visa_library
    from catkit_devices.simulation import Instrument, build_library

    with _simulations_lock:
        if server not in _simulations:
            _simulations[server] = build_library(
                [
                    Instrument(entry.address, entry.simulator, dict(entry.simulator_options))
                    for entry in layout.devices
                    if entry.server == server and entry.address is not None and entry.simulator is not None
                ],
                bench=layout.simulation.bench,
                bench_options=dict(layout.simulation.options),
                seed=layout.simulation.seed,
                plugin_directories=layout.plugins,
            )
        return _simulations[server]
