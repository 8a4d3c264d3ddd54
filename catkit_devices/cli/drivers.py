"""``catkit-devices drivers``."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catkit_devices._base.summary import summary
from catkit_devices.cli.members import allowed, call, keys, use
from catkit_devices.cli.options import ConfigFiles, Json, Overrides
from catkit_devices.cli.output import print_json, print_table, report

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["EXAMPLES", "drivers"]

EXAMPLES = (
    "catkit-devices drivers",
    "catkit-devices drivers --plugins my_plugins --json",
    "catkit-devices drivers thorlabs_fw102c",
)


def drivers(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", show_default=False, help="A driver, to say everything that it has."),
    ] = None,
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
    a configuration, or in CATKIT_DEVICES_PLUGINS. With the name of one, which may be of another framework
    (pymeasure:keithley.Keithley2450), say what it has: properties, commands, and what is left out. The exit code is 2
    if a plugin could not be loaded.
    """
    from catkit_devices.drivers import Plugins

    directories: list[str | Path] = list(plugins)
    if configs:
        from catkit_devices.testbed.configuration.loader import load_configuration

        directories += load_configuration(configs, overrides).testbed.plugins
    loaded = Plugins(directories)
    if name is not None:
        _tell(name, loaded.driver(name), as_json=as_json)
        return
    rows = [
        {
            "driver": name,
            "summary": summary(inspect.getdoc(cls)),
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


def _tell(name: str, cls: type[Device], *, as_json: bool) -> None:
    """Print what a driver has, and for one of another framework what is left out and what has another name."""
    from catkit_devices._device.members import describe_class
    from catkit_devices.foreign.device import ForeignDevice

    found = describe_class(cls)
    renamed: dict[str, str] = {}
    left_out: dict[str, str] = {}
    if issubclass(cls, ForeignDevice):
        renamed, left_out = dict(cls._renamed_), {one.name: one.reason for one in cls._description_.left_out}
    if as_json:
        print_json({"driver": name, **found, "renamed": renamed, "left_out": left_out})
        return
    print_table(
        f"properties of {name}", ["property", "", "unit", "allowed", "what it is"],
        [(path, use(facts), facts["unit"] or "", allowed(facts), summary(facts["doc"]))
         for path, facts in found["properties"].items()],
    )  # fmt: skip
    print_table(
        "commands", ["command", "what it does"],
        [(call(path, facts), summary(facts["doc"]))
         for path, facts in found["commands"].items()],
    )  # fmt: skip
    if found["components"]:
        rows = [(path, keys(facts))
                for path, facts in found["components"].items()]  # fmt: skip
        print_table("components", ["component", "there are"], rows)
    if renamed:
        print_table("other names, because every device has these", ["there", "here"], list(renamed.items()))
    if left_out:
        print_table("left out", ["member", "why"], list(left_out.items()))
