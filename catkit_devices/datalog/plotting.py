"""Pictures of what a run recorded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices.datalog.reader import RunReader
from catkit_devices.errors import ConfigurationError, DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

    from catkit_devices.datalog.records import Tag

__all__ = ["plot", "plot_over_time"]

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
_PREFERRED = ("scalar", "curve", "array", "figure")
"""If a tag has records of several kinds, the first kind in this list is drawn."""


def plot(
    run: str | os.PathLike[str] | RunReader, tags: Sequence[str] | str, file: str | os.PathLike[str], index: int = -1
) -> None:
    """Draw what a run has logged, finished or not, into a picture: PNG, PDF or SVG, by the ending of the file's name.

    Scalars are drawn over time, with a plot of its own for each unit. All curves of a tag are drawn in one plot. Of
    arrays one record is drawn: as a line if it has one dimension, else as an image. A logged figure is written
    unchanged.

    Args:
        run: the run's directory, or a reader of it.
        tags: what to draw.
        file: the picture to write.
        index: which record of an array or figure is drawn; the newest by default.

    Raises:
        ConfigurationError: a tag that nothing was logged under, or one that cannot be drawn.
        DataError: there is no such record, or the picture cannot be written.
    """
    wanted = [tags] if isinstance(tags, str) else list(tags)
    target = Path(file)
    if isinstance(run, RunReader):
        _plot(run, wanted, target, index)
    else:
        with RunReader(run) as reader:
            _plot(reader, wanted, target, index)


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
            _over_time(names, unit, axes)
        drawing.suptitle(title, x=0.01, ha="left", fontsize=9.0, color="#667480")
        _write(target, lambda: drawing.savefig(target, dpi=150, facecolor="white"))


def _band(points: Sequence[tuple[float, Any, Any, Any]], name: str, axes: Axes) -> None:
    import numpy as np

    numbers = [[float(part) if isinstance(part, int | float) else np.nan for part in point[1:]] for point in points]
    times = np.array([round(point[0] * 1e6) for point in points], "datetime64[us]")
    value, lowest, highest = np.array(numbers, float).reshape(-1, 3).T
    (line,) = axes.plot(times, value, marker="" if len(times) > _MANY else ".", linewidth=1.2, label=name)
    axes.fill_between(times, lowest, highest, alpha=0.25, linewidth=0, color=line.get_color())


def _plot(reader: RunReader, names: list[str], target: Path, index: int) -> None:
    tags = [_tag(reader, name) for name in names]
    if len(tags) == 1 and tags[0].kind == "figure" and target.suffix.lower() == ".png":
        (figure,) = reader.figures(tags[0].tag, index=index)
        _write(target, lambda: target.write_bytes(figure.png))
        return
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        drawing = _draw(reader, tags, index)
        _write(target, lambda: drawing.savefig(target, dpi=150, facecolor="white"))


def _write(target: Path, write: Any) -> None:
    try:
        write()
    except (OSError, ValueError) as error:  # matplotlib knows no format of that ending
        raise DataError(f"{target} cannot be written: {error}") from error


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


def _draw(reader: RunReader, tags: list[Tag], index: int) -> Drawing:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: list[list[Tag]] = []
    for tag in tags:
        beside = next((panel for panel in panels if _fits_beside(panel[0], tag)), None)
        if beside is None:
            panels.append([tag])
        else:
            beside.append(tag)
    drawing = Figure(figsize=(9.0, 1.4 + 3.2 * len(panels)), layout="constrained")
    FigureCanvasAgg(drawing)
    # All plots over time have the same time axis, so that one sees what happened at the same time.
    first: Axes | None = None
    for number, panel in enumerate(panels):
        over_time = panel[0].kind == "scalar"
        axes = drawing.add_subplot(len(panels), 1, number + 1, sharex=first if over_time else None)
        if over_time:
            first = first or axes
            _scalars(reader, panel, axes)
        elif panel[0].kind == "curve":
            _curves(reader, panel[0], axes)
        else:
            _record(reader, panel[0], axes, index)
    drawing.suptitle(reader.path.name, x=0.01, ha="left", fontsize=9.0, color="#667480")
    return drawing


def _fits_beside(first: Tag, tag: Tag) -> bool:
    return first.kind == tag.kind == "scalar" and first.unit == tag.unit


def _scalars(reader: RunReader, tags: list[Tag], axes: Axes) -> None:
    for tag in tags:
        scalars = reader.scalars(tag.tag)
        marker = "" if len(scalars) > _MANY else "."
        axes.plot(scalars.times.astype("datetime64[us]"), scalars.values, marker=marker, linewidth=1.2, label=tag.tag)
    _over_time([tag.tag for tag in tags], tags[0].unit, axes)


def _over_time(names: Sequence[str], unit: str | None, axes: Axes) -> None:
    """Label a plot of quantities over time."""
    from matplotlib import dates

    formatter: Any = dates.ConciseDateFormatter  # matplotlib has no annotations for it
    if len(names) > 1:
        axes.legend()
    else:
        axes.set_title(names[0])
    axes.xaxis.set_major_formatter(formatter(axes.xaxis.get_major_locator()))
    axes.set_ylabel(unit or "")
    axes.set_xlabel("time (UTC)")
    axes.grid()


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


def _record(reader: RunReader, tag: Tag, axes: Axes, index: int) -> None:
    import io

    import numpy as np

    if tag.kind == "figure":
        from matplotlib.image import imread

        (figure,) = reader.figures(tag.tag, index=index)
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
    axes.set_title(f"{tag.tag}, {which} of {tag.count}, {moment} UTC")
    if data.ndim == 1:
        axes.plot(data, linewidth=1.2)
        axes.set_xlabel("element")
        axes.set_ylabel(arrays.unit or "")
        axes.grid()
        return
    image = axes.imshow(data, interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, label=arrays.unit or "")


def _labelled(label: str, unit: str | None) -> str:
    return f"{label} ({unit})" if label and unit else label or unit or ""
