"""``catkit-devices devices``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.cli.options import ConfigFiles, Json, Overrides
from catkit_devices.cli.output import print_json, print_table
from catkit_devices.errors import ConfigurationError, ServerNotFoundError

if TYPE_CHECKING:
    from catkit_devices.testbed.configuration import Configuration

__all__ = ["devices"]


def devices(
    configs: ConfigFiles = [],  # noqa: B006 - typer wants a list and copies it
    overrides: Overrides = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """List the devices of a testbed, with what they are doing if it is running."""
    from catkit_devices.testbed.configuration import load_configuration

    if not configs:
        raise ConfigurationError("say which testbed, with --config FILE")
    configuration = load_configuration(configs, overrides)
    running = _running(configuration.testbed.name)
    rows = [_row(configuration, name, running.get(name, {})) for name in configuration.devices]
    if as_json:
        print_json({"testbed": configuration.testbed.name, "running": bool(running), "devices": rows})
        return
    print_table(
        f"devices of {configuration.testbed.name!r}" + ("" if running else ", which is not running"),
        ["device", "driver", "address", "state", "held by", "aliases", "server"],
        [
            (
                row["name"], row["driver"], row["address"], row["state"], row["holder"] and row["holder"]["process"],
                ", ".join(row["aliases"]), row["server"],
            )
            for row in rows
        ],
    )  # fmt: skip


def _running(name: str) -> dict[str, Any]:
    from catkit_devices.testbed.testbed import Testbed

    try:
        status: dict[str, Any] = Testbed.attach(name).status()["devices"]
    except ServerNotFoundError:
        return {}
    return status


def _row(configuration: Configuration, name: str, status: dict[str, Any]) -> dict[str, Any]:
    table = configuration.devices[name]
    return {
        "name": name,
        "driver": table.driver,
        "address": table.address,
        "state": status.get("state", "not running"),
        "holder": status.get("holder"),
        "aliases": list(table.aliases),
        "server": table.server,
    }
