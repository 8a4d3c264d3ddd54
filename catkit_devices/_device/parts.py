"""The parts of a device: single components, or several by key. A component may have parts of its own.

A class declares its parts. A device has them from the beginning, except for those that depend on the instrument: for
these, the instrument is asked each time that a connection has been opened. A component is made once for each device. It
stays the same object as long as there is a component of its kind under its key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from catkit_devices._base.deferred import finished
from catkit_devices._base.paths import item, words
from catkit_devices.errors import ComponentNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from catkit_devices.multiprocessing.protocol import Interface

__all__ = [
    "Group",
    "Key",
    "Part",
    "classes",
    "component_at",
    "components_of",
    "forget_groups",
    "group_of",
    "groups_of",
    "learn",
]

_C = TypeVar("_C")
Key: TypeAlias = int | str


class Part:
    """A declaration in the class of a device or component: of one component, or of several of one kind.

    The names of its members begin and end with an underscore: other names belong to the components themselves.
    """

    _single_: bool
    """Whether it is one component, and not several by key."""
    _name_ = ""
    """The name of the attribute in the class."""
    _base_: type
    """The class of the components; some may be of a class that derives from it."""
    _fixed_: Mapping[Key, Any] | None
    """The declared components by key (a single one by its name); None if the instrument must be asked."""
    _ask_: Callable[[Any], Mapping[Key, Any]] | None
    """A function of the owner that asks the instrument which components it has, and returns such a mapping."""

    def __set_name__(self, owner: type, name: str) -> None:
        if self._name_ not in ("", name):
            raise TypeError(f"{owner.__qualname__}.{name} is {self._name_!r} already: declare each part by itself")
        self._name_ = name

    def __set__(self, owner: Any, value: object) -> None:
        what = "a component, whose properties are set" if self._single_ else "several components"
        raise AttributeError(f"{owner._prefix_}{self._name_} of {owner!r} is {what}: it cannot be replaced")


class Group(Mapping[Key, _C], Generic[_C]):
    """The components of one part of a device, by key: ``supply.outputs[1]``.

    It behaves like a dict that cannot be changed. If it depends on the instrument which components there are, this is
    known only while the device is open; then to use one opens a device of a testbed.
    """

    def __init__(self, part: Part, owner: Any) -> None:
        self._part = part
        self._owner = owner
        self._path_ = f"{owner._prefix_}{part._name_}"
        self._made: dict[Key, Any] = {}
        """Every component that was ever made, by key."""
        self._known_: dict[Key, Any] = {}
        """The present components, as far as they are known."""
        self._words: dict[str, Any] = {}
        """The same, by the key as text, as it is in a path."""
        if part._fixed_ is not None:
            self._make(part._fixed_)

    def _make(self, declared: Mapping[Key, Any]) -> None:
        for key, one in declared.items():
            if key not in self._made or not self._made[key]._is_made_from_(one):
                path = self._path_ if self._part._single_ else item(self._path_, key)
                self._made[key] = one._bound_(self, self._owner, key, path)
        self._known_ = {key: self._made[key] for key in declared}
        self._words = {str(key): component for key, component in self._known_.items()}

    def _learn_(self) -> None:
        """If it depends on the instrument which components there are, ask it."""
        if self._part._ask_ is not None:
            self._make(finished(self._part._ask_(self._owner), f"the function that tells {self._path_}"))

    def _now_(self) -> dict[Key, _C]:
        """Return the present components; if the instrument must be asked, a device of a testbed is opened.

        Raises:
            DeviceClosedError: the instrument must be asked, and the device is closed.
        """
        device = self._owner._device_
        if self._part._ask_ is not None and not device._life_.is_open:
            device._perform_(_nothing, self._path_, (), {}, shared=True, changes=False)
        return self._known_

    def __getitem__(self, key: Key) -> _C:
        found = self._now_()
        try:
            return found[key]
        except (KeyError, TypeError):  # TypeError: it cannot be a key
            raise self._absent_(repr(key)) from None

    def __iter__(self) -> Iterator[Key]:
        return iter(self._now_())

    def __len__(self) -> int:
        return len(self._now_())

    def __repr__(self) -> str:
        return f"<{self._path_} of {self._owner._device_!r}: {', '.join(map(repr, self._known_))}>"

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __reduce__(self) -> Any:
        from catkit_devices._base.paths import reached

        return reached, (self._owner._device_, words(self._path_))

    def _by_word_(self, word: str) -> _C:
        self._now_()
        component: _C | None = self._words.get(word)
        if component is None:
            raise self._absent_(word)
        return component

    def _there_(self) -> dict[Key, Interface]:
        """Return what clients may do with each present component."""
        return {key: component._interface_ for key, component in self._now_().items()}  # type: ignore[attr-defined]  # a component

    def _absent_(self, key: str) -> ComponentNotFoundError:
        """Return the error for a component that does not exist."""
        there = ", ".join(map(repr, self._known_)) or "none"
        problem = f"there is no {self._path_}[{key}], there are {there}"
        return ComponentNotFoundError(problem, **self._owner._device_._facts_())

    def _only_(self) -> _C:
        """Return the component, if the part is a single component.

        Raises:
            ComponentNotFoundError: the instrument does not have it.
        """
        found = self._now_()
        if not found:
            raise ComponentNotFoundError(
                f"there is no {self._path_}: the instrument does not have it", **self._owner._device_._facts_()
            )
        return next(iter(found.values()))


def _nothing(_device: Any) -> None:
    """Do nothing. As an operation, it opens a device that opens on first use."""


def groups_of(owner: Any) -> dict[str, Group[Any]]:
    """Return the parts of a device or component by name."""
    groups: dict[str, Group[Any]] | None = owner.__dict__.get("_groups_")
    if groups is None:
        groups = {name: Group(part, owner) for name, part in type(owner)._parts_.items()}
        groups = owner.__dict__.setdefault("_groups_", groups)
    return groups


def forget_groups(owner: Any) -> None:
    """Have the parts of a device made anew: its class has changed, and declares others."""
    owner.__dict__.pop("_groups_", None)


def learn(owner: Any) -> None:
    """Ask the instrument for the components that depend on it, and for their own components."""
    for group in groups_of(owner).values():
        group._learn_()
        for component in group._known_.values():
            learn(component)


def components_of(owner: Any) -> Iterator[Any]:
    """Yield every present component, as far as they are known; a component comes after its own components."""
    for group in groups_of(owner).values():
        for component in group._known_.values():
            yield from components_of(component)
            yield component


def group_of(owner: Any, name: str) -> Group[Any]:
    """Return the components of one part of a device or component, by its name."""
    group = groups_of(owner).get(name)
    if group is None:
        there = ", ".join(groups_of(owner)) or "none"
        problem = f"there is no component {owner._prefix_}{name}, there are {there}"
        raise ComponentNotFoundError(problem, **owner._device_._facts_())
    return group


def component_at(owner: Any, path: Sequence[str]) -> Any:
    """Return the component at a path, which begins at a device or component; with an empty path, that one itself.

    Raises:
        ComponentNotFoundError: there is no such component.
    """
    rest = list(path)
    while rest:
        name = rest.pop(0)
        group = group_of(owner, name)
        if type(owner)._parts_[name]._single_:
            owner = group._only_()
        elif rest:
            owner = group._by_word_(rest.pop(0))
        else:
            raise group._absent_("")
    return owner


def classes(part: Part) -> set[Any]:
    """Return the classes that the components of a part may have, as far as the declaration says."""
    kinds: set[Any] = {part._base_, *(type(one) for one in (part._fixed_ or {}).values())}
    if part._fixed_ is None:
        kinds |= _derived(part._base_)
    return kinds


def _derived(kind: type) -> set[Any]:
    found: set[Any] = set(kind.__subclasses__())
    return found.union(*(_derived(one) for one in found))
