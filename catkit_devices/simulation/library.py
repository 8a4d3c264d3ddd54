"""Builds the simulated instruments of a configuration, and the VISA library with which they are opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices.construction import option_problems, options_of
from catkit_devices.errors import ConfigurationError
from catkit_devices.simulation.bench import Bench
from catkit_devices.simulation.clock import make_clock
from catkit_devices.simulation.contract import GIVEN_BY_THE_SIMULATION, SIMULATOR_FILES
from catkit_devices.simulation.faults import FaultyLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from catkit_devices._base.clock import Clock
    from catkit_devices.drivers import Plugins
    from catkit_devices.simulation.contract import Simulator
    from catkit_devices.simulation.visa_library import SimulatedVisaLibrary

__all__ = ["Instrument", "build_bench", "build_library"]

_GIVEN_TO_FILES = frozenset({"path", "address"})
"""Arguments that are not options either, for simulators that are made from files."""


@dataclass(frozen=True)
class Instrument:
    """One simulated instrument of a configuration.

    Args:
        address: where it is: any VISA address of a serial line, TCPIP, USB or GPIB instrument.
        simulator: the name of a plugin's simulator, a class that is a
            :class:`~catkit_devices.simulation.Simulator`, or the path of a pyvisa-sim YAML file (``.yaml``, ``.yml``)
            or of a recording that is replayed (``.wire``).
        options: keyword arguments of the class; for a YAML file, ``device`` says which of its devices, and ``encoding``
            how text is sent; for a recording, ``timing`` says whether answers take as long as when it was recorded.
        faults: the probability of each kind of fault for each reply, see :mod:`catkit_devices.simulation.faults`.
        driver_options: of the device that it is for, for a class that asks for them by an argument ``device_options``,
            and has a method ``stand_for(options)`` for devices that come later to the address.
    """

    address: str
    simulator: str | Path | type
    options: Mapping[str, Any] = field(default_factory=dict)
    faults: Mapping[str, float] = field(default_factory=dict)
    driver_options: Mapping[str, Any] = field(default_factory=dict, compare=False)


def build_library(
    instruments: Iterable[Instrument],
    *,
    bench: str | type[Bench] | Bench | None = None,
    bench_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    clock: Clock | str | None = None,
    plugins: Plugins | None = None,
    plugin_directories: Iterable[str | Path] = (),
    strict: bool = True,
) -> SimulatedVisaLibrary:
    """Build simulated instruments on one bench, and a VISA library for ``pyvisa.ResourceManager(library)``.

    An instrument that is listed twice with the same arguments, because two devices share its address, is built once.

    Args:
        instruments: the instruments and their addresses.
        bench: a plugin's name for the physical model, its class, or an existing bench (which then keeps its own clock
            and seed); None is the empty bench.
        bench_options: keyword arguments of the model's class.
        seed: of all noise and of scheduled faults.
        clock: ``"real"`` (the default), ``"virtual"``, or a clock.
        plugins: where names are looked up; by default plugins are loaded when a name is first looked up.
        plugin_directories: as for :class:`~catkit_devices.drivers.Plugins`.
        strict: whether an instrument that cannot be built is an error here. If not, the error is raised when that
            instrument is opened, and all others can be used.

    Raises:
        ConfigurationError: for an unknown name (with the nearest spelling), an address that is not valid or is used for
            two different instruments, an option that does not exist or is not acceptable, a file that cannot be used.
    """
    from catkit_devices.simulation.resource import SimulatedResource, parse_address
    from catkit_devices.simulation.visa_library import SimulatedVisaLibrary

    instruments = list(instruments)
    wanted = [name for name in (bench, *(one.simulator for one in instruments)) if isinstance(name, str)]
    names = _Names(plugins, plugin_directories, wanted)
    model = build_bench(
        names.bench(bench) if isinstance(bench, str) else bench,
        bench_options or {},
        seed=seed,
        clock=clock,
        name=bench if isinstance(bench, str) else None,
    )
    listed: dict[str, list[Instrument]] = {}
    resources: list[SimulatedResource] = []
    unbuilt: dict[str, ConfigurationError] = {}
    for instrument in instruments:
        address = str(parse_address(instrument.address))
        others = listed.setdefault(address, [])
        if others and not _same(others[0], instrument):
            raise ConfigurationError(
                f"two different simulated instruments are at {address}: {_title(others[0])} and {_title(instrument)}"
            )
        others.append(instrument)
    for address, (instrument, *others) in listed.items():
        parsed = parse_address(address)
        device_options = [one.driver_options for one in (instrument, *others)]
        try:
            simulator = _build_instrument(instrument, device_options, names, model)
            line = FaultyLine(simulator, model.clock, seed=f"{model.seed}/{address}", schedule=instrument.faults)
        except ConfigurationError as error:
            if strict:
                raise
            unbuilt[address] = error
        else:
            resources.append(SimulatedResource(parsed, simulator, line, model))
    return SimulatedVisaLibrary(model, resources, unbuilt)


def build_bench(
    bench: type[Bench] | Bench | None,
    options: Mapping[str, Any],
    *,
    seed: int = 0,
    clock: Clock | str | None = None,
    name: str | None = None,
) -> Bench:
    """Build a bench from its class; the arguments and errors are those of :func:`build_library`."""
    if isinstance(bench, Bench):
        if options:
            raise ConfigurationError("options were given for a bench that is built already: they are for its class")
        return bench
    if not isinstance(seed, int) or seed < 0:
        raise ConfigurationError(f"a seed must be a whole number from 0 up, got {seed!r}")
    cls = bench or Bench
    title = f"bench {name or cls.__name__!r}"
    _check_options(cls, options, title)
    built: Bench = _construct(lambda: cls(clock=make_clock(clock), seed=seed, **options), title)
    return built


def _build_instrument(
    instrument: Instrument, device_options: list[Mapping[str, Any]], names: _Names, bench: Bench
) -> Simulator:
    from catkit_devices.simulation.replay import Replay
    from catkit_devices.simulation.yaml_instrument import YamlInstrument

    title = f"simulator {_title(instrument)} at {instrument.address}"
    what = instrument.simulator
    if isinstance(what, str):
        what = Path(what) if what.endswith(SIMULATOR_FILES) else names.simulator(what)
    if isinstance(what, Path):
        recorded = what.suffix == ".wire"
        _check_options(Replay if recorded else YamlInstrument, instrument.options, title, _GIVEN_TO_FILES)
        if recorded:
            return Replay(bench, what, **instrument.options)
        return YamlInstrument(bench, what, address=instrument.address, **instrument.options)
    if not callable(getattr(what, "feed", None)):
        raise ConfigurationError(f"{title} is not a simulator: it has no method feed(data)")
    cls = what
    _check_options(cls, instrument.options, title)
    given = {"device_options": device_options} if "device_options" in options_of(cls) else {}
    built: Simulator = _construct(lambda: cls(bench, **given, **instrument.options), title)
    return built


class _Names:
    """Plugins, loaded when the first of the wanted names is looked up."""

    def __init__(self, plugins: Plugins | None, directories: Iterable[str | Path], wanted: Iterable[str]) -> None:
        self._plugins = plugins
        self._directories = tuple(directories)
        self._wanted = tuple(wanted)

    def simulator(self, name: str) -> type | Path:
        return self._load().simulator(name)

    def bench(self, name: str) -> type:
        return self._load().bench(name)

    def _load(self) -> Plugins:
        if self._plugins is None:
            from catkit_devices.drivers import Plugins

            self._plugins = Plugins(self._directories, only=self._wanted)
        return self._plugins


def _check_options(cls: type, options: Mapping[str, Any], title: str, also_given: frozenset[str] = frozenset()) -> None:
    known = options_of(cls, GIVEN_BY_THE_SIMULATION | also_given)
    for option, problem, suggestion in option_problems(title, known, options):
        raise ConfigurationError(problem, key=f"option {option!r}", suggestion=suggestion)


def _construct(build: Any, title: str) -> Any:
    try:
        return build()
    except Exception as error:
        what = str(error) if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: {error}"
        raise ConfigurationError(f"{title}: {what}") from error


def _same(one: Instrument, other: Instrument) -> bool:
    return (one.simulator, dict(one.options), dict(one.faults)) == (
        other.simulator,
        dict(other.options),
        dict(other.faults),
    )


def _title(instrument: Instrument) -> str:
    what = instrument.simulator
    return repr(what.__name__ if isinstance(what, type) else str(what))
