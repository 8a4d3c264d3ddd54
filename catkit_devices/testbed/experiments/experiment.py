"""What a user's experiment derives from."""

from __future__ import annotations

import abc
import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices._base.deferred import refuse_deferred_methods
from catkit_devices.testbed.experiments.parameters import collect, fill, refuse_ambiguous

if TYPE_CHECKING:
    from catkit_devices.datalog import Run
    from catkit_devices.multiprocessing import SharedMemoryManager, lock_all
    from catkit_devices.testbed.devices.devices import Devices
    from catkit_devices.testbed.experiments.parameters import Parameter
    from catkit_devices.testbed.experiments.progress import Reporter
    from catkit_devices.testbed.frames.recording import FrameRecorder
    from catkit_devices.testbed.frames.view import FramesView

__all__ = ["Context", "Experiment"]

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a running experiment uses; made in its own process."""

    name: str
    testbed: str
    devices: Devices
    manager: SharedMemoryManager
    run: Run
    reporter: Reporter
    finishing: InterruptSafeEvent
    frames: FramesView
    not_asked: Mapping[str, str]
    """The devices that are asked for nothing but what the experiment asks, and why."""
    recordings: list[FrameRecorder] = field(default_factory=list)
    """Frames that are being recorded."""


@dataclass_transform(kw_only_default=True)
class Experiment(abc.ABC):
    """A piece of work on a testbed, in a process of its own.

    A subclass implements :meth:`experiment`; ``testbed.run(MyExperiment())`` runs it. Its parameters are annotated
    class attributes, given by keyword and checked when it is constructed::

        class FilterScan(Experiment):
            repeats: int = 3
            settle: float = 0.1

        testbed.run(FilterScan(repeats=5))

    The record of a run (``run.json``) keeps the parameters, so that the run can be repeated. A type whose values cannot
    be distinguished in JSON (``bytes | str``, ``tuple | list``, keys that may be text or None) is therefore refused
    when the class is made. A parameter that is annotated as ``Any`` is read back in the form of JSON: bytes as text, a
    tuple as a list.

    What :meth:`experiment` returns reaches the caller of ``run``; what it raises is raised there. :meth:`teardown`
    runs in every case but the death of the process. Being told to stop raises :class:`StopExperiment` once, wherever
    the code is, and never during ``teardown``.

    Raises:
        ConfigurationError: a parameter is unknown, missing, or of another type than declared.
    """

    name: ClassVar[str] = ""
    """What it is called in messages and run directories; the class's name by default."""

    daemon: ClassVar[bool] = False
    """Whether it ends together with the others that were started with it: then it is told to finish, and
    is stopped if it has not finished within the testbed's ``stop_timeout``."""

    run_forever: ClassVar[bool] = False
    """Whether :meth:`experiment` is repeated until it is told to finish or to stop; the last one's result counts."""

    run_path: Path | None = None
    """The directory of its run, for the program that has started it; None before that."""

    _context_: Context | None = None
    """Where it runs; None before."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_deferred_methods(cls, ["pre_experiment", "experiment", "post_experiment", "teardown"])
        for name in inspect.get_annotations(cls):
            if hasattr(Experiment, name) and name not in {"name", "daemon", "run_forever"}:
                raise TypeError(f"{cls.__qualname__}: {name!r} cannot be a parameter, every experiment has one already")
        refuse_ambiguous(cls)

    def __init__(self, **parameters: Any) -> None:
        for name, value in fill(type(self).__name__, self.parameters(), parameters).items():
            setattr(self, name, value)

    @classmethod
    def parameters(cls) -> dict[str, Parameter]:
        """Return its parameters, by name."""
        return collect(cls, Experiment)

    # --- what a subclass implements ---

    def pre_experiment(self) -> None:  # noqa: B027 - most experiments need none
        """Prepare; runs before :meth:`experiment`."""

    @abc.abstractmethod
    def experiment(self) -> Any:
        """Do the work; what it returns reaches the caller of ``testbed.run``."""

    def post_experiment(self) -> None:  # noqa: B027 - most need none
        """Evaluate; runs after :meth:`experiment` when that succeeded."""

    def teardown(self) -> None:  # noqa: B027 - most need none
        """Leave everything in order; runs always, also after a failure and when stopped."""

    # --- what a subclass uses ---

    @property
    def testbed(self) -> str:
        """The name of the testbed it runs on."""
        return self._running.testbed

    @property
    def devices(self) -> Devices:
        """The devices: by attribute, by name or alias in brackets, by what they can do with ``one`` and ``all``."""
        return self._running.devices

    @property
    def frames(self) -> FramesView:
        """The frames of each camera that the configuration marks so: ``for frame in self.frames["camera"]``."""
        return self._running.frames

    @property
    def manager(self) -> SharedMemoryManager:
        """The testbed's own server: events, barriers, queues and whatever else processes share by name."""
        return self._running.manager

    @property
    def run(self) -> Run:
        """What this run records."""
        return self._running.run

    @property
    def logger(self) -> logging.Logger:
        """For messages; they go to the run's log."""
        return logging.getLogger(f"catkit_devices.experiment.{self._running.name}")

    @property
    def finishing(self) -> bool:
        """Whether it was told to end with the current step; :meth:`track` sees to that by itself."""
        return self._running.finishing.is_set()

    def lock(self, *names: str, timeout: float | None = None) -> lock_all:
        """Lock devices for itself during a block: all of them or none, in an order that never deadlocks.

        ``with`` or ``async with``.

        Args:
            *names: names or aliases of devices.
            timeout: seconds for all of them together; None for the longest of their own.

        Raises:
            MutexTimeoutError: not all of them came free in time; says who has the one that did not.
        """
        return self._running.devices.lock(*names, timeout=timeout)

    def track(self, steps: Iterable[_T], description: str = "", total: int | None = None) -> Iterator[_T]:
        """Go through ``steps``, showing how far it has come; end after the current step when told to finish.

        Args:
            steps: what to go through.
            description: what the steps are.
            total: how many there are, where ``steps`` does not know its length.
        """
        running = self._running
        if total is None:
            total = len(steps) if isinstance(steps, Sized) else None
        running.reporter.begin(description, total)
        for done, step in enumerate(steps, start=1):
            if running.finishing.is_set():
                return
            yield step
            running.reporter.step(done, last=done == total)

    def log_scalar(self, tag: str, value: Any, unit: Any = None) -> None:
        """Record one number; see :meth:`catkit_devices.datalog.Run.log_scalar`."""
        self._running.run.log_scalar(tag, value, unit)

    def log_array(self, tag: str, array: Any, unit: Any = None) -> None:
        """Record an array; see :meth:`catkit_devices.datalog.Run.log_array`."""
        self._running.run.log_array(tag, array, unit)

    def log_curve(self, tag: str, x: Any, y: Any, **labels: Any) -> None:
        """Record a curve; see :meth:`catkit_devices.datalog.Run.log_curve`."""
        self._running.run.log_curve(tag, x, y, **labels)

    def log_figure(self, tag: str, figure: Any) -> None:
        """Record a picture; see :meth:`catkit_devices.datalog.Run.log_figure`."""
        self._running.run.log_figure(tag, figure)

    def log_frames(self, camera: str, every: int = 1, tag: str | None = None) -> FrameRecorder:
        """Record the frames of a camera from now on, until the end of the run, ``stop()`` or the end of ``with``.

        Each is an array of the tag; its number is a scalar of the tag ``TAG.number`` at the same time. Events tell
        which are missing, and why.

        Args:
            camera: its name; the configuration says ``frames = true`` in its table.
            every: 1 for every frame, n for those whose number is a multiple of n.
            tag: under which; None for the name of the camera.

        Raises:
            ConfigurationError: the configuration declares no frames of it.
        """
        from catkit_devices.testbed.frames.recording import FrameRecorder

        running = self._running
        frames = running.frames[camera]
        recording = FrameRecorder(frames, running.run, every, frames.camera if tag is None else tag)
        running.recordings.append(recording)
        return recording

    def log_fits(self, tag: str, fits: Any) -> None:
        """Record a FITS file; see :meth:`catkit_devices.datalog.Run.log_fits`."""
        self._running.run.log_fits(tag, fits)

    def log(self, tag: str, value: Any) -> None:
        """Record anything that JSON can say; see :meth:`catkit_devices.datalog.Run.log`."""
        self._running.run.log(tag, value)

    def _run_in_(self, context: Context) -> None:
        """Record where it runs; called before anything of it runs."""
        self._context_ = context

    @property
    def _running(self) -> Context:
        if self._context_ is None:
            raise RuntimeError(
                f"{type(self).__qualname__} is not running: devices and data are at hand inside its own methods, "
                "once testbed.run(...) has started it"
            )
        return self._context_
