"""The server processes of a testbed: its own, through which its processes find each other, and those of the devices."""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from functools import partial
from multiprocessing import connection
from typing import TYPE_CHECKING

from catkit_devices.errors import ServerRunningError
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.testbed.experiments.child import time_to_stop
from catkit_devices.testbed.frames.publisher import make_frames
from catkit_devices.testbed.processes.environment import begin_server, children_of
from catkit_devices.testbed.processes.finding import clean_up
from catkit_devices.testbed.safety.other_devices import REGISTER, Register
from catkit_devices.testbed.safety.permit import Permit
from catkit_devices.testbed.telemetry.publisher import TELEMETRY, Telemetry, quantities_of
from catkit_devices.testbed.trip import PERMIT, at_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.testbed.layout import Layout

__all__ = ["Servers"]

_START_TIMEOUT = 60.0
"""Seconds for starting the servers."""
_MARGIN = 10.0
"""Seconds for the testbed's server to end, on top of those for its experiments."""
_KILL_TIMEOUT = 5.0
"""Seconds to end after SIGKILL: the operating system needs milliseconds."""


class Servers:
    """Starts the servers of a testbed, and ends them; a server that others need ends last."""

    def __init__(self) -> None:
        self.managers: dict[str, SharedMemoryManager] = {}
        """By the full names of their servers; they are kept here, because a manager that is deleted ends its server."""
        self.token = secrets.token_hex()
        """The token with which this process and the safety monitor may renew and reset the permits."""

    def start_own(self, lay_out: Callable[[str], Layout], name: str) -> Layout:
        """Start the testbed's own server, under a name that no other has; return the layout made for that.

        Args:
            lay_out: makes the layout for the name of a server.
            name: of the testbed.
        """
        base = f"{name}-{os.getpid()}"
        for number in range(1, 1000):
            # Several testbeds of one name may run at once, also in one process.
            layout = lay_out(base if number == 1 else f"{base}_{number}")
            # When this process dies, that server waits for the experiments.
            manager = SharedMemoryManager(layout.server, stop_timeout=time_to_stop(layout.stop_timeout) + _MARGIN)
            try:
                with children_of(layout):
                    manager.start(begin_server, (layout.server,))
                    self.managers[layout.server] = manager
            except ServerRunningError:
                continue
            return layout
        raise ServerRunningError(f"no free name for a server like {base!r}", server=base)

    def start_others(self, layout: Layout, watchers: tuple[str, ...]) -> None:
        """Start the servers of the devices, all at once; nobody can change a device before it is watched.

        Args:
            layout: of the testbed.
            watchers: who must renew the permits.
        """
        started: dict[str, SharedMemoryManager] = {}

        def start(server: str) -> None:
            manager = started[server] = SharedMemoryManager(server)
            manager.start(begin_server, (layout.server,))
            if server in layout.device_servers:
                manager.get_object(REGISTER, Register, layout.server, server)
                timeout = layout.permit_timeout or 0.0
                manager.get_object(PERMIT, Permit, layout, server, watchers, timeout, self.token)
                if quantities_of(layout, server):
                    manager.get_object(TELEMETRY, Telemetry, layout, server)
                make_frames(layout, server)

        with children_of(layout):
            failures = at_once({server: partial(start, server) for server in layout.servers}, _START_TIMEOUT)
            self.managers.update({server: started[server] for server in layout.servers if server in started})
        if failures:
            raise next(iter(failures.values()))

    def sentinels(self) -> dict[str, int]:
        """Return the sentinels of the servers' processes, by full name: each is ready when its process has ended."""
        return {server: manager.process.sentinel for server, manager in self.managers.items()}

    def kill(self, server: str) -> bool:
        """End a server's process at once, and wait for that; return whether it was there."""
        manager = self.managers.get(server)
        if manager is None or connection.wait([manager.process.sentinel], 0):
            return False
        manager.process.kill()
        connection.wait([manager.process.sentinel], _KILL_TIMEOUT)
        return True

    def shut_down_others(self) -> None:
        """End every server but the testbed's own, last started first."""
        self._shut_down(list(self.managers)[1:])

    def shut_down(self) -> None:
        """End every server that is left; an error with one server does not prevent that the others are ended."""
        self._shut_down(list(self.managers))

    def _shut_down(self, servers: list[str]) -> None:
        with ExitStack() as ends:
            for server in servers:
                ends.callback(_shut_down, self.managers.pop(server))


def _shut_down(manager: SharedMemoryManager) -> None:
    """End a server, which may have died already or never have started, and clean up after it."""
    shutdown = getattr(manager, "shutdown", None)
    if shutdown is not None:
        shutdown()
    elif manager.process.is_alive():
        manager.process.kill()
    clean_up(manager.name)
