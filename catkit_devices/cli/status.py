"""``catkit-devices status``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli.options import ConfigFiles, Json, Overrides, RunningTestbed
from catkit_devices.cli.output import TRIPPED, console, print_json

if TYPE_CHECKING:
    from catkit_devices.testbed.client import TestbedClient

__all__ = ["EXAMPLES", "status"]

EXAMPLES = ("catkit-devices status", "catkit-devices status bench --watch", "catkit-devices status bench --json")

_PAUSE = 0.1


def status(
    testbed: RunningTestbed = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing it until it ends, or Ctrl-C.")
    ] = False,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.05, help="Between two lines of --watch --json.")
    ] = 1.0,
    configs: ConfigFiles = [],  # noqa: B006 - typer wants a list and copies it
    overrides: Overrides = [],  # noqa: B006
    as_json: Json = False,
) -> None:  # fmt: skip
    """Show a running testbed: experiments, devices and who holds them, safety checks and the last messages.

    The exit code is 0 when all is well, 3 when no such testbed runs, and 4 when safety has tripped.
    """
    from catkit_devices.cli.attaching import attach
    from catkit_devices.cli.picture import picture

    client = attach(testbed, configs, overrides)
    if watch:
        tripped = _stream(client, interval) if as_json else _watch(client)
    else:
        facts = client.status()
        tripped = bool(facts["safety"]["tripped"])
        if as_json:
            print_json(facts)
        else:
            console().print(picture(facts, messages=20))
    if tripped:
        raise typer.Exit(TRIPPED)


def _watch(client: TestbedClient) -> bool:
    """Show it until it ends; return whether safety had tripped by then."""
    from catkit_devices.cli.live import LiveView

    with LiveView(client, stdout=True, everything=True) as view:
        while view.draw():
            time.sleep(_PAUSE)
        tripped = view.tripped
    console().print(f"testbed {client.name!r} has ended", markup=False)
    return tripped


def _stream(client: TestbedClient, interval: float) -> bool:
    """Print its status as one line of JSON after the other until it ends; return whether safety had tripped by then."""
    import json

    from catkit_devices.errors import CatkitDevicesError

    facts: dict[str, Any] = {"safety": {"tripped": None}}
    while True:
        try:
            facts = client.status()
        except (CatkitDevicesError, OSError, EOFError):
            return bool(facts["safety"]["tripped"])
        sys.stdout.write(json.dumps(facts, default=str) + "\n")
        sys.stdout.flush()
        time.sleep(interval)
