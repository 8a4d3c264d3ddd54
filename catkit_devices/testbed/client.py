"""What everybody can do who is attached to a running testbed."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from catkit_devices.errors import CatkitDevicesError, SafetyError, ServerNotFoundError, nearest
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.testbed.caching import Devices
from catkit_devices.testbed.monitor import SAFETY_CHECKS, SAFETY_EVENT, SAFETY_TRIP, states
from catkit_devices.testbed.progress import ENDED, EXPERIMENTS, Progress
from catkit_devices.testbed.running import FINISH, STOP, control_queue

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from catkit_devices.multiprocessing.locks import Holder
    from catkit_devices.testbed.layout import Layout
    from catkit_devices.testbed.safety import CheckState

__all__ = ["LAYOUT", "TestbedClient", "find_testbed"]

LAYOUT = "testbed"
"""Name of the shared dictionary with the testbed's layout, under the key ``layout``."""


class TestbedClient:
    """A running testbed, as seen from any process; used as a context manager or not.

    Args:
        layout: of the testbed.
        manager: connected to the testbed's server.
    """

    __test__ = False  # the name is no test class of pytest's

    def __init__(self, layout: Layout, manager: SharedMemoryManager) -> None:
        self.layout = layout
        self.devices = Devices(layout)
        """The devices: by attribute, by name or alias in brackets, by what they can do with ``one`` and ``all``."""
        self.manager = manager
        """The testbed's server: mutexes, events, queues and dicts by name."""

    @property
    def name(self) -> str:
        """What the testbed is called."""
        return self.layout.name

    def lock(self, *names: str, timeout: float | None = None) -> AbstractContextManager[None]:
        """Have devices to oneself during a block: all of them or none, in an order that never deadlocks.

        Args:
            *names: names or aliases of devices.
            timeout: seconds for all of them together; None for the longest of their own.
        """
        return self.devices.lock(*names, timeout=timeout)

    def progress(self) -> list[Progress]:
        """Return how far every experiment of this testbed has come, first started first."""
        return sorted(self._dict(EXPERIMENTS).values(), key=lambda progress: progress.started)

    def checks(self) -> dict[str, CheckState]:
        """Return the state of every safety check."""
        return states(self._dict(SAFETY_CHECKS))

    @property
    def trip(self) -> SafetyError | None:
        """The safety check that tripped, or None while all is well."""
        trip: SafetyError | None = self._dict(SAFETY_CHECKS).get(SAFETY_TRIP)
        return trip

    @property
    def safety_event(self) -> Any:
        """The event that a trip of the safety checks sets."""
        return self.manager.get_event(SAFETY_EVENT)

    def stop(self, *names: str, reason: str = "stopped by request") -> None:
        """Tell experiments to stop now; without names, all that run."""
        self._tell(names, STOP, reason)

    def finish(self, *names: str) -> None:
        """Tell experiments to end with their current step; without names, all that run."""
        self._tell(names, FINISH, "")

    def status(self) -> dict[str, Any]:
        """Return devices with state, holder and waiters, experiments with progress, and checks, as plain data."""
        return {
            "name": self.layout.name,
            "server": self.layout.server,
            "time": time.time(),
            "simulated": self.layout.simulation is not None,
            "devices": {entry.name: self._device_status(entry.name) for entry in self.layout.devices},
            "experiments": {progress.name: asdict(progress) for progress in self.progress()},
            "safety": {
                "tripped": None if (trip := self.trip) is None else str(trip),
                "checks": {name: asdict(state) for name, state in self.checks().items()},
            },
        }

    def _device_status(self, name: str) -> dict[str, Any]:
        entry = self.layout.device(name)
        status: dict[str, Any] = {
            "driver": entry.driver, "address": entry.address, "aliases": list(entry.aliases), "server": entry.server,
            "state": "closed", "holder": None, "waiters": [],
        }  # fmt: skip
        try:
            device = self.devices.made(name)
            if device is not None:
                holder = device.mutex.holder
                status["state"] = device.state
                status["holder"] = None if holder is None else _holder_status(holder)
                status["waiters"] = [_holder_status(waiter) for waiter in device.mutex.waiters]
        except CatkitDevicesError as error:
            status["state"] = f"unknown: {error}"
        return status

    def _tell(self, names: tuple[str, ...], word: str, reason: str) -> None:
        running = [progress.name for progress in self.progress() if progress.state not in ENDED]
        for name in names or running:
            if name not in running:
                raise CatkitDevicesError(
                    f"testbed {self.name!r} runs no experiment {name!r}, it runs {', '.join(running) or 'none'}"
                )
            self.manager.get_queue(control_queue(name)).put((word, reason))

    def _dict(self, name: str) -> dict[Any, Any]:
        copy: dict[Any, Any] = self.manager.get_dict(name).copy()
        return copy

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the testbed as it is: it belongs to the process that started it."""


def _holder_status(holder: Holder) -> dict[str, Any]:
    # An owner is shown as "'process' (pid 4242, thread)"; a table has room for the process alone.
    return {"process": holder.owner.partition("' (")[0].strip("'"), **holder._asdict()}


def find_testbed(name: str) -> tuple[Layout, SharedMemoryManager]:
    """Return a running testbed by its name, or by the name of its server (``bench-4242``) where there are several.

    Raises:
        ServerNotFoundError: none is running, or several are; names those that are.
    """
    from catkit_devices.multiprocessing.endpoint import endpoints

    found: dict[str, SharedMemoryManager] = {}
    others = []
    for candidate in endpoints():
        bench = candidate.name.rpartition("-")[0]
        if "." in candidate.name or not bench:
            continue
        manager = SharedMemoryManager(candidate.name)
        try:
            manager.connect()
        except CatkitDevicesError:  # its process was killed, and left its name behind
            continue
        if name in (candidate.name, bench):
            found[candidate.name] = manager
        else:
            others.append(bench)
    if len(found) > 1:
        raise ServerNotFoundError(
            f"several testbeds named {name!r} are running, say which: {', '.join(sorted(found))}", server=name
        )
    if not found:
        listed = ", ".join(sorted(set(others))) or "none"
        hint = f" (did you mean {near!r}?)" if (near := nearest(name, others)) else ""
        raise ServerNotFoundError(f"no testbed named {name!r} is running (running: {listed}){hint}", server=name)
    ((_, manager),) = found.items()
    layout: Layout = manager.get_dict(LAYOUT)["layout"]
    return layout, manager
