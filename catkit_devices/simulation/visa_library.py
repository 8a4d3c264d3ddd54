"""The VISA library of a bench in this process.

Programs use it as any other VISA library, with ``pyvisa.ResourceManager(library)``.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from pyvisa.constants import StatusCode

from catkit_devices.errors import ConfigurationError, SimulationError, nearest
from catkit_devices.simulation.resource import SimulatedResource, parse_address
from catkit_devices.simulation.session_library import SessionLibrary
from catkit_devices.simulation.simulated_session import SimulatedSession

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from catkit_devices.simulation.bench import Bench
    from catkit_devices.simulation.contract import Simulator
    from catkit_devices.simulation.faults import FaultyLine

__all__ = ["SimulatedVisaLibrary"]


class SimulatedVisaLibrary(SessionLibrary):
    """A VISA library that serves the simulated instruments of one bench.

    Safe to use from several threads. Several sessions on one address share the instrument. What VISA knows but
    laboratories rarely use (VISA's own locks, events, register access) reports VI_ERROR_NSUP_OPER; exclusive access is
    not enforced, as in pyvisa-py.

    Args:
        bench: what the instruments share.
        resources: the instruments at their addresses.
        unbuilt: for each address whose instrument could not be built, the error, which opening it raises.

    Attributes:
        bench: as given; under its ``lock``, instruments run one at a time.
    """

    bench: Bench

    def __init__(
        self,
        bench: Bench,
        resources: Iterable[SimulatedResource],
        unbuilt: Mapping[str, ConfigurationError] | None = None,
    ) -> None:
        super().__init__()
        self.bench = bench
        self._unbuilt = unbuilt or {}
        self._resources: dict[str, SimulatedResource] = {}
        for resource in resources:
            if resource.address in self._resources:
                raise ConfigurationError(f"there are two simulated instruments at {resource.address}")
            self._resources[resource.address] = resource

    # --- for tests and tools: the instruments' end

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where instruments are, connected or not."""
        return tuple(self._resources)

    def instrument(self, address: str) -> Simulator:
        """Return the simulated instrument at ``address``.

        Raises:
            SimulationError: when there is none.
            ConfigurationError: when it could not be built.
        """
        return self.resource(address).instrument

    def line(self, address: str) -> FaultyLine:
        """Return the line to the instrument at ``address``, to inject faults into."""
        return self.resource(address).line

    def disconnect(self, address: str) -> None:
        """Pull the cable of the instrument at ``address``: open sessions are lost, and none can be opened."""
        resource = self.resource(address)
        with resource.lock:
            resource.disconnect()

    def reconnect(self, address: str) -> None:
        """Plug the cable back in; the instrument is in the state in which it was."""
        resource = self.resource(address)
        with resource.lock:
            resource.reconnect()

    def resource(self, address: str) -> SimulatedResource:
        """Return the instrument at ``address``, together with what has arrived from it."""
        canonical = str(parse_address(address))
        try:
            return self._resources[canonical]
        except KeyError:
            self._refuse_unbuilt(canonical)
            closest = nearest(canonical, self._resources)
            hint = f"; the nearest is {closest}" if closest else ""
            raise SimulationError(f"there is no simulated instrument at {canonical}{hint}") from None

    # --- for SessionLibrary

    def connected(self) -> Iterable[str]:
        """Return the addresses of the instruments whose cables are plugged in."""
        return [resource.address for resource in self._resources.values() if resource.connected]

    def connect(self, address: str, manager: int) -> SimulatedSession | StatusCode:
        """Open a session, or return the status that says why there is none."""
        try:
            canonical = str(parse_address(address))
        except ConfigurationError:
            return StatusCode.error_invalid_resource_name
        self._refuse_unbuilt(canonical)
        resource = self._resources.get(canonical)
        if resource is None or not resource.connected:
            return StatusCode.error_resource_not_found
        return SimulatedSession(resource, manager)

    def _refuse_unbuilt(self, canonical: str) -> None:
        if canonical in self._unbuilt:
            raise copy.copy(self._unbuilt[canonical])
