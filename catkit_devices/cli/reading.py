"""Reading many properties of a device, without waiting for its holder any longer than was allowed in total."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from catkit_devices._base.paths import get_at
from catkit_devices._base.standby import all_at_once

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read_properties"]

_LOOK = 0.1
"""Seconds between two looks whether somebody else has the device."""


def read_properties(device: Any, properties: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Return the value of each property, or the error if it could not be read.

    It waits at most ``timeout`` seconds in total for other programs that hold the device, however many properties there
    are; for the instrument itself as long as that takes.
    """
    from catkit_devices.errors import MutexTimeoutError

    values: dict[str, Any] = {}
    deadline = time.monotonic() + timeout
    shared = [name for name, facts in properties.items() if facts["shared"]]
    # They run between the operations of the holder, while this thread waits until the device is free.
    aside = all_at_once({"reads": partial(_read_each, device, shared, values)}, "shared")["reads"]
    exclusive = [name for name in properties if name not in shared]
    if exclusive:
        try:
            with device.lock(timeout=timeout):
                _read_each(device, exclusive, values)
        except Exception as error:  # noqa: BLE001 - somebody else has it, or it was taken away
            values |= {name: error for name in exclusive if name not in values}
    aside.wait(max(0.0, deadline - time.monotonic()))
    while not aside.wait(_LOOK):  # the instrument itself is slow
        holder = device.mutex.holder
        if holder is not None:
            late = MutexTimeoutError(device.name, timeout, str(holder))
            values = dict.fromkeys(shared, late) | values
            break
    return {name: values[name] for name in properties}


def _read_each(device: Any, names: Sequence[str], values: dict[str, Any]) -> None:
    """Put the value of each property into ``values``, or the error if it cannot be read; then read the others, too."""
    from catkit_devices.cli.attaching import without_exit
    from catkit_devices.errors import (
        DeviceClosedError,
        DeviceDisconnectedError,
        DeviceFaultError,
        DeviceOpenError,
        MutexError,
        SafetyError,
        ServerError,
    )

    of_all = (
        DeviceClosedError, DeviceDisconnectedError, DeviceFaultError, DeviceOpenError, MutexError, SafetyError,
        ServerError,
    )  # fmt: skip
    for number, name in enumerate(names):
        try:
            with without_exit(f"device {device.name!r}: {name}"):
                values[name] = get_at(device, name)
        except of_all as error:  # no property can be read: each try may take long
            values |= dict.fromkeys(names[number:], error)
            return
        except Exception as error:  # noqa: BLE001 - a driver's mistake may raise anything
            values[name] = error
