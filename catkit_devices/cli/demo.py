"""``catkit-devices demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catkit_devices.cli.options import Json, Overrides
from catkit_devices.cli.output import console, print_json, print_table, short

if TYPE_CHECKING:
    from catkit_devices.demo.results import FilterPower

__all__ = ["EXAMPLES", "demo"]

EXAMPLES = ("catkit-devices demo", "catkit-devices demo --runs /tmp/demo")


def demo(
    runs: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Where to keep the run directories.")] = Path(
        "runs"
    ),
    overrides: Overrides = [],
    as_json: Json = False,
) -> None:
    """Run two experiments at once on a simulated bench, and draw what they measured.

    One measures the power behind every filter, the other keeps the spot in place with the tip/tilt stage while it
    drifts. They take turns on the devices that both need.
    """
    from catkit_devices.cli.live import LiveView
    from catkit_devices.cli.screen import Screen
    from catkit_devices.demo import FilterScan, KeepCentred, plot
    from catkit_devices.testbed import Testbed, bundled, load_configuration

    configuration = load_configuration([bundled("demo")], overrides)
    with Screen() as screen, Testbed(configuration, simulate=True, runs=runs) as testbed:
        with LiveView(testbed, screen):
            testbed.run(FilterScan(spot_timeout=20.0), KeepCentred())
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
