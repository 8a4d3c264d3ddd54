"""The opened addresses of this process: one transport for each, shared by every device that has the address."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from catkit_devices.line import Line
from catkit_devices.multiprocessing.forking import renewed
from catkit_devices.ownership import Ownership, normalise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Transport"]

_OPEN_TIMEOUT = 5.0
"""Seconds for a network instrument to accept the connection."""

_WIRE_TIMEOUT = 60.0
"""Seconds to wait for the wire: longer than any exchange may take."""

# The one registry of open connections: an address is one thing for the whole process, whoever opens it.
_transports: dict[tuple[int, str], Transport] = {}
_guard = renewed(threading.Lock())

# Why addresses were suspect when they were closed, by library: a late reply survives the closing of most interfaces.
_doubts: weakref.WeakKeyDictionary[Any, dict[str, str]] = weakref.WeakKeyDictionary()


class Transport:
    """An opened address, shared by every device of this process that has it.

    Get one with :meth:`acquire` and give it back with :meth:`release`; the last one closes it.

    Attributes:
        address: the normalised address.
        wire: the lock that :meth:`hold` takes for one exchange, or for several that belong together.
        suspect: why a reply might still be on its way that belongs to nobody any more; None while all is well.
        lost: why nothing can be exchanged any more until the address is opened again; None while it can.
        opened_at: when it was opened last, on the monotonic clock.
    """

    def __init__(self, library: Any, address: str) -> None:
        self.address = address
        self.wire = threading.RLock()
        self.suspect: str | None = None
        self.lost: str | None = None
        self.opened_at = 0.0
        self._library = library
        self._users = 0
        self._line: Line | None = None
        self._cleanup = contextlib.ExitStack()

    @property
    def line(self) -> Line:
        """The bytes of the opened resource."""
        if self._line is None:
            raise ConnectionError(f"{self.address} is not open")
        return self._line

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the wire; whoever holds it nests.

        Raises:
            TimeoutError: it did not come free in time, though whoever has it is bounded by timeouts of its own.
        """
        if not self.wire.acquire(timeout=_WIRE_TIMEOUT):
            raise TimeoutError(f"the wire of {self.address} did not come free in {_WIRE_TIMEOUT:g} s")
        try:
            yield
        finally:
            self.wire.release()

    @classmethod
    def acquire(cls, library: Any, address: str, settings: Mapping[str, Any]) -> Transport:
        """Return the transport of an address, opened if it was not.

        Args:
            library: what ``pyvisa.ResourceManager`` takes: ``"@py"``, ``"@ivi"``, or a library object. One that has an
                attribute ``machine_wide`` that is false is a simulation in this process, and is not locked against
                other processes.
            address: any spelling of a VISA address.
            settings: attributes of the resource that are set where it is a serial port.

        Raises:
            DeviceBusyError: another process has it.
            Exception: whatever the VISA library raises when it cannot be opened.
        """
        import pyvisa

        manager = pyvisa.ResourceManager(library)
        key = id(manager.visalib), normalise(address)
        with _guard:
            transport = _transports.get(key)
            if transport is None:
                transport = _transports[key] = cls(manager.visalib, key[1])
            transport._users += 1
        try:
            with transport.hold():
                if transport._line is None or transport.lost is not None:
                    transport._close()
                    transport._open(manager, address, settings, shared=_in_process(library))
        except BaseException:
            transport.release()
            raise
        return transport

    def release(self) -> None:
        """Give the transport back; the last one closes it. Errors of a connection that is gone are not raised."""
        with _guard:
            self._users -= 1
            if self._users == 0:
                _transports.pop((id(self._library), self.address), None)
                if self.suspect is not None:
                    _doubts.setdefault(self._library, {})[self.address] = self.suspect
                self._close()

    def _open(self, manager: Any, address: str, settings: Mapping[str, Any], *, shared: bool) -> None:
        doubts = _doubts.setdefault(self._library, {})
        with contextlib.ExitStack() as cleanup:
            if not shared:
                owned = Ownership(self.address)
                cleanup.callback(owned.release)
                if owned.inherited:
                    doubts.setdefault(self.address, "the program that had it before has died")
            resource = manager.open_resource(address, open_timeout=int(_OPEN_TIMEOUT * 1000))
            cleanup.callback(_close_quietly, resource)
            cleanup.enter_context(resource.ignore_warning(*_unremarkable()))
            self._line = Line(resource, settings)
            self.suspect, self.lost = doubts.pop(self.address, None), None
            self.opened_at = time.monotonic()
            self._cleanup = cleanup.pop_all()

    def _close(self) -> None:
        self._line = None
        self._cleanup.close()


def _in_process(library: Any) -> bool:
    if isinstance(library, str):
        return library.endswith("@sim")
    return not getattr(library, "machine_wide", True)


def _unremarkable() -> tuple[Any, ...]:
    from pyvisa.constants import StatusCode

    return StatusCode.success_max_count_read, StatusCode.success_device_not_present


def _close_quietly(resource: Any) -> None:
    import pyvisa

    with contextlib.suppress(pyvisa.Error, OSError, AttributeError):
        resource.close()
