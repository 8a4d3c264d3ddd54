"""What every process of a running testbed needs to know of it: plain, small, and quick to load."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping
__all__ = ["DeviceEntry", "FramesEntry", "Layout", "SimulationEntry", "TelemetryEntry"]


@dataclass(frozen=True, kw_only=True)
class TelemetryEntry:
    """One property that is read again and again."""

    path: str
    """Of the property, as ``outputs.1.voltage``."""
    rate: float
    """Readings per second."""
    unit: str | None = None


@dataclass(frozen=True, kw_only=True)
class FramesEntry:
    """The frames of a camera."""

    method: str
    """The method, or the property, that returns one."""
    rate: float
    """Frames per second, at most."""
    slots: int
    """How many the memory holds."""
    continuous: bool = False
    """Whether the camera takes them by itself, one after the other."""


_FOREIGN = "catkit_devices.foreign.device.ForeignDevice"
"""The class of devices with a driver of another framework, as it is among the interfaces of a device."""


@dataclass(frozen=True, kw_only=True)
class DeviceEntry:
    """One device: how it is made, and what it may be called."""

    name: str
    driver: str
    server: str
    """The full name of its server."""
    aliases: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    uses: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, tuple[float | str, float | str]] = field(default_factory=dict)
    interfaces: frozenset[str] = frozenset()
    """``module.class`` of the driver's class and of each of its base classes."""
    visa: bool = False
    """Whether the driver takes a VISA library."""
    address: str | None = None
    simulated_at: str | None = None
    """The address of its simulated instrument; ``address`` may be an expression."""
    simulator: str | None = None
    stand_in: str | None = None
    simulator_options: Mapping[str, Any] = field(default_factory=dict)
    faults: Mapping[str, float] = field(default_factory=dict)
    says_how_safe: bool = True
    """Whether the driver or the configuration says how it is made safe."""
    telemetry: tuple[TelemetryEntry, ...] = ()
    frames: FramesEntry | None = None
    """What of it is published as frames; None if nothing is."""
    eager: bool = False
    """Whether it is opened at the start."""
    gateway: str = "read"
    """What programs that speak VISA may do with it: ``"read"``, ``"write"`` or ``"off"``."""
    gateway_port: int | None = None
    """Where it is also served as a plain socket."""


@dataclass(frozen=True, kw_only=True)
class SimulationEntry:
    """What the simulated instruments share, and the full name of their server."""

    server: str
    bench: str | None
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    clock: str = "real"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A running testbed.

    ``server`` is the server through which its processes find each other. Devices are on other servers, so that the
    death of one does not keep the others from reporting it.
    """

    name: str
    server: str
    devices: tuple[DeviceEntry, ...]
    """Devices, ordered so that each comes after the devices that it uses."""
    plugins: tuple[str, ...] = ()
    visa_library: str = "@py"
    simulation: SimulationEntry | None = None
    record: str | None = None
    """Directory for recordings of what goes over the wires."""
    runs: str = "runs"
    """Directory that receives one directory per run."""
    history: str = ""
    """The file with the history of telemetry."""
    history_size: float = 500.0
    """How large that may become, in megabytes."""
    logs: str = ""
    """Directory of the testbed's log and audit trail."""
    stop_timeout: float = 10.0
    """Seconds that an experiment has to end when told to stop."""
    permit_timeout: float | None = None
    """Seconds for which devices may be changed without a renewal of the permit; None: no limit."""
    checked: bool = False
    """Whether there are safety checks."""

    @property
    def has_telemetry(self) -> bool:
        """Whether a device has telemetry."""
        return any(entry.telemetry for entry in self.devices)

    def not_asked(self) -> dict[str, str]:
        """Return the devices that are asked for nothing that users have not asked for, and why."""
        found = {}
        for entry in self.devices:
            if self.record is not None:
                found[entry.name] = "what goes over its wire is being recorded"
            elif (entry.simulator or "").endswith(".wire"):
                found[entry.name] = "its instrument is a recording"
            elif _FOREIGN in entry.interfaces:
                found[entry.name] = "a driver of another framework may take long to read, or change something"
        return found

    @property
    def device_servers(self) -> list[str]:
        """The full names of the servers of the devices, in the order in which they are needed."""
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
