"""What makes a driver's public members operations: each runs, whole, under the device's locks.

Checked for every driver when its class is made, over all that it inherits: a public function or property is put under
the locks; what cannot be (its body would run at another time, or without the device) is refused with a word on what to
do instead.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from catkit_devices.errors import DeviceDisconnectedError
from catkit_devices.multiprocessing.owner import calling, current_call, forwarded_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.device import Device
    from catkit_devices.multiprocessing.owner import Call

__all__ = ["SPECIAL", "DeviceProperty", "guarded", "operation", "perform", "unlocked"]

_M = TypeVar("_M")

SPECIAL = frozenset(
    {
        "__bool__",
        "__call__",
        "__contains__",
        "__delitem__",
        "__getitem__",
        "__len__",
        "__setitem__",
    }
)
"""The special methods that are operations where a driver defines them."""

_IMPLEMENTED_AS = {"open": "_open", "close": "_close", "make_safe": "_make_safe"}
_RESERVED = frozenset(
    {
        *_IMPLEMENTED_AS,
        "__aenter__",
        "__aexit__",
        "__await__",
        "__delattr__",
        "__enter__",
        "__exit__",
        "__getattr__",
        "__getattribute__",
        "__setattr__",
        "acquire",
        "is_open",
        "lock",
        "mutex",
        "name",
        "release",
        "reset",
        "state",
        "wait",
    }
)
"""What means the same for every device."""
_ITERATION = frozenset({"__aiter__", "__anext__", "__iter__", "__next__", "__reversed__"})


def operation(*, shared: bool = False) -> Callable[[_M], _M]:
    """Mark a method or a property's getter: ``shared=True`` is a read that skips the mutex.

    A shared operation runs between other operations even while somebody keeps the device to himself, and is not
    taken for a change of the device's state. Everything else needs no mark.
    """

    def mark(member: _M) -> _M:
        _mark(member.fget if isinstance(member, property) else member, "_shared", shared)
        return member

    return mark


def unlocked(member: _M) -> _M:
    """Mark a method or property that takes no lock: it may use the instrument only by whole wire exchanges."""
    marked = [member.fget, member.fset, member.fdel] if isinstance(member, property) else [member]
    for one in marked:
        if one is not None:
            _mark(one, "_unlocked", True)
    return member


def _mark(member: Any, mark: str, value: bool) -> None:
    try:
        vars(member)[mark] = value
    except TypeError:
        raise TypeError(f"{member!r} cannot be marked: mark the function that it is made from") from None


class DeviceProperty:
    """Base of the properties that are declared in one line; access to one is one operation.

    A subclass implements ``read``, ``write`` and ``describe``; the access itself is not its to define.
    """

    readable = True
    writable = True

    def __init__(self, doc: str, *, shared: bool = False, repeatable: bool = False) -> None:
        self.__doc__ = self.doc = inspect.cleandoc(doc)
        self.shared = shared
        self.repeatable = repeatable
        self.name = "?"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("__get__", "__set__", "__delete__"):
            if name in vars(cls):
                raise TypeError(f"{cls.__qualname__}.{name} would bypass the device's locks: implement read and write")

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, device: Device | None, owner: type | None = None) -> Any:
        if device is None:
            return self
        if not self.readable:
            raise AttributeError(f"{self.name!r} of {device!r} can be set, not read")
        return perform(
            device, self.read, self.name, (), {}, shared=self.shared, changes=False, repeatable=self.repeatable
        )

    def __set__(self, device: Device, value: Any) -> None:
        if not self.writable:
            raise AttributeError(f"{self.name!r} of {device!r} can be read, not set")
        perform(device, self.write, self.name, (value,), {}, shared=False, changes=True)

    def read(self, device: Any) -> Any:
        """Return the value."""
        raise NotImplementedError

    def write(self, device: Any, value: Any) -> None:
        """Set the value, checked before anything reaches the instrument."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Return kind, type, unit, limits, choices, doc."""
        return {
            "kind": type(self).__name__,
            "doc": self.doc,
            "readable": self.readable,
            "writable": self.writable,
            "shared": self.shared,
        }


def perform(
    device: Device,
    body: Callable[..., Any],
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    shared: bool,
    changes: bool,
    repeatable: bool = False,
) -> Any:
    """Run the body of one operation under the device's locks; raises what the locks or the body raise.

    A read that is ``repeatable`` is done once more, over a new connection, where its first try found the connection
    lost and nobody was in a section.
    """
    call = forwarded_call()
    if call is None:
        with calling(current_call()):
            return perform(device, body, name, args, kwargs, shared=shared, changes=changes, repeatable=repeatable)
    if call.emergency or device._operation_lock.held_by(call):
        # Part of an operation of this device already, under the locks that this one has.
        call.check()
        if changes and not call.emergency:
            _begin_nested_change(device, call, name)
        return body(device, *args, **kwargs)
    site = f"{device._name}.{name}"
    timeout = device._mutex.timeout
    mutex, exclusive = device._mutex_lock, device._operation_lock
    if changes:
        device._require_permission(name, changes)  # before waiting for whoever has it
    before, call.changes = call.changes, changes
    try:
        if shared:
            exclusive.enter(call, timeout, site)
        else:
            mutex.enter_both(exclusive, call, timeout, site)
        try:
            device._ready(name, changes)
            if changes:
                device.__dict__["_changed_by"] = call.session
            try:
                result = body(device, *args, **kwargs)
            except DeviceDisconnectedError:
                device._connection_is_lost()
                if not repeatable or device._mutex_lock.has_sections():
                    raise
                device._ready(name, changes)
                result = body(device, *args, **kwargs)
        finally:
            if shared:
                exclusive.leave(call)
            else:
                mutex.leave_both(exclusive, call)
    finally:
        call.changes = before
    if _is_lazy(type(result)):  # type: ignore[arg-type]
        raise TypeError(
            f"{site} returned a {type(result).__name__}, whose work would be done outside of the device's mutex: "
            "return a list"
        )
    return result


def _begin_nested_change(device: Device, call: Call, name: str) -> None:
    if not device._mutex_lock.held_by(call):
        raise TypeError(
            f"{device._name}.{name} changes the device, and is used by an operation marked shared, which runs "
            "without the mutex: take the mark from that one"
        )
    device._require_permission(name, True)
    device.__dict__["_changed_by"] = call.session


@functools.lru_cache(maxsize=256)
def _is_lazy(kind: type) -> bool:
    return any(hasattr(kind, name) for name in ("__next__", "__anext__", "__await__"))


# --- the rules -----------------------------------------------------------------------------------------------------


def guarded(cls: type, name: str, member: Any, *, inherited: bool = False) -> Any:
    """Return one member of a driver's class as it is to be there: public ones under the device's locks.

    Args:
        cls: the driver.
        name: of the member.
        member: as it was written.
        inherited: whether it comes from a class that is no device (a mixin).

    Raises:
        TypeError: it cannot be put under the locks, or the name belongs to the framework; says what to do.
    """
    where = f"{cls.__qualname__}.{name}"
    if name in _RESERVED:
        instead = f": implement {_IMPLEMENTED_AS[name]} instead" if name in _IMPLEMENTED_AS else ": name it otherwise"
        raise TypeError(f"{where} belongs to the framework{instead}")
    if name in _ITERATION:
        raise TypeError(f"{where} would run outside of the device's mutex: write a method that returns a list")
    if name.startswith("_") and name not in SPECIAL:
        return member
    if isinstance(member, DeviceProperty) or inspect.isclass(member):
        return member
    if not callable(member) and not hasattr(type(member), "__get__"):
        return member  # a constant
    if type(member) is property:
        return _guarded_property(cls, where, name, member, inherited)
    if _is_unlocked(member) or _is_locked(member):
        return member
    if not isinstance(member, FunctionType):
        raise TypeError(
            f"{where} is a {type(member).__name__}, which cannot run under the device's mutex: "
            "write it as a plain method or property, or mark what it wraps @unlocked"
        )
    _refuse_lazy(where, member)
    return _locked(name, _super_call(cls, name, member) if inherited else member, changes=True)


def _guarded_property(cls: type, where: str, name: str, member: property, inherited: bool) -> property:
    if member.fset is not None and getattr(member.fset, "_shared", False):
        raise TypeError(f"{where} has a setter marked shared: what changes a device cannot be shared")

    def accessor(function: Callable[..., Any] | None, through: Callable[..., Any], *, changes: bool) -> Any:
        if function is None or _is_unlocked(function) or _is_locked(function):
            return function
        if isinstance(function, FunctionType):
            _refuse_lazy(where, function)
        if inherited:
            function = functools.wraps(function)(through)
        return _locked(name, function, changes=changes)

    def get(self: Any) -> Any:
        return getattr(super(cls, self), name)

    def put(self: Any, value: Any) -> None:
        next_after(cls, type(self), name).__set__(self, value)

    def drop(self: Any) -> None:
        next_after(cls, type(self), name).__delete__(self)

    return property(
        accessor(member.fget, get, changes=False),
        accessor(member.fset, put, changes=True),
        accessor(member.fdel, drop, changes=True),
        member.__doc__,
    )


def next_after(cls: type, actual: type, name: str) -> Any:
    """Return the member of that name that ``super(cls, object_of_actual)`` would find."""
    mro = actual.__mro__
    return next(vars(base)[name] for base in mro[mro.index(cls) + 1 :] if name in vars(base))


def _refuse_lazy(where: str, function: FunctionType) -> None:
    if function.__globals__ is vars(contextlib):
        what = "context manager made from a generator"
    elif inspect.isgeneratorfunction(function):
        what = "generator"
    elif inspect.iscoroutinefunction(function):
        what = "coroutine"
    elif inspect.isasyncgenfunction(function):
        what = "asynchronous generator"
    else:
        return
    raise TypeError(
        f"{where} is a {what}, whose body would run outside of the device's mutex: "
        "return a list or take a callback, or mark it @unlocked"
    )


def _locked(name: str, function: Callable[..., Any], *, changes: bool) -> Callable[..., Any]:
    shared = bool(getattr(function, "_shared", False))
    changes = changes and not shared

    # The wrapper of a driver defined in __main__ travels by value: it may only call what can be imported.
    @functools.wraps(function)
    def operation(self: Any, *args: Any, **kwargs: Any) -> Any:
        return perform(self, function, name, args, kwargs, shared=shared, changes=changes)

    vars(operation)["_shared"] = shared
    vars(operation)["_locked"] = operation
    return operation


def _is_locked(member: Any) -> bool:
    # Not a plain flag: functools.wraps would copy that to a function that a subclass puts in the place of this one.
    return getattr(member, "_locked", None) is member


def _is_unlocked(member: Any) -> bool:
    inner = [member, *(getattr(member, name, None) for name in ("func", "__func__", "__wrapped__"))]
    return any(getattr(one, "_unlocked", False) is True for one in inner)


def _super_call(cls: type, name: str, member: Callable[..., Any]) -> Callable[..., Any]:
    # Not a copy of the member: a mixin's own super() must go on working.
    @functools.wraps(member)
    def inherited(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(cls, self), name)(*args, **kwargs)

    return inherited
