"""What clients hold: a stand-in for an object on a server, and where that object and its lock are.

A proxy's class is generated from what the server tells of the object, so a client needs none of its code. A proxy
travels as its server's name, its kind and its own name.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Mapping
from multiprocessing import AuthenticationError, current_process
from typing import TYPE_CHECKING, Any, cast

from catkit_devices._base.deferred import finished
from catkit_devices._base.paths import item, reached
from catkit_devices._base.timeouts import seconds
from catkit_devices.errors import (
    CatkitDevicesError,
    ComponentNotFoundError,
    ConfigurationError,
    MutexBrokenError,
    MutexNotHeldError,
    MutexTimeoutError,
    ServerError,
    ServerUnresponsiveError,
    TransferError,
)
from catkit_devices.multiprocessing.client.calls import connection_to
from catkit_devices.multiprocessing.locks.entries import OwnEntries, new_entry
from catkit_devices.multiprocessing.locks.mutex import Mutex, acquire_again, exit_section
from catkit_devices.multiprocessing.locks.owner import current_call, current_owner
from catkit_devices.multiprocessing.protocol import (
    CALL,
    DELETE,
    GET,
    LOCK,
    RESERVED,
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
    from catkit_devices.multiprocessing.locks.lock import Holder
    from catkit_devices.multiprocessing.locks.owner import Call, Owner
    from catkit_devices.multiprocessing.protocol import HostedHere, Interface, PartInterface, Reference
    from catkit_devices.multiprocessing.wire.endpoint import Address

    Key = int | str
    """What a component is found by among several."""

__all__ = ["ObjectProxy", "hosted_reference", "mutex_found", "obtain", "proxy_found", "proxy_of", "reach", "remote_of"]


class _Proxy:
    """What the proxies of objects and of components have in common: generated members, and all else refused."""

    __slots__ = ()
    _interface: Interface

    def _do(self, operation: int, name: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Have the server do something to what this stands for."""
        result = self._ask_(operation, name, args, kwargs)
        return self if result is SELF else result

    def _ask_(self, operation: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        raise NotImplementedError

    def _called_(self) -> str:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        asked, raised = vars(_missing).pop("last", (None, None))
        if asked == name:
            raise raised
        return self._do(GET, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} takes no attribute {name!r}")
        if name in self._interface.parts:
            raise AttributeError(f"{name!r} of {self._called_()} is a component, or several: it cannot be replaced")
        member = getattr(type(self), name, None)
        if member is not None and not isinstance(member, property):
            raise AttributeError(f"{name!r} of {self._called_()} is not to be set")
        self._do(SET, name, (value,))

    def __delattr__(self, name: str) -> None:
        self._do(DELETE, name)

    def __dir__(self) -> list[str]:
        interface = self._interface
        return sorted({*super().__dir__(), *interface.methods, *interface.properties, *interface.parts})


class ObjectProxy(_Proxy):
    """Stands for an object on a server; one round trip per operation, under that object's mutex.

    ``proxy.mutex`` is the object's mutex, ``with proxy.lock():`` keeps it over several operations. A proxy can be sent
    to other processes.
    """

    __slots__ = ("_mutex", "_remote_")
    _remote_: Remote | _Here
    _mutex: Mutex | None

    @property
    def mutex(self) -> Mutex:
        """The object's mutex."""
        if self._mutex is None and isinstance(self._remote_, Remote):
            object.__setattr__(self, "_mutex", mutex_of(self._remote_))
        return cast("Mutex", self._mutex)

    def lock(self, timeout: float | None = None) -> Any:
        """Keep the object to oneself during a block: ``with proxy.lock():``."""
        from catkit_devices.multiprocessing.locks.mutex import lock_all

        return lock_all(self.mutex, timeout=timeout)

    def acquire(self, timeout: float | None = None, raise_on_fail: bool = True) -> bool:
        """Keep the object to oneself until ``release``; as ``Mutex.acquire``."""
        return self.mutex.acquire(timeout, raise_on_fail)

    def release(self) -> None:
        """End what ``acquire`` began; as ``Mutex.release``."""
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

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return proxy_found, self._remote_.whereabouts()


class ComponentProxy(_Proxy):
    """Stands for a component of an object on a server. Each operation is one of that object, under its mutex."""

    __slots__ = ("_key", "_path_", "_proxy_", "_where_")
    _proxy_: ObjectProxy
    _key: Key
    _path_: str
    """As people write it: ``outputs[1]``."""
    _where_: str
    """As the server is told: ``outputs.1``."""

    @property
    def device(self) -> ObjectProxy:
        """The device that it is part of."""
        return self._proxy_

    @property
    def key(self) -> Key:
        """What it is found by among the components of its kind."""
        return self._key

    def _ask_(self, operation: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        try:
            return self._proxy_._ask_(operation, f"{self._where_}.{name}", args, kwargs)
        except AttributeError:
            self._proxy_._remote_.components.clear()  # another component may be there by now: to be asked for anew
            raise

    def _called_(self) -> str:
        return f"{self._proxy_._called_()}, {self._path_}"

    def __getattr__(self, name: str) -> Any:
        if name in RESERVED:
            raise AttributeError(f"{self!r} has no attribute {name!r}: it has the mutex of its device")
        return super().__getattr__(name)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ComponentProxy):
            return (self._proxy_, self._where_) == (other._proxy_, other._where_)
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self._proxy_, self._where_))

    def __repr__(self) -> str:
        remote = self._proxy_._remote_
        return f"<{self._interface.name} '{remote.name}.{self._path_}' on server {remote.server.name!r}>"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return reached, (self._proxy_, tuple(self._where_.split(".")))


class ComponentsProxy(Mapping["Key", ComponentProxy]):
    """Stands for several components of an object on a server, by key.

    Which there are may depend on the instrument. Then the server is asked: for one of them once, and each time that all
    are asked for.
    """

    __slots__ = ("_owner", "_part", "_path_", "_where_")

    def __init__(self, owner: ObjectProxy | ComponentProxy, name: str, part: PartInterface) -> None:
        at, where = (f"{owner._path_}.", f"{owner._where_}.") if isinstance(owner, ComponentProxy) else ("", "")
        self._owner = owner
        self._part = part
        self._path_ = f"{at}{name}"
        self._where_ = f"{where}{name}"

    @property
    def _proxy_(self) -> ObjectProxy:
        return self._owner._proxy_ if isinstance(self._owner, ComponentProxy) else self._owner

    def _there(self) -> Mapping[Key, Interface]:
        if self._part.there is not None:
            return self._part.there
        there: Mapping[Key, Interface] = self._proxy_._ask_(CALL, "_there_", (self._where_,), None)
        self._proxy_._remote_.components[self._where_] = there
        return there

    def _component(self, key: Key, interface: Interface) -> ComponentProxy:
        component: ComponentProxy = _new(interface)
        single = self._part.single
        for name, value in (
            ("_proxy_", self._proxy_),
            ("_key", key),
            ("_path_", self._path_ if single else item(self._path_, key)),
            ("_where_", self._where_ if single else f"{self._where_}.{key}"),
        ):
            object.__setattr__(component, name, value)
        return component

    def __getitem__(self, key: Key) -> ComponentProxy:
        known = self._proxy_._remote_.components.get(self._where_, {}) if self._part.there is None else self._part.there
        try:
            if key not in known:
                known = self._there()
            return self._component(key, known[key])
        except (KeyError, TypeError):  # TypeError: nothing that can be a key
            raise self._absent(repr(key), known) from None

    def _by_word_(self, word: str) -> ComponentProxy:
        known = self._there()
        for key in known:
            if str(key) == word:
                return self[key]
        raise self._absent(word, known)

    def _only_(self) -> ComponentProxy:
        """Return the component of a part that is a single one."""
        known = self._proxy_._remote_.components.get(self._where_) or self._there()
        for key, interface in known.items():
            return self._component(key, interface)
        problem = f"there is no {self._path_}: the instrument does not have it"
        raise ComponentNotFoundError(problem, device=self._proxy_._remote_.name)

    def _absent(self, key: str, known: Mapping[Key, Interface]) -> ComponentNotFoundError:
        there = ", ".join(map(repr, known)) or "none"
        problem = f"there is no {self._path_}[{key}], there are {there}"
        return ComponentNotFoundError(problem, device=self._proxy_._remote_.name)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._there())

    def __len__(self) -> int:
        return len(self._there())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ComponentsProxy):
            return (self._proxy_, self._where_) == (other._proxy_, other._where_)
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self._proxy_, self._where_))

    def __repr__(self) -> str:
        return f"<{self._path_} of {self._proxy_!r}>"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return reached, (self._proxy_, tuple(self._where_.split(".")))


def proxy_of(remote: Remote) -> Any:
    """Return a proxy of the object; on the server that has it, the object itself."""
    hosted = hosted_here(remote.server.address, remote.kind, remote.name)
    if hosted is not None:
        return _local(hosted, remote.server.name)
    interface = remote.reference.interface
    return mutex_of(remote) if interface is None else _make_proxy(remote, interface, None)


def remote_of(shared: Any) -> Remote | _Here | None:
    """Return where an object of a server is, by its proxy or mutex; None for what is none of a server's."""
    if isinstance(shared, ObjectProxy):
        return shared._remote_
    if isinstance(shared, Mutex) and isinstance(shared.underlying, RemoteLock):
        return shared.underlying.remote
    return None


def proxy_found(server_name: str, address: Address, kind: str, name: str) -> Any:
    """Return the object, or the proxy, that a proxy was when it was sent to this process."""
    hosted = hosted_here(address, kind, name)
    if hosted is not None:
        return _local(hosted, server_name)
    return proxy_of(found_again(server_name, address, kind, name))


def hosted_reference(reference: Reference) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return what an object of this server is pickled as: where a proxy of it is to be had."""
    server = running_server[0]
    return proxy_found, (server.name, server.address, reference.kind, reference.name)


def _local(hosted: HostedHere, server_name: str) -> Any:
    """Return an object of this server for use by another one of it: itself, or a proxy that needs no connection."""
    interface = hosted.reference.interface
    if interface is None:
        return hosted.mutex
    if hosted.object._direct_:
        return hosted.object
    server = running_server[0]
    here = _Here(hosted, Endpoint(server_name, server.address, bytes(server.authkey), 0))
    return _make_proxy(here, interface, hosted.mutex)


class _Here:
    """In the place of a ``Remote`` for an object of this very server: its calls take its lock, and no connection."""

    __slots__ = ("_hosted", "components", "kind", "name", "reference", "server")
    session = None
    """Of its connection with the server: none."""

    def __init__(self, hosted: HostedHere, server: Endpoint) -> None:
        self._hosted = hosted
        self.reference = hosted.reference
        self.kind = hosted.reference.kind
        self.name = hosted.reference.name
        self.server = server
        self.components: dict[str, Mapping[Key, Interface]] = {}

    def connection(self) -> _Here:
        """Return itself: there is no connection."""
        return self

    def call(self, target: int, operation: int, name: str, args: tuple[Any, ...], kwargs: Any) -> Any:  # noqa: ARG002 - as ``CallConnection.call``
        """As ``CallConnection.call``."""
        return self._hosted.perform(operation, name, args, kwargs)

    def whereabouts(self) -> tuple[str, Address, str, str]:
        """As ``Remote.whereabouts``."""
        return self.server.name, self.server.address, self.kind, self.name


def _make_proxy(remote: Remote | _Here, interface: Interface, mutex: Mutex | None) -> ObjectProxy:
    proxy: ObjectProxy = _new(interface)
    object.__setattr__(proxy, "_remote_", remote)
    object.__setattr__(proxy, "_mutex", mutex)
    return proxy


_missing = threading.local()
_classes: dict[tuple[Any, ...], Any] = {}


def _new(interface: Interface) -> Any:
    """Return a proxy that does not know yet what it stands for."""
    key = _identity(interface)
    cls: Any = _classes.get(key)
    if cls is None:
        cls = _classes[key] = _make_class(interface)
    return cls.__new__(cls)


def _identity(interface: Interface) -> tuple[Any, ...]:
    """Return what is equal for interfaces whose proxies have the same class."""
    parts = tuple(
        (name, part.single, part.kind, tuple((key, _identity(one)) for key, one in (part.there or {}).items()))
        for name, part in interface.parts.items()
    )
    return (*interface[:2], tuple(interface.methods), tuple(interface.properties), *interface[4:-1], parts)


def _make_class(interface: Interface) -> type[Any]:
    base = ComponentProxy if interface.kind == "component" else ObjectProxy
    members: dict[str, Any] = {"__slots__": (), "_interface": interface, "__doc__": f"Proxy of a {interface.name}."}
    for name, doc in interface.methods.items():
        if name in SPECIAL or not (name.startswith("_") or name in vars(base)):
            members[name] = _method(name, doc)
    for name, doc in interface.properties.items():
        if name not in vars(base):
            members[name] = _property(name, doc)
    for name, part in interface.parts.items():
        members[name] = _components(name, part)
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
    return type(f"{interface.name}Proxy", (base,), members)


def _components(name: str, part: PartInterface) -> property:
    def get(self: Any) -> ComponentProxy | ComponentsProxy:
        components = ComponentsProxy(self, name, part)
        if not part.single:
            return components
        try:
            return components._only_()
        except AttributeError as error:
            _missing.last = (name, error)
            raise

    return property(get, doc=f"{part.kind}: {'a component' if part.single else 'components, by key'}.")


def _method(name: str, doc: str | None) -> Callable[..., Any]:
    def method(self: _Proxy, *args: Any, **kwargs: Any) -> Any:
        return self._do(CALL, name, args, kwargs or None)

    method.__name__ = name
    method.__doc__ = doc
    return method


def _entered(name: str, doc: str | None) -> Callable[..., Any]:
    """Return a method that opens or closes: what it counts has an identity, so that an interrupt leaves no count."""
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


def _property(name: str, doc: str | None) -> property:
    def get(self: _Proxy) -> Any:
        try:
            return self._do(GET, name)
        except AttributeError as error:
            _missing.last = (name, error)  # Python asks __getattr__ next: that must not ask the server a second time
            raise

    def put(self: _Proxy, value: Any) -> None:
        self._do(SET, name, (value,))

    return property(get, put, doc=doc)


def _equal(self: ObjectProxy, other: object) -> Any:
    """Return whether both stand for one object, else whether the object says that it equals the other."""
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
    """Give the mutex back, wait to be notified at most ``timeout`` seconds, take the mutex again, whatever comes.

    Returns:
        Whether it was notified in time.

    Raises:
        MutexNotHeldError: the caller does not hold the mutex.
    """
    depth = self.mutex.underlying.depth(current_call())
    try:
        notified: bool = self._do(CALL, "wait", (timeout,))
    except (MutexNotHeldError, MutexTimeoutError, ServerError):
        raise
    except BaseException as error:
        # Ctrl-C, or the end of the operation that this is part of: the block goes on with the mutex until it is left.
        try:
            acquire_again(self.mutex, depth)
        except CatkitDevicesError as failure:
            error.add_note(f"the mutex is not held again: {failure}")
        raise
    return notified


def _wait_for(self: Any, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
    """Wait until ``predicate()``, asked here and with the mutex held, is true; return what it returned last."""
    deadline = None if timeout is None else time.monotonic() + seconds(timeout, "what is waited for")
    while not (result := finished(predicate(), "the predicate that is waited for")):
        left = None if deadline is None else deadline - time.monotonic()
        if (left is not None and left <= 0) or not self.wait(left):
            return predicate()
    return result


class Remote:
    """Where one object of a server is, found anew by its name when the server was started anew.

    An owner that was in sections of its lock when the server ended holds nothing any more, and may not know that yet:
    that owner is refused until the sections are left. All else of the new server is free to use, and so is the same
    object where it is got anew.
    """

    __slots__ = ("_ended", "_entered", "components", "kind", "name", "reference", "server", "session")

    def __init__(self, server: Endpoint, kind: str, name: str, reference: Reference, session: ClientSession) -> None:
        self.server = server
        self.kind = kind
        self.name = name
        self.reference = reference
        self.session = session
        self._ended: list[tuple[ClientSession, int | None]] = []
        """The sessions of before, and the number of its lock in each."""
        self._entered = OwnEntries()
        self.components: dict[str, Mapping[Key, Interface]] = {}
        """Which components there are, of those that depend on the instrument, when the server was asked last."""

    def connection(self, *, refuse: bool = True) -> CallConnection:
        """Return this thread's connection to the server, with ``reference`` right for it.

        Args:
            refuse: whether an owner with sections that have ended with their server is refused.

        Raises:
            MutexBrokenError: it is.
        """
        if refuse and (self._ended or self.session.lost is not None):
            ended = self.ended_sections(current_owner())
            if ended is not None:
                raise _ended_with(ended, self.name)
        connection = connection_to(self.server)
        if connection.session is not self.session:
            self._find_again(connection)
        return connection

    def _find_again(self, connection: CallConnection) -> None:
        try:
            reference = connection.call(ROOT, CALL, "obtain", (self.kind, self.name, {}, None, ((), {})), None)
        except ConfigurationError:  # nobody has made it there, and only whoever knows how could
            raise ServerUnresponsiveError(
                f"{self.kind} {self.name!r} has ended with its server: {self.session.lost}; the server of that name "
                f"that runs now (pid {connection.session.pid}) has none: get it anew",
                server=self.server.name,
                pid=self.session.pid,
            ) from None
        # In this order: another thread that comes in between finds its sections of before in one place or the other.
        kept = [one for one in self._ended if one[0].sections]
        self._ended = [*kept, (self.session, self.reference.lock)]
        self.reference = reference
        self.session = connection.session
        self.components = {}

    def ended_sections(self, owner: Owner) -> tuple[ClientSession, int] | None:
        """Return where an owner has sections of its lock, not yet left, that ended with their server."""
        if self.session.lost is None and not self._ended:
            return None
        for session, lock in (*self._ended, (self.session, self.reference.lock)):
            if lock is not None and session.lost is not None and lock in session.sections.get(owner.key, ()):
                return session, lock
        return None

    def enter(self, *, block: bool) -> None:
        """Have the object opened, and kept open for a `with` block or until ``close()``, for this process."""
        connection = self.connection()
        opened = connection.session.opened.setdefault(self.reference.target, [])
        entry = new_entry(block=block)
        try:
            connection.call(self.reference.target, CALL, "_enter_entry_", (entry,), None)
            if not block:
                opened.append(entry)
            self._entered.add(entry, connection.session)
        except BaseException:
            # Interrupted after the server counted it, perhaps: what it thinks must be what this side says.
            self._entered.discard(entry)
            if entry in opened:
                opened.remove(entry)
            connection.session.say(("withdraw", self.reference.target, entry))
            raise

    def leave(self, *, block: bool, force: bool = False) -> None:
        """End what the newest ``enter`` of this owner began over this object; force ends everybody's.

        Where this object has none, a ``close()`` ends the newest ``open()`` of this process over another one.
        """
        connection = self.connection()
        opened = connection.session.opened.get(self.reference.target, [])
        found = self._entered.newest(block=block)
        if found is not None:
            entry = found.entry if found.session is connection.session else None  # else it has ended with its server
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

    def whereabouts(self) -> tuple[str, Address, str, str]:
        """Return what it is found by in any process: the server's name and address, and its own kind and name."""
        return self.server.name, self.server.address, self.kind, self.name


def reach(name: str, address: Address | None = None, authkey: bytes | None = None) -> Endpoint:
    """Return how a server is reached: by its name on this host, or at an address.

    Args:
        name: of the server.
        address: of a server that is reached over TCP.
        authkey: its secret; None for the one that a server on this host has left for its user, and over TCP for
            this process's.

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
    """Return the one object of that kind and name on the server, made there now if it is not there."""
    connection = connection_to(server)
    reference = connection.call(ROOT, CALL, "obtain", (kind, name, parameters, factory, (args, kwargs or {})), None)
    return Remote(server, kind, name, reference, connection.session)


def found_again(server_name: str, address: Address, kind: str, name: str) -> Remote:
    """Return where an object is that another process had.

    Raises:
        ServerError: it is not there: its server has ended, and another one has the name, or somebody has forgotten it.
    """
    server = reach(server_name, address)
    try:
        return obtain(server, kind, name, {})
    except ConfigurationError:
        raise ServerError(
            f"{kind} {name!r} is not on server {server_name!r} (pid {server.pid}) any more: it was forgotten there, or "
            "has ended with an earlier server of that name",
            server=server_name,
        ) from None


def hosted_here(address: Address, kind: str, name: str) -> HostedHere | None:
    """Return an object of the server that this process is."""
    if running_server and running_server[0].address == address:
        hosted: HostedHere | None = running_server[0].host.find(kind, name)
        return hosted
    return None


def mutex_of(remote: Remote) -> Mutex:
    """Return the mutex of an object on a server."""
    return Mutex.over(RemoteLock(remote), remote.reference.timeout)


class RemoteLock:
    """The client's side of a lock on a server: says on each call how many sections its owner then has."""

    __slots__ = ("name", "remote")

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.name = remote.name

    @property
    def order(self) -> tuple[str, str, str]:
        """Where it stands in the one order in which several are acquired."""
        return (str(self.remote.server.address), self.remote.kind, self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteLock) and self.order == other.order

    def __hash__(self) -> int:
        return hash(self.order)

    def acquire(self, call: Call, timeout: float, depth: int | None = None, site: str | None = None) -> None:
        """As ``OwnedLock.acquire``."""
        connection = self.remote.connection()
        target = self._target()
        sections = connection.session.sections.setdefault(call.owner.key, {})
        if depth is None:
            depth = sections.get(target, 0) + 1
        connection.session.names[target] = self.name
        try:
            # Either of the two lines fails, and then the server has been told that there is no such section, or both
            # are done: nothing is called between them, and Ctrl-C comes on calls.
            connection.call(target, LOCK, "acquire", (timeout, depth, site), None)
            sections[target] = depth
        except BaseException:
            if not sections:
                connection.session.sections.pop(call.owner.key, None)
            raise

    def release(self, call: Call, depth: int | None = None) -> None:
        """As ``OwnedLock.release``."""
        if depth is None:
            depth = self.depth(call) - 1
        ended = self.remote.ended_sections(call.owner)
        if ended is not None:
            session, lock = ended
            _leave(session, call, lock, depth)
            raise _ended_with(ended, self.name)
        connection = self.remote.connection()
        target = self._target()
        try:
            _leave(connection.session, call, target, depth)
            connection.call(target, LOCK, "release", (max(depth, 0),), None)
        except CatkitDevicesError:
            raise
        except BaseException:
            connection.abandon()  # interrupted, perhaps before the server was told
            raise

    def depth(self, call: Call) -> int:
        """As ``OwnedLock.depth``."""
        session, lock = self.remote.ended_sections(call.owner) or (self.remote.session, self._target())
        return session.sections.get(call.owner.key, {}).get(lock, 0)

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


def _ended_with(ended: tuple[ClientSession, int], name: str) -> MutexBrokenError:
    return MutexBrokenError(name, f"the server that kept it is lost ({ended[0].lost})")


def _leave(session: ClientSession, call: Call, target: int, depth: int) -> None:
    """Note that an owner has so many sections on a lock from now on."""
    held = session.sections.get(call.owner.key, {})
    if depth > 0:
        held[target] = depth
    else:
        held.pop(target, None)
    if not held:
        session.sections.pop(call.owner.key, None)


def mutex_found(server_name: str, address: Address, kind: str, name: str, shown: str, timeout: float) -> Mutex:
    """Return the mutex that another process has sent."""
    hosted = hosted_here(address, kind, name)
    if hosted is not None and hosted.lock is not None:
        mutex = Mutex.over(hosted.lock, timeout)
    else:
        mutex = Mutex.over(RemoteLock(found_again(server_name, address, kind, name)), timeout)
    mutex.name = shown
    return mutex
