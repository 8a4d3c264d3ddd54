"""Faults that a test injects on the line of one device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from catkit_devices.simulation import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Faults", "InjectableLine", "LocalLine", "RemoteLine"]


class InjectableLine(Protocol):
    """The line of one simulated instrument, in this process or in another one."""

    def inject(self, fault: Fault, count: int, skip: int) -> None:
        """Strike the next ``count`` replies, after ``skip`` replies without a fault."""

    def clear(self) -> None:
        """Remove the faults that have not struck yet."""

    def history(self) -> list[tuple[int, str]]:
        """Return the faults that have struck."""

    def disconnect(self) -> None:
        """Pull the cable."""

    def reconnect(self) -> None:
        """Plug the cable back in."""


class Faults:
    """Injects faults between a device and its simulated instrument.

    Kinds and details are those of :class:`catkit_devices.simulation.Fault`: ``no_reply``, ``late`` (``delay``),
    ``truncated`` (``keep``), ``garbled`` (``position``, ``mask``), ``extra`` (``data``, ``after``), ``disconnect``,
    ``slow`` (``interval``).

    Args:
        line: a function that returns the line of a device.
    """

    def __init__(self, line: Callable[[Any], InjectableLine]) -> None:
        self._line = line

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
        self._line(device).inject(Fault(kind, **details), count, skip)

    def clear(self, device: Any) -> None:
        """Remove the faults that were injected and have not struck yet."""
        self._line(device).clear()

    def history(self, device: Any) -> list[tuple[int, str]]:
        """Return each fault that has struck: the number of the write whose reply it was, and its kind."""
        return self._line(device).history()

    def disconnect(self, device: Any) -> None:
        """Pull the cable: the connection is gone, and the address cannot be opened until :meth:`reconnect`."""
        self._line(device).disconnect()

    def reconnect(self, device: Any) -> None:
        """Plug the cable back in; the instrument is in the state in which it was."""
        self._line(device).reconnect()


class LocalLine:
    """The line of an instrument that is simulated in this process.

    Args:
        library: the VISA library of the simulation.
        address: of the instrument.
    """

    def __init__(self, library: Any, address: str) -> None:
        self._library = library
        self._address = address

    def inject(self, fault: Fault, count: int, skip: int) -> None:
        """Strike the next ``count`` replies, once ``skip`` have come unharmed."""
        self._library.line(self._address).inject(fault, count, after=skip)

    def clear(self) -> None:
        """Remove the faults that have not struck yet."""
        self._library.line(self._address).clear()

    def history(self) -> list[tuple[int, str]]:
        """Return the faults that have struck."""
        return list(self._library.line(self._address).history)

    def disconnect(self) -> None:
        """Pull the cable."""
        self._library.disconnect(self._address)

    def reconnect(self) -> None:
        """Plug the cable back in."""
        self._library.reconnect(self._address)


class RemoteLine:
    """The line of an instrument that a testbed simulates in another process.

    Args:
        simulation: a proxy of the :class:`~catkit_devices.simulation.SharedSimulation`.
        address: of the instrument.
    """

    def __init__(self, simulation: Any, address: str) -> None:
        self._simulation = simulation
        self._address = address

    def inject(self, fault: Fault, count: int, skip: int) -> None:
        """Strike the next ``count`` replies, once ``skip`` have come unharmed."""
        self._simulation.evaluate(_inject, self._address, fault, count, skip)

    def clear(self) -> None:
        """Remove the faults that have not struck yet."""
        self._simulation.clear_faults(self._address)

    def history(self) -> list[tuple[int, str]]:
        """Return the faults that have struck."""
        struck: list[tuple[int, str]] = self._simulation.fault_history(self._address)
        return struck

    def disconnect(self) -> None:
        """Pull the cable."""
        self._simulation.disconnect(self._address)

    def reconnect(self) -> None:
        """Plug the cable back in."""
        self._simulation.reconnect(self._address)


def _inject(library: Any, address: str, fault: Fault, count: int, skip: int) -> None:
    library.line(address).inject(fault, count, after=skip)
