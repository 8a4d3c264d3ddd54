"""A running testbed as plain data: for displays, scripts and people."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import CatkitDevicesError
from catkit_devices.testbed.alarm import SAFETY_TRIP, UNREACHABLE, connected, permit_of
from catkit_devices.testbed.finding import LAYOUT
from catkit_devices.testbed.logs import MESSAGES
from catkit_devices.testbed.safety import CheckState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from catkit_devices.testbed.caching import Devices
    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.testbed.layout import DeviceEntry, Layout

__all__ = ["locks_of", "states", "status_of"]


def status_of(testbed: TestbedClient) -> dict[str, Any]:
    """Return devices with state, holder and waiters, experiments with progress, checks, and the newest messages."""
    layout, manager = testbed.layout, testbed.manager
    about = manager.get_dict(LAYOUT).copy()
    safety = _safety(testbed)
    tripped = safety["tripped"] is not None
    return {
        "name": layout.name,
        "server": layout.server,
        "pid": about.get("pid"),
        "host": about.get("host"),
        "started": about.get("started"),
        "state": "ending" if about.get("ending") else "tripped" if tripped else "running",
        "time": time.time(),
        "simulated": layout.simulation is not None,
        "devices": {entry.name: _device(entry, testbed.devices) for entry in layout.devices},
        "experiments": {progress.name: asdict(progress) for progress in testbed.progress()},
        "safety": safety,
        "messages": manager.get_dict(MESSAGES).get("newest") or [],
    }


def locks_of(testbed: TestbedClient) -> list[dict[str, Any]]:
    """Return every mutex of a testbed, devices' and plain named ones, with holder and waiters."""
    layout = testbed.layout
    names = {entry.name for entry in layout.devices}
    found = [
        {"name": entry.name, "server": entry.server, "device": True, **_holding(entry, testbed.devices)}
        for entry in layout.devices
    ]
    for server in dict.fromkeys([layout.server, *layout.servers]):
        try:
            objects = connected(server).status()["objects"]
        except UNREACHABLE:
            continue
        found += [
            {
                "name": one["name"],
                "server": server,
                "device": False,
                "holder": one["holder"],
                "waiters": one["waiters"],
            }
            for one in objects
            if one["kind"] == "mutex" and one["name"] not in names
        ]
    return found


def states(checks: Mapping[str, Any]) -> dict[str, CheckState]:
    """Return the state of every check from the shared dictionary."""
    return {name: state for name, state in dict(checks).items() if isinstance(state, CheckState)}


def _safety(testbed: TestbedClient) -> dict[str, Any]:
    known = testbed.safety_facts()
    trip = known.get(SAFETY_TRIP)
    now = time.time()
    checks = {}
    for name, state in states(known).items():
        test = {key: value for key, value in asdict(state.test).items() if key not in {"implementation", "plugins"}}
        checks[name] = {
            **asdict(state),
            "test": {**test, "expected": state.test.expected()},
            "age": now - state.passed if state.passed else None,
        }
    permit, not_safe = _permit(testbed.layout)
    return {
        "tripped": None if trip is None else str(trip),
        "detected": getattr(trip, "detected", None),
        "checks": checks,
        "permit": permit,
        "not_safe": not_safe,
    }


def _permit(layout: Layout) -> tuple[float | None, dict[str, str]]:
    """Return what the permits say.

    Returns:
        For how many seconds the devices may still be changed without word from who watches (None: no limit), and why
        devices are not known to be safe that were to be made safe.
    """
    left: list[float] = []
    not_safe: dict[str, str] = {}
    for server in layout.device_servers if layout.permit_timeout is not None else ():
        try:
            status = permit_of(server).status()
        except UNREACHABLE as error:
            left.append(0.0)
            devices = [entry.name for entry in layout.devices if entry.server == server]
            not_safe.update(dict.fromkeys(devices, f"its server does not answer: {error}"))
        else:
            left.append(status["remaining"] if status["given"] else 0.0)
            not_safe.update(status["not_safe"])
    return min(left, default=None), not_safe


def _device(entry: DeviceEntry, devices: Devices) -> dict[str, Any]:
    return {
        "driver": entry.driver,
        "address": entry.address,
        "aliases": list(entry.aliases),
        "server": entry.server,
        "state": "closed",
        **_holding(entry, devices, state=True),
    }


def _holding(entry: DeviceEntry, devices: Devices, *, state: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"holder": None, "waiters": []}
    try:
        device = devices.made(entry.name)
        if device is not None:
            holder = device.mutex.holder
            if state:
                found["state"] = device.state
            found["holder"] = None if holder is None else holder._asdict()
            found["waiters"] = [waiter._asdict() for waiter in device.mutex.waiters]
    except CatkitDevicesError as error:
        if state:
            found["state"] = f"unknown: {error}"
    return found
