"""One process of the safety monitor as its testbed sees it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices.errors import ProcessDiedError, SafetyError
from catkit_devices.multiprocessing import Process
from catkit_devices.testbed.processes.environment import children_of
from catkit_devices.testbed.safety.monitor import MONITOR, Duty, monitor
from catkit_devices.testbed.trip import new_trip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from catkit_devices.testbed.layout import Layout
    from catkit_devices.testbed.safety.check import Check

__all__ = ["MonitorRun"]

_KILL_TIMEOUT = 5.0
"""Seconds to end after SIGKILL: the operating system needs milliseconds."""


class MonitorRun:
    """One process of the safety monitor, from its start to its end."""

    def __init__(
        self,
        layout: Layout,
        tests: Sequence[Check],
        token: str,
        *,
        duty: Duty,
        on_end: Callable[[MonitorRun], None],
    ) -> None:
        self.duty = duty
        self.ready = False
        """Whether every check has passed once."""
        self.told = False
        """Whether it was told to end."""
        self.failure: SafetyError | None = None
        """Why it ended without having been told to."""
        self.ended = InterruptSafeEvent()
        self._layout = layout
        self._on_end = on_end
        self._process = Process(target=monitor, args=(layout, tests, token, duty), name=MONITOR)
        self._thread = threading.Thread(target=self._follow, name="safety monitor", daemon=True)

    def start(self) -> None:
        """Start it."""
        with children_of(self._layout):
            self._process.start()
            self._thread.start()

    def end(self, timeout: float = 0.0) -> None:
        """Wait for it to end for ``timeout`` seconds, then end it by force; bounded."""
        self.told = True
        if not self.ended.wait(timeout):
            self._process.kill()
            self.ended.wait(_KILL_TIMEOUT)

    def _follow(self) -> None:
        try:
            self._process.join()
        except SafetyError as trip:
            self.failure = trip
        except ProcessDiedError as died:
            self.failure = new_trip("monitor", f"the safety monitor died: {died}")
        except BaseException as error:  # noqa: BLE001 - the checks are not read any more, whatever the error is
            self.failure = new_trip("monitor", f"the safety monitor failed: {type(error).__name__}: {error}")
        else:
            self.failure = new_trip("monitor", "the safety monitor ended")
        self.ended.set()
        self._on_end(self)
