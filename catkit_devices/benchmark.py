"""How long calls, arrays, frames and telemetry take on this computer, each beside its floor and its peers.

A *floor* is what something cannot be faster than: a frame that is set has to be copied once, and a call has to be made.
A *peer* is what people use otherwise. All times of a table are measured in one run, in shuffled rounds, so that
whatever else the computer does concerns all of them. It is done twice: with all processes on one core, and where the
system puts them.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import multiprocessing.managers
import os
import pickle
import random
import socket
import statistics
import struct
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices.device import Device
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.multiprocessing.types.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    import numpy as np
    import numpy.typing as npt

    from catkit_devices.testbed.client import TestbedClient

__all__ = ["Figure", "Row", "measure_everything"]

_FRAME = (712, 712)
"""Shape of a frame of float64: 4.06 MB."""
_COMMAND = (34, 34, 2)
"""Shape of a command of float64 for a deformable mirror: 18.5 kB."""
_RING = 32
"""How many frames have a place in the stream, and in the floor that it is compared with: 130 MB, more than a last cache
has that a processor core can use (32 MB here and there, 96 MB the largest)."""
_WARM_UP = 5
"""Calls before each round that are not counted."""
_LOOKS = 100
"""How many looks at telemetry are timed together: one is not much longer than reading the clock."""
_ASLEEP = 3e-4
"""Seconds until a process that waits for a frame certainly sleeps: it needs about a tenth of that to begin its wait."""
_HANDED_OVER = 60.0
"""Seconds in which another process must have got what was handed to it, else it has failed."""
_HEAD = 8
"""Bytes of a length."""
_STOP = 1.0
"""The value of the frame, or the word, that ends the process which waits for it."""

_TELEMETRY = """
[testbed]
name = "catkit_devices_bench"
simulate = true

[devices.room]
driver = "thorlabs_tsp01"
address = "USB0::0x1313::0x80F8::M00012345::INSTR"
simulator = "thorlabs_tsp01"
telemetry = { temperature = 10.0 }
"""
"""A testbed with one quantity of telemetry, read ten times per second."""


class Row(NamedTuple):
    """What is measured, and what its time is compared with."""

    name: str
    floors: tuple[str, ...] = ()
    """The rows whose times are added up to be the floor, or the call that a peer is compared with."""
    goal: tuple[float, float] | None = None
    """The largest ratio that we want, on one core and where the system puts the processes."""
    most: float | None = None
    """The longest time that we want, in microseconds."""


class Figure(NamedTuple):
    """One line of the table."""

    name: str
    median: float
    """Microseconds."""
    p99: float
    """Microseconds: one in a hundred took longer."""
    compared_with: str
    ratio: float | None
    """The median divided by that of what it is compared with."""
    goal: float | None
    """The largest ratio that we want."""
    most: float | None
    """The longest time that we want, in microseconds."""


# What the lines of the table are called: what we do, what it cannot be faster than, and what others do.
_CALL = "call without arguments"
_SET, _GET, _MIRROR = "set a 712x712 frame", "get a 712x712 frame", "send a 34x34x2 command"
_PUBLISH, _RECEIVE = "publish a 712x712 frame", "publish to received"
_COPY, _COLD = "memcpy to one place", f"memcpy to {_RING} places"
_WAKE = "bare futex hand-off"
_STOCK = "stock manager"
_PICKLE = "pickle 5, Unix socket: set"
_LOOK, _UNPACK = "look at telemetry", "struct.unpack_from"
_ROWS = (
    Row(_CALL),
    Row(_MIRROR, (_CALL,), (1.5, 1.5)),
    Row(_SET, (_COPY, _CALL), (1.2, 1.5)),
    Row(_GET, (_COPY, _CALL), (1.2, 1.5)),
    Row(_PUBLISH, (_COLD,), (1 / 0.9, 1 / 0.9)),
    Row(_RECEIVE, (_WAKE,), (1.5, 1.5)),
    Row(_LOOK, (_UNPACK,), most=3.0),
    Row(_COPY),
    Row(_COLD),
    Row(_WAKE),
    Row(_UNPACK),
    Row(f"{_STOCK}: call", (_CALL,)),
    Row(f"{_STOCK}: send", (_MIRROR,)),
    Row(f"{_STOCK}: set", (_SET,)),
    Row(f"{_STOCK}: get", (_GET,)),
    Row(_PICKLE, (_SET,)),
)
"""The lines of the table. Peers are compared with what we take for the same."""
_SLOW = frozenset({f"{_STOCK}: set", f"{_STOCK}: get", _PICKLE, _RECEIVE, _WAKE})
"""What takes several ms, or has to wait before each time; it is done less often."""


class _Instrument(Device):
    """A device whose operations take no time themselves."""

    def _open(self) -> object:
        import numpy as np

        self._frame = np.ones(_FRAME)
        return object()

    def null(self) -> None:
        """Do nothing."""

    def take(self, array: npt.NDArray[np.float64]) -> None:
        """Do nothing with an array."""

    def frame(self) -> npt.NDArray[np.float64]:
        """Return a frame."""
        return self._frame


class _Plain:
    """The same without a framework."""

    def __init__(self) -> None:
        import numpy as np

        self._frame = np.ones(_FRAME)

    def null(self) -> None:
        """Do nothing."""

    def take(self, array: npt.NDArray[np.float64]) -> None:
        """Do nothing with an array."""

    def frame(self) -> npt.NDArray[np.float64]:
        """Return a frame."""
        return self._frame


class _StockManager(multiprocessing.managers.BaseManager):
    """A manager of the standard library."""


_StockManager.register("Plain", _Plain)


# --- processes that others are measured with ---


def _answer(path: str) -> None:
    """Receive frames as pickles with the data beside them, and answer each with a byte."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    peer, _ = listener.accept()
    with listener, peer:
        frame = bytearray()
        while True:
            head = peer.recv(2 * _HEAD, socket.MSG_WAITALL)
            if not head:
                return
            length, size = int.from_bytes(head[:_HEAD], "little"), int.from_bytes(head[_HEAD:], "little")
            data = peer.recv(length, socket.MSG_WAITALL)
            if len(frame) != size:
                frame = bytearray(size)
            peer.recv_into(frame, size, socket.MSG_WAITALL)
            pickle.loads(data, buffers=[frame])
            peer.sendall(b"!")


def _send(peer: socket.socket, frame: Any) -> None:
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(frame, 5, buffer_callback=buffers.append)
    raw = buffers[0].raw()
    peer.sendall(len(data).to_bytes(_HEAD, "little") + raw.nbytes.to_bytes(_HEAD, "little") + data)
    peer.sendall(raw)
    peer.recv(1)


def _read_frames(answers: Connection) -> None:
    """Tell for each frame of a stream when it was read."""
    manager = SharedMemoryManager("bench")
    manager.connect()
    reader = manager.get_stream("numbers").reader()
    answers.send(0)
    while True:
        frame = reader.next()
        now = time.monotonic_ns()
        if frame.array[0] == _STOP:
            break
        answers.send(now)


def _bell_in(path: str) -> tuple[Bell, npt.NDArray[np.uint64]]:
    """Return a bell in a file that two processes map, and the words of the file; the second one says when to end."""
    import numpy as np

    with Path(path).open("r+b") as file:
        words: npt.NDArray[np.uint64] = np.frombuffer(mmap.mmap(file.fileno(), mmap.PAGESIZE), np.uint64)
    return Bell(words, 0), words


def _be_woken(path: str, answers: Connection) -> None:
    """Tell for each change of a number in memory when it was seen."""
    bell, words = _bell_in(path)
    seen = bell.value
    answers.send(0)
    while True:
        while bell.value == seen:
            bell.wait(seen, _HANDED_OVER)
        now = time.monotonic_ns()
        if words[1] == _STOP:
            break
        seen = bell.value
        answers.send(now)


def _handed_over(hand_over: Callable[[], object], answers: Connection) -> int:
    """Return the nanoseconds from the beginning of ``hand_over`` until another process, which sleeps, has got it."""
    time.sleep(_ASLEEP)
    begun = time.monotonic_ns()
    hand_over()
    return int(_answered(answers)) - begun


def _answered(answers: Connection) -> Any:
    if not answers.poll(_HANDED_OVER):
        raise TimeoutError(f"a process of the benchmark did not answer within {_HANDED_OVER:g} s")
    return answers.recv()


# --- measuring ---


class _Bench:
    """Everything that is compared, started.

    Args:
        directory: for sockets and files.
        end: ends what was started.
    """

    def __init__(self, directory: Path, end: contextlib.ExitStack) -> None:
        self._directory = directory
        self._end = end
        self._context = multiprocessing.get_context("spawn")
        self._manager = SharedMemoryManager("bench")
        self._manager.start()
        end.callback(self._manager.shutdown)
        self._pids: list[Any] = [os.getpid(), self._manager.pid]
        self.operations: dict[str, Callable[[], object]] = {}
        """What is timed."""
        self.hand_overs: dict[str, Callable[[], int]] = {}
        """What returns the nanoseconds that it took."""
        self._ours()
        self._copies()
        self._standard_library()
        if hasattr(socket, "AF_UNIX"):
            self._pickles()
        self._readers()
        self._looks()

    def _ours(self) -> None:
        import numpy as np

        device: Any = self._manager.get_object("instrument", _Instrument, "instrument", open_on_use=True)
        frame, command = np.ones(_FRAME), np.ones(_COMMAND)
        stream = self._manager.get_stream("frames", _FRAME, "f8", slots=_RING)
        publish = self._end.enter_context(stream.writer())
        self.operations |= {
            _CALL: device.null,
            _MIRROR: lambda: device.take(command),
            _SET: lambda: device.take(frame),
            _GET: device.frame,
            _PUBLISH: lambda: publish(frame),
        }

    def _copies(self) -> None:
        import numpy as np

        frame, there = np.ones(_FRAME), np.ones(_FRAME)
        ring = [np.ones(_FRAME) for _ in range(_RING)]
        place = 0

        def copy_cold() -> None:
            nonlocal place
            place = (place + 1) % _RING
            np.copyto(ring[place], frame)

        self.operations |= {_COPY: lambda: np.copyto(there, frame), _COLD: copy_cold}

    def _standard_library(self) -> None:
        import numpy as np

        stock = _StockManager(ctx=self._context)
        stock.start()
        self._end.callback(stock.shutdown)
        self._pids.append(stock._process.pid)  # type: ignore[attr-defined]  # noqa: SLF001 - the standard library has no public way
        plain: Any = stock.Plain()  # type: ignore[attr-defined]  # it is registered above
        frame, command = np.ones(_FRAME), np.ones(_COMMAND)
        self.operations |= {
            f"{_STOCK}: call": plain.null,
            f"{_STOCK}: send": lambda: plain.take(command),
            f"{_STOCK}: set": lambda: plain.take(frame),
            f"{_STOCK}: get": plain.frame,
        }

    def _pickles(self) -> None:
        import numpy as np

        path = str(self._directory / "answers")
        self._begin(_answer, path)
        peer = self._end.enter_context(socket.socket(socket.AF_UNIX))
        deadline = time.monotonic() + _HANDED_OVER
        while True:
            try:
                peer.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                break
        self.operations[_PICKLE] = partial(_send, peer, np.ones(_FRAME))

    def _readers(self) -> None:
        import numpy as np

        stream = self._manager.get_stream("numbers", (1,), "f8")
        number = np.zeros(1)
        answers, there = self._context.Pipe()
        publish = self._end.enter_context(stream.writer())
        self._begin(_read_frames, there)
        _answered(answers)
        self._end.callback(publish, np.full(1, _STOP))
        self.hand_overs[_RECEIVE] = partial(_handed_over, lambda: publish(number), answers)

        path = self._directory / "bell"
        path.write_bytes(bytes(mmap.PAGESIZE))
        bell, words = _bell_in(str(path))
        woken, there = self._context.Pipe()
        self._begin(_be_woken, str(path), there)
        _answered(woken)

        def stop() -> None:
            words[1] = _STOP
            bell.ring(bell.value + 1)

        self._end.callback(stop)
        self.hand_overs[_WAKE] = partial(_handed_over, lambda: bell.ring(bell.value + 1), woken)

    def _looks(self) -> None:
        from catkit_devices.testbed import Testbed, load_configuration

        path = self._directory / "bench.toml"
        path.write_text(_TELEMETRY)
        testbed: TestbedClient = self._end.enter_context(
            Testbed(load_configuration([path]), runs=self._directory / "runs")
        )
        telemetry, name = testbed.telemetry, "room.temperature"
        deadline = time.monotonic() + _HANDED_OVER
        while telemetry[name].value is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no telemetry within {_HANDED_OVER:g} s: {telemetry[name].problem}")
            time.sleep(0.01)
        memory, layout = mmap.mmap(-1, mmap.PAGESIZE), struct.Struct("<QdddII")
        self.operations |= {
            _LOOK: lambda: [telemetry[name] for _ in range(_LOOKS)],
            _UNPACK: lambda: [layout.unpack_from(memory) for _ in range(_LOOKS)],
        }

    def _begin(self, target: Callable[..., None], *arguments: Any) -> None:
        process = self._context.Process(target=target, args=arguments, daemon=True)
        process.start()
        self._pids.append(process.pid)
        self._end.callback(_ended, process)

    def pin(self, cores: set[int]) -> None:
        """Have all processes that are compared run on these cores."""
        for pid in self._pids:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):  # it has ended
                    os.sched_setaffinity(int(thread.name), cores)


def _ended(process: Any) -> None:
    """Wait for the end of a process that was told to end; end one that does not."""
    process.join(_HANDED_OVER)
    if process.is_alive():
        process.kill()
        process.join()


@contextlib.contextmanager
def _started() -> Iterator[_Bench]:
    runtime = "CATKIT_DEVICES_RUNTIME"
    before = os.environ.get(runtime)
    with contextlib.ExitStack() as end:
        directory = end.enter_context(tempfile.TemporaryDirectory(prefix="catkit-bench-"))

        def restore() -> None:
            if before is None:
                del os.environ[runtime]
            else:
                os.environ[runtime] = before

        os.environ[runtime] = directory  # so it meets no server of the user
        end.callback(restore)
        yield _Bench(Path(directory), end)


def measure_everything(rounds: int, calls: int = 20) -> dict[str, list[Figure]]:
    """Return the figures of each table by its title.

    Args:
        rounds: shuffled rounds in which everything is measured.
        calls: of each operation in each round.
    """
    with _started() as bench:
        tables = {}
        if sys.platform == "linux":
            cores = os.sched_getaffinity(0)
            try:
                bench.pin({min(cores)})
                tables["all processes on one core"] = _figures(_measure(bench, rounds, calls), 0)
            finally:
                bench.pin(cores)
        tables["each process where the system puts it"] = _figures(_measure(bench, rounds, calls), 1)
        return tables


def _measure(bench: _Bench, rounds: int, calls: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in (*bench.operations, *bench.hand_overs)}
    for _ in range(rounds):
        for name in random.sample(list(times), len(times)):
            slow = name in _SLOW
            hand_over, operation = bench.hand_overs.get(name), bench.operations.get(name)
            several = _LOOKS if name in {_LOOK, _UNPACK} else 1
            for number in range(-1 if slow else -_WARM_UP, max(calls // 5, 1) if slow else calls):
                begun = time.perf_counter_ns()
                if hand_over is not None:
                    taken = hand_over()
                elif operation is not None:
                    operation()
                    taken = time.perf_counter_ns() - begun
                if number >= 0:
                    times[name].append(taken / several / 1000)
    return times


def _figures(times: dict[str, list[float]], where: int) -> list[Figure]:
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    figures = []
    for row in _ROWS:
        if row.name not in times:
            continue
        taken = sorted(times[row.name])
        ratio = medians[row.name] / sum(medians[name] for name in row.floors) if row.floors else None
        goal = None if row.goal is None else row.goal[where]
        worst = taken[int(0.99 * len(taken))]
        figures.append(Figure(row.name, medians[row.name], worst, " + ".join(row.floors), ratio, goal, row.most))
    return figures
