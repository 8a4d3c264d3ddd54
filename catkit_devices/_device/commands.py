"""The command that sets a quantity: a text with one place for the value.

Values are checked before this, and what becomes of them here is checked once more: a format may round a number to
beyond its limit, and a quote inside of a text may end the string that it stands in.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any, cast

from catkit_devices._device.values import as_number, range_text, within

if TYPE_CHECKING:
    from catkit_devices._device.values import Limits, Rule

__all__ = ["SetCommand"]

_QUOTES = "\"'"
_EXACT = frozenset("bcoxX")
"""Formats that take whole numbers only, and write each of them exactly, though not as decimal digits."""


class SetCommand:
    """A command such as ``"VOLT {:.3f}"``.

    Args:
        template: the command, with one ``{}`` for the value.
        rule: what values there are.

    Raises:
        TypeError: the template has not just one ``{}``, or its format does not fit the values of the rule.
    """

    def __init__(self, template: str, rule: Rule) -> None:
        self._rule = rule
        try:
            pieces = list(string.Formatter().parse(template))
        except ValueError as error:
            raise TypeError(f"the set command {template!r} is no command: {error}") from None
        fields = [(name, spec or "", conversion) for _, name, spec, conversion in pieces if name is not None]
        if len(fields) != 1 or fields[0][0] not in ("", "0") or "{" in fields[0][1]:
            found = "no" if not fields else "not just one, plain"
            raise TypeError(f"the set command {template!r} has {found} {{}} for the value")
        _, self._format, conversion = fields[0]
        self._field = f"{{{f'!{conversion}' if conversion else ''}:{self._format}}}"
        position = next(index for index, piece in enumerate(pieces) if piece[1] is not None)
        self._before = "".join(piece[0] for piece in pieces[: position + 1])
        self._after = "".join(piece[0] for piece in pieces[position + 1 :])
        quote = _open_quote(self._before)
        self._quote = quote if quote and quote in self._after else ""
        for value in rule.examples():
            self._try(template, value)

    def text(self, value: Any, limits: Limits | None = None) -> str:
        """Return the command that sets ``value``, which the rule has converted and found within ``limits``.

        Raises:
            ValueError: what would be sent is beyond the limits, or another whole number, or could be more than one
                command.
        """
        sent = self._field.format(self._rule.token(value))
        if self._rule.numeric:
            self._check_number(sent, value, limits)
        elif self._rule.choices is None:
            sent = self._harmless(sent)
        return f"{self._before}{sent}{self._after}"

    def _check_number(self, sent: str, value: Any, limits: Limits | None) -> None:
        number = self._number(sent, value)
        if self._rule.type is int:
            if number != value:
                raise ValueError(f"cannot be {value!r}: that would be sent as {sent!r}")
        elif limits is not None and not (number is not None and within(number, limits)):
            unit = f" {self._rule.unit}" if self._rule.unit else ""
            raise ValueError(
                f"must be {range_text(limits, self._rule.unit)}, got {value!r}{unit}, which would be sent as {sent!r}"
            )

    def _number(self, sent: str, value: Any) -> float | None:
        """Return the number that the instrument will read; None where that cannot be told."""
        if self._format[-1:] in _EXACT:
            return cast("int", value)
        for separator in ",_":
            if separator in self._format:
                sent = sent.replace(separator, "")
        if self._format.endswith("%"):
            number = as_number(sent.strip().removesuffix("%"))
            return None if number is None else number / 100
        return as_number(sent.strip())

    def _harmless(self, sent: str) -> str:
        """Return a text as it can stand in the command without being taken for more than a text."""
        if not sent.isprintable():
            raise ValueError(f"must be printable text, got {sent!r}")
        if self._quote:
            # A quote inside of a string is written twice (IEEE 488.2, 7.7.5).
            return sent.replace(self._quote, 2 * self._quote)
        if ";" in sent:
            # It separates the commands of one message (IEEE 488.2, 7.4.1).
            raise ValueError(f"must be text without ';', behind which another command begins, got {sent!r}")
        return sent

    def _try(self, template: str, value: Any) -> None:
        """Raise TypeError unless the format fits a value."""
        token = self._rule.token(value)
        try:
            sent = self._field.format(token)
        except (ValueError, TypeError) as error:
            raise TypeError(f"the set command {template!r} does not fit a value such as {token!r}: {error}") from None
        if isinstance(token, int | float) and self._number(sent, token) != token:
            raise TypeError(f"the set command {template!r} would send {token!r} as {sent!r}")


def _open_quote(text: str) -> str:
    """Return the quote of the string that is still open at the end of ``text``; empty where none is."""
    quote = ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
    return quote
