"""Operations: what a driver's public members are, each run, whole, under the device's locks; marks for the others."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from catkit_devices.errors import ConfigurationError, DeviceDisconnectedError, nearest
from catkit_devices.multiprocessing.locks.owner import calling, current_call, forwarded_call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from catkit_devices._device.values import Limits
    from catkit_devices.device import Device
    from catkit_devices.multiprocessing.locks.owner import Call

__all__ = ["DeviceProperty", "hook", "narrow", "operation", "perform", "unlocked"]

_M = TypeVar("_M")


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


def hook(method: _M) -> _M:
    """Mark a private method of a base class that the framework calls, and that a driver may override."""
    _mark(method, "_hook", method)  # itself: functools.wraps copies the mark to what is not meant
    return method


def _mark(member: Any, mark: str, value: Any) -> None:
    try:
        vars(member)[mark] = value
    except TypeError:
        raise TypeError(f"{member!r} cannot be marked: mark the function that it is made from") from None


class DeviceProperty:
    """Base of the properties that are declared in one line; access to one is one operation.

    A subclass implements ``read``, ``write`` and ``describe``, and ``narrowed`` where it has limits; the access itself
    is not its to define.
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

    def narrowed(self, limits: Sequence[Any]) -> Limits:  # noqa: ARG002 - for those that have limits
        """Return narrower limits, as a configuration has them, as numbers in the declared unit.

        Raises:
            ValueError: they make no sense, or would be wider than what the driver declares.
        """
        raise ValueError("has no limits that could be narrowed")

    def describe(self, device: Any = None) -> dict[str, Any]:  # noqa: ARG002 - for those that depend on it
        """Return kind, type, unit, limits, choices, doc; with ``device``, what is in force for it."""
        return {
            "kind": type(self).__name__,
            "doc": self.doc,
            "readable": self.readable,
            "writable": self.writable,
            "shared": self.shared,
        }


def narrow(cls: type[Device], name: str, limits: Mapping[str, Sequence[Any]]) -> dict[str, Limits]:
    """Return the limits that a configuration narrows for device ``name`` of class ``cls``.

    Raises:
        ConfigurationError: for a property that does not exist or has no limits, and for wider limits.
    """
    known = {key: value for key in dir(cls) if isinstance(value := getattr(cls, key, None), DeviceProperty)}
    narrowed: dict[str, Limits] = {}
    for attribute, wanted in limits.items():
        key = f"devices.{name}.limits.{attribute}"
        if attribute not in known:
            raise ConfigurationError("there is no such property", key=key, suggestion=nearest(attribute, known))
        try:
            narrowed[attribute] = known[attribute].narrowed(wanted)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(str(error), key=key) from error
    return narrowed


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
    lost and the caller was in no section.
    """
    call = forwarded_call()
    if call is None:
        with calling(current_call()):
            return perform(device, body, name, args, kwargs, shared=shared, changes=changes, repeatable=repeatable)
    if call.emergency or device._operation_lock_.held_by(call):
        # Part of an operation of this device already, under the locks that this one has.
        call.check()
        if call.emergency:
            return _perform_in_emergency(device, body, args, kwargs)
        device._operation_lock_.take_back(call)  # where the device that it uses waits, it gives way itself
        if changes:
            _begin_nested_change(device, call, name)
        return body(device, *args, **kwargs)
    site = f"{device._name_}.{name}"
    timeout = device._mutex_.timeout
    mutex, exclusive = device._mutex_lock_, device._operation_lock_
    if changes:
        device._require_permission_(name, changes)  # before waiting for whoever has it
    before, call.changes = call.changes, changes
    try:
        if shared:
            exclusive.enter(call, timeout, site, shared=True)
        else:
            mutex.enter_both(exclusive, call, timeout, site)
        try:
            device._ready_(name, changes)
            if changes:
                device.__dict__["_changed_by_"] = call.session
            try:
                result = body(device, *args, **kwargs)
            except DeviceDisconnectedError as error:
                if not device._life_.loses_by(error) or not repeatable or mutex.sections(call):
                    raise
                device._ready_(name, changes)
                result = body(device, *args, **kwargs)
        finally:
            try:
                device._leave_(call, shared=shared)
            except BaseException:  # Ctrl-C may have come before it was done
                exclusive.end(call)
                mutex.end(call)
                raise
    finally:
        call.changes = before
    if _is_lazy(type(result)):  # type: ignore[arg-type]
        raise TypeError(
            f"{site} returned a {type(result).__name__}, whose work would be done outside of the device's mutex: "
            "return a list"
        )
    return result


def _perform_in_emergency(device: Device, body: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run a part of making safe: that of this device, or of one that uses it and is made safe with its help."""
    life = device._life_
    if life.is_open and not life.connected:
        life.restore()
        if not life.makes_safe_here:
            device._make_safe_if_changes_are_refused_("make_safe")
    try:
        return body(device, *args, **kwargs)
    except DeviceDisconnectedError as error:
        life.loses_by(error)
        raise


def _begin_nested_change(device: Device, call: Call, name: str) -> None:
    if not device._mutex_lock_.held_by(call):
        raise TypeError(
            f"{device._name_}.{name} changes the device, and is used by an operation marked shared, which runs "
            "without the mutex: take the mark from that one"
        )
    device._require_permission_(name, True)
    device.__dict__["_changed_by_"] = call.session


@functools.lru_cache(maxsize=256)
def _is_lazy(kind: type) -> bool:
    return any(hasattr(kind, name) for name in ("__next__", "__anext__", "__await__"))
