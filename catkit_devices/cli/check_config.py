"""``catkit-devices check-config``."""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catkit_devices.cli.options import Json, Overrides
from catkit_devices.cli.output import USAGE, console, print_json, warn

if TYPE_CHECKING:
    from catkit_devices.errors import ConfigurationError
    from catkit_devices.testbed.configuration.model import Configuration
    from catkit_devices.testbed.configuration.overlay import Overlay

__all__ = ["EXAMPLES", "check_config"]

EXAMPLES = (
    "catkit-devices check-config bench.toml",
    "catkit-devices check-config bench.toml local.toml --json",
    "catkit-devices check-config --schema >bench.schema.json",
)


def check_config(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", show_default=False, help="Configuration files; later ones override."),
    ] = [],
    configs: Annotated[
        list[Path],
        typer.Option("--config", "-c", metavar="FILE", show_default=False, help="The same, as other commands have it."),
    ] = [],
    overrides: Overrides = [],
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of configurations, for editors, and check nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a configuration without touching any hardware, and say everything that is wrong with it.

    That includes the options of drivers that the driver itself would refuse, such as a channel that does not exist.
    """
    from catkit_devices.errors import ConfigurationError
    from catkit_devices.testbed.configuration.device_checks import not_made_safe, not_simulated
    from catkit_devices.testbed.configuration.loader import examine, read
    from catkit_devices.testbed.configuration.model import json_schema

    if schema:
        print_json(json_schema())
        return
    files = [*configs, *files]
    if not files:
        raise ConfigurationError("say which configuration: FILE..., or --config FILE as for other commands")
    overlay = read(files, overrides)
    configuration, problems = examine(overlay)
    if configuration is not None:
        problems += _refused(configuration, overlay, problems)
    if configuration is None or problems:
        _tell(problems, as_json=as_json)
        return
    plugins = configuration.plugins()
    left_alone = not_made_safe(configuration, plugins)
    real_only = not_simulated(configuration, plugins)
    plugin_problems = [str(problem) for problem in plugins.problems]
    if as_json:
        print_json({
            "problems": [],
            "testbed": configuration.testbed.name,
            "devices": list(configuration.devices),
            "safety": list(configuration.safety),
            "plugin_problems": plugin_problems,
            "not_made_safe": left_alone,
            "not_simulated": real_only,
        })  # fmt: skip
        return
    counts = f"{_count(configuration.devices, 'device')}, {_count(configuration.safety, 'safety check')}"
    console().print(f"{', '.join(map(str, files))}: testbed {configuration.testbed.name!r} is valid: {counts}")
    for reason in dict.fromkeys(left_alone.values()):
        names = ", ".join(name for name, why in left_alone.items() if why == reason)
        console().print(f"making safe does nothing to {names}: {reason}")
    for problem in plugin_problems:
        warn(problem)
    for name, problem in real_only.items():
        warn(f"device {name!r} cannot be simulated: {problem}")


def _refused(
    configuration: Configuration, overlay: Overlay, known: list[ConfigurationError]
) -> list[ConfigurationError]:
    """Return what drivers and simulated instruments say against their options, of devices that are right otherwise."""
    from catkit_devices.errors import ConfigurationError
    from catkit_devices.testbed.configuration.checks import start_order
    from catkit_devices.testbed.configuration.device_checks import not_simulated, refused
    from catkit_devices.testbed.configuration.layout_factory import lay_out
    from catkit_devices.testbed.devices.factory import build_simulation

    plugins = configuration.plugins()
    wrong = {str(problem.key).split(".")[1] for problem in known if str(problem.key).startswith("devices.")}
    right = {
        name: table
        for name, table in configuration.devices.items()
        if name not in wrong
        and not any(configuration.device_name(used) in {None, *wrong} for used in table.uses.values())
    }
    left = configuration.model_copy(update={"devices": right})
    try:
        order = start_order(left)
    except (ConfigurationError, KeyError):  # they use each other in a circle, which is told, or one that is wrong
        return []
    by_device = refused(left, plugins, order)
    found = []
    for name, error in by_device.items():
        key = error.key if error.key is not None and error.key.startswith(f"devices.{name}") else f"devices.{name}"
        found.append(overlay.problem(key.split("."), error.problem, error.suggestion))
    if known or found:
        return found  # the instruments of a bench belong together, so they are looked at when all else is right
    real_only = not_simulated(left, plugins)
    simulated = left.model_copy(update={"devices": {name: one for name, one in right.items() if name not in real_only}})
    try:
        build_simulation(lay_out(simulated, "check", simulate=True))  # whether its instruments fit the bench
    except ConfigurationError as error:
        found.append(error)
    return found


def _tell(problems: list[ConfigurationError], *, as_json: bool) -> None:
    from catkit_devices.testbed.configuration.problems import combined

    if not as_json:
        raise combined(problems)
    print_json({
        "problems": [
            {"file": one.file, "key": one.key, "problem": one.problem, "suggestion": one.suggestion}
            for one in problems
        ],
    })  # fmt: skip
    raise typer.Exit(USAGE)


def _count(things: Sized, what: str) -> str:
    return f"{len(things)} {what}{'' if len(things) == 1 else 's'}"
