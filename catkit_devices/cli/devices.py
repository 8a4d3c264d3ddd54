"""``catkit-devices devices``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from catkit_devices.cli.options import ConfigFiles, Json, Overrides, RunningTestbed
from catkit_devices.cli.output import SILENT, print_json, print_table

if TYPE_CHECKING:
    from catkit_devices.testbed.configuration.model import Configuration

__all__ = ["EXAMPLES", "devices"]

EXAMPLES = ("catkit-devices devices", "catkit-devices devices --config bench.toml", "catkit-devices devices --json")


def devices(
    testbed: RunningTestbed = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    as_json: Json = False,
) -> None:
    """List the devices of a testbed: of one that is running with who holds them, else of a configuration.

    The exit code is 6 when the testbed does not answer, or a server of its devices.
    """
    from catkit_devices.cli.attaching import find
    from catkit_devices.testbed.configuration.loader import load_configuration
    from catkit_devices.testbed.status import NOT_KNOWN

    configuration = load_configuration(configs, overrides) if configs and testbed is None else None
    client = find(testbed, configuration)
    if client is not None:
        name, facts = client.name, client.status()["devices"]
    elif configuration is not None:
        name = configuration.testbed.name
        facts = {device: _configured(configuration, device) for device in configuration.devices}
    rows = [_row(device, its) for device, its in facts.items()]
    if as_json:
        print_json({"testbed": name, "running": client is not None, "devices": rows})
    else:
        _print(f"devices of {name!r}" + ("" if client is not None else ", which is not running"), rows)
    if any(row["state"].startswith(NOT_KNOWN) for row in rows):
        raise typer.Exit(SILENT)


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    print_table(
        title,
        ["device", "driver", "address", "state", "held by", "aliases", "server"],
        [
            (
                row["name"], row["driver"], row["address"], row["state"], row["holder"] and row["holder"]["process"],
                ", ".join(row["aliases"]), row["server"],
            )
            for row in rows
        ],
    )  # fmt: skip


def _configured(configuration: Configuration, name: str) -> dict[str, Any]:
    table = configuration.devices[name]
    return {"driver": table.driver, "address": table.address, "aliases": table.aliases, "server": table.server}


def _row(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "driver": facts["driver"],
        "address": facts["address"],
        "state": facts.get("state", "not running"),
        "holder": facts.get("holder"),
        "aliases": list(facts["aliases"]),
        # The servers of a running testbed have full names; the name in the configuration is the part after the dot.
        "server": facts["server"].rpartition(".")[2],
    }
