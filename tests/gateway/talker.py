"""A simulated instrument for the tests of the gateway, and a program that speaks HiSLIP byte by byte."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from catkit_devices.gateway.messages import Message, MessageParser, MessageType
from catkit_devices.simulation import Outbox

USB = "USB0::0x1234::0x5678::TALKER::0::INSTR"
GPIB = "GPIB0::7::INSTR"
LAN = "TCPIP0::10.0.0.9::inst0::INSTR"


class Talker:
    """``ECHO? x`` answers x, ``SLOW? seconds,x`` later, ``BLOCK? n`` with n bytes; anything else is kept."""

    message_end = b"\n"

    def __init__(self, bench):
        self.heard = []
        self.begun = b""
        self.clears = 0
        self.status = 0
        self.outbox = Outbox(bench.clock)

    def feed(self, data):
        *lines, self.begun = (self.begun + data).split(b"\n")
        for line in (line.rstrip(b"\r") for line in lines):
            self.heard.append(line)
            command, _, argument = line.partition(b" ")
            if command == b"ECHO?":
                self.outbox.put(argument + b"\n")
            elif command == b"SLOW?":
                seconds, _, text = argument.partition(b",")
                self.outbox.put(text + b"\n", float(seconds))
            elif command == b"BLOCK?":
                self.outbox.put(b"#8%08d" % int(argument) + bytes(int(argument)) + b"\n")
            elif command == b"*IDN?":
                self.outbox.put(b"Makers,Talker,1,1\n")
            elif command == b"STATUS":
                self.status = int(argument)
        return self.outbox.take_one()

    def clear(self):
        self.clears += 1
        self.begun = b""
        self.outbox.clear()

    def read_stb(self):
        return self.status

    def trigger(self):
        self.heard.append(b"<trigger>")
        return b"triggered\n"


class Unclearable(Talker):
    """The same without a device clear: what it was asked comes, sooner or later."""

    clear = None


class Untriggered(Talker):
    """The same without a trigger."""

    trigger = None


class Program:
    """A program with both connections, which says exactly what it is told to say."""

    def __init__(self, port, name="hislip0", version=0x0100, host="127.0.0.1"):
        self.port = port
        self.message_id = 0xFFFF_FF00
        self.sync = self.asyn = Line(port, host)
        try:
            self.sync.say(MessageType.INITIALIZE, 0, version << 16, name.encode())
            self.begun = self.sync.hear(MessageType.INITIALIZE_RESPONSE)
            self.session = self.begun.parameter & 0xFFFF
            self.asyn = Line(port, host)
            self.asyn.say(MessageType.ASYNC_INITIALIZE, 0, self.session)
            self.asyn.hear(MessageType.ASYNC_INITIALIZE_RESPONSE)
        except BaseException:
            self.close()
            raise

    def write(self, data, rmt=0):
        self.sync.say(MessageType.DATA_END, rmt, self.message_id, data)
        self.message_id = (self.message_id + 2) % 2**32

    @property
    def last_id(self):
        return (self.message_id - 2) % 2**32

    def read(self):
        whole = b""
        while (message := self.sync.hear(MessageType.DATA, MessageType.DATA_END)).kind is MessageType.DATA:
            whole += message.payload
        assert message.parameter == self.last_id
        return whole + message.payload

    def query(self, data, rmt=1):
        self.write(data, rmt)
        return self.read()

    def lock(self, seconds=0.0, key=b""):
        self.begin_lock(seconds, key)
        return self.asyn.hear(MessageType.ASYNC_LOCK_RESPONSE).control

    def begin_lock(self, seconds=0.0, key=b""):
        self.asyn.say(MessageType.ASYNC_LOCK, 1, int(seconds * 1000), key)

    def unlock(self):
        self.asyn.say(MessageType.ASYNC_LOCK, 0, self.last_id)
        return self.asyn.hear(MessageType.ASYNC_LOCK_RESPONSE).control

    def lock_info(self):
        self.asyn.say(MessageType.ASYNC_LOCK_INFO)
        answer = self.asyn.hear(MessageType.ASYNC_LOCK_INFO_RESPONSE)
        return answer.control, answer.parameter

    def status(self, rmt=0):
        self.asyn.say(MessageType.ASYNC_STATUS_QUERY, rmt, self.last_id)
        return self.asyn.hear(MessageType.ASYNC_STATUS_RESPONSE).control

    def clear(self, overlapped=0):
        self.asyn.say(MessageType.ASYNC_DEVICE_CLEAR)
        self.asyn.hear(MessageType.ASYNC_DEVICE_CLEAR_ACKNOWLEDGE)
        self.sync.say(MessageType.DEVICE_CLEAR_COMPLETE, overlapped)
        while (message := self.sync.next()).kind is not MessageType.DEVICE_CLEAR_ACKNOWLEDGE:
            assert message.kind in (MessageType.DATA, MessageType.DATA_END)
        self.message_id = 0xFFFF_FF00
        return message.control

    def close(self):
        self.sync.close()
        self.asyn.close()


class Line:
    def __init__(self, port, host="127.0.0.1"):
        self.socket = socket.create_connection((host, port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.parser = MessageParser(1 << 24)
        self.come = []

    def say(self, kind, control=0, parameter=0, payload=b""):
        self.socket.sendall(Message(kind, control, parameter, payload).encode())

    def next(self):
        while not self.come:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError("the server has closed the connection")
            self.come += self.parser.feed(data)
        return self.come.pop(0)

    def hear(self, *kinds):
        message = self.next()
        assert message.kind in kinds, message
        return message

    def close(self):
        self.socket.close()

    def reset(self):
        """End as when the host's process is killed in the middle of something: with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


HOLDER = """
import sys; sys.path.insert(0, sys.argv[2])
from talker import Program
one = Program(int(sys.argv[1]), sys.argv[4])
if sys.argv[3] == "holds":
    one.lock(); one.write(b"POW 7"); one.write(b"SLOW? 60,never")
else:
    one.begin_lock(60); one.lock_info(); one.write(b"KEEP never")
print("ready", flush=True)
sys.stdin.read()
"""


def run(port, what, name="hislip0"):
    """Start a program that holds the lock of an instrument, or waits for it."""
    started = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(port), os.path.dirname(__file__), what, name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert started.stdout.readline() == b"ready\n"
    return started


def kill(process):
    """End it by SIGKILL."""
    os.kill(process.pid, signal.SIGKILL)
    with process:
        process.wait()
