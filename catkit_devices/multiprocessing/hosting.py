"""What a server keeps: named objects, each with its lock, and what of it clients may reach."""

from __future__ import annotations

import inspect
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices.errors import ConfigurationError, RemoteError
from catkit_devices.multiprocessing.locks import OwnedLock
from catkit_devices.multiprocessing.mutex import DEFAULT_TIMEOUT, Mutex
from catkit_devices.multiprocessing.owner import current_call

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CALL", "GET", "LOCK", "SET", "Host", "Hosted", "Interface", "Reference"]

CALL, GET, SET, LOCK = range(4)
"""The operations of the channel: call a method, get or set an attribute, act on the lock."""

SPECIAL = frozenset(
    {
        "__add__",
        "__bool__",
        "__call__",
        "__contains__",
        "__delitem__",
        "__enter__",
        "__eq__",
        "__exit__",
        "__getitem__",
        "__iadd__",
        "__ior__",
        "__isub__",
        "__iter__",
        "__len__",
        "__or__",
        "__reversed__",
        "__ror__",
        "__setitem__",
        "__sub__",
    }
)
"""The special methods that are passed on where a class of the user's defines them."""


class Interface(NamedTuple):
    """What clients may do with an object, as told to them."""

    kind: str
    name: str
    methods: dict[str, str | None]
    """Docstrings by name."""
    properties: dict[str, str | None]
    fixed: bool
    """Whether other attributes do not exist (devices)."""
    section: bool
    """Whether `with` on it means holding its lock."""
    capabilities: tuple[str, ...]
    """Names of the capability interfaces that its class implements."""


class Reference(NamedTuple):
    """Where an object is found: what a proxy is made from."""

    target: int
    lock: int | None
    kind: str
    name: str
    timeout: float
    interface: Interface | None


class Hosted:
    """One object of a server."""

    __slots__ = ("lock", "mutex", "object", "reference", "wrapped")

    def __init__(self, reference: Reference, value: Any, lock: OwnedLock | None, *, wrapped: bool) -> None:
        self.reference = reference
        self.object = value
        self.lock = lock
        self.wrapped = wrapped
        """Whether the server takes the lock around each call (else the object does it itself)."""
        self.mutex = None if lock is None else Mutex._over(lock, reference.timeout)

    def perform(self, operation: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        """Do what a client asked for, under the lock where the object does not take it itself."""
        if not self.wrapped or self.lock is None:
            return self._do(operation, name, args, kwargs)
        call = current_call()
        self.lock.enter(call, self.reference.timeout, f"{self.reference.name}.{name}")
        try:
            return self._do(operation, name, args, kwargs)
        finally:
            self.lock.leave(call)

    def _do(self, operation: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        interface = self.reference.interface
        if interface is None:
            raise self._refusal(name)
        if operation == CALL:
            if name not in interface.methods:
                raise self._refusal(name)
            result = getattr(self.object, name)(*args, **kwargs) if kwargs else getattr(self.object, name)(*args)
            if name in _LAZY:
                return list(result)
            return SELF if result is self.object else result
        if name.startswith("_") or (interface.fixed and name not in interface.properties):
            raise self._refusal(name)
        if operation == SET:
            setattr(self.object, name, args[0])
            return None
        value = getattr(self.object, name)
        if callable(value) and inspect.ismethod(value):
            raise self._refusal(name)
        return value

    def _refusal(self, name: str) -> AttributeError:
        interface = self.reference.interface
        known = sorted([*interface.methods, *interface.properties]) if interface is not None else []
        return AttributeError(
            f"{self.reference.kind} {self.reference.name!r} shares no {name!r}"
            f" (it has {', '.join(one for one in known if not one.startswith('_'))})"
        )


class _Self:
    """Travels in place of the object itself when a method returns it."""

    def __reduce__(self) -> str:
        return "SELF"


SELF = _Self()
_LAZY = frozenset({"__iter__", "__reversed__", "keys", "values", "items"})


def interface_of(kind: str, value: Any) -> Interface:
    """Return what clients may do with ``value``: its public methods and properties, or what it says itself."""
    describe = getattr(value, "_interface", None)
    if describe is not None:
        told: Interface = describe(kind)
        return told
    cls = type(value)
    methods: dict[str, str | None] = {}
    properties: dict[str, str | None] = {}
    for name in dir(cls):
        if name.startswith("_") and (name not in SPECIAL or _from_object(cls, name)):
            continue
        member = inspect.getattr_static(cls, name)
        if callable(getattr(cls, name, None)) and not inspect.isclass(member):
            methods[name] = inspect.getdoc(member)
        else:
            properties[name] = inspect.getdoc(member)
    section = bool(getattr(value, "_section", "__enter__" not in methods))
    if section:
        methods.pop("__enter__", None)
        methods.pop("__exit__", None)
    return Interface(kind, cls.__qualname__, methods, properties, False, section, ())


def _from_object(cls: type, name: str) -> bool:
    return getattr(cls, name, None) is getattr(object, name, None)


class Host:
    """The objects of one server, by number and by kind and name.

    Args:
        makers: for each kind with a constructor of its own, a function of the name and the parameters.
    """

    def __init__(self, makers: dict[str, Callable[..., Any]]) -> None:
        self._makers = makers
        self._guard = threading.RLock()
        self._making: dict[tuple[str, str], threading.Lock] = {}
        self._names: dict[tuple[str, str], Hosted] = {}
        self._parameters: dict[tuple[str, str], dict[str, Any]] = {}
        self.objects: dict[int, Hosted] = {}
        self.on_timeout: Callable[[Any], None] | None = None

    def everything(self) -> list[Hosted]:
        """Return every object, first made first."""
        with self._guard:
            return list(self._names.values())

    def find(self, kind: str, name: str) -> Hosted | None:
        """Return the object of that kind and name, if there is one."""
        return self._names.get((kind, name))

    def obtain(
        self, kind: str, name: str, parameters: dict[str, Any], factory: Any = None, args: Any = ((), {})
    ) -> Reference:
        """Return the one object of that name, made now if it is not there.

        Raises:
            ConfigurationError: it was made with other parameters (both are shown), or is not there and ``factory``
                was left out.
        """
        key = (kind, name)
        with self._guard:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            hosted = self._names.get(key)
            if hosted is None:
                hosted = self._make(kind, name, parameters, factory, args)
                self._parameters[key] = {name: value for name, value in parameters.items() if value is not None}
            else:
                self._compare(key, parameters)
        return hosted.reference

    def _make(self, kind: str, name: str, parameters: dict[str, Any], factory: Any, args: Any) -> Hosted:
        timeout = parameters.get("timeout")
        timeout = DEFAULT_TIMEOUT if timeout is None else timeout
        value: Any = None
        lock: OwnedLock | None = None
        interface = None
        wrapped = False
        if kind == "mutex":
            lock = OwnedLock(name)
        elif kind in self._makers:
            value = self._makers[kind](name, **{key: value for key, value in parameters.items() if value is not None})
        elif factory is None:
            existing = ", ".join(sorted(other for other_kind, other in self._names if other_kind == kind)) or "none"
            raise ConfigurationError(f"there is no {kind} named {name!r} on this server (there are: {existing})")
        else:
            value = factory(*args[0], **args[1])
        if value is not None:
            mutex = getattr(value, "mutex", None)
            wrapped = not isinstance(mutex, Mutex) and kind not in self._makers
            if isinstance(mutex, Mutex) and isinstance(mutex._lock, OwnedLock):
                lock, timeout = mutex._lock, mutex.timeout
            elif wrapped:
                lock = OwnedLock(name)
            interface = interface_of(kind, value)
        if lock is not None:
            lock.on_timeout = self.on_timeout
        with self._guard:
            target = 2 * len(self._names)
            reference = Reference(target, None if lock is None else target + 1, kind, name, timeout, interface)
            hosted = Hosted(reference, value, lock, wrapped=wrapped)
            self.objects[target] = self.objects[target + 1] = hosted
            self._names[kind, name] = hosted
        attach = getattr(value, "_hosted_as", None)
        if attach is not None:
            attach(reference)
        return hosted

    def _compare(self, key: tuple[str, str], parameters: dict[str, Any]) -> None:
        had = self._parameters[key]
        for name, value in parameters.items():
            if value is not None and had.get(name) != value:
                raise ConfigurationError(
                    f"{key[0]} {key[1]!r} exists with {name}={had.get(name)!r} and was asked for with {name}={value!r}"
                )


def unknown_target(target: int) -> RemoteError:
    """Return the error for a target that this server never had."""
    return RemoteError("LookupError", f"this server has no object number {target}; was it started anew?")
