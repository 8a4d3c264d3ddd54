"""``catkit-devices demo``."""

from __future__ import annotations

import contextlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catkit_devices.cli.options import Json, Overrides
from catkit_devices.cli.output import console, print_json, print_table, short

if TYPE_CHECKING:
    from catkit_devices.demo.results import FilterPower

__all__ = ["EXAMPLES", "demo"]

EXAMPLES = ("catkit-devices demo", "catkit-devices demo --runs /tmp/demo", "catkit-devices demo --serve")

_WATCHED = (
    "devices.environment.telemetry={ humidity = 1.0, temperature = 1.0 }",
    "devices.camera.frames={ rate = 5.0 }",
)
"""What the page shows beside the experiments: curves and pictures."""


def demo(
    runs: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where to keep the run directories.")] = Path(
        "runs"
    ),
    overrides: Overrides = [],
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve a page to watch it in a browser, and go on until Ctrl-C.")
    ] = False,
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="Port of that page, 0 for a free one.")
    ] = 8870,
    as_json: Json = False,
) -> None:
    """Run two experiments at once on a simulated bench, and draw what they measured.

    One measures the power behind every filter, the other keeps the spot in place with the tip/tilt stage while it
    drifts. They take turns on the devices that both need.
    """
    from catkit_devices.cli.live import LiveView
    from catkit_devices.cli.screen import Screen
    from catkit_devices.cli.serve import serving
    from catkit_devices.demo import FilterScan, KeepCentred, plot
    from catkit_devices.errors import ConfigurationError
    from catkit_devices.testbed import Testbed, bundled, load_configuration

    if serve and as_json:
        raise ConfigurationError("expected one of --serve and --json, got both")
    configuration = load_configuration([bundled("demo")], [*(_WATCHED if serve else ()), *overrides])
    with contextlib.ExitStack() as stack:
        screen = stack.enter_context(Screen())
        testbed = stack.enter_context(Testbed(configuration, simulate=True, runs=runs))
        if serve:
            offered = [inspect.getfile(kind) for kind in (FilterScan, KeepCentred)]
            stack.enter_context(serving(testbed, port, quiet=False, experiments=offered))
            sys.stdout.flush()  # whoever opens the page needs the token now, also where this goes to a file
        with LiveView(testbed, screen):
            testbed.run(FilterScan(spot_timeout=20.0), KeepCentred())
        if serve:
            console().print("the experiments have ended; the bench goes on until Ctrl-C", markup=False)
            sys.stdout.flush()
            testbed.serve()
            return
        directories = {progress.name: Path(str(progress.run)) for progress in testbed.progress()}
    scan, loop = directories["FilterScan"], directories["KeepCentred"]
    picture = loop.parent / f"{loop.name.partition('_')[0]}_demo.png"
    plot(scan, loop, picture)
    if as_json:
        print_json({"runs": [str(scan), str(loop)], "plot": str(picture)})
        return
    _print_results(scan, loop)
    console().print(f"\nruns: {short(scan)}\n      {short(loop)}\nplot: {short(picture)}", markup=False)


def _print_results(scan: Path, loop: Path) -> None:
    import numpy as np

    from catkit_devices.datalog import RunReader
    from catkit_devices.demo.results import read_filters, read_loop

    with RunReader(scan) as reader:
        filters, _ = read_filters(reader)
    with RunReader(loop) as reader:
        held = read_loop(reader)
    print_table(
        "power behind every filter",
        ["wheel", "#filter", "#power (W)", "#spread (%)", "#of maximum"],
        [_row(item, max(other.mean for other in filters)) for item in filters],
    )
    offset, without = (float(np.sqrt(np.mean(values**2))) for values in (held.offset, held.without))
    console().print(
        f"distance of the spot from the centre: {offset:.2f} pixels rms over {len(held.offset)} frames\n"
        f"without the loop it would have been:  {without:.2f} pixels rms, {held.without.max():.2f} at most"
    )


def _row(item: FilterPower, maximum: float) -> tuple[str, ...]:
    spread = 100.0 * (max(item.readings) - min(item.readings)) / item.mean
    return item.wheel, str(item.slot), f"{item.mean:.3e}", f"{spread:.1f}", f"{item.mean / maximum:.2e}"
