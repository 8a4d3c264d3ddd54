"""Who ends experiments when the process that started them no longer can: an object of the testbed's server.

Experiments are told to stop, interrupted, terminated and killed by whoever started them. When that process is stopped
or dead itself, nobody would; and code that never lets go of the interpreter hears nothing. So every experiment enlists
here, and one that is still there long after a trip, or after the end of the testbed's process, is killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

from catkit_devices.multiprocessing.hosted import HostedObject
from catkit_devices.multiprocessing.locks.owner import current_call

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.locks.owner import Session

__all__ = ["WARDEN", "Warden"]

WARDEN = "experiments.warden"
"""Its name on the testbed's server."""

_LOOK = 0.1
"""Seconds between two looks whether the experiments have ended."""

_log = logging.getLogger(__name__)


class Warden(HostedObject):
    """Knows the process of every experiment that runs, by the session that it keeps with this server.

    Args:
        stop_timeout: seconds that an experiment has to end in the ordinary way.
    """

    def __init__(self, stop_timeout: float) -> None:
        self._stop_timeout = stop_timeout
        self._guard = threading.Lock()
        self._enlisted: dict[str, tuple[str, int]] = {}
        self._ends: dict[str, float] = {}
        """When, on the monotonic clock, each session that was given notice is killed."""

    def enlist(self, name: str) -> None:
        """Take note of the calling process, which runs the experiment ``name``."""
        session = current_call().session
        if session.host == socket.gethostname():
            with self._guard:
                self._enlisted[session.id] = (name, session.pid)

    def running(self) -> list[str]:
        """Return the names of the experiments whose processes are there."""
        with self._guard:
            return [name for name, _ in self._enlisted.values()]

    def notice(self) -> None:
        """Kill every experiment that is still there after ``stop_timeout`` seconds; others may start meanwhile."""
        deadline = time.monotonic() + self._stop_timeout
        with self._guard:
            for session in self._enlisted:
                self._ends.setdefault(session, deadline)
        threading.Thread(target=self._wait_and_kill, args=(deadline,), name="warden", daemon=True).start()

    def _wait_and_kill(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            with self._guard:
                if not self._ends:
                    return
            time.sleep(_LOOK)
        with self._guard:
            due = [session for session, end in self._ends.items() if end <= deadline]
            for session in due:
                del self._ends[session]
                name, pid = self._enlisted[session]
                _log.warning("%s (pid %d) did not end in %g s: killed", name, pid, self._stop_timeout)
                _kill(pid)  # the guard is held: its session is still there, so the number is still its own

    def _session_ended_(self, session: Session, goodbye: bool) -> None:  # noqa: ARG002 - the server's call
        with self._guard:
            self._enlisted.pop(session.id, None)
            self._ends.pop(session.id, None)

    def _server_stops_(self) -> None:
        """Wait for the experiments of a testbed that has died: they tear down, and their progress is still seen."""
        self.notice()
        deadline = time.monotonic() + self._stop_timeout + 1.0
        while self.running() and time.monotonic() < deadline:
            time.sleep(_LOOK)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # gone in this moment
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
