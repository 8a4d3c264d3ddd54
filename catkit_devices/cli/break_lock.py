"""``catkit-devices break-lock``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from catkit_devices.cli.options import ConfigFiles, Json, Overrides, TestbedName
from catkit_devices.cli.output import console, print_json

__all__ = ["EXAMPLES", "break_lock"]

EXAMPLES = ('catkit-devices break-lock wheel --reason "its owner hangs"', "catkit-devices break-lock alignment --yes")


def break_lock(
    mutex: Annotated[
        str, typer.Argument(metavar="MUTEX", show_default=False, help="A device (name or alias), or a named mutex.")
    ],
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", show_default=False, help="Reason; told to the owner, and logged.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
    testbed: TestbedName = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    as_json: Json = False,
) -> None:
    """Release a mutex by force: take it away from the program that holds it.

    In that program every further use of it raises MutexBrokenError, until it has left its section. The next program
    that waits gets the mutex when the operation that is running has ended. On a terminal you are asked first.
    """
    from catkit_devices.cli.attaching import attach
    from catkit_devices.cli.locks import who

    client = attach(testbed, configs, overrides)
    if not yes and sys.stdin.isatty():
        held = next((row["holder"] for row in client.locks() if row["name"] == mutex), None)
        typer.confirm(f"take mutex {mutex!r} away ({who(held)})?".replace("it was", "it is"), abort=True, err=True)
    holder = client.break_lock(mutex, reason or f"released by {_operator()} with break-lock")
    if as_json:
        print_json({"testbed": client.name, "mutex": mutex, "holder": holder})
    else:
        console().print(f"{mutex!r} is released: {who(holder)}" if holder else f"nobody held {mutex!r}", markup=False)


def _operator() -> str:
    import getpass
    import platform

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"  # a numeric user without an entry, as in a container
    return f"{user} at {platform.node()}"
