"""What only some operating systems have, and a switch that takes it away to try on Linux what others do without.

With ``CATKIT_DEVICES_PORTABLE`` set, servers are reached over loopback TCP with their key instead of Unix sockets, so
calls use no pipes and arrays no anonymous memory; streams are in named memory, and their readers look again and again
instead of waiting for a futex. All processes that share something must have it alike.
"""

from __future__ import annotations

import os

__all__ = ["has_anonymous_memory", "has_futex", "has_unix_sockets"]


def has_unix_sockets() -> bool:
    """Return whether servers are reached through Unix sockets, over which descriptors can be sent."""
    return os.name == "posix" and not _taken_away()


def has_anonymous_memory() -> bool:
    """Return whether there is memory without a name, whose descriptor can be sent (Linux)."""
    return hasattr(os, "memfd_create") and not _taken_away()


def has_futex() -> bool:
    """Return whether a process can wait for a change of shared memory (Linux)."""
    return hasattr(os, "memfd_create") and not _taken_away()


def _taken_away() -> bool:
    return bool(os.environ.get("CATKIT_DEVICES_PORTABLE"))
