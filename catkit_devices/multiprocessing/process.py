"""A child process whose exception reaches whoever joins it."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
from multiprocessing import connection, context, parent_process, spawn, util
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ProcessDiedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["Process", "spawning"]

_GRACE = 5.0
"""Seconds that a child whose parent is gone has to end by itself after SIGTERM."""


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Have a child not import its parent's ``__main__`` again: what it needs of that travels by value."""
    original = spawn.get_preparation_data

    def prepared(name: str) -> dict[str, Any]:
        data = original(name)
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
    """Runs ``target(*args, **kwargs)`` in a new interpreter and relays what becomes of it.

    ``join()`` raises what the target raised, with its traceback, and ``ProcessDiedError`` for a child that was killed
    or called ``sys.exit``; ``result`` is what the target returned. Functions and classes of ``__main__``, of a notebook
    or of a function body travel by value; the child never imports ``__main__`` again, so a script needs no
    ``if __name__ == "__main__"``. The child does not outlive its parent.

    Args:
        target: what to run.
        args, kwargs: with what.
        name: shown in messages.
        daemon: as in ``multiprocessing``.
    """

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
        super().__init__(group, None, name, (), {}, daemon=daemon)
        self._work = (target, tuple(args), dict(kwargs or {}))
        self._outcome: Any = None
        self._outbox: connection.Connection | None = None
        self._inbox: connection.Connection | None = None
        self._raised = False

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - the standard library's name
        if os.name == "posix":
            from multiprocessing.popen_spawn_posix import Popen
        else:
            from multiprocessing.popen_spawn_win32 import Popen  # type: ignore[attr-defined, no-redef]
        with _without_main():
            return Popen(process_obj)  # type: ignore[no-untyped-call, unused-ignore]

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state["_inbox"] = None
        state["_popen"] = None
        state["_work"] = _packed(self._work)
        return state

    # --- the parent's side ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the child."""
        self._inbox, self._outbox = connection.Pipe(duplex=False)
        try:
            super().start()
        finally:
            self._outbox.close()
            self._outbox = None

    def join(self, timeout: float | None = None) -> None:
        """Wait for the child's end; raise what it raised.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            TimeoutError: the child is still running.
            ProcessDiedError: it was killed, or exited, before its target returned.
            BaseException: whatever the target raised, with its traceback.
        """
        if self._inbox is None and self._outcome is None:
            super().join(timeout)  # raises what the standard library raises for a child not started or not one's own
        deadline = None if timeout is None else time.monotonic() + timeout
        self._hear(deadline)
        super().join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if self.exitcode is None:
            raise TimeoutError(f"process {self.name!r} (pid {self.pid}) is still running after {timeout:g} s")
        self._raise()

    @property
    def result(self) -> Any:
        """What the target returned; waits for it, and raises as ``join``."""
        self.join()
        return self._outcome[1]

    def _hear(self, deadline: float | None) -> None:
        """Read the outcome while the child still runs: a large one would otherwise keep it from ending."""
        if self._inbox is None:
            return
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if self._inbox in connection.wait([self._inbox, self.sentinel], left) or self._inbox.poll(0):
            with contextlib.suppress(EOFError, OSError):  # it died before it could say anything, or while it did
                self._outcome = pickle.loads(self._inbox.recv_bytes())
            self._inbox.close()
            self._inbox = None
        elif self.exitcode is not None:
            self._inbox.close()
            self._inbox = None

    def _raise(self) -> None:
        if self._outcome is None or self._outcome[0] == "exit":
            code = self.exitcode if self._outcome is None else self._outcome[1]
            self._outcome = ("exit", code)
            raise ProcessDiedError(self.name, self.pid, code, _signal_name(code))
        if self._outcome[0] == "raised":
            from catkit_devices.multiprocessing.relay import decode

            error = decode(self._outcome[1])
            if util.is_exiting() and self._raised is False:  # the interpreter joins what nobody else has joined
                sys.stderr.write(f"process {self.name!r} (pid {self.pid}) was never joined; it had failed: {error!r}\n")
                return
            self._raised = True
            raise error

    # --- the child's side -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run the target and send its outcome to the parent."""
        threading.Thread(target=_follow_parent, name="catkit-parent", daemon=True).start()
        code = 0
        try:
            target, args, kwargs = pickle.loads(self._work) if isinstance(self._work, bytes) else self._work
            result = target(*args, **kwargs) if target is not None else None
            outcome = _packed(("returned", result))
        except SystemExit as leaving:
            code = _exit_code(leaving)
            outcome = pickle.dumps(("exit", code))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the parent
            from catkit_devices.multiprocessing.relay import encode

            encoded = encode(error)
            outcome = pickle.dumps(("raised", encoded))
            code = 1
            _post(encoded)
        if self._outbox is not None:
            with contextlib.suppress(OSError):  # the parent is gone, and so is its interest
                self._outbox.send_bytes(outcome)
            self._outbox.close()
        if code:
            sys.exit(code)


def _post(encoded: bytes) -> None:
    """Leave the exception on the server that this process uses, if it uses one, for ``get_exception``."""
    session = sys.modules.get("catkit_devices.multiprocessing.session")
    if session is not None:
        with contextlib.suppress(Exception):
            session.post_exception(os.getpid(), encoded)


def _signal_name(code: int | None) -> str | None:
    if code is None or code >= 0:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"


def _exit_code(leaving: SystemExit) -> int:
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code
    sys.stderr.write(f"{leaving.code}\n")
    return 1


def _follow_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        signal.raise_signal(signal.SIGTERM) if os.name != "posix" else os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os._exit(1)


def _packed(value: Any) -> bytes:
    """Pickle with the reducers that only spawning has (connections, locks), by value where a reference would not do."""
    from multiprocessing.reduction import ForkingPickler

    try:
        data = bytes(ForkingPickler.dumps(value, 5))
        if b"__main__" not in data:
            return data
    except Exception:  # noqa: BLE001, S110 - a class may refuse in any way; cloudpickle has the last word
        pass
    import io
    from collections import ChainMap

    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        dispatch_table = ChainMap(  # noqa: RUF012 - an instance's own is ignored
            ForkingPickler._extra_reducers,  # type: ignore[attr-defined]
            cloudpickle.Pickler.dispatch_table,
        )

    file = io.BytesIO()
    Pickler(file, 5).dump(value)
    return file.getvalue()


class _SpawnContext(context.SpawnContext):
    """The spawn context with our kind of process, for managers."""

    Process = Process  # type: ignore[assignment]


spawning = _SpawnContext()
