"""What the drivers of other frameworks know of their instruments, in the record of a run."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from catkit_devices.multiprocessing.protocol import CALL

if TYPE_CHECKING:
    from catkit_devices.datalog import Run
    from catkit_devices.testbed.devices.devices import Devices
    from catkit_devices.testbed.layout import Layout

__all__ = ["Snapshots"]

_log = logging.getLogger(__name__)


class Snapshots:
    """Records the snapshots of drivers at the start and at the end of a run, as the values of two tags.

    A snapshot is what the driver's framework keeps in the record of a measurement, as QCoDeS does. Nothing is sent to
    an instrument for it, so it is taken whoever has the mutex. Only drivers of other frameworks have snapshots. If one
    cannot be taken, a message in the log of the run says why, and the run goes on.

    Args:
        layout: of the testbed.
        devices: of the testbed.
        run: the record.
    """

    def __init__(self, layout: Layout, devices: Devices, run: Run) -> None:
        # Only their drivers are named in two parts, "qcodes:Maker.Class". Nothing is asked of the other devices.
        self._names = [entry.name for entry in layout.devices if ":" in entry.driver]
        self._devices = devices
        self._run = run
        self._started = time.monotonic()

    def start(self) -> None:
        """Record those of the devices that are open."""
        self._record("snapshot.start", 0.0)

    def end(self) -> None:
        """Record those of the devices that are open, or were closed during the run."""
        self._record("snapshot.end", time.monotonic() - self._started)

    def _record(self, tag: str, since: float) -> None:
        found = {}
        for name in self._names:
            try:
                taken = self._taken(name, since)
                if taken is not None:
                    found[name] = taken
            except Exception as error:  # noqa: BLE001 - of a driver, or the device's server is gone: the run goes on
                _log.warning("the snapshot of device %r is not in the record of the run: %s", name, error)
        if found:
            try:
                self._run.log(tag, found)
            except Exception as error:  # noqa: BLE001 - a full disk is told by whatever else is recorded
                _log.warning("snapshots of %s are not in the record of the run: %s", ", ".join(found), error)

    def _taken(self, name: str, since: float) -> dict[str, Any] | None:
        """Return the snapshot of a device; None if it was not open at any time in the last ``since`` seconds."""
        device = self._devices.made(name)
        told = None if device is None else device._ask_(CALL, "_driver_snapshot_", (), None)
        if told is None:
            return None
        snapshot, closed = told
        if closed is None:
            return {"driver": snapshot}
        return {"driver": snapshot, "closed": closed} if closed <= since else None
