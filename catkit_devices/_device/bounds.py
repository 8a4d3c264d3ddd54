"""The values that a device or component has read for limits that depend on its properties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["KnownBound", "KnownBounds"]


class KnownBound(NamedTuple):
    """What was read for limits: a property, or what a function has returned.

    Attributes:
        connection: over which it was read.
        value: of the property, or the limits.
        reads: the properties that the function has read, each with its device or component; "" for an exchange.
        whose: the property whose limits the function tells; None for a property that was read.
    """

    connection: Any
    value: Any
    reads: list[tuple[Any, str]]
    whose: Any


class KnownBounds(dict[Any, KnownBound]):
    """What was read for the limits of one device or component, by the property or function that was asked.

    Args:
        connection: returns the connection of the device: values that were read over another connection no longer count.
    """

    def __init__(self, connection: Callable[[], Any]) -> None:
        super().__init__()
        self.connection = connection

    def note(self, of: Any, value: Any, reads: Sequence[tuple[Any, str]] = (), whose: Any = None) -> None:
        """Note what was read now.

        Args:
            of: name of a property that is a limit, or a function that tells limits.
            value: of the property, or the limits.
            reads: what the function has read.
            whose: the property whose limits the function tells.
        """
        self[of] = KnownBound(self.connection(), value, list(dict.fromkeys(reads)), whose)

    def now(self, of: Any) -> KnownBound | None:
        """Return what was read over the connection that the device has now."""
        known = self.get(of)
        return None if known is None or known.connection is not self.connection() else known
