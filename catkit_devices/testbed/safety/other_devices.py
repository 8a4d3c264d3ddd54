"""Devices on a device server that are not in the configuration: programs have made them, by ``manager.get_object``.

Only their server knows how they are made and opened. Another process must know it too, in case that server is killed.
So each device is recorded on the testbed's own server before it is opened, with its factory and arguments. The record
is removed when the device is closed.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from catkit_devices._base.standby import Standby
from catkit_devices.device import Device
from catkit_devices.errors import DeviceOpenError
from catkit_devices.multiprocessing.hosted import HostedObject
from catkit_devices.multiprocessing.protocol import running_server
from catkit_devices.multiprocessing.wire.channel import dumps, loads
from catkit_devices.testbed.devices.factory import make_device
from catkit_devices.testbed.trip import connected

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.multiprocessing import SharedMemoryManager

__all__ = ["OTHER_DEVICES", "REGISTER", "OtherDevice", "Register", "other_devices"]

REGISTER = "safety.register"
"""Name of the register on each device server."""
OTHER_DEVICES = "safety.other_devices"
"""Name of the dictionary on the testbed's server with the name of every such device that may be on. The key is the full
name of its server, and a number."""
_RECIPES = "safety.other_devices.recipes"
"""Name of the dictionary with the factories and arguments of these devices, under the same keys."""
_TIMEOUT = 5.0
"""Seconds within which the testbed's server must record a device that is to be opened."""


@dataclass(frozen=True)
class OtherDevice:
    """One of these devices.

    Args:
        name: of the device.
        recipe: the factory and its arguments, pickled; None if another process cannot make the device.
    """

    name: str
    recipe: bytes | None

    def make(self) -> Device:
        """Make it, in this process.

        Raises:
            TypeError: it cannot be made in another process, or the factory has made something else.
        """
        if self.recipe is None:
            raise TypeError("only its server knew how it is made: its factory or an argument cannot be pickled")
        factory, (args, kwargs) = loads(self.recipe)
        device = factory(*args, **kwargs)
        if not isinstance(device, Device):
            raise TypeError(f"its factory has made a {type(device).__name__}, expected a Device")
        return device


class Register(HostedObject):
    """Records these devices; an object of the device server. The server and the devices call it.

    Args:
        testbed_server: full name of the testbed's own server.
        server: full name of this server.

    Raises:
        RuntimeError: the thread that it needs cannot be started.
    """

    def __init__(self, testbed_server: str, server: str) -> None:
        self._testbed_server = testbed_server
        self._server = server
        self._guard = threading.Lock()
        self._recipes: WeakKeyDictionary[Device, bytes | None] = WeakKeyDictionary()
        self._configured: WeakKeyDictionary[Device, None] = WeakKeyDictionary()
        self._written: WeakKeyDictionary[Device, int] = WeakKeyDictionary()
        """The number under which each device that may be on is recorded."""
        self._numbers = itertools.count(1)
        self._writer = Standby("register")
        running_server[0].host.register = self

    def _made_(self, hosted: HostedObject, factory: Callable[..., Any], args: Any) -> None:
        """If an object of this server is a device, remember how it was made; called before it can be used."""
        if not isinstance(hosted, Device):
            return
        if factory is make_device:
            self._configured[hosted] = None
            return
        try:
            self._recipes[hosted] = dumps((factory, args))
        except Exception:  # noqa: BLE001 - a class of a user may raise anything
            self._recipes[hosted] = None
        with self._guard:
            number = self._written.get(hosted)
        if number is not None:  # its factory has opened it already
            note = OtherDevice(hosted.name, self._recipes[hosted])
            self._writer.do(partial(self._write, (self._server, number), note)).wait(_TIMEOUT)

    def _opening_(self, device: Device) -> None:
        """Record a device that is not in the configuration; called before it is opened.

        Raises:
            DeviceOpenError: the testbed's server could not record it.
        """
        if device in self._configured:
            return
        with self._guard:
            number = self._written.setdefault(device, next(self._numbers))
        note = OtherDevice(device.name, self._recipes.get(device))
        errand = self._writer.do(partial(self._write, (self._server, number), note))
        ended = errand.wait(_TIMEOUT)
        if not ended or errand.failure is not None:
            raise DeviceOpenError(
                "is not opened: it is not in the configuration, so the testbed's server must record it first, but that "
                f"server does not answer ({errand.failure if ended else f'no answer in {_TIMEOUT:g} s'})",
                device=device.name,
            )

    def _closed_(self, device: Device) -> None:
        """Remove the record of a device; called when it is closed and safe."""
        with self._guard:
            number = self._written.pop(device, None)
        if number is not None:
            self._writer.do(partial(self._cross_out, (self._server, number)))

    def _write(self, key: tuple[str, int], device: OtherDevice) -> None:
        manager = connected(self._testbed_server)
        manager.get_dict(_RECIPES)[key] = device.recipe
        manager.get_dict(OTHER_DEVICES)[key] = device.name

    def _cross_out(self, key: tuple[str, int]) -> None:
        manager = connected(self._testbed_server)
        manager.get_dict(OTHER_DEVICES).pop(key, None)
        manager.get_dict(_RECIPES).pop(key, None)


def other_devices(manager: SharedMemoryManager, server: str) -> dict[tuple[str, int], OtherDevice]:
    """Return the devices of this kind on a device server that may be on.

    Args:
        manager: of the testbed's own server.
        server: full name of the device server.
    """
    names, recipes = manager.get_dict(OTHER_DEVICES).copy(), manager.get_dict(_RECIPES)
    return {key: OtherDevice(name, recipes.get(key)) for key, name in names.items() if key[0] == server}
