"""What programs see of telemetry: the last reading of each quantity, without a call and without a lock."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices._base.paths import words
from catkit_devices.errors import ConfigurationError, ServerError, nearest
from catkit_devices.testbed.telemetry.publisher import quantities_of, telemetry_of
from catkit_devices.testbed.telemetry.slots import Sample, Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from catkit_devices.testbed.layout import Layout, TelemetryEntry

__all__ = ["Reading", "TelemetryView", "stale_after"]

_PERIODS = 3
"""A reading is stale when it is older than this many periods of its rate,"""
_LEEWAY = 2.0
"""and these seconds, which a busy computer or a slow instrument may take."""


def stale_after(rate: float) -> float:
    """Return for how many seconds a reading is shown, with that many readings per second."""
    return _PERIODS / rate + _LEEWAY


class Reading(NamedTuple):
    """The last reading of a quantity.

    ``value`` is None whenever it is not known: then ``problem`` says why. So a value that is shown is never an old one.
    """

    value: Any
    """A number, a truth value or text; None if there is none."""
    unit: str | None
    time: float
    """When it was read, in seconds since 1970 UTC; 0 if it never was."""
    problem: str | None
    """Why there is no value: the device could not be read, measured nothing, or was not read for too long."""


class TelemetryView(Mapping[str, Reading]):
    """The telemetry of a testbed by name: ``testbed.telemetry["environment.humidity"]``.

    Reading it waits for nobody and costs the device and its server nothing. Threads may share this object.

    Args:
        layout: of the testbed.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._readers: dict[str, Callable[[], Reading]] = {}
        self._entries: dict[str, tuple[str, int, TelemetryEntry]] = {
            f"{device}.{entry.path}": (server, number, entry)
            for server in layout.device_servers
            for number, (device, entry) in enumerate(quantities_of(layout, server))
        }
        self._sources: dict[str, Callable[[int], Sample]] = {}

    def __getitem__(self, name: str) -> Reading:
        """Return the last reading of a quantity.

        Args:
            name: ``"device.property"``; of a component ``"supply.outputs.1.voltage"``. The device may be an alias.

        Raises:
            ConfigurationError: the configuration declares no such telemetry; the nearest name is given.
            ServerNotFoundError, ServerUnresponsiveError: (at the first reading) its server cannot be reached.
        """
        reader = self._readers.get(name)
        return (reader or self._reader(name))()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._named(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<telemetry of {self._layout.name!r}: {', '.join(self) or 'none'}>"

    def __reduce__(self) -> tuple[type[TelemetryView], tuple[Layout]]:
        return TelemetryView, (self._layout,)

    def _named(self, name: str) -> str | None:
        if name in self._entries:
            return name
        device, *path = words(name)
        known = next((entry.name for entry in self._layout.devices if device in (entry.name, *entry.aliases)), None)
        wanted = (known, *path)
        return next((entry for entry in self._entries if words(entry) == wanted), None)

    def _reader(self, name: str) -> Callable[[], Reading]:
        known = self._named(name)
        if known is None:
            listed = ", ".join(self._entries) or "none"
            raise ConfigurationError(
                f"testbed {self._layout.name!r} has no telemetry {name!r}, there is {listed}; the table of its device "
                "declares it: telemetry = { PROPERTY = READINGS_PER_SECOND }",
                suggestion=nearest(name, self._entries),
            )
        server, number, entry = self._entries[known]
        source = self._source(server)
        reader = self._readers[name] = partial(_judged, source, number, entry.unit, stale_after(entry.rate))
        return reader

    def _source(self, server: str) -> Callable[[int], Sample]:
        with self._lock:
            source = self._sources.get(server)
            if source is None:
                source = self._sources[server] = _mapped(server)
            return source


def _judged(source: Callable[[int], Sample], number: int, unit: str | None, limit: float) -> Reading:
    value, taken, clock, problem = source(number)
    if problem is None:
        age = time.monotonic() - clock
        if age > limit:
            return Reading(None, unit, taken, f"not read for {age:.0f} s")
    return Reading(value, unit, taken, problem)


def _mapped(server: str) -> Callable[[int], Sample]:
    """Return what returns the sample of a number: from the shared memory, or by a call if there is none."""
    from catkit_devices.multiprocessing.wire.connecting import receive_descriptor
    from catkit_devices.multiprocessing.wire.endpoint import endpoint

    telemetry = telemetry_of(server)
    if not telemetry.shared():
        return partial(_asked, telemetry)
    try:
        descriptor, size = receive_descriptor(endpoint(server), telemetry._remote_.reference.target)
    except ServerError:  # it is on another computer
        return partial(_asked, telemetry)
    try:
        return Slots(descriptor, size).read
    finally:
        os.close(descriptor)


def _asked(telemetry: Any, number: int) -> Sample:
    value, taken, age, problem = telemetry.sample(number)
    return Sample(value, taken, time.monotonic() - age, problem)
