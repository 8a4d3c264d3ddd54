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

from catkit_devices._base.deferred import deferred_kind, is_undone, refuse_deferred, replaces_plain
from catkit_devices._base.paths import item, words
from catkit_devices._device.access import DeviceProperty
from catkit_devices._device.parts import Part, classes, groups_of
from catkit_devices._device.settings import check_setting, declared_settings
from catkit_devices.errors import ConfigurationError, nearest
from catkit_devices.multiprocessing.hosted import HostedObject
from catkit_devices.units import convertible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from catkit_devices._device.values import Limits
    from catkit_devices.multiprocessing.protocol import Interface, Parameters

__all__ = [
    "FRAMEWORK",
    "PLAIN",
    "DeviceType",
    "can_make_safe",
    "check_assignment",
    "describe",
    "describe_class",
    "describe_command",
    "gives_frames_continuously",
    "hook",
    "hook_of",
    "interface_of",
    "interface_of_component",
    "interfaces_of",
    "is_helper",
    "is_shared",
    "makes_safe",
    "may_have_when_open",
    "members_at",
    "narrow",
    "narrowed_limits",
    "operation",
    "owners_at",
    "properties_of",
    "refuse_result",
    "shared_properties",
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
"""Members that a proxy implements itself, or that are for drivers only."""
_OF_A_PROXY = frozenset({"device", "key", "wait"})
"""The same for components."""
FRAMEWORK = {
    f"catkit_devices.{module}"
    for module in (
        "_device.parts",
        "_wire.wire_device",
        "components",
        "device",
        "foreign.device",
        "foreign.generate",
        "multiprocessing.hosted",
        "scpi",
        "scpi_tables",
        "serial_device",
        "visa",
    )
}
"""Where the base classes of drivers are. Their own names begin and end with one underscore, as in enum."""
PLAIN = frozenset({bool, bytes, float, int, str, type(None)})
"""Types of results that need not be checked any further."""
_SEVERAL = frozenset({dict, list, tuple})
"""Types of results whose items are checked."""
_OF_THE_DEVICE = frozenset({"_open", "_close", "_identify", "_continuous_frames"})
"""The hooks that a component does not have: it is opened and closed with its device, which also gives the frames."""
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


def narrow(cls: type, name: str, limits: Mapping[str, Any]) -> dict[str, Limits]:
    """Return the limits that a configuration narrows for the properties of device ``name`` itself, of class ``cls``.

    Those of its components are checked as far as the class tells; each component has its own when it is made.

    Raises:
        ConfigurationError: for a property that does not exist or has no limits, and for wider limits.
    """
    narrowed: dict[str, Limits] = {}
    for path, wanted in limits.items():
        key = f"devices.{name}.limits.{path}"
        if may_have_when_open(cls, path):
            continue  # checked when it is open
        value = narrowed_limits(cls, path, wanted, key)
        if len(words(path)) == 1:
            narrowed[path] = value
    return narrowed


def narrowed_limits(cls: type, path: str, wanted: Sequence[Any], key: str) -> Limits:
    """Return the limits that a configuration narrows for one property of a device or component.

    Args:
        cls: class of the device or component.
        path: of the property.
        wanted: the limits.
        key: in the configuration, for the error.

    Raises:
        ConfigurationError: the property does not exist or has no limits, or these limits are wider.
    """
    try:
        there = [member for _, member in members_at(cls, path)]
    except ConfigurationError as error:
        raise ConfigurationError(error.problem, key=key, suggestion=error.suggestion) from None
    found = [member for member in there if isinstance(member, DeviceProperty)]
    if not found and any(isinstance(member, property) for member in there):
        raise ConfigurationError(
            "is a plain property of the driver, whose values only the driver checks: only a Control or a Setting "
            "has limits here",
            key=key,
        )
    if not found:
        raise ConfigurationError("there is no such property: this is something else, such as a method", key=key)
    limits: list[Limits] = []
    failure: Exception | None = None
    for member in found:  # several, where the instrument says of which class a component is
        try:
            limits.append(member.narrowed(wanted))
        except (TypeError, ValueError) as error:
            failure = error
    if not limits:
        raise ConfigurationError(str(failure), key=key) from failure
    return limits[-1]


def members_at(cls: type, path: str) -> list[tuple[type, Any]]:
    """Return the member of a driver's class to which a path such as ``outputs[1].voltage`` leads, with its class.

    There may be several, where the instrument says of which class a component is.

    Raises:
        ConfigurationError: there is none; with the nearest spelling.
    """
    *before, name = words(path)
    with_argument = _with_argument(cls, before, name) if before else []
    if with_argument:
        return with_argument
    owners = owners_at(cls, before)
    found = [(kind, member) for kind in owners if (member := inspect.getattr_static(kind, name, None)) is not None]
    if not found:
        public = {known for kind in owners for known in _public_names(kind)}
        raise ConfigurationError("there is no such property", suggestion=nearest(name, public))
    return found


def may_have_when_open(cls: Any, path: str) -> bool:
    """Return whether a driver's class has no member at a path, but a device of it may have one when it is open."""
    if cls._knows_all_:
        return False
    try:
        return not members_at(cls, path)
    except ConfigurationError:
        return True


def _with_argument(cls: type, path: Sequence[str], argument: str) -> list[tuple[type, Any]]:
    """Return the properties of one argument, as in ``temperature['A']``, with their classes, if there are any."""
    *before, name = path
    found: list[tuple[type, Any]] = []
    try:
        owners = owners_at(cls, before)
    except ConfigurationError:
        return []  # the words lead to a component, or to nothing
    for kind in owners:
        member = inspect.getattr_static(kind, name, None)
        each = member.each if isinstance(member, DeviceProperty) else {}
        found += [(kind, one) for key, one in each.items() if str(key) == argument]
    return found


def shared_properties(cls: Any, at: str = "") -> list[str]:
    """Return the paths of the properties that can be read while somebody holds the device, as far as a class tells."""
    members = {name: inspect.getattr_static(cls, name) for name in _public_names(cls)}
    found = [f"{at}{name}" for name, one in members.items() if is_shared(one) and not callable(one)]
    for name, part in cls._parts_.items():
        for key, one in (part._fixed_ or {}).items():
            where = f"{at}{name}" if part._single_ else item(f"{at}{name}", key)
            found += shared_properties(type(one), f"{where}.")
    return found


def owners_at(cls: type, path: Sequence[str]) -> set[Any]:
    """Return the class of the component to which words lead; several, where the instrument says which of them it is.

    Raises:
        ConfigurationError: there is no such component; with the nearest spelling.
    """
    owners: set[Any] = {cls}
    rest, at = list(path), ""
    while rest:
        name = rest.pop(0)
        parts = [kind._parts_[name] for kind in owners if name in kind._parts_]
        at = f"{at}.{name}" if at else name
        if not parts:
            there = {known for kind in owners for known in kind._parts_}
            raise ConfigurationError(f"there is no component {at}", suggestion=nearest(name, there))
        if all(part._single_ for part in parts):
            owners = set().union(*map(classes, parts))
            continue
        if not rest:
            raise ConfigurationError(f"{at} are several components: say of which, as in {at}.{_example(parts[0])}")
        key = rest.pop(0)
        owners = set().union(*(_kinds_at(part, key) for part in parts))
        if not owners:
            there_are = ", ".join(str(one) for part in parts for one in part._fixed_ or ())
            raise ConfigurationError(f"there is no component {at}.{key}, there are {there_are}")
        at = f"{at}.{key}"
    return owners


def _example(part: Part) -> str:
    return str(next(iter(part._fixed_ or ("1",))))


def _kinds_at(part: Part, key: str) -> set[Any]:
    if part._fixed_ is None:
        return classes(part)
    return {type(one) for known, one in part._fixed_.items() if str(known) == key}


class DeviceType(ABCMeta):
    """The metaclass of devices and components.

    It puts the public members of every driver under the device's locks, also those assigned after the class body.
    """

    _parts_: Mapping[str, Part] = {}
    """The components that the class declares or inherits, by name."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(name, bases, namespace, **kwargs)
        if not any(isinstance(base, DeviceType) for base in bases):
            return  # Device itself, or Component
        for base in cls.__mro__:
            if base in (object, HostedObject, Part) or (base is not cls and isinstance(base, DeviceType)):
                continue
            for member_name, member in list(vars(base).items()):
                if _nearest(cls, member_name) is member:  # no nearer class has overridden it
                    guard = guarded(cls, member_name, member, inherited=base is not cls)
                    if guard is not member:
                        super().__setattr__(member_name, guard)
        cls._find_parts()

    def _find_parts(cls) -> None:
        members = {name: member for base in reversed(cls.__mro__) for name, member in vars(base).items()}
        parts = {name: part for name, part in members.items() if isinstance(part, Part) and not name.startswith("_")}
        type.__setattr__(cls, "_parts_", parts)

    def __setattr__(cls, name: str, value: Any) -> None:
        if name == "_parts_":  # a class that is sent by value is set together with the members from which this is made
            return
        if any(isinstance(base, DeviceType) for base in cls.__bases__):
            value = guarded(cls, name, value, made=True)
            if isinstance(value, Part):
                value.__set_name__(cls, name)
        super().__setattr__(name, value)
        if isinstance(value, Part) or name in cls._parts_:
            cls._find_parts()


def _nearest(cls: type, name: str) -> Any:
    """Return a member as the nearest class has it; quicker than ``inspect``, for every member of every driver."""
    return next(vars(kind)[name] for kind in cls.__mro__ if name in vars(kind))


def guarded(cls: type, name: str, member: Any, *, inherited: bool = False, made: bool = False) -> Any:
    """Return a member in the form in which it is stored in the class: public members run under the device's locks.

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
    if name in _RESERVED and cls.__module__ not in FRAMEWORK:
        raise TypeError(f"{where} belongs to {_root_of(cls).__qualname__}: give it another name")
    if (owner := _final_in(cls, name)) is not None:
        instead = f"implement {_IMPLEMENTED_AS[name]} instead" if name in _IMPLEMENTED_AS else "give it another name"
        raise TypeError(f"{where} belongs to {owner.__qualname__}: {instead}")
    if name in _ITERATION:
        raise TypeError(f"{where} would run outside of the device's mutex: write a method that returns a list")
    if name.startswith("_") and name not in _SPECIAL:
        if isinstance(member, Part):
            raise TypeError(
                f"{where} is a component, which is there for users: give it a name that does not begin with _"
            )
        if cls.__module__ not in FRAMEWORK:
            _check_private(cls, name, member)
        if replaces_plain(cls, name, member):
            refuse_deferred(member, where)
        return member
    if isinstance(member, Part):
        _check_part(cls, where, member)
        return member
    settings = declared_settings(cls)
    if not callable(member) and not hasattr(type(member), "__get__"):
        if name not in settings:
            _refuse_helpers(cls, where, member)
        if made and name not in settings:
            return member  # of a class that is sent by value: its annotations may be set later
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
        for bound in member.depends_on():
            _check_bound(cls, where, bound, member)
        return member
    if inspect.isclass(member):
        if isinstance(member, DeviceType) and issubclass(member, Part) and name[:1].islower():
            raise TypeError(f"{where} is a class: declare a component of it, {name} = {member.__qualname__}(...)")
        return member
    if type(member) is property:
        _refuse_helper_of_property(cls, where, member)
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


def _root_of(cls: type) -> type:
    """Return the base class, Device or Component, of a driver's class or a component's class."""
    return next(base for base in reversed(cls.__mro__) if isinstance(base, DeviceType))


def makes_safe(owner: Any) -> bool:
    """Return whether a device or component has a ``_make_safe`` of its own."""
    return _has_make_safe(type(owner))


def can_make_safe(cls: Any) -> bool:
    """Return whether devices of a class, or components that they may have, have a ``_make_safe`` of their own."""
    return _has_make_safe(cls) or any(can_make_safe(kind) for part in cls._parts_.values() for kind in classes(part))


def gives_frames_continuously(cls: Any) -> bool:
    """Return whether devices of a class have a ``_continuous_frames`` of their own."""
    return getattr(cls, "_continuous_frames") is not getattr(_root_of(cls), "_continuous_frames")  # noqa: B009 - of classes unknown here


def _has_make_safe(cls: type) -> bool:
    return getattr(cls, "_make_safe") is not getattr(_root_of(cls), "_make_safe")  # noqa: B009 - of classes unknown here


def _check_part(cls: type, where: str, part: Part) -> None:
    """Refuse components with hooks of the device, which nobody would call, or with other parameters in a hook."""
    if issubclass(cls, Part):
        return  # checked when the outermost component becomes a part of a device
    for kind in classes(part):
        of_component = [base for base in kind.__mro__ if isinstance(base, DeviceType) and base is not _root_of(kind)]
        for base in of_component:
            for name, member in vars(base).items():
                if name in _OF_THE_DEVICE and _hook_in(cls.__mro__, name) is not None:
                    raise TypeError(
                        f"{base.__qualname__}.{name} would never be called: {where} is opened and closed with its "
                        f"device, so do it in {cls.__qualname__}.{name}"
                    )
                if name.startswith("_") and name != "_make_safe":
                    _check_hook(cls, name, member, base)
        for inner in kind._parts_.values():
            _check_part(cls, f"{where}.{inner._name_}", inner)


def _refuse_helpers(cls: type, where: str, value: Any) -> None:
    """Refuse objects with methods, alone or several together: the methods would run outside of the mutex."""
    inside = list(value.values()) if isinstance(value, dict) else value
    for one in list(inside)[:1] if isinstance(inside, (list, tuple, set, frozenset)) else [value]:
        if isinstance(one, Part):
            raise TypeError(
                f"{where} has components inside of a {type(value).__name__}: "
                "declare them as Components(...), or one by one"
            )
        if _talks(cls, type(one)) or (type(one) is not type and _has_methods(type(one))):
            raise TypeError(_advice(where, type(one)))


def _refuse_helper_of_property(cls: type, where: str, member: property) -> None:
    try:
        returned = get_type_hints(member.fget).get("return")
    except Exception:  # noqa: BLE001 - an annotation may name what exists for type checkers only
        return
    if not isinstance(returned, type):
        return
    if isinstance(returned, DeviceType) and issubclass(returned, Part):
        raise TypeError(f"{where} returns a component: declare it in the class, as {returned.__qualname__}(...)")
    if _talks(cls, returned):
        raise TypeError(_advice(where, returned))


def _advice(where: str, kind: type) -> str:
    return (
        f"{where} is a {kind.__qualname__}, whose methods would run outside of the device's mutex: derive "
        f"{kind.__qualname__} from catkit_devices.Component and declare it in the class, as {kind.__qualname__}(...) "
        f"or Components({kind.__qualname__}, numbers=...); what only the driver uses is private"
    )


def _has_methods(kind: type) -> bool:
    """Return whether objects of a class have public methods written in Python; members of an Enum are values."""
    return not issubclass(kind, enum.Enum) and any(
        isinstance(member, FunctionType) and not name.startswith("_")
        for base in kind.__mro__
        for name, member in vars(base).items()
    )


def _talks(cls: type, kind: type) -> bool:
    """Return whether methods of a class that is not a device use the methods with which drivers send and receive."""
    if isinstance(kind, DeviceType):
        return False
    functions = [member for base in kind.__mro__ for member in vars(base).values() if isinstance(member, FunctionType)]
    used = {name for function in functions for name in function.__code__.co_names}
    return any(name == "query" or is_helper(cls, name) for name in used if not name.endswith("_"))


def refuse_result(result: Any, device: Any, what: str) -> None:
    """Refuse a result of an operation whose work would be done, or whose methods would run, outside of the mutex.

    Args:
        result: of the operation; of several objects in a list, tuple or dict the first is looked at.
        device: whose operation it is.
        what: the operation.
    """
    first = (
        next(iter(result.values() if type(result) is dict else result), None) if type(result) in _SEVERAL else result
    )
    for one in (result, first):
        if is_undone(type(one)):  # type: ignore[arg-type]  # mypy takes a class for something unhashable
            raise TypeError(
                f"{what} returned a {type(one).__name__}, whose work would be done outside of the device's mutex: "
                "return a list"
            )
    result = first
    kind = type(result)
    if kind in PLAIN or isinstance(kind, DeviceType) or not kind.__dictoffset__:  # without attributes: an array
        return
    if any(value is device or isinstance(value, Part) for value in getattr(result, "__dict__", {}).values()):
        called = kind.__qualname__
        raise TypeError(
            f"{what} returned a {called} that uses the device, and whose methods would run outside of its mutex: "
            f"derive {called} from catkit_devices.Component and declare it in the class of the driver"
        )


def is_helper(cls: type, name: str) -> bool:
    """Return whether the framework's classes that ``cls`` derives from have a private member of that name."""
    return (
        name.startswith("_")
        and not name.startswith("__")
        and (name == "_connection" or any(name in vars(base) for base in cls.__mro__ if base.__module__ in FRAMEWORK))
    )


def check_assignment(owner: Any, name: str, value: object) -> None:
    """Refuse an attribute that the class of a device or component does not have, or that has a hook's name.

    Raises:
        AttributeError: says what to do.
    """
    cls = type(owner)
    if not name.startswith("_"):
        member = inspect.getattr_static(cls, name, None)
        if hasattr(type(member), "__set__"):
            return
        who = repr(owner) if isinstance(owner, Part) else f"{cls.__name__} {owner.__dict__.get('_name_', '')!r}"
        if isinstance(value, Part):
            raise AttributeError(f"{who}: a component is declared in the class of the driver, {name} = {value!r}")
        if name in declared_settings(cls):
            raise AttributeError(f"{name!r} of {who} is set in the class of the driver, for all its devices")
        near = nearest(name, [known for known in dir(cls) if not known.startswith("_")])
        raise AttributeError(
            f"{who} has no property {name!r} to set; a value that is not an operation is private (_name)"
            + (f" (did you mean {near!r}?)" if near else "")
        )
    if hasattr(cls, name) and (method := hook_of(cls, name)) is not None:
        raise AttributeError(f"{cls.__name__}: {name} is {method}: give the value another name")


def _check_bound(cls: type, where: str, bound: str, limited: DeviceProperty) -> None:
    """Refuse limits that depend on a name which is not a readable property, or on one in a unit of another kind."""
    member = inspect.getattr_static(cls, bound, None)
    if member is limited:
        raise TypeError(f"the limits of {where} depend on itself")
    if not isinstance(member, property) and not (isinstance(member, DeviceProperty) and member.readable):
        near = nearest(bound, _public_names(cls))
        hint = f" (did you mean {near!r}?)" if near else ""
        if bound[:1].isdigit():
            hint = "; a limit that is a number is written without a unit and without quotes"
        raise TypeError(
            f"the limits of {where} depend on {bound!r}, which is no property of {cls.__qualname__} that can be read"
            + hint
        )
    if isinstance(member, DeviceProperty):
        unit, other = limited.describe().get("unit"), member.describe().get("unit")
        if unit is not None and other is not None and not convertible(other, unit):
            raise TypeError(f"the limits of {where} are in {unit}, and depend on {bound!r}, which is in {other}")


def _check_filled_in(cls: type, where: str, attribute: str) -> None:
    """Refuse a command that contains an attribute that does not exist or is itself an operation."""
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
            "use a private attribute, or a property that is marked @unlocked"
        )


def _final_in(cls: type, name: str) -> type | None:
    """Return the base class that has a member of that name which is not to be overridden (``typing.final``)."""
    for base in cls.__mro__[1:]:
        member = vars(base).get(name)
        if getattr(getattr(member, "fget", member), "__final__", False):
            return base
    return None


def hook_of(cls: type, name: str) -> str | None:
    """Return the hook of that name that a class has or inherits, as text for a message; None if there is none."""
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
        owner = next((base for base in cls.__mro__[1:] if name in vars(base) and base.__module__ in FRAMEWORK), None)
        if owner is not None:
            raise TypeError(f"{cls.__qualname__}.{name} belongs to {owner.__qualname__}: give it another name")
    if name == "_connection" and hasattr(type(member), "__get__"):
        raise TypeError(
            f"{cls.__qualname__}._connection belongs to Device, which puts there what _open() returns: "
            f"a {type(member).__name__} needs another name"
        )
    _check_hook(cls, name, member)


def _check_hook(cls: type, name: str, member: Any, part: type | None = None) -> None:
    """Refuse a member that has the name of a hook but cannot be called as the framework calls the hook.

    Args:
        cls: the driver.
        name: of the member.
        member: of ``cls``, or of ``part``.
        part: the class of a component of the driver.
    """
    found = _hook_in(cls.__mro__[0 if part else 1 :], name)
    if found is None:
        return
    what = f"{(part or cls).__qualname__}.{name}"
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
    if is_shared(member.fset):
        raise TypeError(f"{where} has a setter marked shared: what changes a device cannot be shared")

    def accessor(function: Callable[..., Any] | None, through: Callable[..., Any], what: str) -> Any:
        if function is None or _is_unlocked(function) or _is_locked(function):
            return function
        if isinstance(function, FunctionType):
            _refuse_lazy(where, function)
        if inherited:
            function = functools.wraps(function)(through)
        return _locked(name, function, changes=what != "read", what=what)

    def get(self: Any) -> Any:
        return getattr(super(cls, self), name)

    def put(self: Any, value: Any) -> None:
        next_after(cls, type(self), name).__set__(self, value)

    def drop(self: Any) -> None:
        next_after(cls, type(self), name).__delete__(self)

    return property(
        accessor(member.fget, get, "read"),
        accessor(member.fset, put, "set"),
        accessor(member.fdel, drop, "deleted"),
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


def _locked(name: str, function: Callable[..., Any], *, changes: bool, what: str = "called") -> Callable[..., Any]:
    shared = is_shared(function)
    changes = changes and not shared

    # The wrapper of a driver defined in __main__ travels by value: it may only call what can be imported.
    @functools.wraps(function)
    def operation(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._perform_(function, name, args, kwargs, shared=shared, changes=changes, what=what)

    vars(operation)["_shared"] = shared
    vars(operation)["_locked"] = operation
    return operation


def is_shared(member: Any) -> bool:
    """Return whether a member of a driver's class can be read, or called, while somebody else has the device."""
    if isinstance(member, DeviceProperty):
        return member.readable and member.shared
    return getattr(member.fget if isinstance(member, property) else member, "_shared", False) is True


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


def describe(device: Any) -> dict[str, Any]:
    """Return what a device can do: properties with type, unit, limits, choices and doc; commands with doc.

    Those of its components are among them, as ``outputs[1].voltage``. ``components`` says which there are: their class,
    its doc, and the keys; None for what is known while the device is open only. ``grows`` is true if the device may
    have more of all that when it is open.

    Args:
        device: whose driver it is about.
    """
    found: dict[str, dict[str, Any]] = {"properties": {}, "commands": {}, "components": {}}
    _describe(device, found)
    return found if device._knows_all_ else {**found, "grows": True}


def describe_class(cls: Any) -> dict[str, dict[str, Any]]:
    """Return what :func:`describe` does, as far as the class tells it, of no particular device.

    Args:
        cls: of a device or component.
    """
    found: dict[str, dict[str, Any]] = {"properties": {}, "commands": {}, "components": {}}
    _describe_class(cls, "", found)
    return found


def _describe_class(cls: Any, prefix: str, found: dict[str, dict[str, Any]]) -> None:
    _describe_members(cls, prefix, None, found)
    for name, part in cls._parts_.items():
        known = part._fixed_ if part._ask_ is None else None
        found["components"][f"{prefix}{name}"] = _describe_part(part, None if known is None else list(known))
        for key, component in (known or {}).items():
            at = f"{prefix}{name}" if part._single_ else item(f"{prefix}{name}", key)
            _describe_class(type(component), f"{at}.", found)


def _describe(owner: Any, found: dict[str, dict[str, Any]]) -> None:
    cls = type(owner)
    _describe_members(cls, owner._prefix_, owner, found)
    for name, group in groups_of(owner).items():
        part = cls._parts_[name]
        is_known = part._ask_ is None or owner._device_._life_.is_open
        keys = list(group._known_) if is_known else None
        found["components"][f"{owner._prefix_}{name}"] = _describe_part(part, keys)
        for component in group._known_.values() if is_known else ():
            _describe(component, found)


def _describe_part(part: Part, keys: list[Any] | None) -> dict[str, Any]:
    return {
        "kind": part._base_.__name__,
        "doc": None if part._base_.__doc__ is None else inspect.cleandoc(part._base_.__doc__),
        "single": part._single_,
        "keys": keys,
    }


def _describe_members(cls: Any, prefix: str, owner: Any, found: dict[str, dict[str, Any]]) -> None:
    framework = vars(_root_of(cls))
    for name in _public_names(cls):
        if name in framework:
            continue
        member = inspect.getattr_static(cls, name)
        path = f"{prefix}{name}"
        if isinstance(member, DeviceProperty):
            found["properties"][path] = member.describe(owner)
        elif isinstance(member, property):
            if getattr(member.fget, "_of_components", False):
                continue  # another name for components that are told anyway
            found["properties"][path] = {
                "kind": "property",
                "type": _type_of(member),
                "unit": None,
                "limits": None,
                "choices": None,
                "doc": inspect.getdoc(member),
                "readable": True,
                "writable": member.fset is not None,
                "shared": is_shared(member),
            }
        elif callable(member) and not inspect.isclass(member) and not isinstance(member, Part):
            found["commands"][path] = describe_command(member)


def describe_command(command: Callable[..., Any]) -> dict[str, Any]:
    """Return the signature, the parameters and the doc of a command.

    Of each parameter: its kind as Python calls it, the name of its type, and whether that is an enumeration, whose name
    is then ``module:class``.
    """
    described = _of_function(command) if isinstance(command, FunctionType) else _of_callable(command)
    # A copy, because what the function itself knows is kept.
    return {**described, "parameters": {name: dict(facts) for name, facts in described["parameters"].items()}}


def _of_callable(command: Callable[..., Any]) -> dict[str, Any]:
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


_of_function = functools.lru_cache(maxsize=1024)(_of_callable)
"""The same, looked up once: evaluating annotations takes longer than all else that a description needs. The number is
that of the commands of some dozens of drivers."""


def _type_of(member: property) -> str | None:
    """Return the name of the type with which a property's getter is annotated; None if it is not a plain type."""
    try:
        returned = get_type_hints(member.fget).get("return")
    except Exception:  # noqa: BLE001 - an annotation may name what exists for type checkers only
        return None
    return returned.__name__ if returned in (bool, float, int, str) else None


def interfaces_of(cls: type) -> tuple[str, ...]:
    """Return the names of the interfaces that ``cls`` implements, in the order of its bases."""
    return tuple(base.__name__ for base in cls.__mro__ if vars(base).get("_capability_"))


_FOR_PROGRAMS = ("_driver_snapshot_", "_enter_entry_", "_leave_entry_", "_may_set_", "_there_")
"""Private methods of a device that the programs of this framework call through a proxy."""


def interface_of(cls: Any, kind: str, device: Any) -> Interface:
    """Return what clients may reach of a device of this class, hosted as an object of this kind.

    Args:
        cls: the class.
        kind: the kind.
        device: the device, whose limits are told.
    """
    capabilities = interfaces_of(cls)
    shown = _interface(cls, kind, {}, device)
    methods = shown.methods | dict.fromkeys(_FOR_PROGRAMS)
    return shown._replace(methods=methods, capabilities=capabilities, entered=True)


def interface_of_component(cls: Any) -> Interface:
    """Return what clients may reach of a component of this class."""
    return _interface(cls, "component", {})


def _interface(cls: Any, kind: str, known: dict[type, Interface], device: Any = None) -> Interface:
    """Return what clients may reach of a device or component.

    Args:
        cls: its class.
        kind: its kind as an object of a server.
        known: of the classes of components that were looked at already.
        device: whose limits are told; None for those of the class.
    """
    from catkit_devices.multiprocessing.protocol import Interface, PartInterface

    methods: dict[str, str | None] = {}
    properties: dict[str, str | None] = {}
    signatures: dict[str, Parameters] = {}
    for name in [*_public_names(cls), "__enter__", "__exit__", *sorted(_SPECIAL)]:
        member = inspect.getattr_static(cls, name, None)
        by_itself = _ON_THE_MUTEX if not issubclass(cls, Part) else _OF_A_PROXY
        if name in by_itself or member is None or isinstance(member, Part):
            continue
        if isinstance(member, (property, DeviceProperty)):
            properties[name] = _doc_of_property(member, device)
        elif callable(member) and not inspect.isclass(member):
            methods[name] = inspect.getdoc(member)
            if isinstance(member, FunctionType) and not name.startswith("_"):
                signatures[name] = _parameters_of(member)
    parts: dict[str, PartInterface] = {}
    for name, part in cls._parts_.items():
        there: dict[Any, Interface] | None = None
        if part._fixed_ is not None:
            for one in part._fixed_.values():
                known.setdefault(type(one), _interface(type(one), "component", known))
            there = {key: known[type(one)] for key, one in part._fixed_.items()}
        parts[name] = PartInterface(part._single_, part._base_.__name__, there)
    return Interface(kind, cls.__name__, methods, properties, True, False, (), signatures=signatures, parts=parts)


def _doc_of_property(member: Any, device: Any) -> str | None:
    """Return the doc of a property with its unit and limits, and how it can be used, for ``help()`` of a proxy."""
    doc = inspect.getdoc(member)
    if not isinstance(member, DeviceProperty):
        return doc
    try:
        facts = member.describe(device)
    except Exception:  # noqa: BLE001 - a driver's limits may be code, and this is its documentation only
        return doc
    unit = f" {facts['unit']}" if facts.get("unit") else ""
    told = [f"in {facts['unit']}"] if unit else []
    if facts.get("limits"):
        low, high = facts["limits"]
        bounds = [f"{word} {bound}{unit}" for word, bound in (("from", low), ("to", high)) if bound is not None]
        told += [" ".join(bounds)] if bounds else []
    if facts.get("choices"):
        told += [f"one of {', '.join(map(str, facts['choices']))}"]
    ways = {(True, True): "can be read and set", (True, False): "can only be read", (False, True): "can only be set"}
    told += [ways.get((facts["readable"], facts["writable"]), "")]
    told += ["is read also while another program has the device"] if facts["shared"] else []
    kind = facts.get("type") or "any"
    return f"{doc or ''}\n\nIt is {kind}: {', '.join(filter(None, told))}.".strip()


@functools.lru_cache(maxsize=1024)
def _parameters_of(function: Callable[..., Any]) -> Parameters:
    """Return the parameters of a method, and what it returns, as text: as :func:`_of_function`, looked up once."""
    signature = inspect.signature(function)

    def written(annotation: Any) -> str | None:
        if annotation is inspect.Signature.empty:
            return None
        return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)

    parameters = tuple(
        (
            one.name,
            one.kind.name,
            None if one.default is inspect.Parameter.empty else repr(one.default),
            written(one.annotation),
        )
        for one in signature.parameters.values()
    )
    return parameters, written(signature.return_annotation)


def properties_of(cls: type) -> list[DeviceProperty]:
    """Return the properties that a class declares or inherits, those that are declared in one line."""
    members = (inspect.getattr_static(cls, name, None) for name in _public_names(cls))
    return [member for member in members if isinstance(member, DeviceProperty)]


def _public_names(cls: type) -> list[str]:
    return [name for name in dir(cls) if not name.startswith("_")]
