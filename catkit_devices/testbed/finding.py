"""Finding the testbeds that run."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from catkit_devices.errors import CatkitDevicesError, ServerNotFoundError, ServerRunningError, nearest
from catkit_devices.multiprocessing import SharedMemoryManager

if TYPE_CHECKING:
    from catkit_devices.testbed.layout import Layout

__all__ = ["LAYOUT", "clean_up", "find_testbed", "running_testbeds"]

LAYOUT = "testbed"
"""Name of the shared dictionary with the testbed's layout, under the key ``layout``, and facts about it."""


def running_testbeds() -> list[str]:
    """Return the names of the running testbeds; where several have one name, those of their servers instead."""
    benches = [layout.name for layout, _ in _found().values() if layout is not None]
    return sorted(
        layout.name if benches.count(layout.name) == 1 else server
        for server, (layout, _) in _found().items()
        if layout is not None
    )


def find_testbed(name: str) -> tuple[Layout, SharedMemoryManager]:
    """Return a running testbed by its name, or by the name of its server (``bench-4242``) where there are several.

    Raises:
        ServerNotFoundError: none is running, it is just starting, or several are; names those that are.
    """
    everything = _found()
    found = {server: one for server, one in everything.items() if name in (server, server.rpartition("-")[0])}
    if len(found) > 1:
        raise ServerNotFoundError(
            f"several testbeds named {name!r} are running, say which: {', '.join(sorted(found))}", server=name
        )
    if not found:
        others = sorted({server.rpartition("-")[0] for server in everything})
        hint = f" (did you mean {near!r}?)" if (near := nearest(name, others)) else ""
        raise ServerNotFoundError(
            f"no testbed named {name!r} is running (running: {', '.join(others) or 'none'}){hint}", server=name
        )
    ((layout, manager),) = found.values()
    if layout is None:
        raise ServerNotFoundError(f"the testbed {name!r} is just starting", server=name)
    return layout, manager


def _found() -> dict[str, tuple[Layout | None, SharedMemoryManager]]:
    """Return every testbed by the name of its server; one that is just starting has no layout yet."""
    from catkit_devices.multiprocessing.endpoint import endpoints

    found = {}
    everything = [candidate.name for candidate in endpoints()]
    for name in everything:
        if "." in name or "-" not in name:
            continue
        manager = SharedMemoryManager(name)
        try:
            manager.connect()
            # Looked for, not asked for: asking would make one on a server that is no testbed's.
            if any((one["kind"], one["name"]) == ("dict", LAYOUT) for one in manager.status()["objects"]):
                found[name] = manager.get_dict(LAYOUT).get("layout"), manager
        except ServerNotFoundError:  # its process was killed
            for left in everything:
                if left.partition(".")[0] == name:
                    clean_up(left)
        except CatkitDevicesError:  # it ends just now
            continue
    return found


def clean_up(server: str) -> None:
    """Remove what a server has left behind that was killed; nothing where it runs, or has left nothing behind."""
    from catkit_devices.multiprocessing.endpoint import Registration, endpoint

    with contextlib.suppress(ServerNotFoundError, ServerRunningError):
        endpoint(server)
        Registration(server).withdraw()
