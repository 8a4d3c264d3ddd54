"""Question and answer with an instrument: one exchange at a time, on a line that can be trusted.

A reply that did not come in time may still come. So after a timeout, an unreadable reply, or bytes that nobody asked
for, the line is *suspect*: before the next exchange nothing more must be received for a while, the line is cleared, and
the instrument must identify itself again.

An opened address is one :class:`Transport` for the whole process, shared by every device that has the address; each of
these does its :class:`Exchanges` over it.
"""

from __future__ import annotations

import contextlib
import copy
import enum
import errno
import logging
import os
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices._wire.address import normalise
from catkit_devices._wire.byte_stream import Line
from catkit_devices._wire.ownership import Ownership
from catkit_devices.errors import (
    CatkitDevicesError,
    DeviceBusyError,
    DeviceClosedError,
    DeviceDisconnectedError,
    DeviceError,
    DeviceFaultError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
    OperationCancelled,
)
from catkit_devices.multiprocessing.locks.owner import forwarded_call
from catkit_devices.multiprocessing.wire.forking import private, renewed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from catkit_devices._device.connection import Lifecycle
    from catkit_devices.multiprocessing.locks.owner import Call

__all__ = ["TRUSTED", "Exchanges", "LineState", "Transport", "Trust"]

_log = logging.getLogger(__name__)

_OPEN_TIMEOUT = 5.0
"""Seconds for a network instrument to accept the connection."""

_WIRE_TIMEOUT = 60.0
"""Seconds to wait for the wire: longer than any exchange should take."""

_GRACE = 0.5
"""Seconds for which an exchange may go on when the wire is needed to make a device safe; most take less."""

# The one registry of open connections: all devices of this process that have an address use the same connection to it.
_transports: dict[tuple[int, str], Transport] = {}
_guard = renewed(threading.Lock())

# By VISA library: the addresses that were suspect when they were closed, and why. On most interfaces a late reply still
# arrives after the address is opened again.
_doubts: weakref.WeakKeyDictionary[Any, dict[str, str]] = weakref.WeakKeyDictionary()


class LineState(enum.Enum):
    """How far the line of an address can be trusted."""

    TRUSTED = enum.auto()
    """The next reply is the answer to the last command."""
    SUSPECT = enum.auto()
    """A reply may still come that is not the answer to what was asked last."""
    LOST = enum.auto()
    """Nothing can be exchanged until the address is opened again."""


class Trust(NamedTuple):
    """The state of a line, and why it is not trusted."""

    state: LineState
    reason: str = ""


TRUSTED = Trust(LineState.TRUSTED)
"""The line is in step with the instrument; nothing has to be recovered."""

_of_parent: list[Transport] = []
"""In a forked child, what its parent had open: kept alive for ever, because a destructor might send something on the
line."""


def _forget_parent() -> None:
    """Prevent that a forked child uses the connections of its parent."""
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
        turns: how often somebody has taken it.
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
        self._calm = InterruptSafeEvent()
        """Set while no thread waits for that."""
        self._calm.set()
        self.turns = 0
        self.trust = TRUSTED
        self.opened_at = 0.0
        self._library = library
        self._users = 0
        self._changing = threading.Lock()
        """Held while it is opened or closed. Both may hang, so the guard of all addresses is not held meanwhile."""
        self._line: Line | None = None
        self._cleanup = contextlib.ExitStack()

    @property
    def is_shared(self) -> bool:
        """Whether several devices have the address."""
        return self._users > 1

    @property
    def line(self) -> Line:
        """The bytes of the opened resource."""
        if self._line is None:
            raise ConnectionError(f"{self.address} is not open")
        return self._line

    @contextlib.contextmanager
    def hold(self, what: str = "something") -> Iterator[None]:
        """Hold the wire; one thread may do so several times. A thread that makes a device safe gets it first.

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
            self.turns += 1
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
        """Return what the wire is held for and since when, as the end of a sentence; nothing if it is free."""
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
        """Mark the line as suspect for the time when it is opened again."""
        _doubts.setdefault(self._library, {})[self.address] = reason

    @classmethod
    def acquire(cls, library: Any, address: str, settings: Mapping[str, Any]) -> Transport:
        """Return the transport of an address, opened if it was not.

        Args:
            library: what ``pyvisa.ResourceManager`` takes: ``"@py"``, ``"@ivi"``, or a library object. One that has an
                attribute ``machine_wide`` that is false is a simulation in this process, and is not locked against
                other processes.
            address: any spelling of a VISA address.
            settings: attributes of the resource that are set if it is a serial port.

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
                    opening = partial(_open_line, manager, transport.address, settings)
                    transport._open(opening, shared=_in_process(library))
        except BaseException:
            transport.release()
            raise
        return transport

    @classmethod
    def adopt(cls, resource: Any) -> Transport:
        """Return the transport of an address that a program has opened by itself. It is closed as any other is.

        Args:
            resource: of pyvisa, opened.

        Raises:
            DeviceBusyError: another process has the address, or a device of this process.
        """
        library, address = resource.visalib, normalise(resource.resource_name)
        with _guard:
            if (id(library), address) in _transports:
                raise DeviceBusyError("a device of this program has it already", address=address)
            transport = _transports[id(library), address] = cls(library, address)
            transport._users += 1
        try:
            with transport._change():
                transport._open(partial(_opened_line, resource), shared=_in_process(library))
        except BaseException:
            transport.release()
            raise
        return transport

    @contextlib.contextmanager
    def aside(self) -> Iterator[Transport]:
        """Open one more connection to the address, for one command, and close it afterwards.

        It has a wire of its own, and nobody else can use it. The address stays in use until it is closed.
        """
        import pyvisa

        with _guard:
            self._users += 1
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(self.release)
            other = Transport(self._library, self.address)
            other._line = _open_line(pyvisa.ResourceManager(self._library), self.address, {}, cleanup)
            yield other

    @staticmethod
    def listed(library: Any) -> list[str]:
        """Return the addresses of the instruments that a VISA library finds."""
        import pyvisa

        return list(pyvisa.ResourceManager(library).list_resources("?*"))

    def release(self) -> None:
        """Give the transport back; the last one closes it. Errors of a connection that is gone are not raised."""
        with _guard:
            self._users -= 1
            if self._users or not self._changing.acquire(blocking=False):
                return  # the thread that changes it now sees that nobody uses it any more
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
            raise TimeoutError(
                f"the previous user of {self.address} in this process has not closed it within {_WIRE_TIMEOUT:g} s"
            )
        try:
            yield
        finally:
            self._changing.release()

    def _open(self, opening: Callable[[contextlib.ExitStack], Line], *, shared: bool) -> None:
        doubts = _doubts.setdefault(self._library, {})
        with contextlib.ExitStack() as cleanup:
            if not shared:
                owned = Ownership(self.address)
                cleanup.callback(owned.release)
                if owned.inherited:
                    doubts.setdefault(self.address, "the program that had it before has died")
            self._line = opening(cleanup)
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


def _open_line(manager: Any, address: str, settings: Mapping[str, Any], cleanup: contextlib.ExitStack) -> Line:
    """Open a connection to an address, which ``cleanup`` closes."""
    if "::[" in address and type(manager.visalib).__module__.startswith("pyvisa_py."):
        # Its own errors name no reason, and it leaves sockets open.
        raise ValueError("pyvisa-py knows no IPv6: give the IPv4 address, or use the VISA library of a vendor")
    return _line(manager.open_resource(address, open_timeout=int(_OPEN_TIMEOUT * 1000)), settings, cleanup)


def _opened_line(resource: Any, cleanup: contextlib.ExitStack) -> Line:
    """Return the line of a connection that is open already, which ``cleanup`` closes."""
    # By an object of its own: the other one gets another library, and is closed by its program, or is not.
    return _line(copy.copy(resource), {}, cleanup)


def _line(resource: Any, settings: Mapping[str, Any], cleanup: contextlib.ExitStack) -> Line:
    cleanup.callback(_close_quietly, resource)
    _keep_from_children(resource)
    cleanup.enter_context(resource.ignore_warning(*_unremarkable()))
    return Line(resource, settings)


def _in_process(library: Any) -> bool:
    if isinstance(library, str):
        return library.endswith("@sim")
    return not getattr(library, "machine_wide", True)


def _unremarkable() -> tuple[Any, ...]:
    from pyvisa.constants import StatusCode

    return StatusCode.success_max_count_read, StatusCode.success_device_not_present


def _keep_from_children(resource: Any) -> None:
    """Close the connection in forked children: else a child could use it, and would keep it open."""
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


class _Stage(enum.Enum):
    """What a device does with its line at the moment."""

    IDLE = enum.auto()
    TALKING = enum.auto()
    """In an exchange: an exchange that begins now is part of it."""
    RECOVERING = enum.auto()
    """The line was suspect: nothing more must be received, and the instrument must identify itself."""


class _Haste(enum.Enum):
    """Whether the device is made safe at once, at the first try even on a suspect line."""

    NONE = enum.auto()
    ALLOWED = enum.auto()
    """If the line is suspect, it may be used as it is."""
    TAKEN = enum.auto()
    """It was suspect, and was used as it is."""


class _Device(Protocol):
    """What the exchanges need of their device; ``catkit_devices.visa.VisaDevice`` says what each does."""

    io_timeout: ClassVar[float]

    @property
    def name(self) -> str: ...
    @property
    def _limit_reads_(self) -> list[tuple[Any, str]] | None: ...
    def _facts_(self, command: str | bytes | None = None) -> dict[str, Any]: ...
    def _require_identity_(self) -> None: ...


class Exchanges:
    """The exchanges of one device with its instrument.

    Args:
        device: the device.
        life: of the device.
        address: of the instrument.
        late_window: seconds by which a reply may be late.

    Attributes:
        address: of the instrument.
        late_window: seconds by which a reply may be late.
        transport: the opened address; None while the device is closed.
    """

    def __init__(self, device: _Device, life: Lifecycle, address: str, late_window: float) -> None:
        self.address = address
        self.late_window = late_window
        self.transport: Transport | None = None
        self._device = device
        self._life = life
        self._joined_at = 0.0
        """When the connection was opened that this device knows of."""
        self._stage = _Stage.IDLE
        self.recovering_from = ""
        """Why the line could not be trusted, while the device asks again which instrument it is; else empty."""
        self._haste = _Haste.NONE

    # --- exchanges

    @contextlib.contextmanager
    def exchange(self, command: str | bytes | None, *, fresh: bool) -> Iterator[Line]:
        """Hold the wire for one exchange; errors from below become DeviceErrors.

        Args:
            command: named in errors.
            fresh: whether nothing may be waiting to be read when it begins.
        """
        if self._device._limit_reads_ is not None:
            self._device._limit_reads_.append((self._device, ""))
        transport = self.opened()
        with self.hold(transport, repr(command) if command is not None else "a reply"):
            before = self._stage
            if before is _Stage.TALKING:
                yield transport.line
                return
            self._require_connection(transport, command)
            self._stage = _Stage.TALKING
            try:
                if before is _Stage.RECOVERING:
                    transport.line.discard()  # later than late_window; the next question is which instrument this is
                else:
                    self.require_trust(transport, fresh=fresh)
                transport.line.begin()
                yield transport.line
            except DeviceError as error:
                if not self._life.concerns(error):  # an error of another device that was used in this exchange
                    transport.doubt(f"{command!r} was interrupted")
                elif isinstance(error, DeviceProtocolError):
                    transport.doubt(error.problem)
                raise
            except BaseException as error:
                translated = self._translated(transport, error, command)
                if translated is None:  # cancelled, or a mistake of the driver: a reply may have been left behind
                    transport.doubt(f"{command!r} was interrupted")
                    raise
                raise translated from error
            finally:
                self._stage = before

    @contextlib.contextmanager
    def lend(self, what: str | bytes, *, sends: bool) -> Iterator[Line]:
        """Hold the wire for one call of the VISA library by the code of another framework; errors stay as they are.

        It begins as every exchange does: only while the operation is not cancelled, and on a line that can be trusted.

        Args:
            what: is asked, shown to those who wait.
            sends: whether it sends something, so that what comes before its reply is of no use.
        """
        transport = self.opened()
        with self.hold(transport, what if isinstance(what, str) else repr(what[:80])):
            self.ready(what, sends=sends)
            yield transport.line

    def ready(self, what: str | bytes, *, sends: bool) -> None:
        """As :meth:`lend`, for whoever holds the wire already."""
        transport, before = self.opened(), self._stage
        if before is _Stage.TALKING:
            return
        self._require_connection(transport, what)
        if before is _Stage.RECOVERING:
            if sends:
                with transport.line.keeping_timeout():
                    transport.line.discard()
        elif transport.trust.state is not LineState.TRUSTED:
            self._stage = _Stage.TALKING
            try:
                self.require_trust(transport, fresh=False)
            finally:
                self._stage = before

    def require_silence(self, what: str) -> None:
        """Recover the line if bytes are waiting to be read that nobody has asked for; the wire is held.

        Args:
            what: is done next.
        """
        transport = self.opened()
        line = transport.line
        if not line.stream or self._stage is not _Stage.IDLE:
            return  # where there are messages, one that was not read is forgotten when the next command comes
        self.ready(what, sends=False)
        try:
            with line.keeping_timeout():
                unread = line.unread()
        except Exception as error:
            translated = self._translated(transport, error, what)
            if translated is None:
                raise
            raise translated from error
        if unread:
            transport.doubt(f"{unread!r} came without being asked for")

    def failed(self, error: BaseException, command: str | bytes | None) -> DeviceError | None:
        """Return the DeviceError for an error of the VISA library; what it says of the line is noted.

        None for errors of another kind.
        """
        return self._translated(self.opened(), error, command)

    def checkpoint(self) -> None:
        """Raise if the operation was cancelled, or if another device at the address is to be made safe first."""
        call = forwarded_call()
        if call is not None:
            call.check()
        transport = self.transport
        if transport is not None and transport.is_needed():
            raise OperationCancelled(f"device {self._device.name!r}: a device at {self.address} is made safe first")

    def _require_connection(self, transport: Transport, command: str | bytes | None) -> None:
        """Raise if the operation was cancelled, or if the connection that it has begun with is not there any more."""
        device = self._device
        self.checkpoint()
        if transport.trust.state is LineState.LOST:
            raise DeviceDisconnectedError(transport.trust.reason, **device._facts_(command))
        if transport.opened_at != self._joined_at:
            raise DeviceDisconnectedError("the connection was lost and made anew", **device._facts_(command))

    @contextlib.contextmanager
    def aside(self, command: str) -> Iterator[Line]:
        """Open one more connection to the instrument for one command; errors from below become DeviceErrors.

        It begins as every exchange does: only while the usual line is not lost and can be trusted. What goes wrong
        later says nothing about that line: the connection is closed afterwards, and a reply that comes later is lost
        with it.

        Args:
            command: named in errors.

        Raises:
            DeviceDisconnectedError: it cannot be opened, or the usual connection is lost.
        """
        transport, facts = self.opened(), self._device._facts_(command)
        if not normalise(self.address).endswith("::SOCKET"):
            raise DeviceProtocolError("needs a connection of its own, which only a network socket can have", **facts)
        with self.exchange(command, fresh=True):
            pass
        with contextlib.ExitStack() as opened:
            try:
                other = opened.enter_context(transport.aside())
            except Exception as error:  # whatever the layers of pyvisa raise
                raise DeviceDisconnectedError(f"one more connection cannot be opened: {error}", **facts) from error
            try:
                yield other.line
            except BaseException as error:
                translated = self._translated(other, error, command)
                if translated is None:
                    raise
                raise translated from error

    @contextlib.contextmanager
    def hold(self, transport: Transport, what: str) -> Iterator[None]:
        """Hold the wire.

        Raises:
            DeviceTimeoutError: it did not come free in time; says who has it.
        """
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(transport.hold(f"{self._device.name!r}: {what}"))
            except TimeoutError as error:
                raise DeviceTimeoutError(str(error), **self._device._facts_()) from error
            yield

    def opened(self) -> Transport:
        """Return the transport; DeviceClosedError if the device is closed."""
        if self.transport is None:
            raise DeviceClosedError("is not open", **self._device._facts_())
        return self.transport

    # --- opening and closing

    def open(self, join: Callable[[], Transport]) -> Transport:
        """Open the line and have the instrument identify itself.

        Args:
            join: returns the transport of the address, opened.

        Raises:
            DeviceOpenError: it cannot be opened, nothing answers, or not the right instrument.
        """
        facts = self._device._facts_
        try:
            self.transport = transport = join()
            self._joined_at = transport.opened_at
        except DeviceOpenError as error:  # somebody else has it
            raise type(error)(error.problem, **facts()) from None
        except Exception as error:  # pyvisa-py raises whatever its layers do, bare Exception among it
            raise DeviceOpenError(f"cannot be opened: {error}{_what_is_missing(error)}", **facts()) from error
        try:
            self._greet(transport)
        except DeviceOpenError:
            self.close()
            raise
        except DeviceError as error:
            self.close()
            silent = isinstance(error, DeviceTimeoutError | DeviceDisconnectedError)
            what = "nothing answers" if silent else "no instrument of this kind answers"
            raise DeviceOpenError(f"{what}: {error.problem}", **facts(error.command)) from error
        except BaseException:
            self.close()
            raise
        return transport

    def close(self) -> None:
        """Give the line back."""
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.release()

    def replaced_at(self) -> float | None:
        """Return when another device at the address has opened a new connection; None if none has."""
        transport = self.transport
        return None if transport is None or transport.opened_at == self._joined_at else transport.opened_at

    def is_lost(self) -> bool:
        """Return whether the connection of this device is known to be lost, by whatever device at the address."""
        transport = self.transport
        return transport is not None and (
            transport.trust.state is LineState.LOST or transport.opened_at != self._joined_at
        )

    def _greet(self, transport: Transport) -> None:
        device = self._device
        with self.hold(transport, "the greeting"):
            if transport.trust.state is LineState.SUSPECT:
                self._await_silence(transport)
            # An instrument may have sent something when it was switched on, or a reply to another program.
            with self.exchange(None, fresh=False) as line:
                line.discard()
            try:
                device._require_identity_()
            except (DeviceProtocolError, DeviceOpenError) as error:
                # This may have been a late reply to another program: after a silence there are no more of them.
                _log.info("%s at %s: %s; asking once more", device.name, self.address, error.problem)
                self._await_silence(transport)
                device._require_identity_()

    # --- trust

    def require_trust(self, transport: Transport, *, fresh: bool) -> None:
        """Make sure that the next reply belongs to the next command; recover a suspect line.

        Args:
            transport: of the line.
            fresh: whether bytes that wait to be read make the line suspect.
        """
        suspect = transport.trust.state is LineState.SUSPECT
        if not suspect and fresh and (unread := transport.line.unread()):
            transport.doubt(f"{unread!r} came without being asked for")
            suspect = True
        if not suspect:
            return
        call = forwarded_call() if self._haste is not _Haste.NONE else None
        if call is not None and call.emergency:
            self._haste = _Haste.TAKEN
            with transport.line.keeping_timeout():
                transport.line.discard()
        else:
            self._recover(transport, transport.trust.reason)

    def hurried(self, make_safe: Callable[[], None]) -> None:
        """Make the device safe at once, also on a suspect line.

        If the line was suspect, do it once more after the line has been recovered.

        Args:
            make_safe: does it.
        """
        self._haste = _Haste.ALLOWED
        try:
            make_safe()
        except DeviceError as error:
            if self._haste is not _Haste.TAKEN:
                raise
            _log.info("%s at %s, made safe on a suspect line: %s", self._device.name, self.address, error.problem)
        finally:
            taken, self._haste = self._haste is _Haste.TAKEN, _Haste.NONE
        if taken:
            make_safe()

    def _recover(self, transport: Transport, reason: str) -> None:
        self._stage, self.recovering_from = _Stage.RECOVERING, reason
        try:
            self._await_silence(transport)
            self._device._require_identity_()
        except DeviceDisconnectedError:
            raise
        except DeviceError as error:
            transport.doubt(reason)
            self._life.fail_and_make_safe(f"the line could not be trusted any more ({reason}): {error}")
            raise DeviceFaultError(f"could not be recovered after this: {reason}", **self._device._facts_()) from error
        except BaseException:
            transport.doubt(reason)
            raise
        finally:
            self._stage, self.recovering_from = _Stage.TALKING, ""

    def _await_silence(self, transport: Transport) -> None:
        device = self._device
        text = "%s at %s: waiting until nothing more is received, because of this: %s"
        _log.warning(text, device.name, self.address, transport.trust.reason)
        transport.trust = TRUSTED
        with self.exchange(None, fresh=False) as line, line.keeping_timeout():
            line.settle(self.late_window, device.io_timeout, self.checkpoint)

    def _translated(
        self, transport: Transport, error: BaseException, command: str | bytes | None
    ) -> DeviceError | None:
        """Return the DeviceError for an error from below, and note what it says of the line; None for other errors."""
        import pyvisa
        from pyvisa.constants import StatusCode

        # An error of another device that was used in this exchange; some of these are OSErrors too.
        if isinstance(error, CatkitDevicesError):
            return None
        facts = self._device._facts_(command)
        code = error.error_code if isinstance(error, pyvisa.VisaIOError) else None
        number = error.errno if isinstance(error, OSError) else None
        if code == StatusCode.error_timeout or isinstance(error, TimeoutError) or number == errno.ETIMEDOUT:
            text = str(error) if isinstance(error, TimeoutError) else f"not sent in {self._device.io_timeout:g} s"
            transport.doubt(text)
            return DeviceTimeoutError(text, **facts)
        if isinstance(error, OSError | pyvisa.InvalidSession) or code in _gone():
            text = f"the connection is gone: {error}"
            transport.lose(text)
            return DeviceDisconnectedError(text, **facts)
        if isinstance(error, ValueError | pyvisa.Error):
            transport.doubt(str(error))
            return DeviceProtocolError(str(error), **facts)
        return None


def _gone() -> frozenset[Any]:
    from pyvisa.constants import StatusCode

    return frozenset(
        {
            StatusCode.error_connection_lost,
            StatusCode.error_io,
            StatusCode.error_invalid_object,
            StatusCode.error_system_error,
            StatusCode.error_resource_not_found,
        }
    )


def _what_is_missing(error: BaseException) -> str:
    """Return what to install, as the end of a message, if the library lacks what it needs for USB; else nothing."""
    if "pyusb" not in str(error).lower():
        return ""
    return " (the extra `usb` brings it: pip install 'catkit-devices[usb]'; `--simulate` needs none)"
