"""Finds and checks plugins, and makes a device from the name of its driver.

Plugins come from four places: the modules bundled with the framework, installed distributions (entry points of the
group ``catkit_devices``), the directories named in a configuration, and those in ``CATKIT_DEVICES_PLUGINS``. If a
plugin cannot be imported, the error is kept in :attr:`Plugins.problems`, and all other plugins work. If a plugin breaks
the rules (a name that is used twice, a misspelt hook, a wrong signature), an error is raised at once, which names it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import os
import pkgutil
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, MappingProxyType, MethodType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from catkit_devices import hookspecs
from catkit_devices._base.deferred import deferred_kind
from catkit_devices._base.plugin_path import make_importable
from catkit_devices.construction import bind_options
from catkit_devices.device import Device
from catkit_devices.errors import ConfigurationError, PluginError, nearest
from catkit_devices.hookspecs import PROJECT
from catkit_devices.stand_ins import create_simulated, find_stand_in

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

    from catkit_devices.foreign.description import DriverSource

__all__ = ["Plugins", "Simulated", "create_device", "share"]

#: Directories with plugin files, separated as in PATH; see also ``plugins/__init__.py``, which makes them importable.
VARIABLE = "CATKIT_DEVICES_PLUGINS"

_T = TypeVar("_T")

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
"""Names of drivers: a configuration has them as plain keys."""

_HOOKABLE = (FunctionType, MethodType, classmethod, staticmethod)
"""What pluggy calls as a hook, if it is marked."""


@dataclass(frozen=True)
class _Source:
    """The source of one plugin: its name in messages, how it is loaded, and its file, to be searched if that fails."""

    title: str
    load: Callable[[], Any]
    file: Path | None = None


@dataclass(frozen=True)
class Simulated:
    """How a device is made under simulation.

    Args:
        clock: of the simulation.
        stand_in: ``"module:Class"`` of the stand-in, for an instrument that is not reached through VISA.
        options: keyword arguments of the stand-in.
    """

    clock: Any
    stand_in: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class _Manager(pluggy.PluginManager):
    """Skips what is no hook in a module, because pluggy is slow for each name that it examines."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        if inspect.ismodule(plugin):
            value = vars(plugin).get(name)
            if not isinstance(value, _HOOKABLE) or not hasattr(value, f"{PROJECT}_impl"):
                return None
        return super().parse_hookimpl_opts(plugin, name)


class Plugins:
    """All loaded plugins, with their drivers, sources of drivers, simulators, benches and safety tests.

    Args:
        directories: further directories; each ``.py`` file (or package) in them is a plugin. From then on they can be
            imported as ``catkit_devices.plugins.<name>``, so their classes are pickled by name. Files whose names begin
            with ``_`` or ``test_``, and ``conftest.py``, are ignored.
        only: the names that will be asked for, so that a process that makes one device starts sooner: of the bundled
            plugins, those whose files mention none of them are not imported. Of ``"PREFIX:rest"``, the prefix counts.
            A name that is not found then is looked up among all plugins. None to import all.

    Attributes:
        problems: one error for each plugin that could not be imported, with the reason as ``__cause__``.

    Raises:
        PluginError: a plugin breaks the rules.
        ConfigurationError: a directory does not exist.
    """

    def __init__(self, directories: Iterable[str | Path] = (), *, only: Iterable[str] | None = None) -> None:
        self._directories = tuple(directories)
        self._loaded: dict[Any, _Source] = {}
        self._manager = _Manager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._load(only)

    @property
    def hook(self) -> pluggy.HookRelay:
        """The hooks of all loaded plugins: ``plugins.hook.safety_tripped(testbed=..., ...)`` calls each of them."""
        return self._manager.hook

    def driver(self, name: str) -> type[Device]:
        """Return the driver of that name; ``"PREFIX:rest"`` is a driver of another framework.

        For a source that needs nothing behind its prefix, ``"PREFIX"`` is enough.

        Raises:
            ConfigurationError: there is none; the message names the nearest spelling, or the plugin that would have
                provided it and why it could not be imported.
        """
        prefix, colon, rest = name.partition(":")
        if colon or prefix in self.sources:
            return self._foreign(prefix, rest)
        return self._find(lambda plugins: plugins.drivers, "driver", name)

    def _foreign(self, prefix: str, rest: str) -> type[Device]:
        from catkit_devices.foreign.generate import device_class

        source = self._find(lambda plugins: plugins.sources, "source of drivers", prefix)
        cls = device_class(source, source.find(rest))
        name = f"{prefix}:{rest}" if rest else prefix
        if vars(cls).get("driver") != name:
            cls.driver = name
        return cls

    def driver_for(self, name: str, options: Mapping[str, Any]) -> type[Device]:
        """Return the class of a device with this driver and these options.

        Raises:
            ConfigurationError: as :meth:`driver`; or the options do not describe an instrument, where they have to.
                Then its ``key`` says which.
        """
        return self.driver(name)._for_(options)

    def simulator(self, name: str) -> type | Path:
        """Return the simulator of that name; the errors are those of :meth:`driver`."""
        return self._find(lambda plugins: plugins.simulators, "simulator", name)

    def bench(self, name: str) -> type:
        """Return the bench model of that name; the errors are those of :meth:`driver`."""
        return self._find(lambda plugins: plugins.benches, "bench", name)

    def safety_test(self, name: str) -> type:
        """Return the kind of safety test of that name; the errors are those of :meth:`driver`."""
        return self._find(lambda plugins: plugins.safety_tests, "safety test", name)

    # --- loading

    def _load(self, only: Iterable[str] | None) -> None:
        names = None if only is None else {name.partition(":")[0] for name in only}
        self._complete = names is None
        self.problems: list[PluginError] = []
        self._failed: list[tuple[_Source, PluginError]] = []
        for source in self._sources(names):
            self._register(source)
        self.drivers: Mapping[str, type[Device]] = self._collect("catkit_devices_drivers", "driver", _check_driver)
        self.sources: Mapping[str, DriverSource] = self._collect(
            "catkit_devices_driver_sources", "source of drivers", _check_source
        )
        self.simulators: Mapping[str, type | Path] = self._collect(
            "catkit_devices_simulators", "simulator", _check_simulator
        )
        self.benches: Mapping[str, type] = self._collect("catkit_devices_benches", "bench", _check_class)
        self.safety_tests: Mapping[str, type] = self._collect(
            "catkit_devices_safety_tests", "safety test", _check_safety_test
        )
        for name, cls in self.drivers.items():
            if vars(cls).get("driver") != name:
                cls.driver = name

    def _sources(self, only: Collection[str] | None) -> Iterator[_Source]:
        plugins = importlib.import_module("catkit_devices.plugins")
        simulators = importlib.import_module("catkit_devices.sim")
        for package in (plugins, simulators):
            for source in _modules(package, Path(str(package.__file__)).parent):
                if only is None or _mentions(source, only):
                    yield source
        for entry_point in _entry_points(tuple((directory, _changed(directory)) for directory in sys.path)):
            distribution = f" of {entry_point.dist.name} {entry_point.dist.version}" if entry_point.dist else ""
            yield _Source(f"entry point {entry_point.name!r}{distribution}", entry_point.load)
        found = _directories(self._directories)
        make_importable(found)
        for directory in found:
            yield from _modules(plugins, directory)

    def _register(self, source: _Source) -> None:
        try:
            plugin = source.load()
        except PluginError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - importing a module may raise anything
            self._fail(source, "cannot be imported", error)
            return
        if plugin in self._loaded:  # both through an entry point and in a directory
            return
        self._loaded[plugin] = source
        try:
            self._manager.register(plugin, name=source.title)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(f"{source.title}: {error}") from error
        self._check_names(plugin, source.title)

    def _fail(self, source: _Source, what: str, error: BaseException) -> None:
        problem = PluginError(f"{source.title} {what}: {type(error).__name__}: {error}")
        problem.__cause__ = error
        self.problems.append(problem)
        self._failed.append((source, problem))

    def _check_names(self, plugin: Any, title: str) -> None:
        known = [name for name in vars(hookspecs) if name in vars(self._manager.hook)]
        for caller in self._manager.get_hookcallers(plugin) or ():
            if not caller.has_spec():
                raise PluginError(f"{title}: there is no hook {caller.name!r}", suggestion=nearest(caller.name, known))
            for implementation in caller.get_hookimpls():
                if implementation.plugin is plugin and (kind := deferred_kind(implementation.function)):
                    raise PluginError(f"{title}: {caller.name}() must be a plain function, and is a {kind}")
        for name in known:
            function = vars(plugin).get(name) if hasattr(plugin, "__dict__") else None
            if name.startswith(PROJECT) and callable(function) and not hasattr(function, f"{PROJECT}_impl"):
                raise PluginError(f"{title}: {name}() is not marked with @hookimpl, so it would never be called")

    def _collect(self, hook: str, kind: str, check: Callable[[Any], str | None]) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        owners: dict[str, str] = {}
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            title = self._loaded[implementation.plugin].title
            try:
                provided = implementation.function()
            except Exception as error:  # noqa: BLE001 - kept as a problem, with its cause
                self._fail(self._loaded[implementation.plugin], f"failed in {hook}()", error)
                continue
            if not isinstance(provided, dict):
                raise PluginError(f"{title}: {hook}() must return a dict, got {provided!r}")
            for name, thing in provided.items():
                if not isinstance(name, str) or not _NAME.fullmatch(name):
                    raise PluginError(
                        f"{title}: the name of a {kind} must consist of letters, digits and underscores, got {name!r}"
                    )
                if name in found:
                    raise PluginError(f"{kind} {name!r} is provided twice: by {owners[name]} and by {title}")
                if problem := check(thing):
                    raise PluginError(f"{title}: {kind} {name!r} {problem}, got {thing!r}")
                found[name], owners[name] = thing, title
        return MappingProxyType(dict(sorted(found.items())))

    # --- naming

    def _find(self, listed: Callable[[Plugins], Mapping[str, _T]], kind: str, name: str) -> _T:
        if name not in listed(self) and not self._complete:
            self._load(None)
        things = listed(self)
        if name in things:
            return things[name]
        for source, problem in self._failed:
            if _mentions(source, [name]):
                raise ConfigurationError(f"{kind} {name!r} is not available: {problem}") from problem.__cause__
        also = "".join(f"; {problem}" for problem in self.problems)
        raise ConfigurationError(f"there is no {kind} {name!r}{also}", suggestion=nearest(name, things))


def create_device(
    driver: str,
    name: str,
    options: Mapping[str, Any],
    *,
    plugin_directories: Sequence[str | Path] = (),
    visa_library: Any = None,
    simulated: Simulated | None = None,
) -> Device:
    """Build the device ``name`` from its driver's name and options; it is not opened.

    Args:
        driver: the driver's name.
        name: the device's name.
        options: keyword arguments of the driver's class, as a configuration gives them.
        plugin_directories: as for :class:`Plugins`.
        visa_library: for drivers that use VISA: ``"@py"``, ``"@ivi"``, or a library object; None for the one in
            ``options``, or the default of the driver.
        simulated: how it is made under simulation; None for real instruments.

    Raises:
        ConfigurationError: the driver is unknown; an option does not exist (with the nearest spelling), is missing or
            is refused by the driver; or, under simulation, the device would open a real instrument.
    """
    cls = Plugins(plugin_directories, only=[driver]).driver(driver)
    given = dict(options)
    if visa_library is not None:
        given["visa_library"] = visa_library
    if simulated is None:
        return bind_options(cls, name, given)
    stand_in = None if simulated.stand_in is None else find_stand_in(simulated.stand_in)
    stand_in_options = simulated.options if stand_in is not None else {}
    return create_simulated(cls, stand_in, name, given, stand_in_options, simulated.clock)


def share(
    driver: Any,
    address: str | None = None,
    *,
    name: str | None = None,
    plugin_directories: Sequence[str | Path] = (),
    **options: Any,
) -> Device:
    """Return a device for a driver of another framework, in a script without a testbed.

    ``share(Keithley2450, "GPIB0::24::INSTR")`` has the driver made when the device is opened, on a line that is guarded
    as our own are. ``share(Keithley2450("GPIB0::24::INSTR"))`` takes an object that is there already. While the device
    is open, the object's resource of pyvisa is guarded in the same way. An object that has none of its own, or several,
    is shared under the device's mutex, but nobody recovers its line after a timeout. When the device is closed, the
    object is, too, and cannot be opened again.

    ``manager.get_object("source", share, Keithley2450, "GPIB0::24::INSTR")`` has it live on a server, where every
    process reaches it.

    Args:
        driver: a class of the other framework, or an object of one.
        address: of the instrument, for a class that uses VISA; an object has its own.
        name: of the device; None makes one of the name of the class.
        plugin_directories: as for :class:`Plugins`.
        **options: of the device: ``safe``, ``units``, ``limits``, ``shared``, ``options`` and others.

    Raises:
        ConfigurationError: an option is wrong.
    """
    from catkit_devices.foreign.generate import device_class, hosting

    plugins = Plugins(plugin_directories)
    cls = driver if isinstance(driver, type) else type(driver)
    claiming = [source for source in plugins.sources.values() if source.claims(cls)]
    source = claiming[0] if claiming else plugins.sources["python"]
    given = options if address is None else {"address": address, **options}
    if isinstance(driver, type):
        return bind_options(device_class(source, cls), name or cls.__name__.lower(), given)
    made, of_the_object = hosting(source, driver)
    if address is not None:
        raise ConfigurationError(f"{cls.__qualname__} is open already, so it has its address: give no other")
    return bind_options(made, name or cls.__name__.lower(), {**given, **of_the_object})


def _directories(configured: Iterable[str | Path]) -> list[Path]:
    inherited = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    found: list[Path] = []
    for part in [*configured, *inherited]:
        directory = Path(part).resolve()
        if not directory.is_dir():
            raise ConfigurationError(f"there is no plugin directory {str(directory)!r}")
        if directory not in found:
            found.append(directory)
    return found


def _modules(package: ModuleType, directory: Path) -> Iterator[_Source]:
    for found in sorted(pkgutil.iter_modules([str(directory)]), key=lambda module: module.name):
        if found.name.startswith(("_", "test_")) or found.name == "conftest":
            continue
        file = directory / found.name / "__init__.py" if found.ispkg else directory / f"{found.name}.py"
        module = f"{package.__name__}.{found.name}"
        yield _Source(f"plugin {found.name!r} ({file})", functools.partial(_load, module, file), file)


@functools.lru_cache(maxsize=1)
def _entry_points(_where: tuple[tuple[str, float], ...]) -> Iterable[importlib.metadata.EntryPoint]:
    """Return the entry points of installed distributions; this reads files of every distribution.

    Args:
        _where: the directories in which distributions are searched, and when each was changed last.
    """
    # Sorting those of all distributions takes long, and few computers have one of this group.
    texts = (one.read_text("entry_points.txt") for one in importlib.metadata.distributions())
    return (
        importlib.metadata.entry_points(group=PROJECT) if any(f"[{PROJECT}]" in (text or "") for text in texts) else ()
    )


def _changed(directory: str) -> float:
    try:
        return Path(directory or ".").stat().st_mtime
    except OSError:
        return 0.0


def _load(name: str, file: Path) -> ModuleType:
    module = importlib.import_module(name)
    if not Path(str(module.__file__)).samefile(file):
        raise PluginError(
            f"two plugin files have the name {file.stem!r}: {module.__file__} and {file}; rename one of them"
        )
    return module


def _mentions(source: _Source, names: Collection[str]) -> bool:
    """Return whether a plugin may provide something of one of these names."""
    if source.file is None:
        return any(repr(name) in source.title for name in names)
    if source.file.stem in names:
        return True
    try:
        text = source.file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(f'"{name}"' in text or f"'{name}'" in text for name in names)


def _check_driver(thing: Any) -> str | None:
    return None if isinstance(thing, type) and issubclass(thing, Device) else "must be a subclass of Device"


def _check_source(thing: Any) -> str | None:
    from catkit_devices.foreign.description import DriverSource

    return None if isinstance(thing, DriverSource) else "must be an object of a class that derives from DriverSource"


def _check_simulator(thing: Any) -> str | None:
    if isinstance(thing, Path):
        return None if thing.is_file() else "must be a file that exists"
    return None if _has_methods(thing, "feed") else "must be a class with feed(data), or the Path of a YAML file"


def _check_safety_test(thing: Any) -> str | None:
    good = _has_methods(thing, "read", "problem")
    return None if good else "must be a class with plain methods read(devices) and problem(value)"


def _has_methods(thing: Any, *methods: str) -> bool:
    """Return whether something is a class with plain methods of these names (no coroutines or generators)."""
    found = [getattr(thing, method, None) for method in methods]
    return isinstance(thing, type) and all(callable(one) and deferred_kind(one) is None for one in found)


def _check_class(thing: Any) -> str | None:
    return None if isinstance(thing, type) else "must be a class"
