"""Frames of a camera on its page: the newest one, its histogram, and which pixels are saturated."""

from __future__ import annotations

import struct
import zlib
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from starlette.responses import Response

from catkit_devices.errors import CatkitDevicesError
from catkit_devices.web.markup import Markup, tag
from catkit_devices.web.pages.drawing import histogram
from catkit_devices.web.pages.parts import Served, nothing, took
from catkit_devices.web.pictures import png
from catkit_devices.web.problems import Problem

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from starlette.requests import Request

    from catkit_devices.multiprocessing.types.stream import Frame

__all__ = ["Scale", "figure", "frame", "frame_picture", "picture", "scale_of"]

_LARGEST = 1024
"""Pixels of a side of a picture; of a larger frame every second pixel is shown, or every third, and so on."""
_GREYS, _SATURATED = 254, 255
"""The brightest grey of a picture's palette, and its colour for saturated pixels."""
_BINS = 64
"""Of a histogram."""
_WAIT = 0.5
"""Seconds to wait for a frame if the newest one is old."""


class Scale(NamedTuple):
    """How the values of a frame are shown."""

    black: float
    white: float
    saturation: float | None
    """The value from which on a pixel counts as saturated; None where that is not known."""
    saturated: int
    """How many pixels are."""


def scale_of(frame: npt.NDArray[Any], saturation: float | None = None) -> Scale:
    """Return how a frame is shown: from its smallest value (black) to its largest one (white).

    Args:
        frame: rows and columns of numbers.
        saturation: the value at which a pixel saturates; None for the largest value of its type, if that has one.
    """
    import numpy as np

    if saturation is None and frame.dtype.kind in "iu":
        saturation = float(np.iinfo(frame.dtype).max)
    finite = frame[np.isfinite(frame)] if frame.dtype.kind == "f" else frame
    if not finite.size:
        return Scale(0.0, 0.0, saturation, 0)
    full = 0 if saturation is None else int(np.count_nonzero(finite >= saturation))
    return Scale(float(finite.min()), float(finite.max()), saturation, full)


def picture(frame: npt.NDArray[Any], scale: Scale) -> bytes:
    """Return a frame as PNG: grey from black to white, and red where a pixel is saturated.

    Raises:
        Problem: it has not two dimensions, or no pixel.
    """
    import numpy as np

    if frame.ndim != 2 or not frame.size or frame.dtype.kind not in "biuf":
        raise Problem(422, f"only an array of numbers with rows and columns is a picture, got {_what(frame)}")
    shown = frame[:: -(-frame.shape[0] // _LARGEST), :: -(-frame.shape[1] // _LARGEST)]
    part = (shown.astype(np.float64) - scale.black) / ((scale.white - scale.black) or 1.0)
    pixels = (np.clip(np.nan_to_num(part), 0.0, 1.0) * _GREYS).astype(np.uint8)
    if scale.saturation is not None:
        pixels[shown >= scale.saturation] = _SATURATED
    grey = np.linspace(0, 255, _GREYS + 1).astype(np.uint8)
    palette = np.repeat(grey[:, None], 3, axis=1).tobytes() + bytes((255, 0, 60))
    height, width = pixels.shape
    lines = np.concatenate((np.zeros((height, 1), np.uint8), pixels), axis=1)  # each line begins with its filter: none
    head = struct.pack(">2I5B", width, height, 8, 3, 0, 0, 0)  # 8 bits, with a palette (W3C PNG, 11.2.1)
    return png((b"IHDR", head), (b"PLTE", palette), (b"IDAT", zlib.compress(lines.tobytes(), 1)))


def _what(frame: npt.NDArray[Any]) -> str:
    return f"{frame.dtype} of shape {frame.shape}"


async def frame_picture(served: Served, request: Request) -> Response:
    """Return the newest frame of a camera as PNG; what follows ``?`` only tells browsers that it is another one."""
    name = request.path_params["device"]
    png = await served.actions.look(partial(_newest_picture, served, name))
    return Response(png, media_type="image/png")


def _newest_picture(served: Served, name: str) -> bytes:
    array = _newest(served, name).array
    return picture(array, scale_of(array, served.saturation.get(name)))


def _newest(served: Served, name: str) -> Frame:
    return served.client.frames[name].newest(_WAIT)


async def frame(served: Served, request: Request) -> tuple[str, Markup]:
    """Return the newest frame of a camera with its scale and its histogram: a part of the camera's page."""
    name = request.path_params["device"]
    return name, await served.actions.look(partial(figure, served, name))


def figure(served: Served, name: str) -> Markup:
    """Return the newest frame with its scale and its histogram, or why there is none."""
    try:
        found = _newest(served, name)
    except CatkitDevicesError as error:
        return tag("p", str(error), class_="refusal")
    array = found.array
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        return nothing(f"frames of {_what(array)} are not shown")
    scale = scale_of(array, served.saturation.get(name))
    rows, columns = array.shape
    return Markup(
        tag(
            "img", id="frame", src=f"/devices/{quote(name)}/frame.png?number={found.number}", width=columns,
            height=rows, alt=f"Frame {found.number} of {name}, {columns} times {rows} pixels", class_="frame",
        )
        + tag("p", f"frame {found.number}, {took(max(0.0, found.age))} old, {columns} x {rows} pixels, {array.dtype}")
        + tag("p", tag("span", f"black is {scale.black:g}, white is {scale.white:g}; mean {_mean(array):.6g}"))
        + _saturated(scale)
        + _bins(array, scale)
    )  # fmt: skip


def _mean(array: npt.NDArray[Any]) -> float:
    import numpy as np

    finite = array[np.isfinite(array)]
    return float(finite.mean()) if finite.size else float("nan")


def _saturated(scale: Scale) -> Markup:
    if scale.saturation is None:
        return nothing("at which value a pixel saturates is not known")
    if not scale.saturated:
        return tag("p", tag("span", f"no pixel is saturated (at {scale.saturation:g})", class_="dim"))
    pixels = "pixel is" if scale.saturated == 1 else "pixels are"
    return tag("p", f"{scale.saturated} {pixels} saturated (at {scale.saturation:g}), and red", class_="refusal")


def _bins(array: npt.NDArray[Any], scale: Scale) -> Markup:
    import numpy as np

    finite: np.ndarray[Any, Any] = array[np.isfinite(array)]
    if not finite.size:
        return nothing("no pixel has a value")
    top = scale.white if scale.white > scale.black else scale.black + 1.0
    counts, _ = np.histogram(finite, _BINS, (scale.black, top))
    return histogram([int(one) for one in counts], scale.black, top)
