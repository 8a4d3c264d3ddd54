"""All hooks that a plugin can implement.

A plugin is a Python file or an installed distribution that implements some of these functions, each marked with
:data:`hookimpl`. An implementation may have fewer arguments than are listed here, but no others. For a driver, one hook
is enough::

    from catkit_devices.hookspecs import hookimpl

    @hookimpl
    def catkit_devices_drivers():
        return {"thorlabs_fw102c": FW102C}

Names that plugins register (of drivers, sources of drivers, simulators, benches, safety tests) consist of letters,
digits and underscores, and must be unique over all plugins.

The hooks without the prefix ``catkit_devices_`` are notifications. They are put into a queue and delivered once, in the
testbed's process, never while a mutex is held. An error in one is logged and has no other effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from catkit_devices.device import Device
    from catkit_devices.foreign.description import DriverSource

__all__ = ["PROJECT", "hookimpl", "hookspec"]

#: The project name for pluggy and the entry-point group of installed plugins.
PROJECT = "catkit_devices"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def catkit_devices_drivers() -> dict[str, type[Device]]:  # type: ignore[empty-body]  # no body: a spec
    """Return this plugin's drivers by name.

    Called once when plugins are loaded, in every process that creates devices. The name is used as ``driver`` in a
    configuration, and in error messages.
    """


@hookspec
def catkit_devices_simulators() -> dict[str, type | Path]:  # type: ignore[empty-body]  # no body: a spec
    """Return this plugin's simulated instruments by name, which is used as ``simulator`` in a configuration.

    Each is either a class (constructed as ``cls(bench, **options)``, with a method ``feed(data: bytes) -> bytes``; see
    :class:`~catkit_devices.simulation.Simulator`) or the path of a pyvisa-sim YAML file, such as
    ``Path(__file__).with_name("my_instrument.yaml")``.
    """


@hookspec
def catkit_devices_benches() -> dict[str, type]:  # type: ignore[empty-body]  # no body: a spec
    """Return this plugin's physical models of benches by name, which is used as ``bench`` in a configuration."""


@hookspec
def catkit_devices_safety_tests() -> dict[str, type]:  # type: ignore[empty-body]  # no body: a spec
    """Return this plugin's kinds of safety test by name, which is used as ``test`` of a safety check."""


@hookspec
def catkit_devices_driver_sources() -> dict[str, DriverSource]:  # type: ignore[empty-body]  # no body: a spec
    """Return this plugin's sources of drivers of other frameworks, by prefix.

    ``driver = "PREFIX:rest"`` in a configuration asks the source of that prefix for ``rest``; see
    :class:`~catkit_devices.foreign.DriverSource`. A source must not import its framework before it is asked.
    """


@hookspec
def catkit_devices_commands(cli: Any) -> None:
    """Add commands to the command line.

    Args:
        cli: the ``typer.Typer`` application of ``catkit-devices``; add to it with ``cli.command()``.
    """


@hookspec
def device_opened(testbed: str, device: str, driver: str, address: str | None) -> None:
    """Tell that a device was opened.

    Args:
        testbed: the testbed's name.
        device: the device's name in it.
        driver: its driver's name.
        address: its address; None if it has none.
    """


@hookspec
def device_closed(testbed: str, device: str, driver: str, address: str | None) -> None:
    """Tell that a device was closed by its last user; the arguments are those of :func:`device_opened`."""


@hookspec
def experiment_started(testbed: str, experiment: str, run: Path) -> None:
    """Tell that an experiment began.

    Args:
        testbed: the testbed's name.
        experiment: the name of the experiment's class.
        run: its run directory.
    """


@hookspec
def experiment_finished(testbed: str, experiment: str, run: Path, error: BaseException | None) -> None:
    """Tell that an experiment ended, including its ``teardown``.

    Args:
        testbed: the testbed's name.
        experiment: the name of the experiment's class.
        run: its run directory.
        error: the error with which it failed; None if it ran to its end. If it was stopped by a trip, the
            ``SafetyError`` (plugins are told of the trip first); if it was stopped otherwise, a ``StopExperiment``.
    """


@hookspec
def mutex_timeout(testbed: str, mutex: str, waited: float, holder: str | None, waiting: int) -> None:
    """Tell that a mutex was not acquired in time.

    Args:
        testbed: the testbed's name.
        mutex: the mutex's name: for a device, the device's.
        waited: how long the wait was, in seconds.
        holder: who held it, as text; None if it was free at the end of the wait.
        waiting: how many others were waiting.
    """


@hookspec
def safety_tripped(testbed: str, check: str, problem: str) -> None:
    """Tell that the testbed tripped. At this time its devices refuse changes already, and are being made safe.

    Args:
        testbed: the testbed's name.
        check: the safety check that failed, or what else has caused the trip.
        problem: the value and its limit, or the error.
    """
