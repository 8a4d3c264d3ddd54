"""``catkit-devices describe``."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from catkit_devices.cli.completion import devices_of_testbed
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
    rows = [(name, _text(name, facts, read), _allowed(facts), _how(facts), _first(facts["doc"]))
            for name, facts in described["properties"].items()]  # fmt: skip
    print_table("properties", ["property", "value", "allowed", "how", "what it is"], rows)
    if described["commands"]:
        named = {f"{name}{_signature(facts)}": _first(facts["doc"]) for name, facts in described["commands"].items()}
        print_table("commands", ["command", "what it does"], named.items())
    if described["components"]:
        components = [
            (
                name, facts["kind"], "one" if facts["single"] else _keys(facts["keys"]), _first(facts["doc"])
            ) for name, facts in described["components"].items()
        ]  # fmt: skip
        print_table("components", ["component", "kind", "which", "what it is"], components)


def _keys(keys: list[Any] | None) -> str:
    return "known while it is open" if keys is None else ", ".join(map(str, keys)) or "none"


def _text(name: str, facts: dict[str, Any], read: dict[str, Any]) -> str:
    from catkit_devices.plain import text_of

    if name not in read:
        return facts["unit"] or ""
    return "not read" if isinstance(read[name], Exception) else text_of(read[name], facts["unit"])


def _as_json(name: str, read: dict[str, Any]) -> dict[str, Any]:
    if name not in read:
        return {}
    return {"error": str(read[name])} if isinstance(read[name], Exception) else plain_json(read[name])


def _allowed(facts: dict[str, Any]) -> str:
    from catkit_devices.plain import text_of

    if facts["choices"]:
        return ", ".join(text_of(choice) for choice in facts["choices"])
    if facts["limits"]:
        low, high = ("" if bound is None else text_of(bound) for bound in facts["limits"])
        return f"{low} to {high}{' ' + facts['unit'] if facts['unit'] else ''}"
    return facts["type"] or ""


def _how(facts: dict[str, Any]) -> str:
    words = {(True, True): "read, set", (True, False): "read", (False, True): "set"}
    return words.get((facts["readable"], facts["writable"]), "") + (", shared" if facts["shared"] else "")


def _signature(facts: dict[str, Any]) -> str:
    inner = facts["signature"].removeprefix("(self").removeprefix(", ")
    inner = re.sub(r"(: |-> )'([^']*)'", r"\1\2", inner)  # annotations that are text are in quotes
    return inner if inner.startswith("(") else f"({inner}"


def _first(doc: str | None) -> str:
    return (doc or "").partition("\n")[0]
