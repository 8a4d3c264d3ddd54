"""Ends a testbed: stops the experiments of other programs and closes the devices, each within a limited time."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING

from catkit_devices._base.standby import all_at_once
from catkit_devices.errors import DeviceTimeoutError
from catkit_devices.testbed.experiments.main import STOP, control_queue
from catkit_devices.testbed.experiments.watchdog import WARDEN
from catkit_devices.testbed.trip import UNREACHABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catkit_devices.multiprocessing import SharedMemoryManager
    from catkit_devices.testbed.devices.devices import Devices
    from catkit_devices.testbed.layout import DeviceEntry

__all__ = ["close_devices", "end_other_experiments"]

_LOOK = 0.05
"""Seconds between two looks whether the experiments have ended."""


def end_other_experiments(manager: SharedMemoryManager, timeout: float) -> None:
    """Tell the experiments that other processes have started to stop; kill those that do not stop.

    Args:
        manager: of the testbed's server.
        timeout: seconds that they have.
    """
    with contextlib.suppress(*UNREACHABLE):
        warden = manager.get_object(WARDEN, None)
        for name in warden.running():
            manager.get_queue(control_queue(name)).put((STOP, "the testbed ends"))
        warden.notice()
        deadline = time.monotonic() + timeout + 1.0
        while True:
            if not warden.running() or time.monotonic() > deadline:
                break
            time.sleep(_LOOK)


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
        errand = all_at_once({entry.name: partial(_close, devices, entry.name)}, "close")[entry.name]
        if not errand.wait(timeout):
            late = DeviceTimeoutError(f"did not close in {timeout:g} s", device=entry.name, driver=entry.driver)
            failures.append(late)
        elif errand.failure is not None:
            failures.append(errand.failure)
    return failures


def _close(devices: Devices, name: str) -> None:
    device = devices.made(name)
    if device is not None:
        device.close(force=True)
