"""``catkit-devices drivers``."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated

import typer

from catkit_devices.cli.options import ConfigFiles, Json, Overrides
from catkit_devices.cli.output import print_json, print_table, report

__all__ = ["EXAMPLES", "drivers"]

EXAMPLES = ("catkit-devices drivers", "catkit-devices drivers --plugins my_plugins --json")


def drivers(
    plugins: Annotated[
        list[Path],
        typer.Option("--plugins", metavar="DIR", show_default=False, help="A directory of plugins; may be repeated."),
    ] = [],
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    as_json: Json = False,
) -> None:
    """List the drivers that a configuration can name, and the plugins that could not be loaded.

    Drivers come with the package, with installed distributions, and from directories of plugins: those given here, in
    a configuration, or in CATKIT_DEVICES_PLUGINS. The exit code is 2 if a plugin could not be loaded.
    """
    from catkit_devices.drivers import Plugins

    directories: list[str | Path] = list(plugins)
    if configs:
        from catkit_devices.testbed.configuration.loader import load_configuration

        directories += load_configuration(configs, overrides).testbed.plugins
    loaded = Plugins(directories)
    rows = [
        {
            "driver": name,
            "summary": (inspect.getdoc(cls) or "").partition("\n")[0],
            "class": f"{cls.__module__}.{cls.__qualname__}",
            "simulator": name in loaded.simulators,
        }
        for name, cls in loaded.drivers.items()
    ]
    if as_json:
        print_json({"drivers": rows, "problems": [str(problem) for problem in loaded.problems]})
    else:
        print_table(
            "drivers", ["driver", "what it drives", "class"],
            [(row["driver"], row["summary"], row["class"]) for row in rows],
        )  # fmt: skip
    if loaded.problems:
        raise typer.Exit(report(ExceptionGroup("not every plugin can be used", loaded.problems), debug=False))
