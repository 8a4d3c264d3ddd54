"""The picture of the demonstration: what one experiment measured while the other one kept the light in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.datalog import RunReader
from catkit_devices.demo.results import read_filters, read_loop

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from catkit_devices.demo.results import FilterPower, Loop

__all__ = ["plot"]

_INK = "#22303c"
_FAINT = "#8a97a3"
_HELD = "#1f6fb4"
_LOST = "#c8553d"
_TURN = "#e9edf1"
_WHEELS = ("#3c4f63", "#d98324", "#4f8f5b", "#8c6bb1")

_STYLE: Any = {
    "font.size": 10.0,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dfe4e8",
    "grid.linewidth": 0.8,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


def plot(scan: Path, loop: Path, file: Path) -> None:
    """Draw the runs of both experiments into one PNG file.

    Args:
        scan: run directory of the filter scan.
        loop: run directory of the loop that keeps the spot centred.
        file: the picture to write.

    Raises:
        DataError: a run is missing or has nothing to draw.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with RunReader(scan) as reader:
        filters, turns = read_filters(reader)
    with RunReader(loop) as reader:
        held = read_loop(reader)
    with mpl.rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08, wspace=0.04)
        figure = Figure(figsize=(12.5, 6.4), layout=layout)
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, 2, width_ratios=[0.8, 1.0])
        _draw_filters(figure.add_subplot(grid[:, 0]), filters)
        offset = figure.add_subplot(grid[0, 1])
        power = figure.add_subplot(grid[1, 1], sharex=offset)
        start = held.seconds[0]
        _draw_offset(offset, held)
        _draw_power(power, held)
        for axes in (offset, power):
            for begin, end in turns:
                axes.axvspan(begin - start, end - start, color=_TURN, linewidth=0, zorder=0)
        offset.set_xlim(0.0, held.seconds[-1] - start)
        offset.tick_params(labelbottom=False)
        figure.savefig(file, format="png", dpi=150, facecolor="white")


def _draw_filters(axes: Axes, filters: list[FilterPower]) -> None:
    wheels = list(dict.fromkeys(item.wheel for item in filters))
    lowest = min(item.mean for item in filters) / 3.0
    row = 0.0
    ticks: list[tuple[float, str]] = []
    for number, wheel in enumerate(wheels):
        colour = _WHEELS[number % len(_WHEELS)]
        axes.text(0.0, row - 0.85, _words(wheel), color=colour, fontweight="bold", va="center",
                  transform=axes.get_yaxis_transform())  # fmt: skip
        for item in (item for item in filters if item.wheel == wheel):
            axes.plot([lowest, item.mean], [row, row], color=colour, linewidth=1.4, alpha=0.35, zorder=1)
            axes.plot(item.readings, [row] * len(item.readings), "o", color=colour, markersize=6.5, alpha=0.35,
                      markeredgewidth=0, zorder=2)  # fmt: skip
            axes.annotate(_power(item.mean), (max(item.readings), row), xytext=(9, 0), textcoords="offset points",
                          va="center", fontsize=9.5)  # fmt: skip
            ticks.append((row, f"filter {item.slot}"))
            row += 1.0
        row += 1.2
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xlim(lowest, max(item.mean for item in filters) * 12.0)
    axes.set_ylim(row - 1.6, -1.5)
    axes.set_yticks([position for position, _ in ticks], [label for _, label in ticks])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel("power on the meter (W, logarithmic)")
    count = len(filters[0].readings)
    axes.set_title(f"Power behind every filter, {count} readings each")


def _draw_offset(axes: Axes, held: Loop) -> None:
    from matplotlib.ticker import MaxNLocator

    elapsed = held.seconds - held.seconds[0]
    axes.fill_between(elapsed, held.offset, held.without, color=_LOST, alpha=0.10, linewidth=0)
    axes.plot(elapsed, held.without, color=_LOST, linewidth=1.6, linestyle=(0, (4, 2)), label="without the loop")
    axes.plot(elapsed, held.offset, color=_HELD, linewidth=1.4, marker="o", markersize=2.6, label="held by the loop")
    axes.set_ylim(0.0, float(held.without.max()) * 1.15)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(axis="y")
    axes.set_ylabel("offset (pixels)")
    axes.set_title("Distance of the spot from the centre")
    axes.legend(loc="upper left", ncols=2, borderaxespad=0.2)


def _draw_power(axes: Axes, held: Loop) -> None:
    elapsed = held.seconds - held.seconds[0]
    scale, unit = _scale(float(held.power.max()))
    axes.plot(elapsed, held.power * scale, color=_HELD, linewidth=1.2, marker="o", markersize=2.6)
    axes.set_ylim(0.0, float(held.power.max()) * scale * 1.2)
    axes.grid(axis="y")
    axes.set_ylabel(f"power ({unit})")
    axes.set_xlabel("time (s); grey: the filter scan uses the light")
    axes.set_title("Power on the meter while the spot is held")


def _words(name: str) -> str:
    words = name.replace("_", " ")
    return words.replace("nd ", "ND ") if words.startswith("nd ") else words


def _scale(watts: float) -> tuple[float, str]:
    for size, unit in ((1.0, "W"), (1e-3, "mW"), (1e-6, "µW"), (1e-9, "nW")):
        if watts >= size:
            return 1.0 / size, unit
    return 1e12, "pW"


def _power(watts: float) -> str:
    scale, unit = _scale(watts)
    return f"{watts * scale:.3g} {unit}"
