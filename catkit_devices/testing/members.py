"""The public operations of a device, found with ``describe()``, as objects that a test can run."""

from __future__ import annotations

import enum
import inspect
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catkit_devices._base.paths import get_at, reached, set_at, words
from catkit_devices._device.members import is_shared
from catkit_devices.properties import Quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from catkit_devices.device import Device

__all__ = ["Member", "facts_of", "members", "owner_of", "quantities", "resolution_of", "same", "settable", "values_of"]

_OF_THE_FRAMEWORK = "catkit_devices."
"""Members that are defined in its modules belong to every device."""
_DRIVERS = ("catkit_devices.plugins.", "catkit_devices.testing.")
"""... other than those of bundled drivers, and of the drivers for tests."""

_UNBOUNDED = 1000.0
"""The range of the values that are tried where a quantity has no limit, in the unit of the quantity."""

_ARGUMENTS = {"str": "?", "bytes": b"?", "int": 1, "float": 0.0, "bool": False}
"""The arguments of a command for which the test gives none, by the type of the argument."""


@dataclass(frozen=True)
class Member:
    """One operation of a driver: reading or setting a property, or calling a method.

    Attributes:
        name: of the property or method.
        kind: ``"get"``, ``"set"`` or ``"call"``.
        shared: whether it runs without the mutex.
        known: whether the test gives its arguments, or it needs none; otherwise they are invented.
        run: performs the operation.
    """

    name: str
    kind: str
    shared: bool
    known: bool
    run: Callable[[Any], Any]

    def __str__(self) -> str:
        return {"get": f"reading {self.name}", "set": f"setting {self.name}", "call": f"{self.name}()"}[self.kind]


def members(
    device: Device, values: Mapping[str, Sequence[Any]], arguments: Mapping[str, Sequence[Any]]
) -> list[Member]:
    """Return the operations that a driver adds to those of the framework.

    Args:
        device: closed or open.
        values: values to which properties may be set, if they are known.
        arguments: of methods.
    """
    described = device.describe()
    found: list[Member] = []
    for name, facts in described["properties"].items():
        if not _own(*_place(device, name)):
            continue
        if facts["readable"]:
            found.append(Member(name, "get", bool(facts["shared"]), True, _reading(name)))
        if facts["writable"]:
            wanted = values.get(name)
            found.append(Member(name, "set", False, bool(wanted), _setting(name, wanted[0] if wanted else 0)))
    return found + [_call(device, name, arguments) for name in described["commands"] if _own(*_place(device, name))]


def quantities(device: Device) -> dict[str, Quantity]:
    """Return what a driver has declared with Control, Measurement or Setting."""
    names = device.describe()["properties"]
    members = {name: inspect.getattr_static(*_place(device, name)) for name in names}
    return {name: member for name, member in members.items() if isinstance(member, Quantity)}


def facts_of(device: Device, name: str, quantity: Quantity) -> dict[str, Any]:
    """Return what a quantity of a device, or of a component of it, tells of itself."""
    return quantity.describe(owner_of(device, name))


def owner_of(device: Device, name: str) -> Any:
    """Return the device, or the component of it, that has a member."""
    return reached(device, _split(name)[0])


def _place(device: Device, path: str) -> tuple[type, str]:
    """Return the class that has a member of a device, and its name there."""
    before, name = _split(path)
    return type(reached(device, before)), name


def _split(path: str) -> tuple[tuple[str, ...], str]:
    """Return the words for the component, and the name of the member, which may have an argument: ``level['x']``."""
    end = path.rpartition("[")[0] if path.endswith("]") else path
    before, _, _ = end.rpartition(".")
    return words(before) if before else (), path[len(before) + 1 if before else 0 :]


def settable(device: Device, values: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Return, for every property of an open device that can be set, values that it must accept; maybe none.

    Args:
        device: open.
        values: values to which properties can be set, if their declaration does not say.
    """
    declared = quantities(device)
    found: dict[str, list[Any]] = {}
    for name, facts in device.describe()["properties"].items():
        if not facts["writable"]:
            continue
        if name in values:
            found[name] = list(values[name])
        elif name in declared:
            found[name] = values_of(facts_of(device, name, declared[name]))
        else:
            value = get_at(device, name)
            found[name] = [True, False] if isinstance(value, bool) else [value]
    return found


def values_of(facts: Mapping[str, Any]) -> list[Any]:
    """Return values at and within the limits of a declared quantity; none if its type does not say.

    Args:
        facts: of the quantity, from ``describe()`` of the open device.
    """
    if facts["choices"] is not None:
        return list(facts["choices"])
    if facts["type"] == "bool":
        return [True, False]
    if facts["type"] not in ("int", "float"):
        return []
    low, high = bounds(facts)
    middle = low + (high - low) / 2
    found = [low, middle, high]
    return [int(value) for value in (low, math.floor(middle), high)] if facts["type"] == "int" else found


def bounds(facts: Mapping[str, Any]) -> tuple[float, float]:
    """Return the limits of a number, or finite ones if it has none."""
    low, high = facts["limits"] or (None, None)
    if low is None:
        return (-_UNBOUNDED, _UNBOUNDED) if high is None else (high - _UNBOUNDED, high)
    return low, low + _UNBOUNDED if high is None else high


def resolution_of(facts: Mapping[str, Any], declared: float | None) -> float:
    """Return by how much a value that is read back may differ from the one that was set."""
    if declared is not None:
        return declared
    if facts["type"] != "float":
        return 0.0
    low, high = bounds(facts)
    return 1e-3 * (high - low)


def same(one: Any, other: Any, within: float = 0.0) -> bool:
    """Return whether two values are the same; numbers may differ by ``within``, arrays are compared by their elements.

    A member of an Enum is the same as its name, by which it can be set.
    """
    one, other = (value.name if isinstance(value, enum.Enum) else value for value in (one, other))
    if isinstance(one, float | int) and isinstance(other, float | int) and not isinstance(one, bool):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return one == other or abs(one - other) <= within + 1e-9 * max(abs(one), abs(other))
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(same(*pair, within) for pair in zip(one, other, strict=True))
    if hasattr(one, "shape") and hasattr(other, "shape"):
        return bool(one.shape == other.shape and (one == other).all())
    return type(one) is type(other) and bool(one == other)


def _own(cls: type, name: str) -> bool:
    """Return whether a member is defined by a driver, not by the framework."""
    for base in cls.__mro__:
        if name in vars(base):
            module = base.__module__ + "."
            return not module.startswith(_OF_THE_FRAMEWORK) or module.startswith(_DRIVERS)
    return False


def _call(device: Device, name: str, arguments: Mapping[str, Sequence[Any]]) -> Member:
    function = inspect.getattr_static(*_place(device, name))
    shared = is_shared(function)
    if name in arguments:
        return Member(name, "call", shared, True, _calling(name, tuple(arguments[name])))
    made_up = tuple(_made_up(function))
    return Member(name, "call", shared, not made_up, _calling(name, made_up))


def _made_up(function: Any) -> Iterator[Any]:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_ONLY,
            parameter.POSITIONAL_OR_KEYWORD,
        ):
            yield _ARGUMENTS.get(str(getattr(parameter.annotation, "__name__", parameter.annotation)))


def _reading(name: str) -> Callable[[Any], Any]:
    return lambda device: get_at(device, name)


def _setting(name: str, value: Any) -> Callable[[Any], Any]:
    return lambda device: set_at(device, name, value)


def _calling(name: str, arguments: tuple[Any, ...]) -> Callable[[Any], Any]:
    return lambda device: get_at(device, name)(*arguments)
