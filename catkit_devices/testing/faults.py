"""Faults that a test injects on the line of one device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.simulation import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.simulation import SharedSimulation

__all__ = ["Faults"]


class Faults:
    """Injects faults between a device and its simulated instrument.

    Kinds and details are those of :class:`catkit_devices.simulation.Fault`: ``no_reply``, ``late`` (``delay``),
    ``truncated`` (``keep``), ``garbled`` (``position``, ``mask``), ``extra`` (``data``, ``after``), ``disconnect``,
    ``slow`` (``interval``).

    Args:
        find: returns the simulation that a device belongs to, in this process or a proxy of it, and the address of the
            device's instrument.
    """

    def __init__(self, find: Callable[[Any], tuple[SharedSimulation, str]]) -> None:
        self._find = find

    def inject(self, device: Any, kind: str, count: int = 1, *, skip: int = 0, **details: Any) -> None:
        """Strike the next ``count`` replies of the instrument behind ``device``.

        Args:
            device: the device, or its name.
            kind: of the fault.
            count: how many replies; the faults of several calls come one after the other.
            skip: how many replies without a fault come before.
            **details: of the fault; what is left out is chosen at random, from the seed of the simulation.

        Raises:
            ConfigurationError: there is no such fault, or the device is not simulated.
        """
        simulation, address = self._find(device)
        simulation.inject(address, Fault(kind, **details), count, after=skip)

    def clear(self, device: Any) -> None:
        """Remove the faults that were injected and have not struck yet."""
        simulation, address = self._find(device)
        simulation.clear_faults(address)

    def history(self, device: Any) -> list[tuple[int, str]]:
        """Return each fault that has struck: the number of the write whose reply it was, and its kind."""
        simulation, address = self._find(device)
        return simulation.fault_history(address)

    def disconnect(self, device: Any) -> None:
        """Pull the cable: the connection is gone, and the address cannot be opened until :meth:`reconnect`."""
        simulation, address = self._find(device)
        simulation.disconnect(address)

    def reconnect(self, device: Any) -> None:
        """Plug the cable back in; the instrument is in the state in which it was."""
        simulation, address = self._find(device)
        simulation.reconnect(address)
