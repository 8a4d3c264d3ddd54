"""Dicts and namespaces whose operations are atomic; several operations can be made one atomic operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

from catkit_devices._base.deferred import finished, refuse_deferred
from catkit_devices.multiprocessing.hosted import HostedObject
from catkit_devices.multiprocessing.locks.mutex import DEFAULT_TIMEOUT, Mutex, exit_section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MutexedDict", "MutexedNamespace"]

_K = TypeVar("_K")
_V = TypeVar("_V")
_MISSING: Any = object()
"""Tells ``pop(key)`` from ``pop(key, None)``."""


class _Mutexed(HostedObject):
    """An object under a mutex: each operation is atomic, and ``with`` makes several operations one atomic operation."""

    __slots__ = ()
    _direct_ = False
    _section_ = True
    _server_locks_ = True
    _mutex_: Mutex

    @property
    def mutex(self) -> Mutex:
        """The mutex."""
        return self._mutex_

    def __enter__(self) -> Self:
        self.mutex.__enter__()
        return self

    __exit__ = exit_section


class MutexedDict(_Mutexed, dict[_K, _V]):
    """A dict under a mutex: each operation is atomic; ``with shared_dict:`` makes several one atomic operation.

    Args:
        *args, **kwargs: as for ``dict``.
        name: of its mutex, for messages.
        load: called with a missing key to make its value, once, under the mutex.
        lock: a mutex, or an object that has one as ``.mutex``; the dict then uses this mutex.
        timeout: seconds that an operation waits for the mutex; None for 60, or for the timeout of ``lock``.
    """

    def __init__(
        self,
        *args: Any,
        name: str = "dict",
        load: Callable[[_K], _V] | None = None,
        lock: Any = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> None:
        shared = lock if lock is None or isinstance(lock, Mutex) else lock.mutex
        if timeout is None:
            timeout = DEFAULT_TIMEOUT if shared is None else shared.timeout
        self._mutex_ = Mutex(name, timeout, shared)
        refuse_deferred(load, f"the function that loads dict {name!r}")
        self._load = load
        super().__init__(*args, **kwargs)

    def __missing__(self, key: _K) -> _V:
        if self._load is None:
            raise KeyError(key)
        value = self[key] = finished(self._load(key), f"the function that loads dict {self.mutex.name!r}")
        return value

    def __getitem__(self, key: _K) -> _V:
        with self.mutex:
            return super().__getitem__(key)

    def __setitem__(self, key: _K, value: _V) -> None:
        with self.mutex:
            super().__setitem__(key, value)

    def __delitem__(self, key: _K) -> None:
        with self.mutex:
            super().__delitem__(key)

    def __contains__(self, key: object) -> bool:
        with self.mutex:
            return super().__contains__(key)

    def __len__(self) -> int:
        with self.mutex:
            return super().__len__()

    def __iter__(self) -> Iterator[_K]:
        with self.mutex:
            return iter(list(super().__iter__()))

    def __reversed__(self) -> Iterator[_K]:
        with self.mutex:
            return iter(list(super().__reversed__()))

    def __eq__(self, other: object) -> bool:
        with self.mutex:
            return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __or__(self, other: Any) -> dict[Any, Any]:
        with self.mutex:
            return dict(super().items()) | dict(other)

    def __ror__(self, other: Any) -> dict[Any, Any]:
        with self.mutex:
            return dict(other) | dict(super().items())

    def __ior__(self, other: Any) -> MutexedDict[_K, _V]:  # type: ignore[override]  # wider than dict's, as update
        self.update(other)
        return self

    def __repr__(self) -> str:
        with self.mutex:
            return super().__repr__()

    def __reduce__(self) -> Any:
        return dict, (self.copy(),)

    def get(self, key: _K, default: Any = None) -> Any:
        """As ``dict.get``: a missing key is not loaded."""
        with self.mutex:
            return super().get(key, default)

    def setdefault(self, key: _K, default: Any = None) -> Any:
        """As ``dict.setdefault``."""
        with self.mutex:
            return super().setdefault(key, default)

    def pop(self, key: _K, default: Any = _MISSING) -> Any:
        """As ``dict.pop``."""
        with self.mutex:
            return super().pop(key) if default is _MISSING else super().pop(key, default)

    def popitem(self) -> tuple[_K, _V]:
        """As ``dict.popitem``."""
        with self.mutex:
            return super().popitem()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """As ``dict.update``."""
        with self.mutex:
            super().update(*args, **kwargs)

    def clear(self) -> None:
        """As ``dict.clear``."""
        with self.mutex:
            super().clear()

    def copy(self) -> dict[_K, _V]:
        """Return a plain dict with its present items."""
        with self.mutex:
            return dict(super().items())

    def keys(self) -> Any:
        """Return the present keys; later changes are not seen in them."""
        return self.copy().keys()

    def values(self) -> Any:
        """Return the present values; later changes are not seen in them."""
        return self.copy().values()

    def items(self) -> Any:
        """Return the present items; later changes are not seen in them."""
        return self.copy().items()

    @classmethod
    def fromkeys(cls, keys: Any, value: Any = None) -> MutexedDict[Any, Any]:
        """As ``dict.fromkeys``."""
        return cls(dict.fromkeys(keys, value))


class MutexedNamespace(_Mutexed):
    """An object whose attributes are shared by name; ``with namespace:`` makes several accesses atomic."""

    _fixed_ = False
    _stores_values_ = True

    def __init__(self, name: str = "namespace", timeout: float = DEFAULT_TIMEOUT, **values: Any) -> None:
        object.__setattr__(self, "_mutex_", Mutex(name, timeout))
        vars(self).update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        member = getattr(type(self), name, None)
        settable = hasattr(type(member), "__set__")  # a property of a subclass
        if name == "mutex" or (name in dir(type(self)) and not settable):
            raise AttributeError(f"{name!r} is a name of the namespace itself: give the value another name")
        with self.mutex:
            object.__setattr__(self, name, value)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name == "mutex":
            return object.__getattribute__(self, name)
        with self.mutex:
            return object.__getattribute__(self, name)

    def __delattr__(self, name: str) -> None:
        with self.mutex:
            object.__delattr__(self, name)

    def __repr__(self) -> str:
        with self.mutex:
            shown = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if name != "_mutex_")
        return f"MutexedNamespace({shown})"
