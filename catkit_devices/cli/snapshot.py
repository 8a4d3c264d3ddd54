"""``catkit-devices snapshot``."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from catkit_devices.cli.completion import devices_of_testbed
from catkit_devices.cli.options import ConfigFiles, Json, MutexTimeout, Overrides, Simulate, TestbedName
from catkit_devices.cli.output import console, print_json, print_table, warn

__all__ = ["EXAMPLES", "snapshot"]

EXAMPLES = (
    "catkit-devices snapshot",
    "catkit-devices snapshot laser supply --out before.json",
    "catkit-devices snapshot --json",
)


def snapshot(
    devices: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DEVICE]...", show_default=False, autocompletion=devices_of_testbed,
            help="Of which devices; left out: all that are open.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", show_default=False, help="Keep them in a new file, for `restore`."),
    ] = None,
    testbed: TestbedName = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    simulate: Simulate = None,
    timeout: MutexTimeout = 10.0,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Read the settings of devices: every property that can be read and set. `restore` sets them again.

    Devices that are named are opened if they are closed; without names, closed devices are left alone, because opening
    one may change it. What could not be read is told, and the others are kept.
    """
    from catkit_devices.cli.attaching import attach_or_start
    from catkit_devices.cli.settings import settings_of
    from catkit_devices.errors import DataError

    taken: dict[str, Any] = {}
    with attach_or_start(testbed, configs, overrides, simulate=simulate) as client:
        if devices:
            names = list(dict.fromkeys(client.layout.device(name).name for name in devices))
        else:
            states = client.status()["devices"]
            names = [entry.name for entry in client.layout.devices if states[entry.name]["state"] == "open"]
        for name in names:
            known, unknown = settings_of(client.devices[name], timeout)
            taken[name] = {"settings": known, "not_read": unknown}
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        kept = {"testbed": client.name, "time": now, "devices": taken}
    if out is not None:
        try:
            with out.open("x", encoding="utf-8") as file:
                file.write(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise DataError(f"{out} cannot be written: {error}") from error
    if as_json:
        print_json(kept)
        return
    for name, one in taken.items():
        for setting, why in one["not_read"].items():
            warn(f"{name}.{setting} is not kept: {why}")
    count = sum(len(one["settings"]) for one in taken.values())
    if out is not None:
        console().print(f"{count} settings of {', '.join(taken) or 'no device'}: {out}", markup=False)
        return
    rows = [
        (f"{name}.{setting}", facts["value"], facts["unit"])
        for name, one in taken.items()
        for setting, facts in one["settings"].items()
    ]
    print_table(f"settings of {kept['testbed']!r}", ["setting", "value", "unit"], rows)
