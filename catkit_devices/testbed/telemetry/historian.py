"""Keeps the telemetry of a running testbed in its history; runs in the testbed's process."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices.errors import DataError
from catkit_devices.testbed.telemetry.history import HistoryWriter
from catkit_devices.testbed.telemetry.publisher import quantities_of, telemetry_of
from catkit_devices.testbed.trip import UNREACHABLE

if TYPE_CHECKING:
    from catkit_devices.testbed.layout import Layout

__all__ = ["Historian"]

_INTERVAL = 2.0
"""Seconds between two collections from a server."""
_AGEING = 60.0
"""Seconds between two looks at what has become old."""
_END_TIMEOUT = 5.0
"""Seconds for the last collection, when the testbed ends."""
_MEGABYTE = 1e6
"""Bytes."""

_log = logging.getLogger(__name__)


class Historian:
    """Collects what the device servers have read, and keeps it; a disk that is full or gone is told in the log.

    Each server has a thread, so that one that does not answer delays no other.

    Args:
        layout: of the testbed; it has telemetry.

    Raises:
        DataError: the history cannot be written.
    """

    def __init__(self, layout: Layout) -> None:
        self._writer = HistoryWriter(layout.history, layout.history_size * _MEGABYTE)
        self._ending = InterruptSafeEvent()
        self._failing = False
        self._units: dict[str, str | None] = {}
        servers = []
        for server in layout.device_servers:
            quantities = quantities_of(layout, server)
            self._units |= {f"{device}.{entry.path}": entry.unit for device, entry in quantities}
            servers += [server] if quantities else []
        self._threads = [
            threading.Thread(target=self._collect, args=(server,), name=f"history {server}", daemon=True)
            for server in servers
        ]
        self._threads.append(threading.Thread(target=self._grow_old, name="history", daemon=True))
        for thread in self._threads:
            thread.start()

    def note(self, kind: str, text: str) -> None:
        """Keep that something happened now."""
        try:
            self._writer.note(kind, text)
        except DataError as error:
            self._tell(error)

    def end(self) -> None:
        """Collect once more, and close the file; bounded."""
        self._ending.set()
        deadline = time.monotonic() + _END_TIMEOUT
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._writer.close()

    def _collect(self, server: str) -> None:
        cursor = 0
        while True:
            ending = self._ending.wait(_INTERVAL)
            try:
                cursor = self._collect_once(server, cursor)
            except UNREACHABLE:
                if ending:
                    return  # it has ended already; that it is lost is reported by those who watch it
            if ending:
                return

    def _collect_once(self, server: str, cursor: int) -> int:
        telemetry = telemetry_of(server)
        while True:
            cursor_after, readings = telemetry.since(cursor)
            if not readings:
                return cursor
            try:
                self._writer.add(readings, self._units)
            except DataError as error:  # they are still kept by the server, for the next time
                self._tell(error)
                return cursor
            self._failing = False
            cursor = cursor_after

    def _grow_old(self) -> None:
        while not self._ending.wait(_AGEING):
            try:
                self._writer.grow_old()
            except DataError as error:
                self._tell(error)

    def _tell(self, error: DataError) -> None:
        if not self._failing:
            _log.error("%s", error)
        self._failing = True
