"""What the processes of a testbed inherit."""

from __future__ import annotations

import os
import re
import threading
from contextlib import contextmanager
from functools import partial
from multiprocessing import current_process
from typing import TYPE_CHECKING

from catkit_devices._base.process_title import set_title
from catkit_devices.multiprocessing.protocol import audit_trail
from catkit_devices.multiprocessing.wire.forking import renewed
from catkit_devices.testbed.processes.audit import Trail
from catkit_devices.testbed.processes.logs import forward_logs, send_entries
from catkit_devices.testbed.processes.signals import ignore_terminal, kept_from_children

if TYPE_CHECKING:
    from collections.abc import Iterator

    from catkit_devices.testbed.layout import Layout

__all__ = ["begin_server", "children_of"]

_PLUGINS = "CATKIT_DEVICES_PLUGINS"
"""Environment variable with the directories of plugins."""
_guard = renewed(threading.RLock())


@contextmanager
def children_of(layout: Layout) -> Iterator[None]:
    """Start processes of a testbed in this block: they find its plugins, and the terminal's signals do not reach them.

    They may be sent an object of a plugin's class before anything else, so the environment must tell them where
    the plugins are.
    """
    with kept_from_children(), _guard:
        before = os.environ.get(_PLUGINS)
        parts = [part for part in (before or "").split(os.pathsep) if part]
        wanted = list(dict.fromkeys([*parts, *layout.plugins]))
        if wanted:
            os.environ[_PLUGINS] = os.pathsep.join(wanted)
        try:
            yield
        finally:
            if before is not None:
                os.environ[_PLUGINS] = before
            elif wanted:
                del os.environ[_PLUGINS]


def begin_server(testbed_server: str) -> None:
    """Prepare the process of a server: it has no terminal of its own, and sends its log to the testbed's process."""
    set_title(short_name(current_process().name))
    ignore_terminal()
    forward_logs(testbed_server)
    audit_trail.append(Trail(partial(send_entries, testbed_server)))


def short_name(process: str) -> str:
    """Return what a process is called in lists of processes: ``bench.devices`` for ``server 'bench-4242.devices'``."""
    return re.sub(r"^server '(.*?)-\d+(.*)'$", r"\1\2", process)
