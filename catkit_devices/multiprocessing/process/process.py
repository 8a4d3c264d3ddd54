"""A child process whose exception is raised by ``join``."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time
import weakref
from functools import partial
from multiprocessing import connection, context, parent_process, spawn, util
from types import FunctionType
from typing import TYPE_CHECKING, Any

from catkit_devices._base.deferred import finished, refuse_deferred, refuse_deferred_methods
from catkit_devices._base.timeouts import LONGEST_TIMEOUT, seconds
from catkit_devices.errors import WaitTimeoutError
from catkit_devices.multiprocessing.process.outcome import Outcome, run_and_tell
from catkit_devices.multiprocessing.wire.forking import making, private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["Process", "in_every_child", "spawning"]

_NOTING = 1.0
"""Seconds that another thread may need to store the exit status of a child."""


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Prevent a child from importing its parent's ``__main__`` again: what it needs of it is sent by value."""
    original = spawn.get_preparation_data
    starter = threading.get_ident()

    def prepared(name: str) -> dict[str, Any]:
        data = original(name)
        if threading.get_ident() == starter:  # another thread may start a process of the standard library
            data.pop("init_main_from_name", None)
            data.pop("init_main_from_path", None)
        return data

    with _preparing:
        spawn.get_preparation_data = prepared
        try:
            yield
        finally:
            spawn.get_preparation_data = original


_preparing = threading.Lock()


class Process(context.SpawnProcess):
    """Runs ``target(*args, **kwargs)`` (or an overridden ``run()``) in a new interpreter; its outcome is not lost.

    ``join()`` raises the error of the target, with its traceback, or ``ProcessDiedError`` if the child was killed or
    called ``sys.exit``. ``result`` is what the target returned. Functions and classes of ``__main__``, of a notebook or
    of a function body are sent by value. The child never imports ``__main__`` again, so a script needs no
    ``if __name__ == "__main__"``. The child ends when its parent ends. The failure of a child that was not joined is
    reported on stderr when the interpreter exits.

    Args:
        target: the function to run.
        args, kwargs: its arguments.
        name: shown in messages.
        daemon: as in ``multiprocessing``.
    """

    grace = 5.0
    """When its parent has ended, the child gets SIGTERM, and is ended by force after this many seconds."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_deferred_methods(cls, ["run"])

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        refuse_deferred(target, "the target of a process")
        super().__init__(group, None, name, (), {}, daemon=daemon)
        self._work: Any = (target, tuple(args), dict(kwargs or {}))
        self._outbox_: connection.Connection | None = None
        self._outcome: Outcome | None = None

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - the standard library's name
        if os.name == "posix":
            from multiprocessing.popen_spawn_posix import Popen
        else:
            from multiprocessing.popen_spawn_win32 import Popen  # type: ignore[attr-defined, no-redef]  # on Windows it has one
        with _without_main():
            popen = Popen(process_obj)  # type: ignore[no-untyped-call, unused-ignore]  # typed in some versions only
        with contextlib.suppress(AttributeError, OSError):  # Linux has it, where it is allowed
            # Instead of the pipe to the child: a process that the child forks would keep the pipe open.
            popen.sentinel = os.pidfd_open(popen.pid)
            weakref.finalize(popen, os.close, popen.sentinel)
        return popen

    def __reduce__(self) -> tuple[Callable[..., Process], tuple[bytes, dict[str, Any]]]:
        state = {**vars(self), "_work": _packed(self._work), "_outcome": None, "_popen": None, "_first": list(_first)}
        return _arrived, (_packed(type(self)), state)

    # --- the parent's side ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the child, once."""
        # A child that another thread forks meanwhile would inherit the pipe by which this child's end is noticed.
        with making:
            inbox, self._outbox_ = connection.Pipe(duplex=False)
            private(inbox.fileno())
            before, self._outcome = self._outcome, Outcome(self, inbox)
            try:
                super().start()
                self._outcome.pid = self.pid
                self._work = None  # the child has it: the parent need not keep the target and its arguments
            except BaseException:
                self._outcome.expected = True  # there is no child, so there is no failure to report
                self._outcome = before
                raise
            finally:
                self._outbox_.close()
                self._outbox_ = None

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the child; raise its error.

        Args:
            timeout: seconds; with None, or more than eleven days, it waits without limit.

        Raises:
            WaitTimeoutError: the child is still running.
            ProcessDiedError: it was killed, or exited, before its target returned.
            BaseException: the error of the target, with its traceback.
        """
        if timeout is not None and seconds(timeout, f"process {self.name!r}") > LONGEST_TIMEOUT:
            timeout = None
        super().join(timeout)
        if self._outcome is None or not (timeout is None or connection.wait([self.sentinel], 0)):
            raise WaitTimeoutError(f"process {self.name!r} (pid {self.pid}) is still running after {timeout or 0:g} s")
        self._have_exit_code()
        if util.is_exiting():  # the exiting interpreter joins the remaining children; their failures are reported later
            self._outcome.heard()
            return
        error = self._outcome.failure(self.exitcode)
        if error is not None:
            raise error

    def _have_exit_code(self) -> None:
        """Wait until the exit status of a child that has ended is known.

        Another thread may have read it from the operating system (starting a process does so for all children that have
        ended) without having stored it yet.
        """
        deadline = time.monotonic() + _NOTING
        while self.exitcode is None and time.monotonic() < deadline:
            time.sleep(0.001)

    @property
    def result(self) -> Any:
        """What the target returned; waits for it, and raises as ``join`` does.

        Raises:
            BaseException: the error because of which the result could not be pickled in the child or loaded here.
        """
        self.join()
        return None if self._outcome is None else self._outcome.result()

    def terminate(self) -> None:
        """Ask the child to end (SIGTERM)."""
        self.expect_end()
        super().terminate()

    def kill(self) -> None:
        """End the child at once (SIGKILL)."""
        self.expect_end()
        super().kill()

    def expect_end(self) -> None:
        """Do not report the end of this child as a failure, however it ends, if it is not joined."""
        if self._outcome is not None:
            self._outcome.expected = True

    # --- the child's side -------------------------------------------------------------------------------------------

    def run(self) -> Any:
        """Run the target; a subclass may do something else. What it returns becomes ``result``."""
        work = pickle.loads(self._work) if isinstance(self._work, bytes) else self._work
        target, args, kwargs = work
        return target(*args, **kwargs) if target is not None else None


def _arrived(cls: bytes, state: dict[str, Any]) -> Process:
    process_class: type[Process] = pickle.loads(cls)
    process = process_class.__new__(process_class)
    vars(process).update(state)
    vars(process)["run"] = partial(_run_and_tell, process)  # so that a subclass may have a run() of its own
    return process


def _run_and_tell(process: Process) -> None:
    """Run in the child: do the work and send its outcome to the parent."""
    threading.Thread(target=_follow_parent, args=(process.grace,), name="catkit-parent", daemon=True).start()
    _send_main_by_value()
    for function, args in vars(process).pop("_first"):
        in_every_child(function, *args)  # and in the children of this one
        function(*args)
    if process._outbox_ is not None:
        private(process._outbox_.fileno())
    run_and_tell(lambda: finished(type(process).run(process), f"process {process.name!r}"), process._outbox_)


_first: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
"""The functions that every child calls first, with their arguments."""


def in_every_child(function: Callable[..., object], *args: Any) -> None:
    """Make every ``Process`` that this process starts from now on call ``function(*args)`` before its target.

    The children of these processes call it too. Function and arguments are pickled, and must be importable.
    """
    _first.append((function, args))


def _send_main_by_value() -> None:
    """Let this child send what ``__main__`` defines to pools and processes of the standard library.

    What came here by value from the parent's ``__main__`` does not exist in the ``__main__`` of this process, so
    pickling it by name would fail.
    """
    from multiprocessing.reduction import ForkingPickler

    def override(_: Any, value: Any) -> Any:
        if not isinstance(value, FunctionType | type) or value.__module__ != "__main__":
            return NotImplemented
        import __main__

        found: Any = __main__
        for part in value.__qualname__.split("."):
            found = getattr(found, part, None)
        if found is value:
            return NotImplemented
        import cloudpickle

        return _from_main, (cloudpickle.dumps(value),)

    pickler: Any = ForkingPickler
    pickler.reducer_override = override


def _from_main(data: bytes) -> Any:
    import cloudpickle

    _send_main_by_value()  # a worker of a pool may send back objects of such a class
    return cloudpickle.loads(data)


def _follow_parent(grace: float) -> None:
    """End when the parent does."""
    parent = parent_process()
    if parent is None:
        return
    # Processes that the parent has forked may keep its end of the sentinel open, so the parent's id is checked too.
    while not connection.wait([parent.sentinel], 1.0):
        if os.name == "posix" and os.getppid() != parent.pid:
            break
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        signal.raise_signal(signal.SIGTERM)
    time.sleep(grace)
    os._exit(1)


def _packed(value: Any) -> bytes:
    """Pickle with the reducers that only spawning has (connections, locks); by value where a reference cannot work."""
    from multiprocessing.reduction import ForkingPickler

    try:
        data = bytes(ForkingPickler.dumps(value, 5))
    except Exception:  # noqa: BLE001 - a class may raise anything; then cloudpickle is tried
        data = None
    if data is None or b"__main__" in data:
        import io
        from collections import ChainMap

        import cloudpickle

        class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is not typed
            dispatch_table = ChainMap(  # noqa: RUF012 - an instance's own is ignored
                ForkingPickler._extra_reducers,  # type: ignore[attr-defined]  # noqa: SLF001 - they have no public name
                cloudpickle.Pickler.dispatch_table,
            )

        file = io.BytesIO()
        Pickler(file, 5).dump(value)
        data = file.getvalue()
    descriptors = getattr(context.get_spawning_popen(), "_fds", None)
    if descriptors is not None:
        descriptors[:] = dict.fromkeys(descriptors)  # each once: after two attempts they are in the list twice
    return data


class _SpawnContext(context.SpawnContext):
    """The spawn context with our ``Process``, for managers."""

    Process = Process


spawning = _SpawnContext()
