r"""The dialogue of Thorlabs instruments with a command interpreter on a serial line (FW102C, FW212C, MCLS1).

115200 baud, 8N1, no flow control. A command ends with CR; the unit echoes it, sends the reply and CR if there is one,
and then the prompt ``> ``. So a query is ``pos?\r`` out, ``pos?\r3\r> `` in, and a command that sets is ``pos=3\r``
out, ``pos=3\r> `` in. A command that is not accepted is answered with ``Command error CMD_NOT_DEFINED`` or ``Command
error CMD_ARG_INVALID``, ended by LF CR in at least one firmware.

Sources: Thorlabs FW102C/FW212C manual Rev H (October 2014) section 5.2.3, p. 11 (line, prompt); pylablib
``devices/Thorlabs/serial.py`` and github delmic/odemis ``src/odemis/driver/tlfw.py`` (byte stream, line ends, errors);
instrumentkit ``thorlabs/thorlabs_utils.py`` (errors).
"""

from __future__ import annotations

import re
from typing import ClassVar

from catkit_devices.errors import DeviceProtocolError
from catkit_devices.visa import VisaDevice

__all__ = ["PromptDevice"]


class PromptDevice(VisaDevice):
    """A VisaDevice whose replies are found between the echo of the command and the prompt."""

    baud_rate = 115200
    read_termination = "\r"
    write_termination = "\r"
    prompt: ClassVar[bytes] = b"> "

    def _query(self, command: str, timeout: float | None = None) -> str:
        return "\n".join(self._converse(command, timeout))

    def _write(self, command: str) -> None:
        self._confirm(command)

    def _confirm(self, command: str, timeout: float | None = None) -> None:
        """Send a command that is answered by its echo and the prompt only."""
        if reply := self._converse(command, timeout):
            raise DeviceProtocolError(f"no reply was expected, got {reply!r}", **self._facts(command))

    def _converse(self, command: str, timeout: float | None = None, *, resumes: bool = False) -> list[str]:
        """Send ``command`` and return the lines of the reply.

        The echo shows to which command a reply belongs, so the reply to another command is never taken for this one's.

        Args:
            command: text.
            timeout: seconds until the prompt.
            resumes: whether the prompt of an earlier command, whose end was not awaited, may still come first.
        """
        with self._exchange(command):
            self._send(command)
            text = self._decode(self._read_until(self.prompt, timeout))
            if resumes and not text:
                text = self._decode(self._read_until(self.prompt, timeout))
            # The unit may send zero bytes when its port is opened (github delmic/odemis, tlfw.py).
            echo, *reply = [line for line in re.split("[\r\n]+", text.lstrip("\0")) if line] or [""]
            if echo != command:
                raise ValueError(f"the echo {command!r} was expected, got {echo!r}")
        if reply and reply[0].startswith("Command error"):
            raise DeviceProtocolError(f"refused: {reply[0]}", **self._facts(command))
        return reply
