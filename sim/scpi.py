"""What SCPI instruments share: keywords in short and long form, binary blocks, the error queue.

Source: SCPI-99 volume 1 (keywords, errors); IEEE 488.2 (definite-length blocks).
"""

from __future__ import annotations

from collections import deque

__all__ = ["Errors", "Keywords", "block"]

UNDEFINED_HEADER = (-113, "Undefined header")
PARAMETER_ERROR = (-220, "Parameter error")
OUT_OF_RANGE = (-222, "Data out of range")
INIT_IGNORED = (-213, "Init ignored")
DATA_STALE = (-230, "Data corrupt or stale")


class Keywords:
    """The keywords that an instrument knows.

    Args:
        spelling: as manuals spell them, ``"SENSe CORRection"``: the capitals are the short form.
    """

    def __init__(self, spelling: str) -> None:
        self._short = {}
        for word in spelling.split():
            short = "".join(letter for letter in word if not letter.islower())
            self._short[short] = self._short[word.upper()] = short

    def short(self, header: str) -> str:
        """Return a header with every keyword in short form, in capitals and without a leading colon.

        What is neither the short nor the long form of a known keyword stays as it is, and so matches nothing.
        """
        body, query = (header[:-1], "?") if header.endswith("?") else (header, "")
        words = body.removeprefix(":").upper().split(":")
        return ":".join(self._short.get(word, word) for word in words) + query


class Errors:
    """An error queue, as ``SYSTem:ERRor?`` reads it."""

    def __init__(self) -> None:
        self._queue: deque[tuple[int, str]] = deque(maxlen=20)

    def add(self, error: tuple[int, str]) -> None:
        """Append an error: its number and text."""
        self._queue.append(error)

    def next(self) -> str:
        """Remove and return the oldest error as the instrument writes it."""
        number, text = self._queue.popleft() if self._queue else (0, "No error")
        return f'{number:+d},"{text}"'

    def clear(self) -> None:
        """Forget all errors."""
        self._queue.clear()


def block(data: bytes) -> bytes:
    """Return ``data`` as a definite-length block: ``#``, the number of digits, the length in bytes, the data."""
    length = str(len(data))
    return f"#{len(length)}{length}".encode() + data
