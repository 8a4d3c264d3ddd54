"""The outcome of a child process: the child sends it before it ends, and its parent receives it.

It is ("returned", pickled result or None, None or the encoded exception of pickling it),
("raised", encoded exception) or ("left", exit code, text or None).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
from multiprocessing import util
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ProcessDiedError
from catkit_devices.lazy import imported

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

__all__ = ["Outcome", "run_and_tell"]

_HEARING = 5.0
"""Seconds within which the outcome of a child that has ended must be read."""


class Outcome:
    """The parent's side: a thread reads, so that a child with a large result can end before it is joined."""

    def __init__(self, process: BaseProcess, inbox: Connection) -> None:
        self.name = process.name
        self.pid = process.pid
        self.expected = process.daemon
        """Whether its end is no failure even if it returned nothing."""
        self._words: Any = None
        self._listener = threading.Thread(
            target=self._listen, args=(inbox,), name=f"catkit-process-{self.name}", daemon=True
        )
        self._listener.start()

    def _listen(self, inbox: Connection) -> None:
        with inbox, contextlib.suppress(EOFError, OSError):  # it died before it had sent its outcome completely
            self._words = pickle.loads(inbox.recv_bytes())
        if self.report() is not None:
            if not _unjoined:
                util.Finalize(None, _report_unjoined, exitpriority=-100)
            _unjoined.append(self)

    def heard(self) -> None:
        """Wait until the outcome of a child that has ended was read."""
        self._listener.join(_HEARING)

    def failure(self, exitcode: int | None) -> BaseException | None:
        """Return the error that ``join`` raises, or None."""
        self.heard()
        if self in _unjoined:
            _unjoined.remove(self)
        match self._words:
            case ("returned", *_):
                return None
            case ("raised", encoded):
                from catkit_devices.multiprocessing.wire.exceptions import decode

                return decode(encoded)
            case _:
                died = ProcessDiedError(self.name, self.pid, exitcode, _signal_name(exitcode))
                if self._words is not None and self._words[2] is not None:
                    died.add_note(self._words[2])
                return died

    def result(self) -> Any:
        """Return what the target returned."""
        _, data, failure = self._words
        if failure is not None:
            from catkit_devices.multiprocessing.wire.exceptions import decode

            raise decode(failure)
        from catkit_devices.multiprocessing.wire.channel import loads

        return loads(data)

    def report(self, *, fully: bool = False) -> str | None:
        """Return the message about a child that was not joined; None if there is no problem."""
        what = f"process {self.name!r} (pid {self.pid}) was never joined; "
        match self._words:
            case ("raised", encoded):
                return f"{what}it had failed:\n{_shown(encoded) if fully else ''}"
            case ("left", code, text) if code:
                return f"{what}it exited with code {code}{f': {text}' if text else ''}\n"
            case None if not self.expected:
                return f"{what}it ended before it returned\n"
        return None


_unjoined: list[Outcome] = []
"""Failed children that were not joined; reported when the interpreter exits."""


def _report_unjoined() -> None:
    while _unjoined:
        sys.stderr.write(_unjoined.pop(0).report(fully=True) or "")


def _shown(encoded: bytes) -> str:
    import traceback

    from catkit_devices.multiprocessing.wire.exceptions import decode

    return "".join(traceback.format_exception(decode(encoded)))


def _signal_name(code: int | None) -> str | None:
    if code is None or code >= 0:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"


def run_and_tell(run: Callable[[], Any], outbox: Connection | None) -> None:
    """The child's side: run the target, send the outcome to the parent, and exit with the matching code."""
    code = 0
    encoded = None
    try:
        outcome = pickle.dumps(("returned", *_result(run())))
    except SystemExit as leaving:
        code, text = _exit_code(leaving)
        outcome = pickle.dumps(("left", code, text))
    except BaseException as error:  # noqa: BLE001 - every error is sent to the parent
        from catkit_devices.multiprocessing.wire.exceptions import encode

        code, encoded = 1, encode(error)
        outcome = pickle.dumps(("raised", encoded))
    if outbox is not None:
        with contextlib.suppress(OSError):  # the parent has ended
            outbox.send_bytes(outcome)
        outbox.close()
    if encoded is not None:
        _post(encoded)
    if code:
        sys.exit(code)


def _result(value: Any) -> tuple[bytes | None, bytes | None]:
    """Return the result pickled. If that is impossible, the error is raised only when the result is asked for."""
    if value is None:
        return pickle.dumps(None), None
    from catkit_devices.multiprocessing.wire.channel import dumps
    from catkit_devices.multiprocessing.wire.exceptions import encode

    try:
        return dumps(value), None
    except Exception as error:  # noqa: BLE001 - anything may refuse to be pickled, in any way
        error.add_note("the target's result could not be sent to the parent")
        return None, encode(error)


def _post(encoded: bytes) -> None:
    """Store the exception on the server that this process uses, if it uses one, for ``get_exception``."""
    connections = imported("catkit_devices.multiprocessing.client.calls")
    if connections is not None:
        with contextlib.suppress(Exception):
            connections.post_exception(os.getpid(), encoded)


def _exit_code(leaving: SystemExit) -> tuple[int, str | None]:
    if leaving.code is None:
        return 0, None
    if isinstance(leaving.code, int):
        return leaving.code, None
    sys.stderr.write(f"{leaving.code}\n")
    return 1, str(leaving.code)
