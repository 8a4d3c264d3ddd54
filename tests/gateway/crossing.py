"""Eight programs that ask what nobody else asks, and programs that send anything at all."""

from __future__ import annotations

import contextlib
import random
import socket
import threading

from talker import Line, Program

from catkit_devices.gateway.messages import HEADER, Message, MessageType


def cross(port, questions, name="hislip0"):
    """Ask ``questions`` in all from eight programs; return what went wrong."""
    failures = []
    threads = [threading.Thread(target=_ask, args=(port, n, questions // 8, failures, name)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def _ask(port, number, questions, failures, name):
    """Ask questions that nobody else asks; now and then clear the device, or break off and come back."""
    try:
        one = Program(port, name)
        for question in range(questions):
            tag = b"%d of %d" % (question, number)
            slow = question % 50 == number
            answer = one.query(b"SLOW? 0.002," + tag if slow else b"ECHO? " + tag)
            if answer != tag + b"\n":
                failures.append((tag, answer))
            if question % 97 == 5 * number:
                one.write(b"SLOW? 0.01,stale " + tag, rmt=1)
                one.clear()
            if question % 193 == 10 * number:
                one.write(b"SLOW? 0.01,stale " + tag, rmt=1)
                one.sync.reset()
                one.close()
                one = Program(port, name)
        one.close()
    except Exception as error:
        failures.append(error)


def abuse(port, messages, seed):
    """Send ``messages`` that are more or less malformed, from programs that break off when it goes wrong."""
    chance = random.Random(seed)
    while messages > 0:
        with contextlib.suppress(OSError, EOFError, AssertionError):
            if chance.random() < 0.2:
                messages -= 1
                with contextlib.closing(Line(port)) as line:
                    line.socket.sendall(_malformed(chance))
                continue
            with contextlib.closing(Program(port)) as one:
                for line in (one.sync, one.asyn):
                    line.socket.settimeout(0.001)
                while messages > 0:
                    messages -= 1
                    line = chance.choice([one.sync, one.sync, one.asyn])
                    line.socket.sendall(_malformed(chance))
                    with contextlib.suppress(TimeoutError, BlockingIOError):
                        if not line.socket.recv(1 << 16, socket.MSG_DONTWAIT):
                            break
                    if chance.random() < 0.01:
                        line.reset()
                        break


def _malformed(chance):
    kind = chance.choice([*MessageType, *[MessageType.DATA, MessageType.DATA_END] * 3, 30, 127, 128, 255])
    if chance.random() < 0.7 and kind in (MessageType.INITIALIZE, MessageType.ASYNC_INITIALIZE):
        kind = MessageType.DATA_END
    text = chance.choice([b"", b"ECHO? x", b"SLOW? 0.001,x", chance.randbytes(8), chance.randbytes(300)])
    message = Message(kind, chance.choice([0, 0, 0, 1, 2, 255]), chance.getrandbits(32), text).encode()
    match chance.random():
        case few if few < 0.005:
            return chance.randbytes(chance.randint(1, 40))
        case few if few < 0.01:
            return message[: chance.randint(1, len(message))]
        case few if few < 0.02:
            return HEADER.pack(b"HS", kind, 0, 0, chance.choice([2**21, 2**63, 2**64 - 1])) + text
    return message
