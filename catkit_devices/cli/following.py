"""Pictures of a run while it goes on: in a window, in a file, or in the terminal."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from catkit_devices.datalog import RunReader

__all__ = ["Wanted", "follow", "has_display", "sketch"]

_NOT_WINDOWS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}
"""Backends of matplotlib that open no window."""
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bits of the eight dots of a braille character, by row and column (Unicode, block 2800)."""
_ROWS = 8
"""Lines of a plot in the terminal."""
_MARGIN = 12
"""Columns for the numbers beside it."""


@dataclass(frozen=True)
class Wanted:
    """What is drawn."""

    tags: Sequence[str]
    index: int
    x: str | None
    log: bool


def has_display() -> bool:
    """Return whether windows can be opened here."""
    if os.environ.get("MPLBACKEND", "agg").lower() not in _NOT_WINDOWS:
        return True
    return sys.platform in {"darwin", "win32"} or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def follow(directory: Path, wanted: Wanted, out: Path | None, interval: float) -> str:
    """Draw a run again whenever it has recorded something, until it ends; return how it ended.

    Args:
        directory: of the run.
        wanted: what is drawn; what is not there yet is waited for.
        out: the picture to write; None for a window, or without a display the terminal.
        interval: seconds between two looks.

    Raises:
        ConfigurationError: the run has ended, and has nothing of what was asked for.
    """
    if out is not None:
        return _repeat(directory, interval, lambda reader: _to_file(reader, wanted, out), time.sleep)
    if not has_display():
        return _repeat(directory, interval, lambda reader: _to_terminal(reader, wanted), time.sleep)
    return _in_window(directory, wanted, interval)


def _repeat(
    directory: Path,
    interval: float,
    draw: Callable[[RunReader], object],
    wait: Callable[[float], object],
    goes_on: Callable[[], bool] = lambda: True,
) -> str:
    from catkit_devices.datalog import RunReader, summarise

    drawn = -1
    with RunReader(directory) as reader:
        while True:
            outcome = summarise(directory).outcome  # before looking: what was recorded until then is drawn at last
            count = reader.record_count
            if count != drawn:
                try:
                    draw(reader)
                    drawn = count
                except ConfigurationError:
                    if outcome != "running":
                        raise
            if outcome != "running" or not goes_on():
                return outcome
            wait(interval)


def _to_file(reader: RunReader, wanted: Wanted, out: Path) -> None:
    from catkit_devices.datalog import plot

    plot(reader, wanted.tags, out, wanted.index, x=wanted.x, log=wanted.log)


def _in_window(directory: Path, wanted: Wanted, interval: float) -> str:
    import matplotlib.pyplot as plt

    from catkit_devices.datalog.plotting import draw_into

    drawing = plt.figure(num=directory.name, layout="constrained")
    if plt.get_backend().lower() in _NOT_WINDOWS:
        raise DataError("matplotlib has nothing to open a window with: install PyQt6, or say --out FILE")

    def draw(reader: RunReader) -> None:
        draw_into(drawing, reader, wanted.tags, wanted.index, x=wanted.x, log=wanted.log)
        drawing.canvas.draw_idle()

    def is_open() -> bool:
        return bool(plt.fignum_exists(drawing.number))

    plt.show(block=False)
    outcome = _repeat(directory, interval, draw, plt.pause, is_open)
    while is_open():  # what has ended is looked at until the window is closed
        plt.pause(interval)
    return outcome


def _to_terminal(reader: RunReader, wanted: Wanted) -> None:
    size = shutil.get_terminal_size()
    lines = _lines(reader, wanted, size.columns)[: max(1, size.lines - 1)]
    if sys.stdout.isatty():
        sys.stdout.write("\x1b[H\x1b[2J")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _lines(reader: RunReader, wanted: Wanted, width: int) -> list[str]:
    scalars = reader.tags("scalar")
    known = [tag.tag for tag in scalars]
    names = list(wanted.tags) or known
    missing = [name for name in [*names, *([wanted.x] if wanted.x else [])] if name not in known]
    if missing or not names:
        what = f"no scalar {missing[0]!r}" if missing else "no scalar"
        raise ConfigurationError(
            f"run {reader.path}: {what} was logged: only scalars are drawn in the terminal, --out FILE draws the rest"
        )
    lines = [reader.path.name]
    for name in names:
        if name == wanted.x:
            continue
        values = reader.scalars(name)
        places: Any = values.seconds
        if wanted.x is not None:
            from catkit_devices.datalog.plotting import over

            places, numbers = over(reader.scalars(wanted.x), values)
        else:
            numbers = values.values
        unit = f" {values.unit}" if values.unit else ""
        lines += [f"{name}: {numbers[-1] if len(numbers) else '?'}{unit}"]
        lines += sketch(places, numbers, max(20, width - 1), _ROWS, log=wanted.log)
    return lines


def sketch(x: npt.NDArray[Any], y: npt.NDArray[Any], width: int, height: int, *, log: bool = False) -> list[str]:
    """Return points as lines of braille characters, with the lowest and the highest value beside them.

    Args:
        x: where the points are.
        y: the points; those that are not finite are left out.
        width: characters of a line.
        height: lines.
        log: whether the axis of ``y`` is logarithmic.
    """
    import numpy as np

    x, y = np.asarray(x, float), np.asarray(y, float)
    if log:
        with np.errstate(all="ignore"):
            y = np.log10(y)
    kept = np.isfinite(x) & np.isfinite(y)
    x, y = x[kept], y[kept]
    if not len(y):
        return ["(no number)"]
    columns, rows = 2 * (width - _MARGIN), 4 * height
    cells = [[0] * (width - _MARGIN) for _ in range(height)]
    across = np.rint((x - x.min()) / (np.ptp(x) or 1.0) * (columns - 1)).astype(int)
    span = np.ptp(y)
    up = np.rint((y - y.min()) / span * (rows - 1)).astype(int) if span else np.full(len(y), rows // 2)
    for column, row in zip(across, rows - 1 - up, strict=True):
        cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
    highest, lowest = (10**value if log else value for value in (y.max(), y.min()))
    labels = {0: f"{highest:.4g}", height - 1: f"{lowest:.4g}"}
    return [
        f"{labels.get(number, ''):>{_MARGIN - 2}} |" + "".join(chr(0x2800 + cell) for cell in line).rstrip("\u2800")
        for number, line in enumerate(cells)
    ]
