"""How a request to stop reaches the code of an experiment, wherever that code is."""

from __future__ import annotations

import signal
import threading
import time
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Self

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices._device.process_end import told_to_end
from catkit_devices.errors import StopExperiment
from catkit_devices.testbed.processes.signals import deliver_again, ignore_terminal

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["StopGuard"]

# Only a signal wakes a main thread that sleeps, waits for a lock or reads a socket. The terminal's Ctrl-C is not for
# experiments, so if the system has another signal, that one is used; if not, a SIGINT for which this module has not
# asked is ignored.
_WAKE: signal.Signals = getattr(signal, "SIGUSR1", signal.SIGINT)
_WAKE_INTERVAL = 0.1
"""Seconds between two signals: one may come just before the main thread goes to sleep."""


class StopGuard:
    """Raises :class:`StopExperiment` in the main thread of an experiment's process, at most once, while it is armed.

    The terminal's signals are ignored throughout the block: the testbed's process receives them too, and decides.
    SIGTERM is a request to stop; it ends the process at once if this was told to stop before, by SIGTERM or by the
    program that started it. A stop for a reason that the process found by itself (a lost server, a trip) does not
    count: the sender of SIGTERM may not know of it, and the code that is ending needs time to end.

    Used as a context manager in the main thread; requests may come from any thread. A request that comes before the
    guard is armed is raised by arming it; one that comes after it was disarmed is dropped.
    """

    def __init__(self) -> None:
        self.finishing = InterruptSafeEvent()
        """Set when the experiment is to end with its current step."""
        self._armed = False
        self._asked: BaseException | None = None
        self._stopped = False
        self._told = False
        """Whether somebody else has told it to end: the next SIGTERM ends it at once."""

    def __enter__(self) -> Self:
        ignore_terminal()
        signal.signal(_WAKE, self._raise)
        signal.signal(signal.SIGTERM, self._terminated)
        deliver_again(_WAKE)
        return self

    def __exit__(self, *_: object) -> None:
        self._armed = False

    def arm(self) -> None:
        """Let requests through from now on; raise the one that came before."""
        self._armed = True
        self._raise(_WAKE, None)

    def disarm(self) -> None:
        """Let no request through any more."""
        self._armed = False

    def stop(self, reason: str, *, told: bool = False) -> None:
        """Ask for :class:`StopExperiment`; asking again changes nothing.

        Args:
            reason: the message of the exception.
            told: whether the program that started the experiment asks; then SIGTERM ends the process at once from now
                on.
        """
        self._told = self._told or told
        if not self._stopped:
            self._stopped = True
            self._ask(StopExperiment(reason))

    def interrupt(self, reason: str) -> None:
        """Ask for ``KeyboardInterrupt``, for code that did not end when it was stopped."""
        self._told = True
        self._ask(KeyboardInterrupt(reason))

    def _ask(self, error: BaseException) -> None:
        self._asked = error
        if self._armed:
            threading.Thread(target=self._wake, args=(error,), name="wake", daemon=True).start()

    def _wake(self, error: BaseException) -> None:
        # More than once: a signal that comes just before the main thread begins to wait does not end its waiting.
        main = threading.main_thread().ident
        while self._armed and self._asked is error:
            if hasattr(signal, "pthread_kill") and main is not None:
                signal.pthread_kill(main, _WAKE)
            else:
                signal.raise_signal(_WAKE)
            time.sleep(_WAKE_INTERVAL)

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        if self._armed and self._told and self._asked is None:
            # Devices that this process has opened itself are made safe first.
            signal.signal(signal.SIGTERM, told_to_end)
            signal.raise_signal(signal.SIGTERM)
            return
        self._told = True
        if not self._stopped:
            self._stopped = True
            parent = parent_process()
            orphaned = parent is not None and not parent.is_alive()
            self._asked = StopExperiment("the process that started it has died" if orphaned else "terminated")
            self._raise(number, frame)

    def _raise(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a signal handler
        asked = self._asked
        if self._armed and asked is not None:
            self._asked = None
            raise asked
