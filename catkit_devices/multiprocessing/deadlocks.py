"""Deadlocks that no server sees alone: the waits of this process and of all servers, put together."""

from __future__ import annotations

import os
import time
from multiprocessing import AuthenticationError
from typing import TYPE_CHECKING, Any

from catkit_devices.multiprocessing.connecting import ask
from catkit_devices.multiprocessing.endpoint import endpoints
from catkit_devices.multiprocessing.holds import end_deadlock, waits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from catkit_devices.multiprocessing.endpoint import Address, Endpoint
    from catkit_devices.multiprocessing.holds import Wait
    from catkit_devices.multiprocessing.owner import OwnerKey

__all__ = ["find_cycle", "own_address", "search"]

_ANYBODY = 5
"""From which look on any party of a deadlock ends it, not only the one whose clock says that it came last."""
_PAUSE = 0.02
"""Seconds between two pictures, so that the second is not the first one's twin."""
_TIMEOUT = 1.0

own_address: list[Address] = []
"""Where this process is a server itself: its address (at most one entry)."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=own_address.clear)


def search(
    servers: Iterable[Endpoint], owner: OwnerKey, sequence: int, attempt: int, say: Callable[[tuple[Any, ...]], None]
) -> None:
    """Look whether an owner's wait is part of a cycle; if two successive pictures show the same one, end a wait of it.

    Args:
        servers: those that this process uses; those of this user on this host are found.
        owner: who waits.
        sequence: number of the wait.
        attempt: how often this wait has been looked at.
        say: puts a word on the lifeline of the server at which the owner waits.
    """
    known = {server.address: server for server in (*servers, *endpoints())}
    for address in own_address:
        known.pop(address, None)
    if len(known) + len(own_address) < 2 and not waits():
        return  # the one server sees by itself what there is to see
    first = _cycle(known.values(), owner, sequence)
    if first is None:
        return
    newest = max(first, key=lambda wait: (wait.since, wait.waiter))
    waits_here = newest in waits()
    if newest.waiter != owner and not waits_here and attempt < _ANYBODY:
        return  # another party closed it and will be told
    time.sleep(_PAUSE)
    if _cycle(known.values(), owner, sequence) != first:
        return
    parties = [wait.text for wait in first]
    if waits_here:
        end_deadlock(newest.waiter, newest.sequence, parties)
    else:
        say(("deadlock", owner, sequence, parties))


def _cycle(servers: Iterable[Endpoint], owner: OwnerKey, sequence: int) -> list[Wait] | None:
    edges = waits()
    for server in servers:
        try:
            edges += ask(server, "waits", timeout=_TIMEOUT)
        except (ConnectionError, AuthenticationError):  # gone meanwhile: no party any more
            continue
    cycle = find_cycle(edges, owner)
    return cycle if cycle is not None and cycle[0].sequence == sequence else None


def find_cycle(edges: Iterable[Wait], start: OwnerKey) -> list[Wait] | None:
    """Return the edges of the cycle through ``start``, beginning with its own wait, or None."""
    graph: dict[Any, Wait] = {edge.waiter: edge for edge in edges}
    cycle = []
    key = start
    while (edge := graph.get(key)) is not None and edge not in cycle:
        cycle.append(edge)
        key = edge.holder
        if key == start:
            return cycle
    return None
