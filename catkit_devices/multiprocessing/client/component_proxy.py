"""Proxies of the components of an object on a server: of a single one, and of several by key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from catkit_devices._base.paths import item, reached
from catkit_devices.errors import ComponentNotFoundError
from catkit_devices.multiprocessing.client.proxy import ObjectProxy, Proxy
from catkit_devices.multiprocessing.protocol import CALL, RESERVED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from catkit_devices.multiprocessing.protocol import Interface, PartInterface

    Key = int | str
    """The key of a component among several."""

__all__ = ["ComponentProxy", "ComponentsProxy"]


class _Part:
    """Represents one component of an object on a server, or several: the object, and their place in it."""

    __slots__ = ()
    _proxy_: Any
    """The proxy of the object."""
    _where_: str
    """The path in the form for the server: ``outputs.1``."""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _Part):
            return (self._proxy_, self._where_) == (other._proxy_, other._where_)
        return NotImplemented

    def __hash__(self) -> int:
        return hash((self._proxy_, self._where_))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return reached, (self._proxy_, tuple(self._where_.split(".")))


class ComponentProxy(_Part, Proxy):
    """Represents a component of an object on a server. Each operation is one of that object, under its mutex."""

    __slots__ = ("_key", "_path_", "_proxy_", "_where_")
    _key: Key
    _path_: str
    """The path in the form for people: ``outputs[1]``."""

    @property
    def device(self) -> ObjectProxy:
        """The device of which it is a part."""
        device: ObjectProxy = self._proxy_
        return device

    @property
    def key(self) -> Key:
        """Its key among the components of its kind."""
        return self._key

    def _ask_(self, operation: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        try:
            return self._proxy_._ask_(operation, f"{self._where_}.{name}", args, kwargs)
        except AttributeError:
            self._proxy_._remote_.components.clear()  # the components may have changed: the server is asked again
            raise

    def _called_(self) -> str:
        return f"{self._proxy_._called_()}, {self._path_}"

    def __getattr__(self, name: str) -> Any:
        if name in RESERVED:
            raise AttributeError(f"{self!r} has no attribute {name!r}: it has the mutex of its device")
        return super().__getattr__(name)

    def __repr__(self) -> str:
        remote = self._proxy_._remote_
        return f"<{self._interface.name} '{remote.name}.{self._path_}' on server {remote.server.name!r}>"


class ComponentsProxy(_Part, Mapping["Key", ComponentProxy]):
    """Represents several components of an object on a server, by key.

    Which components there are may depend on the instrument. Then the server is asked: when a component is first used,
    and each time that all of them are needed.
    """

    __slots__ = ("_make", "_owner", "_part", "_path_", "_where_")

    def __init__(
        self,
        owner: ObjectProxy | ComponentProxy,
        name: str,
        part: PartInterface,
        make: Callable[[Interface], ComponentProxy],
    ) -> None:
        at, where = (f"{owner._path_}.", f"{owner._where_}.") if isinstance(owner, ComponentProxy) else ("", "")
        self._owner = owner
        self._part = part
        self._make = make
        self._path_ = f"{at}{name}"
        self._where_ = f"{where}{name}"

    @property
    def _proxy_(self) -> ObjectProxy:
        return self._owner._proxy_ if isinstance(self._owner, ComponentProxy) else self._owner

    def _there(self) -> Mapping[Key, Interface]:
        if self._part.there is not None:
            return self._part.there
        there: Mapping[Key, Interface] = self._proxy_._ask_(CALL, "_there_", (self._where_,), None)
        self._proxy_._remote_.keep_components(self._where_, there)
        return there

    def _component(self, key: Key, interface: Interface) -> ComponentProxy:
        component = self._make(interface)
        single = self._part.single
        for name, value in (
            ("_proxy_", self._proxy_),
            ("_key", key),
            ("_path_", self._path_ if single else item(self._path_, key)),
            ("_where_", self._where_ if single else f"{self._where_}.{key}"),
        ):
            object.__setattr__(component, name, value)
        return component

    def __getitem__(self, key: Key) -> ComponentProxy:
        known = self._proxy_._remote_.components.get(self._where_, {}) if self._part.there is None else self._part.there
        try:
            if key not in known:
                known = self._there()
            return self._component(key, known[key])
        except (KeyError, TypeError):  # TypeError: it cannot be a key
            raise self._absent(repr(key), known) from None

    def _by_word_(self, word: str) -> ComponentProxy:
        known = self._there()
        for key in known:
            if str(key) == word:
                return self[key]
        raise self._absent(word, known)

    def _only_(self) -> ComponentProxy:
        """Return the component, if the part is a single component."""
        known = self._proxy_._remote_.components.get(self._where_) or self._there()
        for key, interface in known.items():
            return self._component(key, interface)
        problem = f"there is no {self._path_}: the instrument does not have it"
        raise ComponentNotFoundError(problem, device=self._proxy_._remote_.name)

    def _absent(self, key: str, known: Mapping[Key, Interface]) -> ComponentNotFoundError:
        there = ", ".join(map(repr, known)) or "none"
        problem = f"there is no {self._path_}[{key}], there are {there}"
        return ComponentNotFoundError(problem, device=self._proxy_._remote_.name)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._there())

    def __len__(self) -> int:
        return len(self._there())

    def __repr__(self) -> str:
        return f"<{self._path_} of {self._proxy_!r}>"
