"""What a device can do, as plain data for people and programs, and as the interface that proxies are made from."""

from __future__ import annotations

import enum
import inspect
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from catkit_devices._device.access import DeviceProperty
from catkit_devices._device.members import SPECIAL

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from catkit_devices.device import Device
    from catkit_devices.multiprocessing.protocol import Interface

__all__ = ["describe", "describe_command", "interface_of"]

_ON_THE_MUTEX = frozenset({"acquire", "lock", "mutex", "release", "wait"})
"""What a proxy does by itself, or a driver only."""


def describe(device: Device, framework: Container[str]) -> dict[str, Any]:
    """Return what the device can do: properties with type, unit, limits, choices and doc; commands with doc.

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
    return {
        "name": device.name,
        "driver": cls.driver,
        "address": device._address_,
        "properties": properties,
        "commands": commands,
    }


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


def interface_of(cls: type[Device], kind: str) -> Interface:
    """Return what clients may reach of a device of this class, hosted as an object of this kind."""
    from catkit_devices.multiprocessing.protocol import Interface

    capabilities = tuple(base.__name__ for base in cls.__mro__ if vars(base).get("_capability_"))
    methods: dict[str, str | None] = {}
    properties: dict[str, str | None] = {}
    for name in [*_public_names(cls), "__enter__", "__exit__", *sorted(SPECIAL)]:
        member = inspect.getattr_static(cls, name, None)
        if name in _ON_THE_MUTEX or member is None:
            continue
        if isinstance(member, (property, DeviceProperty)):
            properties[name] = inspect.getdoc(member)
        elif callable(member) and not inspect.isclass(member):
            methods[name] = inspect.getdoc(member)
    methods |= {"_enter_entry_": None, "_leave_entry_": None}
    return Interface(kind, cls.__name__, methods, properties, True, False, capabilities, True)


def _public_names(cls: type[Device]) -> list[str]:
    return [name for name in dir(cls) if not name.startswith("_")]
