"""``catkit-devices record``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from catkit_devices.cli.options import ConfigFiles, Json, Overrides, Runs, Simulate
from catkit_devices.cli.output import console
from catkit_devices.errors import ConfigurationError

__all__ = ["EXAMPLES", "SETTINGS", "record"]

EXAMPLES = ("catkit-devices record scan.py:FilterScan --config bench.toml --hardware --to recordings",)

# Options that this command does not know are parameters of the experiment.
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}


def record(
    context: typer.Context,
    experiment: Annotated[
        str,
        typer.Argument(
            metavar="FILE[:CLASS]", show_default=False, help="Python file, and which of its experiments to run."
        ),
    ],
    to: Annotated[
        Path,
        typer.Option(
            "--to", metavar="DIR", show_default=False, help="Where to keep the recordings, one for each device."
        ),
    ],
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    simulate: Simulate = None,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Run an experiment and record what goes over the wire of every instrument.

    A recording is text, one line for what was sent and one for what was answered. It is replayed as a simulated
    instrument: `simulator = "recordings/wheel.wire"`.
    """
    from catkit_devices.cli.run import run

    there = sorted(path.name for path in to.glob("*.wire"))
    if there:
        raise ConfigurationError(f"has recordings already ({', '.join(there)}): choose another directory", file=str(to))
    # A TOML string is a JSON string, except that it has no escaped slash, which json does not write.
    override = f"testbed.record={json.dumps(str(to.resolve()))}"
    try:
        # On a testbed of its own: one that runs already is not recorded.
        run(
            context, experiment, configs=configs, overrides=[*overrides, override], simulate=simulate, new=True,
            runs=runs, as_json=as_json,
        )  # fmt: skip
    finally:
        written = sorted(path for path in to.glob("*.wire"))
        console(stderr=True).print(f"recorded: {', '.join(map(str, written)) or 'nothing'}", markup=False)
