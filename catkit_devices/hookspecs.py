"""Every hook that a plugin can implement.

A plugin is a Python file or an installed distribution that implements any of these functions, each marked with
:data:`hookimpl`. A hook may take fewer arguments than are listed here, never others. One is enough for a driver::

    from catkit_devices.hookspecs import hookimpl

    @hookimpl
    def catkit_devices_drivers():
        return {"thorlabs_fw102c": FW102C}

Names that plugins hand in (of drivers, simulators, benches, safety tests) are words of letters, digits and underscores,
and unique over all plugins.

The hooks below whose names carry no prefix are notifications. They are queued and delivered once, in the testbed's
process, never while a mutex is held; what one raises is logged and disturbs nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from catkit_devices.device import Device

__all__ = ["PROJECT", "hookimpl", "hookspec"]

#: The project name for pluggy and the entry-point group of installed plugins.
PROJECT = "catkit_devices"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def catkit_devices_drivers() -> dict[str, type[Device]]:  # type: ignore[empty-body]  # no body: a spec
    """Return this plugin's drivers by name.

    Called once when plugins are loaded, in every process that creates devices. The name is what a configuration gives
    as ``driver``, and what error messages call the class.
    """


@hookspec
def catkit_devices_simulators() -> dict[str, type | Path]:  # type: ignore[empty-body]  # no body: a spec
    """Return this plugin's simulated instruments by name: what a configuration gives as ``simulator``.

    Each is either a class with the simulator contract (constructed as ``cls(bench, **options)``, with
    ``feed(data: bytes) -> bytes``) or the path of a pyvisa-sim YAML file, such as
    ``Path(__file__).with_name("my_instrument.yaml")``.
    """


@hookspec
def catkit_devices_benches() -> dict[str, type]:  # type: ignore[empty-body]  # no body: a spec
    """Return this plugin's physical bench models by name: what a configuration gives as ``bench``."""


@hookspec
def catkit_devices_safety_tests() -> dict[str, type]:  # type: ignore[empty-body]  # no body: a spec
    """Return this plugin's kinds of safety test by name: what a configuration gives as ``test`` of a safety check."""


@hookspec
def catkit_devices_commands(cli: Any) -> None:
    """Add commands to the command line.

    Args:
        cli: the ``typer.Typer`` application of ``catkit-devices``; add to it with ``cli.command()``.
    """


@hookspec
def device_opened(testbed: str, device: str, driver: str, address: str | None) -> None:
    """Say that a device was opened.

    Args:
        testbed: the testbed's name.
        device: the device's name in it.
        driver: its driver's name.
        address: where it was opened, for drivers that have addresses.
    """


@hookspec
def device_closed(testbed: str, device: str, driver: str, address: str | None) -> None:
    """Say that a device was closed by its last user; the arguments are those of :func:`device_opened`."""


@hookspec
def experiment_started(testbed: str, experiment: str, run: Path) -> None:
    """Say that an experiment began.

    Args:
        testbed: the testbed's name.
        experiment: the name of the experiment's class.
        run: its run directory.
    """


@hookspec
def experiment_finished(testbed: str, experiment: str, run: Path, error: BaseException | None) -> None:
    """Say that an experiment ended, its ``teardown`` included.

    Args:
        testbed: the testbed's name.
        experiment: the name of the experiment's class.
        run: its run directory.
        error: what it failed with; where it was stopped the ``SafetyError`` of a trip, of which plugins are told first,
            else a ``StopExperiment``; None when it ran to its end.
    """


@hookspec
def mutex_timeout(testbed: str, mutex: str, waited: float, holder: str | None, waiting: int) -> None:
    """Say that somebody did not get a mutex in time.

    Args:
        testbed: the testbed's name.
        mutex: the mutex's name: for a device, the device's.
        waited: for how long, in seconds.
        holder: who had it, as text; None when it was free by then.
        waiting: how many others were waiting.
    """


@hookspec
def safety_tripped(testbed: str, check: str, problem: str) -> None:
    """Say that the testbed tripped; by then its devices are refusing changes and being made safe.

    Args:
        testbed: the testbed's name.
        check: which safety check failed, or what ran out.
        problem: the value against its limit, or what was raised.
    """
