"""``catkit-devices bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices.cli.options import Json
from catkit_devices.cli.output import console, print_json, print_table

if TYPE_CHECKING:
    from catkit_devices.benchmark import Figure

__all__ = ["EXAMPLES", "bench"]

EXAMPLES = (
    "catkit-devices bench",
    "catkit-devices bench --rounds 200 --json > figures.json",
)


def bench(
    rounds: Annotated[
        int, typer.Option(min=1, max=10_000, help="How often everything is measured; more gives steadier figures.")
    ] = 25,
    as_json: Json = False,
) -> None:
    """Measure how long calls, arrays, frames and telemetry take on this computer; it takes less than a minute.

    Each time is a median in microseconds, beside the time that one call in a hundred exceeds. The ratio is to what it
    is compared with: for us, what it cannot be faster than; for others, the same done by us. All were measured in the
    same rounds, so other programs disturb all of them alike; but times are shorter and ratios steadier while the
    computer has nothing else to do.

    It starts processes of its own, and touches no testbed.
    """
    from catkit_devices.benchmark import measure_everything

    computer = _computer()
    tables = measure_everything(rounds)
    if as_json:
        figures = {title: [figure._asdict() for figure in table] for title, table in tables.items()}
        print_json({"computer": computer, "tables": figures})
        return
    console().print(
        f"{computer['system']}, {computer['cores']} cores, Python {computer['python']}; "
        f"{computer['load']:.1f} programs ran in the minute before",
        markup=False,
        highlight=False,
    )
    for title, table in tables.items():
        print_table(title, ["us", "#median", "#99 %", "#ratio", "#wanted", "compared with"], map(_row, table))


def _computer() -> dict[str, Any]:
    import os
    import platform

    return {
        "system": f"{platform.system()} on {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan"),
    }


def _row(figure: Figure) -> tuple[str, ...]:
    wanted = ""
    if figure.goal is not None:
        wanted = f"{figure.goal:.2f}"
    elif figure.most is not None:
        wanted = f"{figure.most:.0f} us"
    return (
        figure.name,
        f"{figure.median:.1f}",
        f"{figure.p99:.1f}",
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        wanted,
        figure.compared_with,
    )
