"""A queue of experiments: the testbed's process owns it, and runs one after the other.

It outlives the terminal from which an experiment was added, because the testbed does. It is kept in a file, so that a
testbed that is started again shows what was waiting; nothing runs then until somebody says so.

Each experiment runs as a program of its own (``catkit-devices run``), so that the testbed's process never imports what
users have written. If one does not finish, the queue pauses: those that follow may rely on it. It pauses too when the
next one would begin after a trip of the safety checks, and when the testbed is started again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from catkit_devices.errors import ConfigurationError, ServerNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["QUEUE", "ExperimentQueue", "QueueEntry"]

QUEUE = "queue"
"""The request to the testbed's process to change its queue, and the key under which the queue is published."""

State = Literal["waiting", "running", "finished", "failed", "stopped", "cancelled", "cut off"]

_REMEMBERED = 20
"""How many experiments that have ended the queue still shows."""
_LOOK = 0.1
"""Seconds between two looks whether an experiment has begun, or has ended."""
_KILL_TIMEOUT = 5.0
"""Seconds to end after SIGKILL: the operating system needs milliseconds."""
_TAIL = 4000
"""Bytes of the end of an experiment's output in which the reason of a failure is looked for."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QueueEntry:
    """One experiment in the queue."""

    number: int
    what: str
    """``FILE`` or ``FILE:CLASS``."""
    parameters: tuple[str, ...] = ()
    """The words of the command line that give its parameters."""
    directory: str = "."
    """Where it runs."""
    python: str = sys.executable
    search_path: str | None = None
    """``PYTHONPATH`` of the program that has added it."""
    user: str | None = None
    added: float = 0.0
    """Seconds since 1970 UTC."""
    state: State = "waiting"
    message: str = ""
    started: float | None = None
    ended: float | None = None
    run: str | None = None
    """Its run directory."""
    pid: int | None = None


class ExperimentQueue:
    """Runs experiments one after the other.

    Args:
        file: where the queue is kept. It is made when the first experiment is added.
        testbed: full name of the testbed's server, which the experiments join.
        name: of the testbed.
        reason_to_wait: returns why no experiment may be started now, such as a trip; else None.
        publish: called with the queue as plain data whenever it has changed.
        say: called with a level of ``logging`` and a text, for the testbed's log.
        alive: returns whether the testbed's server of that name runs.
        command: the words with which the program of an experiment begins, after the Python interpreter.
    """

    def __init__(
        self,
        file: Path,
        testbed: str,
        name: str,
        *,
        reason_to_wait: Callable[[], str | None],
        publish: Callable[[dict[str, Any]], None],
        say: Callable[[int, str], None],
        alive: Callable[[str], bool] | None = None,
        command: Sequence[str] = ("-m", "catkit_devices", "run"),
    ) -> None:
        self._file = file
        self._testbed = testbed
        self._name = name
        self._reason_to_wait = reason_to_wait
        self._publish = publish
        self._say = say
        self._command = tuple(command)
        self._guard = threading.RLock()
        self._changed = threading.Condition(self._guard)
        self._entries: list[QueueEntry] = []
        self._paused: str | None = None
        self._foreign: str | None = None
        """The other testbed of this name that has the queue."""
        self._ending = False
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled: set[int] = set()
        self._thread: threading.Thread | None = None
        self._load(alive if alive is not None else _runs)

    # --- requests ---------------------------------------------------------------------------------------------------

    def do(self, text: str) -> dict[str, Any]:
        """Carry out a request, and return the queue as plain data.

        Args:
            text: as JSON, an object with ``do``: ``add`` (with ``entry``), ``move`` (``numbers``, ``to``: the place,
                from 1), ``cancel`` (``numbers``), ``pause`` (``reason``) or ``resume``.

        Raises:
            ConfigurationError: it makes no sense, such as a number that is not in the queue.
        """
        request = json.loads(text)
        if self._foreign is not None:
            raise ConfigurationError(
                f"the queue of testbed {self._name!r} belongs to another testbed of this name, server {self._foreign!r}"
            )
        actions: dict[str, Callable[..., int | None]] = {
            "add": self._add, "move": self._move, "cancel": self._cancel, "pause": self._pause_by,
            "resume": self._resume,
        }  # fmt: skip
        with self._guard:
            if self._thread is None:
                worker = threading.Thread(target=self._work, name="queue", daemon=True)
                worker.start()  # raises if no thread can be started: before anything is changed
                self._thread = worker
            number = actions[request.pop("do")](**request)
            self._save()
            self._changed.notify_all()
            return {**self.snapshot(), "number": number}

    def snapshot(self) -> dict[str, Any]:
        """Return the queue as plain data: why it is ``paused`` (None: it is not), and its ``entries``."""
        with self._guard:
            return {"paused": self._paused, "entries": [asdict(entry) for entry in self._entries]}

    def hold(self) -> None:
        """Start no further experiment, for good: the testbed ends."""
        with self._guard:
            self._ending = True
            self._changed.notify_all()

    def end(self, timeout: float) -> None:
        """Return when the experiment that runs has ended; it is killed after a time.

        Args:
            timeout: seconds that it has; others tell it to end.
        """
        self.hold()
        process = self._process
        if process is not None:
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
        if self._thread is not None:
            self._thread.join(_KILL_TIMEOUT)

    def _add(self, entry: dict[str, Any]) -> int:
        number = max((one.number for one in self._entries), default=0) + 1
        known = {field.name for field in fields(QueueEntry)}
        given = {key: value for key, value in entry.items() if key in known}
        given["parameters"] = tuple(given.get("parameters", ()))
        self._entries.append(replace(QueueEntry(**{**given, "number": number}), added=time.time(), state="waiting"))
        return number

    def _move(self, numbers: list[int], to: int) -> None:
        moved = [self._waiting(number) for number in numbers]
        waiting = [one for one in self._entries if one.state == "waiting" and one not in moved]
        waiting[max(0, to - 1) : max(0, to - 1)] = moved
        self._entries = [one for one in self._entries if one.state != "waiting"] + waiting

    def _cancel(self, numbers: list[int]) -> None:
        entries = [self._find(number) for number in numbers]
        for entry in entries:
            if entry.state not in {"waiting", "running"}:
                raise ConfigurationError(f"number {entry.number} of the queue has ended already: {entry.state}")
        for entry in entries:
            if entry.state == "waiting":
                self._set(replace(entry, state="cancelled", ended=time.time()))
            else:
                self._cancelled.add(entry.number)
                if self._process is not None:
                    _interrupt(self._process)

    def _pause_by(self, reason: str) -> None:
        self._pause(reason)

    def _resume(self) -> None:
        reason = self._reason_to_wait()
        if reason is not None:
            raise ConfigurationError(f"the queue cannot go on: {reason}")
        self._paused = None

    def _find(self, number: int) -> QueueEntry:
        for entry in self._entries:
            if entry.number == number:
                return entry
        known = ", ".join(str(entry.number) for entry in self._entries) or "it is empty"
        raise ConfigurationError(f"the queue of testbed {self._name!r} has no number {number}, expected one of {known}")

    def _waiting(self, number: int) -> QueueEntry:
        entry = self._find(number)
        if entry.state != "waiting":
            raise ConfigurationError(f"number {number} of the queue does not wait any more: {entry.state}")
        return entry

    # --- working through it -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._guard:
                while True:
                    if self._ending or (self._paused is None and self._next() is not None):
                        break
                    self._changed.wait()
                entry = self._next()
                if self._ending or entry is None:
                    return
                reason = self._reason_to_wait()
                if reason is not None:
                    self._pause(reason)
                    continue
                entry = replace(entry, state="running", started=time.time())
                self._set(entry)
            try:
                ended = self._run(entry)
            except Exception as error:  # noqa: BLE001 - such as a directory that is gone; the queue pauses
                ended = replace(entry, state="failed", message=f"{type(error).__name__}: {error}")
            self._conclude(ended)

    def _next(self) -> QueueEntry | None:
        return next((entry for entry in self._entries if entry.state == "waiting"), None)

    def _run(self, entry: QueueEntry) -> QueueEntry:
        with tempfile.TemporaryDirectory(prefix="catkit-devices-") as directory:
            told = Path(directory) / "told.json"
            words = [entry.what, "--testbed", self._testbed, "--announce", str(told), *entry.parameters]
            environment = dict(os.environ)
            if entry.search_path is not None:
                environment["PYTHONPATH"] = entry.search_path
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.with_suffix(".log").open("ab") as output:
                before = output.tell()
                process = subprocess.Popen(
                    [entry.python, *self._command, *words], cwd=entry.directory, env=environment,
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=os.name == "posix",
                )  # fmt: skip
            with self._guard:
                self._process = process
                if entry.number in self._cancelled:
                    _interrupt(process)
            entry = replace(entry, pid=process.pid)
            try:
                while True:
                    if process.poll() is not None:
                        break
                    facts = _told(told)
                    if facts.get("run") != entry.run:
                        entry = replace(entry, run=facts["run"])
                        self._set(entry)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_LOOK)
            finally:
                with self._guard:
                    self._process = None
            facts = _told(told)
        state: State = facts.get("state", "finished" if process.returncode == 0 else "failed")
        message = facts.get("message") or ("" if state == "finished" else self._last_line(before))
        return replace(entry, run=facts.get("run"), state=state, message=message)

    def _last_line(self, before: int) -> str:
        """Return the last line of what an experiment has written, which says why it failed."""
        try:
            with self._file.with_suffix(".log").open("rb") as output:
                output.seek(0, os.SEEK_END)
                output.seek(max(before, output.tell() - _TAIL))
                lines = output.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _conclude(self, entry: QueueEntry) -> None:
        with self._guard:
            cancelled = entry.number in self._cancelled
            state: State = "cancelled" if cancelled and entry.state != "finished" else entry.state
            entry = replace(entry, state=state, ended=time.time(), pid=None)
            self._set(entry)
            if state not in {"finished", "cancelled"}:
                why = f": {entry.message}" if entry.message else ""
                self._pause(f"number {entry.number} ({entry.what}) {state}{why}")

    def _pause(self, reason: str) -> None:
        self._paused = reason
        waiting = sum(entry.state == "waiting" for entry in self._entries)
        self._save()
        self._say(
            logging.WARNING,
            f"the queue is paused, {waiting} waiting: {reason}; `catkit-devices queue resume` lets it go on",
        )

    def _set(self, entry: QueueEntry) -> None:
        with self._guard:
            self._entries = [entry if one.number == entry.number else one for one in self._entries]
            self._save()

    # --- the file ---------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        ended = [entry.number for entry in self._entries if entry.state not in {"waiting", "running"}]
        forgotten = ended[:-_REMEMBERED]
        self._entries = [entry for entry in self._entries if entry.number not in forgotten]
        snapshot = self.snapshot()
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            partial = self._file.with_name(self._file.name + ".partial")
            partial.write_text(json.dumps({"server": self._testbed, **snapshot}, indent=2), encoding="utf-8")
            partial.replace(self._file)
        except OSError as error:
            self._say(
                logging.ERROR, f"the queue cannot be kept in {self._file}, and is lost if the testbed ends: {error}"
            )
        self._publish(snapshot)

    def _load(self, alive: Callable[[str], bool]) -> None:
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            entries = [QueueEntry(**{**one, "parameters": tuple(one["parameters"])}) for one in content["entries"]]
            owner, paused = content["server"], content["paused"]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            aside = self._file.with_name(self._file.name + ".damaged")
            with contextlib.suppress(OSError):
                self._file.replace(aside)
            self._say(
                logging.ERROR, f"the queue in {self._file} cannot be read ({error}): it is empty now, see {aside}"
            )
            return
        if owner != self._testbed and alive(owner):
            self._foreign = owner
            return
        cut: dict[str, Any] = {
            "state": "cut off",
            "message": "the testbed ended while it ran",
            "ended": time.time(),
            "pid": None,
        }
        self._entries = [replace(entry, **cut) if entry.state == "running" else entry for entry in entries]
        if self._next() is not None:
            self._pause(paused or "the testbed was started again")
        else:
            self._publish(self.snapshot())


def _told(file: Path) -> dict[str, Any]:
    """Return what the program of an experiment has told so far."""
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return facts


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """Tell the program of an experiment to stop it, as Ctrl-C does."""
    if os.name == "posix":
        process.send_signal(signal.SIGINT)
    else:
        process.terminate()


def _runs(server: str) -> bool:
    from catkit_devices.multiprocessing.wire.endpoint import endpoint

    try:
        endpoint(server)
    except ServerNotFoundError:
        return False
    return True
