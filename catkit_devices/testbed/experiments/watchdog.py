"""Ends experiments if the process that started them no longer can; an object of the testbed's server.

Experiments are told to stop, interrupted, terminated and killed by the program that started them. If that process is
stopped or dead, nobody does this; and code that blocks the interpreter gets no request. So every experiment enlists
here, and one that is still there long after a trip, or after the end of the testbed's process, is killed.

The experiment itself, or the program that started it, records how it ended. If both are dead, this object does: else
the experiment would be shown as starting or running, and keep its name, as long as the testbed runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from catkit_devices.multiprocessing.hosted import HostedObject
from catkit_devices.multiprocessing.locks.owner import current_call
from catkit_devices.multiprocessing.protocol import running_server
from catkit_devices.testbed.experiments.progress import ENDED, EXPERIMENTS

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
        self._starters: dict[str, Session] = {}
        """By the name of an experiment: the session of the program that has started it or is going to, as long as that
        program runs."""
        self._enlisted: dict[str, tuple[str, int]] = {}
        """By session, the name and the pid of each experiment that runs."""
        self._ends: dict[str, float] = {}
        """By session, when an experiment that must end is killed, on the monotonic clock."""

    def expect(self, name: str) -> None:
        """Register the calling process as the one that starts an experiment of that name."""
        with self._guard:
            self._starters[name] = current_call().session

    def enlist(self, name: str) -> None:
        """Register the calling process, which runs the experiment ``name``."""
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
                # The guard is held, and its session still exists, so the pid is still that of the experiment.
                _kill(pid)

    def _session_ended_(self, session: Session, goodbye: bool) -> None:  # noqa: ARG002 - the server's call
        with self._guard:
            experiment = self._enlisted.pop(session.id, None)
            self._ends.pop(session.id, None)
            names = {name for name, starter in self._starters.items() if starter is session}
            for name in names:
                del self._starters[name]
            if experiment is not None:
                names.add(experiment[0])
            names = self._without_anybody(names)
        if names:
            # In a thread of its own: until this has returned, the session has the mutexes that it held.
            threading.Thread(target=self._conclude, args=(names, session.pid), name="warden", daemon=True).start()

    def _without_anybody(self, names: set[str]) -> set[str]:
        """Return those of which neither the process nor the program that started it still runs; the guard is held."""
        return names.difference(self._starters, (name for name, _ in self._enlisted.values()))

    def _conclude(self, names: set[str], pid: int) -> None:
        """Record the end of experiments if no other process is left that can record it.

        Args:
            names: of the experiments.
            pid: of the process that was the last to end.
        """
        hosted = running_server[0].host.find("dict", EXPERIMENTS)
        if hosted is None:
            return
        experiments = hosted.object
        with experiments:
            with self._guard:
                # The experiment, or another one of that name, may have begun meanwhile.
                names = self._without_anybody(names)
            for name in names.intersection(experiments.copy()):
                progress = experiments[name]
                if progress.state not in ENDED:
                    message = f"not started: the program that was starting it (pid {pid}) has ended"
                    if progress.pid is not None:
                        message = f"its process (pid {progress.pid}) and the program that started it have died"
                    experiments[name] = replace(progress, state="failed", message=message, updated=time.time())

    def _server_stops_(self) -> None:
        """Wait for the experiments of a testbed that has died: they run their teardown, and still report progress."""
        self.notice()
        deadline = time.monotonic() + self._stop_timeout + 1.0
        while self.running() and time.monotonic() < deadline:
            time.sleep(_LOOK)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended just now
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
