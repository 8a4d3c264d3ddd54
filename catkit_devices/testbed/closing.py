"""Closing the devices of a testbed: last made first, each within a bounded time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from catkit_devices.errors import DeviceTimeoutError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catkit_devices.testbed.caching import Devices
    from catkit_devices.testbed.layout import DeviceEntry

__all__ = ["close_devices"]


def close_devices(devices: Devices, entries: Sequence[DeviceEntry], timeout: float) -> list[BaseException]:
    """Make every device that was used safe and close it, for everybody; a device always after those that use it.

    Args:
        devices: of the testbed.
        entries: those to close, each behind those that it uses.
        timeout: seconds that one device has.

    Returns:
        What went wrong; the other devices were closed all the same.
    """
    failures: list[BaseException] = []
    for entry in reversed(entries):
        raised: list[BaseException] = []

        def close(name: str = entry.name, raised: list[BaseException] = raised) -> None:
            try:
                device = devices.made(name)
                if device is not None:
                    device.close(force=True)
            except Exception as error:  # noqa: BLE001 - told to the caller, after the others were closed
                raised.append(error)

        thread = threading.Thread(target=close, name=f"close {entry.name}", daemon=True)
        thread.start()
        thread.join(timeout)
        if thread.is_alive():
            raised.append(DeviceTimeoutError(f"did not close in {timeout:g} s", device=entry.name, driver=entry.driver))
        failures += raised
    return failures
