"""What clients hold: a stand-in for an object on a server.

A proxy's class is generated from what the server tells of the object, so a client needs none of its code. A proxy
travels as its server's name, its kind and its own name.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, cast

from catkit_devices._base.deferred import finished
from catkit_devices.errors import CatkitDevicesError, MutexNotHeldError, MutexTimeoutError, ServerError, TransferError
from catkit_devices.multiprocessing.client.remote import Remote, RemoteLock, found_again, hosted_here, mutex_of
from catkit_devices.multiprocessing.locks.mutex import Mutex, acquire_again, exit_section
from catkit_devices.multiprocessing.locks.owner import current_call
from catkit_devices.multiprocessing.protocol import CALL, DELETE, GET, SELF, SET, SPECIAL, running_server
from catkit_devices.multiprocessing.wire.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from catkit_devices.multiprocessing.protocol import HostedHere, Interface, Reference
    from catkit_devices.multiprocessing.wire.endpoint import Address

__all__ = ["ObjectProxy", "hosted_reference", "proxy_found", "proxy_of", "remote_of"]


class ObjectProxy:
    """Stands for an object on a server; one round trip per operation, under that object's mutex.

    ``proxy.mutex`` is the object's mutex, ``with proxy.lock():`` keeps it over several operations. A proxy can be sent
    to other processes.
    """

    __slots__ = ("_mutex", "_remote_")
    _remote_: Remote | _Here
    _mutex: Mutex | None
    _interface: Interface

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

    def _do(self, operation: int, name: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        remote = self._remote_
        connection = remote.connection()
        try:
            result = connection.call(remote.reference.target, operation, name, args, kwargs)
        except TransferError as error:
            if error.name is not None:
                raise
            raise TransferError(error.operation, error.kind, error.problem, name=remote.name) from error.__cause__
        return self if result is SELF else result

    def _callmethod(self, methodname: str, args: tuple[Any, ...] = (), kwds: dict[str, Any] | None = None) -> Any:
        """As ``multiprocessing.managers.BaseProxy._callmethod``, for code that was written for it."""
        if methodname not in self._interface.methods:
            from multiprocessing.managers import RemoteError

            raise RemoteError(f"{self!r} shares no method {methodname!r}")
        return self._do(CALL, methodname, tuple(args), kwds)

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
        member = getattr(type(self), name, None)
        if member is not None and not isinstance(member, property):
            raise AttributeError(f"{name!r} of {self._remote_.kind} {self._remote_.name!r} is not to be set")
        self._do(SET, name, (value,))

    def __delattr__(self, name: str) -> None:
        self._do(DELETE, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._interface.methods, *self._interface.properties})

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

    __slots__ = ("_hosted", "kind", "name", "reference", "server")
    session = None
    """Of its connection with the server: none."""

    def __init__(self, hosted: HostedHere, server: Endpoint) -> None:
        self._hosted = hosted
        self.reference = hosted.reference
        self.kind = hosted.reference.kind
        self.name = hosted.reference.name
        self.server = server

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
    cls = _class_for(interface)
    proxy = cls.__new__(cls)
    object.__setattr__(proxy, "_remote_", remote)
    object.__setattr__(proxy, "_mutex", mutex)
    return proxy


_missing = threading.local()
_classes: dict[tuple[Any, ...], type[ObjectProxy]] = {}


def _class_for(interface: Interface) -> type[ObjectProxy]:
    key = (*interface[:2], tuple(interface.methods), tuple(interface.properties), *interface[4:])
    cls = _classes.get(key)
    if cls is None:
        cls = _classes[key] = _make_class(interface)
    return cls


def _make_class(interface: Interface) -> type[ObjectProxy]:
    members: dict[str, Any] = {"__slots__": (), "_interface": interface, "__doc__": f"Proxy of a {interface.name}."}
    for name, doc in interface.methods.items():
        if name in SPECIAL or not (name.startswith("_") or name in vars(ObjectProxy)):
            members[name] = _method(name, doc)
    for name, doc in interface.properties.items():
        if name not in vars(ObjectProxy):
            members[name] = _property(name, doc)
    if "__eq__" in members:
        members["__eq__"], members["__hash__"] = _equal, ObjectProxy.__hash__
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
    return type(f"{interface.name}Proxy", (ObjectProxy,), members)


def _method(name: str, doc: str | None) -> Callable[..., Any]:
    def method(self: ObjectProxy, *args: Any, **kwargs: Any) -> Any:
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
    def get(self: ObjectProxy) -> Any:
        try:
            return self._do(GET, name)
        except AttributeError as error:
            _missing.last = (name, error)  # Python asks __getattr__ next: that must not ask the server a second time
            raise

    def put(self: ObjectProxy, value: Any) -> None:
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
    deadline = None if timeout is None else time.monotonic() + timeout
    while not (result := finished(predicate(), "the predicate that is waited for")):
        left = None if deadline is None else deadline - time.monotonic()
        if (left is not None and left <= 0) or not self.wait(left):
            return predicate()
    return result
