"""Programs that can be killed by the hundred: processes that are forked from one that has loaded what they need.

Run as ``python victims.py PORT NAME``: each line of its input is what the next one is to do, and it answers with the
pid of that process as soon as this is about to do it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "children")]

from talker import Program  # noqa: E402 - found there

from catkit_devices.gateway.messages import Message, MessageType  # noqa: E402

HOLDING = ["holds", "holds and asks", "holds and breaks off"]
"""What a victim does with the lock, having switched the lamp on."""
OTHERS = ["waits for the lock", "waits with a question", "asks", "breaks off"]
"""What it does without it."""


class Victims:
    """Start programs that use an instrument of a gateway, and kill them."""

    def __init__(self, port, name):
        self._started = subprocess.Popen(
            [sys.executable, __file__, str(port), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self._started:
            self._started.stdin.close()

    def start(self, what):
        """Return the pid of a program that does this."""
        self._started.stdin.write(what + "\n")
        self._started.stdin.flush()
        return int(self._started.stdout.readline())


def _do(port, name, what):
    one = Program(port, name)
    whole = Message(MessageType.DATA_END, 0, one.message_id, b"POW 8").encode()
    if what.startswith("holds"):
        one.lock(20)
        one.query(b"ECHO? begun")
        one.write(b"POW 7", rmt=1)
        one.query(b"POW?", rmt=0)
    yield
    if what == "waits for the lock":
        one.begin_lock(60)
    elif what == "waits with a question":
        one.write(b"ECHO? never asked")
    elif what.endswith("breaks off"):
        one.sync.socket.sendall(whole[: random.randrange(1, len(whole))])
    while what.endswith("asks"):
        one.query(b"ECHO? of the victim")
    signal.pause()


def _main(port, name):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody need wait for them
    for line in sys.stdin:
        if os.fork() == 0:
            doing = _do(int(port), name, line.strip())
            try:
                next(doing)
            except BaseException:
                print("failed: see the error output", flush=True)
                raise
            print(os.getpid(), flush=True)
            next(doing, None)


if __name__ == "__main__":
    _main(*sys.argv[1:])
