"""``catkit-devices status``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli.options import ConfigFiles, Json, Overrides, RunningTestbed, seconds_option
from catkit_devices.cli.output import FAILED, TRIPPED, code_of, console, print_json

if TYPE_CHECKING:
    from catkit_devices.testbed.client import TestbedClient

__all__ = ["EXAMPLES", "status"]

EXAMPLES = ("catkit-devices status", "catkit-devices status bench --watch", "catkit-devices status bench --json")

_PAUSE = 0.1
"""Seconds between two looks whether the view is closed, or the server has ended."""
_SHORTEST = 1.0
"""Seconds for the answers to one look, where lines are to come more often than that."""
_TIDYING = 2.0
"""Seconds for a server that ends in good order to take its name away."""


def status(
    testbed: RunningTestbed = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing it until it ends, or Ctrl-C.")
    ] = False,
    interval: Annotated[
        float, seconds_option("--interval", 0.05, "Between two lines of --watch --json.")
    ] = 1.0,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    as_json: Json = False,
) -> None:  # fmt: skip
    """Show a running testbed: experiments, devices and who holds them, safety checks and the last messages.

    An unknown state is shown as not known, with the time since the last news. The exit code is 0 when all is
    well, 3 when no such testbed runs, 4 when safety has tripped or a device is not known to be safe, and 6 when the
    testbed, or a part of it, does not answer.
    """
    from catkit_devices.cli.attaching import attach
    from catkit_devices.cli.picture import picture

    client = attach(testbed, configs, overrides)
    if watch:
        code = _stream(client, interval) if as_json else _watch(client)
    else:
        facts = client.status()
        code = code_of(facts)
        if as_json:
            print_json(facts)
        else:
            out = console()
            out.print(picture(facts, messages=20, size=(out.width, out.height - 1) if out.is_terminal else None))
    if code:
        raise typer.Exit(code)


def _watch(client: TestbedClient) -> int:
    """Show it until it ends; return the exit code."""
    from catkit_devices.cli.live import LiveView

    with LiveView(client, everything=True) as view:
        while True:
            if view.gone.wait(_PAUSE):
                break
    return _ended(client, view.last)


def _stream(client: TestbedClient, interval: float) -> int:
    """Print its status as one line of JSON after the other until it ends; return the exit code."""
    from catkit_devices.errors import ServerUnresponsiveError
    from catkit_devices.testbed.status import unheard
    from catkit_devices.testbed.trip import UNREACHABLE

    last: dict[str, Any] | None = None
    heard = time.monotonic()
    while True:
        try:
            facts = last = client.status(max(interval, _SHORTEST))
            heard = time.monotonic()
        except ServerUnresponsiveError:
            if last is None:
                raise
            facts = unheard(last, time.monotonic() - heard)
        except UNREACHABLE:
            return _ended(client, last, say=False)
        print_json(facts, one_line=True)
        time.sleep(interval)


def _ended(client: TestbedClient, last: dict[str, Any] | None, *, say: bool = True) -> int:
    """Say how it ended, and return the exit code for that."""
    from catkit_devices.errors import ServerNotFoundError
    from catkit_devices.multiprocessing.wire.endpoint import endpoint

    deadline = time.monotonic() + _TIDYING
    died = True
    while died and time.monotonic() < deadline:
        try:
            endpoint(client.layout.server)
            time.sleep(_PAUSE)
        except ServerNotFoundError:
            died = False
    if say or died:
        text = f"the server of testbed {client.name!r} has died" if died else f"testbed {client.name!r} has ended"
        devices = "the device servers make their devices safe" if died else "it closes its devices before it ends"
        text += f": {devices}, the logs say what failed; its runs and logs are in {client.layout.runs}"
        console(stderr=not say).print(text, markup=False)
    return FAILED if died else TRIPPED if last is not None and last["state"] == "tripped" else 0
