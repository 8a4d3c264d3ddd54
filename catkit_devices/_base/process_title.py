"""What a process is called where the operating system lists processes (``ps``, ``top``)."""

from __future__ import annotations

import contextlib
from pathlib import Path

__all__ = ["set_title"]

_NAME = Path("/proc/self/comm")
"""Where a process of Linux writes its name; proc(5): it is cut to 15 characters."""


def set_title(name: str) -> None:
    """Say what this process is; called in the main thread of a process that is ours alone.

    On Linux the short name of the process says it, which ``ps -e`` and ``top`` show. With the optional package
    setproctitle (``pip install 'catkit-devices[titles]'``) the whole command line does, also on other systems.

    Args:
        name: what it is, the most telling words first.
    """
    with contextlib.suppress(ImportError):
        from setproctitle import setproctitle

        setproctitle(f"{name} (catkit-devices)")
    with contextlib.suppress(OSError):  # setproctitle has written the beginning of the longer text there
        _NAME.write_text(name, encoding="utf-8")
