"""What client and server send each other about an object: operations, results, interface, reference."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from catkit_devices.multiprocessing.locks.mutex import Mutex

if TYPE_CHECKING:
    from collections import deque

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
    "AuditTrail",
    "HostedHere",
    "Interface",
    "PartInterface",
    "Reference",
    "Register",
    "audit_trail",
    "emergency_token",
    "running_server",
]

CALL, GET, SET, LOCK, DELETE = range(5)
"""The operations of the channel: call a method, get, set or delete an attribute, act on the lock."""
ROOT = -1
"""The number of the server itself among its objects."""
RETURNED, RAISED, HANDED_OVER, REFUSED = range(4)
"""How a call ended: with a value, with an exception, with a value whose arrival the client must acknowledge; or it was
not begun, because the server could not load its arguments: with an exception, or with what the server is out of."""

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
"""The special methods that a proxy passes on, if the user's class defines them."""
RESERVED = frozenset({"acquire", "lock", "mutex", "release"})
"""Names of the proxy's own members."""


class AuditTrail(Protocol):
    """Writes down who has changed what; called for each change. It never waits, and never raises an error."""

    @property
    def noted(self) -> deque[tuple[Any, ...]]:
        """Changes that nothing need be asked about are appended here: when, and the arguments of a call, in order.

        Those are changes whose values are numbers, texts or None, and which have raised no error.
        """

    def __call__(
        self,
        call: Any,
        what: str,
        target: str,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        error: BaseException | None,
        epoch: int = 0,
    ) -> None:
        """Note one change.

        Args:
            call: on whose behalf.
            what: was done: a participle.
            target: the device, or the mutex.
            name: of the operation; empty if the target has only one.
            args: of the operation.
            kwargs: the same, by name.
            error: that it has raised, if it has.
            epoch: a number that is another one after the device was made safe or closed.
        """


audit_trail: list[AuditTrail] = []
"""Where the changes of this process are noted, in a server of a testbed; empty in all other processes."""

running_server: list[Any] = []
"""The server that runs in this process, or empty; also empty in a child that it forks."""

emergency_token: list[str] = []
"""The secret that proves to other servers of a testbed that a call is part of making devices safe; empty in all other
processes."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=audit_trail.clear)
    os.register_at_fork(after_in_child=running_server.clear)
    os.register_at_fork(after_in_child=emergency_token.clear)


Parameters = tuple[tuple[tuple[str, str, str | None, str | None], ...], str | None]
"""The parameters of a method (of each: name, kind, default and type, as text), and the type of what it returns."""


class Interface(NamedTuple):
    """What clients may do with an object; sent to them."""

    kind: str
    name: str
    methods: dict[str, str | None]
    """Docstrings by name."""
    properties: dict[str, str | None]
    fixed: bool
    """Whether there are no other attributes (devices)."""
    section: bool
    """Whether `with` on it holds its lock during the block."""
    capabilities: tuple[str, ...]
    """Names of the capability interfaces that its class implements."""
    entered: bool = False
    """Whether ``open`` and `with` keep it open, each as an entry that is counted (devices)."""
    grows: bool = False
    """Whether it has more when it is open, which the server says then: by the object's ``_when_open_``."""
    signatures: Mapping[str, Parameters] = {}
    """The parameters of methods, as far as they are told (devices)."""
    parts: Mapping[str, PartInterface] = {}
    """Its components by name. An operation on one is an operation on the object, by its path: ``outputs.1.voltage``."""


class PartInterface(NamedTuple):
    """What clients may do with components of an object: with a single one, or with several by key."""

    single: bool
    kind: str
    """The name of the class of the components."""
    there: Mapping[int | str, Interface] | None
    """The interfaces of the components by key (of a single one: by the name of the part); None if the server must be
    asked which components there are: by the object's ``_there_``."""


class Reference(NamedTuple):
    """How an object is found on its server: a proxy is made from it."""

    target: int
    lock: int | None
    kind: str
    name: str
    timeout: float
    interface: Interface | None


class HostedHere(Protocol):
    """An object of the server in this process, as other objects of that server use it."""

    reference: Reference
    object: Any
    lock: Any
    mutex: Mutex | None

    def perform(self, operation: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        """Carry out an operation for another object of this server."""


class Register(Protocol):
    """Records the objects that are made on a server, and its devices that may be switched on."""

    def _made_(self, hosted: Any, factory: Any, args: Any) -> None:
        """Record how an object was made; called before it can be used."""

    def _opening_(self, device: Any) -> None:
        """Record a device that is about to be opened; if this raises, the device is not opened."""

    def _closed_(self, device: Any) -> None:
        """Record that a device is closed. Returns at once."""


class _Self:
    """Is sent instead of the object, if a method returns the object itself."""

    def __reduce__(self) -> str:
        return "SELF"


SELF = _Self()
"""The only one in each process: it is sent by its name, and compared with ``is``."""
