"""What client and server say to each other of an object: operations, ways to end, interface, place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from catkit_devices.multiprocessing.locks.mutex import Mutex

__all__ = [
    "CALL",
    "DELETE",
    "GET",
    "HANDED_OVER",
    "LOCK",
    "RAISED",
    "REFUSED",
    "RESERVED",
    "RETURNED",
    "ROOT",
    "SELF",
    "SET",
    "SPECIAL",
    "HostedHere",
    "Interface",
    "PartInterface",
    "Reference",
    "Register",
    "emergency_token",
    "running_server",
]

CALL, GET, SET, LOCK, DELETE = range(5)
"""The operations of the channel: call a method, get, set or delete an attribute, act on the lock."""
ROOT = -1
"""The number of the server itself among its objects."""
RETURNED, RAISED, HANDED_OVER, REFUSED = range(4)
"""How a call ended: with a value, with an exception, with a value whose arrival is to be acknowledged; or it was not
begun, because the server could not take its arguments: with an exception, or what the server is short of."""

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
RESERVED = frozenset({"acquire", "lock", "mutex", "release"})
"""What a proxy has of its own."""

running_server: list[Any] = []
"""The server that this process is, if it is one; a child that it forks is none."""

emergency_token: list[str] = []
"""What shows other servers of a testbed that this process makes devices safe for it; empty in every other process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=running_server.clear)
    os.register_at_fork(after_in_child=emergency_token.clear)


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
    entered: bool = False
    """Whether it is kept open, and by whom is counted: by ``open`` and `with`, each an entry (devices)."""
    parts: Mapping[str, PartInterface] = {}
    """Its components by name. What is done to one is done to the object, with a path as name: ``outputs.1.voltage``."""


class PartInterface(NamedTuple):
    """What clients may do with components of an object: with a single one, or with several by key."""

    single: bool
    kind: str
    """The name of the class of the components."""
    there: Mapping[int | str, Interface] | None
    """Of each component by key, a single one under the name of the part; None where the server has to be asked which
    are there: the object's ``_there_``."""


class Reference(NamedTuple):
    """Where an object is found: what a proxy is made from."""

    target: int
    lock: int | None
    kind: str
    name: str
    timeout: float
    interface: Interface | None


class HostedHere(Protocol):
    """An object of the server that this process is, as others of that server see it."""

    reference: Reference
    object: Any
    lock: Any
    mutex: Mutex | None

    def perform(self, operation: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        """Do what another object of this server asks for."""


class Register(Protocol):
    """What takes note of the objects that are made on a server, and of its devices that may be on."""

    def _made_(self, hosted: Any, factory: Any, args: Any) -> None:
        """Remember how an object was made; called before anybody can use it."""

    def _opening_(self, device: Any) -> None:
        """Take note of a device that is about to be opened; what this raises keeps it closed."""

    def _closed_(self, device: Any) -> None:
        """Take note that a device is closed. Returns at once."""


class _Self:
    """Travels in place of the object itself when a method returns it."""

    def __reduce__(self) -> str:
        return "SELF"


SELF = _Self()
