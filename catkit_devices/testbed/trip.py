"""How every process learns of a trip: the device servers first, then all others.

The names here are those of shared objects. On the testbed's server: an event that a trip sets, and a dictionary with
the trip and the state of every check. On each device server: its permit.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from catkit_devices._base.standby import all_at_once
from catkit_devices.errors import CatkitDevicesError, SafetyError
from catkit_devices.multiprocessing import SharedMemoryManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from catkit_devices.testbed.layout import Layout

__all__ = [
    "PERMIT",
    "SAFETY_CHECKS",
    "SAFETY_EVENT",
    "SAFETY_TRIP",
    "announce",
    "connected",
    "new_trip",
    "permit_of",
    "spread",
    "trip_of_servers",
]

SAFETY_EVENT = "safety"
"""Name of the event that is set by a trip."""
SAFETY_CHECKS = "safety.checks"
"""Name of the shared dictionary with the state of every check, and of the trip under the key ``SAFETY_TRIP``."""
SAFETY_TRIP = "trip"
"""Its key for the trip."""
PERMIT = "safety.permit"
"""Name of the permit on each device server."""

UNREACHABLE = (CatkitDevicesError, EOFError, OSError)
"""The errors of a call to a server that is ending or has ended."""


def new_trip(check: str, problem: str) -> SafetyError:
    """Return a trip; ``detected`` is when, in seconds since 1970 UTC."""
    trip = SafetyError(check, problem)
    vars(trip)["detected"] = time.time()
    return trip


def connected(server: str) -> SharedMemoryManager:
    """Return a manager that is connected to a server."""
    manager = SharedMemoryManager(server)
    manager.connect()
    return manager


def permit_of(server: str) -> Any:
    """Return the permit of a device server."""
    return connected(server).get_object(PERMIT)


def announce(trip: SafetyError, server: str) -> None:
    """Set the safety event on the testbed's server, with the reason beside it; the first reason stays."""
    manager = connected(server)
    manager.get_dict(SAFETY_CHECKS).setdefault(SAFETY_TRIP, trip)
    manager.get_event(SAFETY_EVENT).set()


def spread(
    trip: SafetyError, layout: Layout, *, except_for: Iterable[str] = (), timeout: float = 2.0
) -> dict[str, BaseException]:
    """Tell every device server and the testbed's server of a trip, all at the same time.

    A server that does not answer does not delay the others.

    Args:
        trip: what happened.
        layout: of the testbed.
        except_for: servers that know.
        timeout: seconds after which this returns even if a server has not answered yet.

    Returns:
        What went wrong, by server.
    """
    words: dict[str, Callable[[], object]] = {layout.server: partial(announce, trip, layout.server)}
    for server in layout.device_servers:
        words[server] = partial(_trip, server, trip)
    for known in except_for:
        words.pop(known, None)
    return at_once(words, timeout)


def _trip(server: str, trip: SafetyError) -> None:
    permit_of(server).trip(trip)


def trip_of_servers(layout: Layout, timeout: float = 2.0) -> SafetyError | None:
    """Return the trip that a device server knows of, or None.

    A device server records a trip before it makes its devices safe. So a program whose lock was taken by the trip finds
    the reason here, even if the other servers have not been told yet.

    Args:
        layout: of the testbed.
        timeout: seconds after which a server that does not answer is passed over.
    """
    found: list[SafetyError] = []

    def ask(server: str) -> None:
        trip = permit_of(server).tripped()
        if trip is not None:
            found.append(trip)

    at_once({server: partial(ask, server) for server in layout.device_servers}, timeout)
    return found[0] if found else None


def at_once(actions: dict[str, Callable[[], object]], timeout: float) -> dict[str, BaseException]:
    """Call several functions, each in a thread of its own if one can be started; return their errors, by name.

    A function that has not returned in ``timeout`` seconds counts as a ``TimeoutError``; it continues.
    """
    errands = all_at_once(actions, "alarm")
    deadline = time.monotonic() + timeout
    failures: dict[str, BaseException] = {}
    for name, errand in errands.items():
        if not errand.wait(max(0.0, deadline - time.monotonic())):
            failures[name] = TimeoutError(f"not done in {timeout:g} s")
        elif errand.failure is not None:
            failures[name] = errand.failure
    return failures
