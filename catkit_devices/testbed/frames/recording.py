"""Records the frames of a camera in a run, beside what the experiment does."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Self

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices.errors import CatkitDevicesError, WaitTimeoutError

if TYPE_CHECKING:
    from catkit_devices.datalog import Run
    from catkit_devices.multiprocessing.types.stream import Frame
    from catkit_devices.testbed.frames.view import CameraFrames

__all__ = ["FrameRecorder"]

_LOOK = 0.2
"""Seconds of one wait for a frame, so that the end and a problem are noticed."""
_LAST = 10.0
"""Seconds for the frames that were published before the end, but are not recorded yet."""

_log = logging.getLogger(__name__)


class FrameRecorder:
    """Records every frame of a camera, or every n-th, until ``stop()`` or the end of its ``with`` block.

    Each is an array of the tag, at the time when it was published; its number is a scalar of the tag ``TAG.number``, at
    the same time. What is missing is told by events: ``frames_missed`` names the numbers that came too fast to be
    recorded, ``no_frames`` says when and why the camera gave none.

    Args:
        frames: of the camera.
        run: in which they are recorded.
        every: 1 for every frame, n for those whose number is a multiple of n.
        tag: under which.

    Raises:
        ValueError: ``every`` is not a whole number from 1.
    """

    def __init__(self, frames: CameraFrames, run: Run, every: int, tag: str) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"frames of {frames.camera!r}: every must be a whole number from 1, got {every!r}")
        self.frames = frames
        self.tag = tag
        self._run = run
        self._every = every
        self._reader = frames.reader()
        self._begin = frames.stream.published
        """Number of the first frame that is to be recorded."""
        self._end: int | None = None
        """Number of the first frame that is not; None as long as there is no end."""
        self._ending = InterruptSafeEvent()
        self._failure: CatkitDevicesError | None = None
        self._told: str | None = None
        self._thread = threading.Thread(target=self._record, name=f"records {tag}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Record what was published before, and end; a second time it does nothing.

        Raises:
            DataError: a frame could not be recorded; recording has ended there.
            ServerUnresponsiveError: the server of the camera has ended; so has recording.
            WaitTimeoutError: recording could not keep up, and has not ended in time.
        """
        if not self._ending.is_set():
            self._end = self.frames.stream.published
            self._ending.set()
        self._thread.join(_LAST)
        if self._thread.is_alive():
            raise WaitTimeoutError(f"recording frames of {self.frames.camera!r} has not ended in {_LAST:g} s")
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _record(self) -> None:
        try:
            done = self._begin
            while not (self._ending.is_set() and self._end is not None and done >= self._end):
                try:
                    frame = self._reader.next(_LOOK)
                except WaitTimeoutError:
                    self._tell_problem()
                    continue
                self._told = None
                self._keep(frame)
                done = frame.number + 1
        except CatkitDevicesError as error:
            _log.error("recording frames of %r has ended: %s", self.frames.camera, error)
            self._failure = error

    def _keep(self, frame: Frame) -> None:
        first = frame.number - frame.missed
        end = frame.number if self._end is None else min(frame.number, self._end)
        lost = range(first + -first % self._every, end, self._every)
        if lost:
            camera, last = self.frames.camera, lost[-1]
            text = f"{len(lost)} frames of {camera!r} came too fast to be recorded: numbers {lost[0]} to {last}"
            self._run.log_event(
                "frames_missed", text, camera=camera, tag=self.tag, first=lost[0], last=last, count=len(lost)
            )
        if frame.number % self._every == 0 and (self._end is None or frame.number < self._end):
            self._run.log_array(self.tag, frame.array, at=frame.time)
            self._run.log_scalar(f"{self.tag}.number", frame.number, at=frame.time)

    def _tell_problem(self) -> None:
        problem = self.frames.problem
        if problem is None or self._told is not None:
            return
        self._told = problem
        number = self.frames.stream.published
        text = f"no frame of {self.frames.camera!r}: {problem}; the next one will be number {number}"
        self._run.log_event(
            "no_frames", text, at=time.time(), camera=self.frames.camera, tag=self.tag, next=number, problem=problem
        )
