"""Pictures of what a run recorded."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices.datalog.reader import RunReader
from catkit_devices.errors import ConfigurationError, DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from catkit_devices.datalog.records import Scalars, Tag

__all__ = ["draw_into", "over", "plot", "plot_over_time"]

_STYLE: Any = {
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#dfe4e8",
    "legend.frameon": False,
}
_MANY = 300
"""Points of a curve over time, above which they are not marked by dots: the dots would hide the line."""
_IMAGE = 1.4
"""Height of an image, in heights of a plot of scalars."""
_PREFERRED = ("scalar", "curve", "array", "figure")
"""If a tag has records of several kinds, the first kind in this list is drawn."""


def plot(
    run: str | os.PathLike[str] | RunReader,
    tags: Sequence[str] | str,
    file: str | os.PathLike[str],
    index: int = -1,
    *,
    x: str | None = None,
    log: bool = False,
) -> None:
    """Draw what a run has logged, finished or not, into a picture: PNG, PDF or SVG, by the ending of the file's name.

    Scalars are drawn over time, or over another scalar, with a plot of its own for each unit. All curves of a tag are
    drawn in one plot. Of arrays one record is drawn: as a line if it has one dimension, else as an image beside the row
    and the column through its brightest point. A logged figure is written unchanged.

    Args:
        run: the run's directory, or a reader of it.
        tags: what to draw; empty for all scalars.
        file: the picture to write. It never appears in part.
        index: which record of an array or figure is drawn; the newest by default.
        x: the scalar over which scalars are drawn, instead of time: record by record if both have as many, else
            each with the last one of ``x`` before it.
        log: whether values have a logarithmic axis, and images logarithmic colours; what is not above 0 is left out.

    Raises:
        ConfigurationError: a tag that nothing was logged under, or one that cannot be drawn.
        DataError: there is no such record, or the picture cannot be written.
    """
    wanted = [tags] if isinstance(tags, str) else list(tags)
    target = Path(file)
    if isinstance(run, RunReader):
        _plot(run, wanted, target, index, x, log)
    else:
        with RunReader(run) as reader:
            _plot(reader, wanted, target, index, x, log)


def draw_into(
    drawing: Drawing,
    reader: RunReader,
    tags: Sequence[str],
    index: int = -1,
    *,
    x: str | None = None,
    log: bool = False,
) -> None:
    """Draw what a run has logged so far into a figure of matplotlib, in place of what is there; see :func:`plot`."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        drawing.clear()
        _fill(drawing, reader, _tags(reader, tags), index, None if x is None else _scalar(reader, x), log)


def plot_over_time(
    curves: Mapping[str, Sequence[tuple[float, Any, Any, Any]]],
    units: Mapping[str, str | None],
    file: str | os.PathLike[str],
    title: str = "",
) -> None:
    """Draw quantities over time into a picture, with a plot for each unit; values that are not numbers are gaps.

    Args:
        curves: for each quantity, time (seconds since 1970 UTC), value, lowest and highest of each point.
        units: of each quantity.
        file: the picture to write: PNG, PDF or SVG, by the ending of its name.
        title: above the picture.

    Raises:
        DataError: there is nothing to draw, or the picture cannot be written.
    """
    if not any(curves.values()):
        raise DataError("there are no values to draw in this time")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: dict[str | None, list[str]] = {}
    for name in curves:
        panels.setdefault(units.get(name), []).append(name)
    target = Path(file)
    with mpl.rc_context(_STYLE):
        drawing = Figure(figsize=(9.0, 1.4 + 2.6 * len(panels)), layout="constrained")
        FigureCanvasAgg(drawing)
        first: Axes | None = None
        for number, (unit, names) in enumerate(panels.items()):
            axes = drawing.add_subplot(len(panels), 1, number + 1, sharex=first)
            first = first or axes
            for name in names:
                _band(curves[name], name, axes)
            _label(names, unit, axes)
            _label_time(axes)
        drawing.suptitle(title, x=0.01, ha="left", fontsize=9.0, color="#667480")
        _write(target, lambda file: drawing.savefig(file, dpi=150, facecolor="white"))


def _band(points: Sequence[tuple[float, Any, Any, Any]], name: str, axes: Axes) -> None:
    import numpy as np

    numbers = [[float(part) if isinstance(part, int | float) else np.nan for part in point[1:]] for point in points]
    times = np.array([round(point[0] * 1e6) for point in points], "datetime64[us]")
    value, lowest, highest = np.array(numbers, float).reshape(-1, 3).T
    (line,) = axes.plot(times, value, marker="" if len(times) > _MANY else ".", linewidth=1.2, label=name)
    axes.fill_between(times, lowest, highest, alpha=0.25, linewidth=0, color=line.get_color())


def _plot(reader: RunReader, names: list[str], target: Path, index: int, x: str | None, log: bool) -> None:
    tags = _tags(reader, names)
    if len(tags) == 1 and tags[0].kind == "figure" and target.suffix.lower() == ".png":
        (figure,) = reader.figures(tags[0].tag, index=index)
        _write(target, lambda file: file.write_bytes(figure.png))
        return
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        drawing = Figure(layout="constrained")
        FigureCanvasAgg(drawing)
        _fill(drawing, reader, tags, index, None if x is None else _scalar(reader, x), log)
        _write(target, lambda file: drawing.savefig(file, dpi=150, facecolor="white"))


def _write(target: Path, write: Callable[[Path], object]) -> None:
    # Beside it first: somebody may look at the picture while it is drawn anew.
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")
    try:
        write(partial)
        partial.replace(target)
    except (OSError, ValueError) as error:  # matplotlib knows no format of that ending
        with contextlib.suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)
        raise DataError(f"{str(target)!r} cannot be written: {error}") from error


def _tags(reader: RunReader, names: Sequence[str]) -> list[Tag]:
    if names:
        return [_tag(reader, name) for name in names]
    scalars = reader.tags("scalar")
    if not scalars:
        others = [tag.tag for tag in reader.tags() if tag.kind in _PREFERRED]
        listed = f": say what to draw: {', '.join(others[:20])}" if others else ""
        raise ConfigurationError(f"run {reader.path}: no scalar was logged{listed}")
    return scalars


def _scalar(reader: RunReader, name: str) -> Tag:
    tag = _tag(reader, name)
    if tag.kind != "scalar":
        raise ConfigurationError(f"run {reader.path}: expected a scalar for the x axis, got {name!r}: {tag.kind}")
    return tag


def _tag(reader: RunReader, name: str) -> Tag:
    known = reader.tags()
    kinds = {tag.kind: tag for tag in known if tag.tag == name}
    for kind in _PREFERRED:
        if kind in kinds:
            return kinds[kind]
    drawable = [tag.tag for tag in known if tag.kind in _PREFERRED]
    problem = f"{' and '.join(kinds)} {name!r} cannot be drawn" if kinds else f"nothing was logged as {name!r}"
    listed = f": there is {', '.join(drawable[:20])}{', ...' if len(drawable) > 20 else ''}" if drawable else ""
    raise ConfigurationError(f"run {reader.path}: {problem}{listed}", suggestion=nearest(name, drawable))


def _fill(drawing: Drawing, reader: RunReader, tags: list[Tag], index: int, x: Tag | None, log: bool) -> None:
    panels: list[list[Tag]] = []
    for tag in tags:
        if tag == x:
            continue
        beside = next((panel for panel in panels if _fits_beside(panel[0], tag)), None)
        if beside is None:
            panels.append([tag])
        else:
            beside.append(tag)
    heights = [_IMAGE if panel[0].kind in {"array", "figure"} else 1.0 for panel in panels] or [1.0]
    drawing.set_size_inches(9.0, 1.4 + 3.2 * sum(heights))
    grid = drawing.add_gridspec(len(heights), 1, height_ratios=heights)
    # All plots over time have the same time axis, so that one sees what happened at the same time.
    first: Axes | None = None
    for number, panel in enumerate(panels):
        kind = panel[0].kind
        if kind == "scalar":
            axes = drawing.add_subplot(grid[number], sharex=first)
            first = first or axes
            _scalars(reader, panel, axes, x)
        elif kind == "curve":
            axes = drawing.add_subplot(grid[number])
            _curves(reader, panel[0], axes)
        else:
            _record(reader, panel[0], drawing, grid[number], index, log)
            continue
        if log:
            axes.set_yscale("log", nonpositive="mask")
    drawing.suptitle(reader.path.name, x=0.01, ha="left", fontsize=9.0, color="#667480")


def _fits_beside(first: Tag, tag: Tag) -> bool:
    return first.kind == tag.kind == "scalar" and first.unit == tag.unit


def _scalars(reader: RunReader, tags: list[Tag], axes: Axes, x: Tag | None) -> None:
    for tag in tags:
        scalars = reader.scalars(tag.tag)
        marker = "" if len(scalars) > _MANY else "."
        places, values = scalars.times.astype("datetime64[us]"), scalars.values
        if x is not None:
            places, values = over(reader.scalars(x.tag), scalars)
        axes.plot(places, values, marker=marker, linewidth=1.2, label=tag.tag)
    _label([tag.tag for tag in tags], tags[0].unit, axes)
    if x is None:
        _label_time(axes)
    else:
        axes.set_xlabel(_labelled(x.tag, x.unit))


def over(x: Scalars, y: Scalars) -> tuple[Any, Any]:
    """Return pairs of two scalars: record by record if both have as many, else each y with the last x before it."""
    import numpy as np

    if len(x) == len(y):
        return x.values, y.values
    before = np.searchsorted(x.times, y.times, side="right") - 1
    return x.values[before[before >= 0]], y.values[before >= 0]


def _label(names: Sequence[str], unit: str | None, axes: Axes) -> None:
    if len(names) > 1:
        axes.legend()
    else:
        axes.set_title(names[0])
    axes.set_ylabel(unit or "")
    axes.grid()


def _label_time(axes: Axes) -> None:
    from matplotlib import dates

    formatter: Any = dates.ConciseDateFormatter  # matplotlib has no annotations for it
    axes.xaxis.set_major_formatter(formatter(axes.xaxis.get_major_locator()))
    axes.set_xlabel("time (UTC)")


def _curves(reader: RunReader, tag: Tag, axes: Axes) -> None:
    curves = reader.curves(tag.tag)
    for number, curve in enumerate(curves):
        newest = number == len(curves) - 1
        axes.plot(curve.x, curve.y, linewidth=1.2, color="C0", alpha=1.0 if newest else max(0.15, 1.0 / len(curves)))
    last = curves[-1]
    axes.set_xlabel(_labelled(last.x_label, last.x_unit))
    axes.set_ylabel(_labelled(last.y_label, last.y_unit))
    axes.set_title(f"{tag.tag} ({len(curves)} curves, the newest is darkest)" if len(curves) > 1 else tag.tag)
    axes.grid()


def _record(reader: RunReader, tag: Tag, drawing: Drawing, place: Any, index: int, log: bool) -> None:
    import io

    import numpy as np

    if tag.kind == "figure":
        from matplotlib.image import imread

        (figure,) = reader.figures(tag.tag, index=index)
        axes = drawing.add_subplot(place)
        axes.imshow(imread(io.BytesIO(figure.png)))
        axes.set_axis_off()
        return
    arrays = reader.arrays(tag.tag, index=index)
    data = np.squeeze(arrays[0])
    if data.dtype.names or data.dtype.kind not in "biuf" or data.ndim not in (1, 2) or not data.size:
        raise ConfigurationError(
            f"array {tag.tag!r} cannot be drawn: expected numbers in one or two dimensions, "
            f"got {arrays[0].dtype} of shape {arrays[0].shape}"
        )
    moment = str(arrays.times[0].astype("datetime64[ms]")).replace("T", " ")
    which = (index if index >= 0 else tag.count + index) + 1
    title = f"{tag.tag}, {which} of {tag.count}, {moment} UTC"
    if data.ndim == 2:
        _image(data, title, arrays.unit, drawing, place, log)
        return
    axes = drawing.add_subplot(place)
    axes.set_title(title)
    axes.plot(data, linewidth=1.2)
    axes.set_xlabel("element")
    axes.set_ylabel(arrays.unit or "")
    axes.grid()
    if log:
        axes.set_yscale("log", nonpositive="mask")


def _image(data: npt.NDArray[Any], title: str, unit: str | None, drawing: Drawing, place: Any, log: bool) -> None:
    """Draw an image, and beside it the row and the column through its brightest point, so that both use the place."""
    import numpy as np

    left = place.subgridspec(1, 2, width_ratios=(3, 2))
    axes = drawing.add_subplot(left[0])
    axes.set_title(title)
    positive = log and bool(np.any(data > 0))
    image = axes.imshow(data, interpolation="nearest", norm="log" if positive else None)
    drawing.colorbar(image, ax=axes, label=unit or "")
    right = left[1].subgridspec(2, 1)
    finite = np.where(np.isfinite(data), data, -np.inf)
    row, column = np.unravel_index(int(np.argmax(finite)), data.shape)
    for number, (name, line) in enumerate((("row", data[row]), ("column", data[:, column]))):
        profile = drawing.add_subplot(right[number])
        profile.plot(line, linewidth=1.2)
        profile.set_title(f"{name} {row if name == 'row' else column}")
        profile.set_ylabel(unit or "")
        profile.grid()
        if positive:
            profile.set_yscale("log", nonpositive="mask")


def _labelled(label: str, unit: str | None) -> str:
    return f"{label} ({unit})" if label and unit else label or unit or ""
