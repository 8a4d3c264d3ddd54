"""The devices of a testbed, found by name, alias and capability, each reached through one proxy per process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ConfigurationError
from catkit_devices.multiprocessing import MutexedDict, SharedMemoryManager, lock_all
from catkit_devices.testbed.devices.factory import make_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from catkit_devices.testbed.layout import DeviceEntry, Layout

__all__ = ["Devices", "MutexedDict"]


class Devices(Mapping[str, Any]):
    """The devices of a testbed, by name, as a mapping that cannot be changed.

    By name, by alias, by what they can do::

        devices.wheel                  # by name or alias
        devices["wheel"]
        devices[devices.names.wheel]   # by what an editor completes
        devices.one(PowerMeter)        # the only one that is a power meter
        devices.all(FilterWheel)       # every filter wheel, in the order of the configuration

    What comes back is a proxy; the device is on its server. Its first operation opens it, no matter who calls it,
    and it stays open until the testbed closes it. Threads may share this object.

    Args:
        layout: of the testbed.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._managers: dict[str, SharedMemoryManager] = {}
        self._proxies: dict[str, Any] = {}
        self._names: Any = None

    def __getitem__(self, name: str) -> Any:
        """Return the device of that name or alias.

        Raises:
            ConfigurationError: there is none of that name; the nearest is named.
        """
        entry = self._layout.device(name)
        proxy = self._proxies.get(entry.name)
        if proxy is None:
            proxy = self._make(entry)
        return proxy

    def get(self, name: str, default: Any = None) -> Any:
        """Return the device of that name or alias; ``default`` if there is none."""
        return self[name] if name in self else default  # noqa: SIM401 - that would be this method

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            entry = self._layout.device(name)
        except ConfigurationError as error:
            raise AttributeError(str(error), name=name, obj=self) from None
        return self[entry.name]

    def one(self, interface: type) -> Any:
        """Return the only device that is an ``interface``.

        Raises:
            ConfigurationError: there is none, or there are several.
        """
        found = self._providing(interface)
        if len(found) != 1:
            listed = ", ".join(entry.name for entry in found) or "none is"
            raise ConfigurationError(
                f"testbed {self._layout.name!r}: expected exactly one device that is a {interface.__name__}, "
                f"found {len(found)} ({listed})"
            )
        return self[found[0].name]

    def all(self, interface: type) -> list[Any]:
        """Return every device that is an ``interface``; an empty list if there is none."""
        return [self[entry.name] for entry in self._providing(interface)]

    @property
    def names(self) -> Any:
        """The devices as an enum; an alias is another name of the same member."""
        if self._names is None:
            members = {entry.name: entry.name for entry in self._layout.devices}
            members.update({alias: entry.name for entry in self._layout.devices for alias in entry.aliases})
            made: Any = StrEnum("Devices", members)  # type: ignore[misc]  # its members are known at run time only
            self._names = made
        return self._names

    def lock(self, *names: str, timeout: float | None = None) -> lock_all:
        """Lock devices for exclusive use during a block: all of them or none, in an order that never deadlocks.

        ``with`` or ``async with``.

        Args:
            *names: names or aliases.
            timeout: seconds for all of them together; None for the longest of their own.

        Raises:
            MutexTimeoutError: not all of them came free in time; says who has the one that did not.
        """
        return lock_all(*(self[name] for name in names), timeout=timeout)

    def made(self, name: str) -> Any | None:
        """Return the device if somebody has asked for it already, else None."""
        entry = self._layout.device(name)
        try:
            return self._manager(entry.server).get_object(entry.name)
        except ConfigurationError:
            return None

    def __contains__(self, name: object) -> bool:
        return any(name == entry.name or name in entry.aliases for entry in self._layout.devices)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __iter__(self) -> Iterator[str]:
        return (entry.name for entry in self._layout.devices)

    def __len__(self) -> int:
        return len(self._layout.devices)

    def __dir__(self) -> list[str]:
        aliases = [alias for entry in self._layout.devices for alias in entry.aliases]
        return [*super().__dir__(), *self, *aliases]

    def __reduce__(self) -> tuple[type[Devices], tuple[Layout]]:
        return Devices, (self._layout,)

    def __repr__(self) -> str:
        return f"<Devices of {self._layout.name!r}: {', '.join(self)}>"

    def _providing(self, interface: type) -> list[DeviceEntry]:
        # By name, since the classes of drivers are never loaded here: a client need not have what they import.
        wanted = f"{interface.__module__}.{interface.__qualname__}"
        return [entry for entry in self._layout.devices if wanted in entry.interfaces]

    def _make(self, entry: DeviceEntry) -> Any:
        used = {role: self[name] for role, name in entry.uses.items()}
        factory: Callable[..., Any] = make_device
        proxy = self._manager(entry.server).get_object(entry.name, factory, entry.name, self._layout, used)
        with self._lock:
            return self._proxies.setdefault(entry.name, proxy)

    def _manager(self, server: str) -> SharedMemoryManager:
        with self._lock:
            manager = self._managers.get(server)
            if manager is None:
                manager = SharedMemoryManager(server)
                manager.connect()
                self._managers[server] = manager
            return manager
