"""Descriptions of drivers of other frameworks, independent of the framework; and the sources of such drivers."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import FunctionType
from typing import TYPE_CHECKING, Any

from catkit_devices._base.deferred import deferred_kind
from catkit_devices.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from catkit_devices.errors import DeviceError

__all__ = [
    "Children",
    "Description",
    "DriverSource",
    "LeftOut",
    "Member",
    "attributes_set_by",
    "bundled_class",
    "found_class",
    "missing",
    "read_class",
    "syntax_of",
]


@dataclass(frozen=True)
class Member:
    """One property or method of a foreign class.

    A property of which nothing is known but its name takes and returns any value, and the foreign driver checks it.

    Attributes:
        name: in the foreign class.
        doc: what it is.
        function: for a method, the foreign function, whose signature the operation has; None for a property.
        readable: whether a property can be read.
        writable: whether a property can be set.
        numeric: whether a value that is set must be a real number.
        unit: of a property's plain numbers.
        limits: lowest and highest number that can be set; None on either side, or for both, if nothing is known.
        choices: the values that can be set; None if there is no list.
        kind: ``int``, ``bool`` or ``str``, if all values are of that type; None if that is not known.
        read: reads it from the foreign object; None if it is the attribute of that name.
        write: sets it in the foreign object; None if it is the attribute of that name.
        now: what the framework declares of it at present, asked of the foreign object; None if that never changes.
    """

    name: str
    doc: str
    function: Callable[..., Any] | None = None
    readable: bool = True
    writable: bool = False
    numeric: bool = False
    unit: str | None = None
    limits: tuple[float | None, float | None] | None = None
    choices: tuple[Any, ...] | None = None
    kind: type | None = None
    read: Callable[[Any], Any] | None = None
    write: Callable[[Any, Any], None] | None = None
    now: Callable[[Any], Member] | None = None


@dataclass(frozen=True)
class LeftOut:
    """A public member of a foreign class that cannot be an operation, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Children:
    """Objects that a foreign object has, with members of their own: channels, outputs, submodules.

    Attributes:
        name: of the component, and of the attribute of the foreign object.
        description: of one of them; or of each by its key, where they are of different kinds; None if it is known only
            when the device is open.
        find: returns the foreign objects by key, from the object that has them. A single one has its name as its key.
        keys: their keys; None if they are known only when the device is open. Empty for a single one.
    """

    name: str
    description: Description | Mapping[Any, Description] | None
    find: Callable[[Any], Mapping[Any, Any]]
    keys: tuple[int | str, ...] | None = ()


@dataclass(frozen=True)
class Description:
    """A foreign class: what a device of it can do.

    Attributes:
        doc: what it is.
        members: its properties and methods.
        children: its channels and the like.
        left_out: public members that are none of these, and why.
        question: asks the instrument what it is, and returns the answer: a function of the foreign object. None if no
            such question is known.
        uses_visa: whether it is given an address and a VISA library. Otherwise it opens its instrument by itself.
        collections: for the names of dicts in the foreign class, the single children in them by their key.
        complete: whether this is all that an object of the class can have. If not, the rest is known when it is open:
            :meth:`DriverSource.describe_opened` tells it.
    """

    doc: str
    members: tuple[Member, ...] = ()
    children: tuple[Children, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    question: Callable[[Any], Any] | None = None
    uses_visa: bool = False
    collections: Mapping[str, Mapping[Any, str]] = field(default_factory=dict)
    complete: bool = True


class DriverSource(ABC):
    """Finds the drivers of one framework, says what they have, and makes them.

    A plugin registers an object of it by the hook ``catkit_devices_driver_sources``, under the prefix that names the
    framework in ``driver = "PREFIX:rest"``. The framework itself is imported only when a driver is asked for.
    """

    @abstractmethod
    def find(self, text: str) -> type:
        """Return the class that the text after the prefix names.

        Raises:
            ConfigurationError: there is none, with the nearest spelling; or the framework is not installed, and what
                installs it.
        """

    @abstractmethod
    def describe(self, cls: type) -> Description:
        """Return the description of a class. Nothing is opened for it."""

    @abstractmethod
    def construct(self, cls: type, name: str, address: str | None, library: Any, options: Mapping[str, Any], /) -> Any:
        """Make the foreign object, which opens the instrument.

        Args:
            cls: its class.
            name: of the device.
            address: of the instrument; None for a class that does not use VISA.
            library: a VISA library object, through which alone it may talk to the instrument; None like the address.
            options: keyword arguments of its constructor.
        """

    def describe_opened(self, instrument: Any) -> Description:
        """Return the description of an object that was made, where that of its class is not complete."""
        return self.describe(type(instrument))

    def names(self, instrument: Any) -> Any:  # noqa: ARG002 - for frameworks whose objects get members later
        """Return a value that changes when an open object gets or loses members.

        It is compared after each method that was called and each property that was set, so it should cost little. If it
        has changed, :meth:`describe_opened` is asked again. Only for classes whose description is not complete.
        """
        return None

    def describe_child(self, child: Any) -> Description:
        """Return the description of a child that a foreign object was found to have when it was opened."""
        return self.describe(type(child))

    def close(self, instrument: Any) -> None:
        """Have the foreign object give up its connection. The line itself is closed by the device."""
        close = getattr(instrument, "close", None)
        if callable(close):
            close()

    def base(self) -> type | None:
        """Return the subclass of ForeignDevice from which the classes of its devices derive; None for the usual one."""
        return None

    def translate(self, error: Exception) -> tuple[type[DeviceError], str] | None:  # noqa: ARG002 - for sources that know their errors
        """Return what an error of the foreign code becomes, and its text; None for what any error becomes."""
        return None

    def resource(self, instrument: Any) -> Any:
        """Return the resource of pyvisa by which an object that exists already talks to its instrument.

        None if it has none, or several. This finds the one that is an attribute of the object.
        """
        from pyvisa.resources import Resource

        found = {id(one): one for one in getattr(instrument, "__dict__", {}).values() if isinstance(one, Resource)}
        return next(iter(found.values())) if len(found) == 1 else None

    def snapshot(self, instrument: Any) -> dict[str, Any] | None:  # noqa: ARG002 - for frameworks that have snapshots
        """Return what the framework keeps of an object in the record of a measurement; None if it has no such thing.

        It is called while others may use the object. So nothing may be sent to the instrument for it: it is what the
        framework knows already, as values that JSON can express.
        """
        return None

    def claims(self, cls: type) -> bool:  # noqa: ARG002 - for sources that know their classes
        """Return whether a class is one of this framework's, for :func:`catkit_devices.drivers.share`."""
        return False


def missing(framework: str, extra: str, error: ModuleNotFoundError) -> ConfigurationError:
    """Return the error for a framework that is not installed.

    Args:
        framework: its name.
        extra: of this distribution that installs it; its package has the same name.
        error: of the import; that of another module than the framework's is raised as it is.
    """
    if (error.name or "").partition(".")[0] != extra:
        raise error
    return ConfigurationError(f"{framework} is not installed: pip install 'catkit_devices[{extra}]'")


def found_class(module: str, name: str) -> type:
    """Return a class of a module.

    Raises:
        ConfigurationError: the module cannot be imported, or has no such class; with the nearest spelling.
    """
    try:
        there = importlib.import_module(module)
    except Exception as error:
        raise ConfigurationError(f"{module!r} cannot be imported: {type(error).__name__}: {error}") from error
    cls = getattr(there, name, None)
    if not isinstance(cls, type):
        classes = [known for known, value in vars(there).items() if isinstance(value, type)]
        raise ConfigurationError(f"{module!r} has no class {name!r}", suggestion=nearest(name, classes))
    return cls


def bundled_class(text: str, base: type, *, framework: str, prefix: str, package: str, example: str) -> type:
    """Return an instrument class that a framework brings with it, or one of any other module.

    Args:
        text: module and class. The module is looked for in the package first, where each maker has one.
        base: from which all instrument classes of the framework derive.
        framework: its name.
        prefix: of its drivers in a configuration.
        package: in which it has its drivers.
        example: of a right text.

    Raises:
        ConfigurationError: there is no such class; with the nearest spelling.
    """
    where, _, name = text.rpartition(".")
    if not where:
        raise ConfigurationError(f"expected a maker and a class, '{prefix}:{example}', got {text!r}")
    bundled = f"{package}.{where}"
    module = bundled if _exists(bundled) else where
    try:
        there = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, module.partition(".")[0]):
            raise ConfigurationError(f"{module!r} needs the Python module {error.name!r}") from error
        makers = [one.name for one in pkgutil.iter_modules(importlib.import_module(package).__path__) if one.ispkg]
        raise ConfigurationError(
            f"{framework} has no maker {where!r}, and there is no module of that name",
            suggestion=nearest(where, makers),
        ) from None
    cls = getattr(there, name, None)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        classes = [known for known, one in vars(there).items() if isinstance(one, type) and issubclass(one, base)]
        near = nearest(name, classes)
        raise ConfigurationError(
            f"{module!r} has no instrument {name!r}", suggestion=f"{prefix}:{where}.{near}" if near else None
        )
    return cls


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def read_class(cls: type, without: Iterable[str] = ()) -> tuple[list[Member], list[LeftOut]]:
    """Return the public members of any Python class, and those that cannot be operations.

    Attributes that its constructor sets are properties too. Names that begin with an underscore are left out.

    Args:
        cls: the class.
        without: names that are not looked at.
    """
    members: list[Member] = []
    left_out: list[LeftOut] = []
    skipped = frozenset(without)
    for name in dir(cls):
        if name.startswith("_") or name in skipped:
            continue
        found = inspect.getattr_static(cls, name)
        one = _member(name, found)
        if isinstance(one, Member):
            members.append(one)
        elif one is not None:
            left_out.append(one)
    set_by_it = [name for name in attributes_set_by(cls) if name not in skipped and not hasattr(cls, name)]
    members += [Member(name, f"Attribute {name!r} of the driver's object.", writable=True) for name in set_by_it]
    return members, left_out


def _member(name: str, found: Any) -> Member | LeftOut | None:
    doc = inspect.getdoc(found) or ""
    if isinstance(found, property) or (hasattr(type(found), "__get__") and hasattr(type(found), "__set__")):
        readable, writable = getattr(found, "fget", True) is not None, getattr(found, "fset", True) is not None
        return Member(name, doc or f"Property {name!r}.", readable=readable, writable=writable)
    function = found.__func__ if isinstance(found, staticmethod | classmethod) else found
    if isinstance(function, FunctionType):
        kind = deferred_kind(function)
        if kind is not None:
            return LeftOut(name, f"is a {kind}: its work would be done after the operation has ended")
        return Member(name, doc or f"Method {name!r}.", function=found)
    if isinstance(found, type):
        return LeftOut(name, "is a class")
    if callable(found) or hasattr(type(found), "__get__"):
        return LeftOut(name, f"is a {type(found).__name__}, which is no plain method or property")
    if isinstance(found, bool | int | float | str | bytes | None):
        return Member(name, f"Attribute {name!r} of the driver's class.", writable=True)
    return LeftOut(name, f"is a value of the class, of the type {type(found).__name__}")


def attributes_set_by(cls: type) -> Iterator[str]:
    """Yield the public attributes that the constructors of a class, and of its base classes, set on the object."""
    seen = set()
    for base in cls.__mro__:
        constructor = vars(base).get("__init__")
        if isinstance(constructor, FunctionType):
            for name in _assigned_in(constructor):
                if name not in seen and not name.startswith("_"):
                    seen.add(name)
                    yield name


def syntax_of(function: FunctionType) -> ast.Module:
    """Return the syntax of a function; an empty one if its source is not there."""
    try:
        source = inspect.getsource(function)
        # That of a method is indented, and a text in it may have lines that are not.
        return ast.parse(f"if True:\n{source}" if source[:1].isspace() else source)
    except (OSError, TypeError, SyntaxError):
        return ast.Module([], [])


def _assigned_in(constructor: FunctionType) -> Iterator[str]:
    for node in ast.walk(syntax_of(constructor)):
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        for target in targets:
            is_own = isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name)
            if is_own and target.value.id == "self":  # type: ignore[attr-defined]  # an attribute of a name
                yield target.attr  # type: ignore[attr-defined]  # as above
