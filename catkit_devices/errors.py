"""All exceptions of the project.

Each one stores its facts as attributes, builds its text from them, and can be pickled without loss. It derives from
:class:`CatkitDevicesError` and from the builtin that a user would catch (``TimeoutError``, ``ConnectionError``,
``ValueError``). Each timeout is both Python's ``TimeoutError`` and ``multiprocessing.TimeoutError``. This module
imports only the standard library.
"""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "CatkitDevicesError",
    "ComponentNotFoundError",
    "ConfigurationError",
    "DataError",
    "DeadlockError",
    "DeviceBusyError",
    "DeviceClosedError",
    "DeviceDisconnectedError",
    "DeviceError",
    "DeviceFaultError",
    "DeviceOpenError",
    "DeviceProtocolError",
    "DeviceTimeoutError",
    "DeviceValueError",
    "MutexBrokenError",
    "MutexError",
    "MutexNotHeldError",
    "MutexTimeoutError",
    "OperationCancelled",
    "PluginError",
    "ProcessDiedError",
    "RemoteError",
    "RuntimeDirectoryError",
    "SafetyError",
    "ServerError",
    "ServerNotFoundError",
    "ServerResourceError",
    "ServerRunningError",
    "ServerUnresponsiveError",
    "SessionEndedError",
    "SimulationError",
    "StopExperiment",
    "TransferError",
    "WaitTimeoutError",
    "in_one_line",
    "nearest",
]

_E = TypeVar("_E", bound="CatkitDevicesError")


def nearest(word: Any, candidates: Iterable[Any]) -> str | None:
    """Return the candidate with the most similar spelling; None if none is similar, or if ``word`` is not text."""
    import difflib

    if not isinstance(word, str):
        return None
    texts = [one for one in candidates if isinstance(one, str)]
    matches = difflib.get_close_matches(word, texts, n=1, cutoff=0.6)
    return matches[0] if matches else None


class CatkitDevicesError(Exception):
    """Base of every error that the project raises on purpose.

    Args:
        text: what happened, in full.
        **facts: the facts in the text; each becomes an attribute.
    """

    def __init__(self, text: str = "", /, **facts: Any) -> None:
        super().__init__(text)
        self.__dict__.update(facts)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        # OSError and KeyError would otherwise format the text in their own ways.
        return str(self.args[0]) if self.args else ""


def in_one_line(error: BaseException) -> str:
    """Return an error's class and message; for a group, its own message and then those of its errors."""
    if not isinstance(error, BaseExceptionGroup):
        text = str(error)
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    inner = [in_one_line(one) for one in error.exceptions[:_SHOWN]]
    if len(error.exceptions) > _SHOWN:
        inner.append(f"and {len(error.exceptions) - _SHOWN} more")
    return f"{type(error).__name__}: {error.message} ({'; '.join(inner)})"


_SHOWN = 10
"""Number of errors of a group that are shown in one line, so that it stays readable."""


def _rebuild(cls: type[_E], args: tuple[Any, ...], facts: dict[str, Any]) -> _E:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class ConfigurationError(CatkitDevicesError, ValueError):
    """Something that a user wrote (a configuration, an option, a plugin's declaration) is not usable."""

    def __init__(
        self, problem: str, *, file: str | None = None, key: str | None = None, suggestion: str | None = None
    ) -> None:
        where = ": ".join(part for part in (file, key) if part)
        text = f"{where}: {problem}" if where else problem
        if suggestion:
            text += f" (did you mean {suggestion!r}?)"
        super().__init__(text, problem=problem, file=file, key=key, suggestion=suggestion)

    problem: str
    file: str | None
    key: str | None
    suggestion: str | None


class PluginError(ConfigurationError):
    """A plugin cannot be loaded or breaks the rules of a hook; the text names the plugin or plugins."""


class DataError(CatkitDevicesError):
    """A run's data cannot be written or read; the text names the run or file and the cause."""


class SimulationError(CatkitDevicesError):
    """A simulated instrument cannot be built, has failed, or was used in a way that its definition does not cover."""


class WaitTimeoutError(CatkitDevicesError, TimeoutError, multiprocessing.TimeoutError):
    """Something that was waited for (the end of a process, a frame, an answer) did not come in time."""


# --- devices -------------------------------------------------------------------------------------------------------


class DeviceError(CatkitDevicesError):
    """Something went wrong with one device.

    Args:
        problem: what was expected and what was found.
        device: the device's name.
        driver: the driver's name, where known.
        address: the address of its instrument, if it has one.
        command: the command or operation that failed, if there was one.
    """

    def __init__(
        self,
        problem: str,
        *,
        device: str | None = None,
        driver: str | None = None,
        address: str | None = None,
        command: str | bytes | None = None,
    ) -> None:
        what = f" ({driver or 'device'} at {address})" if address else f" ({driver})" if driver else ""
        text = f"device {device!r}{what}: {problem}" if device is not None else problem
        if command is not None:
            text += f" [command {command!r}]"
        super().__init__(text, problem=problem, device=device, driver=driver, address=address, command=command)

    problem: str
    device: str | None
    driver: str | None
    address: str | None
    command: str | bytes | None


class DeviceOpenError(DeviceError, ConnectionError):
    """The device could not be opened: nothing answers at its address, or an unexpected instrument does."""


class DeviceBusyError(DeviceOpenError):
    """Another program on this machine has the instrument open; the text names it."""


class DeviceClosedError(DeviceError, RuntimeError):
    """An operation was called on a device that is not open."""


class DeviceFaultError(DeviceError, RuntimeError):
    """The device could not be made safe or could not be trusted any more; it refuses use until it is reset."""


class DeviceTimeoutError(DeviceError, TimeoutError, multiprocessing.TimeoutError):
    """The instrument did not answer in time."""


class DeviceDisconnectedError(DeviceError, ConnectionError):
    """The connection to the instrument is lost."""


class DeviceProtocolError(DeviceError, ValueError):
    """The instrument has sent a reply that its protocol does not allow, or has reported an error itself."""


class DeviceValueError(DeviceError, ValueError):
    """A value was refused before anything was sent: wrong type, out of limits, or not one of the choices."""


class ComponentNotFoundError(DeviceError, AttributeError, KeyError):
    """A device has no such component, or the instrument does not have it; the text says which there are."""


# --- mutexes -------------------------------------------------------------------------------------------------------


class MutexError(CatkitDevicesError):
    """Base of all errors of mutexes; ``mutex`` is its name."""

    mutex: str


class MutexTimeoutError(MutexError, TimeoutError, multiprocessing.TimeoutError):
    """A mutex was not acquired in time; the text says how long the wait was, and who had it, since when, from where.

    Args:
        mutex: its name.
        waited: seconds.
        holder: a description of the holder, as text.
        waiting: how many others were waiting.
    """

    def __init__(self, mutex: str, waited: float, holder: str | None = None, waiting: int = 0) -> None:
        text = f"{mutex!r} not acquired in {waited:.1f} s"
        text += f": {holder}" if holder else ": nobody holds it now"
        if waiting:
            text += f"; {waiting} waiting"
        super().__init__(text, mutex=mutex, waited=waited, holder=holder, waiting=waiting)

    waited: float
    holder: str | None
    waiting: int


class MutexNotHeldError(MutexError, RuntimeError):
    """An owner released a mutex that it does not hold."""

    def __init__(self, mutex: str, holder: str | None = None) -> None:
        text = f"{mutex!r} cannot be released: this owner does not hold it"
        super().__init__(text + (f"; {holder}" if holder else ""), mutex=mutex, holder=holder)

    holder: str | None


class DeadlockError(MutexError):
    """The wait would never have ended: the text names every party, what it holds and for what it waits.

    Args:
        mutex: the mutex for which the last party wanted to wait.
        parties: one line for each party of the cycle.
    """

    def __init__(self, mutex: str, parties: Iterable[str]) -> None:
        parties = tuple(parties)
        text = f"waiting for {mutex!r} would never end: " + "; ".join(parties)
        super().__init__(text, mutex=mutex, parties=parties)

    parties: tuple[str, ...]


class MutexBrokenError(MutexError):
    """The mutex was taken from this owner by force, or its server has ended, while the owner was in its section.

    Every later operation of that owner raises it, and so does leaving, until it has left its outermost section.
    """

    def __init__(self, mutex: str, reason: str) -> None:
        super().__init__(
            f"{mutex!r} was taken from this owner: {reason}; leave the section before using it again",
            mutex=mutex,
            reason=reason,
        )

    reason: str


class OperationCancelled(CatkitDevicesError):  # noqa: N818 - it says what happened, as concurrent.futures' does
    """A long operation was told to end: its caller was interrupted (Ctrl-C) or died, or a stop was asked for."""


class SessionEndedError(OperationCancelled):
    """The session for which this code acts has been closed or abandoned: what it held was given back."""

    def __init__(self, session: str) -> None:
        super().__init__(f"session {session!r} has ended: it was closed or abandoned", session=session)

    session: str


# --- processes and servers -----------------------------------------------------------------------------------------


class RuntimeDirectoryError(CatkitDevicesError, OSError):
    """The directory of running servers cannot be made or written to; ``directory`` is its path."""

    def __init__(self, text: str = "", *, directory: str | None = None) -> None:
        super().__init__(text, directory=directory)

    directory: str | None


class ServerError(CatkitDevicesError, ConnectionError):
    """Base of all errors between a client and a server; ``server`` is its name or address."""

    def __init__(self, text: str = "", *, server: str | None = None, pid: int | None = None) -> None:
        super().__init__(text, server=server, pid=pid)

    server: str | None
    pid: int | None


class ServerNotFoundError(ServerError):
    """No server of that name is running."""


class ServerRunningError(ServerError):
    """A server of that name is running already; ``pid`` is its process."""


class ServerResourceError(ServerError):
    """The server has not enough threads, descriptors or memory, and has refused the request; nothing was done."""


class ServerUnresponsiveError(ServerError):
    """The server has ended, or has not answered for too long."""


class RemoteError(CatkitDevicesError):
    """Replaces an exception of another process that could not be rebuilt here.

    Args:
        kind: the qualified name of the original class.
        text: the original text.
        details: the full remote traceback as text.
    """

    def __init__(self, kind: str, text: str, details: str = "") -> None:
        super().__init__(
            f"{kind}: {text}" + (f"\n\n{details}" if details else ""), kind=kind, text=text, details=details
        )

    kind: str
    text: str
    details: str


class TransferError(CatkitDevicesError, TypeError):
    """What an operation returned cannot be sent to the caller: it cannot be pickled, or cannot be loaded there.

    Args:
        operation: the property or method.
        kind: the class of what was returned, or of the part of it that cannot be loaded; None if that is not known.
        problem: why it cannot be sent.
        name: of the object to which the operation belongs, such as a device.
    """

    def __init__(self, operation: str, kind: str | None, problem: str, *, name: str | None = None) -> None:
        where = f"{name}.{operation}" if name else repr(operation)
        what = f"an object of class {kind}" if kind else "an object"
        super().__init__(
            f"{where} returned {what}, which {problem}: return numbers, texts, arrays, or a class that every program "
            "can import",
            operation=operation,
            kind=kind,
            problem=problem,
            name=name,
        )

    operation: str
    kind: str | None
    problem: str
    name: str | None


class ProcessDiedError(CatkitDevicesError):
    """A child process ended without a result: killed by a signal, or by ``sys.exit``.

    Args:
        process: its name.
        pid: its process id.
        exitcode: as ``multiprocessing.Process.exitcode`` (minus the signal's number if a signal killed it).
        signal: the signal's name, if a signal killed it.
    """

    def __init__(self, process: str, pid: int | None, exitcode: int | None, signal: str | None = None) -> None:
        how = f"was killed by {signal}" if signal else f"exited with code {exitcode}"
        super().__init__(
            f"process {process!r} (pid {pid}) {how} before it returned",
            process=process,
            pid=pid,
            exitcode=exitcode,
            signal=signal,
        )

    process: str
    pid: int | None
    exitcode: int | None
    signal: str | None


# --- testbed -------------------------------------------------------------------------------------------------------


class SafetyError(CatkitDevicesError):
    """A safety check failed; the text names the check, the value and the limit.

    Args:
        check: the check's name.
        problem: the value and the limit, or the error of the check.
    """

    def __init__(self, check: str, problem: str) -> None:
        super().__init__(f"safety check {check!r}: {problem}", check=check, problem=problem)

    check: str
    problem: str


class StopExperiment(BaseException):
    """Raised once inside an experiment that was told to stop; `except Exception` does not catch it."""
