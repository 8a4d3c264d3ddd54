"""Devices whose server was killed: another process opens them, makes them safe and closes them."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from catkit_devices.multiprocessing import Process
from catkit_devices.multiprocessing.protocol import emergency_token
from catkit_devices.testbed.devices.devices import Devices
from catkit_devices.testbed.devices.factory import make_device
from catkit_devices.testbed.processes.environment import children_of
from catkit_devices.testbed.processes.logs import forward_logs
from catkit_devices.testbed.processes.signals import ignore_terminal
from catkit_devices.testbed.trip import at_once

if TYPE_CHECKING:
    from collections.abc import Iterable

    from catkit_devices.testbed.layout import DeviceEntry, Layout

__all__ = ["rescue"]

_TIMEOUT = 30.0
"""Seconds for all devices to be made safe; the process that does it has twice as long."""

_log = logging.getLogger(__name__)


def rescue(layout: Layout, names: Iterable[str], token: str) -> dict[str, BaseException]:
    """Make devices safe whose server is gone, in a process of its own; return what went wrong, by device.

    Args:
        layout: of the testbed.
        names: of the devices.
        token: shows the servers of devices that these use that this is making safe.
    """
    process = Process(target=_rescue, args=(layout, tuple(names), token), name="rescue")
    with children_of(layout):
        process.start()
    try:
        process.join(2 * _TIMEOUT)
    except TimeoutError as error:
        process.kill()
        return dict.fromkeys(names, error)
    failures: dict[str, BaseException] = process.result
    return failures


def _rescue(layout: Layout, names: tuple[str, ...], token: str) -> dict[str, BaseException]:
    emergency_token[:] = [token]
    ignore_terminal()
    forward_logs(layout.server)
    others = Devices(layout)
    made: dict[str, Any] = {}

    def device(name: str) -> Any:
        entry = layout.device(name)
        if entry.name not in names:
            return others[entry.name]
        if entry.name not in made:
            used = {role: device(used) for role, used in entry.uses.items()}
            made[entry.name] = make_device(entry.name, layout, used)
        return made[entry.name]

    def open_with_used(entry: DeviceEntry, opened: ExitStack) -> Any:
        for used in map(layout.device, entry.uses.values()):
            if used.name in names:
                open_with_used(used, opened)
        return opened.enter_context(device(entry.name))

    def make_safe(entry: DeviceEntry) -> None:
        with ExitStack() as opened:
            open_with_used(entry, opened).make_safe()
        _log.warning("device %r, whose server is gone, was made safe", entry.name)

    entries = [layout.device(name) for name in names]
    for entry in entries:
        device(entry.name)
    return at_once({entry.name: partial(make_safe, entry) for entry in entries}, _TIMEOUT)
