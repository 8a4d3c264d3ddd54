"""``catkit-devices check-config``."""

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path
from typing import Annotated

import typer

from catkit_devices.cli.options import Json, Overrides
from catkit_devices.cli.output import console, print_json, warn

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
    overrides: Overrides = [],
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of configurations, for editors, and check nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a configuration without touching any hardware, and say everything that is wrong with it."""
    from catkit_devices.errors import ConfigurationError
    from catkit_devices.testbed.configuration.device_checks import not_made_safe, not_simulated
    from catkit_devices.testbed.configuration.layout_factory import lay_out
    from catkit_devices.testbed.configuration.loader import load_configuration
    from catkit_devices.testbed.configuration.model import json_schema
    from catkit_devices.testbed.devices.factory import build_simulation

    if schema:
        print_json(json_schema())
        return
    if not files:
        raise ConfigurationError("say which configuration: FILE...")
    configuration = load_configuration(files, overrides)
    plugins = configuration.plugins()
    left_alone = not_made_safe(configuration, plugins)
    real_only = not_simulated(configuration, plugins)
    kept = {name: table for name, table in configuration.devices.items() if name not in real_only}
    simulated = configuration.model_copy(update={"devices": kept})
    build_simulation(lay_out(simulated, "check", simulate=True))  # whether its instruments fit the bench
    plugin_problems = [str(problem) for problem in plugins.problems]
    if as_json:
        print_json({
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


def _count(things: Sized, what: str) -> str:
    return f"{len(things)} {what}{'' if len(things) == 1 else 's'}"
