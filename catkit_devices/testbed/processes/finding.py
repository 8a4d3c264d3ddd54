"""Finds the running testbeds, including those that do not answer."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices._base.standby import all_at_once
from catkit_devices.errors import (
    CatkitDevicesError,
    ServerNotFoundError,
    ServerRunningError,
    ServerUnresponsiveError,
    nearest,
)
from catkit_devices.multiprocessing import SharedMemoryManager

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from catkit_devices.testbed.layout import Layout

__all__ = [
    "LAYOUT",
    "QUIET",
    "SILENT",
    "clean_up",
    "find_testbed",
    "process_of",
    "running_testbeds",
    "silence_of",
    "silent_process",
    "silent_testbed",
    "suspended",
]

LAYOUT = "testbed"
"""Name of the shared dictionary with the testbed's layout, under the key ``layout``, and facts about it."""

_NAME = re.compile(r"(.+)-(\d+)(?:_\d+)?")
"""A testbed's server is called after the testbed and its process; see ``Servers.start_own``."""
_ANSWER_TIMEOUT = 5.0
"""Seconds without an answer after which a testbed counts as silent; that of a server that hangs."""


QUIET = 5.0
"""Seconds; a running process sends a message about once a second to every server that it uses, on a busy computer a
little later."""

SILENT = 3.0
"""Seconds of silence of a server after which a program that was interrupted waits no longer for it."""


def silence_of(sessions: Iterable[Mapping[str, Any]], pid: int | None) -> float | None:
    """Return for how many seconds a process has said nothing to a server; None if it does not use it.

    Args:
        sessions: of the server, as its status tells them.
        pid: of the process.
    """
    return min((session["silent"] for session in sessions if session["pid"] == pid), default=None)


@dataclass(frozen=True)
class _Found:
    """One testbed: just starting while it has no layout, unless it is silent."""

    manager: SharedMemoryManager
    layout: Layout | None = None
    silent: bool = False


def running_testbeds(timeout: float = _ANSWER_TIMEOUT) -> list[str]:
    """Return the names of the running testbeds; if several have the same name, the names of their servers instead.

    One that does not answer is among them: its instruments are still in use.

    Args:
        timeout: seconds to wait for an answer; after that the testbed counts as one that does not answer.
    """
    found = {server: one for server, one in _found(timeout).items() if one.silent or one.layout is not None}
    benches = [server.rpartition("-")[0] for server in found]
    return sorted(
        server.rpartition("-")[0] if benches.count(server.rpartition("-")[0]) == 1 else server for server in found
    )


def find_testbed(name: str) -> tuple[Layout, SharedMemoryManager]:
    """Return a running testbed by its name, or by the name of its server (``bench-4242``) if there are several.

    Raises:
        ServerNotFoundError: none is running, it is just starting, or several are; names those that are.
        ServerUnresponsiveError: it does not answer; names its processes.
    """
    everything = _found(_ANSWER_TIMEOUT)
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
    ((server, one),) = found.items()
    if one.silent:
        raise silent_testbed(server, _ANSWER_TIMEOUT)
    if one.layout is None:
        raise ServerNotFoundError(f"the testbed {name!r} is just starting", server=name)
    return one.layout, one.manager


def silent_testbed(server: str, seconds: float) -> ServerUnresponsiveError:
    """Return the error that says that a testbed's server does not answer, and what can be done.

    Args:
        server: its full name.
        seconds: for how long there has been no news of it.
    """
    from catkit_devices.multiprocessing.wire.endpoint import endpoint

    name, own = server.rpartition("-")[0] or server, process_of(server)
    pid = None
    with contextlib.suppress(ServerNotFoundError):
        pid = endpoint(server).pid
    what = f"no news for {seconds:.0f} s of its server {server!r} (pid {pid}); its process has pid {own}"
    return ServerUnresponsiveError(
        f"testbed {name!r} does not answer: {what}{_advice([pid, own], f'kill {own}')}", server=server, pid=pid
    )


def silent_process(server: str, seconds: float) -> ServerUnresponsiveError:
    """Return the error that says that a testbed's own process does not answer, and what can be done.

    Args:
        server: the full name of the testbed's server.
        seconds: for how long there has been no news of the process.
    """
    own = process_of(server)
    name = server.rpartition("-")[0] or server
    return ServerUnresponsiveError(
        f"testbed {name!r} does not answer: no news for {seconds:.0f} s of its process (pid {own})"
        + _advice([own], f"kill -KILL {own}"),
        server=server,
        pid=own,
    )


def _advice(pids: list[int | None], end: str) -> str:
    stopped = [str(pid) for pid in pids if pid is not None and suspended(pid)]
    text = f"; `{end}` ends it, and its devices are made safe"
    if stopped:
        text += f". Process {', '.join(stopped)} is suspended: `kill -CONT {' '.join(stopped)}` resumes it"
    return text


def process_of(server: str) -> int | None:
    """Return the pid of the process that a testbed belongs to, from the name of its server."""
    match = _NAME.fullmatch(server)
    return None if match is None else int(match[2])


def suspended(pid: int) -> bool:
    """Return whether a process was stopped by a signal or a debugger, if that can be found out (Linux)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[:1] in (["T"], ["t"])


def _found(timeout: float) -> dict[str, _Found]:
    """Return every testbed by the name of its server; all are asked at once."""
    from catkit_devices.multiprocessing.wire.endpoint import endpoints

    everything = [candidate.name for candidate in endpoints()]
    found: dict[str, _Found | None] = {}
    names = [name for name in everything if "." not in name and "-" in name]
    looks = all_at_once({name: partial(_look, name, everything, found, timeout) for name in names}, "look for")
    deadline = time.monotonic() + timeout + 1.0  # time for reporting that there was no answer
    for name, look in looks.items():
        look.wait(max(0.0, deadline - time.monotonic()))
        if name not in found:
            found[name] = _silent(name)
    return {name: one for name, one in found.items() if name in looks and one is not None}


def _look(name: str, everything: list[str], found: dict[str, _Found | None], timeout: float) -> None:
    manager = SharedMemoryManager(name)
    asked = time.monotonic()
    one = None
    try:
        manager.connect()
        # Do not get it first: that would create the dictionary on a server that belongs to no testbed.
        if any((one["kind"], one["name"]) == ("dict", LAYOUT) for one in manager.status()["objects"]):
            one = _Found(manager, manager.get_dict(LAYOUT).get("layout"))
    except ServerNotFoundError:  # its process was killed
        for left in everything:
            if left.partition(".")[0] == name:
                clean_up(left)
    except ServerUnresponsiveError:
        if time.monotonic() - asked > 0.9 * timeout:
            one = _silent(name)  # else it ends just now
    except CatkitDevicesError:
        pass  # it ends just now
    found.setdefault(name, one)


def _silent(name: str) -> _Found | None:
    """Return a silent server if it belongs to a testbed. It cannot be asked, so this is decided by its name."""
    return None if process_of(name) is None else _Found(SharedMemoryManager(name), silent=True)


def clean_up(server: str) -> None:
    """Remove what a killed server has left behind; do nothing while it runs."""
    from catkit_devices.multiprocessing.wire.endpoint import Registration, endpoint

    with contextlib.suppress(ServerNotFoundError, ServerRunningError):
        endpoint(server)
        Registration(server).withdraw()
