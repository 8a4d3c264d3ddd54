"""Reads quantities of the devices of one server, each at its rate, and publishes them in shared memory."""

from __future__ import annotations

import enum
import itertools
import logging
import os
import reprlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices._base.paths import get_at
from catkit_devices.errors import CatkitDevicesError, in_one_line
from catkit_devices.multiprocessing.hosted import HostedObject
from catkit_devices.multiprocessing.wire.system import has_anonymous_memory, has_unix_sockets
from catkit_devices.readings import missing_in, real_number
from catkit_devices.testbed.devices.devices import Devices
from catkit_devices.testbed.telemetry.slots import Sample, SlotWriter
from catkit_devices.testbed.trip import connected

if TYPE_CHECKING:
    from catkit_devices.testbed.layout import Layout, TelemetryEntry

__all__ = ["TELEMETRY", "Telemetry", "quantities_of", "telemetry_of"]

TELEMETRY = "telemetry"
"""Name of the telemetry on each device server that has some."""
_KEPT = 100_000
"""Samples that a server keeps for its history, of all quantities together: about 20 MB."""
_PIECE = 10_000
"""Samples that are sent at once."""

_log = logging.getLogger(__name__)


def quantities_of(layout: Layout, server: str) -> list[tuple[str, TelemetryEntry]]:
    """Return device and entry of each quantity that a server publishes, in the order of its slots."""
    return [(device.name, entry) for device in layout.devices if device.server == server for entry in device.telemetry]


def telemetry_of(server: str) -> Any:
    """Return the telemetry of a device server."""
    return connected(server).get_object(TELEMETRY)


class Telemetry(HostedObject):
    """What the devices of this server measure, read again and again; an object of the device server.

    Each device has a thread, so that one that does not answer delays no other. A reading is a shared read like that of
    any client: it waits for no mutex, opens the device if it is closed, and is refused by safety if theirs is.

    Args:
        layout: of the testbed.
        server: the full name of this server.

    Raises:
        RuntimeError: the threads that it needs cannot be started.
    """

    _direct_ = False

    def __init__(self, layout: Layout, server: str) -> None:
        quantities = quantities_of(layout, server)
        self._names = [f"{device}.{entry.path}" for device, entry in quantities]
        self._last = [Sample(None, 0.0, 0.0, "not read yet")] * len(quantities)
        self._writer = SlotWriter(len(quantities)) if _has_memory() else None  # else clients ask this object
        self._kept: deque[tuple[int, int, Sample]] = deque(maxlen=_KEPT)
        self._numbers = itertools.count()
        self._guard = threading.Lock()
        self._ending = InterruptSafeEvent()
        self._devices = Devices(layout)
        by_device: dict[str, list[tuple[int, TelemetryEntry]]] = {}
        for number, (device, entry) in enumerate(quantities):
            by_device.setdefault(device, []).append((number, entry))
        for device, entries in by_device.items():
            threading.Thread(target=self._read, args=(device, entries), name=f"telemetry {device}", daemon=True).start()

    def _shared_memory_(self) -> tuple[int, int] | None:
        return None if self._writer is None else (os.dup(self._writer.descriptor), self._writer.size)

    def _server_stops_(self) -> None:
        self._ending.set()

    # --- what clients ask where they cannot map the memory, and for the history

    def shared(self) -> bool:
        """Return whether it is published in shared memory, which clients on this computer can map."""
        return self._writer is not None

    def sample(self, number: int) -> tuple[Any, float, float, str | None]:
        """Return value, time, age in seconds and problem of the quantity of that number."""
        value, taken, clock, problem = self._last[number]
        return value, taken, time.monotonic() - clock, problem

    def since(self, cursor: int) -> tuple[int, list[tuple[str, Any, float, str | None]]]:
        """Return what was read since an earlier call.

        Args:
            cursor: what the earlier call returned first; 0 for everything that is kept.

        Returns:
            The cursor for the next call; and name, value, time and problem of each reading, oldest first. There may
            be more of them: call again until there are none.
        """
        with self._guard:
            new = [kept for kept in self._kept if kept[0] >= cursor][:_PIECE]
        found = [(self._names[which], sample.value, sample.time, sample.problem) for _, which, sample in new]
        return (new[-1][0] + 1 if new else cursor), found

    # --- the threads

    def _read(self, device: str, entries: list[tuple[int, TelemetryEntry]]) -> None:
        begun = time.monotonic()
        due = {number: begun for number, _ in entries}
        periods = {number: 1 / entry.rate for number, entry in entries}
        paths = {number: entry.path for number, entry in entries}
        while True:
            number = min(due, key=due.__getitem__)
            if self._ending.wait(max(0.0, due[number] - time.monotonic())):
                return
            self._publish(number, self._sample(device, paths[number]))
            # One that was missed, because a reading took long, is not made up for.
            now, period = time.monotonic(), periods[number]
            due[number] += period * max(1, -(-(now - due[number]) // period))

    def _sample(self, device: str, path: str) -> Sample:
        problem: str | None = None
        value = None
        try:
            value = get_at(self._devices[device], path)
        except CatkitDevicesError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - a driver may raise anything; it is published as the reason
            problem = in_one_line(error)
        taken, clock = time.time(), time.monotonic()
        if problem is None:
            value, problem = _plain(value)
        return Sample(value, taken, clock, problem)

    def _publish(self, number: int, sample: Sample) -> None:
        before = self._last[number].problem
        if sample.problem is not None and sample.problem != before:
            _log.debug("telemetry %s: %s", self._names[number], sample.problem)
        if self._writer is not None:
            self._writer.write(number, sample)
        with self._guard:
            self._last[number] = sample
            self._kept.append((next(self._numbers), number, sample))


def _has_memory() -> bool:
    return has_anonymous_memory() and has_unix_sockets()


def _plain(value: Any) -> tuple[Any, str | None]:
    """Return a value as a number, a truth value or text; or why it cannot be telemetry."""
    missing = missing_in(value)
    if missing is not None:
        return None, f"no measurement ({missing})"
    if isinstance(value, enum.Enum):
        return value.name, None
    if value is None or isinstance(value, bool | str):
        return value, None
    if hasattr(value, "dtype") and getattr(value, "shape", None) == () and value.dtype.kind == "b":
        return bool(value), None
    number = real_number(value)
    if number is None:
        return None, f"telemetry needs one number, truth value or text, got {reprlib.repr(value)}"
    return (int(value) if isinstance(value, int) else number), None
