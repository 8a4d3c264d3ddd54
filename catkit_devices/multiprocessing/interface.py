"""What client and server say to each other of an object: operations, ways to end, interface, place."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = [
    "CALL",
    "DELETE",
    "GET",
    "HANDED_OVER",
    "LOCK",
    "RAISED",
    "RETURNED",
    "ROOT",
    "SELF",
    "SET",
    "SPECIAL",
    "Interface",
    "Reference",
    "running_server",
]

CALL, GET, SET, LOCK, DELETE = range(5)
"""The operations of the channel: call a method, get, set or delete an attribute, act on the lock."""
ROOT = -1
"""The number of the server itself among its objects."""
RETURNED, RAISED, HANDED_OVER = range(3)
"""How a call ended: with a value, with an exception, with a value whose arrival is to be acknowledged."""

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


running_server: list[Any] = []
"""The server that this process is, if it is one."""


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


class _Self:
    """Travels in place of the object itself when a method returns it."""

    def __reduce__(self) -> str:
        return "SELF"


SELF = _Self()
