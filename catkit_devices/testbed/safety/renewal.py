"""Renews the permits of all device servers as long as every check passes and the testbed is not ending."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from catkit_devices.testbed.processes.process_clock import OwnTime
from catkit_devices.testbed.trip import UNREACHABLE, permit_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from catkit_devices.errors import SafetyError

__all__ = ["Renewal"]

_SHARE = 4
"""How often a permit is renewed in the time that it lasts."""
_LONGEST = 0.25
"""Seconds by which the clock advances between two looks, at most: it stops while this process is stopped."""


class Renewal:
    """Renews the permit of every device server regularly; one that does not answer does not delay the others.

    Args:
        watcher: on whose behalf.
        servers: the full names of the device servers.
        timeout: seconds for which a renewal lasts.
        token: shows that it may.
        allowed: asked before each renewal; False leaves it out.
        on_lost: called, in a thread of its own, with what is wrong when a server is gone.
    """

    def __init__(
        self,
        watcher: str,
        servers: Sequence[str],
        timeout: float,
        token: str,
        *,
        allowed: Callable[[], bool],
        on_lost: Callable[[str], None],
    ) -> None:
        self._watcher = watcher
        self._timeout = timeout
        self._token = token
        self._allowed = allowed
        self._on_lost = on_lost
        self._time = OwnTime(_LONGEST)
        self._asked: dict[str, float | None] = dict.fromkeys(servers)
        self._trip: SafetyError | None = None
        self._ending = False
        self._guard = threading.RLock()
        self._changed = threading.Condition(self._guard)

    def start(self) -> None:
        """Begin."""
        for server in self._asked:
            threading.Thread(target=self._renew, args=(server,), name=f"renew {server}", daemon=True).start()

    def tell(self, trip: SafetyError | None) -> None:
        """Tell every server of a trip, over the connection that renews its permit.

        The server may be unable to accept a new connection.

        Args:
            trip: None if the trip was reset.
        """
        with self._guard:
            self._trip = trip
            self._changed.notify_all()

    def end(self) -> None:
        """Renew no more."""
        with self._guard:
            self._ending = True
            self._changed.notify_all()

    def silent(self) -> str | None:
        """Return what is wrong when a server has not answered for as long as a permit lasts; to be called regularly."""
        now = self._time()
        for server, asked in list(self._asked.items()):
            if asked is not None and now - asked > self._timeout:
                return f"device server {server!r} has not answered for {self._timeout:g} s"
        return None

    def _renew(self, server: str) -> None:
        permit: Any = None
        told: SafetyError | None = None
        while True:
            with self._guard:
                trip, ending = self._trip, self._ending
            try:
                if trip is not None and trip is not told and permit is not None:
                    permit.trip(trip)
                told = trip
                if ending:
                    return
                if self._allowed():
                    self._asked[server] = self._time()
                    permit = permit or permit_of(server)
                    permit.renew(self._watcher, time.monotonic(), self._token)
                    self._asked[server] = None
            except UNREACHABLE as error:
                if not self._ending:
                    self._on_lost(f"device server {server!r} is lost: {error}")
                return
            self._wait(trip)

    def _wait(self, trip: SafetyError | None) -> None:
        with self._guard:
            self._changed.wait_for(lambda: self._ending or self._trip is not trip, self._timeout / _SHARE)
