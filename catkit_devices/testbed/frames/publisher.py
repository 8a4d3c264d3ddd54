"""Publishes the frames of the cameras of one server, each in a stream.

Every frame that a camera takes is published, whoever asked for it. While nobody else uses the camera, its server asks
it for frames, at the rate that the configuration gives; or it has the camera take them by itself, one after the other,
until somebody else wants to use it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices.errors import CatkitDevicesError, DeviceProtocolError, OperationCancelled, in_one_line
from catkit_devices.multiprocessing.hosted import HostedObject
from catkit_devices.multiprocessing.locks.owner import calling, current_call, forwarded_call
from catkit_devices.readings import carried_unit, elements, is_masked
from catkit_devices.testbed.devices.devices import Devices
from catkit_devices.testbed.trip import UNREACHABLE, connected

if TYPE_CHECKING:
    from catkit_devices.device import Device
    from catkit_devices.multiprocessing.locks.owner import Call
    from catkit_devices.multiprocessing.types.stream import FrameStream, FrameWriter
    from catkit_devices.testbed.layout import FramesEntry, Layout

__all__ = ["FRAMES", "Frames", "cameras_of", "end_frames", "make_frames", "stream_of"]

FRAMES = "frames"
"""Name of what publishes frames, on each device server that has cameras."""
_RETRY = 1.0
"""Seconds until a camera that could not take a frame is asked again: each try may open a new connection."""
_HELD = 0.1
"""Seconds between two looks whether a camera that somebody holds is free."""
_GRACE = 1.0
"""Seconds for an exposure that goes on at the end; cutting it short may cost as long, to clear the line."""
_CONTINUOUS = "continuous frames"
"""What others see that a camera does which takes frames by itself."""
_NEW_CAMERA = ((0, 0), "|u1")
"""Shape and type of a stream until the first frame tells them."""

_log = logging.getLogger(__name__)


def cameras_of(layout: Layout, server: str) -> list[tuple[str, FramesEntry]]:
    """Return name and entry of each camera of a server whose frames are published."""
    return [(device.name, device.frames) for device in layout.devices if device.server == server and device.frames]


def stream_of(camera: str) -> str:
    """Return the name of the stream of a camera, on its server."""
    return f"{camera}.frames"


def make_frames(layout: Layout, server: str) -> None:
    """Have a server publish the frames of its cameras, if it has any."""
    cameras = cameras_of(layout, server)
    if not cameras:
        return
    manager = connected(server)
    for camera, entry in cameras:
        manager.get_stream(stream_of(camera), *_NEW_CAMERA, slots=entry.slots)
    manager.get_object(FRAMES, Frames, layout, server)


def end_frames(layout: Layout, server: str) -> None:
    """Have a server take no more frames by itself."""
    if cameras_of(layout, server):
        connected(server).get_object(FRAMES).end()


class Frames(HostedObject):
    """Publishes the frames of the cameras of this server; an object of the device server.

    Args:
        layout: of the testbed.
        server: the full name of this server.

    Raises:
        RuntimeError: the threads that it needs cannot be started.
    """

    _direct_ = False

    def __init__(self, layout: Layout, server: str) -> None:
        self._ending = InterruptSafeEvent()
        self._running: list[_Camera] = []
        devices = Devices(layout)
        for camera, entry in cameras_of(layout, server):
            arguments = (devices, camera, entry, server)
            threading.Thread(target=self._publish, args=arguments, name=f"frames of {camera}", daemon=True).start()

    def end(self) -> None:
        """Take no more frames, and end long exposures that were begun for this: the devices are to be closed."""
        self._ending.set()
        deadline = time.monotonic() + _GRACE
        for camera in self._running:
            camera.end(max(0.0, deadline - time.monotonic()))

    def _server_stops_(self) -> None:
        self._ending.set()

    def _publish(self, devices: Devices, camera: str, entry: FramesEntry, server: str) -> None:
        with contextlib.suppress(*UNREACHABLE):  # the server ends
            stream = connected(server).get_stream(stream_of(camera))
            with stream.writer() as writer:
                try:
                    device = devices[camera]
                except CatkitDevicesError as error:  # its driver refuses its options
                    writer.note(str(error))
                    return
                taking = _Camera(device, entry, stream, writer, self._ending)
                self._running.append(taking)
                taking.run()


class _Camera:
    """Takes the frames of one camera, and publishes all that it takes."""

    def __init__(
        self,
        device: Device,
        entry: FramesEntry,
        stream: FrameStream,
        writer: FrameWriter,
        ending: InterruptSafeEvent,
    ) -> None:
        self._ending = ending
        self._device = device
        self._entry = entry
        self._writer = writer
        self._form = stream.form
        self._refused = ""
        """Why the last frame could not be published."""
        self._was_open = False
        self._call: Call | None = None
        """The call that takes a frame now, or took the last one."""
        self._following: Call | None = None
        """The call in which the camera takes frames by itself, or has done so last."""
        self._idle = InterruptSafeEvent()
        """Set while it takes no frame."""
        self._idle.set()

    def end(self, grace: float) -> None:
        """Wait for the end of the exposure, if one was begun, and cut it short after ``grace`` seconds."""
        if not self._idle.wait(grace) and (call := self._call) is not None:
            call.cancel(OperationCancelled("the testbed is ending"))

    def run(self) -> None:
        """Take frames until the end."""
        self._device._listen_(self._entry.method, self._hear)
        period = 1 / self._entry.rate
        due = time.monotonic()
        told = ""
        while True:
            if self._ending.wait(max(0.0, due - time.monotonic())):
                self._writer.note("the testbed is ending")
                return
            pause, problem = self._take()
            if problem and problem != told:
                _log.debug("frames of %s: %s", self._device.name, problem)
            told = problem
            self._writer.note(problem)
            # A frame that was missed, because one took long, is not made up for.
            now = time.monotonic()
            soon = problem or self._entry.continuous
            due = now + pause if soon else due + period * max(1, -(-(now - due) // period))

    def _take(self) -> tuple[float, str]:
        """Have the camera take a frame if it is free.

        Returns:
            Seconds until the next try, and why there was no frame; an empty text if there was one, after which the rate
            of the frames tells when to ask for the next one, unless the camera takes them by itself.
        """
        device = self._device
        try:
            # A camera that somebody has closed, to use it in another way, is left alone.
            if self._was_open and device.state == "closed":
                return _RETRY, f"{device.name!r} is closed; its next use opens it"
            holder = device.mutex.holder
            # Nobody is to wait for this, so it never waits in the queue itself.
            if holder is not None or not device.mutex.acquire(0, raise_on_fail=False):
                who = "" if holder is None else f" by {holder.owner}"
                return _HELD, f"{device.name!r} is held{who}, and takes no frame"
            try:
                self._idle.clear()
                if self._ending.is_set():
                    return 0.0, "the testbed is ending"
                self._writer.note("")
                with calling(current_call()) as call:
                    device._access_.watched_by(call)
                    self._call = call
                    if self._entry.continuous:
                        device._perform_(self._follow, _CONTINUOUS, (), {}, shared=False, changes=True)
                        return _HELD, self._refused
                    taken = getattr(device, self._entry.method)
                    if callable(taken):
                        taken()
                self._was_open = True
            finally:
                self._idle.set()
                device.mutex.release()
        except CatkitDevicesError as error:
            return _RETRY, str(error)
        except Exception as error:  # noqa: BLE001 - a driver may raise anything; it is told as the reason
            return _RETRY, in_one_line(error)
        return _RETRY, self._refused

    def _follow(self, device: Device) -> None:
        """Publish what the camera takes by itself, until somebody else wants to use it; the body of one operation."""
        taken = 0
        self._following = forwarded_call()
        with contextlib.closing(device._continuous_frames()) as frames:  # noqa: SLF001 - a hook
            for frame in frames:
                taken += 1
                self._was_open = True
                self._publish(frame)
                self._writer.note(self._refused)
                device.wait(0.0)  # lets shared reads in, and ends it if it was cancelled
                refusal = device._access_.refusal(_CONTINUOUS, True)
                if refusal is not None:
                    raise refusal
                if self._ending.is_set() or device.mutex.waiters:
                    return
        if not taken:
            raise DeviceProtocolError("_continuous_frames() has given no frame", **device._facts_())

    def _hear(self, frame: Any) -> None:
        """Publish what the camera has returned; told by the device, in the thread of whoever has asked for it."""
        if self._following is None or forwarded_call() is not self._following:  # else it is yielded, too
            self._publish(frame)

    def _publish(self, frame: Any) -> None:
        try:
            self._refused = self._published(frame)
        except Exception as error:  # noqa: BLE001 - it must not fail in the call of somebody else
            self._refused = in_one_line(error)

    def _published(self, frame: Any) -> str:
        import numpy as np

        if is_masked(frame) or any(carried_unit(one) is not None for one in elements(frame)):
            return f"{self._device.name}.{self._entry.method} has returned a frame with a mask or a unit"
        array = np.asarray(frame)
        if array.dtype.kind not in "buifc" or array.ndim == 0:
            return (
                f"{self._device.name}.{self._entry.method} must return an array of numbers, and has returned "
                f"{type(frame).__name__}"
            )
        form = (array.shape, array.dtype.str)
        if form != tuple(self._form):
            self._writer.change(*form)
            self._form = self._writer.form
        self._writer(array)
        return ""
