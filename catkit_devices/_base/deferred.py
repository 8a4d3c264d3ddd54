"""Refuses functions whose body does not run when they are called (coroutines, generators), and results of such.

If the framework calls a function for its effect, and the body does not run, nothing happens and nobody notices: a
laser's ``async def _make_safe`` leaves it on. So such a function is refused when it is passed in. If a plain function
returns a coroutine, an iterator or a future, the result is refused; so is a function, which the author has forgotten to
call. A coroutine that a plain function makes and drops is noticed, too.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from functools import lru_cache, partial
from types import AsyncGeneratorType, BuiltinFunctionType, CoroutineType, FunctionType, GeneratorType, MethodType
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "Watched",
    "deferred_kind",
    "done",
    "finished",
    "is_undone",
    "refuse_deferred",
    "refuse_deferred_methods",
    "replaces_plain",
]

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
        TypeError: it is a coroutine, a generator, an iterator, a future, or something else whose work is not done; or a
            list, tuple, set or dict with such a thing in it.
    """
    undone = [one for one in _parts(result) if _is_undone(one)]
    for one in undone:
        if isinstance(one, (CoroutineType, GeneratorType)):
            one.close()
    if undone:
        raise TypeError(f"{what} returned {_told(result, undone[0])}, whose work is not done: {_INSTEAD}")
    return result


def done(result: _T, what: str) -> _T:
    """Return the result of a function that is called for its effect; raises as :func:`finished`.

    Raises:
        TypeError: it is also a function or method, or has one in it: the author has forgotten to call that.
    """
    for one in _parts(finished(result, what)):
        if isinstance(one, _FUNCTIONS):
            raise TypeError(f"{what} returned {_told(result, one)}, which was not called")
    return result


class Watched:
    """A block in which no coroutine may be made that never runs: ``self._off()`` without ``await``.

    It notices those that this thread makes and drops. One that is kept somewhere is not noticed, nor is a generator.

    Args:
        what: is done in the block.

    Raises:
        TypeError: at the end of the block, if that raises no error.
    """

    __slots__ = ("_before", "_depth", "_dropped", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._dropped: list[str] = []

    def __enter__(self) -> Self:
        if _warn is not None and warnings._warn_unawaited_coroutine is _warn:  # type: ignore[attr-defined]  # noqa: SLF001
            warnings._warn_unawaited_coroutine = _note_dropped  # type: ignore[attr-defined]  # noqa: SLF001
        self._before = getattr(_watched, "dropped", None)
        _watched.dropped = self._dropped
        # With it, a coroutine knows where it was made; one that another thread has made does not.
        self._depth = sys.get_coroutine_origin_tracking_depth()
        sys.set_coroutine_origin_tracking_depth(max(self._depth, 1))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        sys.set_coroutine_origin_tracking_depth(self._depth)
        _watched.dropped = self._before
        if kind is None and self._dropped:
            made = ", ".join(self._dropped)
            raise TypeError(f"{self._what} has made a coroutine that never ran ({made}): run it, with asyncio.run()")


_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, partial)
"""Types of what has to be called; an object of another class that can be called may be a connection."""
_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None)})
"""Types of values that are no work and contain none."""
_DEPTH = 20
"""Depth of nested containers that are looked at: a list that contains itself would have no end."""
_watched = threading.local()
"""``dropped``: where the coroutines of the present block were made that were dropped."""


def _parts(result: Any, depth: int = _DEPTH) -> Iterator[Any]:
    """Yield a result and, if it is a container, everything in it."""
    yield result
    inside = result.values() if isinstance(result, dict) else result
    if depth and isinstance(result, (dict, list, tuple, set, frozenset)):
        for part in inside:
            if type(part) not in _PLAIN:
                yield from _parts(part, depth - 1)


def _is_undone(one: Any) -> bool:
    kind = type(one)
    made_by_python = issubclass(kind, (CoroutineType, GeneratorType, AsyncGeneratorType))
    is_connection = hasattr(kind, "close") and not hasattr(kind, "__await__") and not made_by_python
    return is_undone(kind) and not is_connection  # type: ignore[arg-type]  # mypy takes a class for something unhashable


def _told(result: Any, one: Any) -> str:
    """Return a part of a result in words: ``a coroutine``, ``a list with a coroutine in it``."""
    part = f"a {type(one).__name__}"
    return part if one is result else f"a {type(result).__name__} with {part} in it"


_warn: Any = getattr(warnings, "_warn_unawaited_coroutine", None)
"""Python calls the function of that name for each coroutine that is dropped before it has run. A filter of warnings
would hold for all threads, and would not be asked twice for the same line."""


def _note_dropped(coroutine: Any) -> None:
    if coroutine.cr_origin is None:  # as Python warns, which says from where it is called
        text = f"coroutine '{coroutine.__qualname__}' was never awaited"
        warnings.warn(text, RuntimeWarning, stacklevel=2, source=coroutine)
        return
    dropped = getattr(_watched, "dropped", None)
    if dropped is not None:
        file, line, _ = coroutine.cr_origin[0]
        dropped.append(f"{coroutine.__qualname__}, line {line} of {file}")
    _warn(coroutine)
