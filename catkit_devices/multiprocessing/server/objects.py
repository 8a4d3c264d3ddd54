"""The objects of a server: each with its name, its lock, and what clients may do with it."""

from __future__ import annotations

import contextlib
import itertools
import math
import secrets
import threading
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from catkit_devices._base.deferred import finished
from catkit_devices.errors import ConfigurationError, RemoteError, TransferError
from catkit_devices.multiprocessing.client.proxy import mutex_found
from catkit_devices.multiprocessing.hosted import HostedMutex, HostedObject, HostedValue
from catkit_devices.multiprocessing.locks.lock import OwnedLock
from catkit_devices.multiprocessing.locks.mutex import DEFAULT_TIMEOUT, Mutex
from catkit_devices.multiprocessing.locks.owner import current_call
from catkit_devices.multiprocessing.protocol import (
    CALL,
    DELETE,
    GET,
    HANDED_OVER,
    RESERVED,
    RETURNED,
    SELF,
    SET,
    Reference,
    running_server,
)
from catkit_devices.multiprocessing.server.deliveries import Deliveries
from catkit_devices.multiprocessing.types.conditions import Condition
from catkit_devices.multiprocessing.types.dicts import MutexedDict, MutexedNamespace
from catkit_devices.multiprocessing.types.events import Barrier, Event
from catkit_devices.multiprocessing.types.queues import Queue
from catkit_devices.multiprocessing.types.stream_memory import StreamMemory
from catkit_devices.multiprocessing.wire.shortage import shortage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from catkit_devices.multiprocessing.locks.owner import Call
    from catkit_devices.multiprocessing.protocol import Interface, Register
    from catkit_devices.multiprocessing.wire.channel import Channel

__all__ = ["MAKERS", "Host", "Hosted"]

MAKERS: dict[str, Callable[..., HostedObject]] = {
    "mutex": HostedMutex,
    "event": Event,
    "barrier": Barrier,
    "condition": Condition,
    "queue": Queue,
    "dict": lambda name, **options: MutexedDict(name=name, **options),
    "namespace": MutexedNamespace,
    "stream": StreamMemory,
}
"""How each kind of object is made that is not made by a factory of the user's.

Their waiters are withdrawn when their process ends: a killed waiter swallows no item, satisfies no barrier and consumes
no notification.
"""


class Hosted:
    """One object of a server."""

    __slots__ = ("_around", "_deliveries", "_operand", "lock", "mutex", "object", "reference")

    def __init__(
        self,
        reference: Reference,
        hosted: HostedObject,
        mutex: Mutex | None,
        lock: OwnedLock | None,
        deliveries: Deliveries,
    ) -> None:
        self.reference = reference
        self.object = hosted
        self.mutex = mutex
        self.lock = lock
        """The lock of ``mutex``."""
        self._operand = hosted._operand_()
        self._around: tuple[OwnedLock, OwnedLock] | None = None
        """The locks that the server acquires around each operation: the mutex, and the operation lock. The second keeps
        apart the operations of one owner: of several threads that act for it, or one that it has abandoned."""
        if hosted._server_locks_ and lock is not None:
            body = OwnedLock(f"{reference.name} (operation)", by_chain=True, timeout=reference.timeout)
            self._around = lock, body
        self._deliveries = deliveries

    def answer(
        self, channel: Channel, operation: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None
    ) -> bytes:
        """Carry out an operation for a client, and return the answer, packed for the channel."""
        if self._around is not None:
            mutex, body = self._around
            call = current_call()
            mutex.enter_both(body, call, self.reference.timeout, f"{self.reference.name}.{name}")
            try:
                # Packed under the lock, because the next call may change the value.
                return self._packed(channel, RETURNED, name, self._do(operation, name, args, kwargs))
            finally:
                mutex.leave_both(body, call)
        value = self._do(operation, name, args, kwargs)
        if name not in self.object._handed_over_:
            return self._packed(channel, RETURNED, name, value)
        give_back = partial(self.object._returned_, value)
        try:
            data = self._packed(channel, HANDED_OVER, name, value)
        except BaseException:
            give_back()
            raise
        self._deliveries.begin(current_call(), give_back)
        return data

    def _packed(self, channel: Channel, status: int, name: str, value: Any) -> bytes:
        try:
            return channel.pack((status, value), 1)
        except Exception as error:
            if shortage(error) is not None:
                raise
            kind, problem = type(value), f"cannot be pickled ({type(error).__name__}: {error})"
            raise TransferError(
                name, f"{kind.__module__}.{kind.__qualname__}", problem, name=self.reference.name
            ) from error

    def perform(self, operation: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        """Carry out an operation for another object of this server."""
        if self._around is None:
            return self._do(operation, name, args, kwargs)
        mutex, body = self._around
        call = current_call()
        mutex.enter_both(body, call, self.reference.timeout, f"{self.reference.name}.{name}")
        try:
            return self._do(operation, name, args, kwargs)
        finally:
            mutex.leave_both(body, call)

    def _do(self, operation: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        interface, operand, path = self.reference.interface, self._operand, name
        if interface is None:
            raise self._refusal(path, interface)
        if interface.grows and not _has(interface, name.partition(".")[0]):
            interface = self.object._when_open_()
            self.reference = self.reference._replace(interface=interface)
        if interface.parts and "." in name:  # what is done to a component is done to the object
            *before, name = name.split(".")
            operand, interface = self.object._part_(tuple(before))
        if operation == CALL:
            if name not in interface.methods:
                is_property = name in interface.properties
                problem = "is a property: read it, without calling it" if is_property else None
                raise self._refusal(path, interface, problem)
            if name == "__exit__" and args and isinstance(args[0], bytes):
                args = _exit_arguments(args[0])
            method = getattr(operand, name)
            result = method(*args, **kwargs) if kwargs else method(*args)
            return SELF if result is operand else self._whole(path, result)
        if operation in _DONE and name in interface.methods and not name.startswith("_"):
            problem = f"is a method, which can be called but not {_DONE[operation]}"
            raise self._refusal(path, interface, problem)
        if name.startswith("_") or (interface.fixed and name not in interface.properties):
            raise self._refusal(path, interface)
        if operation == GET:
            value = getattr(operand, name)
            if type(value) in _PLAIN:
                return value
            import inspect

            if inspect.isroutine(value) and not self.object._stores_values_:
                problem = "is a function, which would run without the object's mutex: make it a method of the class"
                raise self._refusal(path, interface, problem)
            return value
        if path in RESERVED:
            raise self._refusal(path, interface)
        if operation == SET:
            setattr(operand, name, args[0])
        elif operation == DELETE:
            delattr(operand, name)
        else:
            raise unknown_operation(operation)
        return None

    def _whole(self, name: str, result: Any) -> Any:
        """Return the result as it can be sent; TypeError if its values would be computed later, without the lock."""
        kind = type(result)
        if kind in _PLAIN:
            return result
        if kind in _VIEWS:
            return list(result)
        if _is_stepwise(kind):  # type: ignore[arg-type]  # mypy takes a class for something unhashable
            if name in ("__iter__", "__reversed__"):
                return list(result)
            close = getattr(result, "close", None)
            if close is not None:
                close()
            raise TypeError(
                f"{self.reference.name}.{name} returned a {kind.__name__}, whose work would be done outside of the "
                "object's mutex: return a list"
            )
        return result

    def up_to_date(self) -> Reference:
        """Return the reference, with what clients may do at present."""
        if self.reference.interface is not None and self.reference.interface.grows:
            self.reference = self.reference._replace(interface=self.object._interface_(self.reference.kind))
        return self.reference

    def users(self) -> list[str]:
        """Return who holds its mutex or waits, as texts."""
        users = self.object._waiting_()
        if self.lock is not None:
            holder = self.lock.holder()
            users += [one.owner for one in (holder, *self.lock.waiters()) if one is not None]
        return users

    def _refusal(self, name: str, interface: Interface | None, problem: str | None = None) -> AttributeError:
        """Return the error for an operation that is refused; without ``problem``, the interface has no such name."""
        if problem is not None:
            return AttributeError(f"{self.reference.kind} {self.reference.name!r}: {name!r} {problem}")
        known = sorted([*interface.methods, *interface.properties, *interface.parts]) if interface is not None else []
        return AttributeError(
            f"{self.reference.kind} {self.reference.name!r} shares no {name!r}"
            f" (it has {', '.join(one for one in known if not one.startswith('_'))})"
        )


def _has(interface: Interface, name: str) -> bool:
    return name in interface.properties or name in interface.methods or name in interface.parts


_DONE = {GET: "read", SET: "set", DELETE: "deleted"}
"""The participle of each operation on an attribute, for messages."""
_PLAIN = frozenset({bool, bytes, dict, float, int, list, str, tuple, type(None)})
"""Types whose values are sent without further checks."""


@lru_cache(maxsize=256)
def _is_stepwise(kind: type) -> bool:
    """Return whether what objects of a type contain is computed only when it is asked for."""
    return any(hasattr(kind, name) for name in ("__next__", "__await__", "__anext__"))


def _exit_arguments(encoded: bytes) -> tuple[Any, ...]:
    from catkit_devices.multiprocessing.wire.exceptions import decode

    error = decode(encoded)
    return type(error), error, error.__traceback__


_EMPTY: dict[Any, Any] = {}
"""For the types of its views, which have no names."""
_VIEWS = frozenset({type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items())})
"""Views of a dict: they cannot be pickled, and are sent as lists."""


class Host:
    """The objects of one server, by number and by kind and name."""

    def __init__(self) -> None:
        self.deliveries = Deliveries()
        self._guard = threading.RLock()
        self._making: dict[tuple[str, str], _Making] = {}
        self._names: dict[tuple[str, str], Hosted] = {}
        self._parameters: dict[tuple[str, str], dict[str, Any]] = {}
        self._numbers = itertools.count()
        self.objects: dict[int, Hosted] = {}
        self.on_timeout: Callable[[Any], None] | None = None
        self.gate: Callable[[str, str, bool], BaseException | None] | None = None
        """Asked by every device of this process before it is opened or changed, from ``changes_until`` on."""
        self.changes_until = -math.inf
        """Until when, on the monotonic clock, devices may be opened and changed without asking ``gate``."""
        self.register: Register | None = None
        """Told of every object that is made, and of every device that is opened and closed."""
        self.emergency_token: str | None = None
        """The secret with which a call of another process counts as making a device safe; None: no secret is needed."""

    def is_emergency(self, token: str) -> bool:
        """Return whether a call of another process is part of making a device safe.

        Args:
            token: sent by the other process with the call.
        """
        return self.emergency_token is None or secrets.compare_digest(token, self.emergency_token)

    def everything(self) -> list[Hosted]:
        """Return every object, in the order in which they were made."""
        with self._guard:
            return list(self._names.values())

    def find(self, kind: str, name: str) -> Hosted | None:
        """Return the object of that kind and name, if there is one."""
        return self._names.get((kind, name))

    def obtain(
        self, kind: str, name: str, parameters: dict[str, Any], factory: Any = None, args: Any = ((), {})
    ) -> Reference:
        """Return the object of that name; it is made now if it does not exist.

        Raises:
            ConfigurationError: it was made with other parameters (both are shown), it does not exist and ``factory``
                was left out, or its factory asks for the object itself.
            DeadlockError: its factory waits for an object whose factory waits for this one.
            MutexTimeoutError: another client has been making it for a minute.
        """
        if not name or not isinstance(name, str):
            raise ConfigurationError(f"{kind}: its name must be a text that is not empty, got {name!r}")
        key = (kind, name)
        call = current_call()
        hosted = self._names.get(key)
        if hosted is None:
            with self._one_at_a_time(key, call) as making:
                hosted = self._names.get(key)
                if hosted is None:
                    making.chain = call.chain
                    try:
                        return self._make(kind, name, parameters, factory, args).reference
                    finally:
                        making.chain = None
        self._compare(hosted, parameters)
        return hosted.up_to_date()

    @contextlib.contextmanager
    def _one_at_a_time(self, key: tuple[str, str], call: Call) -> Iterator[_Making]:
        what = f"the making of {key[0]} {key[1]!r}"
        with self._guard:
            making = self._making.setdefault(key, _Making(what))
            if making.chain == call.chain:
                raise ConfigurationError(f"making {key[0]} {key[1]!r} asks for {key[0]} {key[1]!r} itself")
            making.users += 1
        try:
            # An OwnedLock, so that a deadlock is noticed if two factories wait for each other's objects.
            making.lock.enter(call, DEFAULT_TIMEOUT, what)
            try:
                yield making
            finally:
                making.lock.leave(call)
        finally:
            with self._guard:
                making.users -= 1
                if making.users == 0:
                    del self._making[key]

    def forget(self, kind: str, name: str, target: int) -> bool:
        """Remove an object and free its name; return whether the name was still that object's.

        The object is closed as when the server ends.

        Raises:
            ConfigurationError: its mutex is held, or a client waits for it.
        """
        with self._guard:
            hosted = self._names.get((kind, name))
            if hosted is None or hosted.reference.target != target:
                return False
            users = hosted.users()
            if users:
                raise ConfigurationError(f"{kind} {name!r} cannot be forgotten, it is in use: {', '.join(users)}")
            del self._names[kind, name], self._parameters[kind, name]
            for number in (hosted.reference.target, hosted.reference.target + 1):
                del self.objects[number]
        hosted.object._server_stops_()
        return True

    def _make(self, kind: str, name: str, parameters: dict[str, Any], factory: Any, args: Any) -> Hosted:
        value: HostedObject
        if kind in MAKERS:
            value = MAKERS[kind](name, **_given(parameters))
        elif factory is None:
            existing = ", ".join(sorted(other for other_kind, other in self._names if other_kind == kind)) or "none"
            raise ConfigurationError(f"there is no {kind} named {name!r} on this server (there are: {existing})")
        else:
            made = finished(factory(*args[0], **args[1]), f"the factory of {kind} {name!r}")
            value = made if isinstance(made, HostedObject) else HostedValue(made)
            if self.register is not None:
                self.register._made_(value, factory, args)
        interface = value._interface_(kind)
        mutex = value._mutex_
        if value._server_locks_ and (mutex is None or not isinstance(mutex.underlying, OwnedLock)):
            mutex = Mutex(name)  # one of another server cannot be acquired around each operation of this one
        lock = mutex.underlying if mutex is not None and isinstance(mutex.underlying, OwnedLock) else None
        if lock is not None:
            lock.on_timeout = self.on_timeout
            if running_server:
                lock.found_by = mutex_found, (running_server[0].name, running_server[0].address, kind, name)
        target = 2 * next(self._numbers)
        timeout = DEFAULT_TIMEOUT if mutex is None else mutex.timeout
        reference = Reference(target, None if lock is None else target + 1, kind, name, timeout, interface)
        hosted = Hosted(reference, value, mutex, lock, self.deliveries)
        value._hosted_as_(reference)
        with self._guard:  # from here on others find it
            self.objects[target] = self.objects[target + 1] = hosted
            self._names[kind, name] = hosted
            self._parameters[kind, name] = {**_DEFAULTS, **_given(parameters)}
        return hosted

    def _compare(self, hosted: Hosted, parameters: dict[str, Any]) -> None:
        kind, name = hosted.reference.kind, hosted.reference.name
        had = self._parameters[kind, name]
        for parameter, value in _given(parameters).items():
            if not _same(had.get(parameter), value):
                raise ConfigurationError(
                    f"{kind} {name!r} exists with {parameter}={had.get(parameter)!r}"
                    f" and was asked for with {parameter}={value!r}"
                )


class _Making:
    """One object that is being made: by one client at a time, and never again while its own factory runs."""

    __slots__ = ("chain", "lock", "users")

    def __init__(self, what: str) -> None:
        self.chain: object = None
        self.users = 0
        self.lock = OwnedLock(what, by_chain=True)


def _same(had: Any, asked: Any) -> bool:
    # A function that was sent by value is a new object each time.
    code = getattr(had, "__code__", None)
    return bool(had == asked) or (code is not None and code == getattr(asked, "__code__", None))


_DEFAULTS = {"timeout": DEFAULT_TIMEOUT, "maxsize": 0}
"""The parameters that were not given."""


def _given(parameters: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in parameters.items() if value is not None}
    if "lock" in given:
        lock = given["lock"]
        given["lock"] = lock if isinstance(lock, Mutex) else lock.mutex
    return given


def unknown_target(target: int) -> RemoteError:
    """Return the error for a target that this server never had."""
    return RemoteError("LookupError", f"this server has no object number {target}: it may have been forgotten")


def unknown_operation(operation: object) -> RemoteError:
    """Return the error for an operation that does not exist."""
    return RemoteError("LookupError", f"there is no operation {operation!r}")
