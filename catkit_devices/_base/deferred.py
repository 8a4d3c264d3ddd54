"""Refuses functions whose body does not run when they are called (coroutines, generators), and results of such.

If the framework calls a function for its effect, and the body does not run, nothing happens and nobody notices: a
laser's ``async def _make_safe`` leaves it on. So such a function is refused when it is passed in. If a plain function
returns a coroutine, an iterator or a future, the result is refused.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache, partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType, MethodType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["deferred_kind", "finished", "is_undone", "refuse_deferred", "refuse_deferred_methods", "replaces_plain"]

_T = TypeVar("_T")

# Of code objects; the standard library has names for them in inspect, which takes long to import.
_COROUTINE = 0x80 | 0x100
_ASYNCHRONOUS_GENERATOR = 0x200
_GENERATOR = 0x20

_INSTEAD = "write it as a plain function; what is asynchronous is run inside of it, with asyncio.run()"
"""What errors say that the author should do."""


def deferred_kind(function: Any) -> str | None:
    """Return the kind of a function whose body does not run when it is called; None for every other function."""
    while isinstance(function, (MethodType, staticmethod, classmethod, partial)):
        function = function.func if isinstance(function, partial) else function.__func__
    code = getattr(function, "__code__", None)
    if code is None:
        # An object that can be called; but not a class: to call a class makes an object.
        call = None if isinstance(function, type) else getattr(type(function), "__call__", None)  # noqa: B004 - of the class: what runs when it is called
        return deferred_kind(call) if hasattr(call, "__code__") else None
    if getattr(function, "__globals__", None) is vars(contextlib):
        return "context manager made from a generator"
    if code.co_flags & _ASYNCHRONOUS_GENERATOR:
        return "asynchronous generator"
    if code.co_flags & _COROUTINE:
        return "coroutine"
    return "generator" if code.co_flags & _GENERATOR else None


def refuse_deferred(function: Any, what: str) -> None:
    """Raise TypeError if the body of a function would not run when it is called.

    Args:
        function: any function; None, and objects that are not functions, are accepted.
        what: its name in messages.
    """
    kind = deferred_kind(function)
    if kind is not None:
        raise TypeError(f"{what} is a {kind}, whose body does not run when it is called: {_INSTEAD}")


def refuse_deferred_methods(cls: type, names: Iterable[str]) -> None:
    """Raise TypeError if the body of one of these methods of a class would not run when it is called."""
    for name in names:
        member = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
        refuse_deferred(member, f"{cls.__qualname__}.{name}")


def replaces_plain(cls: type, name: str, member: Any) -> bool:
    """Return whether ``member`` of a class replaces an inherited method whose body runs when it is called."""
    inherited = [vars(base)[name] for base in cls.__mro__ if vars(base).get(name, member) is not member]
    return any(callable(one) and deferred_kind(one) is None for one in inherited)


@lru_cache(maxsize=256)
def is_undone(kind: type) -> bool:
    """Return whether values of a type are work that is done later or step by step: coroutines, iterators, futures.

    A future of ``concurrent.futures`` or a result of a pool counts even if its work has ended: it may have failed, and
    raises the error only when its result is asked for.
    """
    return (
        any(hasattr(kind, name) for name in ("__next__", "__anext__", "__await__"))
        or (hasattr(kind, "add_done_callback") and hasattr(kind, "result"))
        or (hasattr(kind, "ready") and hasattr(kind, "successful"))
    )


def finished(result: _T, what: str) -> _T:
    """Return the result of a function, if its work is done.

    An object that can be iterated and closed, such as a file or a serial port, is a connection and is accepted.

    Raises:
        TypeError: it is a coroutine, a generator, an iterator, a future, or something else whose work is not done.
    """
    kind = type(result)
    made_by_python = issubclass(kind, (CoroutineType, GeneratorType, AsyncGeneratorType))
    is_connection = hasattr(kind, "close") and not hasattr(kind, "__await__") and not made_by_python
    if is_undone(kind) and not is_connection:  # type: ignore[arg-type]  # mypy takes a class for something unhashable
        if isinstance(result, (CoroutineType, GeneratorType)):
            result.close()
        raise TypeError(f"{what} returned a {kind.__name__}, whose work is not done: {_INSTEAD}")
    return result
