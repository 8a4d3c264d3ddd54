"""Waiting for a change of a number in shared memory: with Linux' futex, elsewhere by looking again and again."""

from __future__ import annotations

import functools
import platform
import sys
import time
from typing import TYPE_CHECKING, Any

from catkit_devices.multiprocessing.wire.system import has_futex

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Bell"]

_WAIT, _WAKE = 0, 1
"""Operations of futex(2): FUTEX_WAIT and FUTEX_WAKE."""
_EVERYBODY = 1 << 30
"""How many are woken at most."""
_NUMBERS = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "loongarch64": 98, "ppc64le": 221, "s390x": 238}
"""The number of futex(2) for 64-bit programs, as the C library's <sys/syscall.h> has it for each processor: Linux
arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h (98), and the tables of powerpc and s390."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1e-4, 5e-3
"""Seconds between two looks where there is no futex: short at first, and longer the longer nothing comes."""


class Bell:
    """A number in shared memory that one process changes, and that others wait for.

    Args:
        words: eight-byte words, of which one is the number; its lower half is what the kernel looks at.
        index: which.
    """

    def __init__(self, words: npt.NDArray[np.uint64], index: int) -> None:
        self._words = words
        self._futex = _futex() if has_futex() else None
        self._index = index
        # The kernel looks at four bytes: those that hold the lower half of the number.
        self._address = int(words.ctypes.data) + 8 * index + (4 if sys.byteorder == "big" else 0)

    def ring(self, value: int) -> None:
        """Change the number, and wake all who wait."""
        self._words[self._index] = value & 0xFFFFFFFF
        if self._futex is not None:
            self._futex(self._address, _WAKE, _EVERYBODY, None)

    @property
    def value(self) -> int:
        """The number now; give it to ``wait``."""
        return int(self._words[self._index])

    def wait(self, value: int, timeout: float) -> None:
        """Return when the number is not ``value`` any more, or after ``timeout`` seconds, or a little earlier."""
        if self._futex is not None:
            self._futex(self._address, _WAIT, value, timeout)
            return
        deadline = time.monotonic() + timeout
        pause = _SHORTEST_PAUSE
        while self.value == value and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)


@functools.cache
def _futex() -> Any:
    """Return what calls futex(2) with address, operation, value and timeout; None if there is none."""
    number = _NUMBERS.get(platform.machine()) if sys.platform == "linux" and sys.maxsize > 1 << 32 else None
    if number is None:
        return None
    import ctypes

    syscall = ctypes.CDLL(None).syscall
    syscall.argtypes = [
        ctypes.c_long,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_uint32,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int,
    ]
    spans = ctypes.c_long * 2

    def futex(address: int, operation: int, value: int, timeout: float | None) -> None:
        span = None if timeout is None else spans(int(timeout), int((timeout % 1) * 1e9))
        syscall(number, address, operation, value, span, None, 0)

    return futex
