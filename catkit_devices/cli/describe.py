"""``catkit-devices describe``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from catkit_devices._base.summary import summary
from catkit_devices.cli.completion import devices_of_testbed
from catkit_devices.cli.members import allowed, call, keys, use
from catkit_devices.cli.options import ConfigFiles, Json, MutexTimeout, Overrides, Simulate, TestbedName
from catkit_devices.cli.output import console, plain_json, print_json, print_table, warn
from catkit_devices.cli.reading import read_properties

__all__ = ["EXAMPLES", "describe"]

EXAMPLES = (
    "catkit-devices describe laser",
    "catkit-devices describe laser --no-values --config bench.toml",
    "catkit-devices describe supply --json",
)


def describe(
    device: Annotated[
        str, typer.Argument(metavar="DEVICE", show_default=False, autocompletion=devices_of_testbed, help="Which one.")
    ],
    values: Annotated[bool, typer.Option("--values/--no-values", help="Whether to read the properties.")] = True,
    testbed: TestbedName = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    simulate: Simulate = None,
    timeout: MutexTimeout = 10.0,
    as_json: Json = False,
) -> None:
    """Show what a device can do: properties with value, unit and limits, commands with parameters, components.

    A property that is shared can be read while somebody else has the device. What cannot be read says so; that is no
    failure of this command.
    """
    from catkit_devices.cli.attaching import attach_or_start
    from catkit_devices.cli.words import description_of

    with attach_or_start(testbed, configs, overrides, simulate=simulate) as client:
        proxy = client.devices[device]
        described = description_of(proxy, None) if values else proxy.describe()
        properties = described["properties"]
        readable = {name: facts for name, facts in properties.items() if facts["readable"] and values}
        read = read_properties(proxy, readable, timeout)
        state = proxy.state
    if as_json:
        print_json({
            **described,
            "state": state,
            "properties": {name: {**facts, **_as_json(name, read)} for name, facts in properties.items()},
        })  # fmt: skip
        return
    console().print(
        f"{described['name']}: driver {described['driver']}, address {described['address'] or 'none'}, {state}",
        markup=False,
    )
    _print(described, read)
    for problem in dict.fromkeys(str(value) for value in read.values() if isinstance(value, Exception)):
        warn(problem)


def _print(described: dict[str, Any], read: dict[str, Any]) -> None:
    rows = [(name, _text(name, facts, read), allowed(facts, facts["unit"]), use(facts), summary(facts["doc"]))
            for name, facts in described["properties"].items()]  # fmt: skip
    print_table("properties", ["property", "value", "allowed", "how", "what it is"], rows)
    if described["commands"]:
        named = {call(name, facts): summary(facts["doc"]) for name, facts in described["commands"].items()}
        print_table("commands", ["command", "what it does"], named.items())
    if described["components"]:
        components = [
            (
                name, facts["kind"], "one" if facts["single"] else keys(facts), summary(facts["doc"])
            ) for name, facts in described["components"].items()
        ]  # fmt: skip
        print_table("components", ["component", "kind", "which", "what it is"], components)


def _text(name: str, facts: dict[str, Any], read: dict[str, Any]) -> str:
    from catkit_devices.plain import text_of

    if name not in read:
        return facts["unit"] or ""
    return "not read" if isinstance(read[name], Exception) else text_of(read[name], facts["unit"])


def _as_json(name: str, read: dict[str, Any]) -> dict[str, Any]:
    if name not in read:
        return {}
    return {"error": str(read[name])} if isinstance(read[name], Exception) else plain_json(read[name])
