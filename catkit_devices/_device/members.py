"""The members of a driver's class: how they are marked, the rules for them, and what people and programs are told.

The rules are checked when a class is made, over all that it inherits. A public function or property is put under the
device's locks; what cannot be (its body would run at another time, or without the device) is refused, and the error
says what to do instead.
"""

from __future__ import annotations

import enum
import functools
import inspect
from abc import ABCMeta
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from catkit_devices._base.deferred import deferred_kind, refuse_deferred, replaces_plain
from catkit_devices._device.access import DeviceProperty
from catkit_devices._device.settings import check_setting, declared_settings
from catkit_devices.errors import ConfigurationError, nearest
from catkit_devices.multiprocessing.hosted import HostedObject

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from catkit_devices._device.values import Limits
    from catkit_devices.multiprocessing.protocol import Interface

__all__ = [
    "DeviceType",
    "describe",
    "describe_command",
    "hook",
    "hook_of",
    "interface_of",
    "narrow",
    "operation",
    "unlocked",
]

_M = TypeVar("_M")

_SPECIAL = frozenset(
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
"""Methods of every device, and the hooks that drivers implement instead."""
_RESERVED = frozenset(
    {
        "__aenter__",
        "__aexit__",
        "__await__",
        "__delattr__",
        "__enter__",
        "__exit__",
        "__getattr__",
        "__getattribute__",
        "__setattr__",
    }
)
"""The special methods that mean the same for every device."""
_ON_THE_MUTEX = frozenset({"acquire", "lock", "mutex", "release", "wait"})
"""What a proxy does by itself, or only a driver does."""
_FRAMEWORK = {
    f"catkit_devices.{module}" for module in ("device", "multiprocessing.hosted", "scpi", "serial_device", "visa")
}
"""Where the base classes of drivers are. Their own names begin and end with one underscore, as in enum."""
_ITERATION = frozenset({"__aiter__", "__anext__", "__iter__", "__next__", "__reversed__"})
"""Special methods whose work would be done after they have returned."""


def operation(*, shared: bool = False) -> Callable[[_M], _M]:
    """Mark a method or a property's getter: ``shared=True`` is a read that skips the mutex.

    A shared operation runs between other operations even while another owner has the mutex, and does not count as a
    change of the device's state. Everything else needs no mark.
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


def narrow(cls: type, name: str, limits: Mapping[str, Sequence[Any]]) -> dict[str, Limits]:
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


class DeviceType(ABCMeta):
    """Puts the public members of every driver under the device's locks, also those assigned after the class body."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(name, bases, namespace, **kwargs)
        if not any(isinstance(base, DeviceType) for base in bases):
            return  # Device itself
        for base in cls.__mro__:
            if base in (object, HostedObject) or (base is not cls and isinstance(base, DeviceType)):
                continue
            for member_name, member in list(vars(base).items()):
                if inspect.getattr_static(cls, member_name) is member:  # not overridden nearer by
                    guard = guarded(cls, member_name, member, inherited=base is not cls)
                    if guard is not member:
                        super().__setattr__(member_name, guard)

    def __setattr__(cls, name: str, value: Any) -> None:
        if any(isinstance(base, DeviceType) for base in cls.__bases__):
            value = guarded(cls, name, value, made=True)
        super().__setattr__(name, value)


def guarded(cls: type, name: str, member: Any, *, inherited: bool = False, made: bool = False) -> Any:
    """Return one member of a driver's class as it is to be there: public ones under the device's locks.

    Args:
        cls: the driver.
        name: of the member.
        member: as it was written.
        inherited: whether it comes from a class that is no device (a mixin).
        made: whether the class has been made already.

    Raises:
        TypeError: it cannot be put under the locks, the name belongs to a base class, or it is a plain value that no
            class has declared or of another type than declared; says what to do.
    """
    where = f"{cls.__qualname__}.{name}"
    if name in _RESERVED:
        raise TypeError(f"{where} belongs to Device: name it otherwise")
    if (owner := _final_in(cls, name)) is not None:
        instead = f"implement {_IMPLEMENTED_AS[name]} instead" if name in _IMPLEMENTED_AS else "name it otherwise"
        raise TypeError(f"{where} belongs to {owner.__qualname__}: {instead}")
    if name in _ITERATION:
        raise TypeError(f"{where} would run outside of the device's mutex: write a method that returns a list")
    if name.startswith("_") and name not in _SPECIAL:
        if cls.__module__ not in _FRAMEWORK:
            _check_private(cls, name, member)
        if replaces_plain(cls, name, member):
            refuse_deferred(member, where)
        return member
    settings = declared_settings(cls)
    if not callable(member) and not hasattr(type(member), "__get__"):
        if made and name not in settings:
            return member  # of a class that travels by value: its annotations may come later
        check_setting(cls, name, member)
        return member
    if name in settings:
        raise TypeError(
            f"{where} must be a plain value, as {settings[name][0][0].__qualname__} declares it, got {member!r}; "
            "give a quantity of the instrument another name"
        )
    if isinstance(member, DeviceProperty):
        for attribute in member.fills_in():
            _check_filled_in(cls, where, attribute)
        return member
    if inspect.isclass(member):
        return member
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


def _check_filled_in(cls: type, where: str, attribute: str) -> None:
    """Refuse a command that contains an attribute which there is not, or which is an operation itself."""
    if attribute.startswith("_"):
        return  # a value of one device, which its constructor or _open() may make
    member = inspect.getattr_static(cls, attribute, None)
    if member is None:
        near = nearest(attribute, [name for name in dir(cls) if not name.startswith("__")])
        raise TypeError(
            f"{where} has {attribute!r} filled into its command, which {cls.__qualname__} does not have"
            + (f" (did you mean {near!r}?)" if near else "")
        )
    if isinstance(member, property):
        is_value = getattr(member.fget, "__final__", False) or _is_unlocked(member.fget)
    else:
        is_value = not callable(member) and not hasattr(type(member), "__get__")
    if not is_value:
        raise TypeError(
            f"{where} has {attribute!r} filled into its command, which is an operation itself: "
            "have a private value filled in, or a property that is marked @unlocked"
        )


def _final_in(cls: type, name: str) -> type | None:
    """Return the base class that has a member of that name which is not to be overridden (``typing.final``)."""
    for base in cls.__mro__[1:]:
        member = vars(base).get(name)
        if getattr(getattr(member, "fget", member), "__final__", False):
            return base
    return None


def hook_of(cls: type, name: str) -> str | None:
    """Return what people call the hook of that name which a class inherits or has; None where there is none."""
    found = _hook_in(cls.__mro__, name)
    if found is None:
        return None
    owner, method = found
    return f"{owner.__qualname__}.{name}({_parameters(method)}), which the framework calls"


def _parameters(function: Callable[..., Any]) -> str:
    return ", ".join(inspect.signature(function).parameters)


def _hook_in(classes: tuple[type, ...], name: str) -> tuple[type, Callable[..., Any]] | None:
    for base in classes:
        member: Any = vars(base).get(name)
        if isinstance(member, FunctionType) and getattr(member, "_hook", None) is member:
            return base, vars(base)[name]
    return None


def _check_private(cls: type, name: str, member: Any) -> None:
    if name.endswith("_") and not name.endswith("__"):
        owner = next((base for base in cls.__mro__[1:] if name in vars(base) and base.__module__ in _FRAMEWORK), None)
        if owner is not None:
            raise TypeError(f"{cls.__qualname__}.{name} belongs to {owner.__qualname__}: name it otherwise")
    if name == "_connection" and hasattr(type(member), "__get__"):
        raise TypeError(
            f"{cls.__qualname__}._connection belongs to Device, which puts there what _open() returns: "
            f"a {type(member).__name__} needs another name"
        )
    _check_hook(cls, name, member)


def _check_hook(cls: type, name: str, member: Any) -> None:
    """Refuse what takes the place of a hook and cannot be called as the framework calls that."""
    found = _hook_in(cls.__mro__[1:], name)
    if found is None:
        return
    what = f"{cls.__qualname__}.{name}"
    methods = (classmethod, functools.partialmethod, staticmethod)
    if inspect.isclass(member) or not (callable(member) or isinstance(member, methods)):
        raise TypeError(
            f"{what} is a {type(member).__name__} in the place of {hook_of(cls, name)}: give it another name"
        )
    if not isinstance(member, FunctionType):
        return
    parameters = inspect.signature(found[1]).parameters.values()
    needed = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    for arguments in (needed, [parameter.name for parameter in parameters]):
        try:
            inspect.signature(member).bind(*arguments)
        except TypeError:
            raise TypeError(
                f"{what}({_parameters(member)}) is in the place of {hook_of(cls, name)}: "
                "give it those parameters, or another name"
            ) from None


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
    kind = deferred_kind(function)
    if kind is not None:
        raise TypeError(
            f"{where} is a {kind}, whose body would run outside of the device's mutex: "
            "return a list or take a callback, or mark it @unlocked"
        )


def _locked(name: str, function: Callable[..., Any], *, changes: bool) -> Callable[..., Any]:
    shared = bool(getattr(function, "_shared", False))
    changes = changes and not shared

    # The wrapper of a driver defined in __main__ travels by value: it may only call what can be imported.
    @functools.wraps(function)
    def operation(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._perform_(function, name, args, kwargs, shared=shared, changes=changes)

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


def describe(device: object, framework: Container[str]) -> dict[str, dict[str, Any]]:
    """Return what a device can do: properties with type, unit, limits, choices and doc; commands with doc.

    Args:
        device: whose driver it is about.
        framework: names that every device has, which are left out.
    """
    properties: dict[str, Any] = {}
    commands: dict[str, Any] = {}
    cls = type(device)
    for name in _public_names(cls):
        if name in framework:
            continue
        member = inspect.getattr_static(cls, name)
        if isinstance(member, DeviceProperty):
            properties[name] = member.describe(device)
        elif isinstance(member, property):
            properties[name] = {
                "kind": "property",
                "type": _type_of(member),
                "unit": None,
                "limits": None,
                "choices": None,
                "doc": inspect.getdoc(member),
                "readable": True,
                "writable": member.fset is not None,
                "shared": bool(getattr(member.fget, "_shared", False)),
            }
        elif callable(member) and not inspect.isclass(member):
            commands[name] = describe_command(member)
    return {"properties": properties, "commands": commands}


def describe_command(command: Callable[..., Any]) -> dict[str, Any]:
    """Return the signature, the parameters and the doc of a command.

    Of each parameter: its kind as Python calls it, the name of its type, and whether that is an enumeration, whose name
    is then ``module:class``.
    """
    signature = inspect.signature(command)
    try:
        hints = get_type_hints(command)
    except Exception:  # noqa: BLE001 - an annotation may name what exists for type checkers only
        hints = {}
    parameters = {}
    for name, parameter in signature.parameters.items():
        if name == "self":
            continue
        annotation = hints.get(name, parameter.annotation)
        inner = [one for one in get_args(annotation) if one is not type(None)]
        one = inner[0] if len(inner) == 1 and type(None) in get_args(annotation) else annotation
        is_enum = isinstance(one, enum.EnumType)
        text = annotation.__name__ if isinstance(annotation, type) else str(annotation).strip("'\"")
        parameters[name] = {
            "kind": parameter.kind.name,
            "type": f"{one.__module__}:{one.__qualname__}" if is_enum else text,
            "enum": is_enum,
        }
    return {"signature": str(signature), "parameters": parameters, "doc": inspect.getdoc(command)}


def _type_of(member: property) -> str | None:
    """Return the name of the plain type that a property's getter is annotated with; None where it is no plain one."""
    try:
        returned = get_type_hints(member.fget).get("return")
    except Exception:  # noqa: BLE001 - an annotation may name what exists for type checkers only
        return None
    return returned.__name__ if returned in (bool, float, int, str) else None


def interface_of(cls: type, kind: str) -> Interface:
    """Return what clients may reach of a device of this class, hosted as an object of this kind."""
    from catkit_devices.multiprocessing.protocol import Interface

    capabilities = tuple(base.__name__ for base in cls.__mro__ if vars(base).get("_capability_"))
    methods: dict[str, str | None] = {}
    properties: dict[str, str | None] = {}
    for name in [*_public_names(cls), "__enter__", "__exit__", *sorted(_SPECIAL)]:
        member = inspect.getattr_static(cls, name, None)
        if name in _ON_THE_MUTEX or member is None:
            continue
        if isinstance(member, (property, DeviceProperty)):
            properties[name] = inspect.getdoc(member)
        elif callable(member) and not inspect.isclass(member):
            methods[name] = inspect.getdoc(member)
    methods |= {"_enter_entry_": None, "_leave_entry_": None}
    return Interface(kind, cls.__name__, methods, properties, True, False, capabilities, True)


def _public_names(cls: type) -> list[str]:
    return [name for name in dir(cls) if not name.startswith("_")]
