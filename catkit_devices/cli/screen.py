"""The terminal on which a picture is drawn, while others write to it too.

What experiments, drivers and libraries print would be overwritten by the next picture. It is taken to a pseudo-terminal
instead, and shown above the picture.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import sys
import threading
from typing import Any, Self

from catkit_devices.cli.output import console

__all__ = ["Screen"]

_CHUNK = 65536
"""Bytes that are read at once."""
_LAST = 2.0
"""Seconds for showing what has arrived, when the command ends."""
_PARTIAL = 0.3
"""Seconds after which a line that has not ended is shown as it is."""


class Screen:
    """Where pictures are drawn: stderr, and the lines that others print on that terminal; a context manager.

    While it is entered, and stderr is a terminal, what this process and the children that it starts write to it, by
    stdout or stderr, goes line by line through :attr:`console`. What goes to a file or a pipe is left alone. It is
    entered before anything that may print is started, and left when that has ended.
    """

    def __init__(self) -> None:
        self.console = console(stderr=True)
        self.lock = threading.Lock()
        """Held while something is drawn or printed."""
        self._relay: _Relay | None = None

    def __enter__(self) -> Self:
        # Without a pseudo-terminal (Windows, or none left), printed lines and the picture overwrite each other.
        with contextlib.suppress(ImportError, OSError):
            if self.console.is_terminal and os.isatty(2):
                self._relay = _Relay(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._relay is not None:
            self._relay.end()


class _Relay:
    """Takes what is written to the terminal by file descriptor, and prints it on the screen."""

    def __init__(self, screen: Screen) -> None:
        import pty
        import termios
        import tty

        self._screen = screen
        self._master, slave = pty.openpty()
        tty.setraw(slave)  # lines end as they were written
        termios.tcsetwinsize(slave, termios.tcgetwinsize(2))
        self._woken, self._wake = os.pipe()
        _flush()
        self._kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2) if os.isatty(descriptor)}
        screen.console = _console_on(self._kept[2])
        for descriptor in self._kept:
            os.dup2(slave, descriptor)
        os.close(slave)
        self._thread = threading.Thread(target=self._go_on_reading, name="screen", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Show everything that has arrived; then output goes to the terminal again."""
        _flush()
        for descriptor, kept in self._kept.items():
            os.dup2(kept, descriptor)
        os.close(self._wake)
        self._thread.join(_LAST)
        self._screen.console = console(stderr=True)
        if self._thread.is_alive():
            return  # the terminal takes nothing (Ctrl-S): that must not keep the command from ending
        for descriptor in (*self._kept.values(), self._master, self._woken):
            os.close(descriptor)

    def _go_on_reading(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        line = ""
        ending = False
        while True:
            watched = [self._master] if ending else [self._master, self._woken]
            ready, _, _ = select.select(watched, [], [], 0.0 if ending else _PARTIAL if line else None)
            ending = ending or self._woken in ready
            data = self._read() if self._master in ready else b""
            *whole, line = (line + decoder.decode(data)).split("\n")
            if line and not ready:
                whole, line = [*whole, line], ""
            for text in whole:
                self._show(text)
            if ending and not data:
                if line:
                    self._show(line)
                return

    def _read(self) -> bytes:
        try:
            return os.read(self._master, _CHUNK)
        except OSError:  # nobody has the other end any more
            return b""

    def _show(self, line: str) -> None:
        from rich.text import Text

        # Of a line that was overwritten (carriage return), keep the last version.
        shown = line.rstrip("\r").rpartition("\r")[2]
        # If the terminal is gone, programs that print must not wait: their output is still read.
        with self._screen.lock, contextlib.suppress(OSError):
            self._screen.console.print(Text.from_ansi(shown))


def _console_on(descriptor: int) -> Any:
    from rich.console import Console

    file = open(descriptor, "w", encoding=sys.stderr.encoding, errors="replace", closefd=False)  # noqa: SIM115 - in use until the end
    return Console(file=file, highlight=False)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
