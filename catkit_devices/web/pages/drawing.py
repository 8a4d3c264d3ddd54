"""Small drawings (SVG), which need no JavaScript: a value between its limits, a quantity over time."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from catkit_devices.web.markup import Markup, tag
from catkit_devices.web.pages.parts import nothing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["CURVE", "bar", "curve", "histogram", "lines"]

CURVE = 600.0
"""Seconds that the curve of a quantity shows."""


def bar(value: Any, lowest: Any, highest: Any) -> Markup | None:
    """Draw a value between its limits, if there is a limit and the value is a number."""
    limits = [one for one in (lowest, highest) if isinstance(one, int | float)]
    if not limits or isinstance(value, bool):
        return None
    low, high = min(limits), max(limits)
    if low == high:
        low, high = (min(0.0, high), max(0.0, high)) if high else (-1.0, 1.0)
    margin = 0.2 * (high - low)
    begin = low - margin if isinstance(lowest, int | float) else low
    end = high + margin if isinstance(highest, int | float) else high

    def at(number: float) -> float:
        return max(0.0, min(100.0, 100.0 * (number - begin) / (end - begin)))

    left = at(lowest) if isinstance(lowest, int | float) else 0.0
    right = at(highest) if isinstance(highest, int | float) else 100.0
    marker = None
    if isinstance(value, int | float):
        marker = tag(
            "rect", x=f"{max(0.0, min(98.5, at(value) - 0.75)):.2f}", y=0, width=1.5, height=8, class_="marker"
        )
    return tag(
        "svg",
        tag("rect", x=0, y=2, width=100, height=4, class_="outside"),
        tag("rect", x=f"{left:.2f}", y=2, width=f"{right - left:.2f}", height=4, class_="inside"),
        marker, viewBox="0 0 100 8", preserveAspectRatio="none", class_="bar", aria_hidden="true",
    )  # fmt: skip


def curve(points: Sequence[Any]) -> Markup:
    """Draw the values of a quantity over time; a gap where nothing was measured."""
    numbers = [one for one in points if isinstance(one.value, int | float) and not isinstance(one.value, bool)]
    if len(numbers) < 2:
        return nothing("no curve yet")
    step = -(-len(numbers) // 600)
    low, high = min(one.value for one in numbers), max(one.value for one in numbers)
    span = (high - low) or 1.0
    end = time.time()
    path, last = "", 0.0
    for one in numbers[::step]:
        x, y = 600 * (1 - (end - one.time) / CURVE), 95 - 90 * (one.value - low) / span
        path += f"{'L' if path and one.time - last < 30 * step else 'M'}{x:.1f},{y:.1f}"
        last = one.time
    return Markup(
        tag("svg", tag("path", d=path), viewBox="0 0 600 100", preserveAspectRatio="none", class_="curve",
            role="img", aria_label=f"from {low:g} to {high:g} in the last 10 minutes")
        + tag("span", f"{low:.6g} to {high:.6g}", class_="dim")
    )  # fmt: skip


def histogram(counts: Sequence[int], low: float, high: float) -> Markup:
    """Draw how many pixels have which value; the height is the logarithm of their number, so that few are seen too."""
    most = math.log1p(max(counts))
    width = 100 / len(counts)
    bars = [
        tag("rect", x=f"{number * width:.2f}", width=f"{width * 0.9:.2f}",
            y=f"{40 - 40 * math.log1p(count) / most:.2f}", height=f"{40 * math.log1p(count) / most:.2f}")
        for number, count in enumerate(counts)
        if count
    ]  # fmt: skip
    return Markup(
        tag("svg", bars, viewBox="0 0 100 40", preserveAspectRatio="none", class_="histogram", role="img",
            aria_label=f"Histogram of the pixels from {low:g} to {high:g}")
        + tag("p", tag("span", f"{low:g}"), tag("span", "number of pixels (logarithmic)"), tag("span", f"{high:g}"),
              class_="ends dim")
    )  # fmt: skip


def lines(shown: Mapping[str, Any]) -> Markup:
    """Draw series of numbers, as ``series_of`` returns them."""
    points = [
        (x, y)
        for one in shown["series"]
        for x, y in zip(one["x"], one["y"], strict=True)
        if isinstance(x, int | float) and isinstance(y, int | float)
    ]
    if not points:
        return nothing("no number to draw")
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    paths = []
    for one in shown["series"]:
        path, gap = "", True
        for x, y in zip(one["x"], one["y"], strict=True):
            gap_before, gap = gap, not (isinstance(x, int | float) and isinstance(y, int | float))
            if not gap:
                across = 600 * (x - left) / ((right - left) or 1.0)
                up = 95 - 90 * (y - low) / ((high - low) or 1.0)
                path += f"{'M' if gap_before else 'L'}{across:.1f},{up:.1f}"
        paths.append(tag("path", d=path))
    unit = f" {shown['unit']}" if shown["unit"] else ""
    return Markup(
        tag("svg", paths, viewBox="0 0 600 100", preserveAspectRatio="none", class_="curve", role="img",
            aria_label=f"from {low:g} to {high:g}{unit}")
        + tag("span", f"{low:.6g} to {high:.6g}{unit}", class_="dim")
    )  # fmt: skip
