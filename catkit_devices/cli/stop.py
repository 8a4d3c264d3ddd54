"""``catkit-devices stop``."""

from __future__ import annotations

from typing import Annotated

import typer

from catkit_devices.cli.options import ConfigFiles, Json, Overrides, RunningTestbed, seconds_option
from catkit_devices.cli.output import console, print_json

__all__ = ["EXAMPLES", "stop"]

EXAMPLES = (
    "catkit-devices stop bench",
    "catkit-devices stop bench --experiment FilterScan",
    "catkit-devices stop bench --experiment FilterScan --finish",
)


def stop(
    testbed: RunningTestbed = None,
    experiments: Annotated[
        list[str],
        typer.Option(
            "--experiment", "-e", metavar="NAME", show_default=False,
            help="Stop only this experiment, and leave the testbed running; may be repeated.",
        ),
    ] = [],
    finish: Annotated[
        bool, typer.Option("--finish", help="Let the experiments complete their current step (with --experiment).")
    ] = False,
    timeout: Annotated[
        float, seconds_option("--timeout", 0.0, "How long to wait for the testbed to end.")
    ] = 60.0,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    as_json: Json = False,
) -> None:  # fmt: skip
    """Stop a running testbed: its experiments end, its devices are made safe and closed.

    The command returns when everything has ended.
    """
    from catkit_devices.cli.attaching import attach
    from catkit_devices.errors import ConfigurationError

    if finish and not experiments:
        raise ConfigurationError("--finish is for single experiments: name the experiment with --experiment NAME")
    client = attach(testbed, configs, overrides)
    name = client.name
    if experiments:
        if finish:
            client.finish(*experiments)
        else:
            client.stop(*experiments, reason="stopped from the command line")
        text = f"testbed {name!r}: {', '.join(experiments)} told to {'finish' if finish else 'stop'}"
    else:
        client.shutdown(reason="stopped from the command line", timeout=timeout)
        text = f"testbed {name!r} has ended"
    if as_json:
        print_json({"testbed": name, "experiments": experiments, "ended": not experiments})
    else:
        console().print(text, markup=False)
