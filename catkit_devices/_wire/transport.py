"""The opened addresses of this process: one transport for each, shared by every device that has the address."""

from __future__ import annotations

import contextlib
import enum
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices._base.ctrl_c import Event
from catkit_devices._wire.address import normalise
from catkit_devices._wire.byte_stream import Line
from catkit_devices._wire.ownership import Ownership
from catkit_devices.multiprocessing.locks.owner import forwarded_call
from catkit_devices.multiprocessing.wire.forking import private, renewed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from catkit_devices.multiprocessing.locks.owner import Call

__all__ = ["TRUSTED", "LineState", "Transport", "Trust"]

_OPEN_TIMEOUT = 5.0
"""Seconds for a network instrument to accept the connection."""

_WIRE_TIMEOUT = 60.0
"""Seconds to wait for the wire: longer than any exchange should take."""

_GRACE = 0.5
"""Seconds for which an exchange may go on when the wire is needed to make a device safe; most take less."""

# The one registry of open connections: an address is one thing for the whole process, whoever opens it.
_transports: dict[tuple[int, str], Transport] = {}
_guard = renewed(threading.Lock())

# Why addresses were suspect when they were closed, by library: a late reply survives the closing of most interfaces.
_doubts: weakref.WeakKeyDictionary[Any, dict[str, str]] = weakref.WeakKeyDictionary()


class LineState(enum.Enum):
    """How far the line of an address can be trusted."""

    TRUSTED = enum.auto()
    """What comes is the answer to what was asked last."""
    SUSPECT = enum.auto()
    """A reply may still come that is not the answer to what was asked last."""
    LOST = enum.auto()
    """Nothing can be exchanged until the address is opened again."""


class Trust(NamedTuple):
    """The state of a line, and why it is not trusted."""

    state: LineState
    reason: str = ""


TRUSTED = Trust(LineState.TRUSTED)

_of_parent: list[Transport] = []
"""In a forked child, what its parent had open: never destroyed, because a destructor may say something on the line."""


def _forget_parent() -> None:
    """Have no exchange of a forked child go over a connection of its parent."""
    for transport in _transports.values():
        transport.trust = Trust(LineState.LOST, "the connection is that of the process that forked this one")
        transport.wire = threading.RLock()  # some thread of the parent may hold it
        _of_parent.append(transport)
    _transports.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


class Transport:
    """An opened address, shared by every device of this process that has it.

    Get one with :meth:`acquire` and give it back with :meth:`release`; the last one closes it.

    Attributes:
        address: the normalised address.
        wire: the lock that :meth:`hold` takes for one exchange, or for several that belong together.
        trust: how far the line can be trusted.
        opened_at: when it was opened last, on the monotonic clock.
    """

    def __init__(self, library: Any, address: str) -> None:
        self.address = address
        self.wire = threading.RLock()
        self._exchange: _Exchange | None = None
        """The exchange that holds the wire; None while it is free."""
        self._urgent: dict[int, float] = {}
        """Who waits for the wire to make a device safe: thread, and since when on the monotonic clock."""
        self._calm = Event()
        """Set while nobody waits so."""
        self._calm.set()
        self.trust = TRUSTED
        self.opened_at = 0.0
        self._library = library
        self._users = 0
        self._changing = threading.Lock()
        """Held while it is opened or closed. Both may hang, so the guard of all addresses is not held meanwhile."""
        self._line: Line | None = None
        self._cleanup = contextlib.ExitStack()

    @property
    def line(self) -> Line:
        """The bytes of the opened resource."""
        if self._line is None:
            raise ConnectionError(f"{self.address} is not open")
        return self._line

    @contextlib.contextmanager
    def hold(self, what: str = "something") -> Iterator[None]:
        """Hold the wire; one thread may do so several times over. Whoever makes a device safe has it next.

        Args:
            what: it is held for, shown to those who wait.

        Raises:
            TimeoutError: it did not come free in time.
        """
        call = forwarded_call()
        urgent = call is not None and call.emergency
        deadline = time.monotonic() + _WIRE_TIMEOUT
        while True:
            with self._waiting_urgently() if urgent else contextlib.nullcontext():
                acquired = self.wire.acquire(timeout=max(0.0, deadline - time.monotonic()))
            if not acquired:
                raise TimeoutError(f"not begun in {_WIRE_TIMEOUT:g} s{self.in_use()}")
            try:
                if urgent or self._exchange is not None or not self._urgent:
                    yield from self._held(what, call)
                    return
            finally:
                self.wire.release()
            self._calm.wait(max(0.0, deadline - time.monotonic()))

    def _held(self, what: str, call: Call | None) -> Iterator[None]:
        before = self._exchange
        if before is None:
            self._exchange = _Exchange(what, call)
        try:
            yield
        finally:
            self._exchange = before

    @contextlib.contextmanager
    def _waiting_urgently(self) -> Iterator[None]:
        thread = threading.get_ident()
        with _guard:
            self._urgent[thread] = time.monotonic()
            self._calm.clear()
        try:
            yield
        finally:
            with _guard:
                del self._urgent[thread]
                if not self._urgent:
                    self._calm.set()

    def in_use(self) -> str:
        """Return what the wire is held for and since when, as the end of a sentence; nothing where it is free."""
        exchange = self._exchange
        if exchange is None:
            return ""
        seconds = time.monotonic() - exchange.since
        return f"; the wire of {self.address} has been in use for {seconds:.1f} s by {exchange.what}"

    def held_by(self, chain: object) -> bool:
        """Whether a chain of calls has the wire."""
        exchange = self._exchange
        return exchange is not None and exchange.chain == chain

    def is_needed(self) -> bool:
        """Whether this thread, which has the wire, has to give it up for a device to be made safe."""
        exchange = self._exchange
        if not self._urgent or exchange is None or exchange.urgent or exchange.thread != threading.get_ident():
            return False
        return time.monotonic() - min(self._urgent.copy().values()) > _GRACE

    def doubt(self, reason: str) -> None:
        """Note that a reply may still come that belongs to no question any more; a lost line stays lost."""
        if self.trust.state is LineState.LOST:
            self._keep_doubt(reason)
        else:
            self.trust = Trust(LineState.SUSPECT, reason)

    def lose(self, reason: str) -> None:
        """Note that nothing can be exchanged until the address is opened again."""
        if self.trust.state is LineState.SUSPECT:
            self._keep_doubt(self.trust.reason)
        self.trust = Trust(LineState.LOST, reason)

    def _keep_doubt(self, reason: str) -> None:
        """Have the line suspect when it is opened again."""
        _doubts.setdefault(self._library, {})[self.address] = reason

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
            with transport.hold(), transport._change():
                if transport._line is None or transport.trust.state is LineState.LOST:
                    transport._close()
                    transport._open(manager, settings, shared=_in_process(library))
        except BaseException:
            transport.release()
            raise
        return transport

    def release(self) -> None:
        """Give the transport back; the last one closes it. Errors of a connection that is gone are not raised."""
        with _guard:
            self._users -= 1
            if self._users or not self._changing.acquire(blocking=False):
                return  # whoever changes it now sees that nobody uses it any more
            if self.trust.state is LineState.SUSPECT:
                self._keep_doubt(self.trust.reason)
        try:
            self._close()
        finally:
            with _guard:
                if self._users == 0:
                    _transports.pop((id(self._library), self.address), None)
                self._changing.release()

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """Wait until nobody opens or closes it, and keep others from it."""
        if not self._changing.acquire(timeout=_WIRE_TIMEOUT):
            raise TimeoutError(f"whoever had {self.address} last has not closed it in {_WIRE_TIMEOUT:g} s")
        try:
            yield
        finally:
            self._changing.release()

    def _open(self, manager: Any, settings: Mapping[str, Any], *, shared: bool) -> None:
        doubts = _doubts.setdefault(self._library, {})
        with contextlib.ExitStack() as cleanup:
            if not shared:
                owned = Ownership(self.address)
                cleanup.callback(owned.release)
                if owned.inherited:
                    doubts.setdefault(self.address, "the program that had it before has died")
            resource = manager.open_resource(self.address, open_timeout=int(_OPEN_TIMEOUT * 1000))
            cleanup.callback(_close_quietly, resource)
            _keep_from_children(resource)
            cleanup.enter_context(resource.ignore_warning(*_unremarkable()))
            self._line = Line(resource, settings)
            doubt = doubts.pop(self.address, None)
            self.trust = TRUSTED if doubt is None else Trust(LineState.SUSPECT, doubt)
            self.opened_at = time.monotonic()
            self._cleanup = cleanup.pop_all()

    def _close(self) -> None:
        self._line = None
        self._cleanup.close()


class _Exchange:
    """What the wire is held for: described, since when, by whom, and whether to make a device safe."""

    __slots__ = ("chain", "since", "thread", "urgent", "what")

    def __init__(self, what: str, call: Call | None) -> None:
        self.what = what
        self.since = time.monotonic()
        self.thread = threading.get_ident()
        self.chain = None if call is None else call.chain
        self.urgent = call is not None and call.emergency


def _in_process(library: Any) -> bool:
    if isinstance(library, str):
        return library.endswith("@sim")
    return not getattr(library, "machine_wide", True)


def _unremarkable() -> tuple[Any, ...]:
    from pyvisa.constants import StatusCode

    return StatusCode.success_max_count_read, StatusCode.success_device_not_present


def _keep_from_children(resource: Any) -> None:
    """Have no forked child keep the connection: it could use it, and keeps it alive when this process has died."""
    # pyvisa-py keeps a socket or a serial port there, or what has the socket; other libraries do not say.
    session = getattr(resource.visalib, "sessions", {}).get(resource.session)
    interface = getattr(session, "interface", None)
    holders: tuple[Any, ...] = interface, getattr(interface, "sock", None)
    for one in holders:
        with contextlib.suppress(AttributeError, OSError):
            private(one.fileno())


def _close_quietly(resource: Any) -> None:
    import pyvisa

    with contextlib.suppress(pyvisa.Error, OSError, AttributeError):
        resource.close()
