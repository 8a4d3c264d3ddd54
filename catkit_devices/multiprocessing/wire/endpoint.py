"""Where servers are found: by name, in a directory that only its user (or a lab's group) can enter.

A running server holds an operating-system lock on ``<name>.lock``, so its name is free again when its process ends,
however it ends. Its address and key are in ``<name>.json``.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices.errors import CatkitDevicesError, RuntimeDirectoryError, ServerNotFoundError, ServerRunningError
from catkit_devices.multiprocessing.wire.forking import making, private

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Address",
    "Endpoint",
    "Registration",
    "default_name",
    "endpoint",
    "endpoints",
    "runtime_directory",
    "writing_in",
]

Address = str | tuple[str, int]

_LONGEST_SOCKET_PATH = 100
"""Bytes; the path of a Unix socket cannot be longer than about 107."""
_SHORT_DIRECTORIES = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - a directory of one's own is made there
"""Where a socket is made if its path would be too long in the directory of running servers and in TMPDIR."""


class Endpoint(NamedTuple):
    """How a server is reached."""

    name: str
    address: Address
    authkey: bytes
    pid: int


def default_name() -> str:
    """Return the name of the server if none is given: ``CATKIT_DEVICES_SERVER``, else ``default``."""
    return os.environ.get("CATKIT_DEVICES_SERVER") or "default"


def runtime_directory(group: str | None = None) -> Path:
    """Return the directory of this user's running servers on this host; it is made if it does not exist.

    ``CATKIT_DEVICES_RUNTIME`` names it. Without that, it is in the home directory of the user database, so that every
    login, service and cron job of the user finds the same one.

    Raises:
        PermissionError: it belongs to another user, or others can write to it.
        RuntimeDirectoryError: it cannot be made.
    """
    configured = os.environ.get("CATKIT_DEVICES_RUNTIME")
    directory = Path(configured) if configured else _home() / ".catkit_devices" / socket.gethostname()
    with writing_in(directory):
        _make(directory, 0o750 if group else 0o700)
    if os.name == "posix":
        if group is not None:
            import shutil

            shutil.chown(directory, group=group)
            directory.chmod(0o750)
        _check_private(directory)
    return directory


@contextlib.contextmanager
def writing_in(directory: Path) -> Iterator[None]:
    """Make a RuntimeDirectoryError of what prevents writing in the directory of running servers."""
    try:
        yield
    except CatkitDevicesError:
        raise
    except OSError as error:
        raise RuntimeDirectoryError(
            f"the directory of running servers, {directory}, cannot be used: {_obstacle(directory) or error.strerror}. "
            "Repair this, or set CATKIT_DEVICES_RUNTIME to another directory",
            directory=str(directory),
        ) from error


def _obstacle(directory: Path) -> str | None:
    """Return what is in the place of a directory, or of one above it; None if nothing is."""
    for path in (directory, *directory.parents):
        if path.is_symlink() and not path.exists():
            return f"{path} is a link to {path.readlink()}, which does not exist"
        if path.is_file():
            return f"{path} is a file"
    return None


def _make(directory: Path, mode: int) -> None:
    """Make a directory, and those above it that are missing; only this user can write to any of them."""
    if not directory.parent.exists():
        _make(directory.parent, 0o755)
    directory.mkdir(mode=mode, exist_ok=True)


def _check_private(directory: Path) -> None:
    """Refuse a directory in which another user could replace this user's server by another one."""
    status = directory.stat()
    if status.st_mode & 0o022:
        raise PermissionError(
            f"{directory} must not be writable by others (mode {status.st_mode & 0o7777:o}): chmod go-w {directory}"
        )
    ours = status.st_gid in {os.getegid(), *os.getgroups()} and not status.st_mode & 0o007
    if status.st_uid != os.getuid() and not ours:
        raise PermissionError(
            f"{directory} belongs to user {status.st_uid}, not to this one ({os.getuid()}), and is not that of a group "
            "of this user's; set CATKIT_DEVICES_RUNTIME to a directory of your own"
        )


def _home() -> Path:
    if os.name == "posix":
        import pwd

        try:
            return Path(pwd.getpwuid(os.getuid()).pw_dir)
        except KeyError:  # the user has a number, but no name, as in some containers
            home = Path(os.environ.get("HOME", ""))
            usable = home.is_absolute() and os.access(home, os.W_OK | os.X_OK)
            return home if usable else Path(f"/tmp/catkit_devices-{os.getuid()}")  # noqa: S108 - checked to be ours
    return Path.home()


class Registration:
    """Reserves the name of a server, for as long as its process lives.

    Raises:
        ServerRunningError: a running server has the name; the message names its process.
    """

    def __init__(self, name: str, group: str | None = None) -> None:
        if not name or "/" in name or "\\" in name or name.startswith("."):
            raise ValueError(f"a server's name must be usable as a file name, got {name!r}")
        self.name = name
        self._group = group
        self._directory = runtime_directory(group)
        self._file = self._directory / f"{name}.json"
        self._lock = self._claim()
        self._clean()

    def _claim(self) -> int:
        path = self._directory / f"{self.name}.lock"
        while True:
            with making, writing_in(self._directory):
                lock = private(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            if not _try_lock(lock):
                os.close(lock)
                raise _running(self.name, self._file)
            if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
                return lock
            os.close(lock)  # its last owner removed the file after it was opened here and before it was locked

    def socket_path(self) -> str:
        """Return a path at which a Unix socket can be bound."""
        path = str(self._directory / f"{self.name}.sock")
        if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
            return path
        for parent in (tempfile.gettempdir(), *_SHORT_DIRECTORIES):
            length = len(os.fsencode(parent)) + len("/catkit-xxxxxxxx/sock")
            if length <= _LONGEST_SOCKET_PATH and os.access(parent, os.W_OK):
                short = Path(tempfile.mkdtemp(prefix="catkit-", dir=parent))
                if self._group:
                    import shutil

                    shutil.chown(short, group=self._group)
                    short.chmod(0o750)
                return str(short / "sock")
        raise OSError(
            f"server {self.name!r} finds no path of at most {_LONGEST_SOCKET_PATH} bytes for its socket: not in "
            f"{self._directory} (CATKIT_DEVICES_RUNTIME) and not in {tempfile.gettempdir()} (TMPDIR)"
        )

    def publish(self, address: Address, authkey: bytes) -> None:
        """Let clients find the server."""
        mode = 0o640 if self._group else 0o600
        facts = {"address": address, "authkey": authkey.hex(), "pid": os.getpid()}
        if isinstance(address, str) and os.name == "posix":
            if self._group:
                import shutil

                shutil.chown(address, group=self._group)
            Path(address).chmod(0o660 if self._group else 0o600)
        with writing_in(self._directory):
            handle, temporary = tempfile.mkstemp(dir=self._directory, prefix=f".{self.name}-")
            with os.fdopen(handle, "w") as file:
                json.dump(facts, file)
        Path(temporary).chmod(mode)
        if self._group:
            import shutil

            shutil.chown(temporary, group=self._group)
        Path(temporary).replace(self._file)

    def withdraw(self) -> None:
        """Free the name."""
        self._clean()
        with contextlib.suppress(OSError):  # Windows cannot remove an open file; the next server of the name will
            (self._directory / f"{self.name}.lock").unlink()
        os.close(self._lock)

    def _clean(self) -> None:
        facts = _read(self._file)
        address = facts.get("address") if facts else None
        paths = [self._file, self._directory / f"{self.name}.sock"]
        if isinstance(address, str) and Path(address).parent != self._directory:
            paths.append(Path(address))
        for path in paths:
            path.unlink(missing_ok=True)
        if len(paths) == 3 and paths[2].parent.name.startswith("catkit-") and paths[2].parent.is_dir():
            paths[2].parent.rmdir()


def endpoint(name: str) -> Endpoint:
    """Return how the running server of that name is reached.

    Raises:
        ServerNotFoundError: none runs under that name.
    """
    file = runtime_directory() / f"{name}.json"
    facts = _read(file)
    if facts is None:
        running = ", ".join(sorted(other.stem for other in file.parent.glob("*.json"))) or "none"
        raise ServerNotFoundError(f"no server named {name!r} is running (running: {running})", server=name)
    address = facts["address"]
    return Endpoint(
        name,
        address if isinstance(address, str) else (str(address[0]), int(address[1])),
        bytes.fromhex(facts["authkey"]),
        facts["pid"],
    )


def endpoints() -> list[Endpoint]:
    """Return every server of this user on this host that has published itself."""
    found = []
    for file in runtime_directory().glob("*.json"):
        try:
            found.append(endpoint(file.stem))
        except ServerNotFoundError:  # it has ended meanwhile
            continue
    return found


def _read(file: Path) -> dict[str, Any] | None:
    try:
        facts: dict[str, Any] = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return facts


def _running(name: str, file: Path) -> ServerRunningError:
    facts = _read(file) or {}
    pid = facts.get("pid")
    return ServerRunningError(
        f"a server named {name!r} is running already (pid {pid or 'not known yet'})", server=name, pid=pid
    )


if os.name == "posix":
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
else:
    import msvcrt

    def _try_lock(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # on Windows it has both
        except OSError:
            return False
        return True
