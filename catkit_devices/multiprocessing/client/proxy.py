"""Proxies: what clients use in place of an object on a server; and how the object and its lock are found there.

The class of a proxy is generated from the interface that the server sends, so a client needs no code of the object; see
``proxy_factory``. When a proxy is sent to another process, the server's name, the object's kind and its name are sent.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Mapping
from multiprocessing import AuthenticationError, current_process
from typing import TYPE_CHECKING, Any, cast

from catkit_devices._base.deferred import done
from catkit_devices._base.timeouts import seconds
from catkit_devices.errors import (
    CatkitDevicesError,
    ConfigurationError,
    MutexBrokenError,
    MutexNotHeldError,
    MutexTimeoutError,
    ServerError,
    ServerUnresponsiveError,
    TransferError,
)
from catkit_devices.multiprocessing.client.calls import connection_to
from catkit_devices.multiprocessing.client.signatures import Told
from catkit_devices.multiprocessing.locks.entries import OwnEntries, new_entry, opener
from catkit_devices.multiprocessing.locks.lock import new_section, newest
from catkit_devices.multiprocessing.locks.mutex import Mutex, acquire_again, exit_section
from catkit_devices.multiprocessing.locks.owner import current_call, current_owner
from catkit_devices.multiprocessing.protocol import (
    CALL,
    DELETE,
    GET,
    LOCK,
    ROOT,
    SELF,
    SET,
    SPECIAL,
    running_server,
)
from catkit_devices.multiprocessing.wire.endpoint import Endpoint, endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from catkit_devices.multiprocessing.client.calls import CallConnection
    from catkit_devices.multiprocessing.client.session import ClientSession
    from catkit_devices.multiprocessing.locks.lock import Holder, Section
    from catkit_devices.multiprocessing.locks.owner import Call, Owner
    from catkit_devices.multiprocessing.protocol import HostedHere, Interface, Parameters, Reference
    from catkit_devices.multiprocessing.wire.endpoint import Address

    Key = int | str
    """The key of a component among several."""

__all__ = [
    "Here",
    "ObjectProxy",
    "Proxy",
    "Remote",
    "found_again",
    "hosted_here",
    "keep_missing",
    "members_of",
    "mutex_found",
    "mutex_of",
    "obtain",
    "reach",
    "remote_of",
]


class Proxy:
    """What proxies of objects and of components have in common: generated members; other names are refused."""

    __slots__ = ()
    _interface: Interface

    def _do(self, operation: int, name: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Let the server carry out an operation on the object of this proxy."""
        result = self._ask_(operation, name, args, kwargs)
        return self if result is SELF else result

    def _ask_(self, operation: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        raise NotImplementedError

    def _called_(self) -> str:
        raise NotImplementedError

    @staticmethod
    def _class_for_(interface: Interface) -> Any:
        """Return the class of proxies of objects with this interface."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        asked, raised = vars(_missing).pop("last", (None, None))
        if asked == name:
            raise raised
        if self._interface.grows and self._learn_(name):
            return getattr(self, name)
        return self._do(GET, name)

    def _learn_(self, name: str) -> bool:
        """Ask the server what the object has now that it is open; return whether that includes a name."""
        interface = self._ask_(CALL, "_when_open_", (), None)
        object.__setattr__(self, "__class__", self._class_for_(interface))
        return name in interface.properties or name in interface.methods or name in interface.parts

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} takes no attribute {name!r}")
        if name in self._interface.parts:
            raise AttributeError(f"{name!r} of {self._called_()} is a component, or several: it cannot be replaced")
        member = getattr(type(self), name, None)
        if member is not None and not isinstance(member, property):
            raise AttributeError(f"{name!r} of {self._called_()} cannot be set: it is a method")
        self._do(SET, name, (value,))

    def __delattr__(self, name: str) -> None:
        self._do(DELETE, name)

    def __dir__(self) -> list[str]:
        interface = self._interface
        return sorted({*super().__dir__(), *interface.methods, *interface.properties, *interface.parts})


class ObjectProxy(Proxy):
    """Represents an object on a server; each operation is one call to the server, under the object's mutex.

    ``proxy.mutex`` is the object's mutex; ``with proxy.lock():`` holds it during several operations. A proxy can be
    sent to other processes.
    """

    __slots__ = ("_mutex", "_remote_")
    _remote_: Remote | Here
    _mutex: Mutex | None

    @property
    def mutex(self) -> Mutex:
        """The object's mutex."""
        if self._mutex is None and isinstance(self._remote_, Remote):
            object.__setattr__(self, "_mutex", mutex_of(self._remote_))
        return cast("Mutex", self._mutex)

    def lock(self, timeout: float | None = None) -> Any:
        """Hold the object's mutex during a block: ``with proxy.lock():``."""
        from catkit_devices.multiprocessing.locks.mutex import lock_all

        return lock_all(self.mutex, timeout=timeout)

    def acquire(self, timeout: float | None = None, raise_on_fail: bool = True) -> bool:
        """Acquire the object's mutex; as ``Mutex.acquire``."""
        return self.mutex.acquire(timeout, raise_on_fail)

    def release(self) -> None:
        """Release the object's mutex; as ``Mutex.release``."""
        self.mutex.release()

    def _ask_(self, operation: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        remote = self._remote_
        connection = remote.connection()
        try:
            return connection.call(remote.reference.target, operation, name, args, kwargs)
        except TransferError as error:
            if error.name is not None:
                raise
            raise TransferError(error.operation, error.kind, error.problem, name=remote.name) from error.__cause__

    def _callmethod(self, methodname: str, args: tuple[Any, ...] = (), kwds: dict[str, Any] | None = None) -> Any:
        """As ``multiprocessing.managers.BaseProxy._callmethod``, for code that was written for it."""
        if methodname not in self._interface.methods:
            from multiprocessing.managers import RemoteError

            raise RemoteError(f"{self!r} shares no method {methodname!r}")
        return self._do(CALL, methodname, tuple(args), kwds)

    def _called_(self) -> str:
        return f"{self._remote_.kind} {self._remote_.name!r}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ObjectProxy):
            mine, its = self._remote_, other._remote_
            return (mine.server.address, mine.kind, mine.name) == (its.server.address, its.kind, its.name)
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self._remote_.server.address, self._remote_.kind, self._remote_.name))

    def __repr__(self) -> str:
        remote = self._remote_
        return f"<{self._interface.name} {remote.name!r} on server {remote.server.name!r}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: what can be done with it. The server is not asked, so this never waits."""
        from catkit_devices._base.html_table import html_table
        from catkit_devices._base.summary import summary

        interface = self._interface
        rows = []
        for name, doc in interface.properties.items():
            first, _, rest = (doc or "").partition("\n")
            rows.append((name, first, rest.rpartition("\n")[2].removeprefix("It is ").removesuffix(".")))
        for name, doc in interface.methods.items():
            if not name.startswith("_"):
                rows.append((f"{name}()", summary(doc), ""))
        return html_table(repr(self), ["name", "what it is, or does", "type, unit, limits, use"], rows)


class _Found:
    """What is known of an object of a server by which it is found."""

    __slots__ = ("components", "kind", "name", "reference", "server")

    def __init__(self, server: Endpoint, kind: str, name: str, reference: Reference) -> None:
        self.server = server
        self.kind = kind
        self.name = name
        self.reference = reference
        self.components: dict[str, Mapping[Key, Interface]] = {}
        """The components that depend on the instrument, as the server has sent them last."""

    def keep_components(self, where: str, there: Mapping[Key, Interface]) -> None:
        """Keep what the server has said of the components at a path."""
        self.components[where] = there

    def whereabouts(self) -> tuple[str, Address, str, str]:
        """Return by what any process finds it: the server's name and address, and its own kind and name."""
        return self.server.name, self.server.address, self.kind, self.name


class Here(_Found):
    """Replaces ``Remote`` for an object of this same server: its calls acquire its lock, but need no connection."""

    __slots__ = ("_hosted",)
    session = None
    """There is no session, because there is no connection."""

    def __init__(self, hosted: HostedHere, server: Endpoint) -> None:
        super().__init__(server, hosted.reference.kind, hosted.reference.name, hosted.reference)
        self._hosted = hosted

    def connection(self) -> Here:
        """Return itself: there is no connection."""
        return self

    def call(self, target: int, operation: int, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:  # noqa: ARG002 - as ``CallConnection.call``
        """As ``CallConnection.call``."""
        return self._hosted.perform(operation, name, args, kwargs)


def remote_of(shared: Any) -> Remote | Here | None:
    """Return the ``Remote`` of a proxy or mutex; None if its object is not on a server."""
    if isinstance(shared, ObjectProxy):
        return shared._remote_
    if isinstance(shared, Mutex) and isinstance(shared.underlying, RemoteLock):
        return shared.underlying.remote
    return None


_missing = threading.local()


def keep_missing(name: str, error: AttributeError) -> None:
    """Keep the error of a property: Python calls ``__getattr__`` next, which raises it and does not ask the server."""
    _missing.last = (name, error)


def members_of(interface: Interface, base: type) -> dict[str, Any]:
    """Return the methods and properties of the class of a proxy, without its components."""
    members: dict[str, Any] = {}
    for name, doc in interface.methods.items():
        if name in SPECIAL or not (name.startswith("_") or name in vars(base)):
            members[name] = _method(name, doc, interface.signatures.get(name))
    for name, doc in interface.properties.items():
        if name not in vars(base):
            members[name] = _property(name, doc)
    if "__eq__" in members:
        members["__eq__"], members["__hash__"] = _equal, base.__hash__
    if "__iter__" in members:
        members["__iter__"] = _iterate
    if interface.section:
        members["__enter__"], members["__exit__"] = _enter_section, exit_section
    elif interface.entered:
        members |= {name: _entered(name, interface.methods[name]) for name in _ENTERED}
    elif "__exit__" in members:
        members["__exit__"] = _exit
    if interface.kind == "condition":
        members |= {"wait": _wait, "wait_for": _wait_for}
    return members


def _method(name: str, doc: str | None, parameters: Parameters | None) -> Callable[..., Any]:
    def method(self: Proxy, *args: Any, **kwargs: Any) -> Any:
        return self._do(CALL, name, args, kwargs or None)

    method.__name__ = name
    method.__doc__ = doc
    if parameters is not None:
        method.__wrapped__ = Told(parameters)  # type: ignore[attr-defined]  # where ``inspect`` looks for it
    return method


def _entered(name: str, doc: str | None) -> Callable[..., Any]:
    """Return a method that opens or closes with an entry that has an identity, so that an interrupt leaves none."""
    function = _ENTERED[name]

    def method(self: ObjectProxy, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = doc
    return method


def _open(self: ObjectProxy) -> None:
    cast("Remote", self._remote_).enter(block=False)


def _close(self: ObjectProxy, force: bool = False) -> None:
    cast("Remote", self._remote_).leave(block=False, force=force)


def _enter_block(self: ObjectProxy) -> ObjectProxy:
    cast("Remote", self._remote_).enter(block=True)
    return self


def _exit_block(self: ObjectProxy, *_: object) -> None:
    cast("Remote", self._remote_).leave(block=True)


_ENTERED = {"open": _open, "close": _close, "__enter__": _enter_block, "__exit__": _exit_block}
"""The methods of a proxy that open and close, each with an entry that is counted."""


def _property(name: str, doc: str | None) -> property:
    def get(self: Proxy) -> Any:
        try:
            return self._do(GET, name)
        except AttributeError as error:
            keep_missing(name, error)
            raise

    def put(self: Proxy, value: Any) -> None:
        self._do(SET, name, (value,))

    return property(get, put, doc=doc)


def _equal(self: ObjectProxy, other: object) -> Any:
    """Return whether both represent the same object; if not, what the object's own ``__eq__`` returns."""
    return ObjectProxy.__eq__(self, other) is True or self._do(CALL, "__eq__", (other,))


def _iterate(self: ObjectProxy) -> Iterator[Any]:
    return iter(self._do(CALL, "__iter__"))


def _enter_section(self: ObjectProxy) -> ObjectProxy:
    self.mutex.__enter__()
    return self


def _exit(self: ObjectProxy, kind: object, error: BaseException | None, traceback: object) -> Any:  # noqa: ARG001 - as every __exit__
    encoded = None
    if error is not None:
        from catkit_devices.multiprocessing.wire.exceptions import encode

        encoded = encode(error)
    return self._do(CALL, "__exit__", (encoded, None, None))


def _wait(self: ObjectProxy, timeout: float | None = None) -> bool:
    """Release the mutex, wait at most ``timeout`` seconds for a notification, acquire the mutex again in any case.

    Returns:
        Whether it was notified in time.

    Raises:
        MutexNotHeldError: the caller does not hold the mutex.
    """
    sections = self.mutex.underlying.opened(current_call())
    try:
        notified: bool = self._do(CALL, "wait", (timeout,))
    except (MutexNotHeldError, MutexTimeoutError, ServerError):
        raise
    except BaseException as error:
        # Ctrl-C, or the operation of which this is a part was ended: until its end the block must hold the mutex.
        try:
            acquire_again(self.mutex, sections)
        except CatkitDevicesError as failure:
            error.add_note(f"the mutex could not be acquired again: {failure}")
        raise
    return notified


def _wait_for(self: Any, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
    """Wait until ``predicate()`` is true; return its last result. It is called here, with the mutex held."""
    deadline = None if timeout is None else time.monotonic() + seconds(timeout, "what is waited for")
    while not (result := done(predicate(), "the predicate that is waited for")):
        left = None if deadline is None else deadline - time.monotonic()
        if (left is not None and left <= 0) or not self.wait(left):
            return predicate()
    return result


class Remote(_Found):
    """How one object of a server is found. If the server was started again, the object is found again by its name.

    If an owner held the object's lock when the server ended, it holds nothing any more, and may not know that yet. So
    operations of this owner are refused until it has left its sections. Other objects of the new server can be used,
    and also the same object if it is got again from the manager.
    """

    __slots__ = ("_ended", "_entered", "session")

    def __init__(self, server: Endpoint, kind: str, name: str, reference: Reference, session: ClientSession) -> None:
        super().__init__(server, kind, name, reference)
        self.session = session
        self._ended: list[tuple[ClientSession, int | None]] = []
        """The earlier sessions, and the number of the lock in each."""
        self._entered = OwnEntries()

    def connection(self, *, refuse: bool = True) -> CallConnection:
        """Return this thread's connection to the server; ``reference`` is then valid for this connection.

        Args:
            refuse: whether an owner is refused that has sections which ended with their server.

        Raises:
            MutexBrokenError: the owner has such sections.
        """
        if refuse and (self._ended or self.session.lost is not None):
            ended = self.ended_sections(current_owner())
            if ended is not None:
                raise _ended_with(ended[0], self.name)
        connection = connection_to(self.server)
        if connection.session is not self.session:
            self._find_again(connection)
        return connection

    def _find_again(self, connection: CallConnection) -> None:
        try:
            reference = connection.call(ROOT, CALL, "obtain", (self.kind, self.name, {}, None, ((), {})), None)
        except ConfigurationError:  # it does not exist on the new server, and its factory is not known here
            raise ServerUnresponsiveError(
                f"{self.kind} {self.name!r} has ended with its server: {self.session.lost}; the server of that name "
                f"that runs now (pid {connection.session.pid}) does not have it: get it again from the manager",
                server=self.server.name,
                pid=self.session.pid,
            ) from None
        # In this order: a thread that comes in between finds its earlier sections in one place or the other.
        kept = [one for one in self._ended if one[0].sections]
        self._ended = [*kept, (self.session, self.reference.lock)]
        self.reference = reference
        self.session = connection.session
        self.components = {}

    def ended_sections(self, owner: Owner) -> tuple[ClientSession, int] | None:
        """Return session and lock of an owner's sections that ended with their server and are not left yet."""
        if self.session.lost is None and not self._ended:
            return None
        for session, lock in (*self._ended, (self.session, self.reference.lock)):
            if lock is not None and session.lost is not None and session.sections_of(owner.key, lock):
                return session, lock
        return None

    def enter(self, *, block: bool) -> None:
        """Open the object, and keep it open for this process: for a `with` block, or until ``close()``."""
        connection = self.connection()
        opened = connection.session.opened.setdefault((opener(), self.reference.target), [])
        entry = new_entry(block=block)
        try:
            connection.call(self.reference.target, CALL, "_enter_entry_", (entry,), None)
            if not block:
                opened.append(entry)
            self._entered.add(entry, connection.session)
        except BaseException:
            # The server may have counted the entry before the interrupt, so it is told to remove it.
            self._entered.discard(entry)
            if entry in opened:
                opened.remove(entry)
            connection.session.say(("withdraw", self.reference.target, entry))
            raise

    def leave(self, *, block: bool, force: bool = False) -> None:
        """End the newest entry that this owner has made through this object; ``force`` ends the entries of everybody.

        If none was made through this object, ``close()`` ends the newest ``open()`` of this process.
        """
        connection = self.connection()
        opened = connection.session.opened.get((opener(), self.reference.target), [])
        found = self._entered.newest(block=block)
        if found is not None:
            entry = found.entry if found.session is connection.session else None  # None: it ended with its server
        else:
            entry = opened[-1] if opened and not block else None
        if found is not None and entry is None and not force:
            self._entered.discard(found.entry)
            return
        try:
            connection.call(self.reference.target, CALL, "_leave_entry_", (entry, force), None)
        except BaseException:
            if entry is not None:
                connection.session.say(("withdraw", self.reference.target, entry))
            raise
        finally:
            if found is not None:
                self._entered.discard(found.entry)
            if entry is not None and entry in opened:
                opened.remove(entry)


def reach(name: str, address: Address | None = None, authkey: bytes | None = None) -> Endpoint:
    """Return how a server is reached: by its name on this host, or at an address.

    Args:
        name: of the server.
        address: of a server that is reached over TCP.
        authkey: its secret. None means, for a server on this host, the key in its file, and over TCP, the key of this
            process.

    Raises:
        ServerNotFoundError: no server of that name runs here.
        AuthenticationError: the server of that name has another key.
    """
    if address is None or isinstance(address, str):
        found = endpoint(name)
        if authkey is not None and not hmac.compare_digest(found.authkey, authkey):
            raise AuthenticationError(f"the key that was given is not that of server {name!r} (pid {found.pid})")
        return found
    return Endpoint(name, address, bytes(authkey or current_process().authkey), 0)


def obtain(
    server: Endpoint,
    kind: str,
    name: str,
    parameters: dict[str, Any],
    factory: Any = None,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
) -> Remote:
    """Return the object of that kind and name on the server; it is made there now if it does not exist."""
    connection = connection_to(server)
    reference = connection.call(ROOT, CALL, "obtain", (kind, name, parameters, factory, (args, kwargs or {})), None)
    return Remote(server, kind, name, reference, connection.session)


def found_again(server_name: str, address: Address, kind: str, name: str) -> Remote:
    """Return the ``Remote`` of an object whose proxy was sent by another process.

    Raises:
        ServerError: it does not exist any more: it was forgotten, or its server has ended and another has the name.
    """
    server = reach(server_name, address)
    try:
        return obtain(server, kind, name, {})
    except ConfigurationError:
        raise ServerError(
            f"{kind} {name!r} is not on server {server_name!r} (pid {server.pid}) any more: it was forgotten there, or "
            "it ended with an earlier server of that name",
            server=server_name,
        ) from None


def hosted_here(address: Address, kind: str, name: str) -> HostedHere | None:
    """Return an object of the server in this process; None if there is no such server or object in this process."""
    if running_server and running_server[0].address == address:
        hosted: HostedHere | None = running_server[0].host.find(kind, name)
        return hosted
    return None


def mutex_of(remote: Remote) -> Mutex:
    """Return the mutex of an object on a server."""
    return Mutex.over(RemoteLock(remote), remote.reference.timeout)


class RemoteLock:
    """The client's side of a lock on a server: each call contains the identity of the section."""

    __slots__ = ("name", "remote")

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.name = remote.name

    @property
    def order(self) -> tuple[str, str, str]:
        """Its place in the order in which several locks are acquired."""
        return (str(self.remote.server.address), self.remote.kind, self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteLock) and self.order == other.order

    def __hash__(self) -> int:
        return hash(self.order)

    def acquire(self, call: Call, timeout: float, section: Section | None = None, site: str | None = None) -> None:
        """As ``OwnedLock.acquire``."""
        connection = self.remote.connection()
        target = self._target()
        section = section or new_section()
        sections, opened = connection.session.sections, (call.owner.key, target)
        connection.session.names[target] = self.name
        try:
            # Either the first line fails, and then the server has been told that there is no such section; or both
            # lines are done: no function is called between them, so Ctrl-C cannot come there.
            connection.call(target, LOCK, "acquire", (section, timeout, site), None)
            sections[section] = opened
        except CatkitDevicesError:
            raise
        except BaseException:
            if connection.doubtful:
                connection.abandon()  # interrupted when the answer had come
            raise
        if call.session.ended:  # meanwhile, and the server has given the lock to others
            sections.pop(section, None)
            raise call.session.end_error()

    def release(self, call: Call, section: Section | None = None) -> None:
        """As ``OwnedLock.release``."""
        if section is None:
            section = newest(self.opened(call))
        ended = self.remote.ended_sections(call.owner)
        if ended:
            if section is not None:
                ended[0].sections.pop(section, None)
            raise _ended_with(ended[0], self.name)
        connection = self.remote.connection()
        target = self._target()
        try:
            connection.call(target, LOCK, "release", (section,), None)
        finally:  # interrupted too: the server closes the section nevertheless, or is asked to do so again
            if section is not None:
                connection.session.sections.pop(section, None)

    def opened(self, call: Call) -> list[Section]:
        """As ``OwnedLock.opened``."""
        session, lock = self.remote.ended_sections(call.owner) or (self.remote.session, self._target())
        return session.sections_of(call.owner.key, lock)

    def holder(self) -> Holder | None:
        """As ``OwnedLock.holder``."""
        connection = self.remote.connection(refuse=False)
        holder: Holder | None = connection.call(self._target(), LOCK, "holder", (), None)
        return holder

    def waiters(self) -> list[Holder]:
        """As ``OwnedLock.waiters``."""
        connection = self.remote.connection(refuse=False)
        waiters: list[Holder] = connection.call(self._target(), LOCK, "waiters", (), None)
        return waiters

    def break_(self, reason: str) -> str | None:
        """As ``OwnedLock.break_``."""
        connection = self.remote.connection(refuse=False)
        whose: str | None = connection.call(self._target(), LOCK, "break_", (reason,), None)
        return whose

    def _target(self) -> int:
        target = self.remote.reference.lock
        if target is None:
            raise ConfigurationError(f"{self.remote.kind} {self.name!r} has no mutex")
        return target

    @property
    def found_by(self) -> tuple[Callable[..., Mutex], tuple[str, Address, str, str]]:
        """As ``OwnedLock.found_by``."""
        return mutex_found, self.remote.whereabouts()


def _ended_with(session: ClientSession, name: str) -> MutexBrokenError:
    return MutexBrokenError(name, str(session.lost))


def mutex_found(server_name: str, address: Address, kind: str, name: str, shown: str, timeout: float) -> Mutex:
    """Return the mutex that another process has sent."""
    hosted = hosted_here(address, kind, name)
    if hosted is not None and hosted.lock is not None:
        mutex = Mutex.over(hosted.lock, timeout)
    else:
        mutex = Mutex.over(RemoteLock(found_again(server_name, address, kind, name)), timeout)
    mutex.name = shown
    return mutex
