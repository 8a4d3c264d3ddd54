"""Small drawings (SVG), which need no JavaScript: a value between its limits, a quantity over time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from catkit_devices.web.markup import Markup, tag
from catkit_devices.web.pages.parts import nothing

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CURVE", "bar", "curve"]

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
