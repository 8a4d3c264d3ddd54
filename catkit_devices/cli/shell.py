"""``catkit-devices shell``."""

from __future__ import annotations

from typing import Annotated

import typer

from catkit_devices.cli.options import ConfigFiles, Overrides, TestbedName

__all__ = ["EXAMPLES", "shell"]

EXAMPLES = (
    "catkit-devices shell",
    "catkit-devices shell --testbed bench",
    'catkit-devices shell --code "print(devices.wheel.position)"',
)


def shell(
    code: Annotated[
        str | None,
        typer.Option("--code", metavar="PYTHON", show_default=False, help="Run this instead of asking for input."),
    ] = None,
    testbed: TestbedName = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
) -> None:
    """Open IPython with a running testbed: `testbed`, and its `devices`.

    Tab completes the names of devices and of what they can do, `?` behind a name shows its documentation. Leaving it
    leaves the testbed as it is.
    """
    from catkit_devices.cli.attaching import attach
    from catkit_devices.errors import ConfigurationError

    try:
        from IPython import start_ipython
    except ImportError as error:
        raise ConfigurationError("this needs IPython: pip install 'catkit-devices[shell]'") from error
    client = attach(testbed, configs, overrides)
    words = ["--no-confirm-exit", "--colors=NoColor"] if code is not None else ["--no-confirm-exit"]
    if code is None:
        typer.echo(f"testbed {client.name!r}: `testbed`, and `devices` ({', '.join(client.devices)})")
    names = {"testbed": client, "devices": client.devices}
    start_ipython(argv=[*words, *(["-c", code] if code is not None else [])], user_ns=names)
