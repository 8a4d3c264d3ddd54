"""What can be told of a message to an instrument without knowing the instrument (IEEE 488.2, 7)."""

from __future__ import annotations

import re

__all__ = ["is_question", "same_form", "several_lines"]

_TEXT = re.compile(rb"\"[^\"]*\"|'[^']*'")
"""A string; a quote inside of it is doubled, which makes two strings of it (7.7.5)."""
_BLOCK = re.compile(rb"#([1-9])")
"""The beginning of a block of definite length (7.7.6)."""


def is_question(message: bytes) -> bool:
    """Return whether a message has a header with a question mark, so that a reply is to be expected.

    Question marks in texts and in blocks of data do not count.
    """
    if b"?" not in message:
        return False
    plain = _TEXT.sub(b"", _without_blocks(message))
    units = (unit.split(maxsplit=1) for unit in plain.split(b";"))
    return any(b"?" in words[0] for words in units if words)


def several_lines(message: bytes) -> bool:
    """Return whether an instrument takes it for several messages: a line ends inside, outside of blocks of data."""
    return bool({*_without_blocks(message)} & {*b"\r\n"})


def same_form(message: str) -> str:
    """Return a message in the form in which all ways of writing it are the same: capitals, single spaces, no colon."""
    return " ".join(message.upper().split()).removeprefix(":")


def _without_blocks(message: bytes) -> bytes:
    found = _BLOCK.search(message)
    if found is None:
        return message
    begin = found.end() + int(found[1])
    digits = message[found.end() : begin]
    if not digits.isdigit():
        return message
    return message[: found.start()] + _without_blocks(message[begin + int(digits) :])
