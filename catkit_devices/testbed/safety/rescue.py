"""Devices whose server was killed: another process opens them, makes them safe and closes them."""

from __future__ import annotations

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
    from collections.abc import Callable, Iterable

    from catkit_devices.testbed.layout import DeviceEntry, Layout
    from catkit_devices.testbed.safety.other_devices import OtherDevice

__all__ = ["RESCUED", "rescue", "rescue_other"]

RESCUED = "safety.rescued"
"""Name of the dictionary on the testbed's server that says of each device whose server died why it could not be made
safe; an empty text: it was. The keys are the server's full name, and the device's name or its number among the
other devices."""
_TIMEOUT = 30.0
"""Seconds for all devices to be made safe; the process that does it has twice as long."""


def rescue(layout: Layout, names: Iterable[str], token: str) -> dict[str, BaseException]:
    """Make devices of the configuration safe whose server is gone; return what went wrong, by device.

    Args:
        layout: of the testbed.
        names: of the devices.
        token: proves to other device servers, whose devices are needed for this, that the call is part of making safe.
    """
    return _elsewhere(layout, _rescue, tuple(names), token)


def rescue_other(layout: Layout, device: OtherDevice, token: str) -> BaseException | None:
    """Make a device safe that is not in the configuration and whose server is gone; return what went wrong.

    In a process of its own: if the factory of a program hangs or crashes, the devices of the configuration are still
    made safe.

    Args:
        layout: of the testbed.
        device: which one.
        token: as for :func:`rescue`.
    """
    return _elsewhere(layout, partial(_rescue_other, device), (device.name,), token).get(device.name)


def _elsewhere(
    layout: Layout, target: Callable[..., Any], names: tuple[str, ...], token: str
) -> dict[str, BaseException]:
    process = Process(target=target, args=(layout, names, token), name="rescue")
    failures: dict[str, BaseException]
    try:
        with children_of(layout):
            process.start()
        process.join(2 * _TIMEOUT)
        failures = process.result
    except Exception as error:  # noqa: BLE001 - any error of a driver or a factory: these devices may still be on
        failures = dict.fromkeys(names, error)
    if process.is_alive():
        process.kill()
    return failures


def _begin(layout: Layout, token: str) -> None:
    emergency_token[:] = [token]
    ignore_terminal()
    forward_logs(layout.server)


def _rescue(layout: Layout, names: tuple[str, ...], token: str) -> dict[str, BaseException]:
    _begin(layout, token)
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

    failures: dict[str, BaseException] = {}
    for name in names:
        try:
            device(name)
        except Exception as error:  # noqa: BLE001 - any error of a driver; the others are made safe nevertheless
            failures[name] = error
    entries = [layout.device(name) for name in names if name not in failures]
    return {**failures, **at_once({entry.name: partial(make_safe, entry) for entry in entries}, _TIMEOUT)}


def _rescue_other(other: OtherDevice, layout: Layout, names: tuple[str, ...], token: str) -> dict[str, BaseException]:
    _begin(layout, token)

    def make_safe() -> None:
        with other.make() as device:
            device.make_safe()

    return at_once(dict.fromkeys(names, make_safe), _TIMEOUT)
