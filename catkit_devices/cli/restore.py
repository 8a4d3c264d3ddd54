"""``catkit-devices restore``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli.options import ConfigFiles, Json, MutexTimeout, Overrides, Simulate, TestbedName
from catkit_devices.cli.output import console, print_json, print_table

if TYPE_CHECKING:
    from catkit_devices.cli.settings import Difference
    from catkit_devices.testbed.client import TestbedClient

__all__ = ["EXAMPLES", "restore"]

EXAMPLES = (
    "catkit-devices restore before.json --dry-run",
    "catkit-devices restore before.json laser --yes",
)


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="What `snapshot --out` wrote.")],
    devices: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DEVICE]...", show_default=False, help="Of which devices; left out: all in the file."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show and check the differences; set nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
    testbed: TestbedName = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    simulate: Simulate = None,
    timeout: MutexTimeout = 10.0,
    as_json: Json = False,
) -> None:
    """Set the settings of devices as they were when a snapshot was taken; only what is different is set.

    The devices are locked together meanwhile. Of each, what switches something off is set first, and what switches
    something on last, and only when nothing else was refused. Limits and safety hold as for any other change. The exit
    code is 0 only when everything is as in the file; what was set and what was refused is told.
    """
    from catkit_devices.cli import settings
    from catkit_devices.cli.attaching import attach_or_start

    kept = _read(file)
    failures: list[Exception] = []
    told: list[dict[str, Any]] = []
    with attach_or_start(testbed, configs, overrides, simulate=simulate) as client:
        names = _names(client, kept, devices, file)
        with client.lock(*names, timeout=timeout):
            found = {name: settings.differences(client.devices[name], kept[name], timeout) for name in names}
            if not dry_run and not yes and sys.stdin.isatty() and any(found.values()):
                _show(found, {})
                typer.confirm("set these?", abort=True, err=True)
            for name, some in found.items():
                done: list[str] = []
                if dry_run:
                    refused = settings.check(client.devices[name], some)
                else:
                    done, refused = settings.restore(client.devices[name], some)
                for setting, error in refused.items():
                    error.add_note(
                        f"{name}.{setting} was not restored; of {name!r} were set: {', '.join(done) or 'none'}"
                    )
                failures += dict.fromkeys(refused.values())
                told += [_plain(name, one, done, refused) for one in some]
    if as_json:
        print_json({"testbed": client.name, "dry_run": dry_run, "differences": told})
    elif not told:
        console().print(f"everything is as in {file}", markup=False)
    else:
        _show(found, {(one["device"], one["setting"]): one["outcome"] for one in told}, dry_run=dry_run)
    if failures:
        raise failures[0] if len(failures) == 1 else ExceptionGroup(f"{len(failures)} settings were refused", failures)


def _read(file: Path) -> dict[str, dict[str, dict[str, Any]]]:
    from catkit_devices.errors import ConfigurationError, DataError

    try:
        kept = json.loads(file.read_text("utf-8"))
        return {name: {key: {"unit": None, **one} for key, one in device["settings"].items() if "value" in one}
                for name, device in kept["devices"].items()}  # fmt: skip
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{file} is no file of `catkit-devices snapshot --out`: {error!r}") from error


def _names(client: TestbedClient, kept: dict[str, Any], devices: list[str] | None, file: Path) -> list[str]:
    from catkit_devices.errors import ConfigurationError, nearest

    wanted = [client.layout.device(name).name for name in devices or kept]
    for name in wanted:
        if name not in kept:
            raise ConfigurationError(
                f"{file} has no settings of device {name!r}, but of {', '.join(kept) or 'none'}",
                suggestion=nearest(name, kept),
            )
    # In the order of the testbed: a device comes after those that it uses.
    return [entry.name for entry in client.layout.devices if entry.name in wanted]


def _plain(name: str, one: Difference, done: list[str], refused: dict[str, Exception]) -> dict[str, Any]:
    outcome = f"refused: {refused[one.name]}" if one.name in refused else "set" if one.name in done else "different"
    return {"device": name, "setting": one.name, "now": one.now, "wanted": one.wanted, "unit": one.unit,
            "outcome": outcome}  # fmt: skip


def _show(
    found: dict[str, list[Difference]], outcomes: dict[tuple[str, str], str], *, dry_run: bool = False
) -> None:  # fmt: skip
    rows = [
        (f"{name}.{one.name}", one.now, one.wanted, one.unit, outcomes.get((name, one.name), "").partition(":")[0])
        for name, some in found.items()
        for one in some
    ]
    title = "differences; nothing was set" if dry_run else "differences"
    print_table(title, ["setting", "before", "in the file", "unit", ""], rows)
