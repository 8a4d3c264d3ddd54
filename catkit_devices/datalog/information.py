"""Where a run came from: who ran what, where, on which versions of which code."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["gather", "git_revision", "versions"]

_DISTRIBUTIONS = (
    "catkit-devices", "numpy", "pyvisa", "pyvisa-py", "pyvisa-sim", "pyserial", "pint", "pydantic", "pluggy",
    "cloudpickle",
)  # fmt: skip


def gather(source: Path | None) -> dict[str, Any]:
    """Describe this process and the code it runs.

    Args:
        source: the file or directory whose git revision counts; the current directory by default.
    """
    import getpass
    import platform
    from pathlib import Path

    try:
        user: str | None = getpass.getuser()
    except (KeyError, OSError):
        user = None  # a user number without a name, as there is in containers
    return {
        "user": user,
        "host": platform.node(),
        "pid": os.getpid(),
        "command": list(sys.argv),
        "directory": str(Path.cwd()),
        "platform": platform.platform(),
        "versions": versions(),
        "git": git_revision(source if source is not None else Path.cwd()),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of those installed packages that influence what a run does."""
    from importlib import metadata

    found = {"python": sys.version.split()[0]}
    for distribution in _DISTRIBUTIONS:
        try:
            found[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_revision(place: Path) -> str | None:
    """Return the commit that is checked out at ``place``, followed by ``-dirty`` if files differ from it.

    None if there is no repository, no git, or no answer within 5 s.
    """
    directory = place if place.is_dir() else place.parent
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=directory, env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=5.0, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
