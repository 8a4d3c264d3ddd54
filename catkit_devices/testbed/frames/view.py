"""What programs see of the frames of cameras: each new one, without a call and without a lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

from catkit_devices.errors import ConfigurationError, ServerUnresponsiveError, WaitTimeoutError, nearest
from catkit_devices.testbed.frames.publisher import stream_of
from catkit_devices.testbed.telemetry.view import stale_after
from catkit_devices.testbed.trip import connected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from catkit_devices.multiprocessing.types.stream import Frame, FrameReader, FrameStream
    from catkit_devices.testbed.layout import Layout

__all__ = ["CameraFrames", "CameraReader", "FramesStatus", "FramesView"]


class FramesStatus(TypedDict):
    """What a status tells of the frames of a camera."""

    number: int | None
    """Of the newest frame; None if there was none yet, or it is not known."""
    rate: float | None
    """How many of the last frames came per second; None if there were not two."""
    time: float
    """When the newest one was published, in seconds since 1970 UTC; 0 if there was none yet."""
    problem: str | None
    """Why no frame comes; None as long as frames come."""


class CameraFrames:
    """The frames of one camera: ``for frame in testbed.frames["camera"]``.

    A frame is an array with its number, the time when it was published and how many frames before it this reader has
    missed. Each is seen once, so an old one never passes for a new one: while no frame comes, a reader waits, and
    ``problem`` says why. Threads may share this object.

    Args:
        camera: its name.
        rate: frames per second that its server asks for.
        stream: its frames.
    """

    def __init__(self, camera: str, rate: float, stream: FrameStream) -> None:
        self.camera = camera
        self.stream = stream
        """The stream in shared memory, for what this class does not offer."""
        self._limit = stale_after(rate)

    def __iter__(self) -> Iterator[Frame]:
        """Go through the frames that come from now on.

        Ends only with the loop, or with the server of the camera: then it raises ServerUnresponsiveError.
        """
        return iter(self.reader())

    def reader(self) -> CameraReader:
        """Return what reads the frames that come from now on, one after the other, at its own speed."""
        return CameraReader(self, self.stream.reader())

    def newest(self, timeout: float | None = None) -> Frame:
        """Return the newest frame; if that one is old, or the camera does not work any more, wait for the next one.

        Args:
            timeout: seconds to wait; None to wait without limit.

        Raises:
            WaitTimeoutError: there was none in time; the message says why.
            ServerUnresponsiveError: the server of the camera has ended.
        """
        reader = self.stream.reader()
        if self.stream.published and self.problem is None:
            return self.stream.newest()
        return CameraReader(self, reader).newest(timeout)

    @property
    def problem(self) -> str | None:
        """Why no frame comes: somebody holds the camera, it is closed or lost, a safety check has tripped.

        None as long as frames come: the newest is not older than three periods of the rate and two seconds, and nothing
        has gone wrong since.
        """
        try:
            self.stream.check()
        except ServerUnresponsiveError as error:
            return str(error)
        notice = self.stream.notice
        latest = self.stream.stamps
        now = time.monotonic()
        late = latest is None or now - latest.clock > self._limit
        if notice.text and (late or latest is None or notice.since > latest.clock):
            return notice.text
        if not late:
            return None
        if notice.heard == 0.0:
            return f"{self.camera!r} has not been asked for a frame yet"
        return f"{self.camera!r} was asked for a frame {now - notice.heard:.1f} s ago, and has not returned it yet"

    @property
    def age(self) -> float | None:
        """How old the newest frame is, in seconds; None if there was none yet."""
        latest = self.stream.stamps
        return None if latest is None else time.monotonic() - latest.clock

    def status(self) -> FramesStatus:
        """Return what people want to know of them, as plain data."""
        published, problem = self.stream.published, self.problem
        stamps = self.stream.stamps
        return {
            "number": published - 1 if published else None,
            "rate": None if stamps is None else self.stream.rate,
            "time": 0.0 if stamps is None else stamps.time,
            "problem": problem,
        }

    def __repr__(self) -> str:
        return f"<frames of {self.camera!r}: {self.problem or f'{self.stream.published} so far'}>"

    def _in_time(self, take: Callable[[float | None], Frame], timeout: float | None) -> Frame:
        try:
            return take(timeout)
        except WaitTimeoutError:
            age = self.age
            last = "" if age is None else f"; the last one, number {self.stream.published - 1}, is {age:.1f} s old"
            reason = self.problem or "the next one is not due yet"
            raise WaitTimeoutError(f"no frame of {self.camera!r} within {timeout:g} s: {reason}{last}") from None


class CameraReader:
    """Reads the frames of a camera at its own speed; for one thread at a time.

    Args:
        frames: of the camera.
        reader: of its stream.
    """

    def __init__(self, frames: CameraFrames, reader: FrameReader) -> None:
        self._frames = frames
        self._reader = reader

    def next(self, timeout: float | None = None) -> Frame:
        """Return the next frame; ``missed`` says how many came and went before it could be read.

        Args:
            timeout: seconds to wait; None to wait without limit.

        Raises:
            WaitTimeoutError: there was none in time; the message says why.
            ServerUnresponsiveError: the server of the camera has ended.
        """
        return self._frames._in_time(self._reader.next, timeout)  # noqa: SLF001 - of the same module

    def newest(self, timeout: float | None = None) -> Frame:
        """Return the newest frame that this reader has not read yet; raises as ``next``."""
        return self._frames._in_time(self._reader.newest, timeout)  # noqa: SLF001 - of the same module

    def __iter__(self) -> Iterator[Frame]:
        while True:
            yield self.next()


class FramesView(Mapping[str, CameraFrames]):
    """The frames of a testbed's cameras by name: ``testbed.frames["camera"]``. Threads may share this object.

    Args:
        layout: of the testbed.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._found: dict[str, CameraFrames] = {}

    def __getitem__(self, name: str) -> CameraFrames:
        """Return the frames of the camera of that name or alias.

        Raises:
            ConfigurationError: the configuration declares no frames of it; the nearest name is given.
            ServerNotFoundError, ServerUnresponsiveError: (at the first use) its server cannot be reached.
            ServerError: it is on another computer, whose memory cannot be shared.
        """
        entry = next((one for one in self._layout.devices if name in (one.name, *one.aliases)), None)
        if entry is None or entry.frames is None:
            listed = ", ".join(self) or "none"
            raise ConfigurationError(
                f"testbed {self._layout.name!r} has no frames of {name!r}, there are those of {listed}; the table of a "
                "camera declares them: frames = true",
                suggestion=nearest(name, list(self)),
            )
        with self._lock:
            found = self._found.get(entry.name)
            if found is None:
                stream = connected(entry.server).get_stream(stream_of(entry.name))
                found = self._found[entry.name] = CameraFrames(entry.name, entry.frames.rate, stream)
            return found

    def __contains__(self, name: object) -> bool:
        return any(one.frames is not None and name in (one.name, *one.aliases) for one in self._layout.devices)

    def __iter__(self) -> Iterator[str]:
        return (entry.name for entry in self._layout.devices if entry.frames is not None)

    def __len__(self) -> int:
        return sum(entry.frames is not None for entry in self._layout.devices)

    def __repr__(self) -> str:
        return f"<frames of {self._layout.name!r}: {', '.join(self) or 'none'}>"

    def __reduce__(self) -> tuple[type[FramesView], tuple[Layout]]:
        return FramesView, (self._layout,)
