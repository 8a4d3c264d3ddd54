"""Instruments on plain sockets, for programs that have no HiSLIP: text, one message in a line.

A reply has a newline at its end, whatever else the instrument puts there. There is no lock, no device clear, and no way
to say why something was refused: then the connection is closed. Data may be in replies, but not in messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING

from catkit_devices.gateway.doors import RefusedError

if TYPE_CHECKING:
    from catkit_devices.gateway.doors import InstrumentDoor, Visit

__all__ = ["LONGEST_LINE", "keep_alive", "talk"]

_log = logging.getLogger(__name__)

LONGEST_LINE = 1 << 20
"""Bytes of a message; a program that sends more without an end is disconnected."""
_MOST_WAITING = 16
"""Messages of a program that wait to be carried out; with more, no more are read from it."""
_LAST_MESSAGES = 1.0
"""Seconds for carrying out what a program sent just before it closed its connection, as with HiSLIP."""
_KEEPALIVE = ((getattr(socket, "TCP_KEEPIDLE", None), 5), (getattr(socket, "TCP_KEEPINTVL", None), 2),
              (getattr(socket, "TCP_KEEPCNT", None), 3))  # fmt: skip
"""A host that vanished without a word is noticed after 5 + 3 * 2 s."""


def keep_alive(connection: socket.socket) -> None:
    """Send small messages at once, and notice when the other host vanishes."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, door: InstrumentDoor) -> None:
    """Serve one program until it closes its connection, or this is cancelled."""
    peer = "{}:{}".format(*writer.get_extra_info("peername")[:2])
    keep_alive(writer.get_extra_info("socket"))
    try:
        visit = await door.visit(peer, lambda _: None)
    except RefusedError as error:
        _log.warning("%s: refused: %s", peer, error)
        writer.transport.abort()
        return
    lines: asyncio.Queue[bytes] = asyncio.Queue(_MOST_WAITING)
    worker = asyncio.get_running_loop().create_task(_answer(lines, writer, visit, peer))
    listener = asyncio.get_running_loop().create_task(_listen(reader, lines))
    orderly = False
    try:
        await asyncio.wait({worker, listener}, return_when=asyncio.FIRST_COMPLETED)
        orderly = listener.done() and listener.exception() is None
        if orderly:
            await asyncio.wait({worker, asyncio.ensure_future(lines.join())}, timeout=_LAST_MESSAGES,
                               return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
    finally:
        visit.hang_up()
        for task in (worker, listener):
            task.cancel()
        for ended in await asyncio.gather(worker, listener, return_exceptions=True):
            if isinstance(ended, Exception) and not isinstance(ended, OSError | ValueError | RefusedError):
                _log.error("%s: the instrument failed; disconnected", peer, exc_info=ended)
        writer.transport.abort()
        with contextlib.suppress(RefusedError):
            await visit.leave(orderly=orderly)


async def _listen(reader: asyncio.StreamReader, lines: asyncio.Queue[bytes]) -> None:
    """Read lines until the program closes its connection; one that has no end is not carried out."""
    while (line := await reader.readline()).endswith(b"\n"):
        await lines.put(line)


async def _answer(lines: asyncio.Queue[bytes], writer: asyncio.StreamWriter, visit: Visit, peer: str) -> None:
    while True:
        line = await lines.get()
        try:
            for reply in await visit.exchange(line) or ():
                writer.write(reply if reply.endswith(b"\n") else reply + b"\n")
                await writer.drain()
        except RefusedError as error:
            _log.warning("%s: refused, so it is disconnected: %s", peer, error)
            raise
        finally:
            lines.task_done()
